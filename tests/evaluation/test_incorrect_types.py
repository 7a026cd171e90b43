"""Mentions with incorrect types: which they get, what is scored again, and the figures."""

from collections import Counter

import numpy as np
import pytest
from list_fixtures import make_lists

from umls_reranker.calibration.decisions import Decisions, rank
from umls_reranker.calibration.features import feature_table
from umls_reranker.calibration.probabilities import Calibration
from umls_reranker.calibration.string_counts import StringCounts
from umls_reranker.calibration.thresholds import TIERS
from umls_reranker.data.semantic_types import SemanticType, TypeHierarchy
from umls_reranker.evaluation.answers import Answers
from umls_reranker.evaluation.inputs import LEVELS, incorrect_type_figures, replaced_types
from umls_reranker.evaluation.linking import Documents
from umls_reranker.models.cross_encoder import Scores
from umls_reranker.models.template import PairTemplate

HIERARCHY = TypeHierarchy(
    [
        SemanticType("T038", "Biologic Function", None, "PHYS"),
        SemanticType("T047", "Disease or Syndrome", "T038", "DISO"),
        SemanticType("T103", "Chemical", None, "CHEM"),
        SemanticType("T121", "Pharmacologic Substance", "T103", "CHEM"),
        SemanticType("T017", "Anatomical Structure", None, "ANAT"),
    ]
)
# What the annotators of the calibration split use: broad types only, never a drug's own.
SEEN = [["T038"]] * 6 + [["T103"]] * 3 + [["T017"], ["UnknownType"]]


def replaced(types, candidate_types, seed=0):
    offsets = np.arange(len(types) + 1)
    return replaced_types(types, candidate_types, offsets, SEEN, HIERARCHY, seed)


def test_an_incorrect_type_is_that_of_another_candidate_as_annotators_would_call_it():
    n = 400
    given = replaced([["T038"]] * n, [["T047", "T121"]] * n)[0.2]
    # The disease is a kind of the mention's own type; the drug is a chemical to annotators.
    assert Counter(map(tuple, given)) == {("T038",): 320, ("T103",): 80}


def test_without_another_type_in_the_list_the_frequencies_of_the_calibration_split_decide():
    n = 4_000
    given = replaced([["T017"]] * n, [["T017"]] * n)[0.2]
    counted = Counter(map(tuple, given))
    assert counted[("T017",)] == 3_200 and counted[("T038",)] + counted[("T103",)] == 800
    assert counted[("T038",)] / 800 == pytest.approx(6 / 9, abs=0.05)


def test_levels_are_shares_of_the_mentions_with_types_and_hold_one_another():
    types = [["T038"], ["Chemical", "T017"], ["UnknownType"], []] * 50
    levels = replaced(types, [["T121", "T047"]] * 200)
    assert tuple(levels) == LEVELS == (0.0, 0.05, 0.1, 0.2)
    changed = [{row for row in range(200) if given[row] != tuple(types[row])} for given in levels.values()]
    assert [len(rows) for rows in changed] == [0, 5, 10, 20]
    assert changed[1] < changed[2] < changed[3]
    assert all(row % 4 < 2 for row in changed[3])


def test_the_seed_decides():
    types, others = [["T038"]] * 100, [["T121", "T017"]] * 100
    assert replaced(types, others) == replaced(types, others) != replaced(types, others, seed=1)


def lists(n=100):
    """One candidate a mention, a chemical; all mentions are functions."""
    items = [[{"name": "aspirin", "cui": "C1", "semantic_types": ["T121"]}]] * n
    texts, documents = [f"m{row}" for row in range(n)], [str(row % 10) for row in range(n)]
    return make_lists(texts, items, [["T038"]] * n, HIERARCHY, gold=np.zeros(n, int), documents=documents)


class CountingScorer:
    def __init__(self, template):
        self.template, self.scored = template, []

    def score(self, mentions, names, lefts, rights, desc=None):
        self.scored += mentions
        return Scores(np.full(len(mentions), -1.0, np.float32), 0)


def answers_of(scorer, lists, decide):
    """Answers about lists whose candidates have the logit 1, decided by a function."""
    answers = type("Decided", (Answers,), {"decide": decide})
    exhaustive = rank(lists, Scores(np.ones(len(lists.owner), np.float32), 0), Calibration())
    documents = Documents.of(lists.annotations.documents, 20)
    return answers(scorer, Calibration(), lists, "test", documents, exhaustive)


@pytest.mark.parametrize("reads_types", [False, True])
def test_thresholds_and_features_see_the_incorrect_type_and_only_templates_that_read_it_score_again(reads_types):
    asked = []

    def decide(self, given, scores):
        if callable(scores):
            # None of these candidates is pruned.
            scores = scores(given, np.ones(len(given), bool))
        wrong, logits = np.array([types == ("T103",) for types in given.types]), scores.logits
        asked.append((wrong, feature_table(given, StringCounts.fit([])).candidates["type_compatibility"], logits))
        tiers, ones = np.where(wrong, TIERS.index("medium"), TIERS.index("high")), np.ones(len(wrong))
        order, accepted, models = np.arange(len(wrong)), ones.astype(bool), np.zeros(len(wrong), int)
        return Decisions(given.offsets, logits, ones, ones, order, ones, tiers, accepted, models)

    scorer = CountingScorer(PairTemplate(mention_types=reads_types))
    figures = incorrect_type_figures(answers_of(scorer, lists(), decide), SEEN)
    assert [(share, part["replaced"]) for share, part in figures.items()] == [
        ("0.00", 0),
        ("0.05", 5),
        ("0.10", 10),
        ("0.20", 20),
    ]
    assert [part["high_confidence_share"]["value"] for part in figures.values()] == [1.0, 0.95, 0.9, 0.8]
    assert all(part["high_confidence_precision"]["value"] == 1.0 for part in figures.values())
    assert len(scorer.scored) == (20 if reads_types else 0)
    assert all(" ; Chemical" in text for text in scorer.scored)
    for wrong, fits, logits in asked:
        np.testing.assert_array_equal(fits, wrong)
        np.testing.assert_array_equal(logits, np.where(wrong & reads_types, -1.0, 1.0))


def test_without_types_there_is_nothing_to_replace():
    given, scorer = lists().with_types([[]] * 100), CountingScorer(PairTemplate(mention_types=True))
    assert incorrect_type_figures(answers_of(scorer, given, None), SEEN) == {}
