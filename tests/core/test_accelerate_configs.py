"""Accelerate reads every launch configuration as intended, and starts its processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env
from pipeline_fixtures import LAUNCHER

pytest_plugins = ["pipeline_fixtures"]

FOLDER = Path(__file__).resolve().parents[2] / "accelerate_configs"

# File -> kind, machines, processes, precision, on the processor.
EXPECTED = {
    "single_gpu": (DistributedType.NO, 1, 1, "no", False),
    "multi_gpu_fp16": (DistributedType.MULTI_GPU, 1, 4, "fp16", False),
    "multi_node_fp16": (DistributedType.MULTI_GPU, 2, 8, "fp16", False),
    "fsdp": (DistributedType.FSDP, 1, 4, "bf16", False),
    "cpu": (DistributedType.NO, 1, 1, "no", True),
    "cpu_two_processes": (DistributedType.MULTI_GPU, 1, 2, "no", True),
}
ON_ONE_MACHINE = [name for name in EXPECTED if name != "multi_node_fp16"]


def launch_arguments(name, *options):
    """What `accelerate launch` makes of a configuration and its command line."""
    words = ["--config_file", str(FOLDER / f"{name}.yaml"), *options, "scripts/train.py", "recipe.yaml"]
    return _validate_launch_command(launch_command_parser().parse_args(words))[0]


def test_every_configuration_is_listed():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_configuration_is_read_as_meant(name):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    kind, machines, processes, precision, on_processor = EXPECTED[name]
    assert (config.distributed_type, config.num_machines, config.num_processes) == (kind, machines, processes)
    assert (config.mixed_precision, config.use_cpu) == (precision, on_processor)
    arguments = launch_arguments(name)
    assert (arguments.multi_gpu, arguments.use_fsdp) == (kind == "MULTI_GPU", kind == "FSDP")
    assert (arguments.num_processes, arguments.mixed_precision) == (processes, precision)
    assert arguments.training_script_args == ["recipe.yaml"]


def test_both_machines_take_the_same_command_but_for_their_rank():
    for rank in (0, 1):
        arguments = launch_arguments("multi_node_fp16", "--machine_rank", str(rank), "--main_process_ip", "10.1.2.3")
        prepare_multi_gpu_env(arguments)
        assert (arguments.nnodes, arguments.nproc_per_node, arguments.node_rank) == ("2", "4", rank)
        assert (arguments.rdzv_backend, arguments.rdzv_endpoint) == ("static", "10.1.2.3:29500")


def test_fsdp_wraps_the_layers_of_bert_and_saves_whole_weights():
    environment = prepare_multi_gpu_env(launch_arguments("fsdp"))
    assert environment["ACCELERATE_USE_FSDP"] == "true" and environment["FSDP_VERSION"] == "2"
    assert environment["FSDP_TRANSFORMER_CLS_TO_WRAP"] == "BertLayer"
    assert environment["FSDP_STATE_DICT_TYPE"] == "FULL_STATE_DICT"
    assert environment["FSDP_OFFLOAD_PARAMS"] == "false" == environment["FSDP_CPU_RAM_EFFICIENT_LOADING"]


# Launching, with the hardware faked: the processor takes the place of the GPUs, two processes that of four

REPORT = """
import json, os, sys
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_CPU")
with open(f"{sys.argv[1]}.{os.environ.get('RANK', '0')}", "w") as file:
    json.dump({name: os.environ.get(name) for name in names}, file)
"""


@pytest.fixture(scope="module")
def launched(scripts, tmp_path_factory):
    """Configuration -> what each of its processes found in its environment."""
    folder = tmp_path_factory.mktemp("launched")
    script = folder / "report.py"
    script.write_text(REPORT)
    for name in ON_ONE_MACHINE:
        options = ["--num_processes", 2] if EXPECTED[name][2] > 1 else []
        config = FOLDER / f"{name}.yaml"
        outcome = scripts.run(LAUNCHER, "--config_file", config, *options, script, folder / name)
        assert outcome.code == 0, outcome.err
    found = {name: sorted(folder.glob(f"{name}.[0-9]")) for name in ON_ONE_MACHINE}
    return {name: [json.loads(path.read_text()) for path in paths] for name, paths in found.items()}


@pytest.mark.parametrize("name", ON_ONE_MACHINE)
def test_a_configuration_starts_its_processes(launched, name):
    kind, _, processes, precision, on_processor = EXPECTED[name]
    found = launched[name]
    if processes == 1:
        assert [process["ACCELERATE_USE_CPU"] for process in found] == [str(on_processor)]
    else:
        assert [(process["RANK"], process["LOCAL_RANK"]) for process in found] == [("0", "0"), ("1", "1")]
        assert {process["WORLD_SIZE"] for process in found} == {"2"}
    assert {process["ACCELERATE_MIXED_PRECISION"] for process in found} == {precision}
    assert {process["ACCELERATE_USE_FSDP"] for process in found} == {"true" if kind == "FSDP" else None}


# SLURM, of which the commands are faked: two nodes of one process each that find one another on this machine

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
ACCELERATE = f"""#!{sys.executable}
from accelerate.commands.accelerate_cli import main
main()
"""
SUM_RANKS = """
import os, sys
import torch
torch.distributed.init_process_group("gloo")
ranks = torch.tensor(int(os.environ["RANK"]))
torch.distributed.all_reduce(ranks)
found = torch.distributed.get_world_size(), int(ranks), os.environ["ACCELERATE_MIXED_PRECISION"], sys.argv[1:]
with open(f"rank-{os.environ['RANK']}", "w") as file:
    print(*found, file=file)
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="SLURM runs on Linux")
def test_the_slurm_job_starts_processes_on_every_node_that_find_each_other(tmp_path):
    commands = {"scontrol": SCONTROL, "srun": SRUN, "accelerate": ACCELERATE}
    (tmp_path / "bin").mkdir()
    for name, content in commands.items():
        (tmp_path / "bin" / name).write_text(content)
        (tmp_path / "bin" / name).chmod(0o755)
    # In place of the package.
    (tmp_path / "umls_reranker").mkdir()
    (tmp_path / "umls_reranker" / "__main__.py").write_text(SUM_RANKS)
    (tmp_path / "multi_node_fp16.yaml").write_text((FOLDER / "multi_node_fp16.yaml").read_text())
    job = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": str(os.getpid()), "SLURM_NNODES": "2"}
    job |= {"SLURM_GPUS_ON_NODE": "1", "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": "."}
    done = subprocess.run(
        ["bash", FOLDER / "multi_node.slurm", "a recipe.yaml", "--max_steps", "5"],
        cwd=tmp_path,
        env=os.environ | job,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        assert (tmp_path / f"rank-{rank}").read_text() == "2 1 fp16 ['train', 'a recipe.yaml', '--max_steps', '5']\n"


def test_the_slurm_job_wants_a_recipe():
    done = subprocess.run(["bash", FOLDER / "multi_node.slurm"], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "usage: sbatch multi_node.slurm RECIPE" in done.stderr
