"""The losses that a recipe can name. To add one, write a function in its own module and a line in `LOSSES`.

They are in this layer because choices and help of the recipe key `loss` follow from them. torch is imported when a
loss is computed, so that ``--help`` needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .settings import Registry

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
    """

    terms: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    of_lists: bool = False

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
    normalizers = logits.expand(len(logits), -1).masked_fill(in_other_list, -torch.inf).logsumexp(dim=1)
    return torch.where(labels == GOLD_LABEL, weights * (normalizers - logits), 0.0)


LOSSES: Registry[Loss] = Registry("loss")
LOSSES.update(bce=Loss(bce), listwise=Loss(listwise, of_lists=True))


def register(name: str, loss: Loss) -> None:
    """Add a loss that is not part of the package, under the name that recipes give it.

    Raises:
        ValueError: the name is taken.
    """
    LOSSES[name] = loss
