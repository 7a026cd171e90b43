"""Labels of reviewers: calibration of the scores and precision of the tiers in production."""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ...calibration.precision_test import clopper_pearson_lower
from ...calibration.reliability import calibration_report
from ...calibration.thresholds import TIERS

ENDS = ("value", "low", "high")

# Number of most recent labels to keep.
MOST_LABELS = 5_000
# The high tier's guarantee is tested at this many labels in the tier, and at each doubling.
FIRST_LOOK = 25
RESAMPLES = 500


class Label(NamedTuple):
    """A reviewer's verdict on a top candidate."""

    score: float
    tier: str
    is_correct: bool


class LabelledAnswers:
    """The latest `MOST_LABELS` top candidates labelled correct or incorrect, in constant memory.

    They must be a random sample: a selection of doubtful answers says nothing about the rest.
    """

    def __init__(self, target_precision: float, alpha: float) -> None:
        self._target, self._alpha = target_precision, alpha
        self._labels: deque[Label] = deque(maxlen=MOST_LABELS)
        self._high = self._high_correct = 0
        self._looks = 0

    def add(self, score: float, tier: str, correct: bool) -> str | None:
        """Add one label; return a sentence if the high tier demonstrably breaks its guarantee."""
        self._labels.append(Label(score, tier, bool(correct)))
        if tier != "high":
            return None
        self._high += 1
        self._high_correct += bool(correct)
        if self._high < FIRST_LOOK * 2**self._looks:
            return None
        self._looks += 1
        level = level_of_look(self._alpha, self._looks)
        most = 1.0 - float(clopper_pearson_lower(self._high - self._high_correct, self._high, 1.0 - level))
        if most >= self._target:
            return None
        return (
            f"{self._high_correct:,} of {self._high:,} reviewed answers of the high tier are correct (upper bound of "
            f"its precision: {most:.1%}), but {100 * self._target:g}% is guaranteed; recalibrate with the "
            "corrections, and review the high tier by hand until then"
        )

    def labels(self) -> tuple[Label, ...]:
        """The labels, oldest first."""
        return tuple(self._labels)


@lru_cache(maxsize=1)
def labelled_report(labels: tuple[Label, ...]) -> dict[str, Any]:
    """Figures of the labels, cached until there is another label.

    They are the ECE of the scores (15 bins, and debiased) with 95 % bootstrap intervals, and the precision of each
    tier with exact 95 % intervals; None without labels.
    """
    count = len(labels)
    report: dict[str, Any] = {"labels": count, "ece": None, "debiased_ece": None}
    if count:
        score = np.array([label.score for label in labels])
        is_correct = np.array([label.is_correct for label in labels], np.float64)
        figures = calibration_report(score, is_correct, np.arange(count), resamples=RESAMPLES)
        report |= {name: {end: figures[name][end] for end in ENDS} for name in ("ece", "debiased_ece")}
    report["tiers"] = {tier: _tier([label.is_correct for label in labels if label.tier == tier]) for tier in TIERS}
    return report


def level_of_look(alpha: float, look: int) -> float:
    """Level of test number k (from 1), alpha / (k (k + 1)): any number of tests together spend `alpha`."""
    return alpha / (look * (look + 1))


def _tier(verdicts: list[bool]) -> dict[str, Any]:
    n, correct = len(verdicts), sum(verdicts)
    if not n:
        return {"labels": 0, "precision": None}
    low = float(clopper_pearson_lower(correct, n, 0.975))
    high = 1.0 - float(clopper_pearson_lower(n - correct, n, 0.975))
    return {"labels": n, "precision": dict(zip(ENDS, (correct / n, low, high), strict=True))}
