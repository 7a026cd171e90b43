"""Keys of a recipe that every stage reads: where the run is, its seed, and the machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .keys import recipe_key

DTYPES = ("auto", "float32", "bfloat16", "float16")


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
        "dtype of scoring, and so of calibration; auto is bfloat16 if the CPU or GPU supports it, "
        "float16 on older GPUs, else float32",
        DTYPES,
    )
    overwrite: bool = recipe_key(False, "rerun the stage from scratch, even if it is up to date")
    dry_run: bool = recipe_key(
        False, "check the inputs and print what would be written, without writing it"
    )

    @property
    def run_dir(self) -> Path:
        return Path(self.output_dir) / self.run_name

    @property
    def scoring(self) -> dict[str, Any]:
        """Device and dtype, as `UMLSReranker.from_pretrained` takes them."""
        return {"device": self.device, "dtype": self.scoring_dtype}
