"""A run from a corpus in a format of one's own to a served answer."""

import json
from pathlib import Path

import toy_corpus
from corpus_fixtures import as_bioc

from umls_reranker import UMLSReranker
from umls_reranker.corpora.corpus import parts_of

pytest_plugins = ["pipeline_fixtures"]


def test_a_format_of_ones_own_to_a_served_answer(scripts, tmp_path):
    with (tmp_path / "corpus").open("w", encoding="utf-8") as stream:
        for document in as_bioc(scripts.materials / "corpus.txt"):
            marked = document["passages"][0]["text"] + " " + document["passages"][1]["text"]
            annotations = [
                one for passage in document["passages"] for one in passage["annotations"]
            ]
            for one in reversed(annotations):
                start, end = (
                    one["locations"][0]["offset"],
                    one["locations"][0]["offset"] + len(one["text"]),
                )
                marked = (
                    f"{marked[:start]}[{one['text']}|"
                    f"{parts_of(one['infons']['identifier'])[0][0]}]{marked[end:]}"
                )
            stream.write(f"{document['id']}\t{marked}\n")
    keys = {"corpus": tmp_path / "corpus", "output_dir": tmp_path / "runs", "max_steps": 10}
    refused = scripts.run("prepare_data", **keys)
    assert refused.code == 2 and "corpus is not a corpus in a known format: PubTator" in refused.err
    for script in (
        Path(toy_corpus.__file__),
        "build_index",
        "mine_negatives",
        "train",
        "calibrate",
        "evaluate",
    ):
        outcome = scripts.run(script, **keys)
        assert outcome.code == 0, outcome.err
    run = tmp_path / "runs" / "mini"
    assert (
        json.loads((run / "mentions" / "read_report.json").read_text())["corpus"]["format"]
        == "tagged lines"
    )
    best = UMLSReranker.from_pretrained(run / "model").rerank(
        "head cold", ["common cold", "heart"]
    )[0]
    assert best.name in ("common cold", "heart")
