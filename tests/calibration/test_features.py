"""Features that need neither training mentions nor an index: positions in a list, words, and
CUIs.
"""

from dataclasses import replace

import numpy as np
import pytest
from list_fixtures import make_lists

from umls_reranker.calibration.features import default_features, feature_table
from umls_reranker.calibration.qualifiers import qualifier_agreement
from umls_reranker.calibration.string_counts import StringCounts
from umls_reranker.vocab.text import PAIRS_AT_ONCE, TEXTS_AT_ONCE, shared_trigrams


def column(
    name: str, mentions: list[str], candidates: list[list[tuple[str, str | None]]]
) -> np.ndarray:
    items = [[{"name": text, "cui": cui} for text, cui in listed] for listed in candidates]
    return feature_table(make_lists(mentions, items), StringCounts.fit([]), [name]).candidates[name]


def positions(*candidates: list[tuple[str, str | None]]) -> list[int]:
    values = column("list_position", ["m"] * len(candidates), list(candidates))
    return np.rint(np.exp(-values)).astype(int).tolist()


def test_positions_are_those_of_concepts_and_names():
    assert positions([("a", "C1"), ("b", "C2"), ("c", "C3")], [], [("c", "C3")]) == [1, 2, 3, 1]
    # Whether a concept comes with further names changes nothing for the others.
    assert positions([("a", "C1"), ("b", "C2"), ("a2", "C1"), ("c", "C3")]) == [1, 2, 1, 3]
    # The order of candidates that are called the same is chance.
    assert positions([("Cold", "C2"), ("cold", "C1"), ("flu", "C3")]) == [1, 1, 2]
    # Without CUIs the concept is the name.
    assert positions([("a", None), ("b", None), ("a", None)]) == [1, 2, 1]
    assert positions([]) == []


@pytest.mark.parametrize(
    ("mention", "name", "same"),
    [
        ("carcinomas", "Carcinoma", 1),
        ("antibodies", "antibody", 1),
        ("biological processes", "Process, Biological", 1),
        ("cell carcinoma", "Renal cell carcinoma", 0),
        ("gas", "ga", 0),
    ],
)
def test_same_words(mention, name, same):
    assert column("same_words", [mention], [[(name, "C1")]]).tolist() == [same]


def test_other_names_of_a_concept_count(tmp_path):
    names = ["heart attack", "COLD", "Gallstones"]
    counts = (
        StringCounts.fit([])
        .with_names(["C1", "C1", "C2"], names)
        .plus(StringCounts.fit([("m", "C1", [])]))
    )
    counts.save(tmp_path / "counts")
    # The third is a name of one word, in the plural; "COLD" is an acronym, not a name.
    mentions = ["Heart-attack", "attacks, heart", "gallstone", "heart", "cold"]
    lists = make_lists(mentions, [[{"name": "a", "cui": "C1"}, {"name": "b", "cui": "C2"}]] * 5)
    found = feature_table(
        lists, StringCounts.load(tmp_path / "counts"), ["exact_name", "same_words"]
    ).candidates
    assert np.flatnonzero(found["exact_name"]).tolist() == [0]
    assert np.flatnonzero(found["same_words"]).tolist() == [0, 2, 5]


def test_concepts_with_low_numbers_are_old():
    found = column(
        "concept_age",
        ["m"],
        [[("a", "c0004093"), ("b", "C5000000"), ("c", "HP:0000001"), ("d", None)]],
    )
    np.testing.assert_allclose(found, [-0.004093, -5, -1, -1])


def test_only_lists_of_users_count_by_position():
    lists = make_lists(["m"], [[{"name": "a", "cui": "C0000001", "letters_score": 1.0}]])
    assert {"list_position", "same_words", "concept_age"} < {*default_features(lists)}
    from_index = replace(lists, index_keys=["key"])
    assert {*default_features(lists)} - {*default_features(from_index)} == {"list_position"}


def test_ranks_are_by_the_score_in_any_order_and_equal_scores_share_the_first():
    lists = make_lists(
        ["m", "m", "m"], [[{"name": str(row)} for row in range(4)], [{"name": "a"}], []]
    )
    scores = {"forms": np.array([0.2, 0.9, 0.9, 0.1, np.nan])}
    ranks = feature_table(replace(lists, scores=scores), StringCounts.fit([])).candidates
    np.testing.assert_allclose(np.exp(-ranks["forms_rank"]), [3, 1, 1, 4, np.nan])
    assert np.isnan(ranks["lexical_rank"]).all()
    # Scores of an index are weighed themselves.
    assert "forms_rank" not in default_features(lists)


# How much mention and name have in common, letter by letter


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


def test_shares_are_of_a_candidate_and_its_own_mention():
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


def test_shares_of_trigrams_are_features_of_bare_lists():
    lists = make_lists(["Heart"], [[{"name": "HEART attack"}, {"name": "Arm"}]])
    columns = feature_table(lists, StringCounts.fit([])).candidates
    assert columns["mention_in_name"].tolist() == [1, 0]
    assert columns["name_in_mention"] == pytest.approx([5 / 11, 0])


# What contradicts a mention, and what only says more or less


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


def test_contradictions_are_of_a_candidate_and_its_own_mention():
    found = qualifier_agreement(
        ["left", "right"], ["left", "right"], np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0])
    )
    assert found.tolist() == [1, 0, 1, 0] and found.dtype == np.float64
    none = np.empty(0, np.int64)
    assert len(qualifier_agreement([], [], none, none)) == 0


def test_contradiction_is_a_feature_of_candidates():
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
