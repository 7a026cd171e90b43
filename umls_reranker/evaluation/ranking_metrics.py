"""`RankingMetrics`, figures of labelled candidate lists as a metric of evaluate.

``evaluate.load(path_of_this_file)`` loads it, too. That copies the file, hence imports by full
names.
"""

from collections.abc import Sequence
from tempfile import gettempdir
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from umls_reranker.calibration.logistic import sigmoid
from umls_reranker.calibration.reliability import brier, ece
from umls_reranker.evaluation.score_figures import roc_auc


class RankingMetrics(evaluate.Metric):
    """Figures of labelled candidate lists as a metric of evaluate, which gathers batches.

    ``compute(predictions=logits, references=labels, lists=lists)``, or ``add_batch`` and
    ``compute``.

    >>> pairs = {"predictions": [2, 1, -1], "references": [1, 0, 1], "lists": [0, 0, 1]}
    >>> figures = RankingMetrics().compute(**pairs)
    >>> figures["precision"], figures["recall"], figures["acc@1"]
    (0.5, 0.5, 1.0)
    >>> metric = RankingMetrics()
    >>> for logits, label, number in zip([[2, 1], [-1]], [[1, 0], [1]], [[0, 0], [1]]):
    ...     metric.add_batch(predictions=logits, references=label, lists=number)
    >>> metric.compute() == figures
    True
    """

    def __init__(self, **options: Any) -> None:
        # With everything in memory, no folder in the home directory is needed.
        super().__init__(**{"keep_in_memory": True, "cache_dir": gettempdir()} | options)

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=(type(self).__doc__ or "").strip(),
            citation="",
            inputs_description="\npredictions: logits; references: labels 0 or 1; lists: numbers.",
            features=datasets.Features(
                predictions=datasets.Value("float64"), references=number, lists=number
            ),
            format="arrow",  # "numpy" would round logits to float32
        )

    def _compute(
        self, predictions: Sequence, references: Sequence, lists: Sequence
    ) -> dict[str, float]:
        return ranking_figures(np.asarray(predictions), np.asarray(references), np.asarray(lists))


def ranking_figures(logits: np.ndarray, labels: np.ndarray, lists: np.ndarray) -> dict[str, float]:
    """Figures of labelled candidate lists.

    Args:
        logits: (n,) float, of each candidate.
        labels: (n,) int, 1 for a gold candidate, else 0.
        lists: (n,) int, the list of each candidate.

    Returns:
        ``precision``, ``recall`` and ``f1`` at probability 0.5, ``roc_auc``, ``ece`` (15
        equal-width bins), ``brier`` and ``log_loss`` are of the candidates, each by itself.
        ``acc@1`` is the share of lists whose gold candidate beats all others; a list without one
        counts as incorrect. ``list_loss`` is the cross-entropy (nats) of a gold candidate under the
        softmax over its list.
    """
    p = sigmoid(logits)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, p >= 0.5, average="binary", zero_division=0
    )
    groups, group_of = np.unique(lists, return_inverse=True)
    highest = np.full((2, len(groups)), -np.inf)
    np.maximum.at(highest, (labels, group_of), logits)
    top = highest.max(axis=0)
    normalizers = top + np.log(np.bincount(group_of, np.exp(logits - top[group_of])))
    losses = (normalizers[group_of] - logits)[labels == 1]
    list_loss = float(losses.mean()) if len(losses) else float("nan")
    return {
        "f1": float(f1),
        "precision": float(precision),
        "recall": float(recall),
        "roc_auc": roc_auc(p, labels),
        "ece": ece(p, labels),
        "brier": brier(p, labels),
        "log_loss": float((np.logaddexp(0, logits) - labels * logits).mean()),
        # A tie does not count as correct: serving could rank either first.
        "acc@1": float((highest[1] > highest[0]).mean()),
        "list_loss": list_loss,
    }
