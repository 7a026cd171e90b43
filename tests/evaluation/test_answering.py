import numpy as np
import pytest
from outcome_fixtures import make_outcomes

from umls_reranker.evaluation.figures import answering_metrics
from umls_reranker.evaluation.linking import Documents


def measured(outcomes):
    return answering_metrics(outcomes, Documents.of(outcomes.document, resamples=50))


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
    report = measured(outcomes)
    assert values(report) == {
        "answering": [pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3)],
        "abstaining": [pytest.approx(1 / 2), pytest.approx(1 / 2), pytest.approx(1 / 2)],
        "correct_answers": [pytest.approx(1 / 3), pytest.approx(1 / 3), pytest.approx(1 / 3)],
    }
    assert [report["correct_answers"][count] for count in ("true_positives", "predicted", "actual")] == [1, 3, 3]


def test_a_model_that_never_answers_has_no_precision():
    report = measured(make_outcomes(20, accepted=np.zeros(20, bool)))
    assert np.isnan(report["answering"]["precision"]["value"]) and report["answering"]["recall"]["value"] == 0.0
    assert report["abstaining"]["recall"]["value"] == 1.0


def test_intervals_hold_the_value():
    for part in measured(make_outcomes()).values():
        for figure in (part["precision"], part["recall"], part["f1"]):
            assert figure["low"] <= figure["value"] <= figure["high"]
