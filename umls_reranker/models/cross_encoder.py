"""`PairScorer` gives each pair of a mention and a name a logit; `score_lists` all candidates.

Equal pairs are scored once, in batches of similar length, and results are in input order. The
networks are of two backends, PyTorch (`torch_networks`) and ONNX Runtime (`onnx_network`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import UserError
from ..core.json_files import read_json
from ..core.parallel import progress
from .batches import PackedTexts, PairBatch, divide_by_length
from .onnx_network import OnnxNetwork, load_onnx
from .pair_template import PairTemplate
from .pairs import PairEncoder
from .remembered_logits import RememberedLogits, hash_pair

if TYPE_CHECKING:
    from ..lists.candidate_lists import CandidateLists
    from .torch_networks import TorchNetwork

# For fewer tokens, the overhead of a forward pass on a CPU exceeds the gain of a second core.
LEAST_TOKENS = 64
# Pairs whose logits a reranker remembers, of some 150 bytes each.
REMEMBERED_PAIRS = 100_000
# What to install for a backend.
INSTALLED_BY = {"torch": "umls_reranker again", "onnx": "the extra onnx"}


@dataclass
class Scores:
    """Logits of n pairs.

    Attributes:
        logits: (n,) float32, raw log-odds of the model, in input order.
        truncated: number of pairs whose mention or name was truncated to ``max_length``.
        computed: number of pairs that the network ran on; repeated and remembered ones are not
            among them.
    """

    logits: np.ndarray
    truncated: int
    computed: int = 0


@dataclass(frozen=True)
class _Chunk:
    """Pairs that are encoded together: n, of which d are distinct.

    Attributes:
        distinct_of: (n,) int64, the number of each pair among the distinct ones.
        hashes: of the d distinct pairs; empty if none is to be remembered.
        logits: (d,) float32; NaN where the network has yet to compute them.
        batches: for each batch, the numbers of the distinct pairs that the network got.
        outputs: for each batch, what the network gave; on a GPU it may be still computing.
    """

    distinct_of: np.ndarray
    hashes: list[bytes]
    logits: np.ndarray
    batches: list[np.ndarray] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)


class PairScorer:
    """Scores pairs with a network of one logit, or an encoder; safe to use from several threads.

    Args:
        network: maps batches to logits.
        encoder: tokenizer and template.
        token_budget: maximum tokens per forward pass, padding included; by default the network's.
        remembered_pairs: number of pairs whose logits are remembered from call to call, if the
            template has no context; the weights must not change. 0: none.

    Attributes:
        dtype: number format of the network: float32, bfloat16 or float16.
        backend: name of the backend: torch or onnx.
        template: how the model reads a pair.

    Raises:
        UserError: the budget is not a whole number, or below 1.
    """

    def __init__(
        self,
        network: TorchNetwork | OnnxNetwork,
        encoder: PairEncoder,
        token_budget: int | None = None,
        remembered_pairs: int = 0,
    ) -> None:
        # `Any`: its batches are pairs or texts, depending on `reads_pairs`.
        self.network: Any = network
        self.dtype = network.dtype
        self.backend = network.backend
        self.encoder = encoder
        self.template = encoder.template
        # Contexts rarely recur.
        capacity = 0 if self.template.context_tokens else remembered_pairs
        self.remembered = RememberedLogits(capacity)
        self.token_budget = network.token_budget if token_budget is None else token_budget
        if not isinstance(self.token_budget, int | np.integer) or self.token_budget < 1:
            raise UserError(
                f"token_budget: {token_budget!r} must be an integer of 1 or more; "
                "leave it empty for the default"
            )

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        template: PairTemplate,
        device: str | None = None,
        dtype: str | None = None,
        backend: str = "torch",
        token_budget: int | None = None,
        remembered_pairs: int = 0,
    ) -> PairScorer:
        """Load network and tokenizer from a local folder.

        Raises:
            UserError: the backend is not installed, or the folder has no valid model of one logit
                for it.
        """
        network: TorchNetwork | OnnxNetwork
        # Each backend is imported only if used: the other one may not be installed.
        try:
            if backend == "onnx":
                network, tokenizer = load_onnx(Path(folder), device, dtype)
            else:
                from .torch_networks import load_network

                network, tokenizer = load_network(Path(folder), device, dtype)
        except ModuleNotFoundError as error:
            raise UserError(
                f"backend {backend} needs {error.name}, which is not installed: install "
                f"{INSTALLED_BY[backend]}"
            ) from None
        vocabulary_size = read_json(Path(folder) / "config.json").get("vocab_size", sys.maxsize)
        last_id = max(tokenizer.get_vocab().values())
        if last_id >= vocabulary_size:
            raise UserError(
                f"{folder}: tokenizer.json has the id {last_id}, but the model only "
                f"{vocabulary_size:,} tokens; download both again"
            )
        return cls(network, PairEncoder(tokenizer, template), token_budget, remembered_pairs)

    def advice(self, dtype: str | None, in_batches: bool) -> str | None:
        """`bfloat16_advice` for a network that was loaded with this ``dtype``."""
        if self.backend != "torch":
            return None
        from ..core.devices import bfloat16_advice

        network = self.network
        option = "--dtype bfloat16"
        return bfloat16_advice(dtype, network.device, network.size, option, in_batches)

    def score(
        self,
        mentions: Sequence[str],
        names: Sequence[str],
        lefts: Sequence[str] | None = None,
        rights: Sequence[str] | None = None,
        desc: str | Callable[[int], Any] | None = None,
        *,
        chunk_pairs: int = 65_536,
    ) -> Scores:
        """Score n pairs.

        Args:
            mentions: n texts.
            names: n texts.
            lefts: n texts before the mentions, used if the template has context.
            rights: n texts after the mentions.
            desc: title of a progress bar, or a function that is called with the number of pairs
                just scored; None shows nothing.
            chunk_pairs: number of pairs that are encoded together. Of a call with more than these,
                nothing is remembered.
        """
        remembers = self.remembered.capacity > 0 and len(mentions) <= chunk_pairs
        chunks = []
        truncated = 0
        title = desc if isinstance(desc, str) else None
        with progress(total=len(mentions), desc=title, unit=" pairs") as bar:
            report = desc if callable(desc) else bar.update
            for start in range(0, len(mentions), chunk_pairs):
                rows = slice(start, start + chunk_pairs)
                contexts = (lefts and lefts[rows], rights and rights[rows])
                encoded, is_truncated = self.encoder.encode(mentions[rows], names[rows], *contexts)
                truncated += int(is_truncated.sum())
                pairs, distinct_of, keys = encoded.distinct()
                hashes = [hash_pair(key) for key in keys] if remembers else []
                chunk = _Chunk(distinct_of, hashes, self._remembered(hashes, len(pairs)))
                chunks.append(chunk)
                new = np.flatnonzero(np.isnan(chunk.logits))
                repeats = np.bincount(distinct_of, minlength=len(pairs))
                report(len(distinct_of) - int(repeats[new].sum()))
                for batch, output in self._run(pairs.take(new)):
                    chunk.batches.append(new[batch])
                    chunk.outputs.append(output)
                    report(int(repeats[new[batch]].sum()))
        logits = np.empty(len(mentions), np.float32)
        computed_count = 0
        # A GPU computes all the while; only now is it waited for.
        for number, chunk in enumerate(chunks):
            computed_count += self._complete(chunk)
            start = number * chunk_pairs
            logits[start : start + chunk_pairs] = chunk.logits[chunk.distinct_of]
        return Scores(logits, truncated, computed_count)

    def _remembered(self, hashes: Sequence[bytes], count: int) -> np.ndarray:
        """The remembered logits of `count` pairs, (count,) float32; NaN for those to compute."""
        if not hashes:
            return np.full(count, np.nan, np.float32)
        return self.remembered.recall(hashes)

    def _complete(self, chunk: _Chunk) -> int:
        """Fill in the logits that the network computed, and remember them.

        Returns:
            Number of pairs that the network ran on.

        Raises:
            UserError: a logit is not finite.
        """
        if not chunk.batches:
            return 0
        computed = np.concatenate(chunk.batches)
        chunk.logits[computed] = self.network.collect(chunk.outputs)
        if not np.isfinite(chunk.logits).all():
            raise UserError(
                "the model gave non-finite scores; its weights are damaged or overflow float16"
            )
        if chunk.hashes:
            self.remembered.add(
                [chunk.hashes[number] for number in computed], chunk.logits[computed]
            )
        return len(computed)

    def _run(self, pairs: PairBatch) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield row numbers and logits of each batch of distinct pairs.

        An encoder computes a vector of each distinct text first, then the logits of all pairs.
        """
        if self.network.reads_pairs:
            yield from self._computed(pairs)
        elif len(pairs):
            texts, text_of = pairs.texts()
            rows, vectors = zip(*self._computed(texts), strict=True)
            logits = self.network.logits(np.concatenate(rows), vectors, text_of)
            yield np.arange(len(pairs)), logits

    def _computed(self, texts: PackedTexts) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield row numbers and the network's output of each batch of pairs, or of texts."""
        budget = self.token_budget
        if self.network.threads > 1:
            # A few pairs are divided among the cores: the tokens of each are rounded up.
            tokens_per_core = -(-int(texts.lengths.sum()) // self.network.threads)
            budget = min(budget, max(tokens_per_core, LEAST_TOKENS))
        batches = divide_by_length(texts.lengths, budget, self.network.padded)

        def forward(batch: np.ndarray) -> Any:
            return self.network(texts.take(batch))

        mapper = map if len(batches) < 2 else self.network.map
        yield from zip(batches, mapper(forward, batches), strict=True)


def score_lists(
    cross_encoder: PairScorer | None,
    lists: CandidateLists,
    retained: np.ndarray | None = None,
    *,
    desc: str | Callable[[int], Any] | None = None,
) -> Scores:
    """Score the m candidates of n mentions, in order, with the template of the cross-encoder.

    A pair that its tokens do not tell apart (`PairEncoder.are_legible`) has the logit NaN: the
    other features decide.

    Args:
        cross_encoder: the cross-encoder; None: there is none, so all logits are NaN.
        lists: the candidate lists.
        retained: (m,) bool, candidates to score; the others have the logit NaN. None: all.
        desc: as for `PairScorer.score`.
    """
    logits = np.full(len(lists.owner), np.nan, np.float32)
    if cross_encoder is None:
        return Scores(logits, 0)
    wanted = legible_pairs(cross_encoder, lists, retained)
    scored = lists if wanted.all() else lists.with_candidates(wanted)
    mentions = cross_encoder.template.mention_texts(scored)
    owner = scored.owner.tolist()
    scores = cross_encoder.score(
        [mentions[number] for number in owner],
        cross_encoder.template.candidate_texts(scored),
        [scored.lefts[number] for number in owner],
        [scored.rights[number] for number in owner],
        desc,
    )
    logits[wanted] = scores.logits
    return Scores(logits, scores.truncated, scores.computed)


def legible_pairs(
    cross_encoder: PairScorer, lists: CandidateLists, retained: np.ndarray | None = None
) -> np.ndarray:
    """The candidates that the cross-encoder can tell apart from other texts, (m,) bool.

    Arguments are those of `score_lists`; of candidates that are not retained, none is.
    """
    is_legible = np.zeros(len(lists.owner), bool)
    rows = np.arange(len(lists.owner)) if retained is None else np.flatnonzero(retained)
    is_legible[rows] = cross_encoder.encoder.are_legible(
        [lists.mentions[number] for number in lists.owner[rows].tolist()],
        lists.names[rows].to_list(),
    )
    return is_legible
