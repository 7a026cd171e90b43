import numpy as np
import pytest
from scipy.stats import t
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from umls_reranker.calibration.reliability import (
    bootstrap_sums,
    brier,
    calibration_report,
    document_index,
    document_sums,
    ece,
    jackknife_sums,
    log_loss,
    ratio,
)


def debiased_ece(p, y, bins=15):
    return calibration_report(p, y, range(len(p)), bins=bins, resamples=1)["debiased_ece"]["value"]


def calibrated_pairs(seed: int, n: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.beta(0.6, 2.5, n)
    truth = 1 / (1 + np.exp(-(np.log(p / (1 - p)) + shift)))
    return p, (rng.random(n) < truth).astype(int)


def test_ece_by_hand():
    # Two bins of width 1/2: |0.2 + 0.4 - 1| and |0.6 + 0.9 - 1|, over four pairs.
    assert ece([0.2, 0.4, 0.6, 0.9], [1, 0, 1, 0], bins=2) == pytest.approx((0.4 + 0.5) / 4)


def test_ece_puts_one_into_the_last_bin():
    assert ece([1.0, 0.0], [1, 0]) == 0.0
    assert ece([1.0, 0.0], [0, 1]) == 1.0


def test_debiased_ece_by_hand():
    # Two equal-mass bins of four: rates 0.75 and 1, so gaps 0.65 and 0.3; noise 0.75 * 0.25 / 3 and
    # 0.
    p = [0.1] * 4 + [0.7] * 4
    y = [0, 1, 1, 1] + [1] * 4
    plain = (0.65**2 + 0.3**2) / 2
    assert debiased_ece(p, y, bins=2) == pytest.approx(
        0.475 * np.sqrt((plain - 0.0625 / 2) / plain)
    )
    p = [0.1, 0.1, 0.5, 0.7]
    y = [0, 0, 1, 1]
    assert debiased_ece(p, y, bins=2) == pytest.approx((0.1 + 0.4) / 2)
    assert debiased_ece([0.0, 0.0, 1.0, 1.0], [0, 0, 1, 1], bins=2) == 0.0


def test_debiased_ece_does_not_split_ties():
    # A bin border inside the run of ties would make the figure depend on the order of the rows.
    p = np.repeat([0.2, 0.6], [70, 30])
    y = np.concatenate([np.arange(70) < 14, np.arange(30) < 18]).astype(int)
    assert debiased_ece(p, y) == 0.0
    assert debiased_ece(p[::-1], y[::-1]) == 0.0


def test_agreement_with_scikit_learn():
    p, y = calibrated_pairs(1, 500)
    assert brier(p, y) == pytest.approx(brier_score_loss(y, p), abs=1e-15)
    assert log_loss(p, y) == pytest.approx(sklearn_log_loss(y, p), abs=1e-12)
    assert np.isfinite(log_loss([0.0, 1.0], [1, 0]))
    assert log_loss([0.0, 1.0], [1, 0], eps=0.25) == pytest.approx(np.log(4))


def test_an_interval_takes_noise_out_twice_and_holds_the_value():
    # Every resample of one document is the document.
    report = calibration_report(np.full(40, 0.1), np.arange(40) < 10, ["d"] * 40, resamples=20)
    square = 0.15**2
    noise = 0.25 * 0.75 / 39
    for name, value in (("ece", 0.15), ("debiased_ece", 0.15 * np.sqrt(1 - noise / square))):
        expected = {"value": value, "low": 0.15 * np.sqrt(1 - 2 * noise / square), "high": value}
        assert {key: report[name][key] for key in expected} == pytest.approx(expected), name


def test_mean_losses_and_their_intervals_by_document_by_hand():
    p = np.array([0.1, 0.02, 0.2, 0.1, 0.05, 0.3, 0.01, 0.15])
    y = np.array([0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    groups = [0, 1, 1, 2, 3, 4, 5, 6]
    report = calibration_report(p, y, groups, bins=1, resamples=60, seed=4)
    losses = {"brier": (p - y) ** 2, "log_loss": -np.log(np.where(y == 1, p, 1 - p))}
    for name, values in losses.items():
        assert report[name]["value"] == pytest.approx(values.mean()), name
        sums = document_sums(*document_index(groups), [values, np.ones(8)])
        bounds = bootstrap_sums(sums, ratio, resamples=60, seed=4)
        assert (report[name]["low"], report[name]["high"]) == pytest.approx(bounds), name


def test_document_sums_by_hand():
    index, documents = document_index(["b", "a", "b"])
    np.testing.assert_array_equal(index, [1, 0, 1])
    np.testing.assert_array_equal(
        document_sums(index, documents, [[1.0, 2.0, 4.0]]), [[2.0], [5.0]]
    )
    cells = document_sums(index, documents, [[1.0, 2.0, 4.0]], cell=np.array([0, 1, 1]), cells=2)
    np.testing.assert_array_equal(cells, [[[0.0, 2.0]], [[1.0, 4.0]]])


def test_bootstrap_percentiles_are_those_of_resamples_by_hand():
    values = np.random.default_rng(0).random(18)
    groups = np.repeat(np.arange(6), [1, 2, 3, 3, 4, 5])
    sums = document_sums(*document_index(groups), [values, np.ones(18)])
    draws = ratio(np.random.default_rng(7).multinomial(6, np.full(6, 1 / 6), size=300) @ sums)
    for confidence in (0.95, 0.5):
        found = bootstrap_sums(sums, ratio, resamples=300, confidence=confidence, seed=7)
        assert found == pytest.approx(
            np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
        )
    # Draws of the second document alone have nothing to divide by.
    assert bootstrap_sums(np.array([[1.0, 2.0], [0.0, 0.0]]), ratio) == (0.5, 0.5)


def test_the_jackknife_of_a_mean_is_the_t_interval():
    values = np.random.default_rng(0).normal(size=12)
    low, high = jackknife_sums(np.stack([values, np.ones(12)], 1), ratio)
    expected = t.interval(0.95, 11, values.mean(), values.std(ddof=1) / np.sqrt(12))
    assert (low, high) == (pytest.approx(expected[0]), pytest.approx(expected[1]))


def test_the_jackknife_of_what_one_document_decides_has_no_interval():
    sums = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    assert np.isnan(jackknife_sums(sums, ratio)).all()
    assert np.isnan(jackknife_sums(sums[:1], ratio)).all()
