"""Batches of token ids: which texts share a forward pass, and arrays, packed or padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from typing import NamedTuple

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
            end = start + token_budget // max(1, int(lengths[order[start]]))
        else:
            end = int(np.searchsorted(offsets, offsets[start] + token_budget, "right")) - 1
        end = max(start + 1, end)
        batches.append(order[start:end])
        start = end
    return batches


class TextGroup(NamedTuple):
    """Neighboring texts of one length: their rows and tokens."""

    rows: slice
    tokens: slice
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
        return PackedTexts(
            np.fromiter(chain.from_iterable(texts), np.int32, lengths.sum()), lengths
        )

    @cached_property
    def offsets(self) -> np.ndarray:
        """Where each text starts, (n + 1,) int64."""
        return list_offsets(self.lengths)

    @cached_property
    def positions(self) -> np.ndarray:
        """Position of each token in its text, (t,) int32."""
        return (np.arange(len(self.ids)) - np.repeat(self.offsets[:-1], self.lengths)).astype(
            np.int32
        )

    @property
    def types(self) -> np.ndarray | None:
        """Token types, (t,) int32; None if all are 0."""
        return None

    @cached_property
    def groups(self) -> list[TextGroup]:
        """The runs of equal length, in order."""
        starts = np.flatnonzero(np.diff(self.lengths, prepend=-1)).tolist()
        groups = []
        for start, end in pairwise([*starts, len(self.lengths)]):
            tokens = slice(int(self.offsets[start]), int(self.offsets[end]))
            groups.append(TextGroup(slice(start, end), tokens, int(self.lengths[start])))
        return groups

    def padded(self, pad_id: int, multiple: int = 1) -> dict[str, np.ndarray]:
        """Inputs of a transformers model by name, (n, w) int64 each.

        Args:
            pad_id: id of the padding token.
            multiple: w is the length of the longest text, rounded up to this.
        """
        width = -(-int(self.lengths.max(initial=0)) // multiple) * multiple
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
        """The pairs with these numbers, in this order."""
        _, tokens = expand_ranges(self.offsets[rows], self.offsets[rows] + self.lengths[rows])
        return PairBatch(self.ids[tokens], self.lengths[rows], self.first_lengths[rows])

    def distinct(self) -> tuple[PairBatch, np.ndarray]:
        """The distinct pairs, and the index of each pair among them, (n,) int64."""
        content = self.ids.tobytes()
        texts = (content[start:end] for start, end in pairwise((4 * self.offsets).tolist()))
        _, numbers = number_distinct(list(zip(self.first_lengths.tolist(), texts, strict=True)))
        _, first = np.unique(numbers, return_index=True)
        return self.take(first), numbers

    @property
    def types(self) -> np.ndarray:
        """Token types, 0 in the first segment and 1 in the second, (t,) int32."""
        return (self.positions >= np.repeat(self.first_lengths, self.lengths)).astype(np.int32)
