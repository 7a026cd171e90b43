"""Start commands in processes of their own, and scripts in several, on GPUs and machines, with accelerate."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import yaml

from .cores import usable_cores
from .errors import UserError
from .files import shipped_configs
from .script import CommandParser

# Scripts that can share their work among processes.
LAUNCHED = ("build_index", "mine_negatives", "train", "rerank")
# Options of `accelerate launch` that commands accept, and their types.
OPTIONS = {
    "num_processes": int,
    "num_machines": int,
    "machine_rank": int,
    "main_process_ip": str,
    "main_process_port": int,
    "fsdp_transformer_layer_cls_to_wrap": str,
}

# What commands import and what takes seconds to import.
LIBRARIES = (
    "accelerate",
    "datasets",
    "evaluate",
    "faiss",
    "scipy.optimize",
    "sklearn.metrics",
    "transformers.trainer",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
)
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def begin(words: Sequence[str], log: Path | None = None) -> BaseProcess:
    """Start ``umls-reranker WORDS`` in a process of its own.

    On Linux without a GPU it is forked from this process, which imports the libraries first: for each of eight
    commands, the imports take as long as the short ones work. The driver of a GPU may not survive a fork.

    Args:
        words: command and arguments.
        log: file that the output is appended to; None: the output of this process.
    """
    forks = sys.platform == "linux" and not any(map(os.path.exists, GPU_DRIVERS))
    for name in LIBRARIES if forks else ():
        importlib.import_module(name)
    context: Any = multiprocessing.get_context("fork" if forks else "spawn")
    process = context.Process(target=_become, args=(list(words), log))
    process.start()
    return process


def _become(words: list[str], log: Path | None) -> None:
    """Turn this process into ``umls-reranker WORDS``; it ends with the command's exit code."""
    end_with_parent()
    if log is not None:
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = (
            os.fdopen(number, "w", buffering=1, encoding="utf-8", closefd=False) for number in (1, 2)
        )
    sys.argv = ["umls-reranker", *words]
    # A fork has it from its parent, and runpy warns of a module that is there already.
    sys.modules.pop("umls_reranker.__main__", None)
    runpy.run_module("umls_reranker", run_name="__main__", alter_sys=True)


def end_with_parent() -> None:
    """Have this process, one of `multiprocessing`, ended when the process that started it is killed."""
    threading.Thread(target=_outlive_no_parent, daemon=True).start()


def _outlive_no_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # because this is not a main process
    parent.join()
    # A launcher passes it on to its own processes.
    os.kill(os.getpid(), signal.SIGTERM)


def launch_options(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Options of the launcher, empty if nothing is to be launched, and the other words.

    A configuration of the package uses one process per GPU, on one machine or several. A file is used unchanged.

    Raises:
        UserError: an option has a value of the wrong type or needs ``--accelerate_config``, or the configuration does
            not exist or needs missing GPUs.
    """
    parser = CommandParser(add_help=False)
    for name, kind in {"accelerate_config": str, **OPTIONS}.items():
        parser.add_argument(f"--{name}", type=kind)
    arguments, further_words = parser.parse_known_args(words)
    options = {name: value for name, value in vars(arguments).items() if value is not None}
    if options and "accelerate_config" not in options:
        raise UserError(f"--{next(iter(options))} needs --accelerate_config, e.g. --accelerate_config multi_gpu_fp16")
    for name in ("num_processes", "num_machines"):
        if options.get(name, 1) < 1:
            raise UserError(f"--{name}: {options[name]} must be 1 or more")
    if options and not Path(name := options["accelerate_config"]).is_file():
        known = {name: path for name, path in shipped_configs().items() if path.suffix == ".yaml"}
        if name not in known:
            raise UserError(f"--accelerate_config: {name} is neither a file nor one of {', '.join(known)}")
        options["accelerate_config"] = str(known[name])
        if "num_processes" not in options:
            options["num_processes"] = _processes(name, _settings(options))
    return options, further_words


def start(script: Path, words: Sequence[str], options: Mapping[str, Any]) -> int:
    """Launch a script with accelerate and wait for its end.

    Args:
        script: the script.
        words: its command line.
        options: options of the launcher, from `launch_options`.

    Returns:
        The exit code, as `shell_code` returns it; 0, or that of the first process that failed.

    Raises:
        UserError: accelerate refuses the configuration.
    """
    return shell_code(_launch(script, words, options))


def launched_processes(options: Mapping[str, Any]) -> int:
    """Number of processes that `start` would start with these options; 1 if nothing is to be launched.

    Raises:
        UserError: the configuration cannot be read.
    """
    if not options:
        return 1
    with _refusing(options["accelerate_config"]):
        return int(_settings(options).get("num_processes", 1))


def shell_code(code: int) -> int:
    """An exit code of `subprocess` as a shell reports it: for a killed process, 128 plus the signal's number."""
    return code if code >= 0 else 128 - code


def _launch(script: Path, words: Sequence[str], options: Mapping[str, Any]) -> int:
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    config = options["accelerate_config"]
    command = ["--config_file", config]
    for name in OPTIONS:
        if name in options:
            command += [f"--{name}", str(options[name])]
    arguments = launch_command_parser().parse_args([*command, str(script), *words])
    try:
        with _refusing(config):
            _share_cores(_settings(options))
            launch_command(arguments)
    except subprocess.CalledProcessError as error:
        return error.returncode
    except ChildFailedError as error:
        return error.get_first_failure()[1].exitcode
    except SignalException as error:
        return -error.sigval
    return 0


@contextmanager
def _refusing(config: str) -> Iterator[None]:
    """Name the configuration in errors while it is read."""
    try:
        yield
    except (TypeError, ValueError, ArithmeticError, yaml.YAMLError) as error:
        raise UserError(f"accelerate refuses {config}: {error}") from None


def _settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that the options name, with its settings replaced by the other options."""
    return {**yaml.safe_load(Path(options["accelerate_config"]).read_text(encoding="utf-8")), **options}


def _share_cores(settings: Mapping[str, Any]) -> None:
    """Give each of several processes its share of the cores, where torch would give it one."""
    here = settings.get("num_processes", 1) // settings.get("num_machines", 1)
    if here > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // here)))


def _processes(name: str, settings: Mapping[str, Any]) -> int:
    if settings["use_cpu"] or settings["distributed_type"] == "NO":
        return settings["num_processes"]
    import torch

    gpus = torch.cuda.device_count()
    if not gpus:
        raise UserError(f"--accelerate_config {name} needs GPUs, and none is visible; on a CPU use cpu")
    return gpus * settings["num_machines"]
