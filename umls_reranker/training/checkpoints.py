"""The checkpoints of a training: from which one it resumes, and in which dtype."""

import json
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME

from ..core.errors import UserError
from ..core.json_files import read_json, write_json

DTYPE_FILE = "dtype.json"
# What the name of a checkpoint's folder begins with; its step follows.
CHECKPOINT = "checkpoint-"


def last_complete_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint with a readable state, which the Trainer writes last, or None."""
    path_of_step = {}
    for path in folder.glob(f"{CHECKPOINT}*"):
        step = path.name.removeprefix(CHECKPOINT)
        if step.isdigit():
            path_of_step[int(step)] = path
    for _, path in sorted(path_of_step.items(), reverse=True):
        try:
            json.loads((path / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return str(path)
    return None


def require_same_dtype(dtype: str, folder: Path, *, is_resumed: bool) -> None:
    """Refuse to go on with a training in another dtype than it began in.

    Args:
        dtype: the dtype of the training.
        folder: folder of the checkpoints, in which `write_dtype` wrote the former dtype.
        is_resumed: whether the training resumes from a checkpoint.

    Raises:
        UserError: the dtypes differ.
    """
    if not is_resumed:
        return
    former = read_json(folder / DTYPE_FILE)["dtype"]
    if former != dtype:
        raise UserError(
            f"bf16: the training began in {former}, not {dtype}; "
            "launch or set it as before, or add --overwrite"
        )


def write_dtype(dtype: str, folder: Path) -> None:
    """Write the dtype of a training beside its checkpoints."""
    write_json(folder / DTYPE_FILE, {"dtype": dtype})
