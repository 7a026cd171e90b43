"""Texts as token ids: a bounded memory of texts tokenized before, pairs joined by a template, and batches of them.

Mention and name are tokenized once each, kept, and joined as ids; a name that many mentions share costs no more.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

from ..core.arrays import RepeatedTexts, number_distinct
from ..core.errors import UserError
from .template import PairTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["EncodedPairs", "PackedTexts", "PairBatch", "PairEncoder", "TokenCache"]

KEPT_TEXTS = 262_144
# Of a number that stands for a pair; a further column of a chunk has fewer texts than 2^31.
LARGEST_KEY = 1 << 31
Text = TypeVar("Text", bound=Hashable)


@dataclass(frozen=True)
class Tokens:
    """Ids of n texts.

    Attributes:
        ids: (t,) int32 that the texts lie in.
        starts, lengths: (n,) int64, where each lies.
    """

    ids: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def distinct(cls, texts: Sequence[bytes]) -> tuple[Tokens, np.ndarray]:
        """Texts given as bytes of int32, equal ones once; and the number of each among them, (n,) int64."""
        distinct, numbers = number_distinct(texts)
        lengths = np.fromiter(map(len, distinct), np.int64, len(distinct)) // 4
        return cls(np.frombuffer(b"".join(distinct), np.int32), np.cumsum(lengths) - lengths, lengths), numbers

    @classmethod
    def constant(cls, ids: np.ndarray, rows: int) -> Tokens:
        """The same ids for every row."""
        return cls(ids, np.zeros(rows, np.int64), np.full(rows, len(ids)))

    def take(self, rows: np.ndarray) -> Tokens:
        """The texts of these numbers, (m,)."""
        return replace(self, starts=self.starts[rows], lengths=self.lengths[rows])

    def leading(self, lengths: np.ndarray) -> Tokens:
        """The first ids of each text, (n,) at most as many as it has."""
        return replace(self, lengths=lengths)

    def trailing(self, lengths: np.ndarray) -> Tokens:
        """The last ids of each text, (n,) at most as many as it has."""
        return replace(self, starts=self.starts + self.lengths - lengths, lengths=lengths)


class TokenCache(Generic[Text]):
    """Calls `tokenize` for texts it does not remember; may be used from several threads.

    Memory is bounded by two generations: when the young one is full it becomes the old one, and what of the old one
    was not used since is forgotten.

    Args:
        tokenize: gives the ids, or what else is remembered, of each of some texts as bytes.
        size: most texts remembered.
    """

    def __init__(self, tokenize: Callable[[Sequence[Text]], list[bytes]], size: int) -> None:
        if size < 2:
            raise ValueError(f"a cache of {size} texts is none; give 2 or more")
        self.size = size
        self._tokenize = tokenize
        self._young: dict[Text, bytes] = {}
        self._old: dict[Text, bytes] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def __call__(self, texts: Sequence[Text]) -> list[bytes]:
        """Ids of each of n distinct texts."""
        with self._lock:
            found = list(map(self._young.get, texts))
            if all(found):
                return found  # type: ignore[return-value]
            for place, ids in enumerate(found):
                if ids is None:
                    found[place] = self._recall(texts[place])
        missing = [place for place, ids in enumerate(found) if ids is None]
        if missing:
            new = self._tokenize([texts[place] for place in missing])
            with self._lock:
                for place, ids in zip(missing, new, strict=True):
                    found[place] = ids
                    self._keep(texts[place], ids)
        # The cache's own gaps are filled by now.
        return found  # type: ignore[return-value]

    def _recall(self, text: Text) -> bytes | None:
        ids = self._young.get(text)
        if ids is None and (ids := self._old.pop(text, None)) is not None:
            self._keep(text, ids)
        return ids

    def _keep(self, text: Text, ids: bytes) -> None:
        if len(self._young) >= self.size // 2:
            self._old, self._young = self._young, {}
        self._young[text] = ids


@dataclass(frozen=True)
class EncodedPairs:
    """Token ids of n pairs, t in all.

    Attributes:
        ids: (t,) int32, pair after pair, without padding.
        offsets: (n + 1,) int64, where each pair starts.
        first_lengths: (n,) int64, leading ids of a pair that belong to the first segment (token type 0).
        cut: (n,) bool, whether mention or name lost tokens.
    """

    ids: np.ndarray
    offsets: np.ndarray
    first_lengths: np.ndarray
    cut: np.ndarray

    def __len__(self) -> int:
        return len(self.cut)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(n,) int64, tokens of each pair."""
        return np.diff(self.offsets)

    @property
    def truncated(self) -> int:
        """Pairs of which mention or name lost tokens."""
        return int(np.count_nonzero(self.cut))


class PairEncoder:
    """Turns mentions and names into ids with a fast tokenizer and a template; may be used from several threads.

    Args:
        tokenizer: of the model.
        template: shape of the input.
        kept_texts: most mentions and names whose ids are kept for later calls, about 250 bytes each.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: PairTemplate, kept_texts: int = KEPT_TEXTS
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        head, middle, tail, self._first_segment_middle = _special_layout(tokenizer)
        self._head, self._middle, self._tail = (np.array(ids, np.int32) for ids in (head, middle, tail))
        # Templates without context may name markers that the tokenizer does not know.
        markers = map(tokenizer.convert_tokens_to_ids, template.markers if template.context_tokens else ())
        self._markers = [np.array([token], np.int32) for token in markers]
        self._budget = template.max_length - len(head) - len(middle) - len(tail) - len(self._markers)
        # Without truncation and padding nothing has to be set for a call, so threads can share the tokenizer.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        self._kept = TokenCache(self.tokenize, kept_texts)

    def __reduce__(self) -> tuple[Any, ...]:
        return PairEncoder, (self.tokenizer, self.template, self._kept.size)

    def tokenize(self, texts: Sequence[str], *, from_end: bool = False) -> list[bytes]:
        """Ids of each text alone, without special tokens, as bytes of int32.

        Args:
            from_end: of an endless text, read the end instead of the beginning.
        """
        if not texts:
            return []
        # Far more characters than the ids kept can hold are not worth tokenizing.
        limit = self.template.max_length * 32
        read = [text[-limit:] if from_end else text[:limit] for text in texts]
        encoded = self.tokenizer.backend_tokenizer.encode_batch_fast(read, add_special_tokens=False)
        return [array("i", text.ids).tobytes() for text in encoded]

    def encode(
        self,
        mentions: Sequence[str],
        names: Sequence[str],
        lefts: Sequence[str] | None = None,
        rights: Sequence[str] | None = None,
    ) -> EncodedPairs:
        """Encode pairs; equal texts are tokenized once.

        Args:
            mentions, names: n texts each.
            lefts, rights: n texts before and after each mention; ignored when the template has no context.
        """
        tables, columns = self._numbered(mentions, names, lefts, rights)
        return self._join(tables, columns)

    def encode_distinct(
        self,
        mentions: Sequence[str],
        names: Sequence[str],
        lefts: Sequence[str] | None = None,
        rights: Sequence[str] | None = None,
    ) -> tuple[EncodedPairs, np.ndarray]:
        """As `encode`, each distinct pair once.

        Returns:
            The m distinct pairs, and for each of the n given its number among them, (n,) int64.
        """
        tables, columns = self._numbered(mentions, names, lefts, rights)
        key, size = np.zeros(len(mentions), np.int64), 1
        for table, column in zip(tables, columns, strict=True):
            key, size = key * max(1, len(table.starts)) + column, size * max(1, len(table.starts))
            if size > LARGEST_KEY:
                # Numbered anew, so that the product of the sizes cannot overflow.
                _, key = np.unique(key, return_inverse=True)
                size = len(key)
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        return self._join(tables, [column[first] for column in columns]), inverse

    def _numbered(
        self,
        mentions: Sequence[str],
        names: Sequence[str],
        lefts: Sequence[str] | None,
        rights: Sequence[str] | None,
    ) -> tuple[list[Tokens], list[np.ndarray]]:
        """Distinct ids of each column of texts, and for each pair their number."""
        columns: list[tuple[Sequence[str], Callable[[Sequence[str]], list[bytes]]]]
        columns = [(mentions, self._kept), (names, self._kept)]
        if self.template.context_tokens:
            empty = [""] * len(mentions)
            # Contexts hardly ever come again.
            columns += [(lefts or empty, partial(self.tokenize, from_end=True)), (rights or empty, self.tokenize)]
        if any(len(texts) != len(mentions) for texts, _ in columns):
            raise ValueError(f"{len(mentions)} mentions need as many names and contexts")
        tables, rows = [], []
        for texts, tokenize in columns:
            distinct, text_of = texts.distinct() if isinstance(texts, RepeatedTexts) else number_distinct(texts)
            table, ids_of = Tokens.distinct(tokenize(distinct))
            tables.append(table)
            rows.append(ids_of[text_of])
        return tables, rows

    def _join(self, tables: list[Tokens], columns: list[np.ndarray]) -> EncodedPairs:
        mention, name, *context = (table.take(column) for table, column in zip(tables, columns, strict=True))
        keep_mention, keep_name = _longest_first(mention.lengths, name.lengths, self._budget)
        cut = (keep_mention < mention.lengths) | (keep_name < name.lengths)
        first: list[Tokens | np.ndarray] = [mention.leading(keep_mention)]
        if context:
            left, right = context
            most = self.template.context_tokens
            room = self._budget - keep_mention - keep_name
            left_most, right_most = np.minimum(left.lengths, most), np.minimum(right.lengths, most)
            keep_left = np.minimum(left_most, np.maximum(room // 2, room - right_most))
            keep_right = np.minimum(right_most, room - keep_left)
            start, end = self._markers
            first = [left.trailing(keep_left), start, *first, end, right.leading(keep_right)]
        ids, offsets, ends = _concatenate(
            len(cut), [self._head, *first, self._middle, name.leading(keep_name), self._tail]
        )
        first_lengths = ends[len(first)] - offsets[:-1] + self._first_segment_middle
        return EncodedPairs(ids, offsets, first_lengths, cut)


def _concatenate(rows: int, parts: Sequence[Tokens | np.ndarray]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Join parts row by row; an array is the same for every row.

    Returns:
        ids, offsets of the rows (rows + 1,), and for each part where it ends in each row.
    """
    texts = [part if isinstance(part, Tokens) else Tokens.constant(part, rows) for part in parts]
    pool, sizes = np.concatenate([part.ids for part in texts]), [len(part.ids) for part in texts]
    bases = np.cumsum(sizes) - sizes
    starts = np.array([part.starts + base for part, base in zip(texts, bases.tolist(), strict=True)]).ravel("F")
    lengths = np.array([part.lengths for part in texts]).ravel("F")
    ends = np.cumsum(lengths)
    ids = pool[np.arange(lengths.sum()) + np.repeat(starts - (ends - lengths), lengths)]
    by_part = ends.reshape(rows, len(parts))
    return ids, np.append(0, by_part[:, -1]), list(by_part.T)


def _special_layout(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int], list[int], int]:
    """Ids before, between and after the two texts of a pair, and how many of the middle ones are of type 0."""
    probe = tokenizer.encode("a", add_special_tokens=False)
    pair = tokenizer("a", "a")
    ids, size = pair["input_ids"], len(probe)
    starts = [i for i in range(len(ids) - size + 1) if ids[i : i + size] == probe]
    if len(starts) != 2:
        raise UserError(f"the tokenizer {type(tokenizer).__name__} joins text pairs in a way that is not supported")
    first, second = starts
    middle = ids[first + size : second]
    token_types = pair.get("token_type_ids") or [0] * len(ids)
    return ids[:first], middle, ids[second + size :], token_types[first + size : second].count(0)


def _longest_first(first: np.ndarray, second: np.ndarray, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens kept of two texts under a common budget, as the tokenizers library's ``longest_first`` keeps them."""
    short, long = np.minimum(first, second), np.maximum(first, second)
    # The shorter text stays whole as long as it fits into half of the budget.
    long = np.where(short > budget, short, np.maximum(short, budget - short))
    halved = short + long > budget
    half = budget // 2
    short, long = np.where(halved, half, short), np.where(halved, half + budget % 2, long)
    whole, first_is_long = first + second <= budget, first > second
    return (
        np.where(whole, first, np.where(first_is_long, long, short)),
        np.where(whole, second, np.where(first_is_long, short, long)),
    )


class TextGroup(NamedTuple):
    """Neighbouring texts of one length: their rows and tokens."""

    rows: slice
    tokens: slice
    length: int

    @property
    def texts(self) -> int:
        """How many they are."""
        return self.rows.stop - self.rows.start


@dataclass(frozen=True)
class PackedTexts:
    """n texts with t tokens in all; those of one length stand together.

    Attributes:
        ids: (t,) int32, text after text.
        lengths: (n,) int64, tokens of each text.
    """

    ids: np.ndarray
    lengths: np.ndarray

    @cached_property
    def offsets(self) -> np.ndarray:
        """(n + 1,) int64, where each text starts."""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    @cached_property
    def places(self) -> np.ndarray:
        """(t,) int32, place of each token in its text."""
        return (np.arange(len(self.ids)) - np.repeat(self.offsets[:-1], self.lengths)).astype(np.int32)

    @property
    def types(self) -> np.ndarray | None:
        """(t,) int32, token types; None where all are 0."""
        return None

    @cached_property
    def groups(self) -> list[TextGroup]:
        """The runs of equal length, in order."""
        starts = np.flatnonzero(np.diff(self.lengths, prepend=-1)).tolist()
        groups, token = [], 0
        for start, end in zip(starts, [*starts[1:], len(self.lengths)], strict=True):
            length = int(self.lengths[start])
            groups.append(TextGroup(slice(start, end), slice(token, token + length * (end - start)), length))
            token = groups[-1].tokens.stop
        return groups


@dataclass(frozen=True)
class PairBatch(PackedTexts):
    """n pairs with t tokens in all, longest first.

    Attributes:
        ids: (t,) int32, pair after pair.
        lengths: (n,) int64, tokens of each pair.
        first_lengths: (n,) int64, leading tokens of type 0.
    """

    first_lengths: np.ndarray

    @classmethod
    def of(cls, pairs: EncodedPairs, rows: np.ndarray) -> PairBatch:
        """The pairs of these numbers."""
        lengths = pairs.lengths[rows]
        first = np.cumsum(lengths) - lengths
        tokens = np.arange(lengths.sum()) + np.repeat(pairs.offsets[rows] - first, lengths)
        return cls(pairs.ids[tokens], lengths, pairs.first_lengths[rows])

    @property
    def types(self) -> np.ndarray:
        """(t,) int32, 0 in the first segment and 1 in the second."""
        return (self.places >= np.repeat(self.first_lengths, self.lengths)).astype(np.int32)

    def padded(self, pad_id: int, rows: int | None = None, width: int | None = None) -> dict[str, np.ndarray]:
        """Inputs of a transformers model by name, (n, longest) int64 each.

        Args:
            pad_id: id of the padding token.
            rows, width: pad to so many rows (of one token) and columns.
        """
        real = np.arange(width or self.lengths[0]) < self.lengths[:, None]
        shape = (rows or len(real), real.shape[1])
        inputs = {name: np.zeros(shape, np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
        inputs["input_ids"][:] = pad_id
        # A row without any token would make attention divide nothing by nothing.
        inputs["attention_mask"][len(real) :, 0] = 1
        for name, values in (("input_ids", self.ids), ("attention_mask", 1), ("token_type_ids", self.types)):
            inputs[name][: len(real)][real] = values
        return inputs
