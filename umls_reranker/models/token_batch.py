"""One forward pass' worth of pairs, packed or padded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .packed_layers import PackedTexts
from .pair_encoder import EncodedPairs

__all__ = ["PairBatch"]


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
