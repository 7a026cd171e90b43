"""`RerankerTrainer`: binary cross-entropy with a weight per pair, exact however a batch is cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader
from transformers import EvalPrediction, Trainer

from ..calibration.logistic import sigmoid
from .dataset import TokenizedPairs
from .metrics import pair_metrics
from .sampling import EpochOrder, GlobalBatches

__all__ = ["LABEL_NAMES", "RerankerTrainer", "dev_metrics"]

LABEL_NAMES = ["labels", "weight", "row"]


class RerankerTrainer(Trainer):
    """A `Trainer` whose loss is the weighted binary cross-entropy of one logit per pair.

    The loss of a global batch is ``sum(weight * bce) / number of pairs``. It is the same whether the batch is one
    forward pass, several accumulated ones or spread over processes: `num_items_in_batch` counts the pairs of the
    whole global batch, and the factor `num_processes` undoes the averaging of gradients between processes.

    Args:
        order: rows of each epoch; by default every row of `train_dataset` once, drawn by the seed of `args`.
        options: those of `Trainer`; both datasets are `TokenizedPairs`.
    """

    # Read by Trainer: the loss already accounts for accumulation, so it must not be divided by its steps.
    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, order: EpochOrder | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.order = order

    def get_train_dataloader(self) -> DataLoader:
        """Batches of this process; Accelerate's own way to share them out would repeat rows at the end of an epoch."""
        batches = GlobalBatches(
            self.order or EpochOrder(len(self.train_dataset), self.args.seed),
            self.train_dataset.lengths,
            self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size,
            passes=self.args.gradient_accumulation_steps,
            process_index=self.args.process_index,
            num_processes=self.args.world_size,
        )
        loader = self._loader(self.train_dataset, batch_sampler=batches)
        return prepare_data_loader(
            loader, self.accelerator.device, num_processes=1, process_index=0, put_on_device=True
        )

    def get_eval_dataloader(self, eval_dataset: TokenizedPairs | None = None) -> DataLoader:
        """Pairs from short to long, shared out by Accelerate, which drops the rows it repeats when it gathers."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        rows = np.argsort(dataset.lengths, kind="stable").tolist()
        return self.accelerator.prepare(self._loader(dataset, batch_size=self.args.eval_batch_size, sampler=rows))

    def _loader(self, dataset: TokenizedPairs, **batches: Any) -> DataLoader:
        return DataLoader(
            dataset,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.accelerator.device.type == "cuda",
            **batches,
        )

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Loss of one forward pass.

        Args:
            inputs: a batch of `PairCollator`.
            num_items_in_batch: pairs in the global batch that count; None (evaluation) takes the plain mean.
        """
        # With labels in its inputs, a one-label model would compute a mean squared error of its own.
        outputs = model(**{name: tensor for name, tensor in inputs.items() if name not in LABEL_NAMES})
        logits = outputs.logits.squeeze(-1).float()
        losses = inputs["weight"] * binary_cross_entropy_with_logits(logits, inputs["labels"], reduction="none")
        if num_items_in_batch is None:
            loss = losses.mean()
        else:
            loss = losses.sum() / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss


def dev_metrics(mention_ids: np.ndarray) -> Callable[[EvalPrediction], dict[str, float]]:
    """A `compute_metrics` for pairs whose rows carry a label.

    Args:
        mention_ids: (n,) int64, the mention of each pair in dataset order.

    Returns:
        Function giving ``f1``, ``precision``, ``recall``, ``roc_auc``, ``ece``, ``brier``, ``log_loss`` of the pairs
        at probability 0.5, and ``acc@1``: the share of mentions whose gold pair beats all its negatives.
    """

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        labels, _, rows = prediction.label_ids
        logits = np.asarray(prediction.predictions, np.float64).reshape(-1)
        metrics = pair_metrics(sigmoid(logits), labels.astype(np.int64), threshold=0.5)
        bce = np.logaddexp(0, logits) - labels * logits
        return metrics | {"log_loss": float(bce.mean()), "acc@1": _gold_first(logits, labels, mention_ids[rows])}

    return compute


def _gold_first(logits: np.ndarray, labels: np.ndarray, mentions: np.ndarray) -> float:
    groups, group_of = np.unique(mentions, return_inverse=True)
    best = {label: np.full(len(groups), -np.inf) for label in (0, 1)}
    for label, scores in best.items():
        chosen = labels == label
        np.maximum.at(scores, group_of[chosen], logits[chosen])
    # A tie is no win: serving could put either first.
    return float((best[1] > best[0]).mean())
