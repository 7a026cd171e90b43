import gzip
import json
import shutil
import unicodedata
from itertools import pairwise
from types import SimpleNamespace

import datasets
import numpy as np
import pyarrow as pa
import pytest
from data_fixtures import TYPES
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from umls_reranker.core.arrow_files import arrow_writer, open_arrow
from umls_reranker.core.errors import UserError
from umls_reranker.vocab import normalization
from umls_reranker.vocab.code_systems import Code, code_of
from umls_reranker.vocab.codes import CODES_FOLDER, write_codes
from umls_reranker.vocab.concept_codes import ConceptCodes
from umls_reranker.vocab.concept_folder import write_concepts
from umls_reranker.vocab.concept_table import ConceptTable
from umls_reranker.vocab.concepts import Concept, concept_table, iter_concepts
from umls_reranker.vocab.joined_concepts import join_concepts
from umls_reranker.vocab.name_files import read_name_concepts
from umls_reranker.vocab.name_rows import read_name_rows
from umls_reranker.vocab.normalization import normalize_name, normalize_names
from umls_reranker.vocab.ontology import read_obo_concepts
from umls_reranker.vocab.types import SemanticType, TypeHierarchy

NO_TYPES = TypeHierarchy([])
CONCEPTS = [
    Concept("C0000001", "one", ("I", "eins"), ("T1", "T2"), "The first number."),
    Concept("C0000003", "three", (), ("T2",)),
    Concept("C0000020", "twenty", ("XX",), ("T1",)),
]


@pytest.fixture
def table(tmp_path):
    write_concepts(concept_table(CONCEPTS), NO_TYPES, tmp_path / "concepts")
    return ConceptTable.load(tmp_path / "concepts")


def cuis_of(table):
    return table.cuis_of(np.arange(len(table))).to_pylist()


def test_what_is_written_is_read(table):
    assert len(table) == 3 and table.name_counts.sum() == 6
    for row, concept in enumerate(CONCEPTS):
        assert table.names(np.int64(row)) == [concept.name, *concept.synonyms]
        assert tuple(table.semantic_types(row)) == concept.semantic_types
        assert table.column("definition", np.array([row]))[0].as_py() == concept.definition
    assert table.cuis_of(np.array([2, 0, 2])).to_pylist() == ["C0000020", "C0000001", "C0000020"]
    assert cuis_of(table) == table.cuis.to_pylist() == [concept.cui for concept in CONCEPTS]


def test_the_row_of_an_unknown_cui_has_nothing(table):
    assert (table.names(-1), table.semantic_types(-1)) == ([], [])
    rows = np.array([-1, 2, -1, 0])
    assert table.column("name", rows).to_pylist() == [None, "twenty", None, "one"]
    names, offsets = table.names_of(rows)
    assert (names.to_pylist(), offsets.tolist()) == (
        ["twenty", "XX", "one", "I", "eins"],
        [0, 0, 2, 2, 5],
    )
    assert table.names_of(np.array([-1]))[1].tolist() == [0, 0]


def test_rows_of_cuis(table):
    wanted = ["C0000020", "C0000002", "", "C0000001", "C0000020x", "C9999999", "C0000020"]
    rows = table.rows(wanted)
    assert rows.tolist() == [2, -1, -1, 0, -1, -1, 2]
    assert table.rows(np.array(wanted)).tolist() == rows.tolist()
    assert table.rows([]).shape == (0,)


def test_names_of_many_rows(table):
    names, offsets = table.names_of(np.array([2, 0, 2, 1]))
    assert names.to_pylist() == ["twenty", "XX", "one", "I", "eins", "twenty", "XX", "three"]
    assert offsets.tolist() == [0, 2, 5, 7, 8]
    assert table.column("name", np.array([1, 0, 1])).to_pylist() == ["three", "one", "three"]
    assert [len(part) for part in table.names_of(np.empty(0, np.int64))] == [0, 1]


HOMONYMS = [
    Concept("C0000001", "Cold", ("common cold", "COLD")),
    Concept("C0000002", "++"),
    Concept("C0000003", "low temperature", ("cold.", "K\u00e4lte")),
    Concept("C0000004", "coldness"),
]
WANTED = ["cold", "COMMON-cold", "warm", "", "  ", "+ +", "++", "k\u00c4lte", "Coldness"]
NAMED = [[0, 2], [0], [], [], [], [], [1], [2], [3]]


def test_rows_of_names(tmp_path):
    write_concepts(concept_table(HOMONYMS), NO_TYPES, tmp_path)
    rows, offsets = ConceptTable.load(tmp_path).rows_named(WANTED)
    assert [rows[start:end].tolist() for start, end in pairwise(offsets)] == NAMED


def test_ids_of_any_length_are_found(tmp_path):
    ids = ["C0000001", "HP:0000118", "MESH:D003920", "\u00fc"]
    write_concepts(concept_table(Concept(cui, "name") for cui in ids[::-1]), NO_TYPES, tmp_path)
    table = ConceptTable.load(tmp_path)
    assert table.rows([*ids, "HP:00001180"]).tolist() == [0, 1, 2, 3, -1]
    assert table.cuis_of(np.arange(4)).to_pylist() == ids
    with pytest.raises(UserError, match="''"):
        write_concepts(concept_table([Concept("", "name")]), NO_TYPES, tmp_path)


@pytest.mark.parametrize("concepts", [1, 2, 3, 100])
def test_names_come_in_row_order_in_batches(table, concepts):
    batches = list(table.iter_names(concepts))
    assert [len(set(rows)) for rows, _ in batches[:-1]] == [concepts] * (len(batches) - 1)
    assert np.concatenate([rows for rows, _ in batches]).tolist() == [0, 0, 0, 1, 2, 2]
    assert [name for _, names in batches for name in names] == [
        "one",
        "I",
        "eins",
        "three",
        "twenty",
        "XX",
    ]


def test_rows_of_a_type(table):
    rows = {kind: table.type_rows(kind).tolist() for kind in ("T1", "T2", "T3")}
    assert rows == {"T1": [0, 2], "T2": [0, 1], "T3": []}


def test_unsorted_concepts_give_the_same_bytes(tmp_path):
    for folder, order in (("sorted", CONCEPTS), ("unsorted", CONCEPTS[::-1])):
        assert write_concepts(concept_table(order), NO_TYPES, tmp_path / folder) == 3
    files = {path.name: path.read_bytes() for path in (tmp_path / "sorted").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "unsorted").iterdir()} == files
    assert len(files) == 4


# In the order of the dictionaries.
OTHERS = ("M:2", "O:2", "M:4")


def test_concepts_of_several_dictionaries_are_joined_by_their_ids():
    first = [
        Concept("C2", "two", ("II",), ("T1",), alternates=("M:2",)),
        Concept("C3", "three"),
    ]
    second = [
        Concept("C3", "drei", ("three",), ("T2",), "A number."),
        Concept("M:2", "zwei", ("two",), ("T3",), "Another.", ("O:2",)),
        Concept("M:4", "vier", alternates=("C2",)),
        Concept("M:5", "five", alternates=("X",)),
        Concept("M:6", "six", alternates=("X",)),
    ]
    third = [Concept("O:2", "due")]
    table, report = join_concepts([concept_table(each) for each in (first, second, third)])
    assert list(iter_concepts(table)) == [
        Concept("C2", "two", ("II", "zwei", "vier", "due"), ("T1",), "Another.", OTHERS),
        Concept("C3", "three", ("drei",), ("T2",), "A number."),
        Concept("M:5", "five", alternates=("X",)),
        Concept("M:6", "six", alternates=("X",)),
    ]
    assert report == {"joined_concepts": 4, "repeated_names": 2}


@pytest.mark.parametrize("order", [[0, 1, 1], [1, 0, 1]])
def test_a_cui_that_comes_twice_is_refused(tmp_path, order):
    with pytest.raises(UserError, match="C00000"):
        write_concepts(concept_table(CONCEPTS[place] for place in order), NO_TYPES, tmp_path)


def test_broken_folders_are_named(tmp_path, table):
    with pytest.raises(UserError, match="absent"):
        ConceptTable.load(tmp_path / "absent")
    (tmp_path / "concepts" / "semantic_types.json").write_text(json.dumps({"schema_version": 9}))
    with pytest.raises(UserError, match="schema_version 9"):
        ConceptTable.load(tmp_path / "concepts")
    (tmp_path / "concepts" / "semantic_types.json").write_text(json.dumps(NO_TYPES.to_dict()))
    for path in (tmp_path / "concepts").glob("*.arrow"):
        whole = path.read_bytes()
        for content in (b"", b"not arrow", whole[:150]):
            path.write_bytes(content)
            with pytest.raises(UserError, match="concepts"):
                ConceptTable.load(tmp_path / "concepts")
        path.write_bytes(whole)


def test_a_folder_with_another_hash_is_refused(tmp_path, table):
    path = tmp_path / "concepts" / "rows_by_cui.arrow"
    rows = open_arrow(path).rename_columns(["hash", "row"])
    with arrow_writer(path, rows.schema) as writer:
        writer.write(rows)
    with pytest.raises(UserError, match="concepts .*delete it and run"):
        ConceptTable.load(tmp_path / "concepts")


FEATURES = datasets.Features(
    {
        "number": datasets.Value("int32"),
        "words": datasets.List(datasets.Value("string")),
        "kind": datasets.ClassLabel(names=["odd", "even"]),
    }
)
ROWS = {"number": [0, 1, 2], "words": [[], ["w"], ["w", "v"]], "kind": [0, 1, 0]}


def write_arrow(path, *batches):
    with arrow_writer(path, FEATURES.arrow_schema) as writer:
        for batch in batches:
            writer.write(pa.Table.from_pydict(batch, FEATURES.arrow_schema))
    return path


def test_what_is_written_is_mapped_and_read_by_datasets(tmp_path):
    arrays = {
        "number": np.arange(3),
        "words": pa.array(ROWS["words"]),
        "kind": pa.chunked_array([[0], [1, 0]]),
    }
    path = write_arrow(tmp_path / "new" / "train.arrow", ROWS, arrays)
    twice = {name: values * 2 for name, values in ROWS.items()}
    assert open_arrow(path).to_pydict() == twice
    dataset = datasets.Dataset.from_file(str(path))
    assert dataset.features == FEATURES and dataset.to_dict() == twice
    assert len(datasets.Dataset.from_file(str(write_arrow(tmp_path / "empty.arrow")))) == 0


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    path = write_arrow(tmp_path / "train.arrow", ROWS)
    with pytest.raises(ZeroDivisionError), arrow_writer(path, FEATURES.arrow_schema) as writer:
        writer.write(pa.Table.from_pydict(ROWS, FEATURES.arrow_schema))
        raise ZeroDivisionError
    assert open_arrow(path).to_pydict() == ROWS
    assert [file.name for file in tmp_path.iterdir()] == ["train.arrow"]


# Dictionaries as one file of names


NAMED_ROWS = [
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
NAMED_CONCEPTS = [
    Concept("007", "NA"),
    Concept("D2", "the | flu", ("flu",), ("T184", "T047"), "", ("10", "11")),
]


def write_names(path, rows):
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
    path = write_names(tmp_path / f"names.{ending}", NAMED_ROWS)
    assert read(path) == (NAMED_CONCEPTS, {"names": 3, "unknown_types": ["no such type"]})


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


def test_a_key_that_a_row_of_json_has_twice_is_named_with_its_line(tmp_path):
    (tmp_path / "names").write_text(
        '{"name": "one", "id": "1"}\n{"name": "two", "id": "2", "name": "three"}\n'
    )
    with pytest.raises(UserError, match="names:2.*'name'"):
        read(tmp_path / "names")


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


PIECES = st.sampled_from(
    [
        "a",
        "B",
        "7",
        " ",
        "-",
        "_",
        "(",
        "\t",
        "\0",
        "\u00e9",
        "e\u0301",
        "\u00b5",
        "\uff24",
        "\u00df",
    ]
)
NAMES = st.lists(
    st.one_of(st.lists(PIECES, max_size=20).map("".join), st.text(max_size=8)), max_size=30
)


@settings(deadline=None)
@given(names=NAMES, start=st.integers(0, 5))
def test_names_at_once_are_as_names_one_by_one(names, start):
    column = pa.array(names, pa.string())
    forms = normalize_names(column)
    assert forms.type == pa.string()
    assert forms.to_pylist() == [normalize_name(name) for name in names]
    assert normalize_names(column.slice(start)).to_pylist() == forms.to_pylist()[start:]


def test_no_run_of_combining_marks_is_sorted_whole(monkeypatch):
    sizes = []

    def normalize(form, text):
        sizes.append(len(text))
        return unicodedata.normalize(form, text)

    monkeypatch.setattr(normalization, "unicodedata", SimpleNamespace(normalize=normalize))
    assert normalize_name("e" + "\u0301" * 5_000 + "\u0316" * 5_000) == "\u00e9"
    assert max(sizes) <= normalization.PIECE


def test_a_long_name_is_normalized_as_its_words_are():
    words = ["e\u0301", "\uff24B", "\u00df-7", "x" * 200, "\u00a8a"] * 50
    expected = " ".join(normalize_name(word) for word in words)
    for space in (" ", "\t\u00a0", "\x1c"):
        assert normalize_name(space.join(words)) == expected


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Diabetes-Mellitus,  type II", "diabetes mellitus type ii"),
        ("  (diabetes) mellitus_type\tII ", "diabetes mellitus type ii"),
        ("\uff24iabetes", "diabetes"),  # full-width D
        ("Stra\u00dfe", "strasse"),
        ("Me\u0301nie\u0300re", "m\u00e9ni\u00e8re"),  # combining accents
        ("\u00b5g/\u03bcL", "\u03bcg \u03bcl"),  # micro sign and Greek mu
        ("++ ", "++"),
        (" A_b--C.7 ", "a b c 7"),
        # Of one sign, and of one whose folded form has to be composed again.
        ("\u2103", "c"),
        ("\u0390", "\u0390"),
        (" + \t -", "+ -"),
    ],
)
def test_normalized_names(text, form):
    assert normalize_name(text) == form


@given(st.text())
def test_normalizing_twice_changes_nothing_and_only_blank_text_is_empty(text):
    form = normalize_name(text)
    assert normalize_name(form) == form
    assert bool(form) == bool(text.strip())


CUIS = pa.array(["C0000001", "C0000002", "C0000003"])


def atom(cui, sab, code, tty="SY", ts="S", suppress="N"):
    return f"{cui}|ENG|{ts}|L1|PF|S1|N|A1||||{sab}|{tty}|{code}|a name|0|{suppress}||\n"


def write_index(path, concepts, files, sources=()):
    """Write concepts and their codes into the folders of an index."""
    for name in ("concepts", CODES_FOLDER):
        (path / name).mkdir()
    write_concepts(concepts, TypeHierarchy.built_in(), path / "concepts")
    return write_codes(path / CODES_FOLDER, concepts["cui"].combine_chunks(), [files], sources)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An index with the codes of two of its three concepts, and its release."""
    path = tmp_path_factory.mktemp("index")
    lines = [
        atom("C0000002", "MSH", "D000002"),
        atom("C0000001", "SNOMEDCT_US", "111", "SY"),
        atom("C0000001", "SNOMEDCT_US", "222", "PT"),
        atom("C0000001", "SNOMEDCT_US", "222", "SY"),
        atom("C0000001", "SNOMEDCT_US", "333", "PT", ts="P"),
        atom("C0000001", "SNOMEDCT_US", "444", "PT", suppress="O"),
        atom("C0000001", "HPO", "HP:0000001"),
        atom("C0000001", "MTH", "NOCODE"),
        atom("C0000001", "UNASKED", "1"),
        atom("C0000009", "MSH", "D000009"),
    ]
    (path / "MRCONSO.RRF").write_text("".join(lines))
    concepts = concept_table(Concept(cui, "a name") for cui in CUIS.to_pylist())
    files = {"MRCONSO": [path / "MRCONSO.RRF"]}
    counts = write_index(path, concepts, files, ["SNOMEDCT_US", "MSH", "HPO"])
    assert counts == {"SNOMEDCT_US": 3, "MSH": 1, "HPO": 1}
    return path


def test_codes_of_preferred_atoms_come_first_each_once(folder):
    codes = ConceptCodes.load(folder, ["HPO", "SNOMEDCT_US"])
    assert [code.curie for code in codes.of("C0000001")] == [
        "HP:0000001",
        "SNOMEDCT:333",
        "SNOMEDCT:222",
        "SNOMEDCT:111",
    ]


def test_a_concept_without_such_a_code_keeps_its_id(folder):
    codes = ConceptCodes.load(folder, ["SNOMEDCT_US"])
    for cui in ("C0000002", "C0000003", "C0000099"):
        assert codes.of(cui) == (Code("UMLS", cui),)


def test_codes_that_a_folder_lacks_are_named(folder, tmp_path):
    with pytest.raises(UserError, match="RXNORM"):
        ConceptCodes.load(folder, ["MSH", "RXNORM"])
    with pytest.raises(UserError, match="RXNORM"):
        write_codes(folder, CUIS, [{"MRCONSO": [folder / "MRCONSO.RRF"]}], ["MSH", "RXNORM"])
    shutil.copytree(folder / "concepts", tmp_path / "concepts")
    with pytest.raises(UserError, match=tmp_path.name):
        ConceptCodes.load(tmp_path, ["MSH"])


@pytest.mark.parametrize(
    ("concept_id", "sources", "code"),
    [
        ("C0011860", ["MSH"], Code("UMLS", "C0011860")),
        ("MESH:D003924", [], Code("MSH", "D003924")),
        ("C565588", ["MSH", "OMIM"], Code("MSH", "C565588")),
        ("613097", ["MSH", "OMIM"], Code("OMIM", "613097")),
        ("613097", [], Code("", "613097")),
        ("HP:0000118", [], Code("HPO", "HP:0000118")),
        ("DOID:4", [], Code("DOID", "DOID:4")),
        ("my id", ["MSH"], Code("", "my id")),
    ],
)
def test_an_id_is_a_code_by_its_prefix_or_by_the_form_asked_for(concept_id, sources, code):
    assert code_of(concept_id, sources) == code


def test_ids_of_a_file_of_names_are_codes_as_its_alternates_are(tmp_path):
    path = tmp_path / "medic.txt"
    path.write_text("C567755|613097||Tooth Agenesis|STHAG6\n")
    codes = ConceptCodes.read(path, ["OMIM", "MSH"])
    assert codes.of("C567755") == (Code("OMIM", "613097"), Code("MSH", "C567755"))


def test_codes_of_a_release_are_read_for_all_its_concepts(folder):
    codes = ConceptCodes.read(folder, ["SNOMEDCT_US", "MSH"])
    assert [codes.of(cui)[0].code for cui in ("C0000001", "C0000009")] == ["333", "D000009"]


def test_a_term_with_several_cuis_says_which_was_taken_and_the_others(tmp_path):
    lines = ["[Term]", "id: HP:0000001", "name: one", "xref: UMLS:C0000002", "xref: UMLS:C0000007"]
    lines += ["property_value: skos:exactMatch UMLS:C0000001", ""]
    lines += ["[Term]", "id: HP:0000002", "name: other", "xref: UMLS:C0000001"]
    path = tmp_path / "x.obo"
    path.write_text("\n".join(lines) + "\n")
    ontology = read_obo_concepts([path])
    assert ontology.report["several_cuis"] == 1
    counts = write_index(tmp_path, concept_table(ontology.concepts), {"obo": [path]})
    assert counts == {"HPO": 2, "UMLS": 3}
    codes = ConceptCodes.load(tmp_path, ["HPO", "UMLS"]).of("C0000001")
    assert [code.code for code in codes] == [
        "HP:0000001",
        "HP:0000002",
        "C0000001",
        "C0000002",
        "C0000007",
    ]


@pytest.fixture
def network():
    parents = {
        "T072": "T071",
        "T023": "T072",
        "T121": "T072",
        "T033": "T071",
        "T184": "T033",
        "T061": "T051",
    }
    parents |= {"T070": "T051", "T046": "T070", "T047": "T046"}
    types = (
        SemanticType(id, name, parents.get(id), group) for id, (_, name, group, _) in TYPES.items()
    )
    return TypeHierarchy(types, {group: name for _, _, group, name in TYPES.values()})


def test_chains_end_in_the_group(network):
    assert len(network) == 11
    chains = {
        "T047": ["T047", "T046", "T070", "T051", "group:DISO"],
        "T023": ["T023", "T072", "T071", "group:ANAT"],
        "T071": ["T071", "group:CONC"],
        "group:DISO": [],
        "UnknownType": [],
    }
    assert {kind: network.chain(kind) for kind in chains} == chains


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        ("T047", "T047"),
        ("t047", "T047"),
        (" DISEASE  or syndrome ", "T047"),
        ("group:diso", "group:DISO"),
        ("disorders", "group:DISO"),
        ("UnknownType", None),
    ],
)
def test_resolves_ids_and_names_in_any_case(network, given, resolved):
    assert network.resolve(given) == resolved


def test_descendants(network):
    descendants = {
        "T051": ["T051", "T061", "T070", "T046", "T047"],
        "group:DISO": ["T033", "T184", "T046", "T047"],
        "T999": [],
    }
    assert {kind: network.descendants(kind) for kind in descendants} == descendants


def test_a_type_without_group_takes_its_ancestors():
    network = TypeHierarchy([SemanticType("a", "A", None, "G"), SemanticType("b", "B", "a")])
    assert network.chain("b") == ["b", "a", "group:G"]


def test_ids_win_over_names_and_types_over_groups():
    network = TypeHierarchy(
        [SemanticType("a", "b", None, "G"), SemanticType("b", "Anatomy")], {"G": "Anatomy"}
    )
    assert network.resolve("B") == "b"
    assert network.resolve("anatomy") == "b"


def test_save_and_load(network):
    content = json.loads(json.dumps(network.to_dict()))
    again = TypeHierarchy.from_dict(content)
    assert [again.chain(each) for each in again] == [network.chain(each) for each in network]
    assert (again.name("T184"), again.name("group:ANAT"), again.name("T9")) == (
        "Sign or Symptom",
        "Anatomy",
        "T9",
    )


@pytest.mark.parametrize(
    "types",
    [
        [SemanticType("a", "A"), SemanticType("a", "B")],
        [SemanticType("a", "A", "b")],
        [SemanticType("a", "A", "b"), SemanticType("b", "B", "a")],
    ],
)
def test_impossible_hierarchies_are_refused(types):
    with pytest.raises(UserError, match=r"\ba\b"):
        TypeHierarchy(types)


@pytest.mark.parametrize(
    "content",
    [
        {"schema_version": 2, "types": [], "groups": {}},
        {"schema_version": 1, "types": [{"id": 1, "name": None}], "groups": {}},
        {"types": []},
        [],
    ],
)
def test_what_is_no_hierarchy_is_refused(content):
    with pytest.raises(UserError):
        TypeHierarchy.from_dict(content)


def test_the_network_built_in_is_whole():
    network = TypeHierarchy.built_in()
    groups = {network[type_id].group for type_id in network}
    assert (len(network), len(groups)) == (127, 15)
    assert network.chain("T191") == [
        "T191",
        "T047",
        "T046",
        "T038",
        "T070",
        "T067",
        "T051",
        "group:DISO",
    ]
    assert (
        network.resolve("disease or syndrome") == "T047"
        and network.name("group:CHEM") == "Chemicals & Drugs"
    )
    assert [type_id for type_id in network if network[type_id].parent is None] == ["T071", "T051"]


def test_a_column_that_is_named_twice_is_refused(tmp_path):
    path = tmp_path / "dh.csv"
    for header in ("id,name,name", "id,name,,"):
        path.write_text(f"{header}\n" + ",".join(["a"] * (header.count(",") + 1)) + "\n")
        with pytest.raises(UserError, match="dh.csv:1: "):
            read_name_rows(path)
