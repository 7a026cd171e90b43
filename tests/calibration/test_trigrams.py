"""How much mention and name have in common, letter by letter."""

import numpy as np
import pytest
from list_fixtures import make_lists

from umls_reranker.calibration.features import feature_table
from umls_reranker.calibration.string_counts import StringCounts
from umls_reranker.vocab.text import PAIRS_AT_ONCE, TEXTS_AT_ONCE, shared_trigrams

PAIR = np.array([0])


@pytest.mark.parametrize(
    ("mention", "name", "of_mention", "of_name"),
    [
        # " he", "hea", "ear", "art", "rt " of both; " at", "att", "tta", "tac", "ack", "ck " of
        # one.
        ("heart", "heart attack", 1, 5 / 11),
        # The order of words does not matter, nor how often one comes.
        ("attack heart", "heart heart attack", 1, 1),
        # " fe", "fev", "eve", "ver" of both; "er " ends the first alone.
        ("fever", "feverish", 4 / 5, 4 / 8),
        ("日本", "日本語", 1 / 2, 1 / 3),
        ("heart", "", 0, 0),
        ("", "", 0, 0),
    ],
)
def test_shares_by_hand(mention, name, of_mention, of_name):
    found = shared_trigrams([mention], [name], PAIR, PAIR)
    assert [share.tolist() for share in found] == [
        [pytest.approx(of_mention)],
        [pytest.approx(of_name)],
    ]


def test_each_candidate_is_compared_with_its_own_mention():
    found = shared_trigrams(
        ["arm", "leg"], ["arm", "leg"], np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0])
    )
    assert [share.tolist() for share in found] == [[1, 0, 1, 0]] * 2
    none = np.empty(0, np.int64)
    assert [len(share) for share in shared_trigrams([], [], none, none)] == [0, 0]


def test_more_pairs_and_texts_than_fit_at_once():
    letters = np.random.default_rng(0).integers(97, 123, (TEXTS_AT_ONCE + 3, 8))
    names = ["".join(map(chr, row)) for row in letters]
    codes = np.arange(PAIRS_AT_ONCE + 5) % len(names)
    found = shared_trigrams(names[-1:], names, np.zeros(len(codes), np.int64), codes)[0]
    assert np.array_equal(found == 1, codes == len(names) - 1)
    assert np.array_equal(found[: len(names)], found[len(names) : 2 * len(names)])


def test_they_are_features_of_bare_lists():
    lists = make_lists(["Heart"], [[{"name": "HEART attack"}, {"name": "Arm"}]])
    columns = feature_table(lists, StringCounts.fit([])).candidates
    assert columns["mention_in_name"].tolist() == [1, 0]
    assert columns["name_in_mention"] == pytest.approx([5 / 11, 0])
