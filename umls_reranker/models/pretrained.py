"""Models and tokenizers of transformers, loaded from folders without the Hub and never as code.

`load_pretrained` is the one call of ``from_pretrained``. Above it, `load_weights` also refuses
weights that do not fit the configuration, `load_model` loads a finished cross-encoder, and
`load_base_model` one that is to be trained. Errors become one line inside `loading`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError
from torch import nn

from ..core.errors import UserError
from ..core.json_files import read_json
from .model_files import resolve_model
from .pair_template import PairTemplate


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
                f"{path} requires custom code (auto_map), which is never run; "
                "use an architecture that transformers includes"
            )
    adapter = Path(folder) / "adapter_config.json"
    if adapter.is_file():
        raise UserError(
            f"{adapter} belongs to an adapter, and adapters are not loaded; "
            "merge it into the weights (peft's merge_and_unload) and save the merged model"
        )
    try:
        return kind.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
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
        raise UserError(
            f"{model} cannot be loaded: the weights are corrupt ({error}); download them again"
        ) from None
    except (OSError, ValueError, ImportError) as error:
        # The first sentence says what is wrong; transformers adds paragraphs of advice.
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise UserError(
            f"{model} cannot be loaded: {reason}; "
            "it needs config.json, model.safetensors and tokenizer files"
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
    # transformers would initialize weights that the file lacks at random, and ignore those of
    # layers that the configuration lacks. Many encoders have no pooler, and it is not used.
    not_in_file = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    not_in_config = sorted(key for key in info["unexpected_keys"] if ".layer." in key)
    unmatched = not_in_file + not_in_config
    if unmatched:
        raise UserError(
            f"{folder}: config.json and the weights do not match (one of them lacks "
            f"{unmatched[0]}); download or write the model again"
        )
    return model


def load_model(folder: Path) -> transformers.PreTrainedModel:
    """Load the float32 model of a folder of safetensors.

    Raises:
        UserError: the model is missing, damaged, or has more than one logit, or weights and
            configuration do not fit.
    """
    with loading(str(folder)):
        model = load_weights(
            transformers.AutoModelForSequenceClassification, folder, dtype="float32"
        )
    if model.config.num_labels != 1:
        raise UserError(
            f"{folder}: the model has {model.config.num_labels} outputs; a reranker has one logit"
        )
    return model.eval()


def load_base_model(
    model: str,
    revision: str | None,
    template: PairTemplate,
    attention: str | None = None,
    layers: int = 0,
) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase]:
    """Load the base model with a new head of one logit, and its tokenizer with the markers.

    Args:
        model: Hub id or local folder.
        revision: tag, branch or commit on the Hub.
        template: how it reads pairs.
        attention: ``attn_implementation`` of transformers; None: its own choice.
        layers: ``num_hidden_layers`` of the recipe.

    Raises:
        UserError: the model cannot be found or reached, its weights are damaged, or it has not that
            many layers.
    """
    source = resolve_model(model, revision)
    with loading(f"model {model}"):
        tokenizer = load_pretrained(transformers.AutoTokenizer, source)
        cross_encoder = load_pretrained(
            transformers.AutoModelForSequenceClassification,
            source,
            num_labels=1,
            use_safetensors=True,
            dtype="float32",
            attn_implementation=attention,
        )
    keep_layers(cross_encoder, layers)
    require_readable("max_length", template.max_length, cross_encoder.config, model)
    if template.prepare_tokenizer(tokenizer):
        cross_encoder.resize_token_embeddings(len(tokenizer))
    return cross_encoder, tokenizer


def keep_layers(model: Any, count: int) -> None:
    """Keep so many layers, evenly spaced, the first and the last among them; 0: all.

    Raises:
        UserError: it has fewer, or is not built like BERT.
    """
    if not count:
        return
    layers = getattr(getattr(model.base_model, "encoder", None), "layer", ())
    if count > len(layers):
        raise UserError(f"num_hidden_layers: the base has no {count} layers like those of BERT")
    last = len(layers) - 1
    steps = max(1, count - 1)
    # Number x last / steps, rounded up.
    kept = [-(-number * last // steps) for number in range(count)]
    model.base_model.encoder.layer = nn.ModuleList(layers[number] for number in kept)
    model.config.num_hidden_layers = count


def size_of(config: transformers.PreTrainedConfig) -> int:
    """Number of layers times the square of their width; 0 for a network without such numbers."""
    return getattr(config, "num_hidden_layers", 0) * getattr(config, "hidden_size", 0) ** 2


def require_readable(
    key: str, tokens: int, config: transformers.PreTrainedConfig, model: str
) -> None:
    """Refuse texts longer than a model can read; the message names the key of the recipe."""
    longest = getattr(config, "max_position_embeddings", tokens)
    if tokens > longest:
        raise UserError(f"{key}: {tokens} is more than the {longest} tokens that {model} can read")


def input_names(
    model: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerBase
) -> list[str]:
    """Names of the inputs of a model: ids and their mask, and token types if it reads them."""
    names = ["input_ids", "attention_mask"]
    parameters = signature(model.forward).parameters
    if "token_type_ids" in parameters and "token_type_ids" in tokenizer.model_input_names:
        names.append("token_type_ids")
    return names
