"""The report of a model: the content of metrics.json; and mentions with incorrect types."""

from collections import Counter

import numpy as np
import pytest
from list_fixtures import make_lists

from umls_reranker.calibration.probabilities import Calibration
from umls_reranker.calibration.ranking import rank
from umls_reranker.evaluation.incorrect_types import with_incorrect_types
from umls_reranker.evaluation.linking import Documents
from umls_reranker.evaluation.page import card_charts
from umls_reranker.evaluation.report import evaluate, measure
from umls_reranker.evaluation.systems import System
from umls_reranker.models.cross_encoder import Scores
from umls_reranker.models.pairs import PairTemplate
from umls_reranker.vocab.types import SemanticType, TypeHierarchy

HIERARCHY = TypeHierarchy(
    [
        SemanticType("T038", "Biologic Function", None, "PHYS"),
        SemanticType("T047", "Disease or Syndrome", "T038", "DISO"),
        SemanticType("T103", "Chemical", None, "CHEM"),
        SemanticType("T121", "Pharmacologic Substance", "T103", "CHEM"),
        SemanticType("T017", "Anatomical Structure", None, "ANAT"),
    ]
)


def typed_lists(types, candidate_types):
    """One list with one candidate for each mention."""
    items = [
        [{"name": "aspirin", "cui": "C1", "semantic_types": kinds}] for kinds in candidate_types
    ]
    texts, documents = (
        [f"m{row}" for row in range(len(types))],
        [str(row % 10) for row in range(len(types))],
    )
    return make_lists(
        texts, items, types, HIERARCHY, gold=np.zeros(len(types), int), documents=documents
    )


def test_of_a_model_that_uses_no_cross_encoder_nothing_is_told_of_one():
    lists = make_lists(["m", "n", "o"], [["a", "b"], ["a", "c"], ["d"]], gold=[0, 1, -1])
    logits = np.array([1, -1, 0.5, 2, -3], np.float32)
    decided = rank(lists, Scores(logits, 0), Calibration())
    documents = Documents.of(lists.annotations.documents, 20)
    systems = {"lists_order": System(lists.annotations.gold)}
    without, with_cross_encoder = (
        measure(lists, decided, column, systems, documents, "lists")[0]
        for column in (np.full_like(logits, np.nan), logits)
    )
    of_cross_encoder = with_cross_encoder["figures"].keys() - without["figures"].keys()
    assert of_cross_encoder == {
        name for name in with_cross_encoder["figures"] if name.endswith("_raw")
    } | {"ece_reduction"}
    for metrics, is_drawn in ((without, False), (with_cross_encoder, True)):
        assert ("raw" in metrics["curves"]["reliability"]) == is_drawn
        assert ("before calibration" in card_charts(metrics, 0.95)[0]) == is_drawn
    assert (without["not_in_list"], without["candidates"]) == (1, 5)


def test_incorrect_types_are_those_of_other_candidates_as_annotators_call_them():
    # The disease is a kind of the mention's own type; the drug is a chemical to annotators.
    lists = typed_lists([["T038"]] * 400 + [["T103"]], [["T047", "T121"]] * 400 + [[]])
    changed = list(with_incorrect_types(lists, 0)[0.2].types)
    assert 79 <= Counter(map(tuple, changed[:400]))[("T103",)] <= 80
    assert {tuple(types) for types in changed[:400]} == {("T038",), ("T103",)}


def test_without_another_type_in_the_list_frequencies_decide():
    types = [["T017"]] * 800 + [["T038"]] * 600 + [["T103"]] * 300
    changed = with_incorrect_types(typed_lists(types, types), 0)[0.2]
    found = Counter(
        new[0] for old, new in zip(types, changed.types, strict=True) if old == ["T017"] != [*new]
    )
    assert found["T038"] / found.total() == pytest.approx(6 / 9, abs=0.1)


def test_levels_are_shares_of_the_typed_mentions_and_hold_one_another():
    types = [["T038"], ["T103", "T017"], ["UnknownType"], []] * 50
    lists = typed_lists(types, [["T121", "T047"]] * 200)
    levels = with_incorrect_types(lists, 0)
    changed = [
        {row for row in range(200) if [*level.types[row]] != [*lists.types[row]]}
        for level in levels.values()
    ]
    assert [*map(len, changed)] == [5, 10, 20] and changed[0] < changed[1] < changed[2]
    assert all(row % 4 < 2 for row in changed[2])
    assert with_incorrect_types(lists.with_types([[]] * 200), 0) == {}


@pytest.mark.parametrize("reads_types", [False, True])
def test_only_a_cross_encoder_that_reads_types_scores_lists_with_incorrect_types_again(reads_types):
    class Scorer:
        template, scored = PairTemplate(mention_types=reads_types), []

        def score(self, mentions, *rest):
            self.scored.extend(mentions)
            return Scores(np.full(len(mentions), 1.0, np.float32), 0)

    lists = typed_lists([["T038"]] * 99 + [["T103"]], [["T121"]] * 100)
    systems = {"lists_order": System(lists.annotations.gold)}
    documents = Documents.of(lists.annotations.documents, 20)
    metrics, outcomes = evaluate(Scorer(), Calibration(), lists, systems, documents, "test")
    assert any(" ; Chemical" in text for text in Scorer.scored[100:]) == reads_types
    assert (len(Scorer.scored) > 100) == reads_types and len(outcomes) == 100
    assert list(metrics["rows"]["systems"]) == ["lists_order", "cross_encoder", "reranker"]
    assert list(metrics["rows"]["incorrect_types"]) == ["0.05", "0.10", "0.20"]
    assert metrics["figures"]["incorrect_types/0.10/acc@1"]["n"] == 100
    assert (
        metrics["figures"]["scored_share"]["value"]
        == metrics["figures"]["same_top_candidate"]["value"]
        == 1.0
    )
