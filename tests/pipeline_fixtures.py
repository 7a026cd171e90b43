"""A miniature run from raw files to a published model, for the tests of the scripts; a pytest
plugin.

Scripts run in children of a server that has imported the libraries already, which takes tenths of
a second instead of five. They are processes that can be killed.

PYTEST_DONT_REWRITE: test modules import from here before pytest takes it as a plugin.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import runpy
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from data_fixtures import PMIDS, write_pubtator, write_rrf
from filelock import FileLock
from list_fixtures import ROUNDING, assert_alike
from safetensors.numpy import load_file
from tiny_models import tiny_cross_encoder, tiny_encoder

from umls_reranker.__main__ import main
from umls_reranker.core.arrow_files import open_arrow
from umls_reranker.core.json_files import read_json
from umls_reranker.hub.file_names import MANIFEST

ROOT = Path(__file__).resolve().parent.parent
STAGE_SCRIPTS = ("prepare_data", "build_index", "mine_negatives", "train", "calibrate", "evaluate")
SCRIPTS = (*STAGE_SCRIPTS, "validate")
# The copy of document 900 is 700, and so on.
COPIES = tuple(f"7{pmid[1:]}" for pmid in PMIDS)
BOOKKEEPING = {".lock", "stages.jsonl"}
# What is kept of a process: its outputs, and the changes that it made to a watched folder.
PRINTED = ("out", "err", "changes")
CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir"}
PRELOADED = [
    "accelerate.commands.launch",
    "faiss",
    "rich.table",
    "scipy.stats",
    "sklearn.isotonic",
    "sklearn.metrics",
    "torch.distributed.run",
    "torch.utils.tensorboard",
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
    "umls_reranker.evaluation.report",
    "umls_reranker.evaluation.render",
    "umls_reranker.pipeline.data",
    "umls_reranker.retrieval.deployment",
    "umls_reranker.retrieval.mining",
    "umls_reranker.serving.calibrate_lists",
    "umls_reranker.serving.evaluate",
    "umls_reranker.training.dev_metrics",
    "umls_reranker.training.fine_tuning",
]


@dataclass(frozen=True)
class Outcome:
    """How a process ended.

    Attributes:
        code: exit code; -9 when it was killed.
        out, err: what it printed.
        changes: the changes to the watched folder, in order, as ``EVENT PATH``.
    """

    code: int
    out: str
    err: str
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Shown by a failed assertion.
        object.__setattr__(self, "err", self.err.replace("\r", "\n"))

    @property
    def errors(self) -> list[str]:
        """The lines on standard error that report an error or a traceback."""
        return [
            line
            for line in self.err.splitlines()
            if re.match(r"error:|Traceback|\s+File |\w*Error\b", line)
        ]

    @property
    def remade(self) -> list[str]:
        """The stages that were run, not skipped."""
        return re.findall(r"^\[(\w+)\] ->", self.err, re.MULTILINE)

    @property
    def skipped(self) -> list[str]:
        return re.findall(r"^\[(\w+)\] up to date", self.err, re.MULTILINE)


class Scripts:
    """Runs the scripts with one recipe.

    Attributes:
        materials: folder of the raw files, the tiny models and the recipe ``config.yaml``.
    """

    def __init__(self, materials: Path, server: Any) -> None:
        self.materials = materials
        self.recipe = materials / "config.yaml"
        self._server = server

    def run(
        self,
        script: str | Path,
        *arguments: Any,
        watch: Path | None = None,
        kill_at: int | str | None = None,
        cwd: Path | None = None,
        **overrides: Any,
    ) -> Outcome:
        """Run ``umls-reranker SCRIPT``, without arguments with the recipe, or the script of a path,
        in a child of the server.

        Args:
            script: name of a command, or path of a script.
            watch: a folder whose changes are recorded.
            kill_at: kill the process, as ``kill -9`` does, right before it makes this change to the
                watched folder: the number of the change (from 0), or a part of its description.
            cwd: the working folder; None: that of the tests when the server started.
            overrides: recipe keys, as ``--key value``.
        """
        if kill_at is not None and sys.platform == "win32":
            pytest.skip("Windows has no SIGKILL")
        default = [] if isinstance(script, Path) else [self.recipe]
        words = [str(word) for word in (arguments or default)] + _options(overrides)
        watched = None if watch is None else str(watch)
        return self._run(script, words, [{}], watched, kill_at, cwd)

    def launch(
        self,
        script: str | Path,
        *words: Any,
        config: str = "cpu_two_processes",
        processes: int = 2,
    ) -> Outcome:
        """Run a script in children of the server, as ``accelerate launch`` does with one of the
        configurations.
        """
        options = [
            "--config_file",
            ROOT / "accelerate_configs" / f"{config}.yaml",
            "--num_processes",
            processes,
        ]
        options += ["--main_process_port", 0, "a script"]
        launch = _validate_launch_command(launch_command_parser().parse_args([*map(str, options)]))[
            0
        ]
        common = {
            key: value
            for key, value in prepare_multi_gpu_env(launch).items()
            if os.environ.get(key) != value
        }
        common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": launch.master_port}
        common |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        ranks = [common | {"RANK": rank, "LOCAL_RANK": rank} for rank in map(str, range(processes))]
        return self._run(script, [*map(str, words)], ranks)

    def _run(
        self, script: str | Path, words: list[str], environments: list[dict], *options: Any
    ) -> Outcome:
        """A process for each environment; where one fails, the others are killed."""
        with tempfile.TemporaryDirectory() as scratch:
            processes = []
            for number, environment in enumerate(environments):
                folder = Path(scratch, str(number))
                folder.mkdir()
                arguments = (script, words, folder, environment, *options)
                processes.append(self._server.Process(target=_run_script, args=arguments))
                processes[-1].start()
            while alive := [process for process in processes if process.exitcode is None]:
                failed = any(process.exitcode for process in processes)
                if failed or not wait([process.sentinel for process in alive], 240):
                    for process in alive:
                        process.kill()
                        process.join()
            printed = {
                name: "".join(
                    path.read_text("utf-8") for path in sorted(Path(scratch).glob(f"*/{name}"))
                )
                for name in PRINTED
            }
        code = next((process.exitcode for process in processes if process.exitcode), 0)
        return Outcome(code, printed["out"], printed["err"], tuple(printed["changes"].splitlines()))


def _options(overrides: Mapping[str, Any]) -> list[str]:
    words = []
    for key, value in overrides.items():
        words += [f"--{key}", *map(str, value if isinstance(value, (list, tuple)) else [value])]
    return words


def _run_script(
    script: str | Path,
    words: list[str],
    folder: Path,
    environment: dict[str, str],
    watched: str | None = None,
    kill_at: int | str | None = None,
    cwd: Path | None = None,
) -> None:
    """Become ``umls-reranker SCRIPT WORDS``, or ``python SCRIPT WORDS`` of a path; runs in a child
    of the server.
    """
    streams = {
        name: os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for name in PRINTED
    }
    os.dup2(streams["out"], 1)
    os.dup2(streams["err"], 2)
    if cwd is not None:
        os.chdir(cwd)
    if watched is not None:
        _watch(watched, streams["changes"], kill_at)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment
    multiprocessing.set_start_method(None, force=True)  # not that of the server's children
    if isinstance(script, Path):
        sys.argv = [str(script), *words]
        runpy.run_path(str(script), run_name="__main__")
    else:
        sys.argv = ["umls-reranker", script, *words]
        main()


def _watch(folder: str, log: int, kill_at: int | str | None) -> None:
    """Log every change to a folder before it happens, and die before the one at `kill_at`."""
    number = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal number
        if event == "open":
            path, mode, flags = arguments
            writes = set(mode or "") & set("wax+") or (flags or 0) & (
                os.O_WRONLY | os.O_RDWR | os.O_CREAT
            )
            paths = [path] if writes else []
        elif event in CHANGES:
            paths = [
                os.fsdecode(path)
                for path in arguments
                if isinstance(path, (str, bytes, os.PathLike))
            ]
        else:
            return
        # shutil.rmtree names what it removes relative to an open folder.
        inside = any(str(path).startswith(folder) for path in paths) or (
            event == "os.remove" and arguments[1] != -1
        )
        if not inside:
            return
        change = f"{event} {' '.join(str(path).removeprefix(folder) for path in paths)}"
        os.write(log, f"{change}\n".encode())
        if kill_at is not None and (
            number == kill_at if isinstance(kill_at, int) else kill_at in change
        ):
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        number += 1

    sys.addaudithook(hook)


def contents(folder: Path) -> dict[str, str]:
    """File -> SHA-256, of every file but the run's lock and log."""
    files = (
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in BOOKKEEPING
    )
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def assert_same_files(found: Path, expected: Path, tolerance: float = ROUNDING) -> None:
    """That two folders hold the same files; computed numbers in them may differ by rounding."""
    names = contents(expected).keys()
    assert contents(found).keys() == names
    for name in names:
        assert_alike(values_of(found / name), values_of(expected / name), tolerance, name)


def values_of(path: Path) -> Any:
    """The content of a file, with its numbers as numbers.

    Pages and pictures are left out: they show numbers of the other files.
    """
    if path.suffix in (".md", ".html", ".svg"):
        return None
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".arrow":
        return open_arrow(path).to_pydict()
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pydict()
    if path.suffix == ".faiss":
        index = faiss.read_index(str(path))
        return index.reconstruct_n(0, index.ntotal)
    if path.suffix != ".json":
        return path.read_bytes()
    content = read_json(path)
    if path.name == MANIFEST:
        # Hashes of the files that are compared by value.
        del content["sha256"]
    return content


def change_times(folder: Path) -> dict[str, int]:
    """File -> time of the last change in nanoseconds, of the same files."""
    return {name: (folder / name).stat().st_mtime_ns for name in contents(folder)}


def write_materials(folder: Path) -> Path:
    """Write raw files, tiny models and the recipe.

    The corpus holds every document twice, under two ids: a random model of two layers learns
    nothing from 60 mentions that it could use on others, but it can remember some of them.
    """
    write_rrf(folder / "META")
    corpus = write_pubtator(folder / "corpus.txt")
    text = corpus.read_text(encoding="utf-8")
    corpus.write_text(
        f"{text}\n" + re.sub(r"^9(\d\d)(?=[|\t])", r"7\1", text, flags=re.MULTILINE),
        encoding="utf-8",
    )
    for name, ids in {
        "train": PMIDS,
        "held_out": COPIES,
        "dev": COPIES[:14],
        "test": COPIES[14:],
    }.items():
        (folder / f"{name}.txt").write_text("".join(f"{pmid}\n" for pmid in ids), encoding="utf-8")
    tiny_encoder(folder / "encoder")
    tiny_cross_encoder(folder / "model", spread=0.1)
    recipe = {
        "run_name": "mini",
        "output_dir": folder / "runs",
        "cache_dir": folder / "cache",
        "device": "cpu",
        "scoring_dtype": "float32",
        "umls_dir": folder / "META",
        "corpus": corpus,
        "train_documents": folder / "train.txt",
        "dev_documents": folder / "held_out.txt",
        "expected_mentions": 120,
        "dev_share": 0.3,
        "encoder": folder / "encoder",
        "encoder_pooling": "mean",
        "encoder_dtype": "float32",
        "candidates_per_mention": 8,
        "model": folder / "model",
        "learning_rate": 5e-3,
        "max_steps": 60,
        "global_batch_size": 32,
        "per_device_train_batch_size": 16,
        "positive_weight": 5,
        "bf16": False,
        "eval_steps": 20,
        "targets": ["acc@1 >= 0"],
    }
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in recipe.items()}
    (folder / "config.yaml").write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")
    return folder


@dataclass(frozen=True)
class FinishedRun:
    """A run folder, the recipe it was made with, and how each script of it ended."""

    folder: Path
    recipe: Path
    outcomes: Mapping[str, Outcome]


@pytest.fixture(scope="session")
def scripts(tmp_path_factory) -> Iterator[Scripts]:
    """The miniature recipe, and the means to run scripts with it."""
    # Windows has no forks: each script imports the libraries itself.
    server = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    server.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        started = server.Process(target=int)
        started.start()
    yield Scripts(write_materials(tmp_path_factory.mktemp("materials")), server)
    started.join()


@pytest.fixture(scope="session")
def finished(scripts, tmp_path_factory) -> FinishedRun:
    """A full run; tests must not change the folder.

    One worker makes it, the others copy it to where their recipe has it.
    """
    shared = tmp_path_factory.getbasetemp() / "finished"
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parents[1] / shared.name
    folder = scripts.materials / "runs" / "mini"
    made = shared / "outcomes.json"
    with FileLock(f"{shared}.lock"):
        if made.exists():
            shutil.copytree(shared / "mini", folder)
        else:
            outcomes = {}
            for script in SCRIPTS:
                outcomes[script] = scripts.run(script)
                assert outcomes[script].code == 0, outcomes[script].err
            shutil.copytree(folder, shared / "mini", dirs_exist_ok=True)
            ended = {
                "recipe": str(scripts.recipe),
                "outcomes": {name: asdict(one) for name, one in outcomes.items()},
            }
            made.write_text(json.dumps(ended), encoding="utf-8")
    ended = json.loads(made.read_text(encoding="utf-8"))
    outcomes = {script: Outcome(**outcome) for script, outcome in ended["outcomes"].items()}
    return FinishedRun(folder, Path(ended["recipe"]), outcomes)
