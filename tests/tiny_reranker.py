"""A complete model folder around a tiny cross-encoder, as umls-reranker calibrate leaves it."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from list_fixtures import flat_lists
from tiny_models import tiny_cross_encoder

from umls_reranker.calibration import threshold_fitting
from umls_reranker.calibration.arguments import CalibrationArguments
from umls_reranker.calibration.calibrated_model import CalibratedModel
from umls_reranker.calibration.calibration import Calibration
from umls_reranker.calibration.calibrators import PlattCalibrator
from umls_reranker.calibration.fusion import FeatureFusion
from umls_reranker.calibration.list_source import ListSource
from umls_reranker.calibration.score_range import ScoreRange
from umls_reranker.calibration.string_counts import StringCounts
from umls_reranker.calibration.thresholds import ThresholdTable
from umls_reranker.core.errors import UserError
from umls_reranker.hub.new_model import Origin, copy_cross_encoder, write_model_files
from umls_reranker.models.pair_template import PairTemplate
from umls_reranker.models.pretrained import load_base_model
from umls_reranker.pipeline.recipe import Recipe
from umls_reranker.vocab.types import SemanticType, TypeHierarchy


def refused(action, *arguments, **options) -> str:
    """The one line that the action is refused with."""
    with pytest.raises(UserError) as caught:
        action(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


HIERARCHY = TypeHierarchy(
    [
        SemanticType("T046", "Pathologic Function", None, "DISO"),
        SemanticType("T047", "Disease or Syndrome", "T046", "DISO"),
        SemanticType("T121", "Pharmacologic Substance", None, "CHEM"),
    ]
)


def fit_thresholds() -> ThresholdTable:
    """Thresholds of two types, of which drugs need a higher probability than diseases."""
    rng = np.random.default_rng(0)
    p = np.empty((800, 2))
    labels = np.zeros((800, 2), int)
    for rows, bar in ((slice(400), 0.35), (slice(400, 800), 0.65)):
        top = rng.uniform(0, 1, 400)
        p[rows] = np.column_stack([top, top * 0.2])
        labels[rows, 0] = rng.random(400) < 1 / (1 + np.exp(-15 * (top - bar)))
    lists = flat_lists(labels, ["T047"] * 400 + ["T121"] * 400, HIERARCHY, size=2)
    return threshold_fitting.fit_thresholds(
        lists, p.ravel(), 2 * np.arange(800), CalibrationArguments(), is_one_look=True
    )


def tiny_reranker(
    folder: Path,
    template: PairTemplate | None = None,
    seed: int = 0,
    recipe: Recipe | None = None,
    dictionary: dict | None = None,
    cross_encoder: Path | None = None,
) -> Path:
    """Save weights and tokenizer, or those of a checkpoint, and parts; returns the folder."""
    template = template or PairTemplate(32)
    with TemporaryDirectory() as checkpoint:
        if cross_encoder is None:
            cross_encoder = Path(checkpoint)
            for part in load_base_model(
                str(tiny_cross_encoder(cross_encoder, seed)), None, template
            ):
                part.save_pretrained(checkpoint)
        folder.mkdir(parents=True, exist_ok=True)
        copy_cross_encoder(cross_encoder, folder)
    recipe = recipe or Recipe.from_values({"run_name": "tiny"})
    fitted = {"split": "calibration", "mentions": 800, "pairs": 1600}
    model = CalibratedModel(PlattCalibrator(slope=0.8, intercept=0.5), thresholds=fit_thresholds())
    base = (recipe.model.model, recipe.model.model_revision)
    origin = Origin(recipe.to_yaml(), *base, dictionary)
    write_model_files(folder, origin, template, "float32", Calibration([model]), fitted)
    return folder


def without_cross_encoder() -> Calibration:
    """By equal names and the score ``sapbert_score``; and by names alone where a list has no such
    score.
    """
    fusion = FeatureFusion({"exact_name": 4.0, "sapbert": 6.0}, {}, 4.0)
    names = FeatureFusion({"exact_name": 4.0}, {}, 2.0)
    models = [
        CalibratedModel(fusion=fusion, thresholds=fit_thresholds()),
        CalibratedModel(
            fusion=names,
            thresholds=fit_thresholds(),
            missing=("sapbert_score", "cui"),
            name="names",
        ),
    ]
    counts = StringCounts.fit([("cold", "C0009443", ["T047"])])
    return Calibration(models, counts, ListSource(score_ranges={"sapbert": ScoreRange(0.2, 1.0)}))


def tiny_reranker_without_cross_encoder(folder: Path) -> Path:
    """As `tiny_reranker`, of scores and names alone; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    origin = Origin("run_name: tiny-lists\nconfidence: 0.95\ntarget_precision: 0.95\n")
    write_model_files(
        folder, origin, None, None, without_cross_encoder(), {"split": "labelled", "mentions": 800}
    )
    return folder


def with_cut() -> Calibration:
    """By cross-encoder and equal names; where a list has an equal name, no other can win."""
    fusion = FeatureFusion({"cross_encoder": 1.0, "exact_name": 9.0}, {}, 0.0)
    list_fusion = FeatureFusion({"exact_name": 9.0}, {}, 0.0)
    return Calibration(
        [CalibratedModel(fusion=fusion, list_fusion=list_fusion, thresholds=fit_thresholds())]
    )
