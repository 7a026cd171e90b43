"""Corrections as further rows of a file of labelled lists: what they carry, what they replace, what is left out."""

import numpy as np
import pytest
from list_fixtures import write_lists

from umls_reranker.core.errors import UserError
from umls_reranker.data.mentions import FEEDBACK_PREFIX
from umls_reranker.data.semantic_types import TypeHierarchy
from umls_reranker.review.corrections import add_feedback
from umls_reranker.review.list_corrections import lists_with_corrections
from umls_reranker.review.review_queue import RANDOM

HIERARCHY = TypeHierarchy.built_in()
COLD = {"name": "Common Cold", "cui": "C0009443", "sapbert_score": 0.9}
WEATHER = {"name": "Cold Temperature", "cui": "C0009264", "sapbert_score": 0.5}


def listed(number, **more):
    """A mention of a document of its own, of which the first candidate is correct."""
    row = {"doc_id": f"d{number}", "mention_id": 0, "entity": f"cold {number}", "candidates": [COLD, WEATHER]}
    return row | {"cui": "C0009443"} | more


def reviewed(row, chosen="C0009264", **more):
    """A reviewed line of a log."""
    top = {"name": "Common Cold", "cui": "C0009443", "score": 0.6, "margin": 0.3, "tier": "medium", "accepted": True}
    row = {name: value for name, value in row.items() if name != "cui"}
    return row | {"ranked": [top] if row["candidates"] else [], "chosen": chosen} | more


@pytest.fixture
def joined(tmp_path):
    def read(rows, lines):
        file, log = write_lists(tmp_path / "old.jsonl", rows), write_lists(tmp_path / "reviewed.jsonl", lines)
        add_feedback(tmp_path / "corrections", [log])
        return lists_with_corrections(file, HIERARCHY, tmp_path / "corrections")

    return read


def summary(labelled):
    annotations = labelled.lists.annotations
    columns = annotations.documents, labelled.lists.mentions, annotations.cuis, annotations.gold, annotations.certifies
    return list(zip(*(list(column) for column in columns), strict=True))


def test_corrections_follow_the_rows_and_only_those_drawn_at_random_certify(joined):
    file = [listed(number) for number in range(10)]
    labelled, report = joined(
        file,
        [
            reviewed(listed("new 1"), "C0009443", reason=RANDOM),
            reviewed(listed("new 2"), reason="near the threshold"),
            reviewed(listed("new 3"), None, reason=RANDOM),
            reviewed(listed("new 4"), "C0000001"),
            reviewed(listed(0) | {"mention_id": 1, "entity": "chill"}),
        ],
    )
    assert summary(labelled)[:10] == [(f"d{n}", f"cold {n}", "C0009443", 0, True) for n in range(10)]
    assert summary(labelled)[10:] == [
        ("dnew 1", "cold new 1", "C0009443", 0, True),
        ("dnew 2", "cold new 2", "C0009264", 1, False),
        ("dnew 3", "cold new 3", "CUI-less", -1, True),
        ("dnew 4", "cold new 4", "C0000001", -1, False),
        ("d0", "chill", "C0009264", 1, False),
    ]
    nothing = {"without_candidates": 0, "without_scores": 0, "without_cui": 0}
    assert report == {"used": 5, "certifying": 2, "replaced": 0, "left_out": nothing}
    assert labelled.not_in_list == 2 and labelled.lists.scores["sapbert"][20:].tolist() == [0.9, 0.5] * 5
    assert str(labelled.positions[11]).endswith("corrections, row 2")


def test_a_correction_of_a_mention_of_the_file_replaces_its_row_and_certifies_as_that_did(joined):
    file = [listed(number) for number in range(12)]
    del file[1]["mention_id"], file[2]["mention_id"]
    labelled, report = joined(
        [*file, listed(3) | {"mention_id": 1}, file[2] | {"left": "a "}],
        [
            # By its id, whatever its text; numbers may have become texts.
            reviewed(listed(0) | {"mention_id": "0", "entity": "Cold"}),
            # Either has no id: by its text and context.
            reviewed(listed(1)),
            reviewed({name: value for name, value in listed(2).items() if name != "mention_id"}),
            # Another id is another mention.
            reviewed(listed(3) | {"mention_id": 2}),
        ],
    )
    rows = summary(labelled)
    assert report["replaced"] == 3 and report["certifying"] == 3 and len(rows) == len(file) + 2 - 3 + 4
    assert [row for row in rows if row[0] in ("d0", "d1", "d2")] == [
        ("d2", "cold 2", "C0009443", 0, True),
        ("d0", "Cold", "C0009264", 1, True),
        ("d1", "cold 1", "C0009264", 1, True),
        ("d2", "cold 2", "C0009264", 1, True),
    ]
    assert [row[2:] for row in rows if row[0] == "d3"] == [
        ("C0009443", 0, True),
        ("C0009443", 0, True),
        ("C0009264", 1, False),
    ]


def test_what_cannot_be_read_like_the_lists_is_left_out_and_counted(joined):
    def scored(score):
        return [COLD | {"sapbert_score": score}, WEATHER]

    labelled, report = joined(
        [listed(number) for number in range(10)],
        [
            reviewed(listed("a", candidates=[]), None),
            reviewed(listed("b", candidates=[{"name": "Cold", "cui": "C0009443"}])),
            # The range of the lists is 0.5 to 0.9, with a tenth on each side.
            reviewed(listed("c", candidates=scored(0.95))),
            reviewed(listed("d", candidates=scored(0.47))),
            reviewed(listed("e", candidates=scored(float("1e9")))),
            reviewed(listed("f", candidates=[COLD, {"name": "Cold", "sapbert_score": 0.6}]), "Cold"),
            reviewed(listed("g", candidates=[COLD | {"cui": "C123"}])),
            reviewed(listed("h", candidates=[COLD | {"cui": "HP:0000001"}]), "C123"),
            reviewed(listed("i", candidates=[COLD | {"cui": "HP:0000001"}]), "HP:0000001"),
        ],
    )
    assert [row[0] for row in summary(labelled)[10:]] == ["dd", "di"]
    left_out = {"without_candidates": 1, "without_scores": 3, "without_cui": 3}
    assert report == {"used": 2, "certifying": 0, "replaced": 0, "left_out": left_out}


def test_a_correction_is_reduced_to_what_the_lists_carry(joined):
    rich = [COLD | {"preferred_name": "Cold", "definition": "", "semantic_types": ["T047"], "bm25_score": 3.0}]
    line = reviewed(listed("new", candidates=rich, left="a ", right=" b", entity_type="T047"))
    labelled, _ = joined([listed(number) for number in range(10)], [line])
    lists = labelled.lists
    assert list(lists.scores) == ["sapbert"] and lists.lefts[10] == lists.rights[10] == ""
    assert not lists.types.is_known.any() and lists.candidate_types.codes.tolist() == [-1] * 21
    assert lists.preferred_names.null_count == lists.definitions.null_count == 21
    file = [listed(number, candidates=rich, left="a", entity_type="Disease or Syndrome") for number in range(10)]
    bare = reviewed(listed("bare", candidates=[COLD | {"bm25_score": 3.0}]))
    labelled, report = joined(file, [line, bare])
    lists = labelled.lists
    assert report["used"] == 2 and sorted(lists.scores) == ["bm25", "sapbert"]
    assert (lists.lefts[10], lists.rights[10], lists.types[10]) == ("a ", " b", ("T047",))
    assert lists.preferred_names.to_pylist()[10:] == ["Cold", None]
    assert lists.definitions.to_pylist()[10:] == ["", None]
    assert list(lists.candidate_types)[10:] == [("T047",), ()] and lists.candidate_types.codes[11] == -1
    assert lists.types[11] == ()


def test_a_dictionary_adds_to_corrections_what_it_adds_to_the_lists(tmp_path):
    meta = tmp_path / "META"
    meta.mkdir()
    bare = [{"cui": cui, "sapbert_score": 0.5} for cui in ("C0009443", "C0009264")]
    names = {"C0009443": "Cold", "C0009264": "Cold Temperature", "C0021400": "Influenza"}
    types = "".join(f"{cui}|T047|B2.2.1.2.1|Disease or Syndrome|AT1||\n" for cui in names)
    (meta / "MRSTY.RRF").write_text(types, encoding="utf-8")
    atoms = [
        f"{cui}|ENG|P|L{n}|PF|S{n}|Y|A{n}||M||MTH|PN|{n}|{name}|0|N|256|\n"
        for n, (cui, name) in enumerate(names.items())
    ]
    (meta / "MRCONSO.RRF").write_text("".join(atoms), encoding="utf-8")
    # Scores of synonyms from 0 to 1.
    file = [listed(number, entity="cold" if number else "?", candidates=bare) for number in range(10)]
    file = write_lists(tmp_path / "old.jsonl", file)
    # Not in the file.
    candidates = [
        *(item | {"name": "cold"} for item in bare),
        {"name": "flu", "cui": "C0021400", "sapbert_score": 0.5},
    ]
    lines = [reviewed(listed("new", entity="influenza", candidates=candidates))]
    add_feedback(tmp_path / "corrections", [write_lists(tmp_path / "log.jsonl", lines)])
    labelled, report = lists_with_corrections(file, HIERARCHY, tmp_path / "corrections", meta)
    lists = labelled.lists
    assert report["used"] == 1 and sorted(lists.scores) == ["sapbert", "synonym"]
    assert lists.preferred_names.to_pylist()[20:] == [*names.values()] and lists.scores["synonym"][22] == 1
    assert list(lists.candidate_types)[20:] == [("T047",)] * 3


def test_corrections_without_a_document_may_all_be_of_one(joined):
    lines = [reviewed(listed(number, doc_id=None, mention_id=None), reason=RANDOM) for number in range(2)]
    labelled, report = joined([listed(number) for number in range(10)], lines)
    assert [(row[0], row[4]) for row in summary(labelled)[10:]] == [(FEEDBACK_PREFIX, False)] * 2
    assert report["certifying"] == 0


def test_ids_that_a_table_program_has_rewritten_are_those_of_the_log(tmp_path):
    file = write_lists(tmp_path / "old.parquet", [listed(n, doc_id=float(n), mention_id=7.0) for n in range(10)])
    add_feedback(
        tmp_path / "corrections",
        [write_lists(tmp_path / "log.jsonl", [reviewed(listed(3, doc_id=3, mention_id=7))])],
    )
    labelled, report = lists_with_corrections(file, HIERARCHY, tmp_path / "corrections")
    assert report["replaced"] == 1 and labelled.lists.annotations.documents.tolist()[-1] == "3"
    assert np.count_nonzero(labelled.lists.annotations.documents == "3") == 1


def test_a_correction_that_cannot_be_read_is_named(joined):
    lines = [reviewed(listed("new")), reviewed(listed("blank", candidates=[COLD | {"name": " "}]))]
    with pytest.raises(UserError, match=r"corrections, row 2: candidate 0 has a blank name"):
        joined([listed(number) for number in range(10)], lines)


def test_a_folder_of_an_older_version_is_refused_with_the_way_out(tmp_path):
    from datasets import Dataset

    file = write_lists(tmp_path / "old.jsonl", [listed(number) for number in range(10)])
    Dataset.from_dict({"key": ["a"], "cuis": [["C0009443"]]}).save_to_disk(str(tmp_path / "corrections"))
    with pytest.raises(UserError, match="of another version; add the reviewed lines again, to a new folder"):
        lists_with_corrections(file, HIERARCHY, tmp_path / "corrections")
