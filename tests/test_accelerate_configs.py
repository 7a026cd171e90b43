"""Every launch configuration is read by accelerate as it is meant."""

import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env

FOLDER = Path(__file__).resolve().parent.parent / "accelerate_configs"

# File -> kind, machines, processes, precision, on the processor.
EXPECTED = {
    "single_gpu": (DistributedType.NO, 1, 1, "no", False),
    "multi_gpu_fp16": (DistributedType.MULTI_GPU, 1, 4, "fp16", False),
    "multi_node_fp16": (DistributedType.MULTI_GPU, 2, 8, "fp16", False),
    "fsdp": (DistributedType.FSDP, 1, 4, "bf16", False),
    "cpu": (DistributedType.NO, 1, 1, "no", True),
    "cpu_two_processes": (DistributedType.MULTI_GPU, 1, 2, "no", True),
}


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


def test_one_process_on_the_processor_is_launched(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import os, sys; print(sys.argv[1:], os.environ['ACCELERATE_USE_CPU'])")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", FOLDER / "cpu.yaml"]
    done = subprocess.run([*launch, script, "recipe.yaml"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "['recipe.yaml'] True\n"), done.stderr
