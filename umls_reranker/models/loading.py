"""Backends by name: PyTorch eager or compiled, ONNX Runtime, OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..core.devices import resolve_device, resolve_precision
from ..core.errors import UserError
from .network import Network
from .packed_bert import PackedBert
from .pretrained import load_pretrained
from .runtime_files import EXPORTED_FILES
from .transformers_models import CompiledModel, PaddedModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["BACKENDS", "load_model", "load_network"]

BACKENDS = ("torch", "torch_compile", *EXPORTED_FILES)


def load_network(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    device: str | None = None,
    precision: str | None = None,
    backend: str = "torch",
) -> Network:
    """Load a network from a model folder.

    Raises:
        UserError: no such backend, or the folder has no sound model of one logit for it.
    """
    if backend not in BACKENDS:
        raise UserError(f"backend {backend!r} is unknown; choose from {', '.join(BACKENDS)}")
    if backend in EXPORTED_FILES:
        from .runtimes import load_exported

        return load_exported(folder, tokenizer, device, precision, backend)
    place = resolve_device(device)
    dtype = resolve_precision(precision, place, inference=True)
    if backend == "torch_compile":
        return CompiledModel(load_model(folder), tokenizer, place, dtype)
    packed = PackedBert.from_folder(folder, place, dtype)
    return packed or PaddedModel(load_model(folder), tokenizer, place, dtype)


def load_model(folder: Path) -> PreTrainedModel:
    """The float32 model of a folder of safetensors.

    Raises:
        UserError: there is none, a corrupt one, or one with more than one logit.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification

    try:
        model = load_pretrained(AutoModelForSequenceClassification, folder, use_safetensors=True, dtype="float32")
    except SafetensorError as error:
        raise UserError(f"{folder}: the weights are corrupt ({error}); download or make the model again") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds no loadable model: {error}") from None
    if model.config.num_labels != 1:
        raise UserError(f"{folder}: the model has {model.config.num_labels} outputs; a reranker has one logit")
    return model.eval()
