"""The scripts and the notebook in examples/ run, and print what they say."""

import ast
import json
import re
import runpy
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from tiny_models import tiny_encoder
from tiny_reranker import tiny_reranker, tiny_reranker_without_cross_encoder

from umls_reranker import UMLSReranker
from umls_reranker.models.cross_encoder import PairScorer
from umls_reranker.models.pair_template import PairTemplate

pytest_plugins = ["pipeline_fixtures"]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def run(scripts):
    """Run a script in a folder; gives the lines that it prints."""

    def run(script, folder, *words):
        outcome = scripts.run(EXAMPLES / script, *words, cwd=folder)
        assert outcome.code == 0, outcome.err
        return outcome.out.splitlines()

    return run


def test_the_demo_shows_ranked_candidates(tmp_path, monkeypatch):
    reranker = UMLSReranker.from_pretrained(tiny_reranker(tmp_path / "model"), device="cpu")
    # With or without Gradio.
    monkeypatch.setitem(sys.modules, "gradio", ModuleType("gradio"))
    demo = runpy.run_path(str(EXAMPLES / "demo.py"))
    row = {"mention": "cold", "candidates": ["Common Cold"], "left": None}
    assert demo["read_question"](json.dumps(row)) == row | {"entity": "cold"}
    for example in demo["EXAMPLES"]:
        expected = reranker.rerank(**demo["read_question"](example))
        table = [(item[1], item[2], item[5]) for item in demo["ranked_table"](reranker, example)]
        assert table == [(item.name, item.cui, item.tier) for item in expected]


@pytest.mark.extra
def test_the_page_of_the_demo_shows_its_first_example_ranked(tmp_path):
    pytest.importorskip("gradio")
    reranker = UMLSReranker.from_pretrained(tiny_reranker(tmp_path / "model"), device="cpu")
    demo = runpy.run_path(str(EXAMPLES / "demo.py"))
    page = demo["build_page"](reranker, "tiny")
    tables = [block for block in page.blocks.values() if "Dataframe" in type(block).__name__]
    assert tables[0].value["data"] == demo["ranked_table"](reranker, demo["EXAMPLES"][0])


def docstring(script):
    return ast.get_docstring(ast.parse((EXAMPLES / script).read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory):
    """Where `make quickstart` has run."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "runs").mkdir()
    shutil.copytree(finished.folder, folder / "runs" / "quickstart")
    return folder


# That of rerank_a_list.py is in tests/test_built_in.py.
@pytest.mark.parametrize(
    "script", ["certify_scores.py", "calibrate_on_rows.py", "reference_pipeline.py"]
)
def test_an_example_without_a_run_prints_what_it_says(run, script, tmp_path):
    told = docstring(script).partition("prints\n\n")[2]
    assert told and run(script, tmp_path) == [line.strip() for line in told.splitlines()]


@pytest.mark.parametrize(
    ("script", "output"),
    [
        ("calibrate_on_rows.py", "my_model/reranker.json"),
        ("train_from_python.py", "cross-encoder/config.json"),
        ("train_on_lists.py", "train.jsonl"),
        ("train_on_lists.py", "cross-encoder/config.json"),
        ("train_on_lists.py", "model/reranker.json"),
    ],
)
def test_an_example_replaces_nothing(scripts, script, output, tmp_path):
    file = tmp_path / output
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    outcome = scripts.run(EXAMPLES / script, cwd=tmp_path)
    assert outcome.code == 1 and f"{output.partition('/')[0]} already exists" in outcome.err
    assert file.read_text() == "mine"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_a_pipeline_of_the_reference_changes_one_import(folder, monkeypatch):
    monkeypatch.chdir(folder)
    example = runpy.run_path(str(EXAMPLES / "reference_pipeline.py"))
    reranker = example["FineTunedCrossEncoderReranker"](
        model_path="runs/quickstart/model",
        calibrator_path="runs/quickstart/model/calibrator.json",
        threshold_tuner_path="runs/quickstart/model/thresholds.json",
        device="cpu",
    )
    candidates = [
        SimpleNamespace(name="Seizure", cui="C0036572"),
        SimpleNamespace(name="Hepatomegaly", cui="C0019209"),
    ]
    with pytest.warns(UserWarning):
        reranked = reranker.rerank(entity="seizures", candidates=candidates, entity_type=None)
    assert {row.candidate.cui for row in reranked} == {"C0036572", "C0019209"}
    assert 0 <= reranked[0].cross_encoder_score <= 1
    with pytest.raises(ValueError, match="model_name"):
        reranker.get_confidence_tier(reranked[0].cross_encoder_score)
    assert reranker.get_confidence_tier(reranked[0]) == reranked[0].tier
    stats = reranker.get_statistics()
    assert stats["model_loaded"] and stats["calibrator_loaded"] and stats["threshold_tuner_loaded"]
    thresholds = stats["threshold_statistics"]
    assert thresholds["num_types"] >= 0
    assert (
        thresholds["threshold_min"] <= thresholds["threshold_median"] <= thresholds["threshold_max"]
    )
    assert stats["mentions"] == 1


def test_a_calibrator_of_another_model_is_refused(folder, tmp_path):
    example = runpy.run_path(str(EXAMPLES / "reference_pipeline.py"))
    other = tmp_path / "calibrator.json"
    with pytest.raises(ValueError, match=re.escape(str(other))):
        example["FineTunedCrossEncoderReranker"](folder / "runs/quickstart/model", other)


@pytest.mark.parametrize("model", [(), ("runs/quickstart/model",)])
def test_mentions_of_a_text_are_linked(run, folder, model):
    lines = run("link_text.py", folder, "runs/quickstart", *model)
    tiers = "high|medium|low|reject" if model else "-"
    assert [line[:15].rstrip() for line in lines] == ["seizures", "SE", "kidney failure"]
    assert all(re.search(rf" \d\.\d{{3}}  ({tiers}) +C\d{{7}} ", line) for line in lines)


def test_mentions_of_a_spacy_pipeline_are_linked(run, folder):
    lines = run("spacy_pipeline.py", folder)
    assert [line[:15].rstrip() for line in lines] == [
        "seizures",
        "enlarged liver",
        "kidney failure",
    ]
    assert all(re.search(r" \d\.\d{3}  (high|medium|low|reject) ", line) for line in lines)
    assert all(re.search(r" (C\d{7}|abstain) ", line) for line in lines)


def test_a_cross_encoder_is_trained_from_python(run, tmp_path):
    lines = run("train_from_python.py", tmp_path, tiny_encoder(tmp_path / "encoder"))
    assert re.fullmatch(r"acc@1 0\.\d{3}", lines[-1])
    saved = PairScorer.from_folder(tmp_path / "cross-encoder", PairTemplate(), "cpu")
    assert np.isfinite(saved.score(["cold"], ["common cold"]).logits).all()


# A script whose commands run in its own process.
IN_PROCESS = """
import runpy, subprocess, sys
from umls_reranker.__main__ import dispatch

def run(command, check):
    sys.argv = command[2:]
    assert not dispatch()

subprocess.run = run
runpy.run_path({script!r})
"""


def test_a_model_is_trained_on_lists(run, tmp_path):
    model = tiny_encoder(tmp_path / "encoder")
    words = ("--model", model, "--max_steps", 2, "--device", "cpu")
    script = tmp_path / "script.py"
    script.write_text(IN_PROCESS.format(script=str(EXAMPLES / "train_on_lists.py")))
    lines = run(script, tmp_path, *words)
    assert (tmp_path / "model" / "README.md").is_file()
    ranked = [re.fullmatch(r"(\d\.\d{3})  \w+ +\w+ \w+ \w+", line) for line in lines[-3:]]
    assert all(ranked) and sorted((line[1] for line in ranked), reverse=True) == [
        line[1] for line in ranked
    ]


# The examples for LangChain, Haystack and LlamaIndex, with these packages


ADAPTERS = {
    "langchain_compressor.py": "langchain_core",
    "haystack_ranker.py": "haystack",
    "llama_index_postprocessor.py": "llama_index",
}
# The highest score is not that of the first name.
SCORES = {"C0009443": 0.3, "C0009264": 0.9}
NAMES = {"C0009443": "common cold", "C0009264": "cold temperature"}


@pytest.fixture
def scored_model(tmp_path):
    """A model that needs `cui` and `sapbert_score`, or a fallback decides."""
    return tiny_reranker_without_cross_encoder(tmp_path / "model")


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch):
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")


@pytest.mark.parametrize(("script", "package"), ADAPTERS.items())
@pytest.mark.extra
def test_an_adapter_prints_what_it_says(run, script, package, tmp_path):
    pytest.importorskip(package)
    told = docstring(script).partition("prints\n\n")[2]
    lines = [line.strip() for line in told.splitlines()]
    assert lines and run(script, tmp_path) == lines


def check(answers, scored_model):
    """The answers, (cui, score, metadata), are those of the reranker by all that it reads."""
    candidates = [{"cui": cui, "name": NAMES[cui], "sapbert_score": SCORES[cui]} for cui in NAMES]
    expected = UMLSReranker.from_pretrained(scored_model).rerank("cold", candidates)
    assert [(cui, score) for cui, score, _ in answers] == [(c.cui, c.score) for c in expected]
    assert expected[0].model_name == "all" and expected[0].cui == "C0009264"
    assert [data["model_name"] for _, _, data in answers] == ["all", "all"]
    assert [data["page"] for _, _, data in answers] == [7, 7]


@pytest.mark.extra
def test_langchain_passes_ids_and_scores(scored_model):
    documents = pytest.importorskip("langchain_core.documents")
    compressor = runpy.run_path(str(EXAMPLES / "langchain_compressor.py"))["UMLSCompressor"]
    given = [
        documents.Document(
            NAMES[cui], metadata={"cui": cui, "sapbert_score": SCORES[cui], "page": 7}
        )
        for cui in NAMES
    ]
    reranker = UMLSReranker.from_pretrained(scored_model)
    answers = compressor(reranker=reranker).compress_documents(given, "cold")
    data = [document.metadata for document in answers]
    check([(one["cui"], one["score"], one) for one in data], scored_model)


@pytest.mark.extra
def test_haystack_passes_ids_and_scores_in_a_pipeline(scored_model):
    haystack = pytest.importorskip("haystack")
    ranker = runpy.run_path(str(EXAMPLES / "haystack_ranker.py"))["UMLSRanker"]
    given = [
        haystack.Document(content=NAMES[cui], score=SCORES[cui], meta={"cui": cui, "page": 7})
        for cui in NAMES
    ]
    pipeline = haystack.Pipeline()
    pipeline.add_component("ranker", ranker(str(scored_model), score_name="sapbert_score"))
    answer = pipeline.run({"ranker": {"query": "cold", "documents": given}})
    answers = answer["ranker"]["documents"]
    check([(one.meta["cui"], one.score, one.meta) for one in answers], scored_model)


@pytest.mark.extra
def test_llama_index_passes_ids_and_scores(scored_model):
    schema = pytest.importorskip("llama_index.core.schema")
    postprocessor = runpy.run_path(str(EXAMPLES / "llama_index_postprocessor.py"))
    given = [
        schema.NodeWithScore(
            node=schema.TextNode(text=NAMES[cui], metadata={"cui": cui, "page": 7}),
            score=SCORES[cui],
        )
        for cui in NAMES
    ]
    reranker = UMLSReranker.from_pretrained(scored_model)
    adapter = postprocessor["UMLSPostprocessor"](reranker=reranker, score_name="sapbert_score")
    answers = adapter.postprocess_nodes(given, query_str="cold")
    check([(one.metadata["cui"], one.score, one.metadata) for one in answers], scored_model)
