"""Training rows -> batches of whole lists -> `RerankerTrainer`, whose loss does not depend on how a batch is divided.

A training row is a mention with its positive and negatives (`models.pairs.training_rows`). The order of an epoch
depends only on seed and epoch. It is divided into global batches of lists of similar length, and then each global
batch is divided over processes and accumulated passes. So a run is one sequence of global batches for any number of
processes, and a killed run resumes inside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer, TrainingArguments

from ..core.arrays import expand_ranges, list_offsets
from ..core.errors import UserError
from ..lists.index_scores import TEACHER
from ..models.batches import PairBatch
from ..models.pairs import PairEncoder
from .losses import GOLD_LABEL, LOSSES, Loss, bce

if TYPE_CHECKING:
    import pyarrow as pa

LABEL_NAMES = ["labels", "weight", "row"]
# The Trainer does not count rows with this label.
IGNORED_LABEL = -100.0
# Lists of this many batches are sorted by length together: more would reduce padding, but also randomness.
SORTED_BATCHES = 100
LISTS_AT_ONCE = 8_192


class TokenizedPairs(torch.utils.data.Dataset[tuple[PairBatch, dict[str, np.ndarray]]]):
    """The pairs of training rows, one list after the other, in memory; some 100 bytes per pair.

    Args:
        rows: training rows.
        encoder: tokenizer and template.
        scale: factor of the weights (`weight_scale`).

    Attributes:
        pairs: the n pairs.
        offsets: (lists + 1,) int64, the first pair of each list.
        labels: (n,) float32, 1 for the gold concept.
        weights: (n,) float32.
        teacher: (n,) float32, NaN for pairs without a teacher's score.
    """

    def __init__(self, rows: pa.Table, encoder: PairEncoder, scale: float = 1.0) -> None:
        parts = []
        for start in range(0, rows.num_rows, LISTS_AT_ONCE):
            part = rows.slice(start, LISTS_AT_ONCE).combine_chunks()
            names = part["names"].combine_chunks()
            owner = np.repeat(np.arange(len(names)), names.value_lengths())
            entities, lefts, rights = (part[name].take(owner).to_pylist() for name in ("entity", "left", "right"))
            parts.append(encoder.encode(entities, names.flatten().to_pylist(), lefts, rights)[0])
        columns = ([getattr(part, name) for part in parts] for name in ("ids", "lengths", "first_lengths"))
        self.pairs = PairBatch(*map(np.concatenate, columns))
        self.offsets = list_offsets(rows["labels"].combine_chunks().value_lengths().to_numpy())
        self.labels = rows["labels"].combine_chunks().flatten().to_numpy().astype(np.float32)
        self.weights = (rows["weights"].combine_chunks().flatten().to_numpy() * scale).astype(np.float32)
        self.teacher = np.full(len(self.pairs), np.nan, np.float32)
        if TEACHER in rows.column_names:
            self.teacher[:] = rows[TEACHER].combine_chunks().flatten().to_numpy(zero_copy_only=False)

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def owner(self) -> np.ndarray:
        """The list of each pair, (n,) int64."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def __getitems__(self, numbers: Sequence[int]) -> tuple[PairBatch, dict[str, np.ndarray]]:
        """The pairs with these numbers; number ~n is pair n without label and weight."""
        given = np.asarray(numbers, np.int64)
        rows, counts = np.where(given < 0, ~given, given), given >= 0
        labels = np.where(counts, self.labels[rows], np.float32(IGNORED_LABEL))
        return self.pairs.take(rows), {"labels": labels, "weight": self.weights[rows] * counts, "row": rows}


class PairCollator:
    """Pads pairs to the longest one of a batch.

    Args:
        pad_token_id: the tokenizer's padding id.
        token_types: whether the model uses ``token_type_ids``.
        multiple: widths are rounded up to this; 8 suits tensor cores, 1 is faster on a CPU.

    A batch of b pairs, w tokens wide:
        input_ids, attention_mask, token_type_ids: (b, w) int64
        labels: (b,) float32, 1.0 for the gold concept; weight: (b,) float32; row: (b,) int64, number of the pair
    """

    def __init__(self, pad_token_id: int, token_types: bool = True, multiple: int = 8) -> None:
        self.pad_token_id, self.token_types, self.multiple = pad_token_id, token_types, multiple

    def __call__(self, batch: tuple[PairBatch, dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        pairs, labels = batch
        arrays = pairs.padded(self.pad_token_id, self.multiple)
        if not self.token_types:
            del arrays["token_type_ids"]
        return {name: torch.from_numpy(values) for name, values in (arrays | labels).items()}


def weight_scale(rows: pa.Table, of_lists: bool) -> float:
    """The factor that scales the weights of training rows to mean 1, so that weighting does not change the step size.

    Args:
        rows: all training rows.
        of_lists: whether only gold pairs have a loss; their weights are then scaled to the number of all pairs.

    Raises:
        UserError: there are no pairs, or all weigh nothing.
    """
    labels, weights = (rows[name].combine_chunks().flatten().to_numpy() for name in ("labels", "weights"))
    total = weights.sum(dtype=np.float64, where=labels == GOLD_LABEL) if of_lists else weights.sum(dtype=np.float64)
    if not total > 0:
        raise UserError("the training pairs weigh nothing: there are none, or the *_weight keys of the recipe are 0")
    return len(weights) / total


class GlobalBatches(Sampler[list[int]]):
    """The pairs of one process's share of each global batch, pass by pass.

    Lists of a global batch have similar lengths. With n processes, each takes every n-th list and divides its share
    into passes; all have the same number of passes, so none waits. The last batch of an epoch holds the remaining
    lists. A share without lists gets one pair that does not count.

    Args:
        pairs: the dataset.
        size: pairs of a global batch; it has the number of whole lists that comes closest.
        seed: seed of the run.
        passes: forward passes of a process per global batch.
        process: number of this process.
        processes: number of processes.
    """

    def __init__(
        self, pairs: TokenizedPairs, size: int, seed: int, passes: int = 1, process: int = 0, processes: int = 1
    ) -> None:
        self.offsets, self.lists = pairs.offsets, lists_per_batch(pairs.offsets, size)
        self.lengths = np.maximum.reduceat(pairs.pairs.lengths, pairs.offsets[:-1])
        self.seed, self.passes, self.process, self.processes = seed, passes, process, processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.lists) * self.passes

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.global_batches():
            share = batch[self.process :: self.processes]
            for lists in np.array_split(share, self.passes):
                pairs = expand_ranges(self.offsets[lists], self.offsets[lists + 1])[1]
                yield pairs.tolist() or [~int(self.offsets[batch[0]])]

    def global_batches(self) -> Iterator[np.ndarray]:
        """The lists of the epoch's global batches, each sorted by length."""
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.lengths))
        complete = len(order) - len(order) % self.lists
        pool = SORTED_BATCHES * self.lists
        for start in range(0, complete, pool):
            part = order[start : min(start + pool, complete)]
            part[:] = part[np.argsort(self.lengths[part], kind="stable")]
        yield from random.permutation(order[:complete].reshape(-1, self.lists))
        if complete < len(order):
            rest = order[complete:]
            yield rest[np.argsort(self.lengths[rest], kind="stable")]


def lists_per_batch(offsets: np.ndarray, pairs: int) -> int:
    """Number of lists whose pairs come closest to this number."""
    return max(1, round(pairs * (len(offsets) - 1) / max(1, int(offsets[-1]))))


class RerankerTrainer(Trainer):
    """A `Trainer` of one logit per pair, with a `Loss` of pairs or of whole lists.

    The loss of a global batch is the sum of the terms / number of pairs. It is the same for one forward pass, several
    accumulated ones, or several processes: the count is that of the whole global batch, and the factor
    `num_processes` undoes the averaging of gradients between processes.

    Args:
        loss: the loss.
        head_learning_rate: peak learning rate of all parameters outside the base model; None: that of `args`.
        global_batch_size: pairs of a global batch; None: as many as the passes of `args` hold.
        options: options of `Trainer`; both datasets are `TokenizedPairs`, the collator is a `PairCollator`.
    """

    # Read by Trainer: the loss already accounts for accumulation, so it must not be divided by the steps.
    loss_is_scaled_for_ga = True
    train_dataset: TokenizedPairs
    eval_dataset: TokenizedPairs

    def __init__(
        self,
        *args: Any,
        loss: Loss = LOSSES["bce"],
        head_learning_rate: float | None = None,
        global_batch_size: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.loss, self.head_learning_rate, self.global_batch_size = loss, head_learning_rate, global_batch_size
        # Read by Trainer, which otherwise does not count the pairs for a model without further arguments.
        self.model_accepts_loss_kwargs = True
        self._owner = torch.from_numpy(self.train_dataset.owner).to(self.args.device)
        self._teacher = torch.from_numpy(self.train_dataset.teacher).to(self.args.device) if loss.of_teacher else None

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
        args = self.args
        of_passes = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        size = self.global_batch_size or of_passes
        shares = args.gradient_accumulation_steps, args.process_index, args.world_size
        batches = GlobalBatches(self.train_dataset, size, args.seed, *shares)
        loader = self._loader(self.train_dataset, batch_sampler=batches)
        return prepare_data_loader(
            loader, self.accelerator.device, num_processes=1, process_index=0, put_on_device=True
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Pairs from short to long, divided by Accelerate, which drops repeated rows when it gathers."""
        dataset: TokenizedPairs = self.eval_dataset if eval_dataset is None else eval_dataset
        rows = np.argsort(dataset.pairs.lengths, kind="stable").tolist()
        # Accelerate keeps every loader, and with it its persistent workers.
        batches = {"batch_size": self.args.eval_batch_size, "sampler": rows, "persistent_workers": False}
        return self.accelerator.prepare(self._loader(dataset, **batches))

    def _loader(self, dataset: TokenizedPairs, **batches: Any) -> DataLoader:
        return DataLoader(
            dataset,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory and self.accelerator.device.type == "cuda",
            **loader_options(self.args) | batches,
        )

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
            num_items_in_batch: number of pairs of the global batch, in training.
        """
        # With labels in its inputs, a one-label model would compute a mean squared error.
        outputs = model(**{name: tensor for name, tensor in inputs.items() if name not in LABEL_NAMES})
        terms = outputs.logits.squeeze(-1).float(), inputs["labels"], inputs["weight"]
        if model.training:
            assert num_items_in_batch is not None
            scores = [] if self._teacher is None else [self._teacher[inputs["row"]]]
            total = self.loss.terms(*terms, self._owner[inputs["row"]], *scores).sum()
            loss = total / num_items_in_batch * self.accelerator.num_processes
        else:
            loss = bce(*terms).mean()
        return (loss, outputs) if return_outputs else loss


def loader_options(arguments: TrainingArguments) -> dict[str, Any]:
    """Options of a `DataLoader` that divide its work among processes."""
    names = "num_workers", "persistent_workers", "prefetch_factor", "multiprocessing_context"
    return {name: getattr(arguments, f"dataloader_{name}") for name in names}
