"""Devices and precisions to compute with, and copying to them."""

from __future__ import annotations

import os
from datetime import timedelta

import numpy as np
import torch
from accelerate import PartialState

from .cores import openmp_threads, started_processes
from .errors import UserError

__all__ = ["resolve_device", "resolve_precision", "sharing_processes", "to_device", "work_alone"]


def resolve_device(device: str | None = "auto") -> torch.device:
    """``auto`` (or None) is the first GPU if there is one, else the CPU.

    Raises:
        UserError: the device is not on this machine.
    """
    if device in (None, "auto"):
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError):
        resolved = torch.device("meta")
    # PyTorch knows further kinds, such as meta and xpu.
    if resolved.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"device {device!r} is unknown; use auto, cpu, cuda, cuda:1 or mps")
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {device!r} is not available: no CUDA GPU is visible; use --device cpu")
    if resolved.type == "cuda" and resolved.index is not None and resolved.index >= torch.cuda.device_count():
        raise UserError(f"device {device!r} is not available: this machine has {torch.cuda.device_count()} GPUs")
    if resolved.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device {device!r} is not available on this machine; use --device cpu")
    return resolved


def sharing_processes(device: str, timeout: timedelta = timedelta(days=7)) -> PartialState:
    """The processes of this launch, for work that is split into shards.

    Args:
        device: of the recipe.
        timeout: of waiting; days, not minutes, as one process may have much more work than the others.

    Raises:
        UserError: the device is not on this machine, or the environment counts no processes or has an unknown device.
    """
    # Accelerate raises ValueError, and of the device RuntimeError.
    started_processes()
    try:
        resolve_device(os.environ.get("ACCELERATE_TORCH_DEVICE"))
    except UserError as error:
        raise UserError(f"the environment's ACCELERATE_TORCH_DEVICE: {error}; or unset it") from None
    return PartialState(cpu=resolve_device(device).type == "cpu", timeout=timeout)


def work_alone() -> None:
    """Take the cores of the other processes on this machine too, which wait until this one is done."""
    processes = started_processes("LOCAL_WORLD_SIZE")
    if processes > 1:
        torch.set_num_threads(processes * (openmp_threads() or 1))


def resolve_precision(
    precision: str | None, device: torch.device, *, key: str = "precision", inference: bool = False
) -> str:
    """``auto`` (or None) is bfloat16 if the hardware multiplies matrices in it, else float32.

    Args:
        precision: auto, float32, bfloat16 or float16.
        device: where the model runs.
        key: name of the recipe key or argument, for the error message.
        inference: without training, ``auto`` is float16 on GPUs that are fast only in float16 (Volta and Turing).

    Raises:
        UserError: float16 without a GPU, or an unknown name.
    """
    if precision in (None, "auto"):
        if _has_fast_bfloat16(device):
            return "bfloat16"
        return "float16" if inference and _has_fast_float16(device) else "float32"
    if precision not in ("float32", "bfloat16", "float16"):
        raise UserError(f"{key}: {precision!r} is unknown; use auto, float32, bfloat16 or float16")
    if precision == "float16" and device.type == "cpu":
        raise UserError(f"{key}: float16 needs a GPU; use auto, bfloat16 or float32")
    return precision


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A tensor of the array; to a GPU it is copied asynchronously from pinned memory."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        # torch keeps pinned memory until the copy is done.
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # oneDNN emulates bfloat16 on processors without these instructions, slower than float32.
    # Older releases of torch do not report this.
    tell = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return device.type == "cpu" and bool(tell())


def _has_fast_float16(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)
