import numpy as np
import pytest
from scipy.stats import beta, binom

from umls_reranker.calibration.certificate import (
    CERTIFICATION_GRID,
    Certificate,
    certified_threshold,
    certify,
    clopper_pearson_lower,
)


def test_grid_falls_from_strict_to_half():
    assert CERTIFICATION_GRID[0] == 0.999 and CERTIFICATION_GRID[-1] == 0.5
    assert np.all(np.diff(CERTIFICATION_GRID) < 0)


def test_clopper_pearson_is_the_exact_bound():
    assert clopper_pearson_lower(59, 59) == pytest.approx(0.05 ** (1 / 59))
    assert clopper_pearson_lower(0, 10) == 0.0
    np.testing.assert_allclose(clopper_pearson_lower([90, 95], [100, 100], 0.99), beta.ppf(0.01, [90, 95], [11, 6]))
    # At the bound itself, as many successes or more have probability 5 %.
    assert binom.sf(89, 100, clopper_pearson_lower(90, 100)) == pytest.approx(0.05)


def test_fifty_nine_without_an_error_is_the_least():
    assert certified_threshold(np.full(58, 0.97), np.ones(58)) is None
    assert certified_threshold(np.full(59, 0.97), np.ones(59)) == 0.5
    assert certified_threshold(np.full(59, 0.97), np.arange(59) > 0) is None


def test_the_sequence_starts_where_scores_allow_and_stops_at_the_first_failure():
    # 118 right at 0.97; 20 wrong at 0.9; 1,000 right at 0.8, which must not bring the sequence back to life.
    p = np.repeat([0.97, 0.9, 0.8], [118, 20, 1000])
    correct = np.repeat([1, 0, 1], [118, 20, 1000])
    assert certify(p, correct) == Certificate(highest=0.97, lowest=0.91)
    # With labels shuffled the start is the same grid point; it fails there.
    assert certify(p, 1 - correct) is None


def test_a_threshold_that_too_few_reach_is_never_tested():
    # The single error at 0.999 would fail a test of its own; the sequence starts further down, with 200 accepted.
    p = np.repeat([0.999, 0.95], [1, 199])
    assert certify(p, np.arange(200) > 0) == Certificate(highest=0.95, lowest=0.5)


def test_at_least_stays_on_certified_grid_points():
    certificate = Certificate(highest=0.97, lowest=0.9)
    assert certificate.at_least(0.3) == 0.9
    assert certificate.at_least(0.9) == 0.9
    assert certificate.at_least(0.945) == 0.95
    assert certificate.at_least(0.98) is None


def test_documents_of_equal_mentions_count_once():
    # 20 documents of 10 equal answers: 200 mentions, but no more than 20 independent ones.
    p, groups = np.full(200, 0.97), np.repeat(np.arange(20), 10)
    correct = (groups > 0).astype(int)
    assert certified_threshold(p, correct, target=0.9) == 0.5
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
    assert certify(p, correct) == Certificate(highest=0.97, lowest=0.51)


def test_documents_of_one_mention_change_nothing():
    rng = np.random.default_rng(0)
    p = rng.beta(12, 0.6, 2000)
    correct = rng.random(2000) < p
    assert certify(p, correct) == certify(p, correct, groups=np.arange(2000))


def broken_promises(draws: int, correlated: bool, by_document: bool, target: float = 0.95) -> int:
    """How often a certified threshold's true precision is below the target, on a model that is overconfident."""
    rng = np.random.default_rng(7)
    broken = 0
    for _ in range(draws):
        groups = np.repeat(np.arange(120), 10)
        p = rng.uniform(0.5, 1.0, 1200)
        truth = 1 - 0.28 * (1 - p)  # mean precision at p >= t: 1 - 0.14 (1 - t), below 0.95 for t < 0.643
        if correlated:
            # Most of a document's mentions share one draw of luck.
            luck = np.where(rng.random(1200) < 0.8, rng.random(120)[groups], rng.random(1200))
        else:
            luck = rng.random(1200)
        threshold = certified_threshold(p, luck < truth, target, groups=groups if by_document else None)
        broken += threshold is not None and 1 - 0.14 * (1 - threshold) < target
    return broken


def test_the_promise_is_broken_in_five_percent_at_most():
    # 300 draws: more than 25 breaks have probability 0.3 % if the rate is 5 %.
    assert 1 <= broken_promises(300, correlated=False, by_document=False) <= 25


def test_correlated_errors_break_the_plain_promise_but_not_the_one_by_document():
    assert broken_promises(300, correlated=True, by_document=False) > 40
    assert broken_promises(300, correlated=True, by_document=True) <= 25


def test_power_on_a_calibrated_model():
    rng = np.random.default_rng(0)
    p = rng.beta(6, 0.8, 5000)
    threshold = certified_threshold(p, rng.random(5000) < p)
    oracle = max(t for t in CERTIFICATION_GRID if p[p >= t].mean() < 0.95)
    assert oracle < threshold <= oracle + 0.06
