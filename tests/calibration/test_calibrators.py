import json

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from umls_reranker.calibration.calibrator_choice import choose_calibrator, cross_validated_losses
from umls_reranker.calibration.calibrators import (
    CALIBRATORS,
    MAX_STANDARD_SLOPE,
    BetaCalibrator,
    Calibrator,
    IsotonicCalibrator,
    PlattCalibrator,
    TemperatureCalibrator,
)
from umls_reranker.calibration.feature_table import FeatureTable
from umls_reranker.calibration.fusion import FeatureFusion
from umls_reranker.calibration.labelled_scores import LabelledScores
from umls_reranker.calibration.logistic import conditional_log_odds, fit_logistic, sigmoid
from umls_reranker.calibration.reliability import log_loss
from umls_reranker.core.errors import UserError

METHODS = list(CALIBRATORS)


def pairs(
    n: int = 3000, slope: float = 0.7, intercept: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(-3, 3, n)
    return logits, (rng.random(n) < 1 / (1 + np.exp(-(slope * logits + intercept)))).astype(int)


def test_platt_agrees_with_scikit_learn():
    logits, labels = pairs()
    reference = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=500)
    reference.fit(logits[:, None], labels)
    platt = PlattCalibrator().fit(LabelledScores(logits, labels))
    assert platt.slope == pytest.approx(reference.coef_[0, 0], abs=1e-7)
    assert platt.intercept == pytest.approx(reference.intercept_[0], abs=1e-7)


def test_temperature_finds_the_scale_and_is_bounded():
    logits, labels = pairs(50_000, slope=0.5, intercept=0.0)
    assert TemperatureCalibrator().fit(LabelledScores(logits, labels)).temperature == pytest.approx(
        2.0, rel=0.05
    )
    assert TemperatureCalibrator().fit(
        LabelledScores([-0.01, 0.01], [0, 1])
    ).temperature == pytest.approx(0.05)
    assert TemperatureCalibrator().fit(
        LabelledScores([9.0, 8.0, -9.0], [0, 1, 1])
    ).temperature == pytest.approx(20.0)


def test_isotonic_agrees_with_scikit_learn():
    logits, labels = pairs()
    reference = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(logits, labels)
    grid = np.linspace(-30, 30, 2001)
    np.testing.assert_allclose(
        IsotonicCalibrator().fit(LabelledScores(logits, labels))(grid),
        reference.predict(grid),
        atol=1e-12,
    )


def test_beta_equals_platt_where_slopes_agree_and_beats_it_where_not():
    x = np.linspace(-8, 8, 50)
    np.testing.assert_allclose(
        BetaCalibrator(0.7, 0.7, -0.4)(x), PlattCalibrator(0.7, -0.4)(x), atol=1e-12
    )
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, 20_000)
    truth = BetaCalibrator(1.2, 0.2, -0.5)(logits)
    labels = (rng.random(20_000) < truth).astype(int)
    beta = BetaCalibrator().fit(LabelledScores(logits, labels))
    platt = PlattCalibrator().fit(LabelledScores(logits, labels))
    assert (beta.a, beta.b, beta.c) == pytest.approx((1.2, 0.2, -0.5), abs=0.12)
    assert log_loss(beta(logits), labels) < log_loss(platt(logits), labels) - 0.005


@pytest.mark.parametrize("method", METHODS)
def test_json_round_trip_gives_equal_outputs(method):
    logits, labels = pairs(500)
    fitted = CALIBRATORS[method]().fit(LabelledScores(logits, labels))
    state = json.loads(json.dumps(fitted.to_dict()))
    loaded = Calibrator.from_dict(state)
    assert type(loaded) is CALIBRATORS[method]
    grid = np.linspace(-50, 50, 999).astype(np.float32)
    np.testing.assert_array_equal(loaded(grid), fitted(grid))
    assert loaded(grid).dtype == np.float64


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_separable_data_stay_finite_whatever_the_unit(scale):
    logits = scale * np.array([-3.0, -2.0, 2.0, 3.0])
    labels = np.array([0, 0, 1, 1])
    for method in ("platt", "beta"):
        p = CALIBRATORS[method]().fit(LabelledScores(logits, labels))(logits)
        assert np.all(np.isfinite(p)) and np.all(p[:2] < 1e-6) and np.all(p[2:] > 1 - 1e-6)
    platt = PlattCalibrator().fit(LabelledScores(logits, labels))
    assert 0 < platt.slope <= MAX_STANDARD_SLOPE / logits.std() * (1 + 1e-9)
    (middle,) = platt(np.zeros(1))
    assert middle == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([1.0], [1], "2 scored pairs"),
        ([1.0, 2.0], [1, 1], "no incorrect candidate"),
        ([1.0, 2.0], [0, 0], "no correct candidate"),
        ([1.0, np.nan], [0, 1], "1 of 2 logits are not finite"),
        ([0.5, 0.5], [0, 1], "all logits"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_unfit_data_are_a_user_error(method, logits, labels, message):
    with pytest.raises(UserError, match=message):
        CALIBRATORS[method]().fit(LabelledScores(logits, labels))


@pytest.mark.parametrize("method", ["platt", "beta", "isotonic"])
def test_scores_that_rank_backwards_are_a_user_error(method):
    with pytest.raises(UserError, match="gold concepts"):
        CALIBRATORS[method]().fit(LabelledScores([-2.0, -1.0, 0.0, 1.0, 2.0], [1, 1, 0, 1, 0]))


@pytest.mark.parametrize(
    "state",
    [
        {"method": "quadratic", "parameters": {}},
        {"method": [], "parameters": {}},
        {"method": "platt", "parameters": None},
        {"method": "platt", "parameters": {"slope": 1.0}},
        {"method": "platt", "parameters": {"slope": "x", "intercept": 0}},
        {"method": "platt", "parameters": {"slope": -1.0, "intercept": 0.0}},
        {"method": "beta", "parameters": {"a": 1.0, "b": -1.0, "c": 0.0}},
        {"method": "isotonic", "parameters": {"x": [1.0, 0.0], "y": [0.0, 1.0]}},
        {"method": "isotonic", "parameters": {"x": [], "y": []}},
    ],
)
def test_a_damaged_calibrator_or_one_that_turns_the_order_round_is_refused(state):
    with pytest.raises(UserError, match="calibrator.json"):
        Calibrator.from_dict(state)


@pytest.mark.parametrize("method", METHODS)
def test_infinite_scores_are_the_ends_and_no_number_is_an_error(method):
    fitted = CALIBRATORS[method]().fit(LabelledScores(*pairs(500)))
    p = fitted(np.array([-np.inf, -1e9, 1e9, np.inf]))
    np.testing.assert_array_equal(p[[0, 3]], p[[1, 2]])
    with pytest.raises(UserError, match="1 scores are not numbers"):
        fitted(np.array([0.0, np.nan]))


def test_auto_picks_the_lowest_cross_validated_loss():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, 6000)
    # Flat in the middle, with an intercept: neither Platt, temperature nor beta can follow.
    truth = np.select([logits < -2, logits < 2], [0.02, 0.5], 0.98)
    labels = (rng.random(6000) < truth).astype(int)
    groups = rng.integers(0, 40, 6000).astype(str)
    chosen, losses = choose_calibrator("auto", LabelledScores(logits, labels), groups)
    assert set(losses) == set(METHODS) - {"identity"}
    assert chosen == min(losses, key=losses.get) == "isotonic"
    logits, labels = pairs(6000)
    assert choose_calibrator("auto", LabelledScores(logits, labels), groups)[0] != "temperature"


def test_cross_validation_by_hand():
    # Two documents, two folds: each is scored by the fit on the other.
    logits = np.array([-1.0, 1.0, -2.0, -1.0, 2.0, 1.0])
    labels = np.array([0, 1, 0, 1, 1, 0])
    groups = np.array([0, 0, 1, 1, 1, 1])
    losses = cross_validated_losses(LabelledScores(logits, labels), groups)
    expected = 0.0
    for held_out in (groups == 0, groups == 1):
        fitted = TemperatureCalibrator().fit(LabelledScores(logits[~held_out], labels[~held_out]))
        eps = 0.5 / np.sum(~held_out)
        expected += log_loss(fitted(logits[held_out]), labels[held_out], eps) * np.sum(held_out) / 6
    assert losses["temperature"] == pytest.approx(expected, abs=1e-12)


def lists(
    n: int = 1500, size: int = 4, seed: int = 0, slope: float = 0.6, intercept: float = -1.0
) -> tuple:
    """Lists whose gold candidate, or none, is drawn from a choice with utilities slope * score +
    intercept.
    """
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 3, (n, size))
    noise = rng.gumbel(size=(n, size + 1))
    choice = (
        np.argmax(np.column_stack([np.zeros(n), slope * scores + intercept]) + noise, axis=1) - 1
    )
    labels = (np.arange(size) == choice[:, None]).astype(int)
    return scores.ravel(), labels.ravel(), np.arange(n + 1) * size


INSIDE_LISTS = [method for method, kind in CALIBRATORS.items() if kind.fits_lists]


def test_platt_inside_lists_finds_what_made_them():
    scores, labels, offsets = lists(6000)
    platt = PlattCalibrator().fit(LabelledScores(scores, labels, offsets=offsets))
    assert (platt.slope, platt.intercept) == (
        pytest.approx(0.6, abs=0.03),
        pytest.approx(-1.0, abs=0.06),
    )
    # Candidates without lists would need another line for the same lists.
    assert PlattCalibrator().fit(LabelledScores(scores, labels)).slope < 0.56


@pytest.mark.parametrize("method", INSIDE_LISTS)
def test_inside_lists_probabilities_sum_to_less_than_one_and_keep_the_order(method):
    scores, labels, offsets = lists()
    fitted = CALIBRATORS[method]().fit(LabelledScores(scores, labels, offsets=offsets))
    utility = fitted.log_odds(scores)
    p = sigmoid(conditional_log_odds(utility, offsets, np.arange(len(scores))))
    sums = np.add.reduceat(p, offsets[:-1])
    assert sums.max() <= 1
    order = np.argsort(scores, kind="stable")
    assert np.all(np.diff(utility[order]) >= 0)


def test_auto_inside_lists_goes_by_the_loss_of_lists():
    scores, labels, offsets = lists(800)
    documents = np.repeat(np.arange(800) // 20, 4)
    chosen, losses = choose_calibrator(
        "auto", LabelledScores(scores, labels, offsets=offsets), documents
    )
    assert set(losses) == set(INSIDE_LISTS)
    assert losses[chosen] == min(losses.values())
    assert losses["platt"] < losses["identity"]


def test_a_method_that_fails_on_a_fold_is_not_chosen():
    # Without document 0 the scores rank backwards, which temperature bears and Platt does not.
    scores = np.concatenate([np.linspace(-3, 3, 60), [-1.0, 1.0]])
    labels = np.concatenate([np.linspace(-3, 3, 60) > 0, [True, False]]).astype(int)
    groups = np.repeat([0, 1], [60, 2])
    chosen, losses = choose_calibrator("auto", LabelledScores(scores, labels), groups)
    assert (
        chosen == "temperature" and losses["platt"] == np.inf and np.isfinite(losses["temperature"])
    )


def test_nearly_separable_rows_are_fitted_to_the_end():
    # The logits and slopes of a beta calibrator on eight rows; clipped Newton steps end at (0, 30),
    # loss 0.194.
    logits = np.array([0.30812, 0.08319, 0.12675, -0.44606, 0.01291, 0.34350, 0.01022, 0.01614])
    labels = np.array([1.0, 1, 1, 0, 1, 1, 0, 1])
    features = np.column_stack([-np.logaddexp(0, -logits), np.logaddexp(0, logits)])
    features = np.column_stack([features / features.std(axis=0), np.ones(8)])
    theta = fit_logistic(features, labels, np.array([0, 0, -np.inf]), np.array([30, 30, np.inf]))
    margin = features @ theta
    assert np.mean(np.logaddexp(0, margin) - labels * margin) < 0.1603


def test_a_coefficient_that_the_ridge_draws_to_a_bound_lies_on_it():
    features = np.column_stack([np.zeros(6), np.ones(6), np.arange(-2.0, 4.0)])
    lower = np.array([0.0, -np.inf, -np.inf])
    upper = np.full(3, np.inf)
    ridge = 1e-5 * np.eye(3)
    labels = np.array([0.0, 0, 1, 0, 1, 1])
    found = fit_logistic(
        features, labels, lower, upper, ridge=ridge, start=np.array([1.0, 0.0, 0.0])
    )
    assert found[0] == 0.0 and found[2] > 1.0


@pytest.mark.parametrize("lower", [-3.0, 0.0])
def test_another_optimizer_does_no_better(lower):
    # Heavy tails, few rows, often separable: full Newton steps overshoot and bounds come and go.
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = rng.integers(4, 40)
        x = rng.standard_cauchy((n, 2))
        features = np.column_stack([x / x.std(axis=0), np.ones(n)])
        labels = (rng.random(n) < rng.choice([0.1, 0.5, 0.9])).astype(float)
        if labels.min() == labels.max():
            continue
        low = np.array([lower, lower, -np.inf])
        high = np.array([30.0, 30.0, np.inf])

        def loss(theta, features=features, labels=labels):
            return np.mean(np.logaddexp(0, features @ theta) - labels * (features @ theta))

        theta = fit_logistic(features, labels, low, high)
        bounds = [(lower, 30.0), (lower, 30.0), (None, None)]
        reference = minimize(
            loss, np.zeros(3), bounds=bounds, method="SLSQP", options={"ftol": 1e-14}
        )
        assert np.all(theta >= low) and np.all(theta <= high)
        assert loss(theta) <= reference.fun + 1e-7


# Fusion of features: exact probabilities, fitting, order, and writing to and reading from JSON


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
