"""The command `index`: from a dictionary to an index folder, without a run and torch."""

import csv
import os
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from data_fixtures import write_obo, write_rrf
from list_fixtures import write_lists
from processes import absent, python
from tiny_models import tiny_encoder

from umls_reranker.core.arrow_files import arrow_writer, open_arrow
from umls_reranker.core.errors import UserError
from umls_reranker.core.files import hold
from umls_reranker.core.json_files import read_json, write_json
from umls_reranker.linking.linker import ConceptLinker
from umls_reranker.lists.dictionary import Dictionary
from umls_reranker.models.bi_encoder import BiEncoder
from umls_reranker.retrieval.index_settings import IndexSettings
from umls_reranker.retrieval.lexical_index import FormIndex
from umls_reranker.retrieval.retriever import load_retriever
from umls_reranker.serving.rerank_files import BulkJob
from umls_reranker.vocab.code_systems import Code
from umls_reranker.vocab.concept_codes import ConceptCodes
from umls_reranker.vocab.concept_table import ConceptTable

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "index.py"
NAMES = "MESH:D1||renal tumour|kidney cancer\nMESH:D2|OMIM:2||heart attack\n"


@pytest.fixture
def index(monkeypatch, tmp_path):
    """Run the command with these words in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["index", *map(str, words)])
        return runpy.run_path(str(SCRIPT))["main"]()

    return run


def found(folder, text):
    """Id and name of the top candidate."""
    retriever = load_retriever(Path(folder), "auto")
    hits = retriever.search([text], 1)
    concepts = ConceptTable.load(Path(folder) / "concepts")
    return concepts.cuis_of(hits.rows[0])[0].as_py(), retriever.name_array(hits.name_ids[0])[
        0
    ].as_py()


def test_a_release_is_indexed_without_libraries_of_networks(tmp_path):
    write_rrf(tmp_path / "META")
    code = "from umls_reranker.__main__ import main\nmain()\n"
    code = absent(["torch", "transformers", "accelerate", "faiss"]) + code
    words = ["index", "META", "made", "--semantic_types", "T047", "DISO"]
    python("-c", code, *words, cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".cache") == [
        "META",
        "made",
    ]
    assert found(tmp_path / "made", "failing kidney") == ("C9000009", "failing kidneys")
    concepts = ConceptTable.load(tmp_path / "made" / "concepts")
    # Organs and drugs are left out, signs and symptoms are not.
    assert concepts.rows(["C9000021", "C9000029", "C9000013"]).tolist()[:2] == [-1, -1]
    assert len(concepts) == 20
    settings = IndexSettings.load(tmp_path / "made")
    assert settings.retrievers == ["lexical", "forms"] and settings.expand_abbreviations
    (dictionary,) = settings.made_of["dictionaries"]
    assert dictionary["settings"]["concept_types"] == ["T047"]
    assert {*dictionary["inputs"]} >= {"MRCONSO", "MRSTY"}


def test_names_ontologies_and_mrconso_alone_are_read(index, tmp_path):
    (tmp_path / "names.txt").write_text(NAMES)
    write_obo(tmp_path / "toy.obo")
    write_rrf(tmp_path / "META")
    (tmp_path / "META" / "MRSTY.RRF").unlink()
    index("names.txt", "of_names")
    assert found("of_names", "renal tumors") == ("MESH:D1", "renal tumour")
    assert ConceptCodes.load(Path("of_names"), ["MSH"]).of("MESH:D1") == (Code("MSH", "D1"),)
    with pytest.raises(UserError, match="NOPE"):
        ConceptCodes.load(Path("of_names"), ["MSH", "NOPE"])
    index("toy.obo", "of_terms")
    assert found("of_terms", "renal failures")[0] == "C9000009"
    index("META/MRCONSO.RRF", "of_meta")
    assert found("of_meta", "Renal failures") == ("C9000009", "renal failure")


def test_codes_are_kept_beside_an_index_whose_key_they_do_not_change(index, tmp_path):
    write_rrf(tmp_path / "META")
    index("META", "with_codes", "--codes", "MINI")
    index("META", "without")
    with_codes = IndexSettings.load(tmp_path / "with_codes")
    assert with_codes.made_of["read"]["codes"] == {"MINI": 40}
    assert with_codes.index_key == IndexSettings.load(tmp_path / "without").index_key
    codes = ConceptCodes.load(tmp_path / "with_codes", ["MINI"])
    assert codes.of("C9000009") == (Code("MINI", "C9000009"),)
    write_obo(tmp_path / "toy.obo")
    index("toy.obo", "of_terms")
    assert IndexSettings.load(tmp_path / "of_terms").made_of["read"]["codes"] == {
        "XO": 40,
        "UMLS": 40,
    }


def test_the_key_of_an_index_is_what_it_was(index, tmp_path):
    """Models that were calibrated with an index of an earlier version know it by its key."""
    (tmp_path / "names.txt").write_text(NAMES)
    index("names.txt", "made")
    key = "e26051974af086877ee61b788bb5c8ce7bb55a6e4b2f21c21e3dd58c52084065"
    assert IndexSettings.load(tmp_path / "made").index_key == key


def test_several_dictionaries_make_one_index(index, tmp_path, capsys):
    write_rrf(tmp_path / "META")
    (tmp_path / "names.txt").write_text(NAMES)
    (tmp_path / "more.csv").write_text(
        "id,name,semantic_type\n"
        "OMIM:2,cardiac infarct,T121\nOMIM:2,heart attack,\nC9000009,renal failure,\n"
        "C9000009,Nierenversagen,\nLOCAL:1,Zuboxin,T121\n"
    )
    index("META", "names.txt", "more.csv", "made", "--codes", "MINI")
    assert "2 concepts are in an earlier dictionary too, 2 names" in capsys.readouterr().out
    assert found("made", "infarcts (cardiac)") == ("MESH:D2", "cardiac infarct")
    assert found("made", "zuboxin") == ("LOCAL:1", "Zuboxin")
    assert found("made", "nierenversagen") == ("C9000009", "Nierenversagen")
    assert found("made", "failing kidney") == ("C9000009", "failing kidneys")
    concepts = ConceptTable.load(tmp_path / "made" / "concepts")
    assert concepts.names(concepts.rows(["OMIM:2"])[0]) == ["heart attack", "cardiac infarct"]
    codes = ConceptCodes.load(tmp_path / "made", ["MINI"])
    assert codes.of("C9000009") == (Code("MINI", "C9000009"),)
    assert codes.of("LOCAL:1")[0].code == "LOCAL:1"
    index("META", "more.csv", "drugs", "--semantic_types", "T121")
    assert found("drugs", "Zuboxin")[0] == "LOCAL:1"
    assert ConceptTable.load(tmp_path / "drugs" / "concepts").rows(["C9000009"]) == [-1]


ADDED = [
    ("MESH:D1", "Renal tumour", "known"),
    ("MESH:D1", "tumor of kidney", "added"),
    ("MESH:D1", "Heart-Attack", "the dictionary has it for another concept"),
    ("OMIM:2", "coronary", "added"),
    ("MESH:D2", "lump", "the files have it for another concept"),
    ("MESH:D1", "heart attacks", "the dictionary has a form of it for another concept"),
    ("MESH:D1", "heart att\u200back", "the dictionary has a form of it for another concept"),
]


def test_names_are_added_unless_they_are_those_of_others(index, tmp_path, capsys):
    (tmp_path / "names.txt").write_text(NAMES)
    rows = "".join(f"{cui}\t{name}\n" for cui, name, _ in ADDED)
    (tmp_path / "more.tsv").write_text(f"ids\tname\n{rows}")
    (tmp_path / "further.txt").write_text("MESH:D1||Lump|coronary heart attack\n")
    index("names.txt", "without")
    index("names.txt", "made", "--add_names", "more.tsv", "further.txt")
    assert "3 names added" in capsys.readouterr().out
    concepts = ConceptTable.load(tmp_path / "made" / "concepts")
    assert concepts.cuis.equals(ConceptTable.load(tmp_path / "without" / "concepts").cuis)
    rows = concepts.rows(["MESH:D1", "OMIM:2"])
    assert concepts.names(rows[0]) == [
        *("renal tumour", "kidney cancer", "tumor of kidney", "coronary heart attack")
    ]
    assert concepts.names(rows[1]) == ["heart attack", "coronary"]
    with (tmp_path / "made" / "concepts" / "left_out_names.csv").open(newline="") as file:
        left_out = [tuple(row.values()) for row in csv.DictReader(file)]
    assert left_out == [
        ("MESH:D1", "Heart-Attack", "more.tsv", "4", ADDED[2][2], "MESH:D2"),
        ("MESH:D2", "lump", "more.tsv", "6", ADDED[4][2], "MESH:D1"),
        ("MESH:D1", "heart attacks", "more.tsv", "7", ADDED[5][2], "MESH:D2"),
        ("MESH:D1", "heart att\u200back", "more.tsv", "8", ADDED[6][2], "MESH:D2"),
        ("MESH:D1", "Lump", "further.txt", "1", ADDED[4][2], "MESH:D2"),
    ]
    keys = {IndexSettings.load(tmp_path / name).index_key for name in ("without", "made")}
    assert len(keys) == 2
    (tmp_path / "more.tsv").write_text("id\tname\nMESH:D1\tlump\nD3\tlump\n")
    with pytest.raises(UserError, match="more.tsv:3: "):
        index("names.txt", "other", "--add_names", "more.tsv")


def test_a_killed_command_goes_on_with_its_vectors(index, tmp_path, monkeypatch):
    (tmp_path / "names.txt").write_text(NAMES)
    tiny_encoder(tmp_path / "encoder")
    words = ["names.txt", "made", "--device", "cpu", "--encoder"]

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FormIndex, "build", killed)
        for further in (["--encoder", "encoder"], [], ["--encoder", "encoder"]):
            with pytest.raises(KeyboardInterrupt):
                index("names.txt", "made", "--device", "cpu", *further)
            assert (tmp_path / ".made.index").exists() == bool(further)
    assert not (tmp_path / "made").exists()
    # As of another command.
    (tmp_path / ".made.index" / "forms").mkdir()
    (tmp_path / ".made.index" / "forms" / "rest").touch()
    with monkeypatch.context() as patch:
        patch.setattr(BiEncoder, "encode", killed)
        # Another encoder needs other vectors.
        with pytest.raises(KeyboardInterrupt):
            index(*words, "encoder", "--encoder_pooling", "mean")
        assert not [*tmp_path.glob(".made.index/*vectors*/*.npy")]
    with monkeypatch.context() as patch:
        patch.setattr(FormIndex, "build", killed)
        with pytest.raises(KeyboardInterrupt):
            index(*words, "encoder")
    with monkeypatch.context() as patch:
        patch.setattr(BiEncoder, "encode", killed)
        index(*words, "encoder")
    assert not (tmp_path / ".made.index").exists()
    assert not (tmp_path / "made" / "forms" / "rest").exists()
    assert found("made", "heart attacks")[0] == "MESH:D2"


def test_two_commands_do_not_write_into_one_output(index, tmp_path, monkeypatch):
    (tmp_path / "names.txt").write_text(NAMES)
    monkeypatch.setattr("umls_reranker.core.files.PATIENCE_SECONDS", 0.1)
    (tmp_path / ".made.index").mkdir()
    (tmp_path / ".made.index" / "concepts").mkdir()
    with (
        hold(tmp_path / ".made.index" / ".lock", ""),
        pytest.raises(UserError, match="made"),
    ):
        index("names.txt", "made")
    assert (tmp_path / ".made.index" / "concepts").is_dir()
    index("names.txt", "made")
    assert found("made", "heart attacks")[0] == "MESH:D2"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["names.txt", "taken"], "taken"),
        (["names.txt", "made", "--semantic_types", "T999"], "T999"),
        (["missing.csv", "made"], "missing.csv"),
        (["names.txt", "no/folder/made"], "no/folder"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(index, tmp_path, words, named):
    (tmp_path / "names.txt").write_text(NAMES)
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match=named):
        index(*words)
    assert not (tmp_path / "made").exists()


def test_a_dry_run_writes_nothing(index, tmp_path, capsys):
    (tmp_path / "names.txt").write_text(NAMES)
    index("names.txt", "made", "--dry_run", "--cache_dir", tmp_path / "cache")
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == {"names.txt"}
    assert "[forms] would be written" in capsys.readouterr().err


def test_a_file_of_an_index_that_changed_is_noticed(index, tmp_path):
    (tmp_path / "names.txt").write_text(NAMES)
    index("names.txt", "made")
    folder = tmp_path / "made"
    settings = IndexSettings.load(folder)
    # A manifest is known by its key.
    files = {file.relative_to(folder).as_posix() for file in folder.glob("*/*")}
    assert settings.files.keys() == {name for name in files if not name.endswith("/manifest.json")}
    for name in settings.files:
        former = (folder / name).read_bytes()
        for damaged in (former[:-1], b"", former[:-9] + bytes([former[-9] ^ 1]) + former[-8:]):
            (folder / name).unlink()
            (folder / name).write_bytes(damaged)
            with pytest.raises(UserError, match=f"{name} is"):
                IndexSettings.load(folder).verify(folder)
        (folder / name).write_bytes(former)
    content = read_json(folder / "index.json")
    for files in (5, {"concepts/concepts.arrow": 7}):
        write_json(folder / "index.json", content | {"files": files})
        with pytest.raises(UserError, match="made"):
            IndexSettings.load(folder)
    (folder / "index.json").unlink()
    del content["files"]
    write_json(folder / "index.json", content)
    with pytest.warns(UserWarning, match="no hashes") as said:
        ConceptLinker.from_pretrained("built-in-fast", folder, verify=True)
    assert len(said) == 1
    # Without sizes, an index says what it cannot read.
    (folder / "lexical" / "vectors_data.npy").unlink()
    (folder / "lexical" / "vectors_data.npy").write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(UserError, match="lexical"):
        load_retriever(folder, "auto")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("retrievers", None),
        ("candidates_per_mention", None),
        ("index_key", []),
        ("made_of", []),
        ("folders", 7),
    ],
)
def test_settings_of_another_type_are_refused(index, tmp_path, key, value):
    (tmp_path / "names.txt").write_text(NAMES)
    index("names.txt", "made")
    file = tmp_path / "made" / "index.json"
    write_json(file, read_json(file) | {key: value})
    with pytest.raises(UserError, match=re.escape(str(file))):
        IndexSettings.load(tmp_path / "made")


@pytest.mark.parametrize("content", [None, []])
def test_a_manifest_that_is_no_mapping_is_refused(index, tmp_path, content):
    (tmp_path / "names.txt").write_text(NAMES)
    index("names.txt", "made")
    write_json(tmp_path / "made" / "forms" / "manifest.json", content)
    with pytest.raises(UserError, match="forms"):
        IndexSettings.load(tmp_path / "made")


@pytest.mark.parametrize("value", [-1, 10**9])
@pytest.mark.parametrize(
    "name",
    [
        "lexical/vectors_indices.npy",
        "lexical/vectors_indptr.npy",
        "lexical/lists_0_indices.npy",
        "lexical/lists_0_indptr.npy",
        "lexical/names.arrow",
        "concepts/rows_by_cui.arrow",
    ],
)
def test_a_place_that_is_not_there_is_refused(index, tmp_path, name, value):
    """Damage that keeps sizes, or a hostile folder: libraries would read and write there."""
    (tmp_path / "names.txt").write_text(NAMES)
    index("names.txt", "made")
    file = tmp_path / "made" / name
    if file.suffix == ".npy":
        places = np.load(file)
        places[1] = value
        np.save(file, places)
    else:
        table = open_arrow(file)
        rows = table["row"].to_numpy().copy()
        rows[{-1: 0, 10**9: -1}[value]] = value
        at = table.column_names.index("row")
        table = table.set_column(at, table.schema.field("row"), pa.array(rows, pa.int32()))
        with arrow_writer(file, table.schema) as writer:
            writer.write(table)
    with pytest.raises(UserError, match=name.partition("/")[0]):
        load_retriever(tmp_path / "made", "auto")


def test_an_output_does_not_replace_a_file_of_its_index(index, tmp_path, monkeypatch):
    (tmp_path / "names.txt").write_text(NAMES)
    (tmp_path / "in.jsonl").write_text('{"mention": "heart attack", "doc_id": "1"}\n')
    index("names.txt", "made")
    for output in ("made/concepts/concepts.arrow", "link"):
        (tmp_path / "link").unlink(missing_ok=True)
        os.link(tmp_path / "made" / "index.json", tmp_path / "link")
        words = ["link", "made", "in.jsonl", output, "--overwrite", "--format", "jsonl"]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(UserError, match=output):
            runpy.run_path(str(SCRIPT.with_name("link.py")))["main"]()
    assert found("made", "heart attacks")[0] == "MESH:D2"


def test_an_index_that_names_were_added_to_is_refused(index, tmp_path):
    (tmp_path / "names.txt").write_text(NAMES)
    index("names.txt", "made")
    settings = IndexSettings.load(tmp_path / "made")
    settings.made_of["added"] = []
    settings.save(tmp_path / "made")
    assert IndexSettings.load(tmp_path / "made") == settings
    settings.made_of["added"] = [{"file": "more.csv"}]
    settings.save(tmp_path / "made")
    with pytest.raises(UserError, match="made"):
        IndexSettings.load(tmp_path / "made")


def test_an_index_is_the_dictionary_that_its_release_is(index, tmp_path):
    release = write_rrf(tmp_path / "META")
    index("META", "made")
    made = tmp_path / "made"
    ids = ConceptTable.load(made / "concepts").cuis.to_pylist()
    rows = [
        {"entity": text, "candidates": [{"cui": cui} for cui in [*ids, "C0"]]}
        for text in ("cold in the head", "kidneys fail", "x")
    ]
    of_release = Dictionary.load(release)
    of_index = Dictionary.load(made)
    assert of_index.add_to(rows) == of_release.add_to(rows)
    assert of_index.known([*ids, "C0"]) == of_release.known([*ids, "C0"])
    codes = [ConceptCodes.read(folder) for folder in (release, made)]
    assert [codes[0].of(cui) for cui in ids] == [codes[1].of(cui) for cui in ids]
    job = BulkJob(write_lists(tmp_path / "in.jsonl", rows), tmp_path / "out.csv", dictionary=made)
    assert made / "concepts" / "concepts.arrow" in job.further_files()
