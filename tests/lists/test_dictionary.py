"""What a folder of the UMLS adds to candidates that have a CUI."""

import json

import numpy as np
import pytest
from data_fixtures import write_rrf
from list_fixtures import write_lists

from umls_reranker.core.errors import UserError
from umls_reranker.lists.candidate_lists import CandidateLists
from umls_reranker.lists.columns import InvalidRow
from umls_reranker.lists.dictionary import Dictionary
from umls_reranker.lists.labels import candidate_cuis, read_labelled_lists
from umls_reranker.lists.read import read_rows
from umls_reranker.serving.list_description import describe_lists
from umls_reranker.vocab.types import TypeHierarchy

COLD = "C9000004"
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
        {"cui": f" {COLD}", "name": " ", "rank": 1},
        {
            "cui": COLD,
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
        {"cui": f" {COLD}", "name": "common cold", "rank": 1} | of_cold,
        given[1],
        {"cui": "C0000001", "name": "cold", "preferred_name": "cold", "synonym_score": 1}
        | no_types,
        *(
            dict.fromkeys(("cui", "name", "preferred_name"), cui) | no_types | {"synonym_score": 0}
            for cui in ("C0000001", "HP:0000001")
        ),
        *given[5:],
    ]
    assert given[0] == {"cui": f" {COLD}", "name": " ", "rank": 1}
    assert dictionary.known([COLD, RENAL, "C0000001", "a long id"]) == {
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
    assert (
        scores[0][1] == scores[1][0] == 1
        and scores[0][0] < 0.5
        and scores[1][1] < 0.5
        and scores[2:] == [[0], []]
    )


def test_names_of_other_languages_and_suppressed_ones_are_left_out(release):
    line = "C9000004|{}|S|L1|PF|S1|N|A1||||MINI|PT|x|{}|0|{}||\n"
    with (release / "MRCONSO.RRF").open("a", encoding="utf-8") as stream:
        stream.write(line.format("GER", "schnupfen", "N") + line.format("ENG", "chilliness", "O"))
        stream.write("C0000001|ENG|P|L1|PF|S1|Y|A1||||MINI|PT|x|gone|0|O||\n")
    dictionary = Dictionary.from_umls_dir(release, [COLD, "C0000001"])
    for mention in ("schnupfen", "chilliness"):
        assert add(dictionary, mention, {"cui": COLD})[0]["synonym_score"] < 0.3
    assert add(dictionary, "gone", {"cui": "C0000001"})[0]["name"] == "C0000001"
    in_german = Dictionary.from_umls_dir(release, languages=("GER",))
    assert add(in_german, "Schnupfen", {"cui": COLD})[0]["synonym_score"] == 1


@pytest.mark.parametrize(
    ("missing", "keys"),
    [
        ("MRCONSO.RRF", {"cui", "semantic_types"}),
        ("MRSTY.RRF", {"cui", "name", "preferred_name", "synonym_score"}),
    ],
)
def test_one_of_the_two_files_is_enough(release, missing, keys):
    (release / missing).unlink()
    for cuis in (None, [COLD]):
        (candidate,) = add(Dictionary.from_umls_dir(release, cuis), "cold", {"cui": COLD})
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
    dictionary = Dictionary.from_umls_dir(release, [COLD, "C0000001", "an id of other length", ""])
    assert dictionary.known([COLD, CHILL]) == {"names": 1, "semantic types": 1}
    assert Dictionary.from_umls_dir(release, []).known([COLD]) == {"names": 0, "semantic types": 0}


def make_rows():
    candidates = [{"cui": COLD, "my_score": 0.5}, {"cui": CHILL, "my_score": 0.25}]
    mention = {"entity": "head cold", "cui": COLD, "candidates": candidates}
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
    assert dictionary.known([COLD, CHILL, RENAL, "C9000001"])["names"] == 3
    completed = dictionary.add_to(rows.mappings())
    for row in (2, 3, 4, 5):
        with pytest.raises(InvalidRow):
            CandidateLists.from_rows(TypeHierarchy.built_in(), completed[row : row + 1])
    valid = [*completed[:2], *completed[6:]]
    scores = CandidateLists.from_rows(TypeHierarchy.built_in(), valid, ["synonym"]).scores[
        "synonym"
    ]
    assert len(scores) == 5 and np.isfinite(scores).all()
