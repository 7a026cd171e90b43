"""Why a mention is mapped or not, in sentences that follow from thresholds, inputs and tiers."""

import pytest
from tiny_reranker import tiny_reranker

from umls_reranker import UMLSReranker
from umls_reranker.calibration.thresholds import TypeThreshold
from umls_reranker.data.semantic_types import TypeHierarchy
from umls_reranker.models.template import PairTemplate
from umls_reranker.review.explanations import _reasons, describe, explain
from umls_reranker.serving.ranked_candidates import RankedCandidate


def ranked(score, tier, accepted, rival=0.1):
    return [
        RankedCandidate({}, "A", "C1", 1, 0.0, score, score - rival, tier, accepted),
        RankedCandidate({}, "a", "C1", 2, 0.0, score, score - rival, tier, False),
        RankedCandidate({}, "B", "C2", 3, 0.0, rival, rival - score, "reject", False),
    ]


def threshold(high=0.9, level="default"):
    return TypeThreshold(0.5, high, 0.3, None, None, 0, 0, 0, level, "default")


@pytest.mark.parametrize(
    ("items", "found", "missing", "accept_tier", "words"),
    [
        (
            ranked(0.95, "high", True),
            threshold(level="T047"),
            [],
            "medium",
            ["0.950, reaches the acceptance threshold for this type, 0.500", "over B is 0.850", "95%"],
        ),
        (ranked(0.7, "medium", True), threshold(), [], "medium", ["reaches", "over B is 0.600", "starts at 0.900"]),
        (
            ranked(0.4, "low", False),
            threshold(),
            ["cui"],
            "medium",
            ["0.400, is below", "over B", "Missing inputs: cui;"],
        ),
        (
            ranked(0.7, "medium", False),
            threshold(None),
            [],
            "high",
            ["only the high tier is", "over B", "for any type with"],
        ),
        (ranked(0.4, "low", False)[:1], threshold(), [], "medium", ["is below the acceptance threshold for any type"]),
        ([], threshold(), [], "medium", ["no candidates"]),
    ],
)
def test_reasons(items, found, missing, accept_tier, words):
    reasons = _reasons(items, found, missing, accept_tier, 0.95)
    assert len(reasons) == len(words)
    assert all(word in reason for word, reason in zip(words, reasons, strict=True))


def test_an_explanation_says_what_was_given(tmp_path):
    template = PairTemplate(32, mention_types=True, candidate_fields=("definition",))
    reranker = UMLSReranker.from_pretrained(tiny_reranker(tmp_path, template), device="cpu", dtype="float32")
    cold = {"name": "cold", "cui": "C1", "semantic_types": ["T047"], "definition": "", "preferred_name": "Common Cold"}
    candidates = [cold, {"name": "B"}]
    with pytest.warns(UserWarning, match="definition"):
        answer = explain(reranker, "tiny", "cold", candidates, ["T047"])
    none = explain(reranker, "tiny", "cold", [], ["T047"])
    assert answer.inputs == {"definition": False, "entity_type": True}
    assert dict(zip([item["name"] for item in answer.rows], answer.about, strict=True)) == {
        "cold": ["Common Cold", "Disease or Syndrome"],
        "B": [],
    }
    assert answer.accepted == answer.rows[0]["accepted"]
    assert not none.accepted and none.reasons == ["There are no candidates."]


def test_scores_of_a_pipeline_are_told():
    candidate = {"name": "cold", "sapbert_score": 0.87654, "bm25_score": 21, "retrieval_score": 0.9, "x_score": None}
    assert describe(candidate, TypeHierarchy.built_in()) == ["sapbert_score 0.8765", "bm25_score 21"]


def test_a_value_of_the_wrong_kind_is_a_mistake_that_the_page_tells(tmp_path):
    reranker = UMLSReranker.from_pretrained(tiny_reranker(tmp_path), device="cpu", dtype="float32")
    with pytest.raises(ValueError, match=r"candidate 1 has a cui that is not a string: 7"):
        explain(reranker, "tiny", "cold", [{"name": "cold"}, {"name": "B", "cui": 7}])
