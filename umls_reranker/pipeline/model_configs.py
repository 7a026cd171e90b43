"""The configurations of the models that a recipe names, which are read without their weights."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from ..core.errors import CollectedErrors, UserError
from ..models.arguments import RUN_ENCODER
from ..models.model_files import resolve_model
from ..models.pretrained import keep_layers, load_pretrained, loading, require_readable
from ..retrieval.retrievers import needs_encoder
from .recipe import Recipe

# Parameters of BERT-base, if the configuration cannot be read.
BERT_PARAMETERS = 110_000_000


class NamedModel(NamedTuple):
    """A model that a recipe names.

    Attributes:
        key: the recipe's key that names it.
        name: its folder or Hub id.
        revision: its revision on the Hub; None: the newest.
        lengths: key of the recipe -> tokens of texts that the model must be able to read.
    """

    key: str
    name: str
    revision: str | None
    lengths: Mapping[str, int]


def named_models(recipe: Recipe) -> list[NamedModel]:
    """The base model, the encoder and the teachers of a recipe, those that it uses."""
    index = recipe.index
    model = recipe.model
    models = []
    starts_from_encoder = model.model == RUN_ENCODER
    lengths_of_pairs = {"max_length": model.max_length}
    lengths_of_encoder = {"encoder_max_length": index.encoder_max_length}
    if starts_from_encoder:
        lengths_of_encoder = lengths_of_pairs | lengths_of_encoder
    else:
        models.append(NamedModel("model", model.model, model.model_revision, lengths_of_pairs))
    trains_encoder = recipe.encoder.encoder_training_steps > 0
    if starts_from_encoder or trains_encoder or needs_encoder(index.retrievers):
        models.append(
            NamedModel("encoder", index.encoder, index.encoder_revision, lengths_of_encoder)
        )
    models += [NamedModel("teacher", teacher, None, {}) for teacher in recipe.mining.teacher]
    return models


def read_configs(recipe: Recipe, faults: CollectedErrors) -> dict[str, PreTrainedConfig | None]:
    """The configuration of each model that a recipe names, by key; each model is reached once.

    Args:
        recipe: the recipe.
        faults: gets what is wrong with a model, whose configuration is then None.
    """
    configs: dict[str, PreTrainedConfig | None] = {}
    for model in named_models(recipe):
        configs[model.key] = None
        with faults.collecting():
            configs[model.key] = model_config(model.key, model.name, model.revision, model.lengths)
    return configs


def model_config(
    key: str, model: str, revision: str | None, lengths: Mapping[str, int]
) -> PreTrainedConfig:
    """The configuration of a model that reads texts of these lengths.

    Raises:
        UserError: it cannot be found, reached or read, or reads only shorter texts; names the key.
    """
    try:
        with loading(f"model {model}"):
            config = load_pretrained(AutoConfig, resolve_model(model, revision, config_only=True))
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    for name, tokens in lengths.items():
        require_readable(name, tokens, config, model)
    return config


def count_parameters(recipe: Recipe, configs: Mapping[str, PreTrainedConfig | None]) -> int:
    """Parameters of the base model, by its configuration."""
    base = "encoder" if recipe.model.model == RUN_ENCODER else "model"
    config = configs.get(base)
    if config is None:
        return BERT_PARAMETERS
    return network(recipe, config).num_parameters()


def network(recipe: Recipe, config: PreTrainedConfig) -> PreTrainedModel:
    """The network of the base model, built without memory for its weights.

    Raises:
        UserError: it cannot be built here, or has fewer layers than are to be kept.
    """
    with loading(f"model {config.name_or_path}"), torch.device("meta"):
        body = AutoModel.from_config(config, attn_implementation=recipe.model.attn_implementation)
    keep_layers(body, recipe.model.num_hidden_layers)
    return body
