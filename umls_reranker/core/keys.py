"""Keys of recipes: fields of plain dataclasses, with their help and the values they may have.

A field without them is no key of a recipe. Keys that every stage reads: where the run is, its seed,
and the machine.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from .errors import UserError

# The highest value of numbers that have no other limit: the largest seed that NumPy takes.
LARGEST = 2**32 - 1
DTYPES = ("auto", "float32", "bfloat16", "float16")
# How much worse than the previous version a new one may be, in acc@1, F1 and the Brier score, and
# still count as not inferior.
NON_INFERIORITY_MARGIN = 0.02


def recipe_key(
    default: object,
    help: str,
    choices: Collection[str] | None = None,
    least: float | None = None,
    most: float | None = None,
) -> Any:
    """A field of a section of a recipe.

    Args:
        default: value of a recipe without this key.
        help: its text in ``--help``.
        choices: the allowed values; in a mapping, each with an object whose `help` explains it.
        least: lowest value of a number; None: any number is allowed.
        most: highest value of a number that has a lowest one; None: `LARGEST`.
    """
    if least is None and most is not None:
        raise ValueError("a key with a highest value needs a lowest one")
    # Any, as dataclasses.field has it: the value has the type of its annotation.
    limits: tuple[float, ...] = ()
    if least is not None:
        highest = LARGEST if most is None else most
        limits = (least, highest)
    metadata: dict[str, Any] = {"help": help, "choices": choices, "range": limits}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class RunArguments:
    """Where the run is stored, and settings of all stages."""

    run_name: str = recipe_key("run", "name of the run; output goes to OUTPUT_DIR/RUN_NAME")
    output_dir: str = recipe_key("runs", "folder that holds the runs")
    cache_dir: str = recipe_key(
        ".cache", "folder for files fetched from a URL, and for the hashes of unchanged files"
    )
    seed: int = recipe_key(13, "seed of splits, mining, initial weights and data order", least=0)
    device: str = recipe_key("auto", "cpu, cuda, cuda:1, mps; auto uses a GPU if available")
    scoring_dtype: str = recipe_key(
        "auto",
        "dtype of scoring, and so of calibration; auto is float32 on a CPU, bfloat16 on a GPU, "
        "float16 on older GPUs",
        DTYPES,
    )
    overwrite: bool = recipe_key(False, "rerun the stage from scratch, even if it is up to date")
    dry_run: bool = recipe_key(
        False, "check the inputs and print what would be written, without writing it"
    )

    def __post_init__(self) -> None:
        # The path of an empty word is the current folder.
        for key in ("run_name", "output_dir", "cache_dir"):
            if not getattr(self, key):
                raise UserError(f"{key}: is empty; name it, or leave it out")
        # Windows divides at slashes of both kinds, and has drives.
        if self.run_name == ".." or PureWindowsPath(self.run_name).name != self.run_name:
            raise UserError(
                f"run_name: {self.run_name!r} is not a name; the folder of the runs is output_dir"
            )

    @property
    def run_dir(self) -> Path:
        return Path(self.output_dir) / self.run_name

    @property
    def scoring(self) -> dict[str, Any]:
        """Device and dtype, as `UMLSReranker.from_pretrained` takes them."""
        return {"device": self.device, "dtype": self.scoring_dtype}
