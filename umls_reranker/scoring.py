"""The scoring engine: logits of (mention, candidate name) pairs.

Equal pairs are scored once, pairs are batched by length under a token budget, and results come back in input order.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .batching import batch_mapper, length_batches
from .devices import resolve_device, resolve_precision
from .errors import UserError
from .progress import progress
from .template import EncodedPairs, PairEncoder, PairTemplate

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["PairScorer", "Scores"]

# Padded tokens of one forward pass. Small batches stay in a processor's cache; a GPU needs many rows to be busy.
TOKEN_BUDGET = {"cpu": 2_048, "cuda": 65_536}
CHUNK_PAIRS = 65_536
MANY_BATCHES = 16


@dataclass
class Scores:
    """Logits of n pairs.

    Attributes:
        logits: (n,) float32, raw log-odds of the model, in input order.
        truncated: pairs of which mention or name was cut to fit ``max_length``.
    """

    logits: np.ndarray
    truncated: int


class PairScorer:
    """Scores pairs with a sequence-classification model of one logit.

    Args:
        model: a transformers model with ``num_labels=1``.
        encoder: tokenizer and template.
        device: where to run.
        precision: float32, bfloat16 or float16; the last layer always computes in float32, since logits near 5 would
            otherwise come in steps of 0.03 and tie candidates that differ.
        token_budget: padded tokens of one forward pass; by default 2,048 on a processor and 65,536 on a GPU.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        encoder: PairEncoder,
        device: torch.device,
        precision: str = "float32",
        token_budget: int | None = None,
    ) -> None:
        import torch

        self.precision = precision
        self.device = device
        self.encoder = encoder
        self.model = model.to(device=device, dtype=getattr(torch, precision)).eval()
        self.token_budget = token_budget or TOKEN_BUDGET.get(device.type, TOKEN_BUDGET["cuda"])
        self._takes_token_types = "token_type_ids" in encoder.tokenizer.model_input_names
        self._tokenizer_lock = threading.Lock()
        if precision != "float32":
            _keep_last_layer_in_float32(model)

    @classmethod
    def from_folder(
        cls, folder: str | Path, template: PairTemplate, device: str | None = None, precision: str | None = None
    ) -> PairScorer:
        """Load model and tokenizer from a local folder of safetensors and text files.

        Raises:
            UserError: the folder holds no model, a corrupt one, or one with more than one logit.
        """
        from safetensors import SafetensorError
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        chosen_device = resolve_device(device)
        chosen_precision = resolve_precision(precision, chosen_device)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForSequenceClassification.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype="float32"
            )
        except SafetensorError as error:
            raise UserError(f"{folder}: the weights are corrupt ({error}); download or make the model again") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} holds no loadable model: {error}") from None
        if model.config.num_labels != 1:
            raise UserError(f"{folder}: the model has {model.config.num_labels} outputs; a reranker has one logit")
        return cls(model, PairEncoder(tokenizer, template), chosen_device, chosen_precision)

    @property
    def template(self) -> PairTemplate:
        """How the model reads a pair."""
        return self.encoder.template

    def score(
        self,
        mentions: Sequence[str],
        names: Sequence[str],
        lefts: Sequence[str] | None = None,
        rights: Sequence[str] | None = None,
        desc: str | None = None,
    ) -> Scores:
        """Score n pairs.

        Args:
            mentions, names: n texts each.
            lefts, rights: n texts around each mention, used when the template has context.
            desc: title of a progress bar; None shows none.
        """
        chunks, truncated = [], 0
        bar = progress(total=len(mentions), desc=desc, unit=" pairs") if desc else None
        for start in range(0, len(mentions), CHUNK_PAIRS):
            part = slice(start, start + CHUNK_PAIRS)
            with self._tokenizer_lock:
                pairs = self.encoder.encode(
                    mentions[part], names[part], lefts[part] if lefts else None, rights[part] if rights else None
                )
            chunks.append(self._score_encoded(pairs, bar))
            truncated += pairs.truncated
        if bar is not None:
            bar.close()
        logits = np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
        if not np.isfinite(logits).all():
            raise UserError("the model gave scores that are not numbers; its weights are damaged or overflow float16")
        return Scores(logits, truncated)

    def _score_encoded(self, pairs: EncodedPairs, bar) -> np.ndarray:
        import torch

        distinct: dict[tuple[int, ...], int] = {}
        first_lengths = []
        inverse = np.empty(len(pairs.input_ids), np.int64)
        for row, ids in enumerate(pairs.input_ids):
            key = tuple(ids)
            if key not in distinct:
                distinct[key] = len(distinct)
                first_lengths.append(pairs.first_lengths[row])
            inverse[row] = distinct[key]
        repeats = np.bincount(inverse, minlength=len(distinct))
        rows = list(distinct)
        batches = length_batches(np.fromiter(map(len, rows), np.int64, len(rows)), self.token_budget)

        def forward(batch: np.ndarray) -> torch.Tensor:
            return self._forward([rows[i] for i in batch], [first_lengths[i] for i in batch])

        # A pool of threads costs more than it gains on the few batches of a single mention.
        mapper = batch_mapper(self.device) if len(batches) >= MANY_BATCHES else nullcontext(map)
        outputs = []
        with mapper as map_batches:
            for batch, output in zip(batches, map_batches(forward, batches), strict=True):
                outputs.append(output)
                if bar is not None:
                    bar.update(int(repeats[batch].sum()))
        # One transfer for all batches, so that a GPU is never waited for in the loop.
        flat = torch.cat(outputs).float().cpu().numpy() if outputs else np.zeros(0, np.float32)
        logits = np.empty(len(rows), np.float32)
        if batches:
            logits[np.concatenate(batches)] = flat
        return logits[inverse]

    def _forward(self, rows: list[tuple[int, ...]], first_lengths: list[int]) -> torch.Tensor:
        import torch

        width = max(map(len, rows))
        input_ids = np.full((len(rows), width), self.encoder.tokenizer.pad_token_id or 0, np.int64)
        attention_mask = np.zeros((len(rows), width), np.int64)
        token_type_ids = np.zeros((len(rows), width), np.int64)
        for i, (ids, first) in enumerate(zip(rows, first_lengths, strict=True)):
            input_ids[i, : len(ids)] = ids
            attention_mask[i, : len(ids)] = 1
            token_type_ids[i, first : len(ids)] = 1
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._takes_token_types:
            inputs["token_type_ids"] = token_type_ids
        tensors = {name: torch.from_numpy(array).to(self.device, non_blocking=True) for name, array in inputs.items()}
        with torch.inference_mode():
            return self.model(**tensors).logits.squeeze(-1)


def _keep_last_layer_in_float32(model: PreTrainedModel) -> None:
    from torch import nn

    heads = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 1]
    if not heads:
        raise UserError(f"{type(model).__name__} ends in no linear layer of one output; score it in float32")
    heads[-1].float().register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
