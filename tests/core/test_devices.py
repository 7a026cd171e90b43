"""Devices, precisions and threads: what the machine lacks is refused in one line."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from inspect import getsource
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.commands.config import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env

from umls_reranker.core import devices
from umls_reranker.core.devices import (
    batch_mapper,
    goes_on_alone,
    in_threads,
    resolve_device,
    resolve_dtype,
    worker_pool,
)
from umls_reranker.core.errors import UserError
from umls_reranker.pipeline import indexes, preflight, training
from umls_reranker.pipeline.runner import LAUNCHED, PREFLIGHT, LaunchOptions, launcher
from umls_reranker.pipeline.shipped import shipped_configs

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch):
    """Sets how many there are."""

    def make(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    return make


@pytest.mark.parametrize(("count", "device"), [(0, "cpu"), (2, "cuda")])
def test_auto_takes_a_gpu_if_there_is_one(gpus, count, device):
    gpus(count)
    assert resolve_device("auto") == resolve_device(None) == torch.device(device)
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cuda:7", "mps", "gpu", "meta", 1.5])
def test_a_device_that_is_not_there_is_refused(gpus, device):
    gpus(2 if device == "cuda:7" else 0)
    with pytest.raises(UserError, match=str(device)):
        resolve_device(device)


@pytest.mark.parametrize(
    ("supported", "used", "dtype"),
    [
        (True, "AVX512", "bfloat16"),
        (False, "AVX512", "float32"),
        # As with ATEN_CPU_CAPABILITY=avx2.
        (True, "AVX2", "float32"),
    ],
)
def test_auto_is_bfloat16_where_the_processor_computes_in_it(monkeypatch, supported, used, dtype):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported, raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: used)
    assert resolve_dtype("auto", CPU) == resolve_dtype(None, CPU) == dtype
    # What is not trained has the same numbers on every processor.
    assert resolve_dtype("auto", CPU, inference=True) == "float32"


@pytest.mark.parametrize(
    ("is_fast", "dtype", "size", "in_batches", "advises"),
    [
        (True, "auto", 12 * 768**2, False, True),
        (True, None, 12 * 768**2, True, True),
        (True, "auto", 6 * 384**2, True, True),
        (True, "auto", 6 * 384**2, False, False),
        (True, "auto", 4 * 384**2, True, False),
        (True, "float32", 12 * 768**2, True, False),
        (False, "auto", 12 * 768**2, True, False),
    ],
)
def test_bfloat16_is_advised_where_it_takes_less_than_half_of_the_time(
    monkeypatch, is_fast, dtype, size, in_batches, advises
):
    monkeypatch.setattr(devices, "has_fast_bfloat16", lambda device: is_fast)
    advice = devices.bfloat16_advice(dtype, CPU, size, "--dtype bfloat16", in_batches)
    assert (advice is not None and "--dtype bfloat16" in advice) == advises


@pytest.mark.parametrize(
    ("capability", "trains", "infers"),
    [
        ((6, 1), "float32", "float32"),
        ((7, 0), "float16", "float16"),
        ((7, 5), "float16", "float16"),
        ((8, 0), "bfloat16", "bfloat16"),
    ],
)
def test_auto_is_what_a_gpu_computes_fast_in(monkeypatch, capability, trains, infers):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    gpu = torch.device("cuda")
    assert (resolve_dtype("auto", gpu), resolve_dtype("auto", gpu, inference=True)) == (
        trains,
        infers,
    )


def test_a_given_dtype_is_kept_or_refused():
    assert resolve_dtype("float16", torch.device("cuda")) == "float16"
    for dtype, key in (("float16", "scoring_dtype"), ("fp16", "dtype")):
        with pytest.raises(UserError, match=f"{key}: .*{dtype}"):
            resolve_dtype(dtype, CPU, key=key)


@pytest.mark.parametrize(
    ("processes", "asked", "threads"),
    [("1", "3", []), ("4", "3", [12] * 2), ("4", "3,2", [12] * 2), ("4", "", [4] * 2)],
)
def test_one_process_takes_the_cores_of_those_that_wait(monkeypatch, processes, asked, threads):
    given = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    first = SimpleNamespace(is_main_process=True)
    other = SimpleNamespace(is_main_process=False)
    assert goes_on_alone(first) and not goes_on_alone(other)
    assert given == threads and not torch.distributed.is_initialized()


def test_run_launches_only_commands_that_share_their_work():
    modules = {
        "train_encoder": training,
        "build_index": indexes,
        "train": training,
        PREFLIGHT: preflight,
    }
    assert {*LAUNCHED} == {*modules}
    assert all("sharing_processes" in getsource(module) for module in modules.values())


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.setattr(devices, "_pool", None)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_threads_of_the_pool_compute_alone_and_others_as_before(two_threads):
    pool = worker_pool()
    assert worker_pool() is pool
    assert set(pool.map(lambda _: torch.get_num_threads(), range(8))) == {1}
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as other:
        assert other.submit(torch.get_num_threads).result() == 2
    pool.shutdown()


def test_one_thread_needs_no_pool(two_threads):
    torch.set_num_threads(1)
    assert worker_pool() is None
    assert list(batch_mapper(torch.device("cpu"))(str, [1, 2])) == ["1", "2"]


# Accelerate reads every launch configuration as intended, and starts its processes


FOLDER = Path(__file__).resolve().parents[2] / "accelerate_configs"

# File -> kind, machines, processes, precision, on the processor.
EXPECTED = {
    "single_gpu": (DistributedType.NO, 1, 1, "no", False),
    "multi_gpu_fp16": (DistributedType.MULTI_GPU, 1, -1, "fp16", False),
    "multi_gpu_bf16": (DistributedType.MULTI_GPU, 1, -1, "bf16", False),
    "multi_node_fp16": (DistributedType.MULTI_GPU, 2, 8, "fp16", False),
    "fsdp": (DistributedType.FSDP, 1, -1, "bf16", False),
    "cpu": (DistributedType.NO, 1, 1, "no", True),
    "cpu_two_processes": (DistributedType.MULTI_GPU, 1, 2, "no", True),
}


@pytest.mark.parametrize("name", [path.stem for path in FOLDER.glob("*.yaml")])
def test_a_configuration_is_read_as_meant(name):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    kind, machines, processes, precision, on_processor = EXPECTED[name]
    assert (config.distributed_type, config.num_machines, config.num_processes) == (
        kind,
        machines,
        processes,
    )
    assert (config.mixed_precision, config.use_cpu) == (precision, on_processor)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_run_takes_all_gpus_or_the_number_that_the_configuration_says(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 6)
    words = launcher(LaunchOptions(accelerate_config=name))
    is_open = EXPECTED[name][2] == -1
    assert words[5:] == (["--num_processes", "6"] if is_open else [])
    assert launcher(LaunchOptions(name, num_processes=3))[5:] == ["--num_processes", "3"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    if is_open:
        with pytest.raises(UserError, match=f"^--accelerate_config: {name} "):
            launcher(LaunchOptions(accelerate_config=name))


def test_slurm_jobs_say_the_cores_of_a_gpu():
    # Where the default is one core a task, launcher, processes and workers would share it.
    for path in FOLDER.glob("*.slurm"):
        assert "#SBATCH --cpus-per-gpu=8\n" in path.read_text(), path


def test_fsdp_wraps_the_layers_of_bert_and_saves_whole_weights():
    words = [
        "--config_file",
        str(FOLDER / "fsdp.yaml"),
        "--num_processes",
        "4",
        "-m",
        "umls_reranker",
        "train",
        "recipe.yaml",
    ]
    environment = prepare_multi_gpu_env(
        _validate_launch_command(launch_command_parser().parse_args(words))[0]
    )
    assert environment["ACCELERATE_USE_FSDP"] == "true" and environment["FSDP_VERSION"] == "2"
    assert environment["FSDP_TRANSFORMER_CLS_TO_WRAP"] == "BertLayer"
    assert environment["FSDP_STATE_DICT_TYPE"] == "FULL_STATE_DICT"
    assert (
        environment["FSDP_OFFLOAD_PARAMS"]
        == "false"
        == environment["FSDP_CPU_RAM_EFFICIENT_LOADING"]
    )


# SLURM, of which the commands are faked, as is the launcher on each of two nodes

SCONTROL = """#!/bin/bash
[ "$*" = "show hostnames node[1-2]" ] && printf '127.0.0.1\\nlocalhost\\n'
"""
SRUN = """#!/bin/bash
[ "$1" = --kill-on-bad-exit=1 ] || exit 1
shift
SLURM_NODEID=1 "$@" &
SLURM_NODEID=0 "$@" &
wait -n && wait -n || { kill $(jobs -p); exit 1; }
"""
ACCELERATE = """#!/bin/bash
printf '%s\\n' "$@" > "words-$SLURM_NODEID"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="SLURM runs on Linux")
def test_the_slurm_jobs_launch_as_many_processes_as_gpus_on_every_node(tmp_path):
    commands = {
        "scontrol": SCONTROL,
        "srun": SRUN,
        "accelerate": ACCELERATE,
        "umls-reranker": ACCELERATE,
    }
    (tmp_path / "bin").mkdir()
    for name, content in commands.items():
        (tmp_path / "bin" / name).write_text(content)
        (tmp_path / "bin" / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "20007", "SLURM_NNODES": "2"}
    job |= {
        "SLURM_NODEID": "one",
        "SLURM_GPUS_ON_NODE": "4",
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }
    recipe = ["a recipe.yaml", "--max_steps", "5"]
    options = {"capture_output": True, "text": True, "timeout": 280}
    for name in ("multi_node", "single_node"):
        command = ["bash", shipped_configs()[name], *recipe]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | job, check=False, **options)
        assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        launcher, *words = (tmp_path / f"words-{rank}").read_text().splitlines()
        arguments = launch_command_parser().parse_args(words)
        assert (launcher, arguments.config_file) == ("launch", "multi_node_fp16.yaml")
        assert (arguments.num_machines, arguments.num_processes, arguments.machine_rank) == (
            2,
            8,
            rank,
        )
        assert (arguments.main_process_ip, arguments.main_process_port) == ("127.0.0.1", 10_007)
        assert arguments.module and arguments.training_script == "umls_reranker"
        assert arguments.training_script_args == ["train", *recipe]
    launch = ["--accelerate_config", "multi_gpu_bf16", "--num_processes", "4"]
    assert (tmp_path / "words-one").read_text().splitlines() == ["run", *recipe, *launch]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_threads_give_the_gradients_of_one_pass(two_threads, dropout):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(dropout))
    model.unused = torch.nn.Linear(1, 1)
    words = torch.ones(3, requires_grad=True)
    rows = torch.arange(15.0).view(5, 3)
    names = []

    def output(part, words):
        names.append(threading.current_thread().name)
        return model[:2](part * words).sum(dim=1)

    outputs = torch.cat([*in_threads(output, rows.split(2), model, words)])
    (outputs * torch.arange(5.0)).sum().backward()
    in_pool = [name.startswith("batches") for name in names]
    # Of dropout, the thread that comes first would decide which draws a part gets.
    assert in_pool == [not dropout] * 3 and model.unused.weight.grad is None
    if not dropout:
        weights = torch.arange(5.0)[:, None] * rows
        torch.testing.assert_close(model[0].weight.grad, weights.sum(dim=0).expand(4, 3))
        expected = weights.sum(dim=0) * model[0].weight.sum(dim=0)
        torch.testing.assert_close(words.grad, expected)
