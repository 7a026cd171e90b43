"""Dev lists for comparing checkpoints, and the metrics on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any

import datasets
import evaluate
import numpy as np

from ..calibration.logistic import sigmoid
from ..calibration.reliability import brier, ece
from ..core.errors import UserError
from ..evaluation.linking import roc_auc
from ..models.pairs import training_rows
from .trainer import LABEL_NAMES

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import EvalPrediction

    from ..lists.candidate_lists import AnnotatedLists
    from ..models.pairs import PairTemplate


def dev_rows(lists: AnnotatedLists, template: PairTemplate, most: int, seed: int) -> pa.Table:
    """Training rows of a sample of the dev lists, drawn by `sample_by_document`; all pairs weigh 1.

    A mention whose gold concept is not in its list has only incorrect pairs.

    Args:
        lists: lists of the dev split.
        template: template of the model.
        most: maximum number of pairs.
        seed: seed of the sample.

    Raises:
        UserError: `most` is less than the length of the first list.
    """
    sample = lists.take(sample_by_document(lists.annotations.documents, np.diff(lists.offsets), most, seed))
    labels = sample.labels.astype(np.int8)
    return training_rows(template, sample, labels, np.ones(len(labels), np.float32))


def sample_by_document(documents: Sequence[str] | np.ndarray, sizes: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Draw mentions with up to `most` pairs, one from every document before a second one from any.

    Answers within a document are correlated, so a few documents would tell little about a checkpoint.

    Args:
        documents: (n,) document of each mention.
        sizes: (n,) int, number of pairs of each mention.
        most: maximum number of pairs.
        seed: seed of the sample.

    Returns:
        (m,) int64 numbers of the drawn mentions, ascending.

    Raises:
        UserError: `most` is less than the length of the first list.
    """
    drawn = np.random.default_rng(seed).permutation(len(documents))
    _, document = np.unique(np.asarray(documents), return_inverse=True)
    # Number of earlier draws from the document of each mention.
    grouped = np.argsort(document[drawn], kind="stable")
    starts = np.searchsorted(document[drawn][grouped], document[drawn][grouped])
    before = np.empty(len(drawn), np.int64)
    before[grouped] = np.arange(len(drawn)) - starts
    drawn = drawn[np.argsort(before, kind="stable")]
    count = int(np.searchsorted(np.cumsum(np.asarray(sizes)[drawn]), most, side="right"))
    if not count:
        raise UserError(f"max_dev_pairs: {most} is smaller than one candidate list of the dev split; increase it")
    return np.sort(drawn[:count])


def dev_metrics(owner: np.ndarray) -> Callable[[EvalPrediction], dict[str, float]]:
    """A `compute_metrics` for labelled pairs.

    Args:
        owner: (n,) int64, the list of each pair in dataset order.

    Returns:
        Function that returns ``f1``, ``precision``, ``recall``, ``roc_auc``, ``ece``, ``brier``, ``log_loss`` of the
        pairs at probability 0.5; ``acc@1``, the share of lists whose gold pair beats all others (a list without one
        counts as incorrect); and ``list_loss``, the cross-entropy (nats) of a gold pair under the softmax over its
        list.
    """
    metric = PairMetrics()

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        columns = dict(zip(LABEL_NAMES, prediction.label_ids, strict=True))
        labels = columns["labels"]
        logits = np.array(prediction.predictions, np.float64).reshape(-1)
        is_missing = np.isnan(logits)
        logits[is_missing] = 0.0
        metrics = metric.compute(predictions=sigmoid(logits), references=labels.astype(np.int64))
        bce = np.logaddexp(0, logits) - labels * logits
        metrics |= {"log_loss": float(bce.mean())} | _list_metrics(logits, labels, owner[columns["row"]])
        # If the network diverged, its checkpoint is never the best, and early stopping counts it.
        return dict.fromkeys(metrics, float("nan")) if is_missing.any() else metrics

    return compute


def _list_metrics(logits: np.ndarray, labels: np.ndarray, lists: np.ndarray) -> dict[str, float]:
    groups, group_of = np.unique(lists, return_inverse=True)
    highest = {label: np.full(len(groups), -np.inf) for label in (0, 1)}
    for label, values in highest.items():
        np.maximum.at(values, group_of[labels == label], logits[labels == label])
    top = np.maximum(highest[0], highest[1])
    normalizers = top + np.log(np.bincount(group_of, np.exp(logits - top[group_of])))
    losses = (normalizers[group_of] - logits)[labels == 1]
    # A tie does not count as correct: serving could rank either first.
    return {
        "acc@1": float((highest[1] > highest[0]).mean()),
        "list_loss": float(losses.mean()) if len(losses) else float("nan"),
    }


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
