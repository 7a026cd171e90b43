"""Features that need neither training mentions nor an index: positions in a list, words, and
CUIs.
"""

from dataclasses import replace

import numpy as np
import pytest
from list_fixtures import make_lists

from umls_reranker.calibration.features import default_features, feature_table
from umls_reranker.calibration.string_counts import StringCounts


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
