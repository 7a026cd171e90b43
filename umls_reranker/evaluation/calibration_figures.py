"""Calibration as figures: of all pairs of mention and candidate, and of the top candidates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..calibration.reliability import document_sums, equal_width
from ..lists.annotated_lists import AnnotatedLists
from .curves import BINS
from .intervals import Documents, Measure
from .metrics import WITH_CANDIDATES
from .outcomes import Outcomes
from .score_figures import roc_auc


def pair_figures(
    probabilities: np.ndarray, lists: AnnotatedLists, documents: Documents
) -> dict[str, Measure]:
    """ROC-AUC and calibration of the m pairs of n lists, by calibrated probabilities, (m,)."""
    figures: dict[str, Measure] = {
        "candidate_roc_auc": {"value": roc_auc(probabilities, lists.labels)}
    }
    figures |= documents.take(lists.owner).calibration(probabilities, lists.labels)
    return _over_pairs(figures, lists)


def raw_pair_figures(
    raw: np.ndarray, calibrated: np.ndarray, lists: AnnotatedLists, documents: Documents
) -> dict[str, Measure]:
    """Calibration of the m pairs of n lists before calibration, in names that end in ``_raw``.

    Args:
        raw: (m,) probabilities by the cross-encoder alone.
        calibrated: (m,) those of the model, which ``ece_reduction`` compares them with.
        lists: the lists.
        documents: documents of the mentions.
    """
    labels = lists.labels
    of_pairs = documents.take(lists.owner)
    figures = {f"{name}_raw": each for name, each in of_pairs.calibration(raw, labels).items()}
    # (documents, BINS) each: by how much the probabilities of a bin exceed its labels, in all.
    gaps = []
    for p in (raw, calibrated):
        bins = equal_width(p, BINS)
        gaps.append(document_sums(of_pairs.index, of_pairs.count, [p - labels], bins, BINS)[:, 0])
    figures["ece_reduction"] = of_pairs.interval(
        np.concatenate(gaps, axis=1), _ece_reduction, is_share=False
    )
    return _over_pairs(figures, lists)


def _over_pairs(figures: Mapping[str, Measure], lists: AnnotatedLists) -> dict[str, Measure]:
    """The figures with the pairs that they are over."""
    over = {"n": len(lists), "population": f"mentions with {len(lists.labels):,} candidates"}
    return {name: figure | over for name, figure in figures.items()}


def _ece_reduction(gaps: np.ndarray) -> np.ndarray:
    """1 - calibrated ECE / raw ECE, NaN if the raw one is 0.

    Args:
        gaps: (..., 2 * BINS) sums by bin of probability minus label, first raw, then calibrated.
    """
    raw = np.abs(gaps[..., :BINS]).sum(axis=-1)
    calibrated = np.abs(gaps[..., BINS:]).sum(axis=-1)
    return 1.0 - calibrated / np.where(raw > 0, raw, np.nan)


def top_calibration(outcomes: Outcomes, documents: Documents) -> dict[str, Measure]:
    """Calibration of the top candidates (`calibration_report`)."""
    top = outcomes.select(outcomes.has_candidates)
    report = documents.take(outcomes.has_candidates).calibration(top.score, top.correct)
    over = {"n": len(top), "population": f"mentions {WITH_CANDIDATES}"}
    return {name: figure | over for name, figure in report.items()}
