"""umls-reranker prepare_data with the optional files of a release, and with several ontologies."""

import gzip
import json
import runpy
import sys
from pathlib import Path

import pytest
import yaml
from corpus_fixtures import as_bigbio, write_bigbio
from data_fixtures import TYPE_ROOT, write_obo, write_pmids, write_pubtator, write_rrf

from umls_reranker.core.errors import UserError
from umls_reranker.corpora.arguments import MentionArguments
from umls_reranker.pipeline.data import corpus_mentions, prepare_data
from umls_reranker.pipeline.recipe import Recipe
from umls_reranker.pipeline.run_folder import RunFolder
from umls_reranker.pipeline.sources import input_files, listed_documents
from umls_reranker.pipeline.stages import held_out_shares
from umls_reranker.vocab.concept_table import ConceptTable
from umls_reranker.vocab.relations import RelationTable

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_data.py"

MRREL = (
    ("C9000001", "SY", "C9000002"),
    ("C9000004", "SIB", "C9000035"),
    ("C9000005", "RO", "C9000006"),
)
RETIRED = ("C9999901|2018AA|SY|||C9000013|Y|", "C9999902|2018AA|DEL||||N|")


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Run the script on the miniature release; gives the run folder."""
    corpus = write_pubtator(tmp_path / "corpus.txt")
    train, dev = write_pmids(tmp_path)
    recipe = {
        "run_name": "r",
        "output_dir": tmp_path,
        "umls_dir": write_rrf(tmp_path / "META"),
        "corpus": corpus,
        "train_documents": train,
        "dev_documents": dev,
    }

    def run(*argv, **keys):
        content = {
            key: value if isinstance(value, list) else str(value)
            for key, value in (recipe | keys).items()
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
        monkeypatch.setattr(sys, "argv", ["prepare_data.py", str(tmp_path / "config.yaml"), *argv])
        runpy.run_path(str(SCRIPT))["main"]()
        return tmp_path / "r"

    return run


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_optional_files(meta):
    lines = [
        f"{one}|A1|AUI|{kind}|{two}|A2|AUI||R1||MINI|MINI|||N||\n".encode()
        for one, kind, two in MRREL
    ]
    (meta / "MRREL.RRF.gz").write_bytes(gzip.compress(b"".join(lines)))
    write(meta / "MRCUI.RRF", *RETIRED)
    write(meta.parent / "release.dat", "umls.release.name=2021AA")


def report_of(run, stage):
    return json.loads((run / stage / "read_report.json").read_text())


def cuis_of(run):
    return sorted(
        cui for split in RunFolder(run).splits("mentions").values() for ((cui,),) in split["cui"]
    )


def test_optional_files_are_used_where_they_are_there(prepare, tmp_path):
    run = prepare()
    before = cuis_of(run)
    assert {"C9999901", "C9999902"} <= set(before)
    assert len(RelationTable.load(run / "concepts")) == 0
    assert report_of(run, "concepts")["release"] == {}

    write_optional_files(tmp_path / "META")
    run = prepare()
    concepts = ConceptTable.load(run / "concepts")
    relations = RelationTable.load(run / "concepts")
    one, two, cold, temperature = concepts.rows(["C9000001", "C9000002", "C9000004", "C9000035"])
    assert relations.related(one, two) and relations.related(two, one)
    assert not relations.related(cold, temperature)
    assert cuis_of(run) == sorted("C9000013" if cui == "C9999901" else cui for cui in before)
    report = report_of(run, "concepts")
    assert (report["relations"], report["release"]) == (2, {"name": "2021AA"})
    read = {
        stage: set(json.loads((run / stage / "manifest.json").read_text())["inputs"])
        for stage in ("concepts", "mentions")
    }
    assert read["concepts"] >= {"MRREL", "release.dat"}
    assert read["mentions"] == {"concepts", "MRCUI", "corpus", "train_documents", "dev_documents"}


def test_filters_of_the_recipe_reach_the_reader(prepare):
    assert len(ConceptTable.load(prepare("--concept_types", "DISO") / "concepts")) == 20
    # A broader type stands for all narrower ones.
    assert len(ConceptTable.load(prepare("--concept_types", "T046") / "concepts")) == 12


def test_types_of_an_ontology_filter_its_concepts(prepare, tmp_path):
    obo = write_obo(tmp_path / "x.obo")
    keys = {"concept_source": "obo", "obo": obo, "obo_type_roots": [TYPE_ROOT]}
    table = ConceptTable.load(prepare(**keys) / "concepts")
    kind = table.semantic_types(0)[0]
    rows = table.type_rows(kind)
    assert 0 < len(rows) < len(table)
    kept = ConceptTable.load(prepare("--concept_types", kind, **keys) / "concepts")
    assert kept.cuis.to_pylist() == table.cuis_of(rows).to_pylist()
    with pytest.raises(UserError, match=f"concept_types: X:9 .*{kind}"):
        prepare("--concept_types", "X:9", **keys)


def test_held_out_synonyms_become_mentions_and_leave_the_dictionary(tmp_path):
    obo = write_obo(tmp_path / "x.obo")
    keys = {"concept_source": "obo", "obo": str(obo), "obo_type_roots": [TYPE_ROOT]}
    keys |= {"mention_source": "held_out_synonyms", "train_share": 0.5, "dev_share": 0.2}
    keys |= {"calibration_share": 0.4, "seed": 13, "output_dir": str(tmp_path), "run_name": "r"}
    prepare_data(Recipe.from_values(keys))
    run = tmp_path / "r"
    concepts = ConceptTable.load(run / "concepts")
    published = obo.read_text()
    counts = {}
    for split, mentions in RunFolder(run).splits("mentions").items():
        for text, ((cui,),) in zip(mentions["mention"], mentions["cui"], strict=True):
            (row,) = concepts.rows([cui])
            assert text not in concepts.names(row)
            assert f'synonym: "{text}" EXACT' in published
        counts[split] = len(mentions)
    assert counts == {"train": 16, "dev": 4, "calibration": 10, "test": 10}
    assert report_of(run, "mentions")["in_dictionary"] == counts


def test_one_ontology_or_several(prepare, tmp_path):
    obo = write_obo(tmp_path / "x.obo")
    other = tmp_path / "y.obo"
    write(
        other,
        "[Term]",
        "id: Y:1",
        "name: zebra fever",
        'synonym: "stripes" EXACT []',
        "xref: UMLS:C9999901",
    )
    one = prepare(concept_source="obo", obo=obo, obo_type_roots=[TYPE_ROOT])
    assert len(ConceptTable.load(one / "concepts")) == 40
    both = prepare(concept_source="obo", obo=[str(obo), str(other)], obo_type_roots=[TYPE_ROOT])
    concepts = ConceptTable.load(both / "concepts")
    assert concepts.names(concepts.rows(["C9999901"])[0]) == ["zebra fever", "stripes"]
    assert [source["file"] for source in report_of(both, "concepts")["vocabularies"]] == [
        "x.obo",
        "y.obo",
    ]
    assert {"obo 1", "obo 2"} <= set(
        json.loads((both / "concepts" / "manifest.json").read_text())["inputs"]
    )


def test_a_file_of_names_is_a_dictionary(prepare, tmp_path):
    write(tmp_path / "names.txt", "C9000004|10||common cold|head cold", "X:1||x")
    run = prepare(concept_source="names", names=tmp_path / "names.txt")
    assert ConceptTable.load(run / "concepts").rows(["10", "X:1"]).tolist() == [0, 1]
    report = report_of(run, "concepts")
    assert (report["concepts"], report["names"], report["vocabularies"][0]["file"]) == (
        2,
        3,
        "names.txt",
    )
    assert prepare(concept_source="names", names=tmp_path / "names.txt", umls_dir="") == run
    write(tmp_path / "more.txt", "10||rhinitis|X|cold", "X:1||cold")
    prepare(
        concept_source="names", names=tmp_path / "names.txt", add_names=[str(tmp_path / "more.txt")]
    )
    report = report_of(run, "concepts")
    assert report["added_names"] == 1
    assert sum(report["left_out_names"].values()) == 3
    assert len((run / "concepts" / "left_out_names.csv").read_text().splitlines()) == 4
    with pytest.raises(UserError, match="names: .*concept_source"):
        prepare(names=tmp_path / "names.txt")


def test_a_corpus_in_several_files_and_in_a_folder(prepare, tmp_path):
    text = (tmp_path / "corpus.txt").read_text(encoding="utf-8")
    one = tmp_path / "1.txt"
    two = tmp_path / "2.txt"
    for path, documents in ((one, text.split("\n\n")[:9]), (two, text.split("\n\n")[9:])):
        path.write_text("\n\n".join(documents), encoding="utf-8")
    whole = cuis_of(prepare())
    run = prepare(corpus=[str(one), str(two)])
    assert cuis_of(run) == whole
    assert set(json.loads((run / "mentions" / "manifest.json").read_text())["inputs"]) >= {
        "corpus 1",
        "corpus 2",
    }
    (tmp_path / "parquet").mkdir()
    write_bigbio(tmp_path / "parquet" / "train.parquet", as_bigbio(tmp_path / "corpus.txt"))
    assert cuis_of(prepare(corpus=tmp_path / "parquet")) == whole
    with pytest.raises(UserError, match="2.txt .*60 .*expected_mentions"):
        prepare("--expected_mentions", "61", corpus=[str(two), str(one)])


# Which documents come into which split, and listed ones that the corpus lacks


LISTS = {"train_documents": [1, 2], "dev_documents": [3, 4, 5, 6, 7, 8], "test_documents": [9, 77]}


@pytest.fixture
def files(tmp_path):
    documents = (
        f"{n}|t|Cold\n{n}|a|A cold.\n{n}\t0\t4\tCold\tT047\tC0009443\n\n" for n in range(1, 10)
    )
    (tmp_path / "corpus").write_text("".join(documents))
    for name, ids in LISTS.items():
        (tmp_path / name).write_text("".join(f"{number}\n" for number in ids))
    return {name: (tmp_path / name,) for name in ("corpus", *LISTS)}


LISTED = {"test_documents": "test.txt", "dev_share": 0.3, "calibration_share": 0.7}


def test_where_test_documents_are_listed_none_are_left_for_them(files):
    settings = MentionArguments(**LISTED)
    report = {}
    split_of = listed_documents(settings, files, 13)
    splits = {
        mention.doc_id: split
        for split, mention in corpus_mentions(settings, files["corpus"], split_of, report)
    }
    assert {splits[str(number)] for number in LISTS["dev_documents"]} == {"dev", "calibration"}
    assert (splits["1"], splits["9"], len(splits)) == ("train", "test", 9)
    # Nothing in the corpus has the number 77.
    assert report["listed_documents_without_mentions"] == 1


def test_a_share_of_the_training_documents_calibrates(files):
    def splits(share):
        settings = MentionArguments(**LISTED, train_calibration_share=share)
        return listed_documents(settings, files, 13)

    (files["train_documents"][0]).write_text("".join(f"{number}\n" for number in range(11, 21)))
    moved = splits(0.5)
    assert {moved[str(number)] for number in range(11, 21)} == {"train", "calibration"}
    # Documents of the other lists stay where they are.
    assert {name for name, split in splits(0.0).items() if moved[name] != split} <= set(
        map(str, range(11, 21))
    )


def test_shares_that_leave_nothing_are_refused(prepare, tmp_path):
    settings = MentionArguments(**LISTED | {"dev_share": 0.9, "calibration_share": 0.1})
    assert [*held_out_shares(settings)] == ["dev", "calibration"]
    for words in ([], ["--dry_run"]):
        with pytest.raises(UserError, match="calibration_share.*test_documents"):
            prepare(*words, dev_share=0.3, calibration_share=0.7)
    assert not (tmp_path / "r").exists()


def test_a_dry_run_refuses_a_document_of_two_lists(prepare, tmp_path):
    (tmp_path / "twice.txt").write_text("901\n")
    (tmp_path / "once.txt").write_text("901\n902\n")
    lists = {"train_documents": tmp_path / "twice.txt", "dev_documents": tmp_path / "once.txt"}
    with pytest.raises(UserError, match="901"):
        prepare("--dry_run", **lists)


def test_missing_files_are_named_together(tmp_path):
    keys = {"umls_dir": "META", "train_documents": "a.txt", "dev_documents": "b.txt"}
    values = {key: str(tmp_path / name) for key, name in keys.items()}
    recipe = Recipe.from_values(values | {"corpus": [str(tmp_path / "corpus.txt")]})
    with pytest.raises(UserError) as told:
        input_files(recipe)
    assert all(name in str(told.value) for name in ("META", "corpus.txt", "a.txt", "b.txt"))
