"""A run from each format of annotated text, and from a format of one's own to a served answer."""

import json
from pathlib import Path

import pytest
import toy_corpus
from corpus_fixtures import as_bigbio, as_bioc, write_bigbio, write_bioc_json, write_bioc_xml

from umls_reranker import UMLSReranker
from umls_reranker.corpora.corpus import as_cui
from umls_reranker.corpora.mentions import SPLITS

pytest_plugins = ["pipeline_fixtures"]


def mentions_of(run):
    return [(run / "mentions" / f"{split}.arrow").read_bytes() for split in SPLITS]


@pytest.fixture(scope="module")
def prepared(scripts, tmp_path_factory):
    """The mentions that the run has from PubTator."""
    folder = tmp_path_factory.mktemp("pubtator")
    outcome = scripts.run("prepare_data", output_dir=folder)
    assert outcome.code == 0, outcome.err
    return mentions_of(folder / "mini")


@pytest.mark.parametrize("form", ["BioC JSON", "BioC XML", "BigBIO Parquet"])
def test_every_format_gives_the_same_mentions(scripts, prepared, tmp_path, form):
    corpus = scripts.materials / "corpus.txt"
    copy = {
        "BioC JSON": lambda: write_bioc_json(tmp_path / "corpus", as_bioc(corpus)),
        "BioC XML": lambda: write_bioc_xml(tmp_path / "corpus", as_bioc(corpus)),
        "BigBIO Parquet": lambda: write_bigbio(tmp_path / "corpus.parquet", as_bigbio(corpus)),
    }[form]()
    keys = {"corpus": copy, "output_dir": tmp_path / "runs"}
    outcome = scripts.run("prepare_data", **keys)
    assert outcome.code == 0, outcome.err
    assert mentions_of(tmp_path / "runs" / "mini") == prepared
    report = json.loads((tmp_path / "runs" / "mini" / "mentions" / "read_report.json").read_text())["corpus"]
    assert (report["format"], report["documents"], report["mentions"]) == (form.split()[0], 40, 120)
    assert form.split()[0] in outcome.out
    refused = scripts.run("prepare_data", **keys, expected_mentions=121)
    assert "contains 120 mentions, but expected_mentions is 121; the download is incomplete" in refused.errors[0]


def test_a_format_of_ones_own_to_a_served_answer(scripts, tmp_path):
    with (tmp_path / "corpus").open("w", encoding="utf-8") as stream:
        for document in as_bioc(scripts.materials / "corpus.txt"):
            marked = document["passages"][0]["text"] + " " + document["passages"][1]["text"]
            annotations = [one for passage in document["passages"] for one in passage["annotations"]]
            for one in reversed(annotations):
                start, end = one["locations"][0]["offset"], one["locations"][0]["offset"] + len(one["text"])
                marked = f"{marked[:start]}[{one['text']}|{as_cui(one['infons']['identifier'])}]{marked[end:]}"
            stream.write(f"{document['id']}\t{marked}\n")
    keys = {"corpus": tmp_path / "corpus", "output_dir": tmp_path / "runs", "max_steps": 10}
    refused = scripts.run("prepare_data", **keys)
    assert refused.code == 2 and "corpus is not a corpus in a known format: PubTator" in refused.err
    for script in (Path(toy_corpus.__file__), "build_index", "mine_negatives", "train", "calibrate", "evaluate"):
        outcome = scripts.run(script, **keys)
        assert outcome.code == 0, outcome.err
    run = tmp_path / "runs" / "mini"
    assert json.loads((run / "mentions" / "read_report.json").read_text())["corpus"]["format"] == "tagged lines"
    best = UMLSReranker.from_pretrained(run / "model").rerank("head cold", ["common cold", "heart"])[0]
    assert best.name in ("common cold", "heart")
