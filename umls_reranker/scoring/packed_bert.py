"""BERT without padding: the tokens of a batch lie one after another, and attention runs over pairs of equal length.

The computation is that of `BertForSequenceClassification` (Devlin et al. 2019, arXiv:1810.04805) and so are the
logits; left out is what no logit depends on: padding, and in the last layer all rows but the first of each pair.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .batch import PairBatch
from .network import Network, shape_of, to_device

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["PackedBert"]


class _Layer(NamedTuple):
    """Weights of one layer; query, key and value are one matrix, (3 h, h), queries first."""

    qkv: tuple[Tensor, Tensor]
    attention_out: tuple[Tensor, Tensor]
    attention_norm: tuple[Tensor, Tensor]
    up: tuple[Tensor, Tensor]
    down: tuple[Tensor, Tensor]
    norm: tuple[Tensor, Tensor]


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
        import torch

        dtype = getattr(torch, precision)

        def placed(name: str) -> Tensor:
            return weights[name].to(device=device, dtype=dtype)

        def both(name: str) -> tuple[Tensor, Tensor]:
            return placed(f"{name}.weight"), placed(f"{name}.bias")

        def layer(name: str) -> _Layer:
            parts = [both(f"{name}.attention.self.{part}") for part in ("query", "key", "value")]
            return _Layer(
                tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True)),
                both(f"{name}.attention.output.dense"),
                both(f"{name}.attention.output.LayerNorm"),
                both(f"{name}.intermediate.dense"),
                both(f"{name}.output.dense"),
                both(f"{name}.output.LayerNorm"),
            )

        self.device, self.precision, self.shape = device, precision, shape_of(config)
        self.heads = config["num_attention_heads"]
        self.eps = config.get("layer_norm_eps", 1e-12)
        embeddings = "bert.embeddings"
        self.words = placed(f"{embeddings}.word_embeddings.weight")
        self.places = placed(f"{embeddings}.position_embeddings.weight")
        self.types = placed(f"{embeddings}.token_type_embeddings.weight")
        self.embedding_norm = both(f"{embeddings}.LayerNorm")
        self.layers = [layer(f"bert.encoder.layer.{number}") for number in range(config["num_hidden_layers"])]
        self.pooler = both("bert.pooler.dense")
        self.head = tuple(weights[f"classifier.{part}"].to(device=device).float() for part in ("weight", "bias"))

    @classmethod
    def from_folder(cls, folder: Path, device: torch.device, precision: str) -> PackedBert | None:
        """Load a network without transformers, whose import takes longer than all else.

        Returns:
            None where the folder holds no sound model that is computed here; transformers may know it, or say why not.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if not cls.supports(config):
                return None
            weights = load_file(folder / "model.safetensors")
            return cls(config, weights, device, precision) if weights["classifier.weight"].shape[0] == 1 else None
        except (OSError, ValueError, KeyError, SafetensorError):
            return None

    @staticmethod
    def supports(config: Mapping[str, Any]) -> bool:
        """Whether a configuration is that of a BERT whose computation is the one here."""
        return (
            config.get("architectures") == ["BertForSequenceClassification"]
            and config.get("hidden_act", "gelu") == "gelu"
            and config.get("position_embedding_type", "absolute") == "absolute"
            and not config.get("is_decoder", False)
        )

    def __call__(self, batch: PairBatch) -> Tensor:
        import torch
        from torch.nn import functional

        with torch.inference_mode():
            ids, places, types = (to_device(column, self.device) for column in (batch.ids, batch.places, batch.types))
            hidden = functional.embedding(ids, self.words)
            hidden += functional.embedding(places, self.places)
            hidden += functional.embedding(types, self.types)
            hidden = functional.layer_norm(hidden, self.words.shape[1:], *self.embedding_norm, self.eps)
            groups = _groups(batch.lengths)
            for layer in self.layers[:-1]:
                hidden = self._rest(layer, self._attention(layer, hidden, groups), hidden)
            first = hidden[to_device(batch.offsets[:-1], self.device)]
            last = self.layers[-1]
            hidden = self._rest(last, self._attention_of_first(last, first, hidden, groups), first)
            pooled = functional.linear(hidden, *self.pooler).tanh_()
            return functional.linear(pooled.float(), *self.head).squeeze(-1)

    def _attention(self, layer: _Layer, hidden: Tensor, groups: list[_Group]) -> Tensor:
        """Each token's view of its pair, (t, h)."""
        from torch.nn import functional

        qkv = functional.linear(hidden, *layer.qkv)
        seen = hidden.new_empty(hidden.shape)
        for group in groups:
            # (pairs, length, 3, heads, size) -> three of (pairs, heads, length, size)
            parts = qkv[group.tokens].view(group.pairs, group.length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            seen[group.tokens].view(group.pairs, group.length, self.heads, -1).copy_(_attend(*parts).transpose(1, 2))
        return seen

    def _attention_of_first(self, layer: _Layer, first: Tensor, hidden: Tensor, groups: list[_Group]) -> Tensor:
        """The first token's view of its pair, (n, h)."""
        from torch.nn import functional

        width = hidden.shape[1]
        weight, bias = layer.qkv
        query = functional.linear(first, weight[:width], bias[:width])
        key_value = functional.linear(hidden, weight[width:], bias[width:])
        seen = first.new_empty(first.shape)
        for group in groups:
            parts = key_value[group.tokens].view(group.pairs, group.length, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
            asked = query[group.rows].view(group.pairs, self.heads, 1, -1)
            seen[group.rows].view(group.pairs, self.heads, 1, -1).copy_(_attend(asked, *parts))
        return seen

    def _rest(self, layer: _Layer, seen: Tensor, hidden: Tensor) -> Tensor:
        """What follows attention in a layer, token by token."""
        from torch.nn import functional

        width = hidden.shape[1:]
        hidden = functional.linear(seen, *layer.attention_out).add_(hidden)
        hidden = functional.layer_norm(hidden, width, *layer.attention_norm, self.eps)
        inner = functional.gelu(functional.linear(hidden, *layer.up))
        return functional.layer_norm(functional.linear(inner, *layer.down).add_(hidden), width, *layer.norm, self.eps)


class _Group(NamedTuple):
    """Neighbouring pairs of one length: their rows and tokens."""

    rows: slice
    tokens: slice
    length: int

    @property
    def pairs(self) -> int:
        return self.rows.stop - self.rows.start


def _groups(lengths: np.ndarray) -> list[_Group]:
    starts = np.flatnonzero(np.diff(lengths, prepend=-1)).tolist()
    groups, token = [], 0
    for start, end in zip(starts, [*starts[1:], len(lengths)], strict=True):
        length = int(lengths[start])
        groups.append(_Group(slice(start, end), slice(token, token + length * (end - start)), length))
        token = groups[-1].tokens.stop
    return groups


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of (pairs, heads, q, size) over (pairs, heads, k, size); nothing is masked."""
    import torch
    from torch.nn import functional

    if query.device.type != "cpu" or query.dtype is torch.float32:
        return functional.scaled_dot_product_attention(query, key, value)
    # On a processor the fused kernel takes twice as long in bfloat16 as its two matrix products.
    scores = torch.matmul(query, key.transpose(-1, -2)).mul_(query.shape[-1] ** -0.5)
    return torch.matmul(scores.softmax(-1), value)
