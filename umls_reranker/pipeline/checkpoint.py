"""The trained cross-encoder of a run, to be calibrated."""

from __future__ import annotations

from dataclasses import replace

from ..calibration.string_counts import StringCounts
from ..core.files import read_json
from ..hub.model_folder import Origin
from ..models.cross_encoder import PairScorer
from ..models.pairs import PairTemplate
from ..serving.model_source import ModelSource
from ..vocab.concepts import ConceptTable
from .recipe import Recipe
from .sources import describe_dictionary
from .stages import RunFolder, read_manifest


def checkpoint_of_run(recipe: Recipe, run: RunFolder) -> ModelSource:
    """The best checkpoint of a run, with the counts of its training mentions."""
    folder = run.path / "checkpoints" / "checkpoint-best"
    template = PairTemplate.from_recipe(recipe.model)
    commit = read_manifest(run.path / "checkpoints")["summary"].get("base_commit")
    model = replace(recipe.model, model_revision=commit or recipe.model.model_revision)
    report = read_json(run.path / "concepts" / "read_report.json")
    origin = Origin(
        recipe=replace(recipe, model=model).to_yaml(),
        base_model=model.model,
        base_revision=model.model_revision,
        dictionary=describe_dictionary(report),
    )
    splits = run.splits("mentions")
    train_counts = StringCounts.from_split(splits["train"])
    return ModelSource(
        folder=folder,
        cross_encoder=PairScorer.from_folder(
            folder, template, recipe.run.device, recipe.run.scoring_dtype
        ),
        origin=origin,
        hierarchy=ConceptTable.load(run.path / "concepts").hierarchy,
        counts=train_counts.plus(StringCounts.from_split(splits["dev"])),
    )
