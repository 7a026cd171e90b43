"""Token ids of many texts in one array, and how texts are divided into batches.

A batch holds texts of similar length. A network reads it packed, as one array of ids, or padded, as
a matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from typing import NamedTuple, TypeAlias

import numpy as np

from ..core.arrays import expand_ranges, list_offsets, number_distinct


def divide_by_length(lengths: np.ndarray, token_budget: int, is_padded: bool) -> list[np.ndarray]:
    """Divide texts of similar length into batches under a token budget, longest texts first.

    The longest batch comes first, so a batch that does not fit into memory fails at once. Texts of
    equal length keep their order, so the batches depend only on the lengths.

    Args:
        lengths: (n,) token counts.
        token_budget: maximum tokens per batch. A longer single text gets its own batch.
        is_padded: whether a batch costs (longest text x texts) instead of its tokens.

    Returns:
        Row numbers (int64), each row in exactly one batch.

    >>> lengths = np.array([3, 9, 4, 3])
    >>> [batch.tolist() for batch in divide_by_length(lengths, token_budget=9, is_padded=True)]
    [[1], [2, 0], [3]]
    >>> [batch.tolist() for batch in divide_by_length(lengths, token_budget=10, is_padded=False)]
    [[1], [2, 0, 3]]
    """
    order = np.argsort(-lengths, kind="stable")
    offsets = list_offsets(lengths[order])
    batches = []
    start = 0
    while start < len(order):
        if is_padded:
            # All texts cost as much as the longest, which is the first.
            end = start + token_budget // max(1, int(lengths[order[start]]))
        else:
            # The last text that ends within the budget.
            end = int(np.searchsorted(offsets, offsets[start] + token_budget, "right")) - 1
        end = max(start + 1, end)
        batches.append(order[start:end])
        start = end
    return batches


# Ids are int32. Texts are compared as bytes, which is faster than as arrays.
ID_BYTES = 4
# All that a network reads of a pair: the number of tokens of type 0, and its ids as bytes.
PairKey: TypeAlias = tuple[int, bytes]


class TextGroup(NamedTuple):
    """Neighboring texts of one length: their rows."""

    rows: slice
    length: int

    @property
    def texts(self) -> int:
        """Number of texts."""
        return self.rows.stop - self.rows.start


@dataclass(frozen=True)
class PackedTexts:
    """n texts with t tokens in all; a network gets them longest first.

    Attributes:
        ids: (t,) int32, text after text.
        lengths: (n,) int64, tokens of each text.
    """

    ids: np.ndarray
    lengths: np.ndarray

    @classmethod
    def join(cls, texts: Sequence[Sequence[int]]) -> PackedTexts:
        """Make the batch of these texts, each a sequence of ids."""
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        ids = np.fromiter(chain.from_iterable(texts), np.int32, lengths.sum())
        return PackedTexts(ids, lengths)

    @cached_property
    def offsets(self) -> np.ndarray:
        """Where each text starts, (n + 1,) int64."""
        return list_offsets(self.lengths)

    @cached_property
    def positions(self) -> np.ndarray:
        """Position of each token in its text, (t,) int32."""
        start_of_text = np.repeat(self.offsets[:-1], self.lengths)
        return (np.arange(len(self.ids)) - start_of_text).astype(np.int32)

    def take(self, rows: np.ndarray) -> PackedTexts:
        """The texts with these numbers, in this order."""
        _, tokens = expand_ranges(self.offsets[rows], self.offsets[rows] + self.lengths[rows])
        return PackedTexts(self.ids[tokens], self.lengths[rows])

    @property
    def types(self) -> np.ndarray | None:
        """Token types, (t,) int32; None if all are 0."""
        return None

    @cached_property
    def groups(self) -> list[TextGroup]:
        """The runs of equal length, in order."""
        starts = np.flatnonzero(np.diff(self.lengths, prepend=-1)).tolist()
        return [
            TextGroup(slice(start, end), int(self.lengths[start]))
            for start, end in pairwise([*starts, len(self.lengths)])
        ]

    def padded(self, pad_id: int, multiple: int = 1) -> dict[str, np.ndarray]:
        """Inputs of a transformers model by name, (n, w) int64 each.

        Args:
            pad_id: id of the padding token.
            multiple: w is the length of the longest text, rounded up to this.
        """
        longest = int(self.lengths.max(initial=0))
        # Rounded up.
        width = -(-longest // multiple) * multiple
        is_token = np.arange(width) < self.lengths[:, None]
        input_ids = np.full(is_token.shape, pad_id, np.int64)
        input_ids[is_token] = self.ids
        inputs = {"input_ids": input_ids, "attention_mask": is_token.astype(np.int64)}
        if self.types is not None:
            inputs["token_type_ids"] = np.zeros(is_token.shape, np.int64)
            inputs["token_type_ids"][is_token] = self.types
        return inputs


@dataclass(frozen=True)
class PairBatch(PackedTexts):
    """n pairs with t tokens in all.

    Attributes:
        ids: (t,) int32, pair after pair.
        lengths: (n,) int64, tokens of each pair.
        first_lengths: (n,) int64, leading tokens of type 0.
    """

    first_lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, rows: np.ndarray) -> PairBatch:
        texts = super().take(rows)
        return PairBatch(texts.ids, texts.lengths, self.first_lengths[rows])

    def distinct(self) -> tuple[PairBatch, np.ndarray, list[PairKey]]:
        """The distinct pairs, the index of each pair among them, (n,) int64, and their keys."""
        content = self.ids.tobytes()
        byte_offsets = (ID_BYTES * self.offsets).tolist()
        texts = (content[start:end] for start, end in pairwise(byte_offsets))
        keys, numbers = number_distinct(list(zip(self.first_lengths.tolist(), texts, strict=True)))
        _, first_occurrences = np.unique(numbers, return_index=True)
        return self.take(first_occurrences), numbers, keys

    def texts(self) -> tuple[PackedTexts, np.ndarray]:
        """The distinct texts of both segments, each with its special tokens.

        Returns:
            The texts, and the number of the first and the second text of each pair, (2, n) int64.
        """
        content = self.ids.tobytes()
        starts = self.offsets[:-1]
        edges = np.stack([starts, starts + self.first_lengths, self.offsets[1:]], axis=1)
        spans = (ID_BYTES * edges).tolist()
        firsts = [content[start:middle] for start, middle, _ in spans]
        # A second text lacks [CLS], which is the first token of every pair.
        cls_token = content[:ID_BYTES]
        seconds = [cls_token + content[middle:end] for _, middle, end in spans]
        texts, numbers = number_distinct(firsts + seconds)
        lengths = np.fromiter(map(len, texts), np.int64, len(texts)) // ID_BYTES
        packed = PackedTexts(np.frombuffer(b"".join(texts), np.int32), lengths)
        return packed, numbers.reshape(2, -1)

    @property
    def types(self) -> np.ndarray:
        """Token types, 0 in the first segment and 1 in the second, (t,) int32."""
        return (self.positions >= np.repeat(self.first_lengths, self.lengths)).astype(np.int32)
