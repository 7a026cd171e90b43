"""A retriever is one module: what it declares is all that the rest of the package needs to know."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from umls_reranker import ConceptLinker, UMLSReranker
from umls_reranker.calibration.features import ALL_INPUTS, FEATURES
from umls_reranker.lists.index_scores import INDEX_SCORES
from umls_reranker.lists.read import read_rows
from umls_reranker.retrieval.retrievers import RETRIEVERS

pytest_plugins = ["pipeline_fixtures"]

TOY = Path(__file__).with_name("first_letter.py")
TESTS = TOY.parents[1]


@pytest.fixture(scope="module")
def registered():
    importlib.import_module(TOY.stem)
    yield
    del (
        RETRIEVERS["first_letter"],
        INDEX_SCORES["first_letter"],
        FEATURES["first_letter"],
        sys.modules[TOY.stem],
    )


@pytest.fixture(scope="module")
def run(registered, scripts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("first_letter")
    keys = {
        "output_dir": folder,
        "retrievers": ["dense", "first_letter"],
        "max_steps": 10,
        "features": ["cross_encoder", "retrieval", "first_letter", "exact_name"],
    }

    def run_script(name, **more):
        return scripts.run(TESTS / "with_module.py", TOY, name, scripts.recipe, **keys | more)

    for script in (
        "prepare_data",
        "build_index",
        "mine_negatives",
        "train",
        "calibrate",
        "evaluate",
    ):
        outcome = run_script(script)
        assert outcome.code == 0, outcome.err
    return folder / "mini", run_script


def test_its_index_is_a_stage(run):
    folder, run_script = run
    assert run_script("build_index").skipped == ["vectors", "index", "first_letters", "lists"]
    manifest = json.loads((folder / "lists" / "manifest.json").read_text())
    assert {*manifest["inputs"]} == {"index", "first_letters", "mentions"}
    assert {*manifest["summary"]["test"]["recall"]} == {"dense", "first_letter", "union"}


def test_its_score_is_a_feature_that_counts_only_from_its_index(run):
    folder, _ = run
    reranker = UMLSReranker.from_pretrained(folder / "model")
    weights = {model.name: {*model.fusion.weights} for model in reranker.calibration.models}
    assert weights[ALL_INPUTS] == {"cross_encoder", "retrieval", "first_letter", "exact_name"}
    assert weights["names"] == {"cross_encoder", "exact_name"}
    candidates = [*read_rows(folder / "lists" / "test.arrow")][-1].mappings()[0]["candidates"]
    assert {candidate["first_letter_score"] for candidate in candidates} <= {0.0, 1.0}
    with pytest.warns(UserWarning, match="retrieval_score.*: used only in lists of"):
        ranked = reranker.rerank("fever", candidates)
    assert {item.model_name for item in ranked} != {ALL_INPUTS}


def test_a_linker_answers_with_it_from_an_exported_index(run, tmp_path):
    folder, run_script = run
    outcome = run_script("export_index", index_folder=tmp_path / "index")
    assert outcome.code == 0, outcome.err
    names = {path.name for path in (tmp_path / "index").iterdir()}
    assert names == {"concepts", "index", "first_letters", "encoder", "index.json"}
    linker = ConceptLinker.from_pretrained(
        folder / "model", tmp_path / "index", device="cpu", dtype="float32"
    )
    assert linker.retriever.index_key == linker.reranker.calibration.index_key != ""
    (candidates,) = linker.candidates(linker.read(["fever"])).to_pylist()
    assert {candidate["first_letter_score"] for candidate in candidates} == {0.0, 1.0}
    linked = linker.link("fever", entity_type="Sign or Symptom")
    assert len(linked) == len(candidates) and linked[0].model_name == "all"
