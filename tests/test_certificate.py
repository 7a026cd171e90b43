import numpy as np
import pytest
from scipy.stats import beta, binom

from umls_reranker.calibration.certificate import (
    Certificate,
    certified_threshold,
    certify,
    clopper_pearson_lower,
    is_promising,
    lower_bounds,
)


def test_clopper_pearson_is_the_exact_bound():
    assert clopper_pearson_lower(59, 59) == pytest.approx(0.05 ** (1 / 59))
    assert clopper_pearson_lower(0, 10) == 0.0
    np.testing.assert_allclose(clopper_pearson_lower([90, 95], [100, 100], 0.99), beta.ppf(0.01, [90, 95], [11, 6]))
    # At the bound itself, as many successes or more have probability 5 %.
    assert binom.sf(89, 100, clopper_pearson_lower(90, 100)) == pytest.approx(0.05)


def test_fifty_nine_without_an_error_is_the_least():
    assert certified_threshold(np.full(58, 0.97), np.ones(58)) is None
    assert certified_threshold(np.full(59, 0.97), np.ones(59)) == 0.97
    assert certified_threshold(np.full(59, 0.97), np.arange(59) > 0) is None


def test_a_way_down_stops_at_the_first_failure_and_each_start_has_its_own():
    # 118 right at 0.97; 20 wrong at 0.9; then 1,000 right, which do not bring the first way down back to life.
    p = np.repeat([0.97, 0.9, 0.8, 0.7, 0.6], [118, 20, 1000, 20, 20])
    correct = np.repeat([1, 0, 1, 1, 1], [118, 20, 1000, 20, 20])
    # The starts are the first, second and fourth of five thresholds; from the fourth on 20 errors in 1,158 may stand.
    assert certify(p, correct) == Certificate((0.97, 0.7, 0.6))
    # With other labels the starts are the same; all fail there.
    assert certify(p, 1 - correct) is None


def test_a_few_wrong_ones_at_the_very_top_do_not_end_it():
    p = np.append(np.linspace(0.99, 0.999, 20), np.linspace(0.6, 0.98, 1500))
    correct = np.arange(1520) >= 20
    found = certify(p, correct)
    assert found.lowest == 0.6 and np.mean(correct[p >= found.highest]) > 0.95


def test_the_risk_is_shared_out_among_the_starts():
    # 59 without an error suffice where there is one threshold to start from, and no more where there are three.
    p = np.repeat([0.97, 0.9, 0.8], [59, 1, 1])
    assert certify(p[:59], np.ones(59)) is not None and certify(p, np.ones(61)) is None


def test_a_threshold_that_too_few_reach_is_never_tested():
    # The single error at 0.999 would fail a test of its own; the sequence starts further down, with 200 accepted.
    p = np.repeat([0.999, 0.95], [1, 199])
    assert certify(p, np.arange(200) > 0) == Certificate((0.95,))


def test_thresholds_accept_two_percent_more_each_and_labels_have_no_say():
    p = np.linspace(0.6, 0.9999, 4000)
    certificate = certify(p, np.ones(4000))
    accepted = np.array([np.count_nonzero(p >= threshold) for threshold in certificate.thresholds])
    assert accepted[0] >= 2 * 59 and accepted[-1] == 4000
    steps = accepted[1:] / accepted[:-1]
    assert steps.max() < 1.03 and np.all(np.diff(certificate.thresholds) < 0)
    shorter = certify(p, np.arange(4000) > 500)
    assert shorter.thresholds == certificate.thresholds[: len(shorter.thresholds)]


def test_no_threshold_lies_below_half():
    p = np.repeat([0.9, 0.5, 0.4], 200)
    assert certify(p, np.ones(600)).lowest == 0.5


def test_mentions_without_candidates_are_never_accepted():
    p = np.append(np.full(59, 0.97), np.nan)
    assert certified_threshold(p, np.append(np.ones(59), 0)) == 0.97


def test_at_least_stays_on_certified_thresholds():
    certificate = Certificate((0.97, 0.95, 0.9))
    assert certificate.at_least(0.3) == certificate.at_least(0.9) == certificate.lowest == 0.9
    assert certificate.at_least(0.945) == 0.95
    assert certificate.at_least(0.98) is None


def test_promising_is_what_would_pass_if_the_scores_were_true():
    assert is_promising(np.full(400, 0.99))
    assert not is_promising(np.full(400, 0.96))
    assert not is_promising(np.full(50, 0.999))
    assert not is_promising(np.full(400, 0.99), confidence=1 - 1e-9)
    assert not is_promising(np.full(400, 0.99), groups=np.zeros(400))


def test_documents_of_equal_mentions_count_once():
    # 20 documents of 10 equal answers: 200 mentions, but no more than 20 independent ones.
    p, groups = np.full(200, 0.97), np.repeat(np.arange(20), 10)
    correct = (groups > 0).astype(int)
    assert certified_threshold(p, correct, target=0.9) == 0.97
    assert certified_threshold(p, correct, target=0.9, groups=groups) is None


def test_the_start_allows_for_documents():
    # Twelve documents of ten mentions are worth 63 mentions in planning, too few to start at 0.97.
    p, groups = np.repeat([0.97, 0.9], 120), np.arange(240) // 10
    assert certify(p, np.ones(240), groups=groups).highest == 0.9
    assert certify(p, np.ones(240)).highest == 0.97


def test_correlation_seen_further_down_counts_where_no_error_was_seen():
    # Documents are all right or all wrong, so the 300 right ones at 0.97 are worth 30.
    p, groups = np.repeat([0.97, 0.5], [300, 100]), np.arange(400) // 10
    correct = p > 0.9
    assert certify(p, correct, groups=groups) is None
    assert certify(p, correct).highest == 0.97


def test_documents_of_one_mention_change_nothing():
    rng = np.random.default_rng(0)
    p = rng.beta(12, 0.6, 2000)
    correct = rng.random(2000) < p
    assert certify(p, correct) == certify(p, correct, groups=np.arange(2000))


THRESHOLDS = np.round(np.arange(0.95, 0.54, -0.05), 2)


def broken_promises(
    correlation: float, by_document: bool, draws: int = 1000, target: float = 0.95, starts: tuple[int, ...] = (0,)
) -> float:
    """Share of drawn calibration sets whose certified threshold has a true precision below the target.

    120 documents of 10 mentions with scores uniform on [0.5, 1], right with probability 1 - 0.28 (1 - p): the
    precision at p >= t is 1 - 0.14 (1 - t), below 0.95 for t < 0.643. With `correlation` most of a document's mentions
    share one draw of luck.
    """
    rng = np.random.default_rng(7)
    p = rng.uniform(0.5, 1.0, (draws, 120, 10))
    shared = rng.random((draws, 120, 10)) < correlation
    luck = np.where(shared, rng.random((draws, 120, 1)), rng.random((draws, 120, 10)))
    right = luck < 1 - 0.28 * (1 - p)
    first = np.searchsorted(-THRESHOLDS, -p)
    counts = np.zeros((2, draws, 120, len(THRESHOLDS) + 1))
    draw, document = np.indices((draws, 120))
    for mention in range(10):
        counts[0][draw, document, first[..., mention]] += 1
        counts[1][draw, document, first[..., mention]] += right[..., mention]
    accepted, hits = counts[..., :-1].cumsum(axis=-1)
    level = 1 - 0.05 / len(starts)
    if by_document:
        bounds = np.array([lower_bounds(a, h, level) for a, h in zip(accepted, hits, strict=True)])
    else:
        bounds = clopper_pearson_lower(hits.sum(axis=1), accepted.sum(axis=1), level)
    ways = [(start, np.cumprod(bounds[:, start:] >= target, axis=1).sum(axis=1)) for start in starts]
    reached = np.max([np.where(steps > 0, start + steps, 0) for start, steps in ways], axis=0)
    lowest = np.append(1.0, THRESHOLDS)[reached]
    return float(np.mean(1 - 0.14 * (1 - lowest) < target))


def test_the_promise_is_broken_in_five_percent_of_a_thousand_draws_at_most():
    # More than 6.6 % of 1,000 draws have probability 1 % if the rate is 5 %.
    assert 0.005 <= broken_promises(0.0, by_document=False) <= 0.066
    assert broken_promises(0.0, by_document=True) <= 0.066
    assert broken_promises(0.0, by_document=False, starts=(0, 3, 6)) <= 0.066


def test_correlated_errors_break_the_plain_promise_but_not_the_one_by_document():
    assert broken_promises(0.8, by_document=False) > 0.08
    assert broken_promises(0.8, by_document=True) <= 0.066


def test_drawn_documents_have_the_bounds_of_the_documents_written_out():
    rng = np.random.default_rng(0)
    accepted = rng.integers(0, 9, (30, 4)).cumsum(axis=1)
    right = rng.binomial(accepted, 0.9)
    times = rng.multinomial(30, np.full(30, 1 / 30), size=5)
    written = [lower_bounds(np.repeat(accepted, t, axis=0), np.repeat(right, t, axis=0)) for t in times]
    np.testing.assert_allclose(lower_bounds(accepted, right, times=times), written, rtol=1e-12)


def test_certify_takes_the_bounds_of_its_documents():
    rng = np.random.default_rng(3)
    groups, p = np.arange(3000) // 10, rng.beta(12, 0.6, 3000)
    correct = rng.random(3000) < p
    certificate = certify(p, correct, groups=groups)
    inside = p[:, None] >= np.array(certificate.thresholds)
    accepted = inside.reshape(300, 10, -1).sum(axis=1)
    right = (inside & correct[:, None]).reshape(300, 10, -1).sum(axis=1)
    assert np.all(lower_bounds(accepted, right) >= 0.95)


def test_power_on_a_calibrated_model():
    rng = np.random.default_rng(0)
    p = rng.beta(6, 0.8, 5000)
    threshold = certified_threshold(p, rng.random(5000) < p)
    oracle = max(t for t in np.arange(0.99, 0.5, -0.01) if p[p >= t].mean() < 0.95)
    assert oracle < threshold <= oracle + 0.06
