"""A BERT over packed texts: their tokens lie in one array, without padding.

All layers but attention work token by token, so they need not know where a text ends. Attention
runs over groups of texts of equal length (`batches.TextGroup`), so nothing is masked.
"""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..core.devices import to_device
from .batches import PackedTexts, TextGroup

# All but cuDNN's, PyTorch's choice on Hopper: it replans for each new batch size (about 30 ms).
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


# In the order that the functions of torch take them.
WeightAndBias: TypeAlias = tuple[Tensor, Tensor]


class _Layer(NamedTuple):
    """Weights and biases of one layer of width h, in the order of computation.

    Attributes:
        qkv: queries, keys and values in one matrix, (3 h, h), queries first.
        attention_out: (h, h), after attention.
        attention_norm: of the normalization after attention.
        up: to the inner width.
        down: back to h.
        norm: of the normalization at the end.
    """

    qkv: WeightAndBias
    attention_out: WeightAndBias
    attention_norm: WeightAndBias
    up: WeightAndBias
    down: WeightAndBias
    norm: WeightAndBias


class PackedLayers:
    """Embeddings and layers of a BERT, over packed texts.

    Args:
        config: content of ``config.json``.
        weights: tensors by their names in `BertModel`, or in a model with a head (``bert.`` first).
        device: where to compute.
        dtype: dtype of weights and computation: float32, bfloat16 or float16.

    Attributes:
        dimension: length of a token's vector.
        size: number of layers times the square of their width, a measure of the computation.
        longest: maximum tokens of a text.
        padded: a batch has no padding, so it costs as many tokens as its texts have.

    Raises:
        KeyError: a weight is missing.
        TypeError: the configuration does not fit the weights.
        ValueError: the configuration does not fit the weights.
    """

    padded = False

    def __init__(
        self,
        config: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        device: torch.device,
        dtype: str,
    ) -> None:
        prefix = "bert." if "bert.embeddings.word_embeddings.weight" in weights else ""

        def loaded(name: str) -> Tensor:
            return weights[prefix + name].to(device=device, dtype=getattr(torch, dtype))

        def weight_and_bias(name: str) -> WeightAndBias:
            return loaded(f"{name}.weight"), loaded(f"{name}.bias")

        def layer(name: str) -> _Layer:
            queries_keys_values = [
                weight_and_bias(f"{name}.attention.self.{kind}")
                for kind in ("query", "key", "value")
            ]
            weights_of_kinds, biases_of_kinds = zip(*queries_keys_values, strict=True)
            return _Layer(
                qkv=(torch.cat(weights_of_kinds), torch.cat(biases_of_kinds)),
                attention_out=weight_and_bias(f"{name}.attention.output.dense"),
                attention_norm=weight_and_bias(f"{name}.attention.output.LayerNorm"),
                up=weight_and_bias(f"{name}.intermediate.dense"),
                down=weight_and_bias(f"{name}.output.dense"),
                norm=weight_and_bias(f"{name}.output.LayerNorm"),
            )

        self.device = device
        self._kernels = partial(sdpa_kernel, KERNELS) if device.type == "cuda" else nullcontext
        self.heads = config["num_attention_heads"]
        self.eps = config.get("layer_norm_eps", 1e-12)
        self.words = loaded("embeddings.word_embeddings.weight")
        self.positions = loaded("embeddings.position_embeddings.weight")
        self.types = loaded("embeddings.token_type_embeddings.weight")
        self.embedding_norm = weight_and_bias("embeddings.LayerNorm")
        self.longest, self.dimension = self.positions.shape
        layer_count = config["num_hidden_layers"]
        self.layers = [layer(f"encoder.layer.{number}") for number in range(layer_count)]
        self.size = layer_count * self.dimension**2
        has_further_layer = f"{prefix}encoder.layer.{layer_count}.output.dense.weight" in weights
        heads_divide_width = self.heads > 0 and not self.dimension % self.heads
        if has_further_layer or not heads_divide_width:
            raise ValueError(
                "the numbers of layers or heads in the configuration and the weights differ"
            )

    @staticmethod
    def supports(config: Mapping[str, Any]) -> bool:
        """Whether this class computes the BERT of a configuration."""
        # These are also the defaults of transformers for keys that a configuration lacks.
        computed = {"hidden_act": "gelu", "position_embedding_type": "absolute"}
        is_computed = all(config.get(key, value) == value for key, value in computed.items())
        is_encoder = config.get("model_type") == "bert" and not config.get("is_decoder")
        return is_encoder and is_computed and "quantization_config" not in config

    def pooled(self, batch: PackedTexts, pooling: str) -> Tensor:
        """Vectors of texts, (n, h) float32: the first token's (``cls``) or the sum (``mean``).

        The sum stands for the mean, because the caller divides the vectors by their lengths.
        """
        if pooling == "cls":
            return self.first_tokens(batch).float()
        with self._kernels():
            hidden = self._through(self.layers, batch)
        tokens_of_groups = hidden.split([group.texts * group.length for group in batch.groups])
        sums = [
            tokens.view(group.texts, group.length, -1).sum(dim=1, dtype=torch.float32)
            for group, tokens in zip(batch.groups, tokens_of_groups, strict=True)
        ]
        return torch.cat(sums)

    def first_tokens(self, batch: PackedTexts) -> Tensor:
        """Vectors of each text's first token, (n, h).

        The last layer computes only those, which saves most of its time.
        """
        *lower, last = self.layers
        with self._kernels():
            hidden = self._through(lower, batch)
            first = hidden[to_device(batch.offsets[:-1], self.device)]
            attended = self._attention_of_first(last, first, hidden, batch.groups)
            return self._after_attention(last, attended, first)

    def _through(self, layers: list[_Layer], batch: PackedTexts) -> Tensor:
        """Vectors of all tokens after the embeddings and these layers, (t, h)."""
        hidden = functional.embedding(to_device(batch.ids, self.device), self.words)
        hidden += functional.embedding(to_device(batch.positions, self.device), self.positions)
        if batch.types is None:
            hidden += self.types[0]
        else:
            hidden += functional.embedding(to_device(batch.types, self.device), self.types)
        hidden = functional.layer_norm(hidden, self.words.shape[1:], *self.embedding_norm, self.eps)
        for layer in layers:
            attended = self._attention(functional.linear(hidden, *layer.qkv), batch.groups)
            hidden = self._after_attention(layer, attended, hidden)
        return hidden

    def _attention_of_first(
        self, layer: _Layer, first: Tensor, hidden: Tensor, groups: list[TextGroup]
    ) -> Tensor:
        """Attention output of each text's first token, (n, h)."""
        width = hidden.shape[1]
        weight, bias = layer.qkv
        query = functional.linear(first, weight[:width], bias[:width])
        key_value = functional.linear(hidden, weight[width:], bias[width:])
        return self._attention(key_value, groups, query)

    def _attention(
        self, projected: Tensor, groups: list[TextGroup], query: Tensor | None = None
    ) -> Tensor:
        """Attention output of each token, (t, h), or of queries, (n, h), over keys and values.

        Args:
            projected: (t, 3 h) queries, keys and values of the tokens, or (t, 2 h) without queries.
            groups: the texts.
            query: (n, h) the query of each text; None: those of all tokens.
        """
        projections = 3 if query is None else 2
        outputs = []
        tokens_of_groups = projected.split([group.texts * group.length for group in groups])
        for group, tokens in zip(groups, tokens_of_groups, strict=True):
            # (texts, length, projections, heads, size) -> of each projection, in this order,
            # (texts, heads, length, size)
            by_head = tokens.view(group.texts, group.length, projections, self.heads, -1)
            queries_keys_values = by_head.permute(2, 0, 3, 1, 4)
            if query is not None:
                queries = query[group.rows].view(group.texts, self.heads, 1, -1)
                queries_keys_values = (queries, *queries_keys_values)
            attended = _attend(*queries_keys_values)
            outputs.append(attended.transpose(1, 2).reshape(-1, self.dimension))
        return torch.cat(outputs)

    def _after_attention(self, layer: _Layer, attended: Tensor, hidden: Tensor) -> Tensor:
        """The rest of a layer after attention, token by token.

        Args:
            layer: the layer.
            attended: (t, h) output of its attention.
            hidden: (t, h) its input, which the first sum adds.
        """
        width = hidden.shape[1:]
        # Not in place: in mixed precision the sums are float32.
        hidden = functional.linear(attended, *layer.attention_out) + hidden
        hidden = functional.layer_norm(hidden, width, *layer.attention_norm, self.eps)
        inner = functional.gelu(functional.linear(hidden, *layer.up))
        return functional.layer_norm(
            functional.linear(inner, *layer.down) + hidden, width, *layer.norm, self.eps
        )


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of (texts, heads, q, size) over (texts, heads, k, size); nothing is masked."""
    if query.device.type != "cpu" or query.dtype is torch.float32:
        return functional.scaled_dot_product_attention(query, key, value)
    if torch.is_grad_enabled():
        # Groups are small in training, and small products are slow in bfloat16.
        with torch.autocast("cpu", enabled=False):
            return functional.scaled_dot_product_attention(
                query.float(), key.float(), value.float()
            )
    # On a CPU in bfloat16, the fused kernel takes twice as long as its two matrix products.
    scale = query.shape[-1] ** -0.5
    scores = torch.matmul(query, key.transpose(-1, -2)).mul_(scale)
    return torch.matmul(scores.softmax(-1), value)


def load_packed(kind: Any, folder: Path, device: torch.device, dtype: str) -> Any:
    """Build a network from a folder's files without transformers, which is slow to import.

    Args:
        kind: `PackedLayers`, or a class that holds them and has the same constructor.
        folder: the model folder.
        device: as for `PackedLayers`.
        dtype: as for `PackedLayers`.

    Returns:
        The network; None if the folder has no valid model of this kind, which transformers may load
        or refuse.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not kind.supports(config):
            return None
        return kind(config, load_file(folder / "model.safetensors"), device, dtype)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError):
        return None
