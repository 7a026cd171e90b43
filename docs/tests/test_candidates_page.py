"""The converters of docs/candidates.md turn the answers of other tools into rows that are
ranked.
"""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from test_pages import blocks_of

from umls_reranker import UMLSReranker

CONCEPTS = {"C0018801": "Heart Failure", "C0035078": "Kidney Failure"}
CUIS = list(CONCEPTS)
NAMES = list(CONCEPTS.values())


@pytest.fixture(scope="module")
def page():
    """What the blocks of the page define."""
    names = {}
    for block in blocks_of("docs/candidates.md")[0]:
        exec(compile(block.text, f"docs/candidates.md, line {block.line}", "exec"), names)
    return SimpleNamespace(**names)


def faiss_hits(page):
    import faiss

    index = faiss.IndexFlatIP(2)
    index.add(np.eye(2, dtype=np.float32))
    return page.from_faiss(index, np.array([[0.6, 0.8]], np.float32), NAMES, CUIS)


def elasticsearch_hits(page):
    hits = [
        {"_score": 9.0 - place, "_source": {"cui": CUIS[place], "name": NAMES[place]}}
        for place in (1, 0)
    ]
    return page.from_elasticsearch({"hits": {"hits": hits}})


def quickumls_hits(page):
    hits = [
        {"cui": CUIS[place], "term": NAMES[place], "similarity": 1.0, "semtypes": {"T047"}}
        for place in (1, 0)
    ]
    assert page.from_quickumls([]) == []
    return page.from_quickumls([hits])


def scispacy_hits(page):
    concept = {"types": ["T047"], "definition": None}
    concepts = {
        cui: SimpleNamespace(canonical_name=name, **concept) for cui, name in CONCEPTS.items()
    }
    entity = SimpleNamespace(_=SimpleNamespace(kb_ents=[(CUIS[1], 0.9), (CUIS[0], 0.8)]))
    return page.from_scispacy(entity, SimpleNamespace(kb=SimpleNamespace(cui_to_entity=concepts)))


def medcat_hits(page):
    model = SimpleNamespace(get_all_similarities=lambda cuis, *context: (cuis, [0.1, 0.7], 1))
    pipe = SimpleNamespace(get_component=lambda kind: SimpleNamespace(context_model=model))
    cat = SimpleNamespace(pipe=pipe, cdb=SimpleNamespace(get_name=CONCEPTS.__getitem__))
    return page.from_medcat(
        cat, object(), SimpleNamespace(link_candidates=CUIS, detected_name="renal~failure")
    )


def llm_names(page):
    answer = "1. Kidney Failure\n2. Renal Doom\n- Heart Failure\n"
    return page.from_llm(answer, {name.lower(): cui for cui, name in CONCEPTS.items()})


@pytest.mark.filterwarnings("ignore:missing inputs")
@pytest.mark.parametrize(
    "hits", [faiss_hits, elasticsearch_hits, quickumls_hits, scispacy_hits, medcat_hits, llm_names]
)
def test_the_answers_of_a_tool_become_rows_that_are_ranked(hits, page, tmp_path, monkeypatch):
    if hits is medcat_hits:
        linking = SimpleNamespace(PerDocumentTokenCache=dict)
        types = SimpleNamespace(CoreComponentType=SimpleNamespace(linking="linking"))
        monkeypatch.setitem(sys.modules, "medcat.components.linking.vector_context_model", linking)
        monkeypatch.setitem(sys.modules, "medcat.components.types", types)
    page.write_rows(tmp_path / "rows.jsonl", [("note 17", "renal failure", hits(page), None)])
    row = json.loads((tmp_path / "rows.jsonl").read_text(encoding="utf-8"))
    assert [candidate["cui"] for candidate in row["candidates"]] == CUIS[::-1] and "cui" not in row
    ranked = UMLSReranker.from_pretrained("built-in").rerank(row["entity"], row["candidates"])
    assert {item.cui for item in ranked} == {*CUIS}
