import evaluate
import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, f1_score, precision_score, recall_score, roc_auc_score

from umls_reranker.calibration.reliability import ece
from umls_reranker.evaluation.linking import Documents
from umls_reranker.evaluation.pair_metrics import PairMetrics, pair_report, roc_auc


def pair_metrics(p, y, **options):
    return PairMetrics().compute(predictions=p, references=y, **options)


@pytest.fixture
def pairs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    p = rng.integers(0, 50, 2000) / 50  # many ties
    return p, (rng.random(2000) < p**2).astype(int)


def test_pair_metrics_by_hand():
    found = pair_metrics([0.9, 0.7, 0.5, 0.1], [1, 0, 1, 1], threshold=0.5)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["roc_auc"] == pytest.approx(1 / 3)


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
    assert np.isnan(found["roc_auc"]) and np.isnan(roc_auc([1.0], [1]))


def test_roc_auc_takes_logits():
    rng = np.random.default_rng(1)
    logits, y = rng.normal(0, 8, 500), rng.integers(0, 2, 500)
    assert roc_auc(logits, y) == pytest.approx(roc_auc_score(y, logits), abs=1e-12)


def test_batches_give_the_same_figures_without_a_file(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "cache")
    p, y = pairs
    metric = PairMetrics()
    for _ in range(2):  # a metric is used again for the next evaluation
        for start in range(0, len(p), 300):
            metric.add_batch(predictions=p[start : start + 300], references=y[start : start + 300])
        assert metric.compute(threshold=0.3) == pair_metrics(p, y, threshold=0.3)
    assert not list(tmp_path.iterdir())


def test_pair_report_values_and_intervals(pairs):
    p, y = pairs
    documents = Documents.of(np.arange(2000) // 40, resamples=300)
    report = pair_report(p, y, documents, 0.3, "some pairs")
    expected = pair_metrics(p, y, threshold=0.3)
    assert list(report) == ["precision", "recall", "f1", "roc_auc"]
    for name, figure in report.items():
        assert figure["value"] == pytest.approx(expected[name], abs=1e-12) and figure["population"] == "some pairs"
        assert figure["low"] < figure["value"] < figure["high"]
        assert figure["high"] - figure["low"] < 0.12
    assert report == pair_report(p, y, documents, 0.3, "some pairs")


def test_roc_auc_interval_agrees_with_resampling_by_hand(pairs):
    p, y = pairs
    figure = pair_report(p, y, Documents.of(np.arange(2000) // 40, resamples=400), 0.5, "some pairs")["roc_auc"]
    rng = np.random.default_rng(5)
    draws = []
    for _ in range(400):
        rows = (40 * rng.integers(0, 50, 50)[:, None] + np.arange(40)).ravel()
        draws.append(roc_auc_score(y[rows], p[rows]))
    np.testing.assert_allclose([figure["low"], figure["high"]], np.quantile(draws, [0.025, 0.975]), atol=0.006)
