"""The dropout of a model in training."""

import torch
from transformers import PreTrainedModel


def set_dropout(model: PreTrainedModel, probability: float) -> None:
    """Set the dropout of all layers, attention included; the saved configuration is unchanged."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = probability
