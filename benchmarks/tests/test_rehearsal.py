"""The rehearsal in small: its synthetic release and corpus are read without a fault, and every
stage runs.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from list_model import run_script

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import rehearsal  # noqa: E402
from pubtator_corpus import write_corpus  # noqa: E402
from rehearsal import Rehearsal  # noqa: E402
from rrf_release import write_release  # noqa: E402

from umls_reranker.pipeline.options import parse_recipe  # noqa: E402


def test_the_release_and_the_corpus_are_read_as_what_they_stand_for(tmp_path, capsys):
    small = Rehearsal(tmp_path, 0.0005, steps=4)
    write_release(tmp_path / "META", small.rows, seed=13, relations=9)
    write_corpus(tmp_path / "META", tmp_path / "corpus", small.documents, small.mentions, seed=13)
    words = [*map(str, small.command("prepare_data"))]
    run_script("prepare_data", *words[words.index("prepare_data") + 1 :])
    told = capsys.readouterr().out
    assert f"{small.rows:,}" in told and f"{small.mentions:,}" in told


@pytest.mark.parametrize("best", [False, True])
def test_the_cross_encoder_starts_where_the_recipe_says(tmp_path, best):
    words = [*map(str, Rehearsal(tmp_path, 0.0005, steps=4, best=best).command("train"))]
    recipe = parse_recipe("", (), argv=words[words.index("train") + 1 :])
    assert recipe.starts_from_trained_encoder == best


def test_what_serves_is_looked_for_before_the_first_stage(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["rehearsal.py", str(tmp_path / "work")])
    monkeypatch.setattr(rehearsal, "SERVING", ("no_such_server",))
    with pytest.raises(SystemExit):
        rehearsal.main()
    assert "no_such_server" in capsys.readouterr().err and not (tmp_path / "work").exists()


@pytest.mark.extra
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("further", [[], ["--best"]])
def test_a_thousandth_is_published_and_served(tmp_path, further):
    words = [
        ROOT / "benchmarks" / "rehearsal.py",
        tmp_path,
        "--scale",
        "0.001",
        "--steps",
        "16",
        *further,
    ]
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split(" | ")[0].removeprefix("| ") for line in done.stdout.splitlines()]
    made = {
        "publish",
        "calibrate",
        f"calibrate as sapbert-medmentions{'-best' if further else ''}",
        "serve, 20 mentions linked by HTTP",
        "build_index, 2 processes: lists",
    }
    assert made <= {*lines}
