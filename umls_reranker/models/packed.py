"""BERT without padding: the tokens of a batch are concatenated, and attention runs over texts of equal length.

It computes `BertModel` (Devlin et al. 2019, arXiv:1810.04805) for cross-encoder and bi-encoder, without padding and,
if only first tokens are requested, without the other rows of the last layer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..core.devices import to_device
from .tokens import PackedTexts, TextGroup

__all__ = ["PackedLayers", "load_bert"]

Made = TypeVar("Made")
# All but cuDNN's, which PyTorch prefers on Hopper: it plans again for each number of texts, for about 30 ms.
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
        weights: tensors by their names in `BertModel`, after the prefix.
        device: where to compute.
        dtype: of weights and computation: float32, bfloat16 or float16.
        prefix: of the names, e.g. ``"bert."`` in a model with a head.

    Raises:
        KeyError, TypeError, ValueError: a weight is missing, or the configuration does not fit the weights.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        device: torch.device,
        dtype: str,
        prefix: str = "",
    ) -> None:
        torch_dtype = getattr(torch, dtype)

        def placed(name: str) -> Tensor:
            return weights[prefix + name].to(device=device, dtype=torch_dtype)

        def both(name: str) -> tuple[Tensor, Tensor]:
            return placed(f"{name}.weight"), placed(f"{name}.bias")

        def layer(name: str) -> _Layer:
            parts = (both(f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
            weights_of_parts, biases = zip(*parts, strict=True)
            return _Layer(
                (torch.cat(weights_of_parts), torch.cat(biases)),
                both(f"{name}.attention.output.dense"),
                both(f"{name}.attention.output.LayerNorm"),
                both(f"{name}.intermediate.dense"),
                both(f"{name}.output.dense"),
                both(f"{name}.output.LayerNorm"),
            )

        self.device = device
        self._kernels = partial(sdpa_kernel, KERNELS) if device.type == "cuda" else nullcontext
        self.heads = config["num_attention_heads"]
        self.eps = config.get("layer_norm_eps", 1e-12)
        self.words = placed("embeddings.word_embeddings.weight")
        self.places = placed("embeddings.position_embeddings.weight")
        self.types = placed("embeddings.token_type_embeddings.weight")
        self.embedding_norm = both("embeddings.LayerNorm")
        count = config["num_hidden_layers"]
        self.layers = [layer(f"encoder.layer.{number}") for number in range(count)]
        fits = self.heads > 0 and not self.words.shape[1] % self.heads
        if f"{prefix}encoder.layer.{count}.output.dense.weight" in weights or not fits:
            raise ValueError("layers or heads of the configuration are not those of the weights")

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

    def first_tokens(self, batch: PackedTexts) -> Tensor:
        """Vectors of each text's first token, (n, h)."""
        *others, last = self.layers
        with self._kernels():
            hidden = self._through(others, batch)
            first = hidden[to_device(batch.offsets[:-1], self.device)]
            return self._rest(last, self._attention_of_first(last, first, hidden, batch.groups), first)

    def _through(self, layers: list[_Layer], batch: PackedTexts) -> Tensor:
        hidden = functional.embedding(to_device(batch.ids, self.device), self.words)
        hidden += functional.embedding(to_device(batch.places, self.device), self.places)
        types = batch.types
        hidden += self.types[0] if types is None else functional.embedding(to_device(types, self.device), self.types)
        hidden = functional.layer_norm(hidden, self.words.shape[1:], *self.embedding_norm, self.eps)
        for layer in layers:
            hidden = self._rest(layer, self._attention(layer, hidden, batch.groups), hidden)
        return hidden

    def _attention(self, layer: _Layer, hidden: Tensor, groups: list[TextGroup]) -> Tensor:
        """Attention output of each token, (t, h)."""
        qkv = functional.linear(hidden, *layer.qkv)
        seen = hidden.new_empty(hidden.shape)
        for group in groups:
            # (texts, length, 3, heads, size) -> three of (texts, heads, length, size)
            parts = qkv[group.tokens].view(group.texts, group.length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            seen[group.tokens].view(group.texts, group.length, self.heads, -1).copy_(_attend(*parts).transpose(1, 2))
        return seen

    def _attention_of_first(self, layer: _Layer, first: Tensor, hidden: Tensor, groups: list[TextGroup]) -> Tensor:
        """Attention output of each text's first token, (n, h)."""
        width = hidden.shape[1]
        weight, bias = layer.qkv
        query = functional.linear(first, weight[:width], bias[:width])
        key_value = functional.linear(hidden, weight[width:], bias[width:])
        seen = first.new_empty(first.shape)
        for group in groups:
            parts = key_value[group.tokens].view(group.texts, group.length, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
            asked = query[group.rows].view(group.texts, self.heads, 1, -1)
            seen[group.rows].view(group.texts, self.heads, 1, -1).copy_(_attend(asked, *parts))
        return seen

    def _rest(self, layer: _Layer, seen: Tensor, hidden: Tensor) -> Tensor:
        """The rest of a layer after attention, token by token."""
        width = hidden.shape[1:]
        hidden = functional.linear(seen, *layer.attention_out).add_(hidden)
        hidden = functional.layer_norm(hidden, width, *layer.attention_norm, self.eps)
        inner = functional.gelu(functional.linear(hidden, *layer.up))
        return functional.layer_norm(functional.linear(inner, *layer.down).add_(hidden), width, *layer.norm, self.eps)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of (texts, heads, q, size) over (texts, heads, k, size); nothing is masked."""
    if query.device.type != "cpu" or query.dtype is torch.float32:
        return functional.scaled_dot_product_attention(query, key, value)
    # On a CPU in bfloat16, the fused kernel takes twice as long as its two matrix products.
    scores = torch.matmul(query, key.transpose(-1, -2)).mul_(query.shape[-1] ** -0.5)
    return torch.matmul(scores.softmax(-1), value)


def load_bert(
    folder: Path,
    supports: Callable[[dict[str, Any]], bool],
    make: Callable[[dict[str, Any], dict[str, Tensor]], Made],
) -> Made | None:
    """Build a network from a folder's configuration and weights without transformers, which is slow to import.

    Returns:
        None if the folder holds no valid model of this kind; transformers may load it, or say why not.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return make(config, load_file(folder / "model.safetensors")) if supports(config) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, SafetensorError):
        return None
