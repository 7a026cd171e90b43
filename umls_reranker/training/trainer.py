"""`RerankerTrainer`: losses of pairs and of whole lists, with weights, exact however a batch is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import EvalPrediction, Trainer, TrainingArguments

from ..calibration.logistic import sigmoid
from ..evaluation.pair_metrics import PairMetrics
from .dataset import IGNORED_LABEL, TokenizedPairs, TrainingPasses
from .losses import GOLD_LABEL, listwise_terms, pairwise_terms
from .sampling import EpochOrder, GlobalBatches, MentionLists

__all__ = ["LABEL_NAMES", "RerankerTrainer", "dev_metrics", "loader_options"]

LABEL_NAMES = ["labels", "weight", "row"]


class RerankerTrainer(Trainer):
    """A `Trainer` of one logit per pair: weighted binary cross-entropy, list-wise softmax, or a mix of both.

    The loss of a global batch is

        (1 - listwise_weight) * sum(weight * bce) / number of pairs
        + listwise_weight * sum(weight * list_scale * cross-entropy in the list) / number of gold pairs

    It is the same whether the batch is one forward pass, several accumulated ones or spread over processes: both
    numbers are those of the whole global batch, and the factor `num_processes` undoes the averaging of gradients
    between processes. A mention without a gold pair counts in the first term alone.

    Args:
        lists: the rows of each mention of `train_dataset`; with it, batches hold whole mentions, as many as come
            closest to the number of pairs that `args` asks for. None: batches of pairs, for a `listwise_weight` of 0.
        listwise_weight: share of the list-wise loss, 0 to 1.
        list_scale: brings the gold pairs' weights to mean 1.
        options: those of `Trainer`; both datasets are `TokenizedPairs`.
    """

    # Read by Trainer: the loss already accounts for accumulation, so it must not be divided by its steps.
    loss_is_scaled_for_ga = True
    train_dataset: TokenizedPairs
    eval_dataset: TokenizedPairs

    def __init__(
        self,
        *args: Any,
        lists: MentionLists | None = None,
        listwise_weight: float = 0.0,
        list_scale: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.lists = lists
        self.order = EpochOrder(len(self.train_dataset if lists is None else lists), self.args.seed)
        self.listwise_weight = listwise_weight
        self.list_scale = list_scale
        if lists is not None:
            starts = torch.zeros(len(self.train_dataset), dtype=torch.bool)
            starts[torch.from_numpy(lists.starts)] = True
            self._starts_list = starts.to(self.args.device)

    def get_train_dataloader(self) -> DataLoader:
        """Batches of this process; Accelerate's own way to share them out would repeat rows at the end of an epoch."""
        pairs = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        batches = GlobalBatches(
            self.order,
            self.train_dataset.lengths,
            pairs if self.lists is None else self.lists.per_batch(pairs),
            lists=self.lists,
            passes=self.args.gradient_accumulation_steps,
            process_index=self.args.process_index,
            num_processes=self.args.world_size,
        )
        loader = self._loader(TrainingPasses(self.train_dataset), batch_sampler=batches)
        return prepare_data_loader(
            loader, self.accelerator.device, num_processes=1, process_index=0, put_on_device=True
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Pairs from short to long, shared out by Accelerate, which drops the rows it repeats when it gathers."""
        dataset: TokenizedPairs = self.eval_dataset if eval_dataset is None else eval_dataset
        rows = np.argsort(dataset.lengths, kind="stable").tolist()
        return self.accelerator.prepare(self._loader(dataset, batch_size=self.args.eval_batch_size, sampler=rows))

    def _loader(self, dataset: TokenizedPairs | TrainingPasses, **batches: Any) -> DataLoader:
        return DataLoader(
            dataset,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory and self.accelerator.device.type == "cuda",
            **loader_options(self.args),
            **batches,
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, torch.Tensor]], torch.Tensor]:
        """The passes of one optimizer step, and (2,) int64: pairs and gold pairs of the global batch."""
        batches = list(islice(epoch_iterator, num_batches))
        labels = torch.cat([batch["labels"] for batch in batches]).to(device)
        counts = torch.stack([(labels != IGNORED_LABEL).sum(), (labels == GOLD_LABEL).sum()])
        return batches, self.accelerator.gather(counts).view(-1, 2).sum(dim=0)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Loss of one forward pass; in evaluation the plain mean of the weighted binary cross-entropies.

        Args:
            inputs: a batch of `PairCollator`.
            num_items_in_batch: the counts of `get_batch_samples`, needed in training.
        """
        # With labels in its inputs, a one-label model would compute a mean squared error of its own.
        outputs = model(**{name: tensor for name, tensor in inputs.items() if name not in LABEL_NAMES})
        terms = outputs.logits.squeeze(-1).float(), inputs["labels"], inputs["weight"]
        if model.training:
            assert isinstance(num_items_in_batch, torch.Tensor)  # which get_batch_samples gave
            pairs, gold_pairs = num_items_in_batch
            loss = (1 - self.listwise_weight) * pairwise_terms(*terms).sum() / pairs
            if self.listwise_weight:
                # Lists come whole and in order, so each begins where the first row of a mention comes.
                lists = self._starts_list[inputs["row"]].cumsum(dim=0)
                scale = self.listwise_weight * self.list_scale
                # A batch without a gold pair has no list-wise loss.
                loss = loss + scale * listwise_terms(*terms, lists).sum() / gold_pairs.clamp(min=1)
            loss = loss * self.accelerator.num_processes
        else:
            loss = pairwise_terms(*terms).mean()
        return (loss, outputs) if return_outputs else loss


def loader_options(arguments: TrainingArguments) -> dict[str, Any]:
    """How a `DataLoader` shares its work out to processes."""
    names = "num_workers", "persistent_workers", "prefetch_factor", "multiprocessing_context"
    return {name: getattr(arguments, f"dataloader_{name}") for name in names}


def dev_metrics(mention_ids: np.ndarray) -> Callable[[EvalPrediction], dict[str, float]]:
    """A `compute_metrics` for pairs whose rows carry a label.

    Args:
        mention_ids: (n,) int64, the mention of each pair in dataset order.

    Returns:
        Function giving ``f1``, ``precision``, ``recall``, ``roc_auc``, ``ece``, ``brier``, ``log_loss`` of the pairs
        at probability 0.5; ``acc@1``, the share of mentions whose gold pair beats all others (a mention without one
        counts as wrong); and ``list_loss``, the cross-entropy (nats) of a gold pair under the softmax over its
        mention's pairs.
    """

    metric = PairMetrics()

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        columns = dict(zip(LABEL_NAMES, prediction.label_ids, strict=True))
        labels = columns["labels"]
        logits = np.asarray(prediction.predictions, np.float64).reshape(-1)
        metrics = metric.compute(predictions=sigmoid(logits), references=labels.astype(np.int64))
        bce = np.logaddexp(0, logits) - labels * logits
        return metrics | {"log_loss": float(bce.mean())} | _list_metrics(logits, labels, mention_ids[columns["row"]])

    return compute


def _list_metrics(logits: np.ndarray, labels: np.ndarray, mentions: np.ndarray) -> dict[str, float]:
    groups, group_of = np.unique(mentions, return_inverse=True)
    best = {label: np.full(len(groups), -np.inf) for label in (0, 1)}
    for label, scores in best.items():
        chosen = labels == label
        np.maximum.at(scores, group_of[chosen], logits[chosen])
    top = np.maximum(best[0], best[1])
    normalizers = top + np.log(np.bincount(group_of, np.exp(logits - top[group_of])))
    losses = (normalizers[group_of] - logits)[labels == 1]
    # A tie is no win: serving could put either first.
    return {
        "acc@1": float((best[1] > best[0]).mean()),
        "list_loss": float(losses.mean()) if len(losses) else float("nan"),
    }
