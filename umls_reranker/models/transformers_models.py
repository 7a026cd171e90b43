"""Any sequence-classification model of transformers, eager or compiled, called with padded batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..core.devices import to_device
from ..core.errors import UserError
from .network import Network, input_names, shape_of
from .token_batch import PairBatch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["CompiledModel", "PaddedModel"]


class PaddedModel(Network):
    """Any transformers model, called with padded batches.

    Args:
        model: with ``num_labels=1``.
        tokenizer: tells the padding token and whether the model takes token types.
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
        import torch

        self.device, self.precision, self.shape = device, precision, shape_of(model.config.to_dict())
        self.model = model.to(device=device, dtype=getattr(torch, precision))
        self._pad_id = tokenizer.pad_token_id or 0
        self._inputs = input_names(tokenizer)
        if precision != "float32":
            _keep_last_layer_in_float32(model)

    def __call__(self, batch: PairBatch) -> torch.Tensor:
        return self._logits(batch.padded(self._pad_id))

    def _logits(self, arrays: dict[str, np.ndarray]) -> torch.Tensor:
        import torch

        inputs = {name: to_device(arrays[name], self.device) for name in self._inputs}
        with torch.inference_mode():
            return self.model(**inputs).logits.squeeze(-1).float()


class CompiledModel(PaddedModel):
    """As `PaddedModel`, compiled by ``torch.compile``, which needs a C++ compiler on a processor.

    On a GPU every shape is recorded as a CUDA graph and replayed without launching kernels one by one; so that shapes
    are few, rows are padded to powers of two and columns to multiples of eight.
    """

    backend = "torch_compile"
    in_threads = False

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: torch.device, precision: str
    ) -> None:
        import torch

        super().__init__(model, tokenizer, device, precision)
        on_gpu = device.type == "cuda"
        self.model = torch.compile(self.model, dynamic=not on_gpu, mode="reduce-overhead" if on_gpu else None)

    def __call__(self, batch: PairBatch) -> torch.Tensor:
        rows = len(batch.lengths)
        arrays = batch.padded(self._pad_id, 1 << (rows - 1).bit_length(), -(-int(batch.lengths[0]) // 8) * 8)
        # The graph's next replay writes over its output.
        return self._logits(arrays)[:rows].clone()


def _keep_last_layer_in_float32(model: PreTrainedModel) -> None:
    from torch import nn

    heads = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 1]
    if not heads:
        raise UserError(f"{type(model).__name__} ends in no linear layer of one output; score it in float32")
    heads[-1].float().register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
