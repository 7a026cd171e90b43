"""Files of exported networks in a model folder, where Optimum and sentence-transformers look for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import read_json

__all__ = ["EXPORTED_FILES", "REGISTER", "calibration_files"]

# One entry for each exported backend: whether it has a calibrator of its own, and its agreement with PyTorch.
REGISTER = "backends.json"
EXPORTED_FILES = {
    "onnx": ("onnx/model.onnx",),
    "onnx_int8": ("onnx/model_qint8_avx512_vnni.onnx",),
    "openvino": ("openvino/openvino_model.xml", "openvino/openvino_model.bin"),
    "openvino_int8": (
        "openvino/openvino_model_qint8_quantized.xml",
        "openvino/openvino_model_qint8_quantized.bin",
    ),
}


def calibration_files(folder: Path, backend: str) -> tuple[Path, Path]:
    """Calibrator and thresholds for a backend: its own, or those of PyTorch where its scores do not differ."""
    own = backend in EXPORTED_FILES and _entry(folder, backend)["is_recalibrated"]
    return tuple(folder / f"{part}{f'_{backend}' if own else ''}.json" for part in ("calibrator", "thresholds"))


def _entry(folder: Path, backend: str) -> dict[str, Any]:
    """What the model folder says about an exported backend.

    Raises:
        UserError: the backend was not exported.
    """
    known = read_json(folder / REGISTER)["backends"] if (folder / REGISTER).is_file() else {}
    if backend not in known:
        raise UserError(
            f"{folder} holds no {backend} network (it has: {', '.join(known) or 'none but torch'}); "
            f"make one with umls-reranker export RECIPE --backends {backend}"
        )
    return known[backend]
