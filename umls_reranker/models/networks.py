"""Networks that compute logits of pairs: BERT without padding, and any transformers sequence classifier."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.devices import to_device
from ..core.errors import UserError
from .packed import PackedLayers, load_bert
from .tokens import PairBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["CompiledModel", "Network", "PackedBert", "PaddedModel", "input_names"]


class Network(ABC):
    """Maps batches of pairs to logits; safe to call from several threads.

    Attributes:
        backend: one of `BACKENDS`.
        device: where it computes.
        precision: float32, bfloat16, float16 or int8.
        padded: whether a batch costs (longest pair x pairs) instead of its tokens.
        in_threads: whether a CPU is used best by several batches at a time, each in its own thread.
    """

    backend: str
    device: torch.device
    precision: str
    padded: bool
    in_threads: bool

    @abstractmethod
    def __call__(self, batch: PairBatch) -> torch.Tensor:
        """Logits, (n,) float32, on the device; asynchronous."""


def input_names(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The inputs that a model accepts, of the three possible ones."""
    names = ["input_ids", "attention_mask"]
    return [*names, "token_type_ids"] if "token_type_ids" in tokenizer.model_input_names else names


class PackedBert(Network):
    """A BERT of one logit with packed batches.

    Args:
        config: content of ``config.json``.
        weights: tensors by their names in `BertForSequenceClassification`.
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
        self.device, self.precision = device, precision
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
        """Whether this class computes the classifier of a configuration."""
        return config.get("architectures") == ["BertForSequenceClassification"] and PackedLayers.supports(config)

    def __call__(self, batch: PairBatch) -> Tensor:
        with torch.inference_mode():
            pooled = functional.linear(self.body.first_tokens(batch), *self.pooler).tanh_()
            return functional.linear(pooled.float(), *self.head).squeeze(-1)


class PaddedModel(Network):
    """Any transformers model, called with padded batches.

    Args:
        model: with ``num_labels=1``.
        tokenizer: defines the padding token and whether the model uses token types.
        device: where to compute.
        precision: of everything but the last layer, which always computes in float32: logits near 5 would otherwise
            come in steps of 0.03 and tie candidates that differ.
    """

    backend = "torch"
    padded = True
    in_threads = True

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: torch.device, precision: str
    ) -> None:
        self.device, self.precision = device, precision
        # transformers wraps `to`, so it seems to lack its first argument.
        self.model = model.to(device=device, dtype=getattr(torch, precision))  # type: ignore[call-arg]
        self._pad_id = tokenizer.pad_token_id or 0
        self._inputs = input_names(tokenizer)
        if precision != "float32":
            _keep_last_layer_in_float32(model)

    def __call__(self, batch: PairBatch) -> torch.Tensor:
        return self._logits(batch.padded(self._pad_id))

    def _logits(self, arrays: dict[str, np.ndarray]) -> torch.Tensor:
        inputs = {name: to_device(arrays[name], self.device) for name in self._inputs}
        with torch.inference_mode():
            return self.model(**inputs).logits.squeeze(-1).float()


class CompiledModel(PaddedModel):
    """Like `PaddedModel`, compiled by ``torch.compile``, which needs a C++ compiler on a CPU.

    On a GPU every shape is recorded as a CUDA graph and replayed without launching single kernels. To limit the number
    of shapes, rows are padded to powers of two and columns to multiples of eight.
    """

    backend = "torch_compile"
    in_threads = False

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: torch.device, precision: str
    ) -> None:
        super().__init__(model, tokenizer, device, precision)
        mode = "reduce-overhead" if device.type == "cuda" else None
        # With fixed shapes, PyTorch would silently stop compiling from the ninth shape on.
        self.model = torch.compile(self.model, dynamic=True, mode=mode)

    def __call__(self, batch: PairBatch) -> torch.Tensor:
        rows = len(batch.lengths)
        arrays = batch.padded(self._pad_id, 1 << (rows - 1).bit_length(), -(-int(batch.lengths[0]) // 8) * 8)
        # The next replay of the graph overwrites its output.
        return self._logits(arrays)[:rows].clone()


def _keep_last_layer_in_float32(model: PreTrainedModel) -> None:
    heads = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 1]
    if not heads:
        raise UserError(f"{type(model).__name__} ends in no linear layer of one output; score it in float32")
    heads[-1].float().register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
