"""Devices and number formats, processes, and threads that run networks."""

import contextlib
import gc
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial, reduce
from itertools import repeat
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from .errors import UserError
from .parallel import openmp_threads, started_processes

# From these sizes on, bfloat16 takes less than half as long as float32 on CPUs that multiply in it.
# A size is the number of layers times the square of their width (`benchmarks/dtypes.py`).
TWICE_AS_FAST_IN_BATCHES = 6 * 384**2
TWICE_AS_FAST_FOR_ONE_LIST = 12 * 768**2


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
    # PyTorch has further kinds, such as meta and xpu.
    if resolved.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"device {device!r} is unknown; use auto, cpu, cuda, cuda:1 or mps")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if resolved.type == "cuda" and (resolved.index or 0) >= count:
        raise UserError(
            f"device {device!r} is not available: {count} CUDA GPUs are visible; use another, or "
            "--device cpu"
        )
    if resolved.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device {device!r} is not available on this machine; use --device cpu")
    return resolved


def sharing_processes(device: str, timeout: timedelta = timedelta(days=7)) -> PartialState:
    """The processes of this launch, for work that is split into shards.

    Args:
        device: device of the recipe.
        timeout: limit of waiting; days, not minutes, as one process may have much more work.

    Raises:
        UserError: the device is not on this machine.
    """
    return PartialState(cpu=resolve_device(device).type == "cpu", timeout=timeout)


def goes_on_alone(state: PartialState) -> bool:
    """Whether this is the first process, which takes the cores of the others on its machine.

    The others may end. All leave the process group, as waiting for the first one would keep a core
    and a GPU of each busy.
    """
    leave_process_group()
    processes = started_processes("LOCAL_WORLD_SIZE")
    if processes > 1:
        torch.set_num_threads(processes * (openmp_threads() or 1))
    return state.is_main_process


def leave_process_group() -> None:
    """Leave the process group of a launch, all processes together, and end its threads.

    A thread of the group that still runs when Python exits can abort a finished process.
    """
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return
    # A process that exits first closes connections that others may still read.
    with contextlib.suppress(RuntimeError):
        distributed.barrier()
    distributed.destroy_process_group()
    # The threads end with the last reference to the group, and a finished trainer is part of a
    # reference cycle.
    gc.collect()


def resolve_dtype(
    dtype: str | None, device: torch.device, *, key: str = "dtype", inference: bool = False
) -> str:
    """The dtype that ``auto`` (or None) stands for, and a check of any other.

    * ``auto`` is bfloat16 if the hardware multiplies matrices in it, float16 on a GPU that is fast
      only in that (Volta and Turing), else float32.
    * In inference, a CPU computes in float32, so that processors give the same numbers.

    Args:
        dtype: auto, float32, bfloat16 or float16.
        device: where the model runs.
        key: name of the recipe key or argument, for the error message.
        inference: whether the model scores or encodes, and is not trained.

    Raises:
        UserError: float16 without a GPU, or an unknown name.
    """
    if dtype in (None, "auto"):
        if inference and device.type == "cpu":
            return "float32"
        if has_fast_bfloat16(device):
            return "bfloat16"
        is_fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)
        return "float16" if is_fast else "float32"
    if dtype not in ("float32", "bfloat16", "float16"):
        raise UserError(f"{key}: {dtype!r} is unknown; use auto, float32, bfloat16 or float16")
    if dtype == "float16" and device.type == "cpu":
        raise UserError(f"{key}: float16 needs a GPU; use auto, bfloat16 or float32")
    return dtype


def bfloat16_advice(
    dtype: str | None, device: torch.device, size: int, option: str, in_batches: bool = True
) -> str | None:
    """A line for users of a CPU that computes a large network twice as fast in bfloat16.

    Args:
        dtype: what the user asked for; only ``auto`` (or None) is advised on.
        device: where the network runs.
        size: number of layers times the square of their width.
        option: what the user may add.
        in_batches: whether it reads many lists together, as for a file; a service reads one.

    Returns:
        The line; None where there is nothing to say.
    """
    is_chosen = dtype not in (None, "auto")
    enough = TWICE_AS_FAST_IN_BATCHES if in_batches else TWICE_AS_FAST_FOR_ONE_LIST
    if is_chosen or device.type != "cpu" or size < enough or not has_fast_bfloat16(device):
        return None
    return (
        "this CPU computes a network of this size more than twice as fast in bfloat16, with scores "
        f"that differ by some thousandths: add {option} to have that"
    )


def resolve_attention(attention: str | None, device: torch.device) -> str | None:
    """``attn_implementation`` of transformers; None is plain on a CPU, else left to transformers.

    On a CPU in bfloat16, plain attention is faster than torch's for texts of up to 56 tokens.
    """
    return "eager" if attention is None and device.type == "cpu" else attention


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A tensor of the array; to a GPU it is copied asynchronously from pinned memory."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        # torch keeps pinned memory until the copy is done.
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def hardware_name(device: torch.device) -> str:
    """Name of a GPU, or of the kind of another device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type.upper()


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies matrices in bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # oneDNN emulates bfloat16 on CPUs without these instructions, slower than float32. Older
    # releases of torch do not report this.
    tell: Any = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    # ATEN_CPU_CAPABILITY=avx2 keeps torch from instructions that the processor has.
    return device.type == "cpu" and tell() and torch.backends.cpu.get_cpu_capability() != "AVX2"


def batch_mapper(device: torch.device) -> Callable:
    """A `map` over batches; on a CPU with one thread per core, each computing whole batches.

    PyTorch's threads split every matrix product and then wait for each other. If something else
    uses part of a core, all of them wait, and encoding becomes ten times slower. Threads with whole
    batches do not wait.
    """
    pool = worker_pool() if device.type == "cpu" else None
    return map if pool is None else pool.map


def in_threads(
    function: Callable[[Any, torch.Tensor], torch.Tensor],
    parts: Sequence[Any],
    model: torch.nn.Module,
    words: torch.Tensor,
) -> Sequence[torch.Tensor]:
    """Outputs of a model for each part of a batch, and later their gradients.

    On a CPU each thread computes whole parts, in both directions, as in `batch_mapper`; with
    dropout one after the other, because its draws would depend on which thread comes first.

    Args:
        function: computes the output of a part, from it and ``words``.
        parts: the parts.
        model: whose other weights it reads.
        words: embeddings of the words of all parts: a gradient of the whole vocabulary for each
            part would be as large as those of all other weights.
    """
    if has_dropout(model) or batch_mapper(words.device) is map:
        return [function(part, words) for part in parts]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    return _InThreads.apply(function, parts, words, *trained)


def has_dropout(model: torch.nn.Module) -> bool:
    """Whether equal batches have different outputs in training."""
    return any(module.p for module in model.modules() if isinstance(module, torch.nn.Dropout))


class _InThreads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Callable, parts: Sequence, words: torch.Tensor, *weights: Any
    ) -> tuple:
        leaf = words.detach().requires_grad_()
        ctx.weights = (leaf, *weights)
        ctx.map = batch_mapper(words.device)
        ctx.outputs = [*ctx.map(torch.enable_grad()(function), parts, repeat(leaf))]
        return tuple(output.detach() for output in ctx.outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple:
        of_parts = ctx.map(
            partial(torch.autograd.grad, allow_unused=True),
            ctx.outputs,
            repeat(ctx.weights),
            gradients,
        )
        return (None, None, *map(_sum_of_gradients, zip(*of_parts, strict=True)))


def _sum_of_gradients(of_parts: tuple) -> torch.Tensor | None:
    """The gradient of a weight from that of each part; None if no output depends on the weight."""
    if of_parts[0] is None:
        return None
    return reduce(torch.add, of_parts)


def worker_pool() -> ThreadPoolExecutor | None:
    """This process' threads for batches, each computing alone; None if PyTorch has only one.

    Their number is the first ``torch.get_num_threads()`` above one.
    """
    global _pool
    threads = torch.get_num_threads()
    if threads == 1:
        return None
    with _pool_lock:
        if _pool is None:
            _pool = _started_pool(threads)
        return _pool


_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def _started_pool(threads: int) -> ThreadPoolExecutor:
    all_started = threading.Barrier(threads)

    def start() -> None:
        torch.set_num_threads(1)
        # The first call fixes a thread's number; a later one would take over the number set below.
        torch.get_num_threads()
        all_started.wait()

    pool = ThreadPoolExecutor(threads, "batches", initializer=start)
    for started in [pool.submit(int) for _ in range(threads)]:
        started.result()
    # The value that a thread sets is also the initial value of later threads.
    torch.set_num_threads(threads)
    return pool


def _forget_pool() -> None:
    global _pool, _pool_lock
    _pool = None
    _pool_lock = threading.Lock()


# A forked process does not inherit the threads; Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
