"""The bi-encoder: short texts in, unit vectors out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..batching import batch_mapper, length_batches
from ..devices import resolve_device, resolve_precision
from ..errors import UserError
from ..progress import progress
from ..resources import resolve_model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["BiEncoder"]

POOLINGS = ("mean", "cls")
# Padded tokens of one forward pass: small batches stay in a processor's cache, a GPU needs many rows to be busy.
TOKEN_BUDGET = {"cpu": 2_048, "cuda": 65_536}
# Texts tokenized and kept on the device together. Part of the result's last bits (who is padded with whom), so fixed.
CHUNK = 16_384


class BiEncoder:
    """A transformer encoder with pooling, made with `from_pretrained`.

    Args:
        model: an encoder that returns ``last_hidden_state``, on its device and in its precision.
        tokenizer: its tokenizer.
        identity: what decides the vectors apart from rounding: ``model``, ``revision``, ``pooling``, ``max_length``.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, identity: dict[str, str | int | None]
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.identity = identity

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        revision: str | None = None,
        *,
        pooling: str = "mean",
        max_length: int = 64,
        device: str = "auto",
        dtype: str = "auto",
    ) -> BiEncoder:
        """Load an encoder from a folder or the Hub (safetensors only).

        Args:
            model: local folder or Hub id, e.g. ``"cambridgeltl/SapBERT-from-PubMedBERT-fulltext"``.
            revision: Hub branch, tag or commit.
            pooling: ``"mean"`` over the tokens (sentence-transformers models) or ``"cls"`` (SapBERT).
            max_length: most tokens of a text, special tokens included; the rest of a longer text is not read.
            device: ``"auto"`` takes a GPU when there is one; or ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
            dtype: ``"auto"``, ``"float32"``, ``"bfloat16"`` or ``"float16"``, of the weights and the transformer;
                pooling and normalization are in float32.

        Raises:
            UserError: the model cannot be found, reached or loaded, or a setting has no meaning.
        """
        if pooling not in POOLINGS:
            raise UserError(f"encoder_pooling: {pooling!r} is unknown; use {' or '.join(POOLINGS)}")
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModel, AutoTokenizer

        place = resolve_device(device)
        precision = resolve_precision(dtype, place, key="encoder_precision")
        source = resolve_model(model, revision)
        # On a CPU the plain attention is the faster one for texts of some ten tokens (1.3x in bfloat16).
        attention = "eager" if place.type == "cpu" else "sdpa"
        try:
            tokenizer = AutoTokenizer.from_pretrained(source)
            encoder = AutoModel.from_pretrained(
                source,
                dtype=getattr(torch, precision),
                attn_implementation=attention,
                use_safetensors=True,
            )
        except (OSError, ValueError, SafetensorError) as error:
            reason = " ".join(str(error).split()).partition(". ")[0]
            raise UserError(
                f"encoder {model!r} (revision {revision or 'main'}) cannot be loaded: {reason}; "
                "it needs config.json, model.safetensors and tokenizer files"
            ) from None
        longest = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        if max_length > longest:
            raise UserError(f"encoder_max_length is {max_length} but {model} reads at most {longest} tokens; lower it")
        identity = {"model": model, "revision": revision, "pooling": pooling, "max_length": max_length}
        return cls(encoder.to(place), tokenizer, identity)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.model.config.hidden_size

    def encode(self, texts: Sequence[str], *, token_budget: int | None = None, desc: str | None = None) -> np.ndarray:
        """Vectors of `texts`, so that an inner product is a cosine.

        Args:
            texts: n strings.
            token_budget: most tokens in a batch, padding included; by default 2,048 on a processor, 65,536 on a GPU.
            desc: name of a progress bar; no bar without it.

        Returns:
            (n, dimension) float32, L2-normalized.
        """
        token_budget = token_budget or TOKEN_BUDGET.get(self.model.device.type, TOKEN_BUDGET["cuda"])
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        bar = progress(total=len(texts), desc=desc, unit=" texts") if desc else None
        with batch_mapper(self.model.device) as parallel_map:
            for start in range(0, len(texts), CHUNK):
                batches, pooled = self._encode_chunk(texts[start : start + CHUNK], token_budget, parallel_map, bar)
                vectors[start + batches] = pooled
        if bar is not None:
            bar.close()
        return vectors

    def _encode_chunk(
        self, texts: Sequence[str], token_budget: int, parallel_map: Callable, bar: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers of the texts in the order they were computed, and their vectors."""
        import torch

        encoded = self.tokenizer(
            list(texts),
            truncation=True,
            max_length=self.identity["max_length"],
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
        tokens = np.concatenate(encoded).astype(np.int64)
        starts = np.cumsum(lengths) - lengths

        def forward(batch: np.ndarray) -> torch.Tensor:
            positions = np.arange(lengths[batch[0]])  # the longest row comes first
            mask = positions < lengths[batch, None]
            input_ids = np.full(mask.shape, self.tokenizer.pad_token_id or 0)
            input_ids[mask] = tokens[(starts[batch, None] + positions)[mask]]
            return self._forward(torch.from_numpy(input_ids), torch.from_numpy(mask))

        batches = length_batches(lengths, token_budget)
        pooled = []
        for batch, vectors in zip(batches, parallel_map(forward, batches), strict=True):
            pooled.append(vectors)
            if bar is not None:
                bar.update(len(batch))
        return np.concatenate(batches), torch.cat(pooled).cpu().numpy()

    def _forward(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(rows, width) int64 and bool -> (rows, dimension) float32 unit vectors on the model's device."""
        import torch

        with torch.inference_mode():
            input_ids, mask = input_ids.to(self.model.device), mask.to(self.model.device)
            hidden = self.model(input_ids=input_ids, attention_mask=mask.long()).last_hidden_state.float()
            # A sum over the tokens points where their mean does.
            pooled = hidden[:, 0] if self.identity["pooling"] == "cls" else (hidden * mask.unsqueeze(-1)).sum(dim=1)
            return torch.nn.functional.normalize(pooled, dim=-1)
