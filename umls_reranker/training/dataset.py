"""Mined pairs -> tokenized pairs, memory-mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value

from ..errors import UserError
from ..template import PairEncoder

__all__ = ["REQUIRED_COLUMNS", "first_mentions", "tokenize_pairs", "weight_scale"]

REQUIRED_COLUMNS = ("mention_id", "mention", "left", "right", "name", "label", "weight")

TOKENIZED_FEATURES = Features(
    {
        "input_ids": List(Value("int32")),
        "first_length": Value("int16"),
        "length": Value("int16"),
        "labels": Value("float32"),
        "weight": Value("float32"),
        "row": Value("int64"),
    }
)


def weight_scale(pairs: Dataset) -> float:
    """The factor that brings the pairs' weights to mean 1, so that weighting does not change the step size."""
    weights = pairs.with_format("numpy")["weight"][:].astype(np.float64)
    if not len(weights):
        raise UserError("there are no training pairs; see mining_report.json for what was lost")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise UserError("pair weights must be 0 or more, and not all 0; check the *_weight keys of the recipe")
    return len(weights) / weights.sum()


def first_mentions(pairs: Dataset, max_pairs: int) -> Dataset:
    """The leading pairs, at most `max_pairs`, cut between mentions.

    Raises:
        UserError: the first mention alone has more pairs.
    """
    if len(pairs) <= max_pairs:
        return pairs
    ids = pairs.with_format("numpy")["mention_id"][: max_pairs + 1]
    complete = np.flatnonzero(ids != ids[-1])
    if not len(complete):
        raise UserError(f"max_dev_pairs: {max_pairs} holds no whole mention; use more")
    return pairs.select(range(int(complete[-1]) + 1))


def tokenize_pairs(pairs: Dataset, encoder: PairEncoder, scale: float, cache_file: Path) -> Dataset:
    """Tokenize pairs once, into an Arrow file that is kept.

    Args:
        pairs: the columns of `REQUIRED_COLUMNS`.
        encoder: tokenizer and template.
        scale: factor on the weights (`weight_scale`).
        cache_file: where the Arrow file is written; when it is there already it is used as it is.

    Returns:
        Dataset with ``input_ids``, ``first_length`` (tokens of type 0), ``length``, ``labels``, ``weight``, ``row``.
    """
    missing = [column for column in REQUIRED_COLUMNS if column not in pairs.column_names]
    if missing:
        raise UserError(f"the pairs lack the columns {', '.join(missing)}; make them with scripts/mine_negatives.py")
    return pairs.map(
        _tokenize_batch,
        batched=True,
        batch_size=2_000,
        with_indices=True,
        fn_kwargs={"encoder": encoder, "scale": scale},
        remove_columns=pairs.column_names,
        features=TOKENIZED_FEATURES,
        cache_file_name=str(cache_file),
        new_fingerprint=cache_file.stem,
        desc=f"tokenizing {cache_file.stem}",
    )


def _tokenize_batch(
    batch: dict[str, list], rows: list[int], encoder: PairEncoder, scale: float
) -> dict[str, list[Any]]:
    pairs = encoder.encode(batch["mention"], batch["name"], batch["left"], batch["right"])
    return {
        "input_ids": pairs.input_ids,
        "first_length": pairs.first_lengths,
        "length": [len(ids) for ids in pairs.input_ids],
        "labels": [float(label) for label in batch["label"]],
        "weight": [weight * scale for weight in batch["weight"]],
        "row": rows,
    }
