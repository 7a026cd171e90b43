"""BERT without padding: texts are concatenated, and attention runs over texts of equal length.

It computes `BertModel` (Devlin et al. 2019, arXiv:1810.04805) for cross-encoder and bi-encoder,
without padding and, if only first tokens are requested, without the other rows of the last layer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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


class _Layer(NamedTuple):
    """Weights of one layer; query, key and value are one matrix, (3 h, h), queries first."""

    qkv: tuple[Tensor, Tensor]
    attention_out: tuple[Tensor, Tensor]
    attention_norm: tuple[Tensor, Tensor]
    up: tuple[Tensor, Tensor]
    down: tuple[Tensor, Tensor]
    norm: tuple[Tensor, Tensor]


class PackedLayers:
    """Embeddings and layers of a BERT, over packed texts.

    Args:
        config: content of ``config.json``.
        weights: tensors by their names in `BertModel`, or in a model with a head (``bert.`` first).
        device: where to compute.
        dtype: dtype of weights and computation: float32, bfloat16 or float16.

    Attributes:
        dimension: length of a token's vector.
        longest: maximum tokens of a text.

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

        def both(name: str) -> tuple[Tensor, Tensor]:
            return loaded(f"{name}.weight"), loaded(f"{name}.bias")

        def layer(name: str) -> _Layer:
            queries_keys_values = [
                both(f"{name}.attention.self.{kind}") for kind in ("query", "key", "value")
            ]
            weights_of_kinds, biases_of_kinds = zip(*queries_keys_values, strict=True)
            return _Layer(
                qkv=(torch.cat(weights_of_kinds), torch.cat(biases_of_kinds)),
                attention_out=both(f"{name}.attention.output.dense"),
                attention_norm=both(f"{name}.attention.output.LayerNorm"),
                up=both(f"{name}.intermediate.dense"),
                down=both(f"{name}.output.dense"),
                norm=both(f"{name}.output.LayerNorm"),
            )

        self.device = device
        self._kernels = partial(sdpa_kernel, KERNELS) if device.type == "cuda" else nullcontext
        self.heads = config["num_attention_heads"]
        self.eps = config.get("layer_norm_eps", 1e-12)
        self.words = loaded("embeddings.word_embeddings.weight")
        self.positions = loaded("embeddings.position_embeddings.weight")
        self.types = loaded("embeddings.token_type_embeddings.weight")
        self.embedding_norm = both("embeddings.LayerNorm")
        self.longest, self.dimension = self.positions.shape
        count = config["num_hidden_layers"]
        self.layers = [layer(f"encoder.layer.{number}") for number in range(count)]
        fits = self.heads > 0 and not self.dimension % self.heads
        if f"{prefix}encoder.layer.{count}.output.dense.weight" in weights or not fits:
            raise ValueError(
                "the numbers of layers or heads in the configuration and the weights differ"
            )

    @staticmethod
    def supports(config: Mapping[str, Any]) -> bool:
        """Whether this class computes the BERT of a configuration."""
        return (
            config.get("model_type") == "bert"
            and config.get("hidden_act", "gelu") == "gelu"
            and config.get("position_embedding_type", "absolute") == "absolute"
            and not config.get("is_decoder", False)
            and "quantization_config" not in config
        )

    def all_tokens(self, batch: PackedTexts) -> Tensor:
        """Vectors of all tokens, (t, h)."""
        with self._kernels():
            return self._through(self.layers, batch)

    def pooled(self, batch: PackedTexts, pooling: str) -> Tensor:
        """Vectors of texts, (n, h) float32: the first token's (``cls``) or the sum (``mean``)."""
        if pooling == "cls":
            return self.first_tokens(batch).float()
        hidden = self.all_tokens(batch)
        sums = []
        for group in batch.groups:
            tokens = hidden[group.tokens].view(group.texts, group.length, -1)
            sums.append(tokens.sum(dim=1, dtype=torch.float32))
        return torch.cat(sums)

    def first_tokens(self, batch: PackedTexts) -> Tensor:
        """Vectors of each text's first token, (n, h)."""
        *lower, last = self.layers
        with self._kernels():
            hidden = self._through(lower, batch)
            first = hidden[to_device(batch.offsets[:-1], self.device)]
            return self._after_attention(
                last, self._attention_of_first(last, first, hidden, batch.groups), first
            )

    def _through(self, layers: list[_Layer], batch: PackedTexts) -> Tensor:
        hidden = functional.embedding(to_device(batch.ids, self.device), self.words)
        hidden += functional.embedding(to_device(batch.positions, self.device), self.positions)
        types = batch.types
        hidden += (
            self.types[0]
            if types is None
            else functional.embedding(to_device(types, self.device), self.types)
        )
        hidden = functional.layer_norm(hidden, self.words.shape[1:], *self.embedding_norm, self.eps)
        for layer in layers:
            hidden = self._after_attention(
                layer, self._attention(layer, hidden, batch.groups), hidden
            )
        return hidden

    def _attention(self, layer: _Layer, hidden: Tensor, groups: list[TextGroup]) -> Tensor:
        """Attention output of each token, (t, h)."""
        qkv = functional.linear(hidden, *layer.qkv)
        output = hidden.new_empty(hidden.shape)
        for group in groups:
            by_head = (group.texts, group.length, self.heads, -1)
            # (texts, length, 3, heads, size) -> three of (texts, heads, length, size)
            parts = (
                qkv[group.tokens]
                .view(group.texts, group.length, 3, self.heads, -1)
                .permute(2, 0, 3, 1, 4)
            )
            output[group.tokens].view(by_head).copy_(_attend(*parts).transpose(1, 2))
        return output

    def _attention_of_first(
        self, layer: _Layer, first: Tensor, hidden: Tensor, groups: list[TextGroup]
    ) -> Tensor:
        """Attention output of each text's first token, (n, h)."""
        width = hidden.shape[1]
        weight, bias = layer.qkv
        query = functional.linear(first, weight[:width], bias[:width])
        key_value = functional.linear(hidden, weight[width:], bias[width:])
        output = first.new_empty(first.shape)
        for group in groups:
            parts = (
                key_value[group.tokens]
                .view(group.texts, group.length, 2, self.heads, -1)
                .permute(2, 0, 3, 1, 4)
            )
            by_head = (group.texts, self.heads, 1, -1)
            output[group.rows].view(by_head).copy_(_attend(query[group.rows].view(by_head), *parts))
        return output

    def _after_attention(self, layer: _Layer, attended: Tensor, hidden: Tensor) -> Tensor:
        """The rest of a layer after attention, token by token."""
        width = hidden.shape[1:]
        hidden = functional.linear(attended, *layer.attention_out).add_(hidden)
        hidden = functional.layer_norm(hidden, width, *layer.attention_norm, self.eps)
        inner = functional.gelu(functional.linear(hidden, *layer.up))
        return functional.layer_norm(
            functional.linear(inner, *layer.down).add_(hidden), width, *layer.norm, self.eps
        )


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of (texts, heads, q, size) over (texts, heads, k, size); nothing is masked."""
    if query.device.type != "cpu" or query.dtype is torch.float32:
        return functional.scaled_dot_product_attention(query, key, value)
    # On a CPU in bfloat16, the fused kernel takes twice as long as its two matrix products.
    scores = torch.matmul(query, key.transpose(-1, -2)).mul_(query.shape[-1] ** -0.5)
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
