"""Batches of tokenized pairs: the rows of a pass, and their tensors, padded to the longest row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..models.batches import padded

# The Trainer does not count rows with this label.
IGNORED_LABEL = -100.0


@dataclass
class RaggedPairs:
    """b tokenized pairs without padding.

    Attributes:
        tokens: int32, the ids of all pairs, one after the other.
        lengths: (b,) int, tokens of each pair.
        first_lengths: (b,) int, leading tokens of type 0.
        labels: (b,) float32, 1.0 for the gold concept, `IGNORED_LABEL` for a row that does not count.
        weights: (b,) float32.
        rows: (b,) int64, number of the pair in its dataset.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    first_lengths: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    rows: np.ndarray


@dataclass
class PairCollator:
    """Pads token ids; labels, weights and row numbers pass through as one tensor each.

    Args:
        pad_token_id: the tokenizer's padding id.
        token_types: whether the model uses ``token_type_ids``.
        pad_to_multiple_of: widths are rounded up to this; 8 suits tensor cores, 1 is faster on a CPU.

    A batch of b pairs, w tokens wide:
        input_ids, attention_mask, token_type_ids: (b, w) int64
        labels: (b,) float32, 1.0 for the gold concept; weight: (b,) float32; row: (b,) int64
    """

    pad_token_id: int
    token_types: bool = True
    pad_to_multiple_of: int = 8

    def __call__(self, pairs: RaggedPairs) -> dict[str, torch.Tensor]:
        width = -(-int(pairs.lengths.max()) // self.pad_to_multiple_of) * self.pad_to_multiple_of
        input_ids, real = padded(pairs.tokens, pairs.lengths, self.pad_token_id, width)
        batch = {"input_ids": input_ids, "attention_mask": real.astype(np.int64)}
        if self.token_types:
            batch["token_type_ids"] = (real & (np.arange(width) >= pairs.first_lengths[:, None])).astype(np.int64)
        batch |= {"labels": pairs.labels, "weight": pairs.weights, "row": pairs.rows}
        return {name: torch.from_numpy(values) for name, values in batch.items()}
