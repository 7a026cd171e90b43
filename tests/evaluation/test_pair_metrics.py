import evaluate
import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, f1_score, precision_score, recall_score, roc_auc_score

from umls_reranker.calibration.reliability import ece
from umls_reranker.training.dev_metrics import PairMetrics


def pair_metrics(p, y, **options):
    return PairMetrics().compute(predictions=p, references=y, **options)


@pytest.fixture
def pairs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    p = rng.integers(0, 50, 2000) / 50  # many ties
    return p, (rng.random(2000) < p**2).astype(int)


def test_pair_metrics_agree_with_scikit_learn(pairs):
    p, y = pairs
    found = pair_metrics(p, y, threshold=0.3)
    assert found == pytest.approx(
        {
            "precision": precision_score(y, p >= 0.3),
            "recall": recall_score(y, p >= 0.3),
            "f1": f1_score(y, p >= 0.3),
            "roc_auc": roc_auc_score(y, p),
            "ece": ece(p, y),
            "brier": brier_score_loss(y, p),
        },
        abs=1e-12,
    )


def test_undefined_figures():
    found = pair_metrics([0.1, 0.2], [0, 0])
    assert (found["precision"], found["recall"], found["f1"]) == (0.0, 0.0, 0.0)
    assert np.isnan(found["roc_auc"])


def test_batches_give_the_same_figures_without_a_file(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "cache")
    p, y = pairs
    metric = PairMetrics()
    for _ in range(2):  # a metric is used again for the next evaluation
        for start in range(0, len(p), 300):
            metric.add_batch(predictions=p[start : start + 300], references=y[start : start + 300])
        assert metric.compute(threshold=0.3) == pytest.approx(pair_metrics(p, y, threshold=0.3))
    assert not list(tmp_path.iterdir())
