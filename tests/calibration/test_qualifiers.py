"""What contradicts a mention, and what only says more or less."""

import numpy as np
import pytest
from list_fixtures import make_lists

from umls_reranker.calibration.features import feature_table
from umls_reranker.calibration.qualifiers import OPPOSITES, WORDS, qualifier_agreement, qualifiers_of
from umls_reranker.calibration.string_counts import StringCounts

PAIR = np.array([0])


@pytest.mark.parametrize(
    ("mention", "name", "fits"),
    [
        ("High serum calcitriol", "Low serum calcitriol", 0),
        ("hypertension", "Hypotension", 0),
        ("Chin with horizontal sulcus", "chin with vertical sulcus", 0),
        ("VSD with pulmonary stenosis", "VSD without pulmonary stenosis", 0),
        ("wedging of T11", "Wedging of T12", 0),
        ("type II diabetes", "Diabetes type 1", 0),
        ("Left arm", "RIGHT ARM", 0),
        # One of them says more than the other, the same, or both sides.
        ("Diabetes type II", "diabetes type 2", 1),
        ("spastic quadriplegia", "Progressive spastic quadriplegia", 1),
        ("arm", "Left arm", 1),
        ("left and right arm", "Left arm", 1),
        ("stage 2 grade 3", "stage 2", 1),
        ("raised sodium", "Increased sodium", 1),
        ("", "", 1),
        (f"case {'1' * 5000}", f"case {'1' * 5000}", 1),
        (f"case {'1' * 5000}", "case 2", 0),
    ],
)
def test_contradictions(mention, name, fits):
    assert qualifier_agreement([mention], [name], PAIR, PAIR).tolist() == [fits]
    assert qualifier_agreement([name], [mention], PAIR, PAIR).tolist() == [fits]


def test_each_candidate_is_compared_with_its_own_mention():
    found = qualifier_agreement(["left", "right"], ["left", "right"], np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0]))
    assert found.tolist() == [1, 0, 1, 0] and found.dtype == np.float64
    none = np.empty(0, np.int64)
    assert len(qualifier_agreement([], [], none, none)) == 0


def test_long_texts_are_not_remembered():
    before = len(qualifiers_of)
    qualifier_agreement([f"{'left ' * 1000}{number}" for number in range(3)], ["arm"], PAIR, PAIR)
    assert len(qualifiers_of) <= before + 1


def test_pairs_of_opposites_have_a_bit_each():
    pairs = OPPOSITES.replace("\n ", " ").strip().splitlines()
    assert len(pairs) <= 32 and all(line.count("|") == 1 for line in pairs)
    assert max(WORDS.values()) < 1 << 64


def test_it_is_a_feature_of_candidates():
    lists = make_lists(["acute pain"], [[{"name": "Chronic pain"}, {"name": "Pain"}]])
    assert feature_table(lists, StringCounts.fit([])).candidates["qualifier_agreement"].tolist() == [0, 1]


def test_words_that_only_begin_like_a_prefix_say_nothing():
    pair = np.array([0])
    for mention, name in (
        ("low blood pressure on standing", "postural hypotension"),
        ("raised intracranial pressure after surgery", "postoperative intracranial hypertension"),
        ("increased pituitary size", "enlarged hypophysis"),
    ):
        assert qualifier_agreement([mention], [name], pair, pair)[0] == 1, (mention, name)
    assert qualifier_agreement(["prenatal onset"], ["postnatal onset"], pair, pair)[0] == 0
