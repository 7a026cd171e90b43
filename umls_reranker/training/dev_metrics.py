"""Metrics of the dev lists, by which checkpoints are compared."""

import numpy as np
from transformers import EvalPrediction

from ..evaluation.ranking_metrics import RankingMetrics
from .pair_dataset import LABEL_NAMES


def dev_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """A `compute_metrics` for labelled pairs: their `ranking_figures`, by `RankingMetrics`."""
    columns = dict(zip(LABEL_NAMES, prediction.label_ids, strict=True))
    logits = np.array(prediction.predictions, np.float64).reshape(-1)
    figures = RankingMetrics().compute(
        predictions=np.where(np.isnan(logits), 0.0, logits),
        references=columns["labels"].astype(np.int64),
        lists=columns["list"],
    )
    # If training diverged, its checkpoint is never the best, and early stopping counts it.
    return dict.fromkeys(figures, float("nan")) if np.isnan(logits).any() else figures
