"""The cross-encoder in ONNX Runtime, which serves without PyTorch (``hub.export`` writes it)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import UserError
from ..core.json_files import read_json
from ..core.parallel import openmp_threads, usable_cores
from .arguments import BACKENDS
from .batches import PairBatch

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class OnnxNetwork:
    """The exported cross-encoder in ONNX Runtime, on the CPU, without importing PyTorch.

    It has the same attributes and methods as `torch_networks.TorchNetwork`, and computes in
    float32. One thread computes each batch, so batches share the cores.

    Args:
        session: session of the graph, which names its inputs.
        pad_id: id of the padding token.
    """

    backend = "onnx"
    dtype = "float32"
    padded = True
    reads_pairs = True
    token_budget = 1_024

    def __init__(self, session: Any, pad_id: int) -> None:
        self._session = session
        self._inputs = [node.name for node in session.get_inputs()]
        self._pad_id = pad_id
        self.threads = openmp_threads() or usable_cores()

    def __call__(self, batch: PairBatch) -> np.ndarray:
        arrays = batch.padded(self._pad_id)
        inputs = {name: arrays[name] for name in self._inputs}
        (logits,) = self._session.run(["logits"], inputs)
        return logits.reshape(-1)

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
    import onnxruntime
    from tokenizers import Tokenizer

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
    # Its builds for Windows send telemetry.
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    # `OnnxNetwork.map` gives each core a batch.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        return OnnxNetwork(session, pad_id), Tokenizer.from_file(str(folder / "tokenizer.json"))
    # Both libraries raise exceptions of their own for unreadable files.
    except Exception as error:
        raise UserError(
            f"{file} or tokenizer.json cannot be read: {' '.join(str(error).split())}"
        ) from None
