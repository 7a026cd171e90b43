"""The report of a model on labelled lists: ``metrics.json``, and the outcome of each mention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..calibration.decisions import Decisions
from ..calibration.logistic import sigmoid
from ..core.arrays import lists_with_any
from ..lists.annotated_lists import AnnotatedLists
from .calibration_figures import pair_figures, raw_pair_figures, top_calibration
from .curves import histogram, reliability_points, risk_coverage
from .intervals import Documents
from .metrics import SCHEMA_VERSION, measure_figures
from .outcomes import Outcomes
from .slices import measure_slices, mention_slices, worst_groups
from .systems import MODEL, System, compare_systems
from .tables import title_of

# The model's own figures begin with this among those of all systems.
MODEL_PREFIX = f"systems/{MODEL}/"


def measure(
    lists: AnnotatedLists,
    decisions: Decisions,
    logits: np.ndarray,
    systems: Mapping[str, System],
    documents: Documents,
    split: str,
    counted: Iterable[tuple[str, str]] = (),
) -> tuple[dict[str, Any], Outcomes]:
    """Measure what needs only lists and decisions.

    Args:
        lists: n lists with m candidates.
        decisions: decisions about them.
        logits: (m,) logits of the cross-encoder; lists with any NaN tell nothing about it.
        systems: name -> answers of other systems, the order of the lists first.
        documents: documents of the mentions.
        split: name of the lists.
        counted: as for `measure_model`.

    Returns:
        The content of ``metrics.json``: counts; ``figures``; ``rows``, table -> row -> label; and
        ``curves``. And the outcomes.
    """
    outcomes = Outcomes.of(lists, decisions)
    systems = {**systems, MODEL: System.of(outcomes)}
    compared = compare_systems(systems, documents, outcomes.in_dictionary, outcomes.composite)
    slices = mention_slices(outcomes, lists.mentions, lists.hierarchy, counted)
    sliced, rows = measure_slices(outcomes, documents, slices)
    figures = {
        key.removeprefix(MODEL_PREFIX): figure
        for key, figure in compared.items()
        if key.startswith(MODEL_PREFIX)
    }
    figures |= measure_figures(outcomes, documents)
    probabilities = decisions.probabilities
    figures |= pair_figures(probabilities, lists, documents)
    points = {"calibrated": reliability_points(probabilities, lists.labels)}
    whole = _whole_lists(lists, logits)
    if whole.any():
        whole_lists = lists.take(whole)
        pairs = whole[lists.owner]
        raw = sigmoid(logits[pairs])
        figures |= raw_pair_figures(raw, probabilities[pairs], whole_lists, documents.take(whole))
        points = {"raw": reliability_points(raw, whole_lists.labels)} | points
    figures |= {
        f"top1_{name}": figure for name, figure in top_calibration(outcomes, documents).items()
    }
    figures |= worst_groups(sliced, rows.get("groups", {})) | compared | sliced
    metrics = {
        "schema_version": SCHEMA_VERSION,
        "split": split,
        "mentions": len(outcomes),
        "documents": documents.count,
        "candidates": len(lists.labels),
        "out_of_dictionary": int((~outcomes.in_dictionary).sum()),
        "not_in_list": lists.not_in_list,
        "truncated_pairs": decisions.truncated,
        "figures": figures,
        "rows": {"systems": {name: title_of(name) for name in systems}} | rows,
        "curves": _curves(outcomes, points, systems),
    }
    return metrics, outcomes


def _whole_lists(lists: AnnotatedLists, logits: np.ndarray) -> np.ndarray:
    """The lists of which all candidates have a logit, (n,) bool; none if there is no candidate."""
    has_all: np.ndarray = ~lists_with_any(np.isnan(logits), lists.offsets)
    return has_all & bool((~np.isnan(logits)).any())


def _curves(
    outcomes: Outcomes, points: Mapping[str, Any], systems: Mapping[str, System]
) -> dict[str, Any]:
    """The points of all charts; `points` are those of the reliability of pairs, by their name."""
    top = outcomes.select(outcomes.has_candidates)
    risk_curves = {}
    for name in (MODEL, "calibrated_scores"):
        system = systems.get(name)
        if system is not None and system.score is not None:
            risk_curves[name] = risk_coverage(system.score, system.ranks == 0)
    return {
        "reliability": {
            **points,
            "top1": reliability_points(top.score, top.correct),
        },
        "risk_coverage": risk_curves,
        "score": histogram(outcomes.score, outcomes.correct),
        "margin": histogram(outcomes.margin, outcomes.correct),
    }
