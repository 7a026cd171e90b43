"""Fusion of features: exact probabilities, fitting, order, and writing to and reading from JSON."""

import numpy as np
import pytest

from umls_reranker.calibration.features import FeatureTable
from umls_reranker.calibration.fusion import FeatureFusion
from umls_reranker.calibration.logistic import conditional_log_odds, sigmoid
from umls_reranker.core.errors import UserError

OFFSETS = np.array([0, 2, 2, 5])
CANDIDATES = {
    "cross_encoder": np.array([1.0, 0.0, 2.0, -1.0, 2.0]),
    "exact_name": np.array([1.0, 0, 0, 0, 1]),
}
LISTS = {"string_count": np.array([0.0, 1.0, 2.0]), "seen_string": np.zeros(3)}


def table(candidates=CANDIDATES, lists=LISTS, offsets=OFFSETS, concepts=None) -> FeatureTable:
    """Candidates of different concepts, unless given."""
    m = offsets[-1]
    return FeatureTable(candidates, lists, offsets, np.arange(m) if concepts is None else concepts)


def fusion(**changes) -> FeatureFusion:
    weights = {"cross_encoder": 0.5, "exact_name": 1.0}
    state = {"weights": weights, "seen_weights": weights, "nil_weights": {"string_count": -0.5}}
    return FeatureFusion.from_dict(
        state | {"nil_intercept": 0.25, "top_candidate_bonus": 0.0} | changes
    )


def fit(candidates, lists, offsets, gold, *options) -> FeatureFusion:
    return FeatureFusion.fit(list(candidates), table(candidates, lists, offsets), gold, *options)


def probabilities(fitted: FeatureFusion, features: FeatureTable) -> np.ndarray:
    utility = fitted.utilities(features)
    return sigmoid(conditional_log_odds(utility, features.offsets, features.concepts))


def test_probabilities_by_hand():
    utility = [0.5 * 1 + 1, 0.0, 0.5 * 2, -0.5, 0.5 * 2 + 1]
    first = np.exp(0.25) + np.exp(utility[0]) + np.exp(utility[1])
    last = np.exp(0.25 - 1.0) + np.exp(utility[2:]).sum()
    expected = np.exp(utility) / [first, first, last, last, last]
    found = probabilities(fusion(), table())
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_two_names_of_one_concept_do_not_share_its_probability():
    once = probabilities(fusion(), table())
    doubled = {name: np.append(column, column[4]) for name, column in CANDIDATES.items()}
    twice = probabilities(
        fusion(), table(doubled, LISTS, np.array([0, 2, 2, 6]), np.array([0, 1, 2, 3, 4, 4]))
    )
    np.testing.assert_allclose(twice, [*once, once[4]], rtol=1e-12)


def simulated(n=3_000, size=4, seed=0):
    """Lists whose gold concept, or none, is drawn from a conditional logit of known weights."""
    rng = np.random.default_rng(seed)
    offsets = np.arange(n + 1) * size
    candidates = {
        "cross_encoder": rng.normal(1, 2, n * size),
        "lexical": rng.normal(0, 1, n * size),
    }
    lists = {"string_count": rng.normal(0, 1, n), "seen_string": np.zeros(n)}
    utility = (0.8 * candidates["cross_encoder"] + 1.5 * candidates["lexical"]).reshape(n, size)
    none = 0.5 - 0.7 * lists["string_count"]
    noise = rng.gumbel(size=(n, size + 1))
    choice = np.argmax(np.column_stack([none, utility]) + noise, axis=1)
    return candidates, lists, offsets, choice - 1


def test_fit_finds_the_weights_that_made_the_data():
    fitted = fit(*simulated())
    assert fitted.weights["cross_encoder"] == pytest.approx(0.8, abs=0.06)
    assert fitted.weights["lexical"] == pytest.approx(1.5, abs=0.1)
    assert fitted.nil_weights["string_count"] == pytest.approx(-0.7, abs=0.15)
    assert fitted.nil_intercept == pytest.approx(0.5, abs=0.2)


def test_candidates_with_utilities_of_their_own_leave_the_weights_of_the_others_as_they_are():
    candidates, lists, offsets, gold = simulated(n=6_000)
    whole = fit(candidates, lists, offsets, gold)
    # The last candidate of each list is not fitted on; what is known of it are its odds against
    # none.
    utility = whole.utilities(table(candidates, lists, offsets)).reshape(-1, 4)
    rest = {name: column.reshape(-1, 4)[:, :3].ravel() for name, column in candidates.items()}
    given = (rest, lists, np.arange(0, 18_001, 3), np.where(gold < 3, gold, -1), whole)
    pruned = fit(*given, np.exp(utility[:, 3]))
    forgotten = fit(*given)
    assert pruned.weights == pytest.approx(whole.weights, abs=0.05)
    assert pruned.nil_intercept == pytest.approx(whole.nil_intercept, abs=0.1)
    assert forgotten.nil_intercept > whole.nil_intercept + 0.3


@pytest.mark.parametrize("value", [0.0, 0.1, np.log(0.1)])
def test_a_feature_that_never_varies_has_no_weight(value):
    candidates, lists, offsets, gold = simulated(n=300)
    candidates["mention_concept_prior"] = np.full(offsets[-1], value)
    fitted = fit(candidates, lists, offsets, gold)
    assert (
        fitted.weights["mention_concept_prior"] == fitted.seen_weights["mention_concept_prior"] == 0
    )
    assert abs(fitted.nil_weights["seen_string"]) < 10


def test_the_first_candidate_of_a_list_and_its_equals_get_the_lead():
    leading = fusion(top_candidate_bonus=2.0)
    gained = leading.utilities(table()) - fusion().utilities(table())
    np.testing.assert_allclose(gained, [2, 0, 0, 0, 2], atol=1e-12)
    equal = {name: np.zeros(5) for name in CANDIDATES}
    found = probabilities(leading, table(equal))
    assert found[0] == pytest.approx(found[1]) and found[2:] == pytest.approx(found[2])


def test_first_candidates_are_right_as_often_as_fitted_where_lists_are_of_two_kinds():
    """In half of the lists the features decide, in the others nothing does."""
    candidates, lists, offsets, gold = simulated(n=6_000)
    rng = np.random.default_rng(7)
    gold = np.where(rng.random(len(gold)) < 0.5, gold, rng.integers(0, 4, len(gold)))
    fitted = fit(candidates, lists, offsets, gold)
    p = probabilities(fitted, table(candidates, lists, offsets)).reshape(-1, 4)
    assert fitted.bonus > 0.3
    assert p.max(axis=1).mean() == pytest.approx((p.argmax(axis=1) == gold).mean(), abs=1e-6)


def test_strings_that_calibration_never_saw_in_training_lend_their_weights_to_the_others():
    candidates, lists, offsets, gold = simulated()
    fitted = fit(candidates, lists, offsets, gold)
    for name, weight in fitted.weights.items():
        assert fitted.seen_weights[name] == pytest.approx(weight, rel=0.05)


def test_a_feature_against_a_candidate_gets_no_weight():
    candidates, lists, offsets, gold = simulated()
    candidates["retrieval"] = -candidates["lexical"]
    del candidates["lexical"]
    assert fit(candidates, lists, offsets, gold).weights["retrieval"] == 0


@pytest.mark.parametrize("bonus", [0.0, 1.5])
def test_a_better_candidate_never_loses(bonus):
    rng = np.random.default_rng(3)
    for _ in range(20):
        column = rng.normal(size=5)
        better = column.copy()
        better[3] += rng.exponential()
        given = fusion(top_candidate_bonus=bonus)
        before = probabilities(given, table(CANDIDATES | {"cross_encoder": column}))
        after = probabilities(given, table(CANDIDATES | {"cross_encoder": better}))
        assert after[3] > before[3] and (after[[2, 4]] <= before[[2, 4]]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"cross_encoder": -1.0}}, "negative or not finite"),
        (
            {"weights": {"horoscope": 1.0}, "seen_weights": {"horoscope": 1.0}},
            "unknown feature horoscope",
        ),
        ({"nil_intercept": float("nan")}, "negative or not finite"),
        ({"nil_intercept": None}, "damaged"),
    ],
)
def test_a_damaged_fusion_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        fusion(**changes)


def test_lists_without_any_gold_concept_are_refused():
    with pytest.raises(UserError, match="no calibration mention"):
        fit(CANDIDATES, LISTS, OFFSETS, np.array([-1, -1, -1]))


def test_a_feature_that_is_not_finite_is_named():
    broken = CANDIDATES | {"exact_name": np.array([0, 0, np.nan, 0, 0])}
    with pytest.raises(UserError, match="feature 'exact_name'"):
        fit(broken, LISTS, OFFSETS, np.array([0, -1, 1]))
