"""Dictionaries as one file of names."""

import gzip
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from umls_reranker.core.errors import UserError
from umls_reranker.vocab.concepts import (
    Concept,
    ConceptTable,
    concept_table,
    iter_concepts,
    read_name_concepts,
    write_concepts,
)
from umls_reranker.vocab.types import TypeHierarchy

ROWS = [
    {"id": "D2|10", "name": "flu", "preferred": "", "semantic_type": "T047", "source": "A"},
    {"id": "007", "name": "NA", "preferred": "0", "semantic_type": "no such type", "source": "A"},
    {
        "id": " D2",
        "name": " the | flu ",
        "preferred": "true",
        "semantic_type": "Sign or Symptom|t047",
        "source": "B",
    },
    {"id": "D2|007|11", "name": "flu", "preferred": "no", "semantic_type": "", "source": "B"},
]
CONCEPTS = [
    Concept("007", "NA"),
    Concept("D2", "the | flu", ("flu",), ("T184", "T047"), "", ("10", "11")),
]


def write(path, rows):
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
        return path
    if path.suffix == ".jsonl":
        lines = [json.dumps(row | {"preferred": row["preferred"] == "true"}) for row in rows]
    else:
        delimiter = {".csv": ",", ".tsv": "\t"}[path.suffix]
        lines = [delimiter.join(values) for values in (rows[0], *map(dict.values, rows))]
    path.write_bytes(gzip.compress("\r\n".join(lines).encode()))
    return path


def read(path):
    table, report = read_name_concepts(path, TypeHierarchy.built_in())
    return list(iter_concepts(table)), report


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_has_a_name_a_row(tmp_path, ending):
    path = write(tmp_path / f"names.{ending}", ROWS)
    assert read(path) == (CONCEPTS, {"names": 3, "unknown_types": ["no such type"]})


def test_ids_blank_rows_and_long_cells_of_tables_are_read(tmp_path):
    long = "x" * 200_000
    rows = f'ids,name,note\nD1|D2,flu,"{long}\n"\n,,\nD3,cold,\n'
    (tmp_path / "names").write_text(rows, newline="")
    assert read(tmp_path / "names")[0] == [
        Concept("D1", "flu", alternates=("D2",)),
        Concept("D3", "cold"),
    ]


def test_quotes_of_tsv_are_a_part_of_names_unless_they_enclose_them(tmp_path):
    rows = 'id\tname\nD1\t"Lop" ear\nD2\t"a ""b"""\n"D3"\t"c\nD4\td\n'
    (tmp_path / "names").write_text(rows)
    names = {"D1": '"Lop" ear', "D2": 'a "b"', "D3": '"c', "D4": "d"}
    assert read(tmp_path / "names")[0] == [Concept(*item) for item in names.items()]


def test_numbers_of_json_are_ids_and_the_first_name_is_preferred(tmp_path):
    (tmp_path / "names").write_text(
        '{"name": "one", "id": 73211009}\n{"name": "two", "id": 73211009}\n'
    )
    assert read(tmp_path / "names")[0] == [Concept("73211009", "one", ("two",))]


def test_a_line_of_biosyn_is_a_concept_with_alternate_ids(tmp_path):
    lines = '\ufeffD2|10|B1||flu|the flu|flu\r\nC1||cold, "common"\n\nD2|11||grippe|\nB1||own\n'
    (tmp_path / "names").write_text(lines, encoding="utf-8", newline="")
    concepts = [
        Concept("B1", "own"),
        Concept("C1", 'cold, "common"'),
        # Another concept's own id is no alternate.
        Concept("D2", "flu", ("the flu", "grippe"), alternates=("10", "11")),
    ]
    assert read(tmp_path / "names")[0] == concepts
    write_concepts(concept_table(concepts), TypeHierarchy([]), tmp_path / "written")
    table = ConceptTable.load(tmp_path / "written")
    assert table.rows(["D2", "10", "11", "B1", "", "12"]).tolist() == [2, 2, 2, 0, -1, -1]


@pytest.mark.parametrize(
    "content, named",
    [
        (b"", "names is empty"),
        (b"id,name\n", "names:1"),
        (b"id,name\nD1,flu\n |x,cold\n", "names:3"),
        (b'{"id": "D1", "name": "flu"}\n\n{"id": "D2"}\n', "names:3"),
        (b'{"id": "D1", "name": ["flu"]}\n', "names:1"),
        (b'{"id": "D1", "name": "flu", "x": ' + b"[" * 100_000 + b"\n", "names:1"),
        (b'{"id": "D1", "name": "\\ud800"}\n', "names:1"),
        (b"D1||flu\n\nD2|cold\n", "names:3"),
        (b"D1||\xff\n", "names cannot"),
        (b"id,name\nD1,\xff\n", "names cannot"),
        (b"id,name\nD1,flu,x\n", "names:2"),
        # A quote that is not closed takes in the next rows.
        (b'id,name\nD1,flu\nD2,"a b\nD3,c\n', "names:3"),
        (b'id,name\nD1,"a b\nD2,c"\nD3,d\n', "names:2"),
        (b'id,name\nD1,"a" b\n', "names:2"),
        (b"id,label\nD1,flu\n", "names cannot .*name"),
        (b"PAR1", "names cannot"),
    ],
)
def test_files_that_are_no_dictionary_are_refused(tmp_path, content, named):
    (tmp_path / "names").write_bytes(content)
    with pytest.raises(UserError, match=named):
        read(tmp_path / "names")
