"""The GPU benchmark in small, from its archive, as on a machine that has little more than torch and transformers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GPU = ROOT / "benchmarks" / "gpu"
# What a machine with torch, transformers and accelerate alone does not have.
MISSING = "datasets evaluate faiss pandas pyarrow scipy sentence_transformers sklearn tensorboard xxhash"


def run(*command, **environment):
    command = [sys.executable, *map(str, command)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def blocked(tmp_path):
    """A folder for PYTHONPATH, with which Python finds none of these libraries."""
    folder = tmp_path / "blocked"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({MISSING.split()}))\n")
    return folder


def test_training_and_scoring_load_without_further_libraries(blocked):
    assert "--quick" in run(GPU / "run.py", "--help", PYTHONPATH=f"{blocked}{os.pathsep}{ROOT}")
