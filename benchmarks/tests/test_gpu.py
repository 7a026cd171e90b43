"""The GPU benchmark in small, from its archive, as on a machine that has little more than torch and
transformers.
"""

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from tiny_models import tiny_encoder

from umls_reranker.lists.run_lists import write_list_rows

ROOT = Path(__file__).parents[2]
GPU = ROOT / "benchmarks" / "gpu"
# What a machine with torch, transformers and accelerate alone does not have.
MISSING = "datasets evaluate faiss pandas pyarrow scipy sentence_transformers sklearn tensorboard"

MISSED = ("float16", "scoring by sentence-transformers", "training by sentence-transformers")


def run(*command, **environment):
    command = [sys.executable, *map(str, command)]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def blocked(tmp_path):
    """A folder for PYTHONPATH, with which Python finds none of these libraries."""
    folder = tmp_path / "blocked"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({MISSING.split()}))\n"
    )
    return folder


@pytest.mark.extra
def test_the_whole_course_runs_on_a_cpu_without_further_libraries(tmp_path, blocked):
    """From the archive; what needs a GPU or sentence-transformers is named as not measured."""
    names = ["".join(chr(97 + row * place % 26) for place in (1, 3, 5, 7)) for row in range(18)]
    lists = {"labels": [1, 0, 0, 0], "weights": [1.0] * 4}
    rows = [{"entity": names[at], "names": names[at : at + 4], **lists} for at in range(15)]
    write_list_rows(iter([pa.Table.from_pylist(rows)]), tmp_path / "train.arrow")
    model = tiny_encoder(tmp_path / "model")
    run(
        GPU / "pack.py",
        tmp_path / "gpu.tar.gz",
        "--pairs",
        tmp_path,
        "--model",
        model,
        PYTHONPATH=str(ROOT),
    )
    with tarfile.open(tmp_path / "gpu.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    options = ("--device", "cpu", "--quick", "--output", tmp_path / "gpu.md")
    text = run(tmp_path / "gpu" / "run.py", *options, PYTHONPATH=str(blocked))
    assert text == (tmp_path / "gpu.md").read_text() and "Failed" not in text
    sections = ["peak", "training", "scoring", "agreement", "one_mention", "batches", "throughput"]
    assert re.findall("^## (.*)", text, re.MULTILINE) == sections
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    scored = {row[2] for row in rows if len(row) == 4 and row[0] in ("minilm", "bert-base")}
    assert scored == {"1", "32", "64"}
    trained = [row for row in rows if len(row) == 8 and row[0] in ("MiniLM", "BERT-base")]
    assert {row[2] for row in trained} == {"1", "4"}
    for row in trained:
        pairs_per_second = float(row[3].replace(",", ""))
        # Pairs a second are rounded to one, hours to a tenth.
        slowest = 6.3e6 / 3_600 / (float(row[4]) + 0.06)
        fastest = 6.3e6 / 3_600 / (float(row[4]) - 0.06)
        assert slowest - 0.6 < pairs_per_second < fastest + 0.6
    missing = [line.split(",")[0] for line in text.splitlines() if line.startswith("Not measured")]
    assert missing == [f"Not measured: {what}" for what in MISSED]
