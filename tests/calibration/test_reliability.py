import numpy as np
import pytest
from scipy.stats import t
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from umls_reranker.calibration.reliability import (
    bootstrap_by_document,
    bootstrap_sums,
    brier,
    brier_decomposition,
    calibration_report,
    debiased_ece,
    document_index,
    document_sums,
    ece,
    jackknife_sums,
    log_loss,
    random_signs,
    reliability_curve,
)


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
    np.testing.assert_allclose(reliability_curve([1.0, 0.95], [1, 1], bins=10)["upper"], [1.0])


def test_debiased_ece_by_hand():
    # Two equal-mass bins of four: rates 0.75 and 1, so gaps 0.65 and 0.3; noise 0.75 * 0.25 / 3 and 0.
    p, y = [0.1] * 4 + [0.7] * 4, [0, 1, 1, 1] + [1] * 4
    plain = (0.65**2 + 0.3**2) / 2
    assert debiased_ece(p, y, bins=2) == pytest.approx(0.475 * np.sqrt((plain - 0.0625 / 2) / plain))
    p, y = [0.1, 0.1, 0.5, 0.7], [0, 0, 1, 1]
    assert debiased_ece(p, y, bins=2) == pytest.approx((0.1 + 0.4) / 2)
    assert debiased_ece([0.0, 0.0, 1.0, 1.0], [0, 0, 1, 1], bins=2) == 0.0


def test_debiased_ece_does_not_split_ties():
    # A bin border inside the run of ties would make the figure depend on the order of the rows.
    p = np.repeat([0.2, 0.6], [70, 30])
    y = np.concatenate([np.arange(70) < 14, np.arange(30) < 18]).astype(int)
    assert debiased_ece(p, y) == 0.0
    assert debiased_ece(p[::-1], y[::-1]) == 0.0


def test_the_debiased_ece_takes_the_noise_of_a_few_rows_out_too():
    # With a bin for each row, no noise would be seen, and all of it would count as error.
    plain, debiased = zip(
        *[(ece(p, y), debiased_ece(p, y)) for p, y in (calibrated_pairs(s, 16) for s in range(200))], strict=True
    )
    assert np.mean(debiased) < np.mean(plain) / 2
    assert debiased_ece(np.array([0.3]), np.array([1])) == pytest.approx(0.7)


def test_perfect_calibration_has_a_small_debiased_ece():
    plain, debiased = zip(
        *[(ece(p, y), debiased_ece(p, y)) for p, y in (calibrated_pairs(s, 2000) for s in range(40))], strict=True
    )
    assert np.mean(plain) > 0.015
    assert np.mean(debiased) < 0.4 * np.mean(plain)


def test_debiased_ece_keeps_true_miscalibration():
    p, y = calibrated_pairs(0, 50_000, shift=0.8)
    truth = np.mean(1 / (1 + np.exp(-(np.log(p / (1 - p)) + 0.8))) - p)
    assert debiased_ece(p, y) == pytest.approx(truth, abs=0.005)


def test_agreement_with_scikit_learn():
    p, y = calibrated_pairs(1, 500)
    assert brier(p, y) == pytest.approx(brier_score_loss(y, p), abs=1e-15)
    assert log_loss(p, y) == pytest.approx(sklearn_log_loss(y, p), abs=1e-12)
    assert np.isfinite(log_loss([0.0, 1.0], [1, 0]))
    assert log_loss([0.0, 1.0], [1, 0], eps=0.25) == pytest.approx(np.log(4))


def test_reliability_curve_by_hand():
    curve = reliability_curve([0.1, 0.3, 0.9], [0, 1, 1], bins=2)
    np.testing.assert_allclose(curve["lower"], [0.0, 0.5])
    np.testing.assert_allclose(curve["upper"], [0.5, 1.0])
    np.testing.assert_array_equal(curve["count"], [2, 1])
    np.testing.assert_allclose(curve["mean_probability"], [0.2, 0.9])
    np.testing.assert_allclose(curve["positive_rate"], [0.5, 1.0])
    np.testing.assert_allclose(curve["standard_error"], [np.sqrt(0.09 + 0.21) / 2, 0.3])


def test_empty_bins_are_left_out():
    assert len(reliability_curve([0.01, 0.99], [0, 1])["count"]) == 2


@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        ([1.2], [1], r"\[0, 1\]"),
        ([-0.2], [1], r"\[0, 1\]"),
        ([np.nan], [1], r"\[0, 1\]"),
        ([0.5], [2], "0 or 1"),
        ([0.5, 0.5], [1], "the same shape"),
        ([], [], "n > 0"),
    ],
)
def test_wrong_input_is_named(p, y, message):
    with pytest.raises(ValueError, match=message):
        ece(np.array(p), np.array(y))


def test_document_sums_by_hand():
    index, documents = document_index(["b", "a", "b"])
    np.testing.assert_array_equal(index, [1, 0, 1])
    np.testing.assert_array_equal(document_sums(index, documents, [[1.0, 2.0, 4.0]]), [[2.0], [5.0]])
    cells = document_sums(index, documents, [[1.0, 2.0, 4.0]], cell=np.array([0, 1, 1]), cells=2)
    np.testing.assert_array_equal(cells, [[[0.0, 2.0]], [[1.0, 4.0]]])


def test_bootstrap_resamples_documents_not_rows():
    # Ten documents of 100 equal rows hold no more than ten independent values.
    groups = np.repeat(np.arange(10), 100)
    values = (groups < 5).astype(float)
    low, high = bootstrap_by_document(values, groups)
    assert high - low > 0.4
    rows_low, rows_high = bootstrap_by_document(values, np.arange(1000))
    assert rows_high - rows_low < 0.08


def test_bootstrap_is_deterministic_and_takes_a_statistic_of_sums():
    rng = np.random.default_rng(0)
    columns = rng.random((200, 2))
    sums = document_sums(*document_index(rng.integers(0, 20, 200)), columns.T)

    def share(sums):
        return sums[..., 0] / sums.sum(axis=-1)

    first = bootstrap_sums(sums, share, seed=3)
    assert first == bootstrap_sums(sums, share, seed=3)
    assert first[0] < columns[:, 0].sum() / columns.sum() < first[1]


def test_bootstrap_percentiles_are_those_of_resamples_by_hand():
    def share(sums):
        return sums[..., 0] / sums[..., 1]

    values, groups = np.random.default_rng(0).random(18), np.repeat(np.arange(6), [1, 2, 3, 3, 4, 5])
    sums = document_sums(*document_index(groups), [values, np.ones(18)])
    draws = share(np.random.default_rng(7).multinomial(6, np.full(6, 1 / 6), size=300) @ sums)
    for confidence in (0.95, 0.5):
        found = bootstrap_sums(sums, share, resamples=300, confidence=confidence, seed=7)
        assert found == pytest.approx(np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2]))
    expected = bootstrap_sums(sums, share, resamples=300, seed=7)
    assert bootstrap_by_document(values, groups, resamples=300, seed=7) == expected
    # Draws of the second document alone have nothing to divide by.
    assert bootstrap_sums(np.array([[1.0, 2.0], [0.0, 0.0]]), share) == (0.5, 0.5)


def test_bootstrap_of_an_undefined_statistic_is_nan():
    low, high = bootstrap_sums(np.zeros((3, 2)), lambda sums: sums[..., 0] / sums[..., 1])
    assert np.isnan(low) and np.isnan(high)


def test_calibration_report_values_and_intervals():
    p, y = calibrated_pairs(2, 1500, shift=0.8)
    groups = np.random.default_rng(0).integers(0, 60, len(p)).astype(str)
    report = calibration_report(p, y, groups, resamples=200)
    values = {"ece": ece(p, y), "debiased_ece": debiased_ece(p, y), "brier": brier(p, y), "log_loss": log_loss(p, y)}
    assert list(report)[:4] == ["ece", "debiased_ece", "brier", "log_loss"]
    for name, value in values.items():
        assert report[name]["value"] == pytest.approx(value, abs=1e-12)
        assert 0 <= report[name]["low"] <= value <= report[name]["high"]
    assert report["ece"]["low"] > 0.02


def test_an_interval_takes_noise_out_twice_and_holds_the_value():
    # Every resample of one document is the document.
    report = calibration_report(np.full(40, 0.1), np.arange(40) < 10, ["d"] * 40, resamples=20)
    square, noise = 0.15**2, 0.25 * 0.75 / 39
    for name, value in (("ece", 0.15), ("debiased_ece", 0.15 * np.sqrt(1 - noise / square))):
        expected = {"value": value, "low": 0.15 * np.sqrt(1 - 2 * noise / square), "high": value}
        assert {key: report[name][key] for key in expected} == pytest.approx(expected), name


def test_interval_of_a_perfect_model_holds_zero():
    # Plain percentiles of a resampled ECE lie above the estimate, which itself lies above the truth.
    hits = 0
    for seed in range(10):
        p, y = calibrated_pairs(seed, 1000)
        report = calibration_report(p, y, np.arange(1000) // 10, resamples=100)
        hits += report["ece"]["low"] == 0.0 and report["debiased_ece"]["low"] == 0.0
    assert hits >= 9


def test_brier_decomposition_by_hand():
    # The regression joins the last two probabilities, which are in the wrong order: 0, 1/2, 1/2.
    parts = brier_decomposition([0.2, 0.2, 0.6, 0.9], [0, 0, 1, 0])
    best = (0 + 0 + 0.25 + 0.25) / 4
    assert parts["miscalibration"] == pytest.approx((0.04 + 0.04 + 0.16 + 0.81) / 4 - best)
    assert parts["uncertainty"] == pytest.approx(0.25 * 0.75)
    assert parts["discrimination"] == pytest.approx(0.25 * 0.75 - best)


def test_equal_probabilities_weigh_as_many_as_they_are_in_the_regression():
    # Rates 2/3 and 0 are in the wrong order, so all four become 1/2.
    parts = brier_decomposition([0.2, 0.2, 0.2, 0.6], [1, 1, 0, 0])
    assert parts["discrimination"] == pytest.approx(0.0) and parts["uncertainty"] == pytest.approx(0.25)


def test_brier_decomposition_adds_up_and_does_not_part_ties():
    p, y = calibrated_pairs(3, 2000)
    p = np.round(p, 2)
    parts = brier_decomposition(p, y)
    assert parts["miscalibration"] - parts["discrimination"] + parts["uncertainty"] == pytest.approx(brier(p, y))
    assert brier_decomposition(p[::-1], y[::-1]) == pytest.approx(parts)
    assert brier_decomposition(np.full(10, 0.3), np.arange(10) < 3)["miscalibration"] == pytest.approx(0.0, abs=1e-12)


def test_what_chance_shows_is_what_perfect_models_show():
    p, y = calibrated_pairs(5, 1000)
    report = calibration_report(p, y, np.arange(1000), resamples=200)
    rng = np.random.default_rng(0)
    drawn = [(rng.random(1000) < p).astype(float) for _ in range(60)]
    for name, estimate in (("ece", ece), ("brier", brier), ("log_loss", log_loss)):
        values = np.array([estimate(p, labels) for labels in drawn])
        assert report[name]["perfect"] == pytest.approx(values.mean(), rel=0.15), name
        assert report[name]["perfect_high"] == pytest.approx(np.quantile(values, 0.95), rel=0.2), name


def test_what_chance_shows_by_hand():
    # One bin, whose error is taken out of the noise; each document's noise gets a random sign.
    p, y = np.array([0.1, 0.02, 0.2, 0.1, 0.05, 0.3, 0.01, 0.15]), np.array([0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    groups = [0, 1, 1, 2, 3, 4, 5, 6]
    report = calibration_report(p, y, groups, bins=1, resamples=60, seed=4)
    signs = random_signs(np.eye(7), draws=60, seed=4)[:, groups]
    noise = signs * (y - p - (y - p).mean())
    chance = {
        "ece": np.abs(p.sum() - np.clip(p.sum() + noise.sum(axis=1), 0, 8)) / 8,
        "brier": np.mean(p * (1 - p) + (1 - 2 * p) * noise, axis=1),
        "log_loss": np.mean(-p * np.log(p) - (1 - p) * np.log(1 - p) + np.log((1 - p) / p) * noise, axis=1),
    }
    assert (p.sum() + noise.sum(axis=1)).min() < 0
    for name, values in chance.items():
        assert report[name]["perfect"] == pytest.approx(values.mean()), name
        assert report[name]["perfect_high"] == pytest.approx(np.quantile(values, 0.95)), name
    losses = {"brier": (p - y) ** 2, "log_loss": -np.log(np.where(y == 1, p, 1 - p))}
    for name, values in losses.items():
        bounds = bootstrap_by_document(values, groups, resamples=60, seed=4)
        assert (report[name]["low"], report[name]["high"]) == pytest.approx(bounds), name


def test_chance_shows_more_where_documents_agree():
    p = np.repeat(np.random.default_rng(1).random(100), 10)
    luck = np.repeat(np.random.default_rng(0).random(100), 10)
    y = (luck < p).astype(int)
    by_row, by_document = (
        calibration_report(p, y, g, resamples=200) for g in (np.arange(1000), np.arange(1000) // 10)
    )
    assert by_document["ece"]["perfect"] > 1.5 * by_row["ece"]["perfect"]


def test_true_error_is_not_taken_for_chance():
    p, y = calibrated_pairs(6, 3000, shift=1.5)
    report = calibration_report(p, y, np.arange(3000), resamples=200)
    for name in ("ece", "debiased_ece"):
        assert report[name]["perfect_high"] < 0.5 * report[name]["value"], name
    assert report["log_loss"]["perfect_high"] < report["log_loss"]["low"]


def test_random_signs_keep_the_size_of_noise():
    noise = random_signs(np.array([[3.0, 0.0], [4.0, 1.0]]), draws=400)
    assert set(np.abs(noise[:, 0])) == {1.0, 7.0} and set(np.abs(noise[:, 1])) == {1.0}
    np.testing.assert_array_equal(noise, random_signs(np.array([[3.0, 0.0], [4.0, 1.0]]), draws=400))
    assert (noise != random_signs(np.array([[3.0, 0.0], [4.0, 1.0]]), draws=400, seed=1)).any()


def test_the_jackknife_of_a_mean_is_the_t_interval():
    values = np.random.default_rng(0).normal(size=12)
    low, high = jackknife_sums(np.stack([values, np.ones(12)], 1), lambda sums: sums[..., 0] / sums[..., 1])
    expected = t.interval(0.95, 11, values.mean(), values.std(ddof=1) / np.sqrt(12))
    assert (low, high) == (pytest.approx(expected[0]), pytest.approx(expected[1]))


def test_the_jackknife_of_what_one_document_decides_has_no_interval():
    sums = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    assert np.isnan(jackknife_sums(sums, lambda sums: sums[..., 0] / sums[..., 1])).all()
    assert np.isnan(jackknife_sums(sums[:1], lambda sums: sums[..., 0] / sums[..., 1])).all()


def test_the_jackknife_covers_with_six_documents():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        sizes = 1 + rng.poisson(8, 6)
        one, other = (rng.binomial(sizes, rng.beta(3, 1, 6)) for _ in range(2))
        sums = np.stack([one, other, sizes], 1).astype(float)
        low, high = jackknife_sums(sums, lambda sums: (sums[..., 0] - sums[..., 1]) / sums[..., 2])
        covered += low <= 0.0 <= high
    # Percentiles of resampled documents cover the truth in 85 % of such draws.
    assert 930 <= covered <= 970
