"""Texts as token ids: a bounded cache of tokenized texts, pairs joined by a template, and batches of them.

Mention and name are tokenized once each, cached, and joined as ids, so a name shared by many mentions costs nothing
extra.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..core.arrays import RepeatedTexts, distinct_numbers, list_offsets, number_distinct
from ..core.errors import UserError
from ..core.memory import Memory
from .template import PairTemplate

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["EncodedPairs", "PackedTexts", "PairBatch", "PairEncoder", "padded"]

KEPT_TEXTS = 262_144


@dataclass(frozen=True)
class EncodedPairs:
    """Token ids of n pairs, t in all, without padding.

    Attributes:
        firsts, seconds: distinct first segments (token type 0) and second segments, ids as bytes of int32.
        first_of, second_of: (n,) int64, the segments of each pair.
        cut: (n,) bool, whether mention or name lost tokens.
    """

    firsts: Sequence[bytes]
    seconds: Sequence[bytes]
    first_of: np.ndarray
    second_of: np.ndarray
    cut: np.ndarray

    def __len__(self) -> int:
        return len(self.cut)

    def distinct(self) -> tuple[EncodedPairs, np.ndarray]:
        """The distinct pairs, and the index of each pair among them, (n,) int64."""
        every = len(self.firsts) * len(self.seconds)
        keys, numbers = distinct_numbers(self.first_of * len(self.seconds) + self.second_of, every)
        cut = np.zeros(len(keys), bool)
        cut[numbers[self.cut]] = True
        first, second = np.divmod(keys, max(1, len(self.seconds)))
        return EncodedPairs(self.firsts, self.seconds, first, second, cut), numbers

    def take(self, rows: Sequence[int] | np.ndarray | slice) -> np.ndarray:
        """Ids of some pairs, pair after pair, int32."""
        firsts = map(self.firsts.__getitem__, self.first_of[rows].tolist())
        seconds = map(self.seconds.__getitem__, self.second_of[rows].tolist())
        return np.frombuffer(bytearray().join(chain.from_iterable(zip(firsts, seconds, strict=True))), np.int32)

    @property
    def ids(self) -> np.ndarray:
        """(t,) int32, pair after pair."""
        return self.take(slice(None))

    @property
    def offsets(self) -> np.ndarray:
        """(n + 1,) int64, where each pair starts in `ids`."""
        return list_offsets(self.lengths)

    @cached_property
    def first_lengths(self) -> np.ndarray:
        """(n,) int64, leading ids of a pair that belong to the first segment."""
        return _lengths(self.firsts)[self.first_of]

    @cached_property
    def lengths(self) -> np.ndarray:
        """(n,) int64, tokens of each pair."""
        return self.first_lengths + _lengths(self.seconds)[self.second_of]

    @property
    def truncated(self) -> int:
        """Number of pairs whose mention or name lost tokens."""
        return int(np.count_nonzero(self.cut))


class PairEncoder:
    """Turns mentions and names into ids with a fast tokenizer and a template; safe to use from several threads.

    Args:
        tokenizer: of the model, in the tokenizers library; it no longer truncates or pads.
        template: shape of the input.
        kept_texts: maximum number of mentions and names whose ids are cached, about 250 bytes each.
    """

    def __init__(self, tokenizer: Tokenizer, template: PairTemplate, kept_texts: int = KEPT_TEXTS) -> None:
        self.tokenizer = tokenizer
        self.template = template
        # Without truncation and padding, calls set nothing, so threads can share the tokenizer.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        head, middle, tail, first_middle = _special_layout(tokenizer)
        # Templates without context may name markers unknown to the tokenizer.
        names = template.markers if template.context_tokens else ()
        markers = [token for name in names if (token := tokenizer.token_to_id(name)) is not None]
        if len(markers) < len(names):
            raise UserError(f"the tokenizer lacks a marker of the template: {' or '.join(names)}")
        self._budget = template.max_length - len(head) - len(middle) - len(tail) - len(markers)
        self._markers = [_bytes([token]) for token in markers]
        self._head, self._tail = _bytes(head), _bytes(tail)
        self._middle = _bytes(middle[:first_middle]), _bytes(middle[first_middle:])
        self._kept = Memory(self.tokenize, kept_texts)

    def __reduce__(self) -> tuple[Any, ...]:
        return PairEncoder, (self.tokenizer, self.template, self._kept.size)

    def tokenize(self, texts: Sequence[str], *, from_end: bool = False) -> list[bytes]:
        """Ids of each text alone, without special tokens, as bytes of int32.

        Args:
            from_end: if the text is very long, read its end instead of its beginning.
        """
        if not texts:
            return []
        # Do not tokenize many more characters than the kept ids can hold.
        limit = self.template.max_length * 32
        read = [text[-limit:] if from_end else text[:limit] for text in texts]
        encoded = self.tokenizer.encode_batch_fast(read, add_special_tokens=False)
        return [_bytes(text.ids) for text in encoded]

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
            lefts, rights: n texts before and after each mention; ignored if the template has no context.
        """
        columns: list[tuple[Sequence[str], Callable[[Sequence[str]], list[bytes]]]]
        columns = [(mentions, self._kept), (names, self._kept)]
        if self.template.context_tokens:
            empty = [""] * len(mentions)
            # Contexts rarely recur.
            columns += [(lefts or empty, partial(self.tokenize, from_end=True)), (rights or empty, self.tokenize)]
        if any(len(texts) != len(mentions) for texts, _ in columns):
            raise ValueError(f"{len(mentions)} mentions need as many names and contexts")
        mention, name, *context = (_Column(texts, tokenize) for texts, tokenize in columns)
        ending, opening = self._middle
        kept_mention, kept_name = mention.lengths, name.lengths
        cut = kept_mention + kept_name > self._budget
        if cut.any():
            kept_mention, kept_name = _longest_first(kept_mention, kept_name, self._budget)
        if context:
            left, right = context
            room = self._budget - kept_mention - kept_name
            firsts, first_of = number_distinct(self._in_context(mention, kept_mention, left, right, room))
        else:
            firsts, first_of = mention.framed(self._head, ending, kept_mention)
        seconds, second_of = name.framed(opening, self._tail, kept_name)
        return EncodedPairs(firsts, seconds, first_of, second_of, cut)

    def _in_context(
        self, mention: _Column, kept_mention: np.ndarray, left: _Column, right: _Column, room: np.ndarray
    ) -> list[bytes]:
        """First segments with as much context as fits into (n,) tokens."""
        most = self.template.context_tokens
        left_most, right_most = np.minimum(left.lengths, most), np.minimum(right.lengths, most)
        kept_left = np.minimum(left_most, np.maximum(room // 2, room - right_most))
        kept_right = np.minimum(right_most, room - kept_left)
        texts = zip(
            *(map(column.ids.__getitem__, column.of.tolist()) for column in (left, mention, right)), strict=True
        )
        sizes = zip(
            *((4 * kept).tolist() for kept in (left.lengths - kept_left, kept_mention, kept_right)), strict=True
        )
        start, end = self._markers
        return [
            b"".join((self._head, before[skipped:], start, text[:size], end, after[:following], self._middle[0]))
            for (before, text, after), (skipped, size, following) in zip(texts, sizes, strict=True)
        ]


class _Column:
    """Ids of n texts.

    Attributes:
        ids: distinct ones, as bytes of int32.
        of: (n,) int64, which of them each text has.
        lengths: (n,) int64, tokens of each text.
    """

    def __init__(self, texts: Sequence[str], tokenize: Callable[[Sequence[str]], list[bytes]]) -> None:
        distinct, text_of = texts.distinct() if isinstance(texts, RepeatedTexts) else number_distinct(texts)
        self.ids, ids_of = number_distinct(tokenize(distinct))
        self.of = ids_of[text_of]
        self.lengths = _lengths(self.ids)[self.of]

    def framed(self, before: bytes, after: bytes, kept: np.ndarray) -> tuple[list[bytes], np.ndarray]:
        """The first `kept` (n,) tokens of each text between other ids, equal ones once; and which each text has."""
        texts, of = [before + ids + after for ids in self.ids], self.of
        if kept is not self.lengths:
            rows = np.flatnonzero(kept < self.lengths)
            numbers = {text: number for number, text in enumerate(texts)}
            of = of.copy()
            for row, size in zip(rows.tolist(), kept[rows].tolist(), strict=True):
                shortened = before + self.ids[of[row]][: 4 * size] + after
                of[row] = numbers.setdefault(shortened, len(numbers))
            texts = list(numbers)
        return texts, of


def _bytes(ids: Sequence[int]) -> bytes:
    return array("i", ids).tobytes()


def _lengths(texts: Sequence[bytes]) -> np.ndarray:
    """(n,) int64, ids of each text."""
    return np.fromiter(map(len, texts), np.int64, len(texts)) // 4


def _special_layout(tokenizer: Tokenizer) -> tuple[list[int], list[int], list[int], int]:
    """Ids before, between and after the two texts of a pair, and how many of the middle ones are of type 0."""
    probe = tokenizer.encode("a", add_special_tokens=False).ids
    pair = tokenizer.encode("a", "a")
    ids, size = pair.ids, len(probe)
    starts = [i for i in range(len(ids) - size + 1) if ids[i : i + size] == probe]
    if len(starts) != 2:
        raise UserError("the tokenizer joins text pairs in a way that is not supported")
    first, second = starts
    middle = ids[first + size : second]
    return ids[:first], middle, ids[second + size :], pair.type_ids[first + size : second].count(0)


def _longest_first(first: np.ndarray, second: np.ndarray, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens kept of two texts under a common budget, as the tokenizers library's ``longest_first`` keeps them."""
    short, long = np.minimum(first, second), np.maximum(first, second)
    # The shorter text is kept whole if it fits into half of the budget.
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
    """n texts with t tokens in all, grouped by length.

    Attributes:
        ids: (t,) int32, text after text.
        lengths: (n,) int64, tokens of each text.
    """

    ids: np.ndarray
    lengths: np.ndarray

    @cached_property
    def offsets(self) -> np.ndarray:
        """(n + 1,) int64, where each text starts."""
        return list_offsets(self.lengths)

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
        return cls(pairs.take(rows), pairs.lengths[rows], pairs.first_lengths[rows])

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
        sizes = np.zeros(rows or len(self.lengths), np.int64)
        sizes[: len(self.lengths)] = self.lengths
        input_ids, real = padded(self.ids, sizes, pad_id, width)
        mask, types = real.astype(np.int64), np.zeros(real.shape, np.int64)
        # A row without any token would make attention divide nothing by nothing.
        mask[len(self.lengths) :, 0] = 1
        types[real] = self.types
        return {"input_ids": input_ids, "attention_mask": mask, "token_type_ids": types}


def padded(
    tokens: np.ndarray, lengths: np.ndarray, pad_id: int, width: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Texts as rows of one width.

    Args:
        tokens: (t,) ids, text after text.
        lengths: (n,) tokens of each text.
        pad_id: id of the padding token.
        width: of a row; None: of the longest text.

    Returns:
        (n, width) int64 ids, and (n, width) bool, False for padding.
    """
    real = np.arange(lengths.max(initial=0) if width is None else width) < lengths[:, None]
    input_ids = np.full(real.shape, pad_id, np.int64)
    input_ids[real] = tokens
    return input_ids, real
