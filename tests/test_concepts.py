import json

import datasets
import numpy as np
import pytest
from data_fixtures import VOCABULARY, write_rrf, write_semantic_network
from hypothesis import given
from hypothesis import strategies as st

from umls_reranker.data import concepts as concepts_module
from umls_reranker.data.concepts import CONCEPT_FEATURES, Concept, ConceptTable, normalize_name, write_concepts
from umls_reranker.data.rrf import read_rrf_concepts
from umls_reranker.data.semantic_types import TypeHierarchy
from umls_reranker.errors import UserError

NO_TYPES = TypeHierarchy.from_edges([])
CONCEPTS = [
    Concept("C0000001", "one", ("I", "eins"), ("T1", "T2"), "The first number."),
    Concept("C0000003", "three", (), ("T2",)),
    Concept("C0000020", "twenty", ("XX",), ("T1",)),
]


@pytest.fixture
def table(tmp_path):
    write_concepts(CONCEPTS, NO_TYPES, tmp_path / "concepts", "f")
    return ConceptTable.load(tmp_path / "concepts")


def test_what_is_written_is_read(table):
    assert len(table) == 3
    assert table.name_count == 6
    assert table.cuis.tolist() == ["C0000001", "C0000003", "C0000020"]
    assert [
        Concept(str(table.cuis[row]), *_names(table, row), tuple(table.semantic_types(row)), table.definition(row))
        for row in range(3)
    ] == CONCEPTS
    assert table.name(np.int64(2)) == "twenty"


def _names(table, row):
    name, *synonyms = table.names(row)
    return name, tuple(synonyms)


def test_rows_of_cuis(table):
    wanted = ["C0000020", "C0000002", "", "C0000001", "C0000020x", "C9999999", "C0000020"]
    rows = table.rows(wanted)
    assert rows.tolist() == [2, -1, -1, 0, -1, -1, 2]
    assert rows.dtype == np.int64
    assert table.rows(np.array(wanted)).tolist() == rows.tolist()
    assert table.rows([]).shape == (0,)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 6, 100])
def test_names_come_in_row_order_in_batches(table, batch_size, monkeypatch):
    monkeypatch.setattr(concepts_module, "BATCH_ROWS", 2)
    batches = list(table.iter_names(batch_size))
    assert [len(names) for _, names in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert np.concatenate([rows for rows, _ in batches]).tolist() == [0, 0, 0, 1, 2, 2]
    assert [name for _, names in batches for name in names] == ["one", "I", "eins", "three", "twenty", "XX"]


def test_rows_of_a_type(table):
    assert table.type_rows("T1").tolist() == [0, 2]
    assert table.type_rows("T2").tolist() == [0, 1]
    assert table.type_rows("T3").tolist() == []
    assert table.type_rows("T2").dtype == np.int64


def test_a_table_without_any_type(tmp_path):
    write_concepts([Concept("C0000001", "one")], NO_TYPES, tmp_path, "f")
    assert ConceptTable.load(tmp_path).type_rows("T1").tolist() == []


def test_unsorted_concepts_give_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(concepts_module, "BATCH_ROWS", 2)
    for folder, order in (("sorted", CONCEPTS), ("unsorted", CONCEPTS[::-1])):
        assert write_concepts(order, NO_TYPES, tmp_path / folder, "f") == 3
    files = {path.name: path.read_bytes() for path in (tmp_path / "sorted").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "unsorted").iterdir()} == files
    assert len(files) == 4


@pytest.mark.parametrize("order", [[0, 1, 1], [1, 0, 1], [1, 0, 2, 2]])
def test_a_cui_that_comes_twice_is_refused(tmp_path, order):
    with pytest.raises(UserError, match="comes twice"):
        write_concepts([CONCEPTS[place] for place in order], NO_TYPES, tmp_path, "f")


def test_no_concept_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no concept to write"):
        write_concepts([], NO_TYPES, tmp_path, "f")


def test_the_miniature_release_with_its_types(tmp_path):
    network = write_semantic_network(tmp_path / "NET")
    hierarchy = TypeHierarchy.from_umls(network / "SRDEF", network / "SemGroups.txt")
    write_concepts(read_rrf_concepts(write_rrf(tmp_path / "META")), hierarchy, tmp_path / "concepts", "f")
    table = ConceptTable.load(tmp_path / "concepts")
    assert len(table) == len(VOCABULARY)
    assert table.hierarchy.chain("T047")[-1] == "group:DISO"
    assert table.type_rows("T047").tolist() == list(range(12))
    dataset = datasets.load_from_disk(str(tmp_path / "concepts"))
    assert dataset.features == CONCEPT_FEATURES
    assert dataset[3]["synonyms"] == ["cold", "head cold"]


def test_broken_folders_are_named(tmp_path, table):
    with pytest.raises(UserError, match="absent is not a concept folder"):
        ConceptTable.load(tmp_path / "absent")
    (tmp_path / "concepts" / "semantic_types.json").write_text(json.dumps({"schema_version": 9}))
    with pytest.raises(UserError, match="schema_version 9"):
        ConceptTable.load(tmp_path / "concepts")
    data = next((tmp_path / "concepts").glob("*.arrow"))
    for content in (b"", b"not arrow", data.read_bytes()[:900]):
        data.write_bytes(content)
        with pytest.raises(UserError, match="concepts is not a concept folder"):
            ConceptTable.load(tmp_path / "concepts")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Diabetes-Mellitus,  type II", "diabetes mellitus type ii"),
        ("  (diabetes) mellitus_type\tII ", "diabetes mellitus type ii"),
        ("\uff24iabetes", "diabetes"),  # full-width D
        ("STRASSE", "strasse"),
        ("Stra\u00dfe", "strasse"),
        ("Me\u0301nie\u0300re", "m\u00e9ni\u00e8re"),  # combining accents
        ("M\u00c9NI\u00c8RE", "m\u00e9ni\u00e8re"),
        ("\u00b5g/\u03bcL", "\u03bcg \u03bcl"),  # micro sign and Greek mu
        ("++ ", "++"),
        ("", ""),
        ("  ", ""),
    ],
)
def test_normalized_names(text, form):
    assert normalize_name(text) == form


@given(st.text())
def test_normalizing_twice_changes_nothing_and_only_blank_text_is_empty(text):
    form = normalize_name(text)
    assert normalize_name(form) == form
    assert bool(form) == bool(text.strip())


@given(st.text(st.characters(codec="ascii")))
def test_case_never_matters(text):
    assert normalize_name(text.upper()) == normalize_name(text.lower()) == normalize_name(text)
