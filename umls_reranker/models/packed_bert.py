"""The cross-encoder over packed pairs: `BertForSequenceClassification` without padding.

The logits are those of transformers; left out is what no logit depends on: padding, and in the last layer all rows
but the first of each pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .network import Network, shape_of
from .packed_layers import PackedLayers, load_bert
from .token_batch import PairBatch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["PackedBert"]


class PackedBert(Network):
    """A BERT of one logit whose batches are packed.

    Args:
        config: content of ``config.json``.
        weights: tensors by the names that `BertForSequenceClassification` saves them under.
        device: where to compute.
        precision: of everything but the last layer, which always computes in float32: logits near 5 would otherwise
            come in steps of 0.03 and tie candidates that differ.

    Raises:
        KeyError: a weight is missing.
    """

    backend = "torch"
    padded = False
    in_threads = True

    def __init__(
        self, config: Mapping[str, Any], weights: Mapping[str, Tensor], device: torch.device, precision: str
    ) -> None:
        self.device, self.precision, self.shape = device, precision, shape_of(config)
        self.body = PackedLayers(config, weights, device, precision, prefix="bert.")
        dense, head = (
            tuple(weights[f"{name}.{part}"].to(device) for part in ("weight", "bias"))
            for name in ("bert.pooler.dense", "classifier")
        )
        self.pooler = tuple(tensor.to(self.body.words.dtype) for tensor in dense)
        self.head = tuple(tensor.float() for tensor in head)

    @classmethod
    def from_folder(cls, folder: Path, device: torch.device, precision: str) -> PackedBert | None:
        """Load a network, or None where transformers has to (`load_bert`)."""

        def make(config: dict[str, Any], weights: dict[str, Tensor]) -> PackedBert | None:
            return cls(config, weights, device, precision) if weights["classifier.weight"].shape[0] == 1 else None

        return load_bert(folder, cls.supports, make)

    @staticmethod
    def supports(config: Mapping[str, Any]) -> bool:
        """Whether a configuration is that of a classifier whose computation is the one here."""
        return config.get("architectures") == ["BertForSequenceClassification"] and PackedLayers.supports(config)

    def __call__(self, batch: PairBatch) -> Tensor:
        import torch
        from torch.nn import functional

        with torch.inference_mode():
            pooled = functional.linear(self.body.first_tokens(batch), *self.pooler).tanh_()
            return functional.linear(pooled.float(), *self.head).squeeze(-1)
