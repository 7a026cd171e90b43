"""On what a run computes, and how it would use the machine better."""

import torch

from ..core.devices import hardware_name, has_fast_bfloat16, resolve_device, resolve_dtype
from ..core.parallel import started_processes
from ..training.losses import LOSSES
from ..training.training_arguments import RerankerTrainingArguments
from .recipe import Recipe


def devices_line(recipe: Recipe, arguments: RerankerTrainingArguments) -> str:
    """On what the run computes, in how many processes, and in which dtypes."""
    device = resolve_device(recipe.run.device)
    hardware = hardware_name(device)
    if device.type == "cuda":
        visible = torch.cuda.device_count()
        used = min(visible, started_processes("LOCAL_WORLD_SIZE"))
        hardware = f"{used} of {visible} visible GPUs ({hardware})"
    training = "float32"
    if arguments.bf16:
        training = "bfloat16"
    elif arguments.fp16:
        training = "float16"
    scoring = resolve_dtype(recipe.run.scoring_dtype, device, inference=True)
    return (
        f"[devices] {hardware}; processes: {started_processes()}; "
        f"training in {training}, scoring in {scoring}"
    )


def idle_gpus(device: torch.device, command: str) -> list[str]:
    """A line with the command that uses all visible GPUs, if one process was started and sees more.

    Args:
        device: where the run computes.
        command: the command that starts it, without a launch configuration.
    """
    # Who has started several processes has chosen their number.
    if device.type != "cuda" or started_processes() > 1:
        return []
    visible = torch.cuda.device_count()
    if visible == 1:
        return []
    config = "multi_gpu_fp16"
    if has_fast_bfloat16(device):
        config = "multi_gpu_bf16"
    launch = f"--accelerate_config {config} --num_processes {visible}"
    return [f"[devices] {visible - 1} GPUs will be idle; to use all: {command} {launch}"]


def batch_advice(arguments: RerankerTrainingArguments, pairs_of_list: int) -> list[str]:
    """A line with a batch whose whole lists divide among the processes, if the recipe's do not.

    Args:
        arguments: of the training.
        pairs_of_list: pairs of a training list, at most.
    """
    processes = started_processes()
    pairs = arguments.global_batch_size
    lists = max(1, round(pairs / pairs_of_list))
    needs_whole_lists = LOSSES[arguments.loss].compares_pairs
    if not needs_whole_lists or lists % processes == 0:
        return []
    lists_of_process = max(1, round(lists / processes))
    dividing_pairs = lists_of_process * processes * pairs_of_list
    return [
        f"[devices] loss {arguments.loss} needs whole lists: {pairs} pairs are about {lists} "
        f"lists, which {processes} processes cannot share evenly; global_batch_size "
        f"{dividing_pairs} divides"
    ]
