import numpy as np
import pytest
from outcome_fixtures import make_outcomes

from umls_reranker.evaluation.outcomes import answering_metrics

OPTIONS = {"resamples": 50, "seed": 0}


def values(report):
    return {name: [part[key]["value"] for key in ("precision", "recall", "f1")] for name, part in report.items()}


def test_the_three_readings_by_hand():
    # Answered: 0 rightly, 1 wrongly, 2 out of the dictionary. Not answered: 3 could have been, 4 is out of it.
    outcomes = make_outcomes(
        5,
        in_dictionary=np.array([True, True, False, True, False]),
        accepted=np.array([True, True, True, False, False]),
        rank=np.array([0, 3, -1, 0, -1]),
    )
    report = answering_metrics(outcomes, **OPTIONS)
    assert values(report) == {
        "answering": [pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3)],
        "abstaining": [pytest.approx(1 / 2), pytest.approx(1 / 2), pytest.approx(1 / 2)],
        "right_answers": [pytest.approx(1 / 3), pytest.approx(1 / 3), pytest.approx(1 / 3)],
    }
    assert [report["right_answers"][count] for count in ("hits", "given", "wanted")] == [1, 3, 3]


def test_a_model_that_never_answers_has_no_precision():
    report = answering_metrics(make_outcomes(20, accepted=np.zeros(20, bool)), **OPTIONS)
    assert np.isnan(report["answering"]["precision"]["value"]) and report["answering"]["recall"]["value"] == 0.0
    assert report["abstaining"]["recall"]["value"] == 1.0


def test_intervals_hold_the_value():
    for part in answering_metrics(make_outcomes(), **OPTIONS).values():
        for figure in (part["precision"], part["recall"], part["f1"]):
            assert figure["low"] <= figure["value"] <= figure["high"]
