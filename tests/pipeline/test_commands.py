"""What the scripts share: errors in one line, and whether a stage must run."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch.distributed as dist

from umls_reranker.core.errors import UserError
from umls_reranker.core.keys import RunArguments
from umls_reranker.core.stage import Stage
from umls_reranker.pipeline.command import run_script
from umls_reranker.pipeline.run_folder import should_run
from umls_reranker.pipeline.runner import run_process


def run(main, capsys):
    """Exit code and standard error."""
    with pytest.raises(SystemExit) as caught:
        run_script(main)
    return caught.value.code, capsys.readouterr().err


@pytest.fixture(autouse=True)
def unchanged_process(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(os, "environ", os.environ.copy())


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (1, 1)])
def test_the_result_is_the_exit_code(capsys, result, code):
    assert run(lambda: result, capsys) == (code, "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("config.yaml: unknown key 'x'"), "error: config.yaml: unknown key 'x'\n"),
        (UserError("two\nlines  and\tspaces"), "error: two lines and spaces\n"),
        (
            OSError(28, "No space left on device", "runs/a"),
            "error: [Errno 28] No space left on device: 'runs/a'\n",
        ),
        (
            KeyboardInterrupt(),
            "\ninterrupted; finished stages are kept, run the same command again to resume\n",
        ),
    ],
)
def test_what_the_user_can_mend_is_one_line(capsys, error, line):
    def main():
        raise error

    assert run(main, capsys) == (130 if isinstance(error, KeyboardInterrupt) else 2, line)


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_script(lambda: 1 / 0)


@pytest.mark.parametrize("use", [os.stat, subprocess.run])
def test_a_path_that_holds_a_nul_is_one_line(tmp_path, capsys, use):
    code, error = run(lambda: use(tmp_path / "a\0b"), capsys)
    assert code == 2 and "NUL" in error


def start(*words, **options):
    """Python as a process of its own."""
    variables = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONIOENCODING": "cp1252",
    }
    return subprocess.run(
        [sys.executable, *words], env=variables, stderr=subprocess.PIPE, timeout=240, **options
    )


RUN = "from umls_reranker.pipeline.command import run_script; run_script"


@pytest.mark.parametrize("size", [1, 1_000_000], ids=["at the end", "while it prints"])
def test_a_reader_that_leaves_is_no_error(size):
    reading, writing = os.pipe()
    os.close(reading)
    done = start("-c", f"{RUN}(lambda: print('x' * {size}))", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_letter_that_the_output_cannot_show_is_escaped():
    done = start("-c", f"{RUN}(lambda: print('\u03b2 cells'))", stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout.strip()) == (0, rb"\u03b2 cells"), done.stderr


@pytest.mark.parametrize(
    ("launched", "threads"),
    [
        ({}, "1"),
        ({"ACCELERATE_MIXED_PRECISION": "no"}, "96"),
        ({"ACCELERATE_MIXED_PRECISION": "fp16", "LOCAL_WORLD_SIZE": "8", "WORLD_SIZE": "16"}, "12"),
        ({"LOCAL_WORLD_SIZE": "97"}, "1"),
        ({"LOCAL_WORLD_SIZE": "1", "OMP_NUM_THREADS": "3"}, "3"),
    ],
)
def test_the_processes_of_a_launch_share_the_cores(capsys, monkeypatch, launched, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(96), raising=False)
    os.environ |= {"OMP_NUM_THREADS": "1"} | launched
    assert run(lambda: print(os.environ["OMP_NUM_THREADS"], file=sys.stderr), capsys) == (
        0,
        f"{threads}\n",
    )


def test_a_stage_is_run_when_it_has_to_be(tmp_path, capsys):
    stage = Stage(tmp_path / "index", {"k": 1}, {})

    def asked(**flags):
        answer = should_run(stage, RunArguments(**flags))
        return answer, capsys.readouterr().err

    assert asked() == (True, f"[index] -> {stage.folder}\n")
    assert asked(dry_run=True) == (False, f"[index] would be written to {stage.folder}\n")
    with stage.writing():
        pass
    assert asked() == (False, f"[index] up to date in {stage.folder}\n")
    assert asked(overwrite=True) == (True, f"[index] -> {stage.folder}\n")
    assert asked(overwrite=True, dry_run=True) == (
        False,
        f"[index] would be written to {stage.folder}\n",
    )


def test_what_a_killed_run_left_is_gone_on_with(tmp_path, capsys):
    stage = Stage(tmp_path / "checkpoints", {"rate": 1}, {}, resumes=True)
    other = Stage(tmp_path / "checkpoints", {"rate": 2}, {}, resumes=True)
    with suppress(KeyboardInterrupt), stage.writing() as (folder, _):
        (folder / "checkpoint-1").touch()
        raise KeyboardInterrupt
    assert should_run(other, RunArguments())
    assert "(rate)" in capsys.readouterr().err
    assert should_run(stage, RunArguments())
    assert (
        capsys.readouterr().err == f"[checkpoints] -> {stage.folder}, resuming an interrupted run\n"
    )
    assert should_run(stage, RunArguments(overwrite=True))
    assert "resuming" not in capsys.readouterr().err


def test_a_script_leaves_the_process_group_before_python_ends(capsys):
    def main():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        # As a trainer does: a cycle that keeps the group after `main` has returned.
        cycle = [dist.group.WORLD]
        cycle.append(cycle)

    assert run(main, capsys)[0] == 0
    # That its threads end, too, is seen where it trains: tests/training/loss_on_processes.py.
    assert not dist.is_initialized()


def test_the_log_of_a_stage_has_times_of_day_and_one_state_of_a_bar(tmp_path):
    bar = r"print('\r10%\r20%\r30%', end='\r')"
    script = rf"print('\x1b[31mred\x1b[0m'); {bar}; print('done'); raise SystemExit(3)"
    with (tmp_path / "log").open("w") as log:
        code, printed = run_process([sys.executable, "-c", script], log)
    assert (code, printed) == (3, ["red", "10%", "done"])
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line[9:] for line in lines] == printed and all(
        re.match(r"\d\d:\d\d:\d\d ", line) for line in lines
    )


def test_a_terminal_shows_how_long_a_stage_has_left(capsys):
    script = r"print('\r50%|## | 1/2 [00:09<02:36, 9s/it]\r', end='')"
    assert run_process([sys.executable, "-c", script], title="train")[0] == 0
    assert capsys.readouterr().err == "\rtrain  02:36 left\x1b[K\rtrain\x1b[K"
