"""Losses of a recipe by name. To add one, write a function and a line in `LOSSES`."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

GOLD_LABEL = 1.0


@dataclass(frozen=True)
class Loss:
    """A loss of one logit per pair.

    Attributes:
        terms: function of logits, labels and weights, (b,) float32 each, and lists, (b,) int64, the
            list of each pair, that returns a term per pair, (b,) float32. Pairs that do not count
            have weight 0. The terms of a global batch are summed and divided by its number of
            pairs, however it is cut into forward passes. The first line of its docstring is its
            help.
        gold_pairs_only: whether only gold pairs have a term. Their weights are then scaled to the
            number of all pairs.
        reads_teacher: whether `terms` also takes the teacher's scores, (b,) float32, NaN where a
            pair has none.
        compares_pairs: whether a term depends on the other pairs of its list. Each forward pass
            then holds whole lists; otherwise a global batch has exactly its number of pairs.
    """

    terms: Callable[..., Tensor]
    gold_pairs_only: bool = False
    reads_teacher: bool = False
    compares_pairs: bool = True

    @property
    def help(self) -> str:
        return (self.terms.__doc__ or "").partition("\n")[0].rstrip(".")


def bce(logits: Tensor, labels: Tensor, weights: Tensor, lists: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of each pair."""
    return weights * functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")


def listwise(logits: Tensor, labels: Tensor, weights: Tensor, lists: Tensor) -> Tensor:
    """Cross-entropy of the gold pair under the softmax over the pairs of its mention.

    ListNet's top one (Cao et al. 2007); 0 for all pairs but the gold ones.
    """
    # b is the size of a forward pass: the (b, b) matrix is small, and its sums have a fixed order.
    in_other_list = lists[:, None] != lists
    normalizers = (
        logits.expand(len(logits), -1).masked_fill(in_other_list, -torch.inf).logsumexp(dim=1)
    )
    return torch.where(labels == GOLD_LABEL, weights * (normalizers - logits), 0.0)


def listwise_kl(
    logits: Tensor, labels: Tensor, weights: Tensor, lists: Tensor, teacher: Tensor
) -> Tensor:
    """Kullback-Leibler divergence from the teacher's to the model's softmax over a mention's pairs.

    Hinton et al. 2015 (arXiv 1503.02531) at temperature 1, with candidates as classes; the term of
    a list is its gold pair's. Pairs without a score of the teacher are left out of both.
    """
    is_left_out = (lists[:, None] != lists) | teacher.isnan()
    # Not infinite: a list without any score has the same shares twice.
    least = torch.finfo(logits.dtype).min
    shares = logits.expand(len(logits), -1).masked_fill(is_left_out, least).log_softmax(dim=1)
    expected = teacher.expand(len(teacher), -1).masked_fill(is_left_out, least).log_softmax(dim=1)
    divergences = (expected.exp() * (expected - shares)).sum(dim=1)
    return torch.where(labels == GOLD_LABEL, weights * divergences, 0.0)


LOSSES = {
    "bce": Loss(bce, compares_pairs=False),
    "listwise": Loss(listwise, gold_pairs_only=True),
    "listwise_kl": Loss(listwise_kl, gold_pairs_only=True, reads_teacher=True),
}


def register(name: str, loss: Loss) -> None:
    """Add a loss that is not part of the package, under the name that recipes give it.

    Raises:
        ValueError: the name is taken.
    """
    if name in LOSSES:
        raise ValueError(f"loss {name!r} is already registered")
    LOSSES[name] = loss
