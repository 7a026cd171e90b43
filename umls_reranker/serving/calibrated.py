"""What a calibration on labelled lists made, and its model folder."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ..calibration.arguments import CalibrationArguments
from ..calibration.calibration import Calibration
from ..core.errors import UserError
from ..core.files import written
from ..core.json_files import write_json
from ..evaluation.outcomes import Outcomes
from ..evaluation.render import card_charts
from ..hub.card import folder_card
from ..hub.file_names import CARD, METRICS_FILE, REFERENCE, RELIABILITY, RISK_COVERAGE
from ..hub.new_model import copy_cross_encoder, write_model_files
from .drift import Histogram, reference_content
from .model_source import ModelSource

# Name of user-provided lists in reports and calibrator.json.
SPLIT = "labelled"


@dataclass(frozen=True)
class Calibrated:
    """A new calibration.

    Attributes:
        settings: the settings.
        seed: seed of the folds of documents.
        calibration: the calibration fitted on all documents.
        fitted: what it was fitted on, for ``calibrator.json``.
        outcomes: the answers for all measured mentions, those of each fifth of the documents by a
            fit on the others; corrections that were not drawn at random are not measured.
        metrics: their figures, for ``metrics.json``, and under ``systems`` those of other systems.
    """

    settings: CalibrationArguments
    seed: int
    calibration: Calibration
    fitted: dict[str, Any]
    outcomes: Outcomes
    metrics: dict[str, Any]


def save_calibrated(source: ModelSource, new: Calibrated, folder: Path) -> None:
    """Write a new model folder with figures and card atomically.

    Raises:
        UserError: the folder exists.
    """
    if folder.exists():
        raise UserError(f"{folder} already exists; choose another folder for the new model")
    recipe = {"run_name": folder.name, "seed": new.seed}
    if new.calibration.uses_cross_encoder:
        recipe |= yaml.safe_load(source.origin.recipe)
    recipe |= {"run_name": folder.name, **asdict(new.settings)}
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    source = replace(source, origin=replace(source.origin, recipe=text))
    new.fitted.update(split=SPLIT, lists=new.metrics["lists"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with written(folder) as partial:
        partial.mkdir()
        write_figures(new.metrics, new.calibration.thresholds.target_precision, partial)
        histogram = Histogram.of_outcomes(new.outcomes)
        write_json(partial / REFERENCE, reference_content(new.metrics["figures"], histogram))
        write_calibrated(source, new, partial)
        (partial / CARD).write_text(folder_card(partial).text(), encoding="utf-8")


def write_calibrated(source: ModelSource, new: Calibrated, folder: Path) -> None:
    """Write cross-encoder, calibration and recipe into an existing folder."""
    template = None
    dtype = None
    if new.calibration.uses_cross_encoder and source.folder and source.cross_encoder:
        copy_cross_encoder(source.folder, folder)
        template = source.cross_encoder.template
        dtype = source.cross_encoder.dtype
    write_model_files(folder, source.origin, template, dtype, new.calibration, new.fitted)


def write_figures(metrics: Mapping[str, Any], target_precision: float, folder: Path) -> None:
    """Write ``metrics.json`` and its charts into a folder."""
    reliability, risk_coverage = card_charts(metrics, target_precision)
    write_json(folder / METRICS_FILE, metrics)
    (folder / RELIABILITY).write_text(reliability, encoding="utf-8")
    (folder / RISK_COVERAGE).write_text(risk_coverage, encoding="utf-8")
