import copy
import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umls_reranker.core.errors import UserError
from umls_reranker.data.columns import Concept
from umls_reranker.data.ontology import read_obo_concepts

PURL = "http://purl.obolibrary.org/obo/X_"
MATCH = "http://www.w3.org/2004/02/skos/core#exactMatch"


def node(number, label="a name", *, cui=None, **meta):
    if cui:
        meta["xrefs"] = [{"val": f"UMLS:{cui}"}, *meta.get("xrefs", [])]
    return {"id": f"{PURL}{number}", "lbl": label, "type": "CLASS", "meta": meta}


def is_a(child, parent):
    return {"sub": f"{PURL}{child}", "pred": "is_a", "obj": f"{PURL}{parent}"}


def graph(*nodes, edges=(), **other):
    return {"nodes": list(nodes), "edges": list(edges)} | other


def concepts_of(*paths, **options):
    return read_obo_concepts(paths, **options)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content, indent=1).encode())
    return path


def read(tmp_path, *graphs, **options):
    return concepts_of(write(tmp_path / "x.json", {"graphs": list(graphs)}), **options)


RICH = graph(
    node(1, "root"),
    node(
        2,
        " alpha ",
        cui="C0000002",
        definition={"val": "Said to be odd.", "xrefs": []},
        synonyms=[
            {"pred": "hasExactSynonym", "val": "beta"},
            {"pred": "hasBroadSynonym", "val": "broad"},
            {"pred": "unheard", "val": "related"},
        ],
    ),
    node(3, "gone", cui="C0000003", deprecated=True),
    node(4, "gamma", xrefs=[{"val": "UMLS_CUI:C0000004"}, {"val": "MESH:D1"}, {"val": "UMLS:0000004"}]),
    node(5, "delta", cui="C0000009", basicPropertyValues=[{"pred": MATCH, "val": "http://id.org/umls/id/C0000005"}]),
    node(6, "no reference"),
    {"id": "http://elsewhere.org/Y_1"},
    {"id": f"{PURL}part_of", "lbl": "part of", "type": "PROPERTY", "meta": {"xrefs": [{"val": "UMLS:C0000008"}]}},
    edges=[is_a(2, 1), is_a(6, 2), is_a(4, 6), is_a(5, 4), {"sub": f"{PURL}2", "pred": f"{PURL}p", "obj": f"{PURL}5"}],
    id="http://purl.obolibrary.org/obo/x.json",
    meta={
        "version": "http://purl.obolibrary.org/obo/x/releases/2025-01-16/x.json",
        "basicPropertyValues": [{"pred": "http://purl.org/dc/terms/license", "val": "https://example.org/license"}],
    },
)
RICH_CONCEPTS = [
    Concept("C0000002", "alpha", ("beta",), ("X:2",), "Said to be odd."),
    Concept("C0000004", "gamma", (), ("X:2",)),
    Concept("C0000005", "delta", (), ("X:2",)),
]


def test_reads_names_references_types_and_relations(tmp_path):
    concepts, hierarchy, parents, vocabularies, report = read(tmp_path, RICH, type_roots=["X:1"])
    assert concepts == RICH_CONCEPTS
    assert [(kind, hierarchy.name(kind)) for kind in hierarchy] == [("X:2", "alpha")]
    # Term 6 has no CUI, so the parent of 4 is that of 6.
    assert parents == [("C0000004", "C0000002"), ("C0000005", "C0000004")]
    assert vocabularies == [
        {
            "file": "x.json",
            "id": "http://purl.obolibrary.org/obo/x.json",
            "version": "http://purl.obolibrary.org/obo/x/releases/2025-01-16/x.json",
            "license": "https://example.org/license",
            "terms": 6,
        }
    ]
    assert {key: count for key, count in report.items() if count} == {
        "terms": 6,
        "obsolete": 1,
        "without_cui": 2,
        "not_a_cui": 1,
        "extra_cross_references": 1,
        "dropped_synonyms": 2,
        "concepts": 3,
        "typed": 3,
    }


def test_gzip_and_a_byte_order_mark_make_no_difference(tmp_path):
    content = b"\xef\xbb\xbf\n " + json.dumps({"graphs": [RICH]}).encode()
    assert concepts_of(write(tmp_path / "x.obo", content), type_roots=["X:1"])[0] == RICH_CONCEPTS
    packed = write(tmp_path / "x.gz", gzip.compress(content))
    assert concepts_of(packed, type_roots=["X:1"])[0] == RICH_CONCEPTS


def test_a_node_of_several_graphs_is_that_of_the_first(tmp_path):
    first, second = (
        graph(node(1, "one", cui="C0000001")),
        graph(node(1, "uno", cui="C0000002"), node(2, cui="C0000003")),
    )
    concepts, *_, vocabularies, _ = read(tmp_path, first, second | {"edges": [is_a(2, 1)], "id": "late"})
    assert [concept.cui for concept in concepts] == ["C0000001", "C0000003"]
    assert (vocabularies[0]["id"], vocabularies[0]["terms"]) == ("late", 2)


GOOD = node(1, "good", cui="C0000001")
MALFORMED = [
    ({"lbl": "x"}, "nodes[1]: node without id"),
    (node(1), "nodes[1]: duplicate node: X:1"),
    (node(2, "", cui="C0000002"), "nodes[1]: node without name: X:2"),
    (node("2 3"), "nodes[1]: id contains whitespace: 'http://purl.obolibrary.org/obo/X_2 3'"),
    ("words", "nodes[1]: node is not an object: \"'words'\""),
    ({"id": 7, "lbl": "x"}, "nodes[1]: id is not a string: '7'"),
    (node(2, ["x"]), "nodes[1]: lbl is not a string"),
    (node(2, "half \ud800"), r"nodes[1]: lbl contains a lone surrogate, which is not a character: 'half \ud800'"),
    (node(2) | {"meta": []}, "nodes[1]: meta is not an object: '[]'"),
    (node(2, synonyms={}), "nodes[1]: synonyms is not a list: '{}'"),
    (node(2, synonyms=[{"pred": "hasExactSynonym", "val": " "}]), "nodes[1]: synonym without text"),
    (node(2, synonyms=[{"pred": "hasExactSynonym", "val": None}]), "nodes[1]: synonyms.val is not a string: 'None'"),
    (node(2, xrefs=[{"id": "UMLS:C0000002"}]), "nodes[1]: xref is not a string: 'None'"),
    (node(2, xrefs=["UMLS:C0000002"]), "nodes[1]: xref is not an object"),
    (node(2, definition="x"), "nodes[1]: definition is not an object"),
]


@pytest.mark.parametrize(("bad", "what"), MALFORMED)
def test_a_malformed_node_is_named_or_skipped(tmp_path, bad, what):
    content = graph(GOOD, bad, node(3, cui="C0000003"))
    with pytest.raises(UserError) as error:
        read(tmp_path, graph(), content)
    assert str(error.value).startswith(f"{tmp_path / 'x.json'}:graphs[1].{what}")
    assert "\n" not in str(error.value)
    concepts, *_, report = read(tmp_path, graph(), content, on_error="skip")
    assert [concept.cui for concept in concepts] == ["C0000001", "C0000003"]
    assert report["skipped"] == 1
    assert all(reason in what for reason in report["reasons"])


def test_a_malformed_graph_or_edge_is_named_or_skipped(tmp_path):
    edges = [is_a(3, 1), {"sub": f"{PURL}1", "obj": f"{PURL}3"}, 5]
    content = graph(GOOD, node(3, cui="C0000003"), edges=edges)
    with pytest.raises(UserError, match=r"x.json:graphs\[0\].edges\[1\]: pred is not a string: 'None'"):
        read(tmp_path, content)
    concepts, _, parents, _, report = read(tmp_path, content, 7, {"nodes": 7}, on_error="skip")
    assert (len(concepts), parents) == (2, [("C0000003", "C0000001")])
    assert report["reasons"] == {
        "pred is not a string": 1,
        "edge is not an object": 1,
        "graph is not an object": 1,
        "nodes is not a list": 1,
    }


def test_broken_and_useless_files_are_named(tmp_path):
    good = json.dumps({"graphs": [RICH]}, indent=1).encode()
    cases = {
        write(
            tmp_path / "cut.json", good[:500]
        ): r"cut.json:\d+: not JSON \(.* at column \d+\); download the file again",
        write(
            tmp_path / "comma.json", b'{"graphs":\n\n [,]}'
        ): r"comma.json:3: not JSON \(Expecting value at column 3\)",
        write(tmp_path / "latin.json", b'{"graphs":\n "\xe9"}'): r"latin.json:2: not UTF-8 \(byte 0xe9\)",
        write(tmp_path / "deep.json", b'{"graphs":' + b"[" * 100_000): r"deep.json: unreadable JSON",
        write(tmp_path / "long.json", b'{"graphs":' + b"9" * 5000 + b"}"): r"long.json: unreadable JSON",
        write(tmp_path / "other.json", {"nodes": []}): "other.json contains no list of graphs; expected an ontology",
        write(tmp_path / "none.json", {"graphs": [graph()]}): "none.json contains no labelled nodes",
        write(tmp_path / "bare.json", {"graphs": [graph(node(1))]}): "none of 1 terms has a cross-reference UMLS:C",
        write(tmp_path / "cut.gz", gzip.compress(good)[:-30]): r"cut.gz: the gzip stream is truncated",
    }
    for path, message in cases.items():
        with pytest.raises(UserError, match=message) as error:
            concepts_of(path, on_error="skip")
        assert "\n" not in str(error.value)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=4)
    | st.sampled_from([GOOD, is_a(1, 2), "UMLS:C0000001"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "lbl", "val", "xrefs"]), inner),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), skip=st.booleans())
def test_whatever_stands_in_a_document_it_is_concepts_or_a_user_error(tmp_path, data, skip):
    content = {"graphs": [copy.deepcopy(RICH)]}
    for _ in range(data.draw(st.integers(1, 3))):
        place = content
        while isinstance(place, dict | list) and place:
            keys = sorted(place) if isinstance(place, dict) else range(len(place))
            key = data.draw(st.sampled_from(list(keys)))
            if not isinstance(place[key], dict | list) or data.draw(st.integers(0, 4)) == 0:
                place[key] = copy.deepcopy(data.draw(VALUES))
                break
            place = place[key]
    try:
        concepts, *_, report = read(tmp_path, *_graphs(content), on_error="skip" if skip else "stop")
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert [concept.cui for concept in concepts] == sorted({concept.cui for concept in concepts})
    assert all(concept.name and concept.name not in concept.synonyms for concept in concepts)
    assert report["skipped"] == 0 or skip


def _graphs(content):
    graphs = content["graphs"]
    return graphs if isinstance(graphs, list) else [graphs]
