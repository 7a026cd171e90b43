"""CSV and TSV with one row a candidate: the same mentions as in JSON Lines, and each fault by its line."""

import csv
import json

import numpy as np
import pytest

from umls_reranker.core.errors import UserError
from umls_reranker.data.labelled_lists import read_labelled_lists
from umls_reranker.data.mention_files import open_mentions
from umls_reranker.data.semantic_types import TypeHierarchy

HEADER = "mention_id,doc_id,mention,cui,name,score,gold"
ROWS = (
    "1,d1,cold,C0009443,Common Cold,0.93,1",
    '1,d1,cold,C0009264,"Cold, Temperature",0.91,0',
    "2,d1,flu,C0021400,Influenza,,",
    "1,d2,ache,C0030193,Pain,5e-1,0",
)


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return path


def read(path, rows=10):
    batches = list(open_mentions(path).batches(rows))
    return [row for batch in batches for row in batch.rows()], [
        str(batch.position(row)) for batch in batches for row in range(len(batch))
    ]


@pytest.mark.parametrize("rows", [1, 10])
@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_rows_of_candidates_are_mentions_with_candidates(tmp_path, ending, rows):
    path = write(tmp_path / f"in{ending}", HEADER, *ROWS)
    if ending == ".tsv":
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.reader(stream))
        write(path, *("\t".join(line) for line in lines))
    mentions, positions = read(path, rows)
    assert mentions == [
        {
            "mention_id": "1",
            "doc_id": "d1",
            "entity": "cold",
            "cui": "C0009443",
            "candidates": [
                {"cui": "C0009443", "name": "Common Cold", "list_score": 0.93},
                {"cui": "C0009264", "name": "Cold, Temperature", "list_score": 0.91},
            ],
        },
        {
            "mention_id": "2",
            "doc_id": "d1",
            "entity": "flu",
            "candidates": [{"cui": "C0021400", "name": "Influenza", "list_score": None}],
        },
        {
            "mention_id": "1",
            "doc_id": "d2",
            "entity": "ache",
            "cui": "CUI-less",
            "candidates": [{"cui": "C0030193", "name": "Pain", "list_score": 0.5}],
        },
    ]
    assert positions == [f"{path}:2", f"{path}:4", f"{path}:5"]


def test_further_columns_go_to_the_mention_or_the_candidate(tmp_path):
    header = "mention_id,entity,left,right,entity_type,split,gold_cui,cui,name,semantic_types,bm25_score,source"
    first = 'm,cold,"a\nbad ", in May,T047|T184,dev,C0009443,C1,Cold,T070|T067,7,web'
    path = write(tmp_path / "in.csv", header, first, "m,,,,,,,C2,Chill,,nan,", "n,flu,,,,,,,,,,")
    mentions, positions = read(path)
    assert mentions == [
        {
            "mention_id": "m",
            "entity": "cold",
            "left": "a\nbad ",
            "right": " in May",
            "entity_type": ["T047", "T184"],
            "split": "dev",
            "cui": "C0009443",
            "candidates": [
                {"cui": "C1", "name": "Cold", "semantic_types": ["T070", "T067"], "bm25_score": 7.0, "source": "web"},
                {"cui": "C2", "name": "Chill", "bm25_score": None},
            ],
        },
        {"mention_id": "n", "entity": "flu", "candidates": []},
    ]
    assert positions == [f"{path}:2", f"{path}:5"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((HEADER.replace(",", ";"), *ROWS), ": missing columns: mention_id, mention, name; .*commas"),
        ((HEADER.replace("mention_id,", ""), *ROWS), ": missing columns: mention_id"),
        ((HEADER + ",gold_cui",), ": has gold and gold_cui; keep one"),
        ((HEADER + ",list_score",), ": has score and list_score; keep one"),
        ((HEADER + ",entity",), ": has mention and entity; keep one"),
        ((HEADER + ",name",), ": has two columns name"),
        ((HEADER + ",ranked",), " already has the column ranked"),
        ((), " is empty"),
        ((HEADER, ROWS[0], "1,d1,cold,C0009264,Cold, Temperature,0.91,0"), ":3: 8 fields, but the header has 7"),
        ((HEADER, ROWS[0], "1,d1"), ":3: 2 fields, but the header has 7"),
        (
            (HEADER, *ROWS, ROWS[0]),
            r":6: mention_id '1' of document 'd1' was already used in line 2, before other mentions",
        ),
        ((HEADER, ROWS[0], ROWS[1].replace("cold", "chill")), ":3: mention is 'chill', and 'cold' in line 2"),
        ((HEADER, ROWS[0], ROWS[1][:-1] + "1"), ":3: gold marks 'C0009264', and 'C0009443' in line 2"),
        ((HEADER, ROWS[0][:-1] + "2"), ":2: gold is '2'; use 1 for the gold concept"),
        ((HEADER, ROWS[0][1:]), ":2: mention_id is missing"),
        ((HEADER, '1,d1,"cold"s,C0009443,Common Cold,0.93,1'), ":2: .* expected after '\"'"),
    ],
)
def test_what_will_not_do_is_one_sentence(tmp_path, lines, reason):
    path = tmp_path / "in.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=rf"in\.csv{reason}") as refusal:
        read(path)
    assert "\n" not in str(refusal.value)


def test_a_text_for_a_score_is_refused_with_line_and_candidate(tmp_path):
    path = write(tmp_path / "in.csv", HEADER, *ROWS[:3], "3,d1,ache,C0030193,Pain,high,0")
    (batch,) = open_mentions(path).batches(10)
    (fault,) = batch.faults(TypeHierarchy.built_in(), ["list"])
    assert str(batch.position(fault[0])) == f"{path}:5"
    assert fault[1].startswith("candidate 0 has a list_score that is not a number: 'high'")


def test_labelled_rows_are_read_as_the_same_lists_in_json_lines(tmp_path):
    rows = [f"{n},d{n // 2},m{n},C000000{place},name {place},{place / 8},{int(place == n % 4)}"
            for n in range(24) for place in range(3)]  # fmt: skip
    path = write(tmp_path / "in.csv", HEADER, *rows)
    mentions, _ = read(path, 100)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mentions))
    hierarchy = TypeHierarchy.built_in()
    labelled, same = (read_labelled_lists(tmp_path / name, hierarchy) for name in ("in.csv", "in.jsonl"))
    assert labelled.not_in_list == same.not_in_list == 6
    assert labelled.lists.annotations.gold.tolist() == [n % 4 if n % 4 < 3 else -1 for n in range(24)]
    np.testing.assert_array_equal(labelled.lists.scores["list"], np.tile([0, 1 / 8, 1 / 4], 24))
    assert [str(labelled.positions[n]) for n in (0, 23)] == [f"{path}:2", f"{path}:71"]
