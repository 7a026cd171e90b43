"""What every backend of the scoring engine is: a function from batches of pairs to logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .token_batch import PairBatch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

__all__ = ["Network", "input_names", "shape_of"]


class Network(ABC):
    """From batches of pairs to logits; may be called from several threads.

    Attributes:
        backend: one of `BACKENDS`.
        device: where it computes.
        precision: float32, bfloat16, float16 or int8.
        shape: layers and widths, for what is remembered about networks of one shape.
        padded: whether a batch costs its longest pair times its pairs, rather than its tokens.
        in_threads: whether several batches at a time, each in a thread of its own, make the best use of a processor.
    """

    backend: str
    device: torch.device
    precision: str
    shape: str
    padded: bool
    in_threads: bool

    @abstractmethod
    def __call__(self, batch: PairBatch) -> torch.Tensor:
        """Logits, (n,) float32, on the device; does not wait for it."""


def input_names(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What a model takes, of the three inputs that there are."""
    names = ["input_ids", "attention_mask"]
    return [*names, "token_type_ids"] if "token_type_ids" in tokenizer.model_input_names else names


def shape_of(config: Mapping[str, Any]) -> str:
    """Kind, layers and widths of a model, from the content of ``config.json``."""
    sizes = (config.get(key, "?") for key in ("num_hidden_layers", "hidden_size", "intermediate_size"))
    return f"{config.get('model_type')} {'x'.join(map(str, sizes))}"
