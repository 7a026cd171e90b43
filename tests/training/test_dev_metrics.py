"""The dev lists that checkpoints are compared on, and the metrics on them by hand."""

from collections import Counter

import numpy as np
import pytest
from list_fixtures import make_lists
from loss_on_processes import TRAINING_ROW
from transformers import EvalPrediction

from umls_reranker.core.errors import UserError
from umls_reranker.models.pairs import PairTemplate
from umls_reranker.training.dev_metrics import dev_metrics, dev_rows, sample_by_document

# 40 mentions in the first document, 3 in each of the other 20.
DOCUMENTS = ["a"] * 40 + [f"b{number:02}" for number in range(20) for _ in range(3)]


def test_every_document_gives_a_mention_before_any_gives_two():
    sizes = np.full(100, 4)
    rows = sample_by_document(DOCUMENTS, sizes, 21 * 4, seed=5)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert Counter(DOCUMENTS[row] for row in rows) == dict.fromkeys(DOCUMENTS, 1)
    counts = Counter(DOCUMENTS[row] for row in sample_by_document(DOCUMENTS, sizes, 30 * 4 + 3, seed=5))
    assert sum(counts.values()) == 30 and set(counts.values()) == {1, 2}
    assert len(sample_by_document(DOCUMENTS, sizes, 400, seed=5)) == 100


@pytest.mark.parametrize("documents", [DOCUMENTS, []])
def test_a_limit_below_the_first_list_is_refused(documents):
    with pytest.raises(UserError, match="max_dev_pairs: 3 is smaller than one candidate list"):
        sample_by_document(documents, np.full(len(documents), 4), 3, seed=1)


def test_rows_are_the_lists_as_they_were_retrieved():
    candidates = [["heart", "cold"], ["liver", "cold"]]
    contexts = [["x ", "y "], [" z", " w"]]
    lists = make_lists(["colds", "hearts"], candidates, [["T047"], []], None, *contexts, gold=[1, -1])
    rows = dev_rows(lists, PairTemplate(32, 4, mention_types=True), 4, seed=1)
    assert rows.schema == TRAINING_ROW
    # The gold concept of the second mention was not retrieved, and is not put in.
    assert rows.to_pydict() == {
        "entity": ["colds ; Disease or Syndrome", "hearts"],
        "left": ["x ", "y "],
        "right": [" z", " w"],
        "names": candidates,
        "labels": [[0, 1], [0, 0]],
        "weights": [[1.0, 1.0]] * 2,
    }


# Three mentions: 0 is won, 1 is tied, 2 is lost.
LOGITS = np.array([2.0, -1.0, 0.5, 0.5, -2.0, -1.0, 0.0])
LABELS = np.array([1, 0, 1, 0, 1, 0, 0], np.float32)
MENTIONS = np.array([0, 0, 1, 1, 2, 2, 2])


@pytest.mark.parametrize("order", [np.arange(7), np.array([6, 2, 0, 5, 3, 1, 4])])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_dev_metrics_by_hand(order, shape):
    label_ids = (LABELS[order], np.full(7, 9.0), order)
    metrics = dev_metrics(MENTIONS)(EvalPrediction(LOGITS[order].reshape(shape), label_ids))
    p = 1 / (1 + np.exp(-LOGITS))
    assert metrics["acc@1"] == pytest.approx(1 / 3)
    assert metrics["precision"] == pytest.approx(2 / 4) and metrics["recall"] == pytest.approx(2 / 3)
    assert metrics["f1"] == pytest.approx(4 / 7)
    # Of 12 (gold, other) pairs the gold one wins 4, then 3 and a tie, then none.
    assert metrics["roc_auc"] == pytest.approx((4 + 3.5 + 0) / 12)
    assert metrics["log_loss"] == pytest.approx(-np.mean(np.log(np.where(LABELS == 1, p, 1 - p))))
    assert metrics["brier"] == pytest.approx(np.mean((p - LABELS) ** 2))
    lists = [[2.0, -1.0], [0.5, 0.5], [-2.0, -1.0, 0.0]]
    by_hand = [np.log(np.exp(scores).sum()) - scores[0] for scores in lists]
    assert metrics["list_loss"] == pytest.approx(np.mean(by_hand))
    assert set(metrics) == {"precision", "recall", "f1", "roc_auc", "ece", "brier", "log_loss", "acc@1", "list_loss"}


def test_a_mention_without_negatives_is_won_and_one_without_gold_is_lost():
    label_ids = (np.array([1, 0], np.float32), np.ones(2), np.arange(2))
    metrics = dev_metrics(np.array([5, 9]))(EvalPrediction(np.array([-3.0, -4.0]), label_ids))
    # A mention without gold has no list-wise loss.
    assert (metrics["acc@1"], metrics["list_loss"]) == pytest.approx((0.5, 0.0), abs=1e-12)
