"""Networks that compute logits of pairs: BERT without padding, and any transformers sequence classifier."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from ..core.devices import batch_mapper, resolve_device, resolve_dtype, to_device
from ..core.errors import UserError
from .batches import PairBatch
from .packed import PackedLayers, load_packed
from .pretrained import load_model, load_pretrained, loading

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Small batches fit a CPU's cache; a GPU needs many rows.
TOKEN_BUDGET = {"cpu": 1_024, "cuda": 65_536}


class TorchNetwork(ABC):
    """Maps batches of pairs to logits in PyTorch; safe to call from several threads. See also `OnnxNetwork`.

    Args:
        device: where to compute.
        dtype: dtype of all layers but the last, which always computes in float32: otherwise logits near 5 would have
            steps of 0.03 and tie different candidates.

    Attributes:
        padded: whether a batch costs (longest pair x pairs) instead of its tokens.
        token_budget: usual tokens per forward pass, padding included.
    """

    backend = "torch"
    padded: bool

    def __init__(self, device: torch.device, dtype: str) -> None:
        self.device, self.dtype = device, dtype
        self.token_budget = TOKEN_BUDGET.get(device.type, TOKEN_BUDGET["cuda"])

    @abstractmethod
    def __call__(self, batch: PairBatch) -> Tensor:
        """Logits, (n,) float32, on the device; a GPU computes them asynchronously."""

    @property
    def threads(self) -> int:
        """Number of batches that `map` computes at a time."""
        return torch.get_num_threads() if self.device.type == "cpu" else 1

    def map(self, forward: Callable[[np.ndarray], Tensor], batches: Sequence[np.ndarray]) -> Iterable[Tensor]:
        """Results of `forward` for each batch in order, several at a time."""
        # Set anew: a process forked after the network was loaded has none of its threads.
        return batch_mapper(self.device)(forward, batches)

    def collect(self, outputs: Sequence[Tensor]) -> np.ndarray:
        """The logits of several batches, in order; waits for a GPU."""
        return torch.cat(list(outputs)).cpu().numpy()


def input_names(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The inputs that a model accepts, of the three possible ones."""
    names = ["input_ids", "attention_mask"]
    return [*names, "token_type_ids"] if "token_type_ids" in tokenizer.model_input_names else names


class PackedBert(TorchNetwork):
    """A BERT of one logit with packed batches.

    Args:
        config: content of ``config.json``.
        weights: tensors by their names in `BertForSequenceClassification`.
        device: as for `TorchNetwork`.
        dtype: as for `TorchNetwork`.

    Raises:
        KeyError: a weight is missing.
        TypeError: the configuration does not fit the weights.
        ValueError: the configuration does not fit the weights.
    """

    padded = False

    def __init__(
        self, config: Mapping[str, Any], weights: Mapping[str, Tensor], device: torch.device, dtype: str
    ) -> None:
        super().__init__(device, dtype)
        if weights["classifier.weight"].shape[0] != 1:
            raise ValueError("a reranker has one logit")
        self.body = PackedLayers(config, weights, device, dtype)

        def linear(name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
            return weights[f"{name}.weight"].to(device, dtype), weights[f"{name}.bias"].to(device, dtype)

        self.pooler = linear("bert.pooler.dense", self.body.words.dtype)
        self.head = linear("classifier", torch.float32)

    @staticmethod
    def supports(config: Mapping[str, Any]) -> bool:
        """Whether this class computes the classifier of a configuration."""
        return config.get("architectures") == ["BertForSequenceClassification"] and PackedLayers.supports(config)

    def __call__(self, batch: PairBatch) -> Tensor:
        with torch.inference_mode():
            pooled = functional.linear(self.body.first_tokens(batch), *self.pooler).tanh_()
            return functional.linear(pooled.float(), *self.head).squeeze(-1)


class PaddedModel(TorchNetwork):
    """Any transformers model, called with padded batches.

    Args:
        model: a model with ``num_labels=1``.
        tokenizer: defines the padding token and whether the model uses token types.
        device: as for `TorchNetwork`.
        dtype: as for `TorchNetwork`.
    """

    padded = True

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: torch.device, dtype: str
    ) -> None:
        super().__init__(device, dtype)
        # transformers wraps `to`, which hides its first argument.
        self.model = model.to(device=device, dtype=getattr(torch, dtype))  # type: ignore[call-arg]
        self._pad_id = tokenizer.pad_token_id or 0
        self._inputs = input_names(tokenizer)
        if dtype != "float32":
            _keep_last_layer_in_float32(model)

    def __call__(self, batch: PairBatch) -> Tensor:
        arrays = batch.padded(self._pad_id)
        inputs = {name: to_device(arrays[name], self.device) for name in self._inputs}
        with torch.inference_mode():
            return self.model(**inputs).logits.squeeze(-1).float()


def load_network(folder: Path, device: str | None, dtype: str | None) -> tuple[TorchNetwork, Tokenizer]:
    """Load the fastest network for the model in a folder, and its tokenizer.

    Raises:
        UserError: the folder has no valid model of one logit.
    """
    with loading(str(folder)):
        tokenizer = load_pretrained(transformers.AutoTokenizer, folder)
    resolved_device = resolve_device(device)
    resolved_dtype = resolve_dtype(dtype, resolved_device, inference=True)
    network = load_packed(PackedBert, folder, resolved_device, resolved_dtype)
    if network is None:
        network = PaddedModel(load_model(folder), tokenizer, resolved_device, resolved_dtype)
    return network, tokenizer.backend_tokenizer


def _keep_last_layer_in_float32(model: PreTrainedModel) -> None:
    heads = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 1]
    if not heads:
        raise UserError(f"{type(model).__name__} does not end in a linear layer with one output; score it in float32")
    heads[-1].float().register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
