import numpy as np
import pytest
from list_fixtures import make_lists

from umls_reranker.core.errors import UserError
from umls_reranker.lists.parents import (
    require_parents,
    with_parents_of_release,
    with_parents_of_run,
)
from umls_reranker.vocab.concepts import Concept, ConceptTable, concept_table, write_concepts
from umls_reranker.vocab.rrf import read_relations, write_relations
from umls_reranker.vocab.types import TypeHierarchy

COLD, INFECTION, DISEASE = "C0000001", "C0000002", "C0000003"


@pytest.fixture
def lists():
    items = [[{"name": cui, "cui": cui} for cui in (INFECTION, COLD)], [{"name": "c", "cui": COLD}]]
    return make_lists(["m", "n"], items, gold=[1, -1], cuis=[COLD, INFECTION])


@pytest.fixture
def release(tmp_path):
    """A release in which one parent is told by PAR, one by CHD, and a synonym is none."""
    lines = [(COLD, "PAR", INFECTION), (DISEASE, "CHD", INFECTION), (COLD, "SY", DISEASE)]
    text = "".join(f"{a}|A1|AUI|{rel}|{b}|A2|AUI||R1||X|X|||N||\n" for a, rel, b in lines)
    (tmp_path / "MRREL.RRF").write_text(text, encoding="utf-8")
    return tmp_path


def test_run_and_release_know_the_same_parents_of_the_concepts_of_lists(lists, release, tmp_path):
    folder = tmp_path / "concepts"
    concepts = [Concept(cui, cui) for cui in (COLD, INFECTION, DISEASE)]
    write_concepts(concept_table(concepts), TypeHierarchy([]), folder)
    write_relations(read_relations(release / "MRREL.RRF"), ConceptTable.load(folder).cuis, folder)
    for known in (with_parents_of_release(lists, release), with_parents_of_run(lists, folder)):
        # The disease is in no list.
        assert known.parents == {(COLD, INFECTION)}
        assert known.parents_of_gold.tolist() == [True, False, False]
        assert known.children_of_gold.tolist() == [False, False, True]
        rest = known.take(np.array([1]))
        assert rest.children_of_gold.tolist() == [True]
        require_parents(known, "parent")


def test_a_relation_is_not_certified_without_relations(lists, tmp_path):
    without = with_parents_of_release(lists, tmp_path)
    require_parents(without, "none")
    with pytest.raises(UserError, match="certify_relation"):
        require_parents(without, "parent")
