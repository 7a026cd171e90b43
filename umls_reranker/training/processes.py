"""The device of a training process, and the number of processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.cores import started_processes
from ..core.devices import resolve_device
from ..core.errors import UserError

if TYPE_CHECKING:
    import torch

    from ..core.settings import RunArguments


def training_device(run: RunArguments) -> torch.device:
    """The device to train on.

    Raises:
        UserError: the device is not available, or it is not the first GPU, because Accelerate assigns visible GPUs in
            order.
    """
    device = resolve_device(run.device)
    if device.type == "cuda" and device.index:
        raise UserError(
            f"device: {run.device} cannot be selected for training; set CUDA_VISIBLE_DEVICES={device.index} and "
            "device: cuda"
        )
    return device


def require_one_process(command: str) -> None:
    """Refuse a launch of several processes, for a command whose loss compares all rows of a batch.

    Raises:
        UserError: there are several.
    """
    if started_processes() > 1:
        raise UserError(f"{command} trains on one process; start it without a launcher")
