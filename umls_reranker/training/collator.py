"""Batches of tokenized pairs: the rows of a pass, and their tensors, padded to the longest row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..models.batches import PairBatch

# The Trainer does not count rows with this label.
IGNORED_LABEL = -100.0


@dataclass(frozen=True)
class LabelledPairs(PairBatch):
    """A `PairBatch` of b pairs in any order, with labels and weights for a loss.

    Attributes:
        labels: (b,) float32, 1.0 for the gold concept, `IGNORED_LABEL` for a row that does not count.
        weights: (b,) float32.
        rows: (b,) int64, number of the pair in its dataset.
    """

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

    def __call__(self, pairs: LabelledPairs) -> dict[str, torch.Tensor]:
        batch = pairs.padded(self.pad_token_id, self.pad_to_multiple_of)
        if not self.token_types:
            del batch["token_type_ids"]
        batch |= {"labels": pairs.labels, "weight": pairs.weights, "row": pairs.rows}
        return {name: torch.from_numpy(values) for name, values in batch.items()}
