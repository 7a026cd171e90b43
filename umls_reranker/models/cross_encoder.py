"""`PairScorer`: scores equal pairs once, in batches by length; results are in input order.

Its networks are of two backends, PyTorch (`pretrained`) and ONNX Runtime.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import UserError
from ..core.json_files import read_json
from ..core.parallel import openmp_threads, progress, usable_cores
from .arguments import BACKENDS
from .pairs import PackedTexts, PairBatch, PairEncoder, PairKey, PairTemplate, divide_by_length

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from ..lists.candidate_lists import CandidateLists
    from .pretrained import TorchNetwork

# For fewer tokens, the overhead of a forward pass on a CPU exceeds the gain of a second core.
LEAST_TOKENS = 64
# Pairs whose logits a reranker remembers, of some 150 bytes each.
REMEMBERED_PAIRS = 100_000
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


class RememberedLogits:
    """Logits of pairs, from call to call; safe to use from several threads.

    Before it remembers more than `most` pairs, it forgets all. It holds hashes: no text of a call
    outlives it.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._logits: dict[bytes, float] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._logits)

    def recall(self, hashes: Sequence[bytes]) -> np.ndarray:
        """(n,) float32, NaN for unknown pairs, which are given by `hash_pair`."""
        # The table of this moment: another thread may begin a new one.
        return np.fromiter(map(self._logits.get, hashes, repeat(np.nan)), np.float32, len(hashes))

    def add(self, hashes: Sequence[bytes], logits: np.ndarray) -> None:
        """Remember the (n,) logits of pairs, or of the first `most`."""
        with self._lock:
            if len(self._logits) + len(hashes) > self.most:
                self._logits = {}
            self._logits.update(islice(zip(hashes, logits.tolist(), strict=True), self.most))


def hash_pair(key: PairKey) -> bytes:
    """16 bytes that stand for a pair."""
    first_length, ids = key
    return blake2b(b"%d " % first_length + ids, digest_size=16).digest()


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
        # Pairs or their texts are its batches, by `reads_pairs`.
        self.network: Any = network
        self.dtype = network.dtype
        self.backend = network.backend
        self.encoder = encoder
        self.template = encoder.template
        # Contexts rarely recur.
        most_remembered = 0 if self.template.context_tokens else remembered_pairs
        self.remembered = RememberedLogits(most_remembered)
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
                from .pretrained import load_network

                network, tokenizer = load_network(Path(folder), device, dtype)
        except ModuleNotFoundError as error:
            raise UserError(
                f"backend {backend} needs {error.name}, which is not installed: install "
                f"{INSTALLED_BY[backend]}"
            ) from None
        known = read_json(Path(folder) / "config.json").get("vocab_size", sys.maxsize)
        if (last := max(tokenizer.get_vocab().values())) >= known:
            raise UserError(
                f"{folder}: tokenizer.json has the id {last}, but the model only {known:,} tokens; "
                "download both again"
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
        remembers = self.remembered.most > 0 and len(mentions) <= chunk_pairs
        hashes: list[bytes] = []
        pair_of = np.empty(len(mentions), np.int64)
        truncated = 0
        count = 0
        recalled = [np.empty(0, np.float32)]
        batches = [np.empty(0, np.int64)]
        outputs = []
        title = desc if isinstance(desc, str) else None
        with progress(total=len(mentions), desc=title, unit=" pairs") as bar:
            report = desc if callable(desc) else bar.update
            for start in range(0, len(mentions), chunk_pairs):
                chunk = slice(start, start + chunk_pairs)
                contexts = (lefts and lefts[chunk], rights and rights[chunk])
                encoded, is_truncated = self.encoder.encode(
                    mentions[chunk], names[chunk], *contexts
                )
                truncated += int(is_truncated.sum())
                pairs, numbers, keys = encoded.distinct()
                pair_of[chunk] = count + numbers
                known = np.full(len(pairs), np.nan, np.float32)
                if remembers:
                    hashes = [*map(hash_pair, keys)]
                    known = self.remembered.recall(hashes)
                recalled.append(known)
                new = np.flatnonzero(np.isnan(known))
                repeats = np.bincount(numbers, minlength=len(pairs))
                report(len(numbers) - int(repeats[new].sum()))
                for batch, output in self._run(pairs.take(new)):
                    batches.append(count + new[batch])
                    outputs.append(output)
                    report(int(repeats[new[batch]].sum()))
                count += len(pairs)
        logits_of_pairs = np.concatenate(recalled)
        computed = np.concatenate(batches)
        if len(computed):
            # Synchronize with the GPU only after everything was sent to it.
            logits_of_pairs[computed] = self.network.collect(outputs)
        logits = logits_of_pairs[pair_of]
        if not np.isfinite(logits).all():
            raise UserError(
                "the model gave non-finite scores; its weights are damaged or overflow float16"
            )
        if remembers:
            self.remembered.add([hashes[row] for row in computed], logits_of_pairs[computed])
        return Scores(logits, truncated, len(computed))

    def _run(self, pairs: PairBatch) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield row numbers and logits of each batch of distinct pairs."""
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
            # A few pairs are divided among the cores.
            share = -(-int(texts.lengths.sum()) // self.network.threads)
            budget = min(budget, max(share, LEAST_TOKENS))
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


class OnnxNetwork:
    """The exported cross-encoder in ONNX Runtime, on the CPU, without importing PyTorch.

    It is like `TorchNetwork`, in float32. One thread computes each batch, so batches share the
    cores.

    Args:
        session: session of the graph, which names its inputs.
        pad_id: id of the padding token.
    """

    backend = "onnx"
    dtype = "float32"
    padded = True
    reads_pairs = True
    token_budget = 1_024

    def __init__(self, session: Any, pad_id: int) -> None:
        self._session = session
        self._inputs = [node.name for node in session.get_inputs()]
        self._pad_id = pad_id
        self.threads = openmp_threads() or usable_cores()

    def __call__(self, batch: PairBatch) -> np.ndarray:
        arrays = batch.padded(self._pad_id)
        return self._session.run(["logits"], {name: arrays[name] for name in self._inputs})[
            0
        ].reshape(-1)

    def map(
        self, forward: Callable[[np.ndarray], np.ndarray], batches: Sequence[np.ndarray]
    ) -> Iterator[np.ndarray]:
        # Threads of one call: a forked process would not have those of its parent.
        with ThreadPoolExecutor(self.threads) as pool:
            yield from pool.map(forward, batches)

    def collect(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(outputs)


def load_onnx(folder: Path, device: str | None, dtype: str | None) -> tuple[OnnxNetwork, Tokenizer]:
    """Load the cross-encoder that ``umls-reranker export`` wrote, and its tokenizer.

    Raises:
        UserError: the cross-encoder is missing or damaged, or a GPU or another dtype is requested.
    """
    import onnxruntime
    from tokenizers import Tokenizer

    if device not in (None, "auto", "cpu"):
        raise UserError(
            f"backend onnx runs on the CPU; remove device={device!r} or use backend torch"
        )
    if dtype not in (None, "auto", "float32"):
        raise UserError(f"backend onnx runs in float32, not in {dtype}; use backend torch")
    file = folder / BACKENDS["onnx"]
    if not file.is_file():
        raise UserError(f"{file} is missing; umls-reranker export RECIPE writes it")
    pad_id = read_json(folder / "config.json").get("pad_token_id") or 0
    # Its builds for Windows send telemetry.
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        return OnnxNetwork(session, pad_id), Tokenizer.from_file(str(folder / "tokenizer.json"))
    # Both libraries raise exceptions of their own for unreadable files.
    except Exception as error:
        raise UserError(
            f"{file} or tokenizer.json cannot be read: {' '.join(str(error).split())}"
        ) from None
