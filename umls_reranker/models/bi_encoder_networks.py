"""What computes the bi-encoder's vectors: BERT without padding, or any encoder of transformers with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .packed_layers import PackedLayers, PackedTexts, load_bert
from .pretrained import load_pretrained

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

__all__ = ["POOLINGS", "EncoderNetwork", "PackedEncoder", "PaddedEncoder", "padded", "pooled"]

POOLINGS = ("mean", "cls")
# Names of weights in a folder of the encoder alone, and in one with a head (`BertForMaskedLM`).
PREFIXES = ("", "bert.")


class EncoderNetwork(ABC):
    """From token ids to unit vectors; may be called from several threads.

    Attributes:
        device: where it computes.
        dimension: of a vector.
        longest: most tokens of a text.
        padded: whether a batch costs its longest text times its texts, rather than its tokens.
    """

    device: torch.device
    dimension: int
    longest: int
    padded: bool

    @abstractmethod
    def __call__(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Ids of n texts, longest first -> (n, dimension) float32 unit vectors on the device; does not wait for it."""


class PackedEncoder(EncoderNetwork):
    """A BERT whose batches are packed.

    Args:
        body: the transformer; pooling and normalization are in float32 whatever its precision.
        pooling: ``mean`` or ``cls``.
    """

    padded = False

    def __init__(self, body: PackedLayers, pooling: str) -> None:
        self.body, self.pooling, self.device = body, pooling, body.device
        self.longest, self.dimension = body.places.shape

    @classmethod
    def from_folder(cls, folder: Path, device: torch.device, precision: str, pooling: str) -> PackedEncoder | None:
        """Load a network, or None where transformers has to (`load_bert`)."""

        def make(config: dict[str, Any], weights: dict[str, Tensor]) -> PackedEncoder:
            prefix = next((one for one in PREFIXES if f"{one}embeddings.word_embeddings.weight" in weights), "")
            return cls(PackedLayers(config, weights, device, precision, prefix), pooling)

        return load_bert(folder, PackedLayers.supports, make)

    def __call__(self, texts: Sequence[Sequence[int]]) -> Tensor:
        import torch

        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        batch = PackedTexts(np.fromiter(chain.from_iterable(texts), np.int32, lengths.sum()), lengths)
        with torch.inference_mode():
            if self.pooling == "cls":
                return _unit(self.body.first_tokens(batch).float())
            hidden = self.body.all_tokens(batch)
            sums = [
                hidden[group.tokens].view(group.texts, group.length, -1).sum(dim=1, dtype=torch.float32)
                for group in batch.groups
            ]
            return _unit(torch.cat(sums))


class PaddedEncoder(EncoderNetwork):
    """Any encoder of transformers that returns ``last_hidden_state``, called with padded batches.

    Args:
        model: on its device and in its precision.
        pooling: ``mean`` or ``cls``.
        pad_token_id: of its tokenizer.
    """

    padded = True

    def __init__(self, model: PreTrainedModel, pooling: str, pad_token_id: int) -> None:
        self.model, self.pooling, self.pad_token_id = model.eval(), pooling, pad_token_id
        self.device, self.dimension = model.device, model.config.hidden_size
        self.longest = model.config.max_position_embeddings

    @classmethod
    def from_folder(
        cls, folder: Path, device: torch.device, precision: str, pooling: str, pad_token_id: int
    ) -> PaddedEncoder:
        """Load a model of safetensors.

        Raises:
            OSError, ValueError, SafetensorError: there is none, or a corrupt one.
        """
        import torch
        from transformers import AutoModel

        # On a CPU the plain attention is the faster one for texts of some ten tokens (1.3x in bfloat16).
        attention = "eager" if device.type == "cpu" else "sdpa"
        model = load_pretrained(
            AutoModel,
            folder,
            dtype=getattr(torch, precision),
            attn_implementation=attention,
            use_safetensors=True,
        )
        return cls(model.to(device), pooling, pad_token_id)

    def __call__(self, texts: Sequence[Sequence[int]]) -> Tensor:
        import torch

        with torch.inference_mode():
            input_ids, mask = (torch.from_numpy(array).to(self.device) for array in padded(texts, self.pad_token_id))
            hidden = self.model(input_ids=input_ids, attention_mask=mask.long()).last_hidden_state
            return pooled(hidden, mask, self.pooling)


def padded(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, w) int64 ids as wide as the longest row, and (n, w) bool, where they are no padding."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
    input_ids = np.full(mask.shape, pad_token_id, np.int64)
    input_ids[mask] = np.concatenate([np.empty(0, np.int64), *rows])
    return input_ids, mask


def pooled(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """(n, w, d) token vectors and (n, w) bool -> (n, d) float32 unit vectors."""
    hidden = hidden.float()
    return _unit(hidden[:, 0] if pooling == "cls" else (hidden * mask.unsqueeze(-1)).sum(dim=1))


def _unit(vectors: Tensor) -> Tensor:
    """Vectors of length 1; a sum over the tokens points where their mean does."""
    from torch.nn import functional

    return functional.normalize(vectors, dim=-1)
