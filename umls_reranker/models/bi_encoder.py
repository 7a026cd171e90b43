"""The bi-encoder: from short texts to unit vectors.

A mention may be read in its text, if the encoder was trained for it (umls-reranker train_encoder):

    [CLS] left context <start> mention <end> right context [SEP]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from torch import Tensor
from torch.nn import functional

from ..core.devices import batch_mapper, resolve_device, resolve_dtype
from ..core.errors import UserError
from ..core.fetch import resolve_model
from ..core.files import read_json
from ..core.progress import progress
from .batching import length_batches, token_batches
from .packed import PackedLayers, load_bert
from .pretrained import load_body, load_pretrained, loading
from .template import MARKERS
from .tokens import PackedTexts, padded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "CONTEXT_FILE",
    "BiEncoder",
    "PackedEncoder",
    "PaddedEncoder",
    "QueryTokenizer",
    "joined",
    "pooled",
    "require_room",
]

POOLINGS = ("mean", "cls")
# Names of weights in a folder of the encoder alone, and in one with a head (`BertForMaskedLM`).
PREFIXES = ("", "bert.")

# Tokens per forward pass: small batches fit a CPU's cache, a GPU needs many rows. Fixed, because the last bits of an
# index depend on it.
TOKEN_BUDGET = {"cpu": 2_048, "cuda": 65_536}
# Texts tokenized and kept on the device together. Fixed, because the last bits also depend on who shares a batch.
CHUNK = 16_384
# Stored with an encoder that was trained on mentions in context.
CONTEXT_FILE = "context.json"


class QueryTokenizer:
    """Token ids of names, mentions, and mentions in context.

    Args:
        tokenizer: the encoder's.
        max_length: maximum tokens of a text, special tokens included; context is added to it.
        context_tokens: maximum tokens of text on each side of a mention in context.
        markers: the two tokens around a mention in context.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        context_tokens: int = 0,
        markers: tuple[str, str] = MARKERS,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.context_tokens = context_tokens
        self.pad_token_id: int = tokenizer.pad_token_id or 0
        # A list of tokens gives a list of ids.
        self._markers: list[int] = tokenizer.convert_tokens_to_ids(list(markers))  # type: ignore[assignment]
        word, whole = (tokenizer.encode("a", add_special_tokens=special) for special in (False, True))
        start = next(i for i in range(len(whole)) if whole[i : i + len(word)] == word)
        self._head, self._tail = whole[:start], whole[start + len(word) :]

    def plain(self, texts: Sequence[str]) -> list[list[int]]:
        """One list of ids per text."""
        return self._ids(texts, True, truncation=True, max_length=self.max_length)

    def in_context(self, texts: Sequence[str], lefts: Sequence[str], rights: Sequence[str]) -> list[list[int]]:
        """One list of ids per mention with the text around it."""
        most, start, end = self.context_tokens, *self._markers
        room = self.max_length - len(self._head) - len(self._tail)
        columns = zip(*(self._ids(column, False) for column in (texts, lefts, rights)), strict=True)
        return [
            [*self._head, *left[max(0, len(left) - most) :], start, *mention[:room], end, *right[:most], *self._tail]
            for mention, left, right in columns
        ]

    def _ids(self, texts: Sequence[str], special: bool, **options: Any) -> list[list[int]]:
        if not len(texts):
            return []
        return self.tokenizer(
            list(texts),
            add_special_tokens=special,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
            **options,
        )["input_ids"]


class BiEncoder:
    """A transformer encoder with pooling, created by `from_pretrained`.

    Args:
        network: maps token ids to vectors, on its device and in its dtype.
        tokenizer: its tokenizer.
        identity: what decides the vectors, except for rounding: ``model``, ``revision``, ``pooling``, ``max_length``.
        context_tokens: tokens of text that it reads on each side of a mention; 0: none.
    """

    def __init__(
        self,
        network: EncoderNetwork,
        tokenizer: PreTrainedTokenizerBase,
        identity: dict[str, Any],
        context_tokens: int = 0,
    ) -> None:
        self.network = network
        self.queries = QueryTokenizer(tokenizer, identity["max_length"], context_tokens)
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
            max_length: maximum tokens of a text, special tokens included; longer texts are cut.
            device: ``"auto"`` uses a GPU if there is one; or ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
            dtype: ``"auto"``, ``"float32"``, ``"bfloat16"`` or ``"float16"``, of the weights and the transformer;
                pooling and normalization are in float32.

        Raises:
            UserError: the model cannot be found, reached or loaded, or a setting is invalid.
        """
        if pooling not in POOLINGS:
            raise UserError(f"encoder_pooling: {pooling!r} is unknown; use {' or '.join(POOLINGS)}")
        place = resolve_device(device)
        dtype = resolve_dtype(dtype, place, key="encoder_dtype")
        source = resolve_model(model, revision)
        with loading(f"encoder {model} (revision {revision or 'main'})"):
            tokenizer = load_pretrained(transformers.AutoTokenizer, source)
            folder, pad_id = Path(source), tokenizer.pad_token_id or 0
            packed = PackedEncoder.from_folder(folder, place, dtype, pooling)
            network = packed or PaddedEncoder.from_folder(folder, place, dtype, pooling, pad_id)
        longest = min(tokenizer.model_max_length, network.longest)
        if max_length > longest:
            raise UserError(f"encoder_max_length is {max_length} but {model} reads at most {longest} tokens; lower it")
        identity = {"model": model, "revision": revision, "pooling": pooling, "max_length": max_length}
        context_file = Path(source) / CONTEXT_FILE
        context = read_json(context_file)["context_tokens"] if context_file.is_file() else 0
        require_room(model, max_length, context, network.longest)
        return cls(network, tokenizer, identity, context)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.network.dimension

    def encode(
        self,
        texts: Sequence[str],
        contexts: tuple[Sequence[str], Sequence[str]] | None = None,
        *,
        token_budget: int | None = None,
        desc: str | None = None,
    ) -> np.ndarray:
        """Unit vectors of `texts`; their inner products are cosines.

        Args:
            texts: n strings.
            contexts: n left and n right texts, for an encoder trained to read them.
            token_budget: maximum tokens per batch, including padding if the network pads; default 2,048 on a CPU,
                65,536 on a GPU.
            desc: name of a progress bar; None: no bar.

        Returns:
            (n, dimension) float32, L2-normalized.

        Raises:
            UserError: a vector is not finite.
        """
        token_budget = token_budget or TOKEN_BUDGET.get(self.network.device.type, TOKEN_BUDGET["cuda"])
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        bar = progress(total=len(texts), desc=desc, unit=" texts") if desc else None
        parallel_map = batch_mapper(self.network.device)
        for start in range(0, len(texts), CHUNK):
            part = slice(start, start + CHUNK)
            if contexts is None:
                encoded = self.queries.plain(texts[part])
            else:
                encoded = self.queries.in_context(texts[part], contexts[0][part], contexts[1][part])
            batches, found = self._encode_chunk(encoded, token_budget, parallel_map, bar)
            vectors[start + batches] = found
        if bar is not None:
            bar.close()
        if not np.isfinite(vectors).all():
            raise UserError(
                "the encoder gave vectors that are not numbers; its weights are damaged or overflow float16"
            )
        return vectors

    def _encode_chunk(
        self, encoded: list[list[int]], token_budget: int, parallel_map: Callable, bar: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers of the texts in the order of computation, and their vectors."""
        lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))

        def forward(batch: np.ndarray) -> torch.Tensor:
            return self.network([encoded[row] for row in batch])

        batches = (length_batches if self.network.padded else token_batches)(lengths, token_budget)
        outputs = []
        for batch, vectors in zip(batches, parallel_map(forward, batches), strict=True):
            outputs.append(vectors)
            if bar is not None:
                bar.update(len(batch))
        return np.concatenate(batches), torch.cat(outputs).cpu().numpy()


class EncoderNetwork(ABC):
    """Maps token ids to unit vectors; safe to call from several threads.

    Attributes:
        device: where it computes.
        dimension: of a vector.
        longest: maximum tokens of a text.
        padded: whether a batch costs (longest text x texts) instead of its tokens.
    """

    device: torch.device
    dimension: int
    longest: int
    padded: bool

    @abstractmethod
    def __call__(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Ids of n texts, longest first -> (n, dimension) float32 unit vectors on the device; asynchronous."""


class PackedEncoder(EncoderNetwork):
    """A BERT with packed batches.

    Args:
        body: the transformer; pooling and normalization are always in float32.
        pooling: ``mean`` or ``cls``.
    """

    padded = False

    def __init__(self, body: PackedLayers, pooling: str) -> None:
        self.body, self.pooling, self.device = body, pooling, body.device
        self.longest, self.dimension = body.places.shape

    @classmethod
    def from_folder(cls, folder: Path, device: torch.device, dtype: str, pooling: str) -> PackedEncoder | None:
        """Load a network, or None where transformers has to (`load_bert`)."""

        def make(config: dict[str, Any], weights: dict[str, Tensor]) -> PackedEncoder:
            prefix = next((one for one in PREFIXES if f"{one}embeddings.word_embeddings.weight" in weights), "")
            return cls(PackedLayers(config, weights, device, dtype, prefix), pooling)

        return load_bert(folder, PackedLayers.supports, make)

    def __call__(self, texts: Sequence[Sequence[int]]) -> Tensor:
        batch = PackedTexts(*joined(texts))
        with torch.inference_mode():
            if self.pooling == "cls":
                return _unit(self.body.first_tokens(batch).float())
            hidden = self.body.all_tokens(batch)
            sums = [
                hidden[group.tokens].view(group.texts, group.length, -1).sum(dim=1, dtype=torch.float32)
                for group in batch.groups
            ]
            return _unit(torch.cat(sums))


class PaddedEncoder(EncoderNetwork):
    """Any transformers encoder that returns ``last_hidden_state``, called with padded batches.

    Args:
        model: on its device and in its dtype.
        pooling: ``mean`` or ``cls``.
        pad_token_id: of its tokenizer.
    """

    padded = True

    def __init__(self, model: PreTrainedModel, pooling: str, pad_token_id: int) -> None:
        self.model, self.pooling, self.pad_token_id = model.eval(), pooling, pad_token_id
        self.device, self.dimension = model.device, model.config.hidden_size
        self.longest = model.config.max_position_embeddings

    @classmethod
    def from_folder(
        cls, folder: Path, device: torch.device, dtype: str, pooling: str, pad_token_id: int
    ) -> PaddedEncoder:
        """Load a model of safetensors.

        Raises:
            UserError: weights and configuration do not fit.
            OSError, ValueError, SafetensorError: it is missing or corrupt.
        """
        # On a CPU, plain attention is faster for texts of about ten tokens (1.3x in bfloat16).
        attention = "eager" if device.type == "cpu" else "sdpa"
        model = load_body(folder, dtype=getattr(torch, dtype), attn_implementation=attention)
        return cls(model.to(device), pooling, pad_token_id)

    def __call__(self, texts: Sequence[Sequence[int]]) -> Tensor:
        with torch.inference_mode():
            arrays = padded(*joined(texts), self.pad_token_id)
            input_ids, mask = (torch.from_numpy(array).to(self.device) for array in arrays)
            hidden = self.model(input_ids=input_ids, attention_mask=mask.long()).last_hidden_state
            return pooled(hidden, mask, self.pooling)


def require_room(model: str, max_length: int, context_tokens: int, longest: int) -> None:
    """Refuse mentions in context that would be longer than an encoder reads."""
    most = max_length + 2 * context_tokens + len(MARKERS)
    if context_tokens and most > longest:
        raise UserError(
            f"a mention of encoder_max_length {max_length} with {context_tokens} tokens of context on each side has "
            f"up to {most} tokens but {model} reads at most {longest}; "
            "lower encoder_context_tokens or encoder_max_length"
        )


def joined(texts: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Ids of n texts, text after text, (t,) int32, and the number of each, (n,) int64."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    return np.fromiter(chain.from_iterable(texts), np.int32, lengths.sum()), lengths


def pooled(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """(n, w, d) token vectors and (n, w) bool -> (n, d) float32 unit vectors."""
    hidden = hidden.float()
    return _unit(hidden[:, 0] if pooling == "cls" else (hidden * mask.unsqueeze(-1)).sum(dim=1))


def _unit(vectors: Tensor) -> Tensor:
    """Vectors of length 1; the sum over tokens has the direction of the mean."""
    return functional.normalize(vectors, dim=-1)
