"""Figures of ranked rows beside those that a model was delivered with, and a test for drift."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration.calibrated_documents import CalibratedDocuments
from ..core.errors import UserError
from ..core.json_files import read_json, require_finite
from ..hub.file_names import CALIBRATOR, MANIFEST, REFERENCE
from ..hub.manifest import verify_files
from ..hub.model_download import download
from ..serving.drift import (
    FALLBACK_CELL,
    FEWEST_DOCUMENTS_TO_TEST,
    SMALLEST_PSI,
    Histogram,
    read_reference,
)
from ..serving.ranked_rows import read_ranked, tops_of_rows
from ..serving.statistics import Statistics
from .options import load_serving_recipe


def monitor(
    model_or_recipe: str, predictions: Path, alpha: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure ranked rows, and test whether scores or inputs have moved.

    Args:
        model_or_recipe: folder or Hub id of the model, or a recipe that names it.
        predictions: the ranked rows.
        alpha: probability of a false alarm.

    Returns:
        The figures of the rows, with ``drift``, ``only_fallbacks`` (models of fewer inputs decided
            all mentions, which is not expected) and ``alarm``; and those that are expected.
    """
    serving = load_serving_recipe(model_or_recipe).serving
    model = download(
        str(serving.served_model), serving.served_revision, files=(MANIFEST, REFERENCE, CALIBRATOR)
    )
    verify_files(model, [REFERENCE, CALIBRATOR])
    figures, reference = read_reference(model / REFERENCE)
    calibrator = read_json(model / CALIBRATOR)
    require_finite(model / CALIBRATOR, calibrator)
    fitted = CalibratedDocuments.from_dict(calibrator, model / CALIBRATOR)
    is_new = lru_cache(lambda document: fitted.are_new([document])[0])
    # The document of each row, also of those that are left out; filled while the rows are read.
    documents: list[str] = []

    def new_rows() -> Iterator[dict[str, Any]]:
        """The rows of documents that the model was not fitted on."""
        for number, row in enumerate(read_ranked(predictions)):
            # A row without a document is one of its own.
            document = str(row.get("doc_id", f"row {number}"))
            documents.append(document)
            if is_new(document):
                if row["ranked"] and row["ranked"][0]["tier"] is None:
                    raise UserError(
                        f"{predictions}: answers without tiers are of a model that is not "
                        "calibrated for these lists; there is nothing to watch"
                    )
                yield row

    statistics = Statistics()
    tops, model_names = tops_of_rows(new_rows())
    statistics.add(tops, model_names)
    new_documents = list(filter(is_new, documents))
    state = statistics.to_dict() | {
        "documents": len(set(new_documents)),
        "fitted_mentions": len(documents) - len(new_documents),
        "drift": None,
    }
    is_fallback = tops.models > 0
    has_candidates = tops.sizes > 0
    # Two more mentions, one of them decided with fewer inputs, keep the share from 0 and 1.
    expected_fallbacks = reference.shares[FALLBACK_CELL] * reference.mentions
    expected_share = (expected_fallbacks + 1) / (reference.mentions + 2)
    are_fallbacks = has_candidates.any() and is_fallback[has_candidates].all()
    is_unlikely = expected_share ** state["documents"] <= alpha
    state["only_fallbacks"] = bool(are_fallbacks and is_unlikely)
    state["alarm"] = state["only_fallbacks"]
    if state["documents"] >= FEWEST_DOCUMENTS_TO_TEST:
        drift = reference.drift_to(Histogram.of(tops.probabilities, is_fallback, new_documents))
        state["drift"] = drift._asdict()
        state["alarm"] |= drift.p_value <= alpha and drift.psi >= SMALLEST_PSI
    wider = np.sqrt(1.0 + reference.documents / max(1, state["documents"]))
    return state, figures_of_samples(figures, float(wider))


def figures_of_samples(
    figures: Mapping[str, Mapping[str, Any]], wider: float
) -> dict[str, dict[str, float | None]]:
    """Expected figures with the ends between which those of 95 % of samples lie.

    A sample and the reference both vary: their difference has the sum of the two variances, of
    which each falls with the number of documents.

    Args:
        figures: value and 95 % interval in the reference.
        wider: how much wider the interval is.
    """
    widened = {}
    for name, figure in figures.items():
        value = figure["value"]
        widened[name] = {
            key: None if end is None else value + wider * (end - value)
            for key, end in figure.items()
        }
    return widened


def monitor_table(state: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    """What `monitor` returns, as text."""
    lines = [
        f"{state['mentions']:,} mentions, {state['without_candidates']:,} of them "
        "without candidates"
    ]
    if state["fitted_mentions"]:
        lines.append(
            f"{state['fitted_mentions']:,} more left out: they are of documents "
            "that the model was fitted on"
        )
    lines += [f"decided by {name}: {count:,}" for name, count in state["models"].items()]
    lines += ["", f"{'metric':<24}{'here':>8}{'expected':>10}{'95 % of such samples':>22}"]
    for name, expected in figures.items():
        measured = _figure(state[name])
        interval = f"{_figure(expected['low'])} .. {_figure(expected['high'])}"
        lines.append(f"{name:<24}{measured:>8}{_figure(expected['value']):>10}{interval:>22}")
    drift = state["drift"]
    if drift is None:
        lines += [
            "",
            f"too few documents to test for drift: {state['documents']}; a test takes "
            f"{FEWEST_DOCUMENTS_TO_TEST}",
        ]
    else:
        moved = (
            f"{drift['share']:.1%} have {drift['cell']}, expected {drift['reference_share']:.1%}"
        )
        lines += [
            "",
            f"drift: stability index {drift['psi']:.3f}, p = {drift['p_value']:.2g}; {moved}",
        ]
    if state["only_fallbacks"]:
        lines.append(
            "ALARM: all mentions lack inputs, so a fallback model decided them; "
            "check the names of scores and other keys"
        )
    elif drift and not state["alarm"]:
        lines.append(
            f"no drift found; a share that changes by {100 * drift['noticed']:.1f} points "
            "would be found at least four times in five"
        )
    elif state["alarm"]:
        lines.append(
            "ALARM: scores or inputs have moved; "
            "check candidates, texts and inputs, or calibrate again"
        )
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    """A figure; one that no mention has, such as a top score, is a dash."""
    return "-" if value is None else f"{value:.3f}"
