"""A feature, a calibrator and a loss from outside the package, each in one file, from recipe to
served answer.
"""

import importlib
import json
import sys

import pytest
from pipeline_fixtures import ROOT

from umls_reranker import UMLSReranker
from umls_reranker.calibration.calibrators import CALIBRATORS
from umls_reranker.calibration.features import ALL_INPUTS, FEATURES, Feature, register_feature
from umls_reranker.core.errors import UserError
from umls_reranker.pipeline.recipe import recipe_parser
from umls_reranker.training.losses import LOSSES

pytest_plugins = ["pipeline_fixtures"]

TOYS = [
    ROOT / "tests" / path
    for path in ("calibration/length_ratio.py", "calibration/half_line.py", "training/hinge.py")
]


@pytest.fixture(scope="module")
def registered():
    with pytest.MonkeyPatch.context() as patch:
        for toy in TOYS:
            patch.syspath_prepend(toy.parent)
            importlib.import_module(toy.stem)
        yield
    del FEATURES["length_ratio"], CALIBRATORS["half_line"], LOSSES["hinge"]
    for toy in TOYS:
        del sys.modules[toy.stem]


@pytest.fixture(scope="module")
def model(registered, scripts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("extended")
    keys = {"output_dir": folder, "max_steps": 10, "loss": "hinge", "calibrator": "half_line"}
    keys["features"] = ["cross_encoder", "retrieval", "length_ratio"]
    modules = ":".join(map(str, TOYS))
    for name in ("prepare_data", "build_index", "mine_negatives", "train", "calibrate", "evaluate"):
        outcome = scripts.run(
            ROOT / "tests" / "with_module.py", modules, name, scripts.recipe, **keys
        )
        assert outcome.code == 0, outcome.err
    return folder / "mini" / "model"


def test_help_explains_what_recipes_can_name(registered):
    # Lines may end anywhere.
    text = "".join(recipe_parser("A test.", ("calibration",)).format_help().split())
    words = "; length_ratio: length of the shorter text, of mention and name, by the longer"
    assert (
        all(len(toy.read_text().splitlines()) < 40 for toy in TOYS)
        and "".join(words.split()) in text
    )


def test_they_decide_about_a_served_answer(model):
    state = json.loads((model / "calibrator.json").read_text())
    every, *fallbacks = state["models"]
    assert {*every["fusion"]["weights"]} == {"cross_encoder", "retrieval", "length_ratio"}
    assert every["method"] == "half_line" and {*every["parameters"]} == {"intercept"}
    assert "loss: hinge" in (model / "recipe.yaml").read_text()
    # It needs nothing but names.
    assert all("length_ratio" in entry["fusion"]["weights"] for entry in fallbacks)
    reranker = UMLSReranker.from_pretrained(model)
    with pytest.warns(UserWarning, match="retrieval_score"):
        short, long = reranker.rerank("fever", [{"name": "fever"}, {"name": "a fever that lasts"}])
    assert {short.model_name, long.model_name}.isdisjoint(
        {ALL_INPUTS}
    ) and 0 < short.cross_encoder_score < 1


def test_a_model_whose_feature_is_not_there_is_refused(model, monkeypatch):
    monkeypatch.delitem(FEATURES, "length_ratio")
    with pytest.raises(UserError, match="length_ratio"):
        UMLSReranker.from_pretrained(model)


def test_a_feature_has_a_name_of_its_own_and_known_inputs():
    with pytest.raises(ValueError, match="exact_name"):
        register_feature(Feature("exact_name", ""))
    with pytest.raises(ValueError, match="birthday"):
        register_feature(Feature("age", "", inputs=("birthday",)))
