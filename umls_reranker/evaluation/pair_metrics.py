"""Pair metrics: how well probabilities separate gold concepts from other candidates.

They depend on the choice of negatives, so read them together with the linking metrics. Training and report use
`PairMetrics`, a metric of the library `evaluate` that needs no network: create an instance instead of calling
``evaluate.load``.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from ..calibration.reliability import brier, ece
from ..calibration.resampling import document_sums
from .linking import Documents

# Number of equal-mass bins of the scores for the interval of ROC-AUC (not for its value).
AUC_BINS = 500


class PairMetrics(evaluate.Metric):
    """Precision, recall and F1 of ``p >= threshold``, ROC-AUC, ECE (15 equal-width bins) and Brier score.

    ``compute(predictions=p, references=y, threshold=0.5)``, or ``add_batch`` and ``compute``: `p` (n,) float in
    [0, 1], `y` (n,) 0 or 1. Precision, recall and F1 are 0 without a denominator; ROC-AUC is NaN if a class is
    missing.

    >>> figures = PairMetrics().compute(predictions=[0.9, 0.8, 0.2], references=[1, 0, 1], threshold=0.5)
    >>> figures["precision"], figures["recall"], figures["roc_auc"]
    (0.5, 0.5, 0.5)
    """

    def __init__(self, *args: Any, num_process: int = 1, **options: Any) -> None:
        options.setdefault("keep_in_memory", num_process == 1)
        super().__init__(*args, num_process=num_process, **options)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=(type(self).__doc__ or "").strip(),
            citation="",
            inputs_description="\npredictions: probabilities in [0, 1]; references: labels 0 or 1.",
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
            format="arrow",  # "numpy" would round probabilities to float32
        )

    def _build_data_dir(self) -> str:
        # With everything in memory, no folder in the home directory is needed.
        return "" if self.keep_in_memory else super()._build_data_dir()

    def _compute(self, predictions: Sequence, references: Sequence, threshold: float = 0.5) -> dict[str, float]:
        from sklearn.metrics import precision_recall_fscore_support

        p, y = np.asarray(predictions), np.asarray(references)
        options: dict[str, Any] = {"average": "binary", "zero_division": 0}
        precision, recall, f1, _ = precision_recall_fscore_support(y, p >= threshold, **options)
        decided = {"precision": float(precision), "recall": float(recall), "f1": float(f1)}
        return decided | {"roc_auc": roc_auc(p, y), "ece": ece(p, y), "brier": brier(p, y)}


def pair_report(
    probabilities: np.ndarray,
    labels: np.ndarray,
    documents: Documents,
    threshold: float,
    population: str,
) -> dict[str, dict[str, Any]]:
    """Precision, recall, F1 and ROC-AUC as ``{"value", "low", "high", "population"}``, 95 % intervals by document.

    Args:
        probabilities: (n,) probabilities.
        labels: (n,) labels.
        documents: documents of the pairs.
        threshold: threshold of precision, recall and F1.
        population: description of the pairs.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    accepted, positive = p >= threshold, np.asarray(labels) == 1
    report = documents.precision_recall_f1(accepted & positive, accepted, positive)
    cuts = np.unique(np.quantile(p, np.linspace(0, 1, AUC_BINS + 1)[1:-1]))
    cell = np.searchsorted(cuts, p, side="right")
    histogram = document_sums(documents.index, documents.count, [positive, ~positive], cell, len(cuts) + 1)
    binned = documents.interval(histogram.reshape(documents.count, -1), _binned_auc)
    report["roc_auc"] = binned | {"value": roc_auc(p, positive)}
    return {name: {**figure, "population": population} for name, figure in report.items()}


def roc_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Probability that a positive outscores a negative, ties counted half; NaN for a single class."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores)) if len(np.unique(labels)) == 2 else float("nan")


def _binned_auc(sums: np.ndarray) -> np.ndarray:
    """ROC-AUC of (..., 2 * bins) counts of positives, then of negatives, by rising score."""
    positives, negatives = np.split(sums, 2, axis=-1)
    below = np.cumsum(negatives, axis=-1) - negatives / 2
    return (positives * below).sum(axis=-1) / (positives.sum(axis=-1) * negatives.sum(axis=-1))
