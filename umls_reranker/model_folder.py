"""The model folder: plain transformers files, with calibrator, thresholds and recipe beside them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from .calibration.evidence import COUNTS_FILE, Calibration
from .calibration.thresholds import ThresholdTable
from .errors import UserError
from .recipe import Recipe
from .resources import file_sha256
from .stages import write_json
from .template import PairTemplate
from .version import __version__

__all__ = ["copy_weights", "write_calibration", "write_parts"]

WEIGHT_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)


def copy_weights(checkpoint: Path, folder: Path) -> None:
    """Copy weights and tokenizer of a checkpoint, and nothing else of it.

    Raises:
        UserError: the checkpoint has no safetensors weights.
    """
    if not (checkpoint / "model.safetensors").is_file():
        raise UserError(f"{checkpoint} holds no model.safetensors; run scripts/train.py with the same recipe")
    for name in WEIGHT_FILES:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, folder / name)


def write_parts(
    folder: Path,
    recipe: Recipe,
    template: PairTemplate,
    precision: str,
    calibration: Calibration,
    thresholds: ThresholdTable,
    fitted_on: dict[str, Any],
    dictionary: dict[str, Any] | None = None,
) -> None:
    """Write reranker.json, calibrator.json with its counts, thresholds.json and recipe.yaml beside the weights.

    Args:
        precision: in which the logits were computed that the calibrator was fitted on.
        fitted_on: split and counts.
        dictionary: which release or ontologies the concepts came from (`sources.describe_dictionary`).
    """
    weights_sha256 = file_sha256(folder / "model.safetensors")
    write_json(
        folder / "reranker.json",
        {
            "schema_version": 1,
            "template": template.to_dict(),
            "max_length": template.max_length,
            "base_model": recipe.model.model,
            "base_revision": recipe.model.model_revision,
            "umls_reranker_version": __version__,
            "precision": precision,
            "dictionary": dictionary,
            "weights_sha256": weights_sha256,
        },
    )
    write_calibration(folder, calibration, thresholds, fitted_on)
    (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")


def write_calibration(
    folder: Path, calibration: Calibration, thresholds: ThresholdTable, fitted_on: dict[str, Any], suffix: str = ""
) -> None:
    """Write calibrator.json with its counts and thresholds.json beside the weights.

    Args:
        fitted_on: split and counts.
        suffix: of the file names, for a backend whose scores differ from PyTorch's.
    """
    parts = calibration.to_dict() | {
        "fitted_on": fitted_on,
        "weights_sha256": file_sha256(folder / "model.safetensors"),
    }
    if calibration.counts is not None:
        calibration.counts.save(folder / COUNTS_FILE)
        parts["string_counts_sha256"] = file_sha256(folder / COUNTS_FILE)
    calibrator = folder / f"calibrator{suffix}.json"
    write_json(calibrator, {"schema_version": 1} | parts)
    content = thresholds.to_dict() | {"calibrator_sha256": file_sha256(calibrator)}
    write_json(folder / f"thresholds{suffix}.json", content)
