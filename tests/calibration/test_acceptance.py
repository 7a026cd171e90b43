"""Acceptance thresholds for a precision or a cost; those for F1 are tested with the thresholds of types."""

import numpy as np
import pytest

from umls_reranker.calibration.acceptance import AcceptanceRule
from umls_reranker.core.errors import UserError

TOP_P = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
CORRECT = np.array([1, 1, 0, 1, 1, 0])


def threshold(top_p=TOP_P, correct=CORRECT, **rule) -> float | None:
    nothing = np.empty(0)
    return AcceptanceRule(**rule).threshold(nothing, nothing, top_p, correct)


def test_precision_is_reached_at_the_lowest_threshold_there_is():
    # Right among the first k: 1, 1, 2/3, 3/4, 4/5, 4/6.
    assert threshold(method="precision", precision=1.0) == pytest.approx(0.75)
    assert threshold(method="precision", precision=0.8) == pytest.approx(0.45)
    assert threshold(method="precision", precision=0.6) == 0.4


def test_ties_are_accepted_together():
    tied = np.array([0.9, 0.9, 0.5])
    assert threshold(tied, np.array([1, 0, 1]), method="precision", precision=1.0) is None
    assert threshold(tied, np.array([1, 0, 1]), method="precision", precision=0.5) == 0.5


def test_cost_by_hand():
    # At equal costs: 4 right and 2 wrong; accepting five costs 1, accepting two costs 2.
    assert threshold(method="cost") == pytest.approx(0.45)
    # A wrong answer of three: accepting two costs 2, five 3.
    assert threshold(method="cost", wrong_cost=3.0) == pytest.approx(0.75)
    # Missing nothing is worth all errors.
    assert threshold(method="cost", missed_cost=100.0) == pytest.approx(0.45)


def test_where_every_answer_costs_more_than_silence_there_is_no_threshold():
    assert threshold(np.array([0.9, 0.8]), np.array([0, 1]), method="cost", wrong_cost=5.0) is None
    assert threshold(np.array([0.9]), np.array([0]), method="cost") is None
    assert threshold(np.empty(0), np.empty(0), method="precision") is None


def test_cost_of_calibrated_probabilities_is_met_at_its_ratio():
    rng = np.random.default_rng(0)
    p = np.sort(rng.random(200_000))[::-1]
    found = threshold(p, rng.random(200_000) < p, method="cost", wrong_cost=3.0, missed_cost=1.0)
    assert found == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"method": "luck"}, "accept_by: 'luck' is unknown; choose from f1, precision, cost"),
        ({"precision": 0.0}, "accept_precision"),
        ({"wrong_cost": -1.0}, "must be above 0"),
    ],
)
def test_a_rule_that_makes_no_sense_is_a_user_error(rule, message):
    with pytest.raises(UserError, match=message):
        AcceptanceRule(**rule)
