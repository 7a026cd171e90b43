"""Load models and tokenizers from a local folder, as numbers and text, never as code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError

from ..core.errors import UserError
from ..core.files import read_json


def load_pretrained(kind: Any, folder: str | Path, **options: Any) -> Any:
    """``kind.from_pretrained`` of a local folder, without the Hub and without code from the folder.

    Args:
        kind: an Auto class of transformers.
        folder: the local folder.
        options: further options of ``from_pretrained``.

    Raises:
        UserError: the folder has its own code (``auto_map``) or an adapter.
        OSError: from transformers, if the folder does not hold such a model.
        ValueError: likewise.
        SafetensorError: likewise.
    """
    for path in (Path(folder) / "config.json", Path(folder) / "tokenizer_config.json"):
        content = read_json(path) if path.is_file() else {}
        if not isinstance(content, dict):
            raise UserError(f"{path} must be a mapping; write or download it again")
        # transformers would not run it either, but silently load another network.
        if "auto_map" in content:
            raise UserError(
                f"{path} requires custom code (auto_map), which is never run; use an architecture that transformers "
                "includes"
            )
    adapter = Path(folder) / "adapter_config.json"
    if adapter.is_file():
        raise UserError(
            f"{adapter} belongs to an adapter, and adapters are not loaded; merge it into the weights (peft's "
            "merge_and_unload) and save the merged model"
        )
    try:
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
    except (OSError, ValueError, SafetensorError):
        raise
    except Exception as error:
        # transformers and tokenizers check little of what they read.
        raise ValueError(f"{type(error).__name__}: {error}") from error


@contextmanager
def loading(model: str) -> Iterator[None]:
    """Turn errors of transformers about a model that cannot be loaded into a `UserError`."""
    try:
        yield
    except SafetensorError as error:
        raise UserError(f"{model} cannot be loaded: the weights are corrupt ({error}); download them again") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise UserError(
            f"{model} cannot be loaded: {reason}; it needs config.json, model.safetensors and tokenizer files"
        ) from None


def load_weights(kind: Any, folder: str | Path, **options: Any) -> Any:
    """Load the model of a folder of safetensors.

    Args:
        kind: an Auto class of transformers.
        folder: the local folder.
        options: further options of ``from_pretrained``.

    Raises:
        UserError: weights and configuration do not fit.
        OSError: the model is missing or damaged.
        ValueError: likewise.
        SafetensorError: likewise.
    """
    options |= {"use_safetensors": True, "output_loading_info": True}
    model, info = load_pretrained(kind, folder, **options)
    # Many encoders have no pooler, and it is not used.
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    # transformers would initialize missing weights at random, and ignore additional ones.
    missing += sorted(key for key in info["unexpected_keys"] if ".layer." in key)
    if missing:
        raise UserError(
            f"{folder}: config.json and the weights do not match (one of them lacks {missing[0]}); download or write "
            "the model again"
        )
    return model


def load_model(folder: Path) -> transformers.PreTrainedModel:
    """Load the float32 model of a folder of safetensors.

    Raises:
        UserError: the model is missing, damaged, or has more than one logit, or weights and configuration do not fit.
    """
    with loading(str(folder)):
        model = load_weights(transformers.AutoModelForSequenceClassification, folder, dtype="float32")
    if model.config.num_labels != 1:
        raise UserError(f"{folder}: the model has {model.config.num_labels} outputs; a reranker has one logit")
    return model.eval()
