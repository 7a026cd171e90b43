"""Losses of one logit per pair, as one term per row; sums over parts of a global batch add up."""

from __future__ import annotations

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

__all__ = ["GOLD_LABEL", "listwise_terms", "pairwise_terms"]

GOLD_LABEL = 1.0


def pairwise_terms(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted binary cross-entropy of each pair, (b,) float32.

    Args:
        logits, labels, weights: (b,) float32; ignored labels have weight 0.
    """
    return weights * binary_cross_entropy_with_logits(logits, labels, reduction="none")


def listwise_terms(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, lists: torch.Tensor
) -> torch.Tensor:
    """Weighted cross-entropy of each gold pair under the softmax over its list (ListNet's top one, Cao et al. 2007).

    Args:
        logits, labels, weights: (b,) float32.
        lists: (b,) int64, the list of each pair.

    Returns:
        (b,) float32, 0 for all pairs but the gold ones.
    """
    # b is the size of a forward pass, so the (b, b) matrix is small, and its sums have a fixed order.
    others = lists[:, None] != lists
    normalizers = logits.expand(len(logits), -1).masked_fill(others, -torch.inf).logsumexp(dim=1)
    return torch.where(labels == GOLD_LABEL, weights * (normalizers - logits), 0.0)
