"""From candidate lists of another pipeline to a served model, with and without a dictionary."""

import json
import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from data_fixtures import PMIDS, VOCABULARY
from pipeline_fixtures import COPIES

from umls_reranker import ConceptLinker, UMLSReranker, UserError
from umls_reranker.core.files import read_json
from umls_reranker.corpora.formats import read_corpus
from umls_reranker.evaluation.outcomes import Outcomes
from umls_reranker.hub.model_folder import published_files
from umls_reranker.pipeline.stages import RunFolder

pytest_plugins = ["pipeline_fixtures"]

STAGES = (
    "prepare_data",
    "mine_negatives",
    "train",
    "calibrate",
    "evaluate",
    "validate",
)
RETRIEVAL_KEYS = ("corpus", "expected_mentions", "encoder", "encoder_pooling", "encoder_dtype")
DICTIONARY_KEYS = ("umls_dir",)
SPLITS = ("train", "dev", "calibration", "test")
# Concepts that the retriever of this pipeline never finds, and documents in which it once finds
# nothing.
UNFOUND = ("C9000004",)
WITHOUT_CANDIDATES = (PMIDS[0], *COPIES[:6])


def own_lists(materials):
    """The corpus' mentions with what a retriever of another project found for them."""
    rows = []
    for mention in read_corpus([materials / "corpus.txt"]):
        names = {
            cui: max((SequenceMatcher(None, mention.text, name).ratio(), name) for name in names)
            for cui, (_, names) in VOCABULARY.items()
            if cui not in UNFOUND
        }
        found = sorted(names.items(), key=lambda item: (-item[1][0], item[0]))[:6]
        held_out = mention.doc_id in COPIES
        rows.append(
            {
                "entity": mention.text,
                "left": mention.left,
                "right": mention.right,
                "entity_type": list(mention.semantic_types),
                "doc_id": mention.doc_id,
                "cui": mention.cuis[0][0],
                "split": SPLITS[1 + COPIES.index(mention.doc_id) % 3] if held_out else "train",
                "candidates": [
                    {
                        "name": name,
                        "cui": cui,
                        "semantic_types": [VOCABULARY[cui][0]],
                        "bm25_score": 20 * ratio,
                        "sapbert_score": ratio**2,
                    }
                    for cui, (ratio, name) in found
                ],
            }
        )
    for document in WITHOUT_CANDIDATES:
        next(row for row in rows if row["doc_id"] == document)["candidates"] = []
    return rows


@dataclass(frozen=True)
class ListRun:
    folder: Path
    recipe: Path
    rows: list
    outcomes: dict
    has_dictionary: bool


@pytest.fixture(scope="module", params=["alone", "with_dictionary"])
def made(request, scripts):
    """All stages on lists: as JSON Lines with a column split, or as Parquet by lists of
    documents.
    """
    has_dictionary = request.param == "with_dictionary"
    rows, folder = own_lists(scripts.materials), scripts.materials / request.param
    folder.mkdir()
    left_out = (
        *RETRIEVAL_KEYS,
        *(() if has_dictionary else (*DICTIONARY_KEYS, "train_documents", "dev_documents")),
    )
    keys = {
        key: value
        for key, value in yaml.safe_load(scripts.recipe.read_text()).items()
        if key not in left_out
    }
    if has_dictionary:
        for row in rows:
            del row["split"]
            for candidate in row["candidates"]:
                del candidate["semantic_types"]
        keys |= {"candidate_lists": str(folder / "own.parquet"), "loss": "listwise_kl"}
        keys["teacher"] = [str(scripts.materials / "model")]
        pq.write_table(pa.Table.from_pylist(rows), keys["candidate_lists"])
    else:
        keys |= {"candidate_lists": str(folder / "own.jsonl"), "loss": "listwise_kl"}
        for row in rows:
            for item in row["candidates"] if row["split"] == "train" else ():
                item["teacher_score"] = 9 * item["sapbert_score"]
        Path(keys["candidate_lists"]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys |= {"run_name": request.param, "max_steps": 20, "eval_steps": 10}
    recipe = folder / "config.yaml"
    recipe.write_text(yaml.safe_dump(keys, sort_keys=False))
    outcomes = {}
    for stage in STAGES:
        outcomes[stage] = scripts.run(stage, recipe)
        assert outcomes[stage].code == 0 and not outcomes[stage].errors, outcomes[stage].err
    return ListRun(
        scripts.materials / "runs" / request.param, recipe, rows, outcomes, has_dictionary
    )


def test_there_is_no_index_and_every_stage_is_made(made):
    assert {path.name for path in made.folder.iterdir() if path.is_dir()} == {
        *("concepts", "mentions", "lists", "pairs", "checkpoints", "model", "report", "tensorboard")
    }
    assert made.outcomes["prepare_data"].remade == ["concepts", "mentions", "lists"]


def test_the_lists_are_those_that_were_given(made):
    given = {(row["doc_id"], row["entity"], row["left"]): row for row in made.rows}
    lists = RunFolder(made.folder).splits("lists")
    assert sum(map(len, lists.values())) == len(made.rows)
    for split in SPLITS:
        for found in lists[split]:
            row = given[found["doc_id"], found["entity"], found["left"]]
            assert row.get("split", split) == split and found["right"] == row["right"]
            assert found["cui"] == [[row["cui"]]] and not found["index_key"]
            assert found["entity_type"] == [
                kind for kind in row["entity_type"] if kind != "UnknownType"
            ]
            for key in ("cui", "name", "bm25_score", "sapbert_score"):
                assert [item[key] for item in found["candidates"]] == [
                    item[key] for item in row["candidates"]
                ]
    missing = sum(row["cui"] in UNFOUND for row in made.rows)
    in_list = read_json(made.folder / "mentions" / "read_report.json")["in_list"]
    assert missing and sum(in_list.values()) <= len(made.rows) - missing


def test_scores_are_weighed_under_their_own_names(made):
    calibrator = read_json(made.folder / "model" / "calibrator.json")
    scores = [item["bm25_score"] for row in made.rows for item in row["candidates"]]
    assert set(calibrator["score_ranges"]) == {"bm25", "sapbert"}
    low, high = (calibrator["score_ranges"]["bm25"][edge] for edge in ("low", "high"))
    assert min(scores) <= low < high <= max(scores)
    assert calibrator["index_key"] == ""


@pytest.mark.filterwarnings("ignore:missing inputs")
def test_serving_answers_what_was_evaluated(made):
    outcomes = Outcomes.load(made.folder / "report" / "outcomes.parquet")
    mentions = RunFolder(made.folder).splits("mentions")["test"]
    given = {(row["doc_id"], row["entity"], row["left"]): row for row in made.rows}
    rows = [
        given[key]
        for key in zip(mentions["doc_id"], mentions["mention"], mentions["left"], strict=True)
    ]
    if made.has_dictionary:
        # Requests bring the types that calibration took from the dictionary.
        for row in rows:
            row["candidates"] = [
                item | {"semantic_types": [VOCABULARY[item["cui"]][0]]}
                for item in row["candidates"]
            ]
    reranker = UMLSReranker.from_pretrained(made.folder / "model", device="cpu", dtype="float32")
    assert [not row["candidates"] for row in rows] == np.isnan(
        outcomes.score
    ).tolist() and np.isnan(outcomes.score).any()
    for row, score, tier in zip(rows, outcomes.score, outcomes.tier, strict=True):
        ranked = reranker.rerank(
            row["entity"],
            row["candidates"],
            entity_type=row["entity_type"],
            left=row["left"],
            right=row["right"],
        )
        if ranked:
            assert ranked[0].score == pytest.approx(score, abs=1e-6) and ranked[0].tier == tier


def test_pairs_have_the_scores_of_a_teacher(made):
    pairs = RunFolder(made.folder).splits("pairs")["train"]
    known = np.isfinite(np.concatenate(pairs["teacher"]))
    # Scores in the rows are those of listed candidates.
    assert known.all() if made.has_dictionary else 0 < known.sum() < len(known)
    settings = read_json(made.folder / "pairs" / "manifest.json")["settings"]
    assert [name[:7] for name in settings["teacher"]] == ["sha256:"] * made.has_dictionary


def test_what_retrieval_would_make_is_skipped_and_refused(made, scripts):
    again = scripts.run("prepare_data", made.recipe)
    assert again.skipped == ["concepts", "mentions", "lists"] and again.remade == []
    refused = scripts.run("prepare_data", made.recipe, corpus=scripts.materials / "corpus.txt")
    assert refused.code == 2 and "remove corpus" in refused.err


def test_no_index_belongs_to_the_model(made):
    with pytest.raises(UserError, match="no index.json"):
        ConceptLinker.from_run(made.folder, device="cpu")


def test_what_is_published_names_no_path(made, scripts):
    files = published_files(made.folder / "model")
    texts = [
        file.decode() if isinstance(file, bytes) else file.read_bytes().decode("latin-1")
        for file in files.values()
    ]
    assert not [
        name for name, text in zip(files, texts, strict=True) if str(scripts.materials) in text
    ]
    assert re.search(r"candidate_lists: own\.(jsonl|parquet)", files["recipe.yaml"].decode())
