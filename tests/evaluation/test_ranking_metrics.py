"""`RankingMetrics` of evaluate: its figures, in batches, and loaded from its file."""

import inspect

import evaluate
import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, f1_score, precision_score, recall_score, roc_auc_score

from umls_reranker import RankingMetrics
from umls_reranker.calibration.reliability import ece


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


def test_evaluate_loads_it_from_its_file(candidates, tmp_path, monkeypatch):
    # Files of modules and of figures would go into the home folder.
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    metric = evaluate.load(
        inspect.getfile(RankingMetrics), keep_in_memory=True, cache_dir=str(tmp_path)
    )
    assert metric.compute(**candidates) == RankingMetrics().compute(**candidates)
