"""The base model of a cross-encoder: loaded with a new head of one logit, and its dropout."""

from __future__ import annotations

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..core.errors import UserError
from ..models.hub_access import resolve_model
from ..models.pairs import PairTemplate
from ..models.pretrained import load_pretrained, loading


def load_base_model(
    model: str, revision: str | None, template: PairTemplate, attention: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the base model with a new head of one logit, and its tokenizer with the markers.

    Args:
        model: Hub id or local folder.
        revision: tag, branch or commit on the Hub.
        template: how it reads pairs.
        attention: ``attn_implementation`` of transformers; None: its own choice.

    Raises:
        UserError: the model cannot be found or reached, or its weights are damaged.
    """
    source = resolve_model(model, revision)
    with loading(f"model {model}"):
        tokenizer = load_pretrained(AutoTokenizer, source)
        options = {
            "num_labels": 1,
            "use_safetensors": True,
            "dtype": "float32",
            "attn_implementation": attention,
        }
        cross_encoder = load_pretrained(AutoModelForSequenceClassification, source, **options)
    require_readable("max_length", template.max_length, cross_encoder.config, model)
    if template.prepare_tokenizer(tokenizer):
        cross_encoder.resize_token_embeddings(len(tokenizer))
    return cross_encoder, tokenizer


def require_readable(key: str, tokens: int, config: PreTrainedConfig, model: str) -> None:
    """Refuse texts longer than a model can read; the message names the key of the recipe."""
    longest = getattr(config, "max_position_embeddings", tokens)
    if tokens > longest:
        raise UserError(f"{key}: {tokens} is more than the {longest} tokens that {model} can read")


def set_dropout(model: PreTrainedModel, share: float) -> None:
    """Set the dropout of all layers, attention included; the saved configuration is unchanged."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share
