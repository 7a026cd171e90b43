"""The losses that a recipe can name. To add one, write a function in its own module and a line in `LOSSES`.

torch is imported when a loss is computed, so that ``--help`` needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

GOLD_LABEL = 1.0


@dataclass(frozen=True)
class Loss:
    """A loss of one logit per pair.

    Attributes:
        terms: function of logits, labels and weights, (b,) float32 each, and lists, (b,) int64, the list of each pair,
            that returns a term per pair, (b,) float32. A forward pass holds whole lists. Pairs that do not count have
            weight 0. The terms of a global batch are summed and divided by its number of pairs, however it is cut
            into forward passes. The first line of its docstring is its help.
        of_lists: whether only gold pairs have a term. Their weights are then scaled to the number of all pairs.
        of_teacher: whether `terms` also takes the teacher's scores, (b,) float32, NaN where a pair has none.
    """

    terms: Callable[..., Tensor]
    of_lists: bool = False
    of_teacher: bool = False

    @property
    def help(self) -> str:
        return (self.terms.__doc__ or "").partition("\n")[0].rstrip(".")


def bce(logits: Tensor, labels: Tensor, weights: Tensor, lists: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of each pair."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    return weights * binary_cross_entropy_with_logits(logits, labels, reduction="none")


def listwise(logits: Tensor, labels: Tensor, weights: Tensor, lists: Tensor) -> Tensor:
    """Cross-entropy of the gold pair under the softmax over the pairs of its mention.

    ListNet's top one (Cao et al. 2007); 0 for all pairs but the gold ones.
    """
    import torch

    # b is the size of a forward pass, so the (b, b) matrix is small, and its sums have a fixed order.
    in_other_list = lists[:, None] != lists
    normalizers = (
        logits.expand(len(logits), -1).masked_fill(in_other_list, -torch.inf).logsumexp(dim=1)
    )
    return torch.where(labels == GOLD_LABEL, weights * (normalizers - logits), 0.0)


def margin_mse(
    logits: Tensor, labels: Tensor, weights: Tensor, lists: Tensor, teacher: Tensor
) -> Tensor:
    """Squared error of the gold pair's lead over each other pair of its mention, compared with the teacher's.

    MarginMSE (Hofstätter et al. 2020, arXiv 2010.02666); 0 for gold pairs, and where the teacher lacks one of the two.
    """
    import torch

    # (b, b), whether the second pair is the gold one in the list of the first.
    is_gold = (lists[:, None] == lists) & (labels == GOLD_LABEL)
    known, scores = teacher.isfinite(), teacher.nan_to_num(0.0)
    leads, expected = ((values * is_gold).sum(dim=1) - values for values in (logits, scores))
    counts = known & (is_gold & known).any(dim=1)
    return torch.where(counts, weights * (leads - expected) ** 2, 0.0)


def listwise_kl(
    logits: Tensor, labels: Tensor, weights: Tensor, lists: Tensor, teacher: Tensor
) -> Tensor:
    """Kullback-Leibler divergence from the teacher's softmax over the pairs of a mention to the model's.

    Hinton et al. 2015 (arXiv 1503.02531) at temperature 1, with candidates as classes; the term of a list is its gold
    pair's. Pairs without a score of the teacher are left out of both.
    """
    import torch

    lacks = (lists[:, None] != lists) | teacher.isnan()
    # Not infinite: a list without any score has the same shares twice.
    least = torch.finfo(logits.dtype).min
    shares, expected = (
        values.expand(len(values), -1).masked_fill(lacks, least).log_softmax(dim=1)
        for values in (logits, teacher)
    )
    return torch.where(
        labels == GOLD_LABEL, weights * (expected.exp() * (expected - shares)).sum(dim=1), 0.0
    )


LOSSES = {
    "bce": Loss(bce),
    "listwise": Loss(listwise, of_lists=True),
    "margin_mse": Loss(margin_mse, of_teacher=True),
    "listwise_kl": Loss(listwise_kl, of_lists=True, of_teacher=True),
}


def register(name: str, loss: Loss) -> None:
    """Add a loss that is not part of the package, under the name that recipes give it.

    Raises:
        ValueError: the name is taken.
    """
    if name in LOSSES:
        raise ValueError(f"loss {name!r} is already registered")
    LOSSES[name] = loss
