import numpy as np
from list_fixtures import make_lists

from umls_reranker.lists.labels import with_parents
from umls_reranker.vocab.concepts import Concept, ConceptTable, concept_table, write_concepts
from umls_reranker.vocab.rrf import read_relations, write_relations
from umls_reranker.vocab.types import TypeHierarchy

COLD = "C0000001"
INFECTION = "C0000002"
DISEASE = "C0000003"


def test_a_run_knows_the_parents_of_the_concepts_of_lists(tmp_path):
    items = [[{"name": cui, "cui": cui} for cui in (INFECTION, COLD)], [{"name": "c", "cui": COLD}]]
    lists = make_lists(["m", "n"], items, gold=[1, -1], cuis=[COLD, INFECTION])
    # One parent is told by PAR, one by CHD, and a synonym is none.
    lines = [(COLD, "PAR", INFECTION), (DISEASE, "CHD", INFECTION), (COLD, "SY", DISEASE)]
    text = "".join(f"{a}|A1|AUI|{rel}|{b}|A2|AUI||R1||X|X|||N||\n" for a, rel, b in lines)
    (tmp_path / "MRREL.RRF").write_text(text, encoding="utf-8")
    folder = tmp_path / "concepts"
    concepts = [Concept(cui, cui) for cui in (COLD, INFECTION, DISEASE)]
    write_concepts(concept_table(concepts), TypeHierarchy([]), folder)
    write_relations(read_relations(tmp_path / "MRREL.RRF"), ConceptTable.load(folder).cuis, folder)
    known = with_parents(lists, folder)
    # The disease is in no list.
    assert known.parents == {(COLD, INFECTION)}
    assert known.parents_of_gold.tolist() == [True, False, False]
    assert known.children_of_gold.tolist() == [False, False, True]
    assert known.take(np.array([1])).children_of_gold.tolist() == [True]
