"""Pair metrics: how well probabilities separate gold concepts from other candidates.

They depend on the choice of negatives, so read them together with the linking metrics. Training uses `PairMetrics`, a
metric of the library `evaluate` that needs no network: create an instance instead of calling ``evaluate.load``.
"""

from collections.abc import Sequence
from tempfile import gettempdir
from typing import Any

import datasets
import evaluate
import numpy as np

from ..calibration.reliability import brier, ece
from .linking import roc_auc


class PairMetrics(evaluate.Metric):
    """Precision, recall and F1 of ``p >= threshold``, ROC-AUC, ECE (15 equal-width bins) and Brier score.

    ``compute(predictions=p, references=y, threshold=0.5)``, or ``add_batch`` and ``compute``: `p` (n,) float in
    [0, 1], `y` (n,) 0 or 1. Precision, recall and F1 are 0 without a denominator; ROC-AUC is NaN if a class is
    missing.

    >>> figures = PairMetrics().compute(predictions=[0.9, 0.8, 0.2], references=[1, 0, 1], threshold=0.5)
    >>> figures["precision"], figures["recall"], figures["roc_auc"]
    (0.5, 0.5, 0.5)
    """

    def __init__(self, **options: Any) -> None:
        # With everything in memory, no folder in the home directory is needed.
        super().__init__(**{"keep_in_memory": True, "cache_dir": gettempdir()} | options)

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

    def _compute(self, predictions: Sequence, references: Sequence, threshold: float = 0.5) -> dict[str, float]:
        from sklearn.metrics import precision_recall_fscore_support

        p, y = np.asarray(predictions), np.asarray(references)
        options: dict[str, Any] = {"average": "binary", "zero_division": 0}
        precision, recall, f1, _ = precision_recall_fscore_support(y, p >= threshold, **options)
        decided = {"precision": float(precision), "recall": float(recall), "f1": float(f1)}
        return decided | {"roc_auc": roc_auc(p, y), "ece": ece(p, y), "brier": brier(p, y)}
