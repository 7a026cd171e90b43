"""Lists are the same from any source: objects, any Arrow tables, or rows of a dictionary."""

import numpy as np
import pyarrow as pa
import pytest
from list_fixtures import make_lists
from trigram_encoder import make_concepts

from umls_reranker.lists.candidate_lists import CandidateLists
from umls_reranker.lists.columns import InvalidRow, MentionColumns
from umls_reranker.lists.dictionary import Dictionary
from umls_reranker.lists.labels import (
    candidate_cuis,
    list_rows,
    read_run_lists,
    usable_lists,
    with_parents,
    write_list_rows,
)
from umls_reranker.lists.read import Rows
from umls_reranker.vocab.concepts import Concept, ConceptTable, concept_table, write_concepts
from umls_reranker.vocab.rrf import read_relations, write_relations
from umls_reranker.vocab.types import SemanticType, TypeHierarchy

HIERARCHY = TypeHierarchy([SemanticType("T1", "One"), SemanticType("T2", "Two")])
ROWS = [
    {
        "entity": "cold",
        "candidates": [
            {
                "name": "Cold",
                "cui": "C1",
                "semantic_types": ["T1"],
                "definition": "",
                "retrieval_score": 0.5,
            },
            {
                "name": "chill",
                "cui": None,
                "semantic_types": None,
                "definition": None,
                "retrieval_score": None,
            },
            {
                "name": "Cold",
                "cui": "C2",
                "semantic_types": [],
                "definition": "d",
                "retrieval_score": 2.0,
            },
        ],
        "entity_type": ["One", "T9"],
        "left": None,
        "right": "b",
    },
    {"entity": "flu", "candidates": [], "entity_type": None, "left": "a", "right": ""},
    {
        "entity": "heat",
        "candidates": [
            {
                "name": "é",
                "cui": "",
                "semantic_types": ["T2", "T1", "T8"],
                "definition": None,
                "retrieval_score": 1.0,
            }
        ],
        "entity_type": ["UnknownType"],
        "left": "",
        "right": "",
    },
]


def content(lists):
    """Everything in a form that can be compared."""
    texts = ("mentions", "lefts", "rights", "names", "cuis", "preferred_names", "definitions")
    columns = {name: pa.array(getattr(lists, name), pa.string()).to_pylist() for name in texts}
    kinds = zip(lists.candidate_types, lists.candidate_types.codes, strict=True)
    return columns | {
        "types": list(lists.types),
        "candidate_types": [None if code < 0 else types for types, code in kinds],
        "offsets": lists.offsets.tolist(),
        "scores": {
            name: [None if x != x else x for x in column.tolist()]
            for name, column in lists.scores.items()
        },
        "unknown": list(lists.unknown_types),
    }


def test_rows_by_hand():
    assert content(CandidateLists.from_rows(HIERARCHY, ROWS)) == {
        "mentions": ["cold", "flu", "heat"],
        "lefts": ["", "a", ""],
        "rights": ["b", "", ""],
        "names": ["Cold", "chill", "Cold", "é"],
        "cuis": ["C1", None, "C2", ""],
        "preferred_names": [None] * 4,
        "definitions": ["", None, "d", None],
        "types": [("T1",), (), ()],
        "candidate_types": [("T1",), None, (), ("T2", "T1")],
        "offsets": [0, 3, 3, 4],
        "scores": {
            "retrieval": [0.5, None, 2.0, 1.0],
            **dict.fromkeys(("context", "lexical", "forms"), [None] * 4),
        },
        "unknown": ["T9"],
    }


def table(**casts):
    """The rows as Arrow gives them, some columns cast."""
    made = pa.Table.from_pylist(ROWS)
    for name, kind in casts.items():
        made = made.set_column(made.column_names.index(name), name, made[name].cast(kind))
    return made


@pytest.mark.parametrize(
    "given",
    [
        table(),
        pa.concat_tables([table().slice(0, 1), table().slice(1)]),
        pa.concat_tables([table(), table()]).slice(3),
        table(entity=pa.large_string(), entity_type=pa.large_list(pa.large_string())),
        table(
            entity=pa.dictionary(pa.int32(), pa.string()),
            candidates=pa.large_list(table()["candidates"].type.value_type),
        ),
        # Of other types, columns are read as objects.
        table(left=pa.string_view()),
    ],
)
def test_tables_of_any_layout_are_those_rows(given):
    assert content(CandidateLists.from_rows(HIERARCHY, given)) == content(
        CandidateLists.from_rows(HIERARCHY, ROWS)
    )


def test_a_table_of_names_alone():
    given = pa.table({"mention": ["a", "b"], "candidates": [["x", "y"], []], "note": [1, 2]})
    lists = make_lists(["a", "b"], [["x", "y"], []], hierarchy=HIERARCHY)
    assert content(CandidateLists.from_rows(HIERARCHY, given)) == content(lists)
    assert len(CandidateLists.from_rows(HIERARCHY, given.slice(0, 0))) == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"entity": None}, "entity"),
        ({"entity": "\u2003\x1c"}, "entity"),
        ({"candidates": None}, "candidates"),
        ({"candidates": [{"name": "a"}, {"name": "a", "cui": 7}]}, "candidate 1: cui.*7"),
        (
            {"candidates": [{"name": "a", "lexical_score": "0.93"}]},
            "candidate 0: lexical_score.*'0.93'",
        ),
        ({"candidates": [{"name": "a", "semantic_types": 3}]}, "candidate 0: semantic_types.*3"),
        ({"entity_type": ["T1", None]}, "entity_type"),
    ],
)
def test_a_value_that_will_not_do_is_named_with_its_row(change, named):
    rows = [ROWS[1], ROWS[0] | change]
    for given in (rows, pa.Table.from_pylist(rows)):
        with pytest.raises(InvalidRow, match=f"^mention 1: {named}") as found:
            CandidateLists.from_rows(HIERARCHY, given)
        assert found.value.row == 1
    with pytest.raises(InvalidRow, match=f"^{named}"):
        CandidateLists.from_rows(HIERARCHY, rows[1:])


OURS = {"name": "cold", "cui": "C1", "list_score": 0.5}


@pytest.mark.parametrize(
    "theirs",
    [
        {"name": "cold", "cui": "C1", "score": 0.5},
        {"term": "cold", "cui": "C1", "similarity": 0.5, "ngram": "colds"},
        {"name": "cold", "term": "chill", "cui": "C1", "concept_id": 7, "score": 0.5},
        {"_id": "C1-0", "_score": 0.5, "_source": {"term": "cold", "concept_id": "C1"}},
        {"_id": "7", "_score": 0.5, "_source": {"name": "cold", "cui": "C1"}},
    ],
)
def test_candidates_of_other_tools_are_read_as_ours(theirs):
    rows = [{"entity": "m", "candidates": [theirs]}]
    expected = content(
        CandidateLists.from_columns(HIERARCHY, MentionColumns(["m"], [[OURS]]), None)
    )
    assert content(CandidateLists.from_rows(HIERARCHY, rows, scores=None)) == expected
    if "_source" not in theirs:
        table = pa.Table.from_pylist(rows)
        assert content(CandidateLists.from_rows(HIERARCHY, table, scores=None)) == expected


def test_pairs_of_id_and_score_get_their_names_from_a_dictionary(tmp_path):
    (tmp_path / "names.txt").write_text(
        "MESH:D003110|OMIM:1||Colonic Neoplasms||Colon Cancer\nHP:0000083||Failure\n"
    )
    dictionary = Dictionary.load(tmp_path / "names.txt")
    # With the prefix of a vocabulary or without, but a number alone may be of another one.
    ids = ["D003110", "MESH:D003110", "OMIM:1", "UMLS:HP:0000083", "0000083"]
    rows = [{"entity": "colon cancer", "candidates": [[cui, 0.5] for cui in ids]}]
    assert candidate_cuis(rows) == {*ids}
    (row,) = dictionary.add_to(rows)
    names = [item["name"] for item in row["candidates"]]
    assert names == ["Colonic Neoplasms"] * 3 + ["UMLS:HP:0000083", "0000083"]
    assert dictionary.has(ids).tolist() == [True] * 3 + [False] * 2
    with pytest.raises(InvalidRow, match="entity .*'text', 'hits'"):
        CandidateLists.from_rows(HIERARCHY, [{"text": "cold", "hits": []}])


def test_a_score_that_a_retriever_did_not_give_is_the_lowest_of_the_list_and_known_as_such():
    given = [[(1, 0.9), (2, None), (3, 0.4), (2, None)], [(1, None), (1, 0.2)], [(4, None)]]
    candidates = [
        [{"name": "a", "cui": f"C{cui}", "lexical_score": score} for cui, score in items]
        for items in given
    ]
    lists = make_lists(["m"] * 3, candidates)
    assert lists.partial_scores == {"lexical": 0.2}
    found = lists.with_whole_scores(lists.partial_scores)
    # A concept that the retriever gave under another name has its score.
    assert found.scores["lexical"].tolist() == [0.9, 0.4, 0.4, 0.4, 0.2, 0.2, 0.2]
    assert found.scores["lexical_found"].tolist() == [1, 0, 1, 0, 1, 1, 0]
    assert found.with_whole_scores({"lexical": 0}).scores["lexical_found"].tolist() == [
        1,
        0,
        1,
        0,
        1,
        1,
        0,
    ]
    unknown = lists.with_whole_scores().scores
    assert (
        np.isnan(unknown["lexical"]).tolist() == [False] * 6 + [True]
        and "lexical_found" not in unknown
    )


@pytest.mark.parametrize(
    "change",
    [
        {"entity": "\ud800"},
        {"right": "\ud800"},
        *(
            {"candidates": [{"name": "a"} | {key: "\ud800"}]}
            for key in ("name", "cui", "definition")
        ),
    ],
)
def test_half_of_a_surrogate_pair_is_refused(change):
    with pytest.raises(InvalidRow) as found:
        CandidateLists.from_rows(HIERARCHY, [*ROWS, ROWS[0] | change, *(ROWS[2:] * 300)])
    assert found.value.row == 3


def test_numbers_of_any_kind_are_scores():
    scores = [None, 1, 2.5, np.float32(3.0), True, 10**30]
    name = np.str_("a")
    lists = make_lists([name], [[{"name": name, "context_score": score} for score in scores]])
    np.testing.assert_array_equal(lists.scores["context"], [np.nan, 1, 2.5, 3, 1, 1e30])
    with pytest.raises(InvalidRow, match="candidate 1: context_score"):
        make_lists(["m"], [["a", {"name": "a", "context_score": 10**400}]])


def test_a_type_counts_once_however_often_and_by_whatever_name_it_is_given():
    candidates = [{"name": "b", "semantic_types": ["T2", "T2"]}]
    rows = [{"entity": "a", "candidates": candidates, "entity_type": ["T1", "One"]}]
    for given in (rows, pa.Table.from_pylist(rows)):
        lists = CandidateLists.from_rows(HIERARCHY, given)
        assert list(lists.types) == [("T1",)] and list(lists.candidate_types) == [("T2",)]


def test_lists_of_a_run_hold_what_the_dictionary_says(tmp_path):
    concepts = make_concepts(
        tmp_path / "concepts", {"C0000001": ("T1", ["cold", "chill"]), "C0000002": ("", ["flu"])}
    )
    mentions = pa.table(
        {
            "mention": ["a", "b", "c"],
            "left": ["x"] * 3,
            "right": [""] * 3,
            "semantic_types": [["T1"], ["UnknownType"], []],
            "cui": ["C0000001", "C0000009", "C0000002"],
            "doc_id": ["d", "d", "e"],
            "start": [0, 2, 4],
            "end": [1, 3, 5],
        }
    )
    candidates = {
        "cui": pa.array(["C0000002", "C0000001", "C0000009", "C0000001"]),
        "name": pa.array(["flu", "chill", "gone", "cold"]),
        "retrieval_score": pa.array([0.5, 0.4, 0.3, 0.2], pa.float32()),
    }
    rows = list_rows(mentions, np.array([0, 2, 2, 4]), candidates, "key")
    write_list_rows(iter([rows.slice(0, 1), rows.slice(1)]), tmp_path / "lists" / "test.arrow")
    lists = read_run_lists(tmp_path, "test", concepts)
    found = content(lists)
    assert found["preferred_names"] == ["flu", "cold", None, "cold"] and found["definitions"] == [
        "",
        "",
        None,
        "",
    ]
    # A concept that is not in the dictionary has no types, as one that it gives none.
    assert found["candidate_types"] == [(), ("T1",), (), ("T1",)] and found["types"] == [
        ("T1",),
        (),
        (),
    ]
    assert (
        found["scores"]["retrieval"] == pytest.approx([0.5, 0.4, 0.3, 0.2])
        and lists.index_keys == ["key"] * 3
    )
    assert lists.labels.tolist() == [0, 1, 0, 0] and lists.owner.tolist() == [0, 0, 2, 2]
    assert lists.annotations.in_dictionary.tolist() == [True, False, True]
    assert lists.annotations.starts.tolist() == [0, 2, 4] and lists.annotations.ends.tolist() == [
        1,
        3,
        5,
    ]
    assert lists.is_gold(np.array([1, -1, 3])).tolist() == [True, False, False]
    part = lists.take(np.array([False, True, True]))
    assert part.offsets.tolist() == [0, 0, 2] and part.names.to_list() == ["gone", "cold"]
    assert (
        part.annotations.documents.tolist() == ["d", "e"]
        and content(lists.take(np.arange(3))) == found
    )


def test_another_candidate_of_the_gold_concept_takes_the_place_of_one_that_goes():
    names = [
        {"name": name, "cui": cui}
        for name, cui in (("p", "C0000001"), ("q", "C0000002"), ("r", "C0000001"))
    ]
    lists = make_lists(["a", "b"], [names, names], gold=[0, 0], hierarchy=HIERARCHY)
    kept = lists.with_candidates(np.array([False, True, True, False, True, False]))
    assert kept.names.to_list() == ["q", "r", "q"] and kept.annotations.gold.tolist() == [1, -1]
    kept = lists.with_candidates(np.array([2, 1, 4]))
    assert kept.names.to_list() == ["r", "q", "q"] and kept.annotations.gold.tolist() == [0, -1]
    assert kept.offsets.tolist() == [0, 2, 3]


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


# Documents of nearly equal content count as one


def notes(copies, changed=0.0, mentions=3, seed=0, has_text=True):
    """Rows of 20 notes of 120 words with some mentions, in copies of which some words change."""
    rng = np.random.default_rng(seed)
    boilerplate = [f"dictated{position}" for position in range(30)]
    rows = []
    for note in range(20):
        text = np.array([*boilerplate, *(f"w{rng.integers(3000)}" for _ in range(90))], object)
        entities = [f"m{rng.integers(3000)}" for _ in range(mentions)]
        for copy in range(copies):
            words = text.copy()
            words[rng.random(120) < changed] = f"x{note}.{copy}"
            for entity, part in zip(entities, np.array_split(words, mentions), strict=True):
                candidates = [{"name": entity, "cui": f"C{entity}"}, {"name": "b", "cui": "C0"}]
                row = {"doc_id": f"d{note}.{copy}", "entity": entity, "cui": f"C{entity}"}
                if has_text:
                    row["left"] = " ".join(part)
                rows.append(row | {"candidates": candidates})
    return rows


def documents(rows):
    lists = usable_lists(Rows.of_mappings(rows), "rows", TypeHierarchy([]))
    assert lists.annotations.doc_ids.tolist() == [row["doc_id"] for row in rows]
    return lists.annotations.documents


@pytest.mark.parametrize("changed", [0.0, 0.05])
@pytest.mark.parametrize("copies", [1, 2, 5, 40])
def test_notes_under_several_ids_are_one_document(copies, changed):
    rows = notes(copies, changed)
    expected = [row["doc_id"].split(".")[0] + ".0" for row in rows]
    assert documents(rows).tolist() == expected


def test_notes_without_text_are_alike_by_several_mentions_and_their_candidates():
    for mentions, expected in ((3, 20), (2, 60)):
        assert len({*documents(notes(3, mentions=mentions, has_text=False))}) == expected
    rows = notes(3, has_text=False)
    for number, row in enumerate(rows):
        row["candidates"][1]["cui"] = f"C{number}"
    assert len({*documents(rows)}) == 60
