"""The GPU benchmark in small, from its archive, as on a machine that has little more than torch and transformers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import tiny_encoder

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


@pytest.mark.extra
@pytest.mark.timeout(900)
def test_the_archive_measures_everything_without_further_libraries(tmp_path, blocked):
    import pyarrow as pa

    from umls_reranker.core.arrays import arrow_writer

    names = [[f"ache {mention} {number}" for number in range(10)] for mention in range(12)]
    columns = {"entity": [f"pain {mention}" for mention in range(12)], "names": names}
    table = pa.table(columns | {"labels": [[1] + [0] * 9] * 12, "weights": [[1.0, 2.0] * 5] * 12})
    with arrow_writer(tmp_path / "pairs" / "train.arrow", table.schema) as writer:
        writer.write(table)
    model = tiny_encoder(tmp_path / "model")
    printed = run(GPU / "pack.py", tmp_path / "gpu.tar.gz", "--pairs", tmp_path / "pairs", "--model", model)
    assert "120 pairs" in printed
    subprocess.run(["tar", "xzf", tmp_path / "gpu.tar.gz", "-C", tmp_path], check=True)

    output = tmp_path / "gpu.md"
    run(tmp_path / "gpu" / "run.py", "--device", "cpu", "--quick", "--output", output, PYTHONPATH=str(blocked))
    lines = output.read_text().splitlines()
    parts = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert parts == ["peak", "training", "scoring", "agreement", "one_mention", "throughput"]
    assert not any("Failed" in line for line in lines)
