"""Lists are the same from any source: objects, any Arrow tables, or rows of a dictionary."""

import json

import numpy as np
import pyarrow as pa
import pytest
from data_fixtures import write_rrf
from list_fixtures import make_lists, write_lists
from trigram_encoder import make_concepts

from umls_reranker.core.errors import UserError
from umls_reranker.lists.candidate_lists import CandidateLists
from umls_reranker.lists.columns import InvalidRow
from umls_reranker.lists.dictionary import Dictionary
from umls_reranker.lists.labels import candidate_cuis, read_labelled_lists, usable_lists
from umls_reranker.lists.read import read_rows
from umls_reranker.lists.row_errors import row_errors
from umls_reranker.lists.rows import Rows
from umls_reranker.lists.run_lists import list_rows, read_run_lists, write_list_rows
from umls_reranker.lists.table import mappings_of, mention_table, row_table
from umls_reranker.serving.list_description import describe_lists
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
    expected = content(CandidateLists.from_table(HIERARCHY, mention_table(["m"], [[OURS]]), None))
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
    lists = usable_lists(Rows.of(rows), "rows", TypeHierarchy([]))
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


# What a folder of the UMLS adds to candidates that have a CUI


HEAD_COLD = "C9000004"
CHILL = "C9000035"
RENAL = "C9000009"


@pytest.fixture
def release(tmp_path):
    return write_rrf(tmp_path / "META")


def add(dictionary, mention, *candidates):
    (row,) = dictionary.add_to([{"entity": mention, "candidates": list(candidates)}])
    return row["candidates"]


def test_candidates_get_what_they_lack_and_keep_what_they_have(release):
    dictionary = Dictionary.from_umls_dir(release)
    given = [
        {"cui": f" {HEAD_COLD}", "name": " ", "rank": 1},
        {
            "cui": HEAD_COLD,
            "name": "Cold",
            "preferred_name": "Cold, common",
            "semantic_types": [],
            "synonym_score": 0.0,
        },
        {"cui": "C0000001", "name": "cold"},
        {"cui": "C0000001"},
        {"cui": "HP:0000001", "name": None, "preferred_name": ""},
        {"name": "cold"},
        {"cui": None, "name": "cold"},
        "cold",
        7,
    ]
    added = add(dictionary, "Cold", *given)
    of_cold = {"preferred_name": "common cold", "semantic_types": ["T047"], "synonym_score": 1.0}
    no_types = {"semantic_types": []}
    assert added == [
        {"cui": f" {HEAD_COLD}", "name": "common cold", "rank": 1} | of_cold,
        given[1],
        {"cui": "C0000001", "name": "cold", "preferred_name": "cold", "synonym_score": 1}
        | no_types,
        *(
            dict.fromkeys(("cui", "name", "preferred_name"), cui) | no_types | {"synonym_score": 0}
            for cui in ("C0000001", "HP:0000001")
        ),
        *given[5:],
    ]
    assert given[0] == {"cui": f" {HEAD_COLD}", "name": " ", "rank": 1}
    assert dictionary.known([HEAD_COLD, RENAL, "C0000001", "a long id"]) == {
        "names": 2,
        "semantic types": 2,
    }


def test_the_synonym_score_is_that_of_the_most_similar_name(release):
    dictionary = Dictionary.from_umls_dir(release)
    # The six trigrams of "kidney", as "renal" is in normal forms, are among the 13 of "failure
    # kidney".
    names = {
        "renal": 2 * 6 / (6 + 13),
        "Renal-Failure": 1,
        "insufficiency of the kidneys": 1,
        "xyz": 0,
    }
    for mention, similarity in names.items():
        (candidate,) = add(dictionary, mention, {"cui": RENAL, "name": "?"})
        assert candidate["synonym_score"] == pytest.approx(similarity, abs=0.01)
    # The candidate's own name is one of the concept's.
    (candidate,) = add(dictionary, "xyz", {"cui": RENAL, "name": "XYZ"})
    assert candidate["synonym_score"] == 1


def test_each_row_is_compared_with_its_own_mention(release):
    dictionary = Dictionary.from_umls_dir(release)
    rows = [
        {"mention": "hypertension", "candidates": [{"cui": RENAL}, {"cui": "C9000005"}]},
        {"entity": "renal failure", "candidates": ({"cui": RENAL}, {"cui": "C9000005"})},
        {"entity": 7, "candidates": [{"cui": RENAL}]},
        {"entity": "no list", "candidates": "renal"},
        {"entity": "none", "candidates": []},
    ]
    scores = [
        [item["synonym_score"] for item in row["candidates"]]
        for row in dictionary.add_to(rows)
        if not isinstance(row["candidates"], str)
    ]
    first, second, *others = scores
    assert first[1] == second[0] == 1
    assert first[0] < 0.5 and second[1] < 0.5
    assert others == [[0], []]


def test_names_of_other_languages_and_suppressed_ones_are_left_out(release):
    line = "C9000004|{}|S|L1|PF|S1|N|A1||||MINI|PT|x|{}|0|{}||\n"
    with (release / "MRCONSO.RRF").open("a", encoding="utf-8") as stream:
        stream.write(line.format("GER", "schnupfen", "N") + line.format("ENG", "chilliness", "O"))
        stream.write("C0000001|ENG|P|L1|PF|S1|Y|A1||||MINI|PT|x|gone|0|O||\n")
    dictionary = Dictionary.from_umls_dir(release, [HEAD_COLD, "C0000001"])
    for mention in ("schnupfen", "chilliness"):
        assert add(dictionary, mention, {"cui": HEAD_COLD})[0]["synonym_score"] < 0.3
    assert add(dictionary, "gone", {"cui": "C0000001"})[0]["name"] == "C0000001"
    in_german = Dictionary.from_umls_dir(release, languages=("GER",))
    assert add(in_german, "Schnupfen", {"cui": HEAD_COLD})[0]["synonym_score"] == 1


@pytest.mark.parametrize(
    ("missing", "keys"),
    [
        ("MRCONSO.RRF", {"cui", "semantic_types"}),
        ("MRSTY.RRF", {"cui", "name", "preferred_name", "synonym_score"}),
    ],
)
def test_one_of_the_two_files_is_enough(release, missing, keys):
    (release / missing).unlink()
    for cuis in (None, [HEAD_COLD]):
        (candidate,) = add(Dictionary.from_umls_dir(release, cuis), "cold", {"cui": HEAD_COLD})
        assert candidate.keys() == keys
    for name in ("MRCONSO.RRF", "MRSTY.RRF"):
        (release / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match="META contains neither"):
        Dictionary.from_umls_dir(release)


def test_a_file_of_names_knows_alternate_ids_and_types_if_it_has_any(tmp_path):
    path = tmp_path / "names"
    path.write_text("D1|10||common cold|head cold\n")
    found = {"name": "common cold", "preferred_name": "common cold", "synonym_score": 1.0}
    for cui in ("D1", "10"):
        assert add(Dictionary.load(path), "Head-cold", {"cui": cui}) == [{"cui": cui} | found]
    path.write_text("id,name,semantic_type\nD1|10,head cold,Disease or Syndrome\n")
    assert add(Dictionary.load(path), "flu", {"cui": "10"})[0]["semantic_types"] == [
        "Disease or Syndrome"
    ]


def test_only_the_concepts_that_are_wanted_are_read(release):
    dictionary = Dictionary.from_umls_dir(
        release, [HEAD_COLD, "C0000001", "an id of other length", ""]
    )
    assert dictionary.known([HEAD_COLD, CHILL]) == {"names": 1, "semantic types": 1}
    assert Dictionary.from_umls_dir(release, []).known([HEAD_COLD]) == {
        "names": 0,
        "semantic types": 0,
    }


def make_rows():
    candidates = [{"cui": HEAD_COLD, "my_score": 0.5}, {"cui": CHILL, "my_score": 0.25}]
    mention = {"entity": "head cold", "cui": HEAD_COLD, "candidates": candidates}
    return [{"doc_id": f"d{number}"} | mention for number in range(12)]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_files_of_lists_get_names_types_and_synonyms(tmp_path, release, ending):
    path = write_lists(tmp_path / f"own.{ending}", make_rows())
    with pytest.raises(UserError, match="candidate 0: name"):
        read_labelled_lists(path, TypeHierarchy.built_in())
    lists = read_labelled_lists(path, TypeHierarchy.built_in(), release)
    assert (
        lists.names.to_list()[:2]
        == lists.preferred_names.to_pylist()[:2]
        == ["common cold", "cold temperature"]
    )
    assert list(lists.candidate_types)[:2] == [("T047",), ("T070",)]
    assert (
        set(lists.scores) == {"my", "synonym"}
        and lists.scores["synonym"][0] == 1 > lists.scores["synonym"][1]
    )
    assert (
        "of 24 candidates, the dictionary has names of 24 and semantic types of 24"
        in describe_lists(lists, ())
    )


def test_files_are_read_for_their_cuis_first_whatever_their_rows_are(tmp_path, release):
    lines = [json.dumps(row) for row in make_rows()[:2]]
    lines += [
        "no JSON",
        "[]",
        '{"entity": "x", "candidates": 5}',
        '{"entity": "x", "candidates": [5, {"cui": 7}]}',
    ]
    path = tmp_path / "in.jsonl"
    path.write_text(
        "\n".join([*lines, json.dumps(make_rows()[0] | {"candidates": [{"cui": RENAL}]})])
    )
    (rows,) = read_rows(path)
    dictionary = Dictionary.from_umls_dir(release, candidate_cuis(rows.mappings()))
    assert dictionary.known([HEAD_COLD, CHILL, RENAL, "C9000001"])["names"] == 3
    completed = dictionary.add_to(rows.mappings())
    for row in (2, 3, 4, 5):
        with pytest.raises(InvalidRow):
            CandidateLists.from_rows(TypeHierarchy.built_in(), completed[row : row + 1])
    valid = [*completed[:2], *completed[6:]]
    scores = CandidateLists.from_rows(TypeHierarchy.built_in(), valid, ["synonym"]).scores[
        "synonym"
    ]
    assert len(scores) == 5 and np.isfinite(scores).all()


def test_a_row_in_error_is_found_without_reading_each_row_alone():
    sizes = []

    def read(rows):
        sizes.append(len(rows))
        if 700 in rows:
            raise ValueError("bad")

    assert row_errors(read, range(1_024)) == [None] * 700 + ["bad"] + [None] * 323
    assert len(sizes) == 21 and sum(sizes) < 4_096


def test_a_value_of_no_one_type_is_refused_where_it_is_read_alone():
    """By the row that has it; it comes back as it was."""
    rows = [
        {"entity": "cold", "x": 1, "candidates": [{"name": "a", "a_score": 0.5, "b_score": "x"}]},
        {"entity": "cold", "x": {"y": [None]}, "candidates": ["b", {"name": "a", "a_score": []}]},
    ]
    table = row_table(rows)
    assert mappings_of(table) == rows and mappings_of(table[1:]) == rows[1:]
    assert CandidateLists.from_table(HIERARCHY, table, ["c"]).unread_scores.keys() == {
        "a_score",
        "b_score",
    }
    for score, row, candidate in (("a", 1, 1), ("b", 0, 0)):
        with pytest.raises(InvalidRow, match=f"candidate {candidate}: {score}_score") as refused:
            CandidateLists.from_table(HIERARCHY, table, [score])
        assert refused.value.row == row


def test_the_example_is_the_mention_of_the_most_documents():
    heart = [{"name": "heart", "cui": "C1"}, {"name": "cold", "cui": "C2"}]
    unusable = [{"name": "liver", "cui": "C1"}]
    lists = make_lists(
        ["a heart", "liver", "heart", "heart", "liver", "liver"],
        [heart, unusable, heart, heart, unusable, unusable],
        types=[["T047"], [], ["T023"], ["T023"], [], []],
        gold=[0] * 6,
        documents=["1", "2", "3", "4", "5", "6"],
    )
    assert lists.example() == {
        "mention": "heart",
        "types": ["Body Part, Organ, or Organ Component"],
        "ids": ["C1", "C2"],
    }
    assert lists.take(np.array([1, 4, 5])).example() is None
