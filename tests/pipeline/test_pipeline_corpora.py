"""A run from a corpus in a format of one's own."""

import json
from pathlib import Path

import toy_corpus
from corpus_fixtures import as_bioc

from umls_reranker.corpora.corpus import parts_of
from umls_reranker.pipeline.stages import RunFolder

pytest_plugins = ["pipeline_fixtures"]


def test_a_format_of_ones_own_gives_the_mentions_of_ours(scripts, finished, tmp_path):
    with (tmp_path / "corpus").open("w", encoding="utf-8") as stream:
        for document in as_bioc(scripts.materials / "corpus.txt"):
            marked = document["passages"][0]["text"] + " " + document["passages"][1]["text"]
            annotations = [
                one for passage in document["passages"] for one in passage["annotations"]
            ]
            for one in reversed(annotations):
                start = one["locations"][0]["offset"]
                end = one["locations"][0]["offset"] + len(one["text"])
                marked = (
                    f"{marked[:start]}[{one['text']}|"
                    f"{parts_of(one['infons']['identifier'])[0][0]}]{marked[end:]}"
                )
            stream.write(f"{document['id']}\t{marked}\n")
    keys = {"corpus": tmp_path / "corpus", "output_dir": tmp_path / "runs"}
    refused = scripts.run("prepare_data", **keys)
    assert refused.code == 2 and "corpus is not a corpus in a known format: PubTator" in refused.err
    outcome = scripts.run(Path(toy_corpus.__file__), scripts.recipe, **keys)
    assert outcome.code == 0, outcome.err
    run = tmp_path / "runs" / "mini"
    report = json.loads((run / "mentions" / "read_report.json").read_text())
    assert report["corpus"]["format"] == "tagged lines"
    # Later stages read nothing else of a corpus.
    theirs = RunFolder(finished.folder).splits("mentions")
    for split, rows in RunFolder(run).splits("mentions").items():
        for key in ("doc_id", "mention", "start", "end", "left", "right", "cui"):
            assert rows[key][:] == theirs[split][key][:], (split, key)
