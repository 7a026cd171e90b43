"""Batches of tokenized pairs, padded to their own longest row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

__all__ = ["PairCollator"]


@dataclass
class PairCollator:
    """Pads token ids; labels, weights and row numbers pass through as one tensor each.

    Args:
        pad_token_id: the tokenizer's padding id.
        token_types: whether the model takes ``token_type_ids``.
        pad_to_multiple_of: widths are rounded up to this, which tensor cores like.

    A batch of b pairs, w tokens wide:
        input_ids, attention_mask, token_type_ids: (b, w) int64
        labels: (b,) float32, 1.0 for the gold concept; weight: (b,) float32; row: (b,) int64
    """

    pad_token_id: int
    token_types: bool = True
    pad_to_multiple_of: int = 8

    def __call__(self, pairs: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(pair["input_ids"]) for pair in pairs)
        width = -(-longest // self.pad_to_multiple_of) * self.pad_to_multiple_of
        input_ids = np.full((len(pairs), width), self.pad_token_id, np.int64)
        attention_mask = np.zeros((len(pairs), width), np.int64)
        token_type_ids = np.zeros((len(pairs), width), np.int64)
        for row, pair in enumerate(pairs):
            size = len(pair["input_ids"])
            input_ids[row, :size] = pair["input_ids"]
            attention_mask[row, :size] = 1
            token_type_ids[row, pair["first_length"] : size] = 1
        batch = {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(attention_mask)}
        if self.token_types:
            batch["token_type_ids"] = torch.from_numpy(token_type_ids)
        batch["labels"] = torch.tensor([pair["labels"] for pair in pairs], dtype=torch.float32)
        batch["weight"] = torch.tensor([pair["weight"] for pair in pairs], dtype=torch.float32)
        batch["row"] = torch.tensor([pair["row"] for pair in pairs], dtype=torch.int64)
        return batch
