"""A feature, a calibrator, a loss and a retriever from outside the package, each in one file, from
recipe to served answer.
"""

import importlib
import json
import sys

import pytest
from pipeline_fixtures import ROOT, STAGE_SCRIPTS

from umls_reranker import ConceptLinker, UMLSReranker
from umls_reranker.calibration.calibrators import CALIBRATORS
from umls_reranker.calibration.fallback_models import ALL_INPUTS
from umls_reranker.calibration.features import FEATURES, Feature, register_feature
from umls_reranker.core.errors import UserError
from umls_reranker.lists.index_scores import INDEX_SCORES
from umls_reranker.lists.read import read_rows
from umls_reranker.pipeline.options import recipe_parser
from umls_reranker.retrieval.retrievers import RETRIEVERS
from umls_reranker.training.losses import LOSSES

pytest_plugins = ["pipeline_fixtures"]

TOYS = {
    "length_ratio": ("calibration", [FEATURES]),
    "half_line": ("calibration", [CALIBRATORS]),
    "hinge": ("training", [LOSSES]),
    "first_letter": ("retrieval", [RETRIEVERS, INDEX_SCORES, FEATURES]),
}
FILES = [ROOT / "tests" / folder / f"{name}.py" for name, (folder, _) in TOYS.items()]


@pytest.fixture(scope="module")
def registered():
    with pytest.MonkeyPatch.context() as patch:
        for file in FILES:
            patch.syspath_prepend(file.parent)
            importlib.import_module(file.stem)
        yield
    for name, (_, registries) in TOYS.items():
        for registry in (*registries, sys.modules):
            del registry[name]


@pytest.fixture(scope="module")
def run(registered, scripts, tmp_path_factory):
    """The folder of a run with all of them, and what runs a script with them."""
    folder = tmp_path_factory.mktemp("extended")
    keys = {"output_dir": folder, "max_steps": 10, "loss": "hinge", "calibrator": "half_line"}
    keys["retrievers"] = ["dense", "first_letter"]
    keys["features"] = ["cross_encoder", "retrieval", "first_letter", "length_ratio"]
    words = (ROOT / "tests" / "with_module.py", ":".join(map(str, FILES)))

    def run_script(name, **more):
        outcome = scripts.run(*words, name, scripts.recipe, **keys | more)
        assert outcome.code == 0, outcome.err
        return outcome

    for name in STAGE_SCRIPTS:
        run_script(name)
    return folder / "mini", run_script


@pytest.fixture
def model(run):
    return run[0] / "model"


def test_help_explains_what_recipes_can_name(registered):
    # Lines may end anywhere.
    text = "".join(recipe_parser("A test.", ("calibration",)).format_help().split())
    words = "; length_ratio: length of the shorter text, of mention and name, by the longer"
    assert "".join(words.split()) in text


def test_they_decide_about_a_served_answer(model):
    state = json.loads((model / "calibrator.json").read_text())
    every, *fallbacks = state["models"]
    of_names = {"cross_encoder", "length_ratio"}
    assert {*every["fusion"]["weights"]} == of_names | {"retrieval", "first_letter"}
    assert every["method"] == "half_line" and {*every["parameters"]} == {"intercept"}
    assert "loss: hinge" in (model / "recipe.yaml").read_text()
    # It needs nothing but names.
    assert all({*entry["fusion"]["weights"]} == of_names for entry in fallbacks)
    reranker = UMLSReranker.from_pretrained(model)
    candidates = [*read_rows(model.parent / "lists" / "test.arrow")][-1].mappings()[0]["candidates"]
    assert {candidate["first_letter_score"] for candidate in candidates} <= {0.0, 1.0}
    # Scores of an index count only from this.
    with pytest.warns(UserWarning, match="no tiers: .* lists of the index"):
        ranked = reranker.rerank("fever", candidates)
    assert ALL_INPUTS not in {item.model_name for item in ranked}
    assert all(0 < item.cross_encoder_score < 1 for item in ranked if item.logit is not None)


def test_the_index_of_a_retriever_is_a_stage(run):
    folder, run_script = run
    assert run_script("build_index").skipped == ["vectors", "index", "first_letters", "lists"]
    manifest = json.loads((folder / "lists" / "manifest.json").read_text())
    assert {*manifest["inputs"]} == {"index", "first_letters", "mentions"}
    assert {*manifest["summary"]["test"]["recall"]} == {"dense", "first_letter", "union"}


def test_a_linker_answers_with_them_from_an_exported_index(run, tmp_path):
    folder, run_script = run
    run_script("export_index", index_folder=tmp_path / "index")
    names = {path.name for path in (tmp_path / "index").iterdir()}
    assert names == {"concepts", "index", "first_letters", "encoder", "index.json"}
    linker = ConceptLinker.from_pretrained(
        folder / "model", tmp_path / "index", device="cpu", dtype="float32"
    )
    assert linker.retriever.index_key == linker.reranker.calibration.source.index_key != ""
    (candidates,) = linker.candidates(linker.read(["fever"])).to_pylist()
    assert {candidate["first_letter_score"] for candidate in candidates} == {0.0, 1.0}
    linked = linker.link("fever", entity_type="Sign or Symptom")
    assert len(linked) == len(candidates) and linked[0].model_name == ALL_INPUTS


def test_a_model_whose_feature_is_not_there_is_refused(model, monkeypatch):
    monkeypatch.delitem(FEATURES, "length_ratio")
    with pytest.raises(UserError, match="length_ratio"):
        UMLSReranker.from_pretrained(model)


def test_a_feature_has_a_name_of_its_own_and_known_inputs():
    with pytest.raises(ValueError, match="exact_name"):
        register_feature(Feature("exact_name", ""))
    with pytest.raises(ValueError, match="birthday"):
        register_feature(Feature("age", "", inputs=("birthday",)))
