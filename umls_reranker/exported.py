"""Files of exported networks in a model folder, where Optimum and sentence-transformers look for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import UserError
from .resources import file_sha256
from .stages import read_json

__all__ = ["EXPORTED_FILES", "REGISTER", "calibration_files", "has_sound_export", "verify_exported"]

# One entry for each exported backend: sha256 of its files and of the weights, precision, agreement.
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
            f"make one with scripts/export.py RECIPE --backends {backend}"
        )
    return known[backend]


def verify_exported(folder: Path, backend: str, weights_sha256: str) -> None:
    """Check that an exported network and its calibrator are complete and were made from these weights.

    Raises:
        UserError: they are not.
    """
    entry = _entry(folder, backend)
    if entry["weights_sha256"] != weights_sha256:
        raise UserError(f"{folder / REGISTER}: {backend} was exported from other weights; run scripts/export.py again")
    for name, sha256 in entry["sha256"].items():
        if not (folder / name).is_file() or file_sha256(folder / name) != sha256:
            raise UserError(
                f"{folder / name} is missing or not the file that {REGISTER} describes; run scripts/export.py again, "
                "or take all parts from one revision"
            )
    calibrator, thresholds = calibration_files(folder, backend)
    if entry["is_recalibrated"] and (
        read_json(calibrator).get("weights_sha256") != weights_sha256
        or read_json(thresholds).get("calibrator_sha256") != file_sha256(calibrator)
    ):
        raise UserError(f"{calibrator} and {thresholds.name} do not belong together; run scripts/export.py again")


def has_sound_export(folder: Path, backend: str) -> bool:
    """Whether a backend's network is there and was made from the folder's weights."""
    try:
        verify_exported(folder, backend, file_sha256(folder / "model.safetensors"))
    except UserError:
        return False
    return True
