"""The ranked row: the same values as Python objects, as rows and in Arrow."""

import numpy as np
import pyarrow as pa
import pytest
from tiny_reranker import HIERARCHY

from umls_reranker.calibration.decisions import CandidateScores, Decisions
from umls_reranker.linking.linker import LinkedConcept
from umls_reranker.lists.candidate_lists import CandidateLists
from umls_reranker.lists.columns import MentionColumns
from umls_reranker.serving.bulk import RANKED_SCHEMA
from umls_reranker.serving.rows import (
    RANKED_TYPE,
    RankedCandidate,
    ranked_candidates,
    ranked_column,
)

CANDIDATES = [[{"name": "cold", "cui": "C1"}, {"name": "flu", "cui": None}], [], ["ague"]]
ROWS = [
    [
        ("flu", None, 1, -2.0, 0.75, 0.5, "medium", False),
        ("cold", "C1", 2, None, 0.25, -0.5, "reject", False),
    ],
    [],
    [("ague", None, 1, 3.5, 1.0, 1.0, "high", True)],
]
FALLBACKS = [("names", 1), (None, 0), ("all", 1)]


@pytest.fixture
def decided():
    lists = CandidateLists.from_columns(HIERARCHY, MentionColumns(["a", "b", "c"], CANDIDATES))
    decisions = Decisions(
        offsets=lists.offsets,
        concepts=lists.concepts,
        models=np.array([1, 1, 0]),
        complete=np.ones(3, bool),
        missing={},
        scores=CandidateScores(
            np.array([np.nan, -2.0, 3.5], np.float32),
            np.array([-1.0, 1.0, 9.0]),
            np.array([0.25, 0.75, 1.0]),
            np.full(3, np.nan),
        ),
        edges=np.array([[0.5, 0.6, 0.9]] * 3),
        accept_tier="high",
    )
    return lists, decisions, ["all", "names"]


def expected():
    keys = (
        "name",
        "cui",
        "rank",
        "logit",
        "score",
        "margin",
        "tier",
        "accepted",
        "model_name",
        "scored",
    )
    return [
        [dict(zip(keys, (*row, *ending), strict=True)) for row in rows]
        for rows, ending in zip(ROWS, FALLBACKS, strict=True)
    ]


def test_objects_rows_and_arrow_hold_the_same(decided):
    lists, decisions, names = decided
    ranked = ranked_candidates(
        lists, decisions, [item for items in CANDIDATES for item in items], names
    )
    assert [[item.as_row() for item in items] for items in ranked] == expected()
    assert [[item.candidate for item in items] for items in ranked] == [
        CANDIDATES[0][::-1],
        [],
        ["ague"],
    ]
    column = ranked_column(lists, decisions, names)
    column.validate(full=True)
    assert column.type == pa.list_(RANKED_TYPE) and column.to_pylist() == expected()


def test_a_linked_concept_tells_what_its_candidate_says():
    about = {"name": "flu", "cui": "C2", "preferred_name": "Influenza", "semantic_types": ("T047",)}
    concept = LinkedConcept(about, "flu", "C2", 1, 0.5, 0.75, 0.5, "medium", True)
    assert (concept.preferred_name, concept.semantic_types) == ("Influenza", ("T047",))
    row = RankedCandidate(*concept).as_row()
    assert concept.as_row() == row | {"preferred_name": "Influenza", "semantic_types": ["T047"]}


def test_spark_reads_the_same_types():
    assert RANKED_SCHEMA == (
        "array<struct<name: string, cui: string, rank: long, logit: double, score: double, "
        "margin: double, "
        "tier: string, accepted: boolean, model_name: string, scored: long>>"
    )
