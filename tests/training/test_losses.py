"""A loss is one function: recipes can name it, ``--help`` explains it, and training minimizes it."""

import importlib
import sys

import pytest
import torch
from safetensors.torch import load_file
from test_fine_tuning import RUN, make_rows, training
from tiny_models import tiny_cross_encoder

from umls_reranker.core.recipe import parse_recipe, recipe_parser
from umls_reranker.core.settings import ModelArguments
from umls_reranker.core.training_arguments import LOSSES, Loss, bce, register
from umls_reranker.training.fine_tune import fine_tune


@pytest.fixture
def registered():
    importlib.import_module("hinge")
    yield
    del LOSSES["hinge"], sys.modules["hinge"]


def test_a_loss_of_ones_own_trains_a_model(registered, tmp_path):
    help_text = " ".join(recipe_parser("A test.", trains=True).format_help().split())
    assert "hinge: How far each logit is from a margin of one" in help_text
    (tmp_path / "config.yaml").write_text("loss: hinge\n")
    assert parse_recipe("A test.", (), [str(tmp_path)]).training == {"loss": "hinge"}
    base = tiny_cross_encoder(tmp_path / "base", spread=0.1)
    rows = make_rows(26)
    weights = {}
    for loss in ("hinge", "bce"):
        settings = training(loss=loss, max_steps=4, eval_steps=4)
        summary = fine_tune(RUN, ModelArguments(model=str(base), max_length=32), settings, rows, rows, tmp_path / loss)
        weights[loss] = load_file(tmp_path / loss / "checkpoint-best" / "model.safetensors")["classifier.weight"]
        assert summary["steps"] == 4
    assert not torch.equal(weights["hinge"], weights["bce"])


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="loss 'bce' is already registered"):
        register("bce", Loss(bce))
