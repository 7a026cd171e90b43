"""The exported cross-encoder in ONNX Runtime, on the CPU, for serving without importing PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from ..core.arrays import openmp_threads, usable_cores
from ..core.errors import UserError
from ..core.files import read_json
from .arguments import BACKENDS
from .batches import PairBatch


class OnnxNetwork:
    """Like `TorchNetwork`, in float32; one thread computes each batch, so batches share the cores.

    Args:
        file: the graph, which names its inputs.
        pad_id: id of the padding token.
    """

    backend = "onnx"
    dtype = "float32"
    padded = True
    token_budget = 1_024

    def __init__(self, file: Path, pad_id: int) -> None:
        # Its builds for Windows send telemetry.
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._pad_id = pad_id
        self.threads = openmp_threads() or usable_cores()

    def __call__(self, batch: PairBatch) -> np.ndarray:
        arrays = batch.padded(self._pad_id)
        return self._session.run(["logits"], {name: arrays[name] for name in self._inputs})[
            0
        ].reshape(-1)

    def map(
        self, forward: Callable[[np.ndarray], np.ndarray], batches: Sequence[np.ndarray]
    ) -> Iterator[np.ndarray]:
        # Threads of one call: a forked process would not have those of its parent.
        with ThreadPoolExecutor(self.threads) as pool:
            yield from pool.map(forward, batches)

    def collect(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(outputs)


def load_onnx(folder: Path, device: str | None, dtype: str | None) -> tuple[OnnxNetwork, Tokenizer]:
    """Load the cross-encoder that ``umls-reranker export`` wrote, and its tokenizer.

    Raises:
        UserError: the cross-encoder is missing or damaged, or a GPU or another dtype is requested.
    """
    if device not in (None, "auto", "cpu"):
        raise UserError(
            f"backend onnx runs on the CPU; remove device={device!r} or use backend torch"
        )
    if dtype not in (None, "auto", "float32"):
        raise UserError(f"backend onnx runs in float32, not in {dtype}; use backend torch")
    file = folder / BACKENDS["onnx"]
    if not file.is_file():
        raise UserError(f"{file} is missing; umls-reranker export RECIPE writes it")
    pad_id = read_json(folder / "config.json").get("pad_token_id") or 0
    try:
        return OnnxNetwork(file, pad_id), Tokenizer.from_file(str(folder / "tokenizer.json"))
    # Both libraries raise exceptions of their own for unreadable files.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file} or tokenizer.json cannot be read: {reason}") from None
