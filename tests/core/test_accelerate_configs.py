"""Accelerate reads every launch configuration as intended, and starts its processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env

from umls_reranker.pipeline.command import shipped_configs

FOLDER = Path(__file__).resolve().parents[2] / "accelerate_configs"

# File -> kind, machines, processes, precision, on the processor.
EXPECTED = {
    "single_gpu": (DistributedType.NO, 1, 1, "no", False),
    "multi_gpu_fp16": (DistributedType.MULTI_GPU, 1, 4, "fp16", False),
    "multi_gpu_bf16": (DistributedType.MULTI_GPU, 1, 4, "bf16", False),
    "multi_node_fp16": (DistributedType.MULTI_GPU, 2, 8, "fp16", False),
    "fsdp": (DistributedType.FSDP, 1, 4, "bf16", False),
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


def test_fsdp_wraps_the_layers_of_bert_and_saves_whole_weights():
    words = [
        "--config_file",
        str(FOLDER / "fsdp.yaml"),
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
