"""Keys of a recipe that this layer reads first: the run, and the training of the bi-encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.keys import recipe_key
from ..models.arguments import DTYPES


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


@dataclass
class EncoderArguments:
    """Encoder: fine-tuning of the bi-encoder before it embeds the names; by default none."""

    encoder_training_steps: int = recipe_key(
        0, "optimizer steps; 0 uses the encoder without fine-tuning and without context", least=0
    )
    encoder_learning_rate: float = recipe_key(1e-4, "AdamW peak learning rate")
    encoder_dropout: float | None = recipe_key(
        None,
        "dropout in training; 0 works better with few passes over the mentions; "
        "empty: the model's default (BERT: 0.1)",
        least=0,
        most=1,
    )
