"""Pairs as token ids: a bounded cache of tokenized texts, joined by a template.

Mention and name are tokenized once each, cached, and joined as ids, so a name shared by many mentions costs nothing
extra.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.arrays import RepeatedTexts, distinct_numbers, list_offsets, number_distinct
from ..core.errors import UserError
from ..core.memory import Memory
from .template import PairTemplate

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Number of mentions and names whose ids are cached, about 250 bytes each.
CACHED_TEXTS = 262_144


@dataclass(frozen=True)
class EncodedPairs:
    """Token ids of n pairs, t in all, without padding.

    Attributes:
        firsts: distinct first segments (token type 0), ids as bytes of int32.
        seconds: distinct second segments, ids as bytes of int32.
        first_of: (n,) int64, first segment of each pair.
        second_of: (n,) int64, second segment of each pair.
        is_truncated: (n,) bool, whether mention or name lost tokens.
    """

    firsts: Sequence[bytes]
    seconds: Sequence[bytes]
    first_of: np.ndarray
    second_of: np.ndarray
    is_truncated: np.ndarray

    def __len__(self) -> int:
        return len(self.is_truncated)

    def distinct(self) -> tuple[EncodedPairs, np.ndarray]:
        """The distinct pairs, and the index of each pair among them, (n,) int64."""
        combinations = len(self.firsts) * len(self.seconds)
        keys, numbers = distinct_numbers(self.first_of * len(self.seconds) + self.second_of, combinations)
        is_truncated = np.zeros(len(keys), bool)
        is_truncated[numbers[self.is_truncated]] = True
        first, second = np.divmod(keys, max(1, len(self.seconds)))
        return EncodedPairs(self.firsts, self.seconds, first, second, is_truncated), numbers

    def take(self, rows: Sequence[int] | np.ndarray | slice) -> np.ndarray:
        """Ids of some pairs, pair after pair, int32."""
        firsts = map(self.firsts.__getitem__, self.first_of[rows].tolist())
        seconds = map(self.seconds.__getitem__, self.second_of[rows].tolist())
        return np.frombuffer(bytearray().join(chain.from_iterable(zip(firsts, seconds, strict=True))), np.int32)

    @property
    def ids(self) -> np.ndarray:
        """Token ids, pair after pair, (t,) int32."""
        return self.take(slice(None))

    @property
    def offsets(self) -> np.ndarray:
        """Where each pair starts in `ids`, (n + 1,) int64."""
        return list_offsets(self.lengths)

    @cached_property
    def first_lengths(self) -> np.ndarray:
        """Number of leading ids of each pair that belong to the first segment, (n,) int64."""
        return _lengths(self.firsts)[self.first_of]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each pair, (n,) int64."""
        return self.first_lengths + _lengths(self.seconds)[self.second_of]

    @property
    def truncated(self) -> int:
        """Number of pairs whose mention or name lost tokens."""
        return int(np.count_nonzero(self.is_truncated))


class PairEncoder:
    """Turns mentions and names into ids with a fast tokenizer and a template; safe to use from several threads.

    Args:
        tokenizer: the model's tokenizer of the tokenizers library; it no longer truncates or pads.
        template: shape of the input.
    """

    def __init__(self, tokenizer: Tokenizer, template: PairTemplate) -> None:
        self.tokenizer = tokenizer
        self.template = template
        # Without truncation and padding, calls change no state, so threads can share the tokenizer.
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
        self._cached = Memory(self.tokenize, CACHED_TEXTS)

    def __reduce__(self) -> tuple[Any, ...]:
        return PairEncoder, (self.tokenizer, self.template)

    def tokenize(self, texts: Sequence[str], *, from_end: bool = False) -> list[bytes]:
        """Ids of each text alone, without special tokens, as bytes of int32.

        Args:
            texts: the texts.
            from_end: if a text is very long, read its end instead of its beginning.
        """
        if not texts:
            return []
        # Do not tokenize many more characters than are needed for the retained ids.
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
            mentions: n texts.
            names: n texts.
            lefts: n texts before the mentions; ignored if the template has no context.
            rights: n texts after the mentions.
        """
        columns: list[tuple[Sequence[str], Callable[[Sequence[str]], list[bytes]]]]
        columns = [(mentions, self._cached), (names, self._cached)]
        if self.template.context_tokens:
            empty = [""] * len(mentions)
            # Contexts rarely recur.
            columns += [(lefts or empty, partial(self.tokenize, from_end=True)), (rights or empty, self.tokenize)]
        if any(len(texts) != len(mentions) for texts, _ in columns):
            raise ValueError(f"{len(mentions)} mentions need the same number of names and contexts")
        mention, name, *context = (_Column(texts, tokenize) for texts, tokenize in columns)
        ending, opening = self._middle
        kept_mention, kept_name = mention.lengths, name.lengths
        is_truncated = kept_mention + kept_name > self._budget
        if is_truncated.any():
            kept_mention, kept_name = _longest_first(kept_mention, kept_name, self._budget)
        if context:
            left, right = context
            left_over = self._budget - kept_mention - kept_name
            firsts, first_of = number_distinct(self._in_context(mention, kept_mention, left, right, left_over))
        else:
            firsts, first_of = mention.framed(self._head, ending, kept_mention)
        seconds, second_of = name.framed(opening, self._tail, kept_name)
        return EncodedPairs(firsts, seconds, first_of, second_of, is_truncated)

    def _in_context(
        self, mention: _Column, kept_mention: np.ndarray, left: _Column, right: _Column, left_over: np.ndarray
    ) -> list[bytes]:
        """First segments with as much context as fits into (n,) tokens."""
        most = self.template.context_tokens
        left_most, right_most = np.minimum(left.lengths, most), np.minimum(right.lengths, most)
        kept_left = np.minimum(left_most, np.maximum(left_over // 2, left_over - right_most))
        kept_right = np.minimum(right_most, left_over - kept_left)
        start, end = self._markers
        columns = (left.of, mention.of, right.of, 4 * (left.lengths - kept_left), 4 * kept_mention, 4 * kept_right)
        segments = []
        for before, text, after, skipped, size, following in zip(*(c.tolist() for c in columns), strict=True):
            segment = (
                self._head,
                left.ids[before][skipped:],
                start,
                mention.ids[text][:size],
                end,
                right.ids[after][:following],
                self._middle[0],
            )
            segments.append(b"".join(segment))
        return segments


class _Column:
    """Ids of n texts.

    Attributes:
        ids: distinct texts, ids as bytes of int32.
        of: (n,) int64, index of each text among them.
        lengths: (n,) int64, tokens of each text.
    """

    def __init__(self, texts: Sequence[str], tokenize: Callable[[Sequence[str]], list[bytes]]) -> None:
        distinct, text_of = texts.distinct() if isinstance(texts, RepeatedTexts) else number_distinct(texts)
        self.ids, ids_of = number_distinct(tokenize(distinct))
        self.of = ids_of[text_of]
        self.lengths = _lengths(self.ids)[self.of]

    def framed(self, before: bytes, after: bytes, kept: np.ndarray) -> tuple[list[bytes], np.ndarray]:
        """The first `kept` (n,) tokens of each text between other ids, distinct, and the index of each text's."""
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
    """Number of ids of each text, (n,) int64."""
    return np.fromiter(map(len, texts), np.int64, len(texts)) // 4


def _special_layout(tokenizer: Tokenizer) -> tuple[list[int], list[int], list[int], int]:
    """Ids before, between and after the two texts of a pair, and the number of middle ids of type 0."""
    probe = tokenizer.encode("a", add_special_tokens=False).ids
    pair = tokenizer.encode("a", "a")
    ids, size = pair.ids, len(probe)
    starts = [i for i in range(len(ids) - size + 1) if ids[i : i + size] == probe]
    if len(starts) != 2:
        raise UserError("the tokenizer joins text pairs in an unsupported way")
    first, second = starts
    middle = ids[first + size : second]
    return ids[:first], middle, ids[second + size :], pair.type_ids[first + size : second].count(0)


def _longest_first(first: np.ndarray, second: np.ndarray, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens kept of two texts under a common budget, as the tokenizers library's ``longest_first`` keeps them."""
    short, long = np.minimum(first, second), np.maximum(first, second)
    # The shorter text is not truncated if it fits into half of the budget.
    long = np.where(short > budget, short, np.maximum(short, budget - short))
    halved = short + long > budget
    half = budget // 2
    short, long = np.where(halved, half, short), np.where(halved, half + budget % 2, long)
    whole, first_is_long = first + second <= budget, first > second
    return (
        np.where(whole, first, np.where(first_is_long, long, short)),
        np.where(whole, second, np.where(first_is_long, short, long)),
    )
