"""A loss that is not part of the package, in one file."""

import torch

from umls_reranker.training.losses import Loss, register


def hinge(logits, labels, weights, lists):
    """How far each logit is from a margin of one."""
    return weights * torch.relu(1 - (2 * labels - 1) * logits)


register("hinge", Loss(hinge))
