"""What `pip install` provides, outside the checkout: the command, the recipes, the first stage of a
run.
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from processes import ROOT, python
from tiny_reranker import tiny_reranker

pytestmark = pytest.mark.extra


INSTALLED = ("umls_reranker", "scripts", "recipes", "accelerate_configs")


def run(*words, cwd):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
        "OMP_NUM_THREADS": "1"
    }
    return subprocess.run(
        list(map(str, words)), capture_output=True, text=True, env=environment, timeout=900, cwd=cwd
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """What is installed, without what former builds left in the checkout."""
    folder = tmp_path_factory.mktemp("source")
    for name in INSTALLED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def environment(source, tmp_path):
    """A fresh environment with a wheel and all that it asks for."""
    folder = tmp_path / "environment"
    venv.create(folder)
    (site,) = folder.glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "pip", "--python", folder, "install", "-q", "--no-compile"]
    installed = run(*install, f"{source}[quickstart]", cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr
    (tmp_path / "empty").mkdir()
    yield folder, site, tmp_path / "empty"
    shutil.rmtree(folder)  # gigabytes


@pytest.mark.timeout(1200)
def test_the_commands_are_there_after_pip_install(source, environment):
    folder, site, empty = environment
    command = folder / "bin" / "umls-reranker"
    for name in INSTALLED:
        files = {
            path.relative_to(source): path.read_bytes() for path in (source / name).rglob("*.*")
        }
        within = site if name == "umls_reranker" else site / "umls_reranker"
        assert files == {path: (within / path).read_bytes() for path in files}
    refused = run(command, "quickstart", "--seed", "-1", cwd=empty)
    assert refused.stderr.startswith("error: argument --seed")
    copied = run(command, "recipes", "copy", "quickstart", cwd=empty)
    assert copied.stdout == f"{Path('quickstart') / 'config.yaml'}\n", copied.stderr
    made = run(command, "prepare_data", "quickstart", cwd=empty)
    assert made.returncode == 0, made.stderr
    assert (empty / "runs" / "quickstart" / "mentions" / "manifest.json").is_file()
    for words in ([command], [folder / "bin" / "python", "-m", "umls_reranker"]):
        helped = run(*words, "serve", "--help", cwd=empty)
        assert helped.returncode == 0 and helped.stdout.startswith("usage: umls-reranker serve "), (
            helped.stderr
        )


# What is missing on macOS (CPU affinity) and on Windows (fcntl, fork) is never asked for without


# What Windows lacks is hidden from this package only: on Linux, asyncio and torch need it.
AS_ON_WINDOWS = """
import builtins, os, pkgutil, sys

def without_posix(name, globals=None, *rest, found=builtins.__import__, **named):
    ours = (globals or {}).get("__name__", "").startswith("umls_reranker")
    if ours and name in ("fcntl", "grp", "pwd", "resource", "termios"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return found(name, globals, *rest, **named)

builtins.__import__ = without_posix
import torch, transformers
for name in ("fork", "getuid", "register_at_fork", "sched_getaffinity"):
    delattr(os, name)

import umls_reranker
for module in pkgutil.walk_packages(umls_reranker.__path__, "umls_reranker."):
    try:
        __import__(module.name)
    except ModuleNotFoundError as error:
        # An extra that tests do not install.
        assert error.name == "gradio", error

from fastapi.testclient import TestClient
from umls_reranker.serving.arguments import ServingArguments
from umls_reranker.doors.http.app import create_app

reranker = umls_reranker.UMLSReranker.from_pretrained(sys.argv[1], device="cpu")
with TestClient(create_app(reranker, ServingArguments()), base_url="http://localhost") as client:
    answer = client.post("/rerank", json={"query": "cold", "texts": ["common cold", "cough"]})
assert answer.status_code == 200, answer.text
"""


@pytest.mark.extra  # the host's macOS and Windows run all tests
def test_every_module_loads_and_a_request_is_answered_without_what_windows_lacks(tmp_path):
    python("-c", AS_ON_WINDOWS, tiny_reranker(tmp_path / "model"))
