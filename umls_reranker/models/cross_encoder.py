"""`PairScorer`: scores equal pairs once, in batches by length, and returns results in input order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers

from ..core.arguments import BACKENDS, EXPORTED_FILES
from ..core.arrays import RepeatedTexts
from ..core.devices import resolve_device, resolve_precision
from ..core.errors import UserError
from ..core.progress import progress
from .batching import batch_mapper, length_batches, token_batches
from .networks import CompiledModel, Network, PackedBert, PaddedModel
from .pretrained import load_model, load_pretrained
from .runtimes import load_exported
from .template import PairTemplate
from .tokens import EncodedPairs, PairBatch, PairEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..data.candidate_lists import CandidateLists

__all__ = ["PairScorer", "Scores", "score_lists"]

CHUNK_PAIRS = 65_536
# Small batches fit a CPU's cache; a GPU needs many rows.
TOKEN_BUDGET = {"cpu": 1_024, "cuda": 65_536}
# For fewer tokens, the overhead of a forward pass on a CPU exceeds the gain of a second core.
LEAST_TOKENS = 64


@dataclass
class Scores:
    """Logits of n pairs.

    Attributes:
        logits: (n,) float32, raw log-odds of the model, in input order.
        truncated: number of pairs whose mention or name was cut to ``max_length``.
    """

    logits: np.ndarray
    truncated: int


class PairScorer:
    """Scores pairs with a network of one logit; safe to use from several threads.

    Args:
        network: maps batches to logits.
        encoder: tokenizer and template.
        token_budget: maximum tokens per forward pass, padding included; default 1,024 on a CPU, 65,536 on a GPU.

    Raises:
        UserError: the budget is no whole number, or below 1.
    """

    def __init__(self, network: Network, encoder: PairEncoder, token_budget: int | None = None) -> None:
        self.network = network
        self.encoder = encoder
        usual = TOKEN_BUDGET.get(network.device.type, TOKEN_BUDGET["cuda"])
        self.token_budget = usual if token_budget is None else token_budget
        if not isinstance(self.token_budget, int | np.integer) or self.token_budget < 1:
            raise UserError(
                f"token_budget: {token_budget!r} must be a whole number, 1 or more; empty takes the usual one"
            )

    @property
    def precision(self) -> str:
        """Precision of the network: float32, bfloat16, float16 or int8."""
        return self.network.precision

    @property
    def backend(self) -> str:
        """Name of the backend (`BACKENDS`)."""
        return self.network.backend

    @property
    def template(self) -> PairTemplate:
        """How the model reads a pair."""
        return self.encoder.template

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        template: PairTemplate,
        device: str | None = None,
        precision: str | None = None,
        backend: str = "torch",
        token_budget: int | None = None,
    ) -> PairScorer:
        """Load network and tokenizer from a local folder.

        Raises:
            UserError: the folder holds no model for the backend, or it is corrupt or has more than one logit.
        """
        try:
            tokenizer = load_pretrained(transformers.AutoTokenizer, folder)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} holds no loadable model: {error}") from None
        network = load_network(Path(folder), tokenizer, device, precision, backend)
        return cls(network, PairEncoder(tokenizer, template), token_budget)

    def score(
        self,
        mentions: Sequence[str],
        names: Sequence[str],
        lefts: Sequence[str] | None = None,
        rights: Sequence[str] | None = None,
        desc: str | Callable[[int], Any] | None = None,
    ) -> Scores:
        """Score n pairs.

        Args:
            mentions, names: n texts each.
            lefts, rights: n texts around each mention, used if the template has context.
            desc: title of a progress bar, or what is told how many more pairs are scored; None shows nothing.
        """
        if any(len(column) != len(mentions) for column in (names, lefts or mentions, rights or mentions)):
            raise ValueError(f"{len(mentions)} mentions need as many names and contexts")
        logits, truncated, waiting = np.empty(len(mentions), np.float32), 0, None
        bar = progress(total=len(mentions), desc=desc, unit=" pairs") if isinstance(desc, str) else None
        scored = desc if callable(desc) else bar and bar.update
        for start in range(0, len(mentions), CHUNK_PAIRS):
            part = slice(start, start + CHUNK_PAIRS)
            encoded = self.encoder.encode(mentions[part], names[part], lefts and lefts[part], rights and rights[part])
            truncated += encoded.truncated
            pairs, rows = encoded.distinct()
            outputs, repeats = [], np.bincount(rows, minlength=len(pairs))
            for batch, output in self._run(pairs):
                outputs.append((batch, output))
                if scored is not None:
                    scored(int(repeats[batch].sum()))
            # The GPU is waited for only after the next chunk is sent to it.
            if waiting is not None:
                _collect(logits, *waiting)
            waiting = (part, rows, outputs)
        if waiting is not None:
            _collect(logits, *waiting)
        if bar is not None:
            bar.close()
        if not np.isfinite(logits).all():
            raise UserError("the model gave scores that are not numbers; its weights are damaged or overflow float16")
        return Scores(logits, truncated)

    def _run(self, pairs: EncodedPairs) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Row numbers and logits of each batch of distinct pairs."""
        lengths, budget = pairs.lengths, self.token_budget
        # Asked for anew: a process forked from where the scorer was made has none of its threads.
        mapper = batch_mapper(self.network.device) if self.network.in_threads else map
        if mapper is not map:
            # A few pairs are divided among the cores.
            share = -(-int(lengths.sum()) // torch.get_num_threads())
            budget = min(budget, max(share, LEAST_TOKENS))
        cut = length_batches if self.network.padded else token_batches
        batches = cut(lengths, budget)

        def forward(batch: np.ndarray) -> torch.Tensor:
            return self.network(PairBatch.of(pairs, batch))

        yield from zip(batches, (map if len(batches) == 1 else mapper)(forward, batches), strict=True)


def load_network(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    device: str | None = None,
    precision: str | None = None,
    backend: str = "torch",
) -> Network:
    """Load a network from a model folder.

    Raises:
        UserError: the backend is unknown, or the folder has no valid model of one logit for it.
    """
    if backend not in BACKENDS:
        raise UserError(f"backend {backend!r} is unknown; choose from {', '.join(BACKENDS)}")
    if backend in EXPORTED_FILES:
        return load_exported(folder, tokenizer, device, precision, backend)
    place = resolve_device(device)
    dtype = resolve_precision(precision, place, inference=True)
    if backend == "torch_compile":
        return CompiledModel(load_model(folder), tokenizer, place, dtype)
    packed = PackedBert.from_folder(folder, place, dtype)
    return packed or PaddedModel(load_model(folder), tokenizer, place, dtype)


def score_lists(
    scorer: PairScorer,
    lists: CandidateLists,
    desc: str | Callable[[int], Any] | None = None,
    retained: np.ndarray | None = None,
) -> Scores:
    """Score the m candidates of n mentions, in order, with the scorer's template.

    Args:
        desc: as of `PairScorer.score`.
        retained: (m,) bool, which candidates to score; the others have the logit NaN. None: all.
    """
    if retained is not None and not retained.all():
        scores = score_lists(scorer, lists.with_candidates(retained), desc)
        logits = np.full(len(retained), np.nan, np.float32)
        logits[retained] = scores.logits
        return Scores(logits, scores.truncated)
    template, owner = scorer.template, lists.owner
    return scorer.score(
        RepeatedTexts(template.mention_texts(lists), owner),
        template.candidate_texts(lists),
        RepeatedTexts(lists.lefts, owner),
        RepeatedTexts(lists.rights, owner),
        desc,
    )


def _collect(
    logits: np.ndarray, part: slice, rows: np.ndarray, outputs: list[tuple[np.ndarray, torch.Tensor]]
) -> None:
    """Store the logits of a chunk; the only place that waits for a GPU."""
    batches, tensors = zip(*outputs, strict=True)
    distinct = np.empty(sum(map(len, batches)), np.float32)
    distinct[np.concatenate(batches)] = torch.cat(tensors).cpu().numpy()
    logits[part] = distinct[rows]
