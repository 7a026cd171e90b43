"""The dev lists that checkpoints are compared on, and the metrics on them by hand."""

from collections import Counter

import evaluate
import numpy as np
import pytest
from list_fixtures import make_lists
from loss_on_processes import TRAINING_ROW
from sklearn.metrics import brier_score_loss, f1_score, precision_score, recall_score, roc_auc_score
from transformers import EvalPrediction

from umls_reranker.calibration.reliability import ece
from umls_reranker.core.errors import UserError
from umls_reranker.models.pairs import PairTemplate
from umls_reranker.training.dev_metrics import RankingMetrics, dev_metrics
from umls_reranker.training.rows import dev_rows, sample_by_document, training_rows

# 40 mentions in the first document, 3 in each of the other 20.
DOCUMENTS = ["a"] * 40 + [f"b{number:02}" for number in range(20) for _ in range(3)]


def test_every_document_gives_a_mention_before_any_gives_two():
    sizes = np.full(100, 4)
    rows = sample_by_document(DOCUMENTS, sizes, 21 * 4, seed=5)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert Counter(DOCUMENTS[row] for row in rows) == dict.fromkeys(DOCUMENTS, 1)
    counts = Counter(
        DOCUMENTS[row] for row in sample_by_document(DOCUMENTS, sizes, 30 * 4 + 3, seed=5)
    )
    assert sum(counts.values()) == 30 and set(counts.values()) == {1, 2}
    assert len(sample_by_document(DOCUMENTS, sizes, 400, seed=5)) == 100


@pytest.mark.parametrize("documents", [DOCUMENTS, []])
def test_a_limit_below_the_first_list_is_refused(documents):
    with pytest.raises(UserError, match="max_dev_pairs: 3 is smaller than one candidate list"):
        sample_by_document(documents, np.full(len(documents), 4), 3, seed=1)


def test_training_rows_have_one_name_of_each_concept_and_no_correct_negative():
    named = {"a cold": "C1", "heart": "C2", "cold": "C1", "common cold": "C3"}
    candidates = [{"name": name, "cui": cui} for name, cui in named.items()]
    rows = training_rows([{"entity": "cold", "cui": ["C3", "C1"], "candidates": candidates}])
    assert (rows[0]["names"], rows[0]["labels"]) == (["a cold", "heart"], [1, 0])
    with pytest.raises(UserError, match="rows:1: cui is missing"):
        training_rows([{"entity": "cold", "candidates": candidates}])


def test_training_rows_weigh_the_top_negatives_and_have_scores_of_a_teacher():
    candidates = [{"name": name, "cui": name} for name in "abcde"]
    candidates[1]["teacher_score"] = 7.0
    rows = [
        {"entity": "m", "cui": "d", "candidates": candidates},
        {"entity": "n", "cui": "x", "candidates": candidates[2:]},
    ]
    weights = {"positive_weight": 5.0, "hard_negative_weight": 1.5}
    first, second = training_rows(rows, nearest_negatives=2, **weights)
    assert (first["names"], first["labels"]) == (["a", "b", "d"], [0, 0, 1])
    assert first["weights"] == [1.5, 1.5, 5.0]
    assert str(first["teacher"]) == "[nan, 7.0, nan]"
    assert (second["names"], second["labels"]) == (["c", "d"], [0, 0])


def test_rows_are_the_lists_as_they_were_retrieved():
    candidates = [["heart", "cold"], ["liver", "cold"]]
    contexts = [["x ", "y "], [" z", " w"]]
    lists = make_lists(
        ["colds", "hearts"], candidates, [["T047"], []], None, *contexts, gold=[1, -1]
    )
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
    assert metrics["precision"] == pytest.approx(2 / 4) and metrics["recall"] == pytest.approx(
        2 / 3
    )
    assert metrics["f1"] == pytest.approx(4 / 7)
    # Of 12 (gold, other) pairs the gold one wins 4, then 3 and a tie, then none.
    assert metrics["roc_auc"] == pytest.approx((4 + 3.5 + 0) / 12)
    assert metrics["log_loss"] == pytest.approx(-np.mean(np.log(np.where(LABELS == 1, p, 1 - p))))
    assert metrics["brier"] == pytest.approx(np.mean((p - LABELS) ** 2))
    lists = [[2.0, -1.0], [0.5, 0.5], [-2.0, -1.0, 0.0]]
    by_hand = [np.log(np.exp(scores).sum()) - scores[0] for scores in lists]
    assert metrics["list_loss"] == pytest.approx(np.mean(by_hand))
    assert set(metrics) == {
        "precision",
        "recall",
        "f1",
        "roc_auc",
        "ece",
        "brier",
        "log_loss",
        "acc@1",
        "list_loss",
    }


def test_a_mention_without_negatives_is_won_and_one_without_gold_is_lost():
    label_ids = (np.array([1, 0], np.float32), np.ones(2), np.arange(2))
    metrics = dev_metrics(np.array([5, 9]))(EvalPrediction(np.array([-3.0, -4.0]), label_ids))
    # A mention without gold has no list-wise loss.
    assert (metrics["acc@1"], metrics["list_loss"]) == pytest.approx((0.5, 0.0), abs=1e-12)


@pytest.fixture
def candidates() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    logits = rng.integers(-20, 20, 2000) / 10  # many ties
    labels = rng.random(2000) < 1 / (1 + np.exp(-logits))
    return {"predictions": logits, "references": labels.astype(int), "lists": np.arange(2000) // 4}


def test_figures_of_candidates_agree_with_scikit_learn(candidates):
    figures = RankingMetrics().compute(**candidates)
    y = candidates["references"]
    p = 1 / (1 + np.exp(-candidates["predictions"]))
    expected = {
        "precision": precision_score(y, p >= 0.5),
        "recall": recall_score(y, p >= 0.5),
        "f1": f1_score(y, p >= 0.5),
        "roc_auc": roc_auc_score(y, p),
        "ece": ece(p, y),
        "brier": brier_score_loss(y, p),
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_figures_without_a_gold_candidate_are_zero_or_undefined():
    figures = RankingMetrics().compute(predictions=[-1.0, -2.0], references=[0, 0], lists=[0, 0])
    assert (figures["precision"], figures["recall"], figures["f1"]) == (0.0, 0.0, 0.0)
    assert np.isnan(figures["roc_auc"])


def test_batches_give_the_same_figures_without_a_file(candidates, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "cache")
    metric = RankingMetrics()
    for _ in range(2):  # a metric is used again for the next evaluation
        for start in range(0, 2000, 300):
            metric.add_batch(
                **{name: column[start : start + 300] for name, column in candidates.items()}
            )
        assert metric.compute() == pytest.approx(RankingMetrics().compute(**candidates))
    assert not list(tmp_path.iterdir())
