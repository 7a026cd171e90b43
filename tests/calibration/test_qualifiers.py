"""What contradicts a mention, and what only says more or less."""

import numpy as np
import pytest
from list_fixtures import make_lists

from umls_reranker.calibration.features import feature_table
from umls_reranker.calibration.qualifiers import qualifier_agreement
from umls_reranker.calibration.string_counts import StringCounts

PAIR = np.array([0])


@pytest.mark.parametrize(
    ("mention", "name", "fits"),
    [
        ("High serum calcitriol", "Low serum calcitriol", 0),
        ("hypertension", "Hypotension", 0),
        ("VSD with pulmonary stenosis", "VSD without pulmonary stenosis", 0),
        ("wedging of T11", "Wedging of T12", 0),
        ("type II diabetes", "Diabetes type 1", 0),
        ("Left arm", "RIGHT ARM", 0),
        # One of them says more than the other, the same, or both sides.
        ("Diabetes type II", "diabetes type 2", 1),
        ("spastic quadriplegia", "Progressive spastic quadriplegia", 1),
        ("arm", "Left arm", 1),
        ("left and right arm", "Left arm", 1),
        ("raised sodium", "Increased sodium", 1),
        (f"case {'1' * 5000}", "case 2", 0),
    ],
)
def test_contradictions(mention, name, fits):
    assert qualifier_agreement([mention], [name], PAIR, PAIR).tolist() == [fits]
    assert qualifier_agreement([name], [mention], PAIR, PAIR).tolist() == [fits]


def test_each_candidate_is_compared_with_its_own_mention():
    found = qualifier_agreement(
        ["left", "right"], ["left", "right"], np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0])
    )
    assert found.tolist() == [1, 0, 1, 0] and found.dtype == np.float64
    none = np.empty(0, np.int64)
    assert len(qualifier_agreement([], [], none, none)) == 0


def test_it_is_a_feature_of_candidates():
    lists = make_lists(["acute pain"], [[{"name": "Chronic pain"}, {"name": "Pain"}]])
    assert feature_table(lists, StringCounts.fit([])).candidates[
        "qualifier_agreement"
    ].tolist() == [0, 1]


def test_words_that_only_begin_like_a_prefix_say_nothing():
    pairs = {
        "low blood pressure on standing": "postural hypotension",
        "prenatal onset": "postnatal onset",
    }
    place = np.arange(2)
    assert qualifier_agreement([*pairs], [*pairs.values()], place, place).tolist() == [1, 0]
