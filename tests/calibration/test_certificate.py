import importlib.util
from pathlib import Path

import numpy as np
import pytest
from outcome_fixtures import make_outcomes
from scipy.stats import beta, binom

from umls_reranker import UserError, certify
from umls_reranker.calibration.certificate import GRID, clopper_pearson_lower, doubt, find_certificate

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "certificate.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("certificate_benchmark", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_clopper_pearson_is_the_exact_bound():
    assert clopper_pearson_lower(59, 59) == pytest.approx(0.05 ** (1 / 59))
    assert clopper_pearson_lower(0, 10) == 0.0
    np.testing.assert_allclose(clopper_pearson_lower([90, 95], [100, 100], 0.99), beta.ppf(0.01, [90, 95], [11, 6]))
    # At the bound itself, as many successes or more have probability 5 %.
    assert binom.sf(89, 100, clopper_pearson_lower(90, 100)) == pytest.approx(0.05)


@pytest.mark.parametrize(("n", "right"), [(59, 59), (200, 198), (400, 390), (1000, 965)])
def test_doubt_of_single_mentions_is_the_binomial_test(n, right):
    assert doubt(np.ones(n), np.arange(n) < right) == pytest.approx(binom.sf(right - 1, n, 0.95), rel=0.01)


def test_doubt_is_the_chance_of_reweighted_documents():
    rng = np.random.default_rng(0)
    size = rng.integers(1, 30, 150)
    right = rng.binomial(size, 0.98)
    added = np.sum(size**2.5) / np.sum(size**1.5)
    surplus = np.append(right - 0.95 * size, -0.95 * added)
    simulated = np.mean(rng.exponential(size=(200_000, 151)) @ surplus <= 0)
    assert simulated > 0.01
    assert doubt(size, right) == pytest.approx(simulated, rel=0.05)


def test_doubt_where_the_precision_seen_is_not_above_the_target():
    assert doubt(np.full(100, 10), np.full(100, 9)) == 1.0
    assert doubt(np.empty(0), np.empty(0)) == 1.0
    # Hardly above it, with the document that is added: 1,000 x 0.95 of 1,019 and a little more.
    assert doubt(np.ones(1000), np.arange(1000) < 951) == pytest.approx(0.5, abs=0.05)


def test_right_documents_are_worth_their_number_and_not_their_mentions():
    assert doubt(np.full(59, 40), np.full(59, 40)) == pytest.approx(doubt(np.ones(59), np.ones(59)))
    assert doubt(np.full(58, 40), np.full(58, 40)) > 0.05
    # One document as large as all others together leaves little.
    size = np.append(np.full(200, 10), 2000)
    assert doubt(size, size) > 0.2 > 0.001 > doubt(size[:-1], size[:-1])


def test_fifty_nine_without_an_error_is_the_least():
    assert find_certificate(np.full(59, 0.97), np.ones(59)).threshold == pytest.approx(0.97, abs=0.002)
    assert find_certificate(np.full(58, 0.97), np.ones(58)).threshold is None
    assert find_certificate(np.full(59, 0.97), np.arange(59) > 0).threshold is None


def test_too_few_documents_say_how_many_are_needed():
    found = find_certificate(np.full(1200, 0.99), np.ones(1200), np.arange(1200) // 40)
    assert found.threshold is None and (found.documents, found.documents_needed) == (pytest.approx(30), 59)
    assert str(found) == (
        "not certified: the calibration documents count for 30 of equal size, and 59 or more are needed; "
        "about 29 more documents like these would do"
    )
    assert "299 or more" in str(find_certificate(np.full(200, 0.999), np.ones(200), target_precision=0.99))
    assert str(find_certificate(np.full(200, 0.97), np.zeros(200))) == (
        "not certified: too many of the most probable answers are wrong; more of the same would not help"
    )
    assert str(find_certificate(np.full(100, 0.97), np.arange(100) >= 4)).startswith(
        "not certified: with the errors seen among the most probable answers there are too few documents; about "
    )
    assert str(find_certificate(np.empty(0), np.empty(0))).startswith(
        "not certified: the calibration documents count for 0"
    )


def test_thresholds_are_tested_downward_until_one_fails():
    # 400 right at 0.97, 40 wrong at 0.9; then 4,000 right, which do not bring the sequence back to life.
    p = np.repeat([0.97, 0.9, 0.8], [400, 40, 4000])
    threshold = find_certificate(p, np.repeat([1, 0, 1], [400, 40, 4000])).threshold
    assert threshold == pytest.approx(0.97, abs=0.002)
    assert find_certificate(p, np.ones(4440)).threshold == pytest.approx(0.8, abs=0.01)


def test_labels_have_no_say_in_where_the_sequence_starts():
    # The most powerful start by scores is 0.97; where it fails nothing is certified, whatever lies above it.
    p = np.repeat([0.999, 0.97], [100, 5000])
    assert find_certificate(p, p > 0.98).threshold is None
    assert find_certificate(p, p < 0.98).threshold == pytest.approx(0.97, abs=0.002)


def test_the_sequence_does_not_start_where_too_few_documents_are_left():
    # By scores alone 0.999 would start with more power, but 58 documents can certify nothing.
    p = np.repeat([0.999, 0.94], [58, 200])
    assert find_certificate(p, np.ones(258)).threshold == pytest.approx(0.94, abs=0.002)


def test_a_score_on_a_threshold_reaches_it():
    found = find_certificate(np.full(59, GRID[100]), np.ones(59))
    assert (found.threshold, found.share) == (GRID[100], 1.0)


def test_thresholds_are_of_the_fixed_grid():
    p = np.random.default_rng(0).beta(6, 0.8, 3000)
    correct = np.random.default_rng(1).random(3000) < p
    threshold = find_certificate(p, correct).threshold
    assert threshold in GRID
    assert GRID[-1] == 0.5 and GRID[0] > 0.9998 and np.all(np.diff(GRID) < 0)
    # Another machine's rounding moves no threshold.
    assert find_certificate(p + 1e-9, correct).threshold == threshold


def test_mentions_without_candidates_are_never_accepted():
    p = np.append(np.full(59, 0.97), np.nan)
    assert find_certificate(p, np.append(np.ones(59), 0)).threshold == pytest.approx(0.97, abs=0.002)


def test_documents_of_equal_mentions_count_once():
    # 100 documents of 10 equal answers, 3 of them wrong: plenty for 1,000 mentions, too many for 100.
    p, documents = np.full(1000, 0.97), np.arange(1000) // 10
    correct = documents >= 3
    assert find_certificate(p, correct).threshold is not None
    assert find_certificate(p, correct, documents).threshold is None


def test_documents_of_one_mention_change_nothing():
    rng = np.random.default_rng(0)
    p = rng.beta(12, 0.6, 2000)
    correct = rng.random(2000) < p
    assert find_certificate(p, correct) == find_certificate(p, correct, np.arange(2000)[::-1])


def test_scores_alone_get_cut_off_share_and_precision():
    # 100 documents with two answers at 0.97, of which the last is wrong in five documents, and one at 0.6.
    scores, documents = [0.97, 0.97, 0.6] * 100, np.repeat(np.arange(100), 3)
    right = np.array([[True, number >= 1, number % 2 == 0] for number in range(100)]).ravel()
    found = certify(scores, right, documents)
    assert found.threshold == pytest.approx(0.97, abs=0.002)
    assert (found.share, found.precision, found.documents_more) == (pytest.approx(2 / 3), pytest.approx(0.995), 0)
    for names in ([f"d{number}" for number in documents], [("d", number) for number in documents]):
        assert certify(list(scores), right.tolist(), names) == found


def test_the_promise_is_the_one_that_was_asked_for():
    answers = [0.97] * 100, [True] * 100, range(100)
    assert certify(*answers).threshold is not None
    # Without an error 299 documents are needed for 99 %, and 135 for a confidence of 99.9 %.
    for options, needed in (({"target_precision": 0.99}, 299), ({"confidence": 0.999}, 135)):
        found = certify(*answers, **options)
        assert found.threshold is None and found.documents_needed == needed


def test_zero_and_one_are_scores():
    found = certify([1.0] * 60 + [0.0], [True] * 60 + [False], range(61))
    assert (found.threshold, found.share) == (GRID[0], pytest.approx(60 / 61))


@pytest.mark.parametrize(("documents", "wrong"), [(20, 0), (40, 1), (80, 3), (100, 4)])
def test_documents_more_are_about_what_makes_a_certificate(documents, wrong):
    def found(times):
        correct = np.tile(np.arange(documents) >= wrong, times)
        return find_certificate(np.full(len(correct), 0.97), correct)

    assert found(1).threshold is None
    more = found(1).documents_more
    enough = next(times for times in range(2, 100) if found(times).threshold is not None)
    assert (enough - 1.6) * documents < documents + more < (enough + 0.6) * documents


def test_documents_without_a_sure_answer_count_among_those_that_are_needed():
    sure = certify(np.full(30, 0.97), np.ones(30), np.arange(30)).documents_more
    scores = np.repeat([0.97, 0.2], [30, 300])
    found = certify(scores, scores > 0.5, np.arange(330)).documents_more
    assert sure > 1 and found == pytest.approx(11 * sure, abs=11)


def test_more_documents_of_the_same_do_not_help_below_the_target():
    correct = np.arange(400) % 10 > 0
    assert certify(np.full(400, 0.9), correct, np.arange(400)).documents_more is None


@pytest.mark.parametrize(
    ("scores", "correct", "documents", "options", "reason"),
    [
        (
            [0.9, float("nan")],
            [1, 1],
            [1, 2],
            {},
            r"row 1: the score nan is no probability; leave out .* without an answer",
        ),
        ([0.9, 7.5], [1, 1], [1, 2], {}, r"row 1: the score 7.5 is no probability; .*map scores of another scale"),
        ([0.9, -0.1], [1, 1], [1, 2], {}, r"row 1: the score -0.1 is no probability"),
        ([0.9, None], [1, 1], [1, 2], {}, r"row 1: the score None"),
        ([0.9, "0.9"], [1, 1], [1, 2], {}, r"row 1: the score '0.9'"),
        ([0.9, 0.9], [1, float("nan")], [1, 2], {}, r"row 1: correct is nan; give True or False"),
        ([0.9, 0.9], [1, "C0009443"], [1, 2], {}, r"row 1: correct is 'C0009443'"),
        ([0.9, 0.9], [1, -1], [1, 2], {}, r"row 1: correct is -1; give True or False"),
        ([0.9, 0.9], [1, 1], [1, None], {}, r"row 1: the document is missing"),
        ([0.9, 0.9], [1, 1], [1, float("nan")], {}, r"row 1: the document is missing"),
        ([0.9, 0.9], [1], [1, 2], {}, r"2 scores, 1 correct, 2 documents: give one of each"),
        ([0.9, 0.9], [1, 1], ["a", "a"], {}, r"all mentions are of 1 document; .*cannot be learned from one"),
        ([], [], [], {}, "there are no mentions"),
        ([0.9, 0.9], [1, 1], [1, 2], {"target_precision": 95}, r"target_precision: 95 must lie between 0 and 1"),
        ([0.9, 0.9], [1, 1], [1, 2], {"target_precision": 0}, r"target_precision: 0 must lie between 0 and 1"),
        ([0.9, 0.9], [1, 1], [1, 2], {"confidence": 1.0}, r"confidence: 1.0 must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_certified_is_one_sentence(scores, correct, documents, options, reason):
    with pytest.raises(UserError, match=reason) as found:
        certify(scores, correct, documents, **options)
    assert "\n" not in str(found.value)


def test_the_promise_holds_in_every_regime(benchmark):
    # If 5 % were broken, more than 8.2 % of 400 draws would have probability 0.3 %.
    rng = np.random.default_rng(7)
    shares = {name: benchmark.broken(regime, 400, rng) for name, regime in benchmark.REGIMES.items()}
    assert {name: ours for name, (ours, _) in shares.items() if ours > 0.082} == {}
    # Taking mentions as independent breaks it where errors cluster.
    assert sum(theirs > 0.082 for _, theirs in shares.values()) >= 10


def test_coverage_on_calibrated_scores(benchmark):
    rng = np.random.default_rng(0)
    coverage, precision = np.transpose([benchmark.certified(benchmark.equal(300, 10), 0.2, rng) for _ in range(20)])
    assert np.median(coverage) > 0.35 and np.nanmin(precision) >= 0.94


def test_coverage_varies_little_from_draw_to_draw_of_a_recorded_run(benchmark, tmp_path):
    score = np.random.default_rng(0).beta(1.2, 0.5, 1600)
    path = tmp_path / "outcomes.parquet"
    rank = np.where(np.random.default_rng(1).random(1600) < score, 0, -1)
    make_outcomes(1600, per_document=1, score=score, rank=rank).save(path)
    coverage = benchmark.bootstrapped(path, np.random.default_rng(0))
    assert coverage.shape == (20,) and coverage.min() > 0.15 and coverage.std() < 0.1
    np.testing.assert_array_equal(coverage, benchmark.bootstrapped(path, np.random.default_rng(0)))


def test_missing_values_of_pandas_and_promises_that_are_no_numbers_are_one_sentence():
    import pandas as pd

    documents = pd.Series(["a", "b", None], dtype="string")
    with pytest.raises(UserError, match="row 2: the document is missing"):
        certify([0.9] * 3, [1] * 3, documents)
    with pytest.raises(UserError, match="target_precision: '0.95' must lie"):
        certify([0.9] * 2, [1] * 2, ["a", "b"], target_precision="0.95")
    with pytest.raises(UserError, match="documents: None is no list"):
        certify([0.9] * 2, [1] * 2, None)


def test_a_certificate_shows_what_it_covers():
    scores = np.array([0.98, 0.97, 0.6] * 100)
    found = certify(scores, scores > 0.9, np.arange(300))
    assert str(found) == f"{found.threshold:.3f}; 66.7% of these mentions, of which 100.0% are right"
