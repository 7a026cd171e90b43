"""Networks in PyTorch that compute logits of pairs; `load_network` chooses one for a model folder.

BERT is computed without padding, any other sequence classifier of transformers with padded batches.
`cross_encoder.PairScorer` makes the batches and calls the networks; their counterpart in ONNX
Runtime is `onnx_network.OnnxNetwork`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from ..core.devices import batch_mapper, resolve_device, resolve_dtype, to_device
from ..core.errors import UserError
from .arguments import ENCODER
from .batches import PackedTexts, PairBatch
from .packed_bert import PackedLayers, load_packed
from .pretrained import input_names, load_model, load_pretrained, loading, size_of

# From cosines to log-odds: one over the temperature that encoders of names are trained with.
COSINE_SCALE = 20
# Tokens per forward pass by type of device. Small batches fit a CPU's cache; a GPU needs many rows.
TOKEN_BUDGET = {"cpu": 1_024, "cuda": 65_536}


class TorchNetwork(ABC):
    """Maps batches of pairs to logits in PyTorch; thread-safe. See also `OnnxNetwork`.

    Args:
        device: where to compute.
        dtype: dtype of all layers but the last, which always computes in float32: otherwise logits
            near 5 would have steps of 0.03 and tie different candidates.

    Attributes:
        padded: whether a batch costs (longest pair x pairs) instead of its tokens.
        reads_pairs: whether it reads the texts of a pair together; an encoder does not.
        token_budget: usual tokens per forward pass, padding included.
        size: number of layers times the square of their width, a measure of the computation.
    """

    backend = "torch"
    size: int
    padded: bool
    reads_pairs = True

    def __init__(self, device: torch.device, dtype: str) -> None:
        self.device = device
        self.dtype = dtype
        self.token_budget = TOKEN_BUDGET.get(device.type, TOKEN_BUDGET["cuda"])

    @abstractmethod
    def __call__(self, batch: PairBatch) -> Tensor:
        """Logits, (n,) float32, on the device; a GPU computes them asynchronously.

        Where `reads_pairs` is false, a batch holds texts, and the result is their vectors.
        """

    @property
    def threads(self) -> int:
        """Number of batches that `map` computes at a time."""
        return torch.get_num_threads() if self.device.type == "cpu" else 1

    def map(
        self, forward: Callable[[np.ndarray], Tensor], batches: Sequence[np.ndarray]
    ) -> Iterable[Tensor]:
        """Results of `forward` for each batch in order, several at a time."""
        # A mapper for each call: a process forked after the network was loaded would lack the
        # threads of a former one.
        return batch_mapper(self.device)(forward, batches)

    def collect(self, outputs: Sequence[Tensor]) -> np.ndarray:
        """The logits of several batches, in order; waits for a GPU."""
        return torch.cat(list(outputs)).cpu().numpy()


class PackedNetwork(TorchNetwork):
    """A network with packed batches; arguments and errors are those of `PackedLayers`.

    Attributes:
        architectures: the value of ``architectures`` in the configurations that it computes.
        body: the embeddings and layers.
    """

    padded = False
    architectures: list[str]

    def __init__(
        self,
        config: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        device: torch.device,
        dtype: str,
    ) -> None:
        super().__init__(device, dtype)
        self.body = PackedLayers(config, weights, device, dtype)
        self.size = self.body.size

    @classmethod
    def supports(cls, config: Mapping[str, Any]) -> bool:
        """Whether this class computes the network of a configuration."""
        return config.get("architectures") == cls.architectures and PackedLayers.supports(config)


class PackedBert(PackedNetwork):
    """A BERT of one logit: above the layers it has a pooler and a linear layer."""

    architectures = ["BertForSequenceClassification"]

    def __init__(
        self,
        config: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        device: torch.device,
        dtype: str,
    ) -> None:
        super().__init__(config, weights, device, dtype)
        if weights["classifier.weight"].shape[0] != 1:
            raise ValueError("a reranker has one logit")

        def linear(name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
            return (
                weights[f"{name}.weight"].to(self.device, dtype),
                weights[f"{name}.bias"].to(self.device, dtype),
            )

        self.pooler = linear("bert.pooler.dense", self.body.words.dtype)
        self.head = linear("classifier", torch.float32)

    def __call__(self, batch: PairBatch) -> Tensor:
        with torch.inference_mode():
            return self.logits(batch)

    def logits(self, batch: PairBatch) -> Tensor:
        """Logits, (n,) float32, that have gradients if the weights do."""
        pooled = functional.linear(self.body.first_tokens(batch), *self.pooler).tanh_()
        return functional.linear(pooled.float(), *self.head).squeeze(-1)


class PackedEncoder(PackedNetwork):
    """A BERT encoder, for logits that are scaled cosines of the mean vectors of two texts."""

    reads_pairs = False
    architectures = ENCODER

    def __call__(self, batch: PackedTexts) -> Tensor:
        """Unit vectors of n texts, (n, h) float32, on the device."""
        with torch.inference_mode():
            return functional.normalize(self.body.pooled(batch, "mean"), dim=-1)

    def logits(self, rows: np.ndarray, vectors: Sequence[Tensor], text_of: np.ndarray) -> Tensor:
        """Logits of n pairs, (n,) float32, on the device.

        Args:
            rows: (k,) the texts, in the order of their vectors.
            vectors: the vectors, batch by batch.
            text_of: (2, n), the texts of each pair.
        """
        # Vectors are in the order of batches; `position[text]` is where that of a text is.
        position = np.argsort(rows)
        first, second = torch.cat(list(vectors))[to_device(position[text_of], self.device)]
        return COSINE_SCALE * (first * second).sum(dim=-1)


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
        self,
        model: transformers.PreTrainedModel,
        tokenizer: transformers.PreTrainedTokenizerBase,
        device: torch.device,
        dtype: str,
    ) -> None:
        super().__init__(device, dtype)
        # transformers wraps `to`, which hides its first argument.
        self.model = model.to(device=device, dtype=getattr(torch, dtype))  # type: ignore[call-arg]
        self.size = size_of(model.config)
        self._pad_id = tokenizer.pad_token_id or 0
        self._inputs = input_names(model, tokenizer)
        if dtype != "float32":
            _keep_last_layer_in_float32(model)

    def __call__(self, batch: PairBatch) -> Tensor:
        arrays = batch.padded(self._pad_id)
        inputs = {name: to_device(arrays[name], self.device) for name in self._inputs}
        with torch.inference_mode():
            return self.model(**inputs).logits.squeeze(-1).float()


def load_network(
    folder: Path, device: str | None, dtype: str | None
) -> tuple[TorchNetwork, Tokenizer]:
    """Load the fastest network for the model in a folder, and its tokenizer.

    Raises:
        UserError: the folder has no valid model of one logit.
    """
    with loading(str(folder)):
        tokenizer = load_pretrained(transformers.AutoTokenizer, folder)
    resolved_device = resolve_device(device)
    resolved_dtype = resolve_dtype(dtype, resolved_device, inference=True)
    network = (
        load_packed(PackedBert, folder, resolved_device, resolved_dtype)
        or load_packed(PackedEncoder, folder, resolved_device, resolved_dtype)
        or PaddedModel(load_model(folder), tokenizer, resolved_device, resolved_dtype)
    )
    return network, tokenizer.backend_tokenizer


def _keep_last_layer_in_float32(model: transformers.PreTrainedModel) -> None:
    """Let the layer that gives the logit compute in float32, whatever comes before it.

    Raises:
        UserError: the model does not end in a linear layer with one output.
    """
    heads = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and module.out_features == 1
    ]
    if not heads:
        raise UserError(
            f"{type(model).__name__} does not end in a linear layer with one output; "
            "score it in float32"
        )
    heads[-1].float().register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
