"""Exported networks in ONNX Runtime and OpenVINO, on the CPU."""

from __future__ import annotations

import importlib
import sys
import threading
from abc import abstractmethod
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..core.arguments import EXPORTED_FILES
from ..core.devices import resolve_precision
from ..core.errors import UserError
from .networks import Network, input_names
from .tokens import PairBatch

if TYPE_CHECKING:
    from types import ModuleType

    from transformers import PreTrainedTokenizerBase

__all__ = ["import_openvino", "load_exported"]

# Of what a process sets up once for OpenVINO.
_SETUP = threading.Lock()


def load_exported(
    folder: Path, tokenizer: PreTrainedTokenizerBase, device: str | None, precision: str | None, backend: str
) -> Network:
    """Load a network made by umls-reranker export.

    Raises:
        UserError: it was not exported, the runtime is not installed, or a GPU is requested.
    """
    if device not in (None, "auto", "cpu"):
        raise UserError(f"backend {backend} computes on the processor; leave out device={device!r} or use torch")
    file = folder / EXPORTED_FILES[backend][0]
    if not file.is_file():
        raise UserError(f"{file} does not exist; make it with umls-reranker export RECIPE --backends {backend}")
    kind = OnnxNetwork if backend.startswith("onnx") else OpenVinoNetwork
    if backend.endswith("int8"):
        precision = "int8"
    else:
        precision = kind.usual_precision if precision in (None, "auto") else precision
        precision = resolve_precision(precision, torch.device("cpu"))
    try:
        return kind(file, tokenizer, backend, precision)
    except ImportError as error:
        extra = "onnx" if kind is OnnxNetwork else "openvino"
        raise UserError(f"backend {backend} needs {error.name}: pip install 'umls_reranker[{extra}]'") from None


def import_openvino(name: str = "openvino") -> ModuleType:
    """Import OpenVINO, or a library of its family, without its telemetry.

    The telemetry sends usage to a server without asking. It also forks this process from a thread, and a fork while
    another thread multiplies matrices in OpenBLAS stops both threads forever. Without the package that sends,
    OpenVINO and NNCF use stubs of their own.

    Raises:
        ImportError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # what Python's import reads as absent
    return importlib.import_module(name)


@cache
def _openvino_core() -> Any:
    """The `openvino.Core` of this process, which is never freed.

    A core gives its thread a stack for signal handlers, and unmaps it when it is freed. If another core was created
    after it, or another thread frees it, the stack stays in use: the next signal, such as Ctrl-C, kills the process.
    """
    return import_openvino().Core()


class _PaddedRuntime(Network):
    padded = True
    in_threads = True

    def __init__(self, file: Path, tokenizer: PreTrainedTokenizerBase, backend: str, precision: str) -> None:
        self.backend, self.precision = backend, precision
        self.device = torch.device("cpu")
        self._pad_id = tokenizer.pad_token_id or 0
        self._inputs = input_names(tokenizer)
        self._load(file)

    @abstractmethod
    def _load(self, file: Path) -> None: ...

    @abstractmethod
    def _logits(self, arrays: dict[str, np.ndarray]) -> np.ndarray: ...

    def __call__(self, batch: PairBatch) -> torch.Tensor:
        arrays = batch.padded(self._pad_id)
        logits = self._logits({name: arrays[name] for name in self._inputs})
        return torch.from_numpy(logits.reshape(-1).astype("float32"))


class OnnxNetwork(_PaddedRuntime):
    """An ONNX Runtime session that computes a batch with one thread, so that batches share the cores."""

    usual_precision = "float32"

    def _load(self, file: Path) -> None:
        import onnxruntime

        if self.precision not in ("float32", "int8"):
            raise UserError(f"backend {self.backend} computes in float32, not in {self.precision}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def _logits(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        return self._session.run(["logits"], arrays)[0]


class OpenVinoNetwork(_PaddedRuntime):
    """A network compiled by OpenVINO, with one single-threaded stream per core."""

    usual_precision = "auto"

    def _load(self, file: Path) -> None:
        threads = torch.get_num_threads()
        hint = "bf16" if self.precision == "bfloat16" else "f32"
        settings = {"NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}
        self._of_thread = threading.local()
        # What OpenVINO's Python binding sets up in its first call, two threads at once wait for forever.
        with _SETUP:
            self._compiled = _openvino_core().compile_model(str(file), "CPU", settings)
            self._logits({name: np.ones((1, 2), np.int64) for name in self._inputs})

    def _logits(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self._compiled.create_infer_request()
        return self._of_thread.request.infer(arrays)[0]
