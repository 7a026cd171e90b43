"""Recipes: the keys of one run, by section."""

from __future__ import annotations

import argparse
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any, ClassVar, NamedTuple

import yaml

from ..calibration.arguments import CalibrationArguments
from ..calibration.calibrators import require_fits_lists
from ..core.errors import UserError
from ..core.keys import RunArguments, recipe_key
from ..corpora.arguments import ConceptArguments, MentionArguments
from ..models.arguments import RUN_ENCODER, ModelArguments
from ..retrieval.arguments import EncoderArguments, IndexArguments, MiningArguments
from ..retrieval.retrievers import require_ordering
from ..serving.arguments import ServingArguments
from .recipe_keys import Key, keys_of, pick

# Options of every command that makes something; no recipe says them.
ONLY_OPTIONS = ("overwrite", "dry_run")
DUMP_OPTIONS: dict[str, Any] = {"sort_keys": False, "allow_unicode": True}


@dataclass
class EvaluationArguments:
    """Evaluation: the targets that the report on the test split is checked against."""

    targets: list[str] = recipe_key(
        [],
        'metrics that umls-reranker validate checks, e.g. "acc@1 >= 0.75"; '
        "a missed target fails the run",
    )


class BaseModel(NamedTuple):
    """The model that a training starts from: a folder or Hub id, and a revision there."""

    name: str
    revision: str | None


@dataclass
class Recipe:
    """All sections of one recipe, typed.

    `training` holds what the recipe says of the fields of `RerankerTrainingArguments`, as text.
    Only what trains gives them types (`typed_training`): the class takes seconds to import.
    """

    run: RunArguments
    concepts: ConceptArguments
    mentions: MentionArguments
    encoder: EncoderArguments
    index: IndexArguments
    mining: MiningArguments
    model: ModelArguments
    calibration: CalibrationArguments
    evaluation: EvaluationArguments
    serving: ServingArguments
    training: dict[str, str | list[str]]

    def __post_init__(self) -> None:
        revision = self.model.model_revision
        if self.model.model == RUN_ENCODER and revision not in (None, self.index.encoder_revision):
            raise UserError(
                f"model_revision: model is {RUN_ENCODER}, whose revision is encoder_revision; "
                'leave model_revision out (--model_revision "")'
            )
        require_ordering(self.index.retrievers)
        # Here, because it would show only after the training.
        if self.calibration.features != []:
            require_fits_lists(self.calibration.calibrator)

    @property
    def base(self) -> BaseModel:
        """The model that the cross-encoder starts from, before any training."""
        if self.model.model == RUN_ENCODER:
            return BaseModel(self.index.encoder, self.index.encoder_revision)
        return BaseModel(self.model.model, self.model.model_revision)

    @property
    def starts_from_trained_encoder(self) -> bool:
        """Whether the cross-encoder starts from an encoder that the run fine-tunes."""
        return self.model.model == RUN_ENCODER and self.encoder.encoder_training_steps > 0

    def starting_from(self, base: BaseModel) -> Recipe:
        """This recipe with a cross-encoder that starts from another model."""
        model = replace(self.model, model=base.name, model_revision=base.revision)
        return replace(self, model=model)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Recipe:
        """Build the sections from flat, typed values; missing keys get defaults.

        Keys of no other section are training's, typed or as text.

        Raises:
            UserError: a value has no form as text, or does not go with the others.
        """
        rest = {name: value for name, value in values.items() if value is not None}
        training = {}
        for name in [name for name in rest if name not in KEYS]:
            try:
                training[name] = as_text(rest[name])
            except (TypeError, ValueError, RecursionError) as error:
                raise UserError(f"{name}: its value has no form in JSON ({error})") from None
        sections = {
            name: section(**pick(values, keys_of(section))) for name, section in SECTIONS.items()
        }
        return cls(**sections, training=training)

    def to_dict(self) -> dict[str, Any]:
        """The flat form, as a YAML file would hold it."""
        return dict(chain.from_iterable(values.items() for values in self._sections()))

    def to_yaml(self) -> str:
        """The flat form as YAML, sections in order."""
        *sections, training = self._sections()
        texts = [yaml.safe_dump(values, **DUMP_OPTIONS) for values in sections]
        if training:
            texts.append(yaml.dump(training, Dumper=TextDumper, **DUMP_OPTIONS))
        return "\n".join(texts)

    def _sections(self) -> list[dict[str, Any]]:
        """The keys of each section, that of training last."""
        sections = []
        for name, section in SECTIONS.items():
            names = [key for key in keys_of(section) if key not in ONLY_OPTIONS]
            sections.append(pick(vars(getattr(self, name)), names))
        return [*sections, self.training]


class TextDumper(yaml.SafeDumper):
    """Writes text without quotes, such as 2e-5 and no, because that is how it is read."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}


def as_text(value: Any) -> str | list[str]:
    """A value of the training section as a recipe says it."""
    if isinstance(value, list):
        return [str(as_text(item)) for item in value]
    return value if isinstance(value, str) else json.dumps(value, allow_nan=False, default=str)


# Name -> section, of all but that of training.
SECTIONS: dict[str, type] = typing.get_type_hints(Recipe)
del SECTIONS["training"]
KEYS = {name: key for section in SECTIONS.values() for name, key in keys_of(section).items()}


def training_keys() -> dict[str, Key]:
    """The fields of `RerankerTrainingArguments` with defaults of our own."""
    from ..training.training_arguments import OWN_FIELDS, RerankerTrainingArguments

    return pick(keys_of(RerankerTrainingArguments), OWN_FIELDS)


def training_names() -> frozenset[str]:
    """Names of the training keys of the installed transformers, whose import takes seconds."""
    from ..training.training_arguments import RerankerTrainingArguments

    return frozenset(entry.name for entry in fields(RerankerTrainingArguments) if entry.init)


def typed_training(training: Mapping[str, str | list[str]]) -> dict[str, Any]:
    """The fields of `RerankerTrainingArguments` that a recipe sets, for what trains.

    Raises:
        UserError: a value does not fit; names its key.
    """
    from transformers import HfArgumentParser, TrainingArguments

    own = training_keys()
    library = HfArgumentParser(
        TrainingArguments,  # type: ignore[arg-type]
        allow_abbrev=False,
        add_help=False,
        exit_on_error=False,
    )
    values: dict[str, Any] = {}
    for name, text in training.items():
        try:
            if name in own:
                values[name] = own[name].read_yaml(text)
                continue
            words = [f"--{name}", *text] if isinstance(text, list) else [f"--{name}={text}"]
            typed, rest = library.parse_known_args(words)
        except (argparse.ArgumentError, argparse.ArgumentTypeError) as error:
            raise UserError(f"{name}: {error}") from None
        if rest:
            raise UserError(f"{name}: takes a single value, not {text}")
        values[name] = getattr(typed, name)
    return values
