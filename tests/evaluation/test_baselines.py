from dataclasses import replace

import numpy as np
from list_fixtures import make_lists

from umls_reranker.evaluation.baselines import (
    answer_ranks,
    baseline_answers,
    exact_match,
    most_frequent_cuis,
    notes_on_lists,
)

NAMES = {
    "C1": ["Cold", "Common cold"],
    "C2": ["Cold temperature"],
    "C3": ["COPD", "chronic obstructive-airway disease"],
}
TRAIN = [("Cold", "C2"), ("cold", "C1"), ("COLD", "C1"), ("copd", "C9"), ("flu", "C5"), ("flu", "C4")]


def test_the_most_frequent_concept_of_a_string():
    # "flu" is even: the smaller CUI wins, whatever the order of the mentions.
    assert most_frequent_cuis(["cold", "FLU", "asthma"], TRAIN) == ["C1", "C4", None]
    assert most_frequent_cuis(["flu"], reversed(TRAIN)) == ["C4"]


def test_exact_match_takes_the_first_bearer_of_the_name_and_asks_once_per_concept():
    asked = []

    def names_of(cui):
        asked.append(cui)
        return NAMES[cui]

    mentions = ["Chronic obstructive airway disease", "cold", "COMMON  cold", "asthma", "cold"]
    cuis = [["C1", "C3"], ["C2", "C1"], ["C2"], ["C1"], []]
    assert exact_match(mentions, cuis, names_of) == ["C3", "C1", None, None, None]
    assert sorted(asked) == ["C1", "C2", "C3"]


def test_baseline_answers():
    cuis = [["C2", "C1"], ["C3"], [], []]
    items = [[{"name": cui, "cui": cui} for cui in row] for row in cuis]
    lists = make_lists(["cold", "asthma", "copd", "ache"], items)
    assert baseline_answers(lists, NAMES.__getitem__, TRAIN) == {
        "exact_match": ["C1", None, None, None],
        "most_frequent_cui": ["C1", None, "C9", None],
        "most_frequent_cui_else_retriever": ["C1", "C3", "C9", None],
    }


def test_answer_ranks():
    ranks, answered = answer_ranks(["C1", None, "C2"], ["C1", "C1", "C3"])
    np.testing.assert_array_equal(ranks, [0, -1, -1])
    np.testing.assert_array_equal(answered, [True, False, True])


def test_notes_say_what_there_is_nothing_to_compare_with():
    bare = make_lists(["a", "b"], [["x"], []])
    scored = make_lists(["a"], [[{"name": "x", "retrieval_score": 0.5}]], types=["T047"])
    scored = replace(scored, scores={"retrieval": scored.scores["retrieval"]})
    (note,) = notes_on_lists(scored, has_dictionary=True)
    assert note.endswith("original order of the lists. Its confidence is their first score, retrieval_score.")
    first, *others = notes_on_lists(replace(bare, scores={}), has_dictionary=False)
    assert first == "The retriever alone is the original order of the lists."
    assert [note.split(",")[0].split(":")[0] for note in others] == [
        "The lists have no scores",
        "There is no dictionary",
        "The mentions have no semantic types",
    ]
