"""`RerankerTrainer`: losses of pairs and of whole lists, independent of how a batch is divided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from ..core.losses import GOLD_LABEL, LOSSES, Loss, bce
from .collator import IGNORED_LABEL, LabelledPairs
from .sampling import EpochOrder, GlobalBatches, MentionLists, Pass

if TYPE_CHECKING:
    from .dataset import TokenizedPairs

LABEL_NAMES = ["labels", "weight", "row"]


class OneGpuArguments(TrainingArguments):
    """Arguments of a process that uses one GPU.

    Without a launcher, a Trainer would spread a larger batch over all visible GPUs.
    """

    @property
    def n_gpu(self) -> int:
        return min(super().n_gpu, 1)


class TrainingPasses(torch.utils.data.Dataset[LabelledPairs]):
    """The pairs of each `Pass`, for a `DataLoader` with `GlobalBatches`; pairs that do not count have weight 0."""

    def __init__(self, pairs: TokenizedPairs) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, drawn: Pass) -> LabelledPairs:
        pairs = self.pairs.__getitems__(drawn.rows)
        if drawn.counts:
            return pairs
        return replace(pairs, labels=np.full_like(pairs.labels, IGNORED_LABEL), weights=np.zeros_like(pairs.weights))


class RerankerTrainer(Trainer):
    """A `Trainer` of one logit per pair, with a `Loss` of pairs or of whole lists.

    The loss of a global batch is

        scale * sum of the terms / number of pairs, or of gold pairs for a loss of lists

    It is the same for one forward pass, several accumulated ones, or several processes: the count is that of the whole
    global batch, and the factor `num_processes` undoes the averaging of gradients between processes.

    Args:
        loss: the loss.
        lists: for a loss of lists, the rows of each mention of `train_dataset`. Batches then hold whole mentions, the
            number that comes closest to the pairs per batch in `args`.
        scale: for a loss of lists, scales the gold pairs' weights to mean 1.
        head_learning_rate: peak learning rate of all parameters outside the base model; None: that of `args`.
        options: options of `Trainer`; both datasets are `TokenizedPairs`.
    """

    # Read by Trainer: the loss already accounts for accumulation, so it must not be divided by the steps.
    loss_is_scaled_for_ga = True
    train_dataset: TokenizedPairs
    eval_dataset: TokenizedPairs

    def __init__(
        self,
        *args: Any,
        loss: Loss = LOSSES["bce"],
        lists: MentionLists | None = None,
        scale: float = 1.0,
        head_learning_rate: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.loss, self.lists, self.scale = loss, lists, scale
        self.order = EpochOrder(len(self.train_dataset if lists is None else lists), self.args.seed)
        self.head_learning_rate = head_learning_rate
        if lists is not None:
            starts = torch.zeros(len(self.train_dataset), dtype=torch.bool)
            starts[torch.from_numpy(lists.starts)] = True
            self._starts_list = starts.to(self.args.device)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The optimizer of `args`, with parameter groups for the head if it has a learning rate of its own."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if not is_new or self.head_learning_rate is None:
            return optimizer
        network: Any = self.model if model is None else model
        body = {id(parameter) for parameter in network.base_model.parameters()}
        for group in list(optimizer.param_groups):
            head = [parameter for parameter in group["params"] if id(parameter) not in body]
            group["params"] = [parameter for parameter in group["params"] if id(parameter) in body]
            optimizer.add_param_group({**group, "params": head, "lr": self.head_learning_rate})
        return optimizer

    def get_train_dataloader(self) -> DataLoader:
        """Batches of this process; Accelerate's own division would repeat rows at the end of an epoch."""
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
        """Pairs from short to long, divided by Accelerate, which drops repeated rows when it gathers."""
        dataset: TokenizedPairs = self.eval_dataset if eval_dataset is None else eval_dataset
        rows = np.argsort(dataset.lengths, kind="stable").tolist()
        # Accelerate keeps every loader, and with it its persistent workers.
        batches = {"batch_size": self.args.eval_batch_size, "sampler": rows, "persistent_workers": False}
        return self.accelerator.prepare(self._loader(dataset, **batches))

    def _loader(self, dataset: TokenizedPairs | TrainingPasses, **batches: Any) -> DataLoader:
        return DataLoader(
            dataset,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory and self.accelerator.device.type == "cuda",
            **loader_options(self.args) | batches,
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
            model: the model.
            inputs: a batch of `PairCollator`.
            return_outputs: whether to return the model's outputs as well.
            num_items_in_batch: the counts of `get_batch_samples`, needed in training.
        """
        # With labels in its inputs, a one-label model would compute a mean squared error.
        outputs = model(**{name: tensor for name, tensor in inputs.items() if name not in LABEL_NAMES})
        terms = outputs.logits.squeeze(-1).float(), inputs["labels"], inputs["weight"]
        if model.training:
            assert isinstance(num_items_in_batch, torch.Tensor)  # from get_batch_samples
            pairs, gold_pairs = num_items_in_batch
            # Lists are complete and in order, so each begins at the first row of a mention.
            lists = None if self.lists is None else self._starts_list[inputs["row"]].cumsum(dim=0)
            # A batch without a gold pair has no list log loss.
            count = pairs if lists is None else gold_pairs.clamp(min=1)
            loss = self.scale * self.loss.terms(*terms, lists).sum() / count * self.accelerator.num_processes
        else:
            loss = bce(*terms).mean()
        return (loss, outputs) if return_outputs else loss


def loader_options(arguments: TrainingArguments) -> dict[str, Any]:
    """Options of a `DataLoader` that divide its work among processes."""
    names = "num_workers", "persistent_workers", "prefetch_factor", "multiprocessing_context"
    return {name: getattr(arguments, f"dataloader_{name}") for name in names}
