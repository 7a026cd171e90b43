"""A Space of the demo: what is in the folder, and what is not."""

import ast

import pytest
import yaml
from tiny_reranker import tiny_reranker

from umls_reranker import UMLSReranker
from umls_reranker.core.errors import UserError
from umls_reranker.core.recipe import Recipe
from umls_reranker.core.version import __version__
from umls_reranker.review import space


@pytest.fixture(autouse=True)
def gradio(monkeypatch):
    monkeypatch.setattr(space, "version", {"gradio": "6.31.0"}.__getitem__)


def front(folder):
    return yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])


def assigned(folder, name):
    """The value of a constant in app.py."""
    found = ast.walk(ast.parse((folder / "app.py").read_text(encoding="utf-8")))
    return next(node.value.value for node in found if isinstance(node, ast.Assign) and node.targets[0].id == name)


def test_a_local_model_goes_along(tmp_path):
    (tmp_path / "runs").mkdir()
    run = tmp_path / "runs" / "mine: a run"
    tiny_reranker(run / "model", recipe=Recipe.from_values({"run_name": "mine", "output_dir": str(tmp_path)}))
    (run / "index").mkdir()
    space.export_space(str(run), tmp_path / "space")
    assert {path.name for path in (tmp_path / "space").iterdir()} == {
        "README.md",
        "app.py",
        "model",
        "requirements.txt",
    }
    assert front(tmp_path / "space") == {
        "title": "Try mine: a run",
        "sdk": "gradio",
        "sdk_version": "6.31.0",
        "app_file": "app.py",
    }
    assert assigned(tmp_path / "space", "MODEL") == "model"
    assert (tmp_path / "space" / "requirements.txt").read_text() == f"umls_reranker[demo]=={__version__}\n"
    UMLSReranker.from_pretrained(tmp_path / "space" / "model", device="cpu", dtype="float32")
    assert str(tmp_path) not in (tmp_path / "space" / "model" / "recipe.yaml").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="space is not empty; give a new folder"):
        space.export_space(str(run), tmp_path / "space")


def test_a_model_of_the_hub_is_named(tmp_path):
    space.export_space("org/my-reranker@v1", tmp_path / "space")
    assert {path.name for path in (tmp_path / "space").iterdir()} == {"README.md", "app.py", "requirements.txt"}
    assert assigned(tmp_path / "space", "MODEL") == "org/my-reranker@v1"
    assert front(tmp_path / "space")["title"] == "Try my-reranker@v1"
