"""`RerankerTrainer`, whose loss does not depend on how a batch is divided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import EvalLoopOutput

from ..core.files import weights_by_umask, written
from ..core.json_files import write_json
from ..core.locators import portable_locator
from ..models.pair_template import TEMPLATE_FILE, PairTemplate
from ..models.pairs import PairEncoder
from ..models.pretrained import load_base_model
from .dropout import set_dropout
from .global_batches import GlobalBatches
from .loaders import loader_of_own_share, loader_options
from .losses import LOSSES, Loss, bce
from .packed_training import can_pack, packed_config, packed_logits
from .pair_dataset import LABEL_NAMES, PairCollator, TokenizedPairs, weight_scale
from .trainer_inputs import require_cross_encoder, require_read, require_teacher_scores
from .training_arguments import RerankerTrainingArguments

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa
    from transformers import EvalPrediction

CARD = "README.md"
# Lengths of padded batches are multiples; tensor cores need eight.
MULTIPLE_ON_CPU = 1
MULTIPLE_ON_GPU = 8


class RerankerTrainer(Trainer):
    """A ``Trainer`` of one logit per pair, with a loss of pairs or of whole lists.

    The loss of a global batch is the sum of the terms / number of pairs. It is the same for one
    forward pass, several accumulated ones, or several processes: the count is that of the whole
    global batch, and the factor ``num_processes`` undoes averaging gradients over processes.

    Args:
        model: the cross-encoder, of one logit; or a Hub id or folder, from which it is loaded with
            its tokenizer.
        args: ``RerankerTrainingArguments``, or those of transformers; sizes of batches are numbers
            of pairs.
        train_dataset: rows of `training_rows`, whose weights are scaled to mean 1; or pairs to
            train on as they are.
        eval_dataset: rows or pairs to compute the metrics of a ranking on, or a dict of such sets;
            ``evaluate`` takes others.
        loss: name of the loss (``losses.LOSSES``); None: that of ``args``, or bce.
        template: how the model reads a pair, as for `training_rows`.
        processing_class: tokenizer of a model that is not given by name.
        options: further options of ``Trainer``, but none of ``REFUSED_OPTIONS``.

    Raises:
        ValueError: there is no such loss, the rows are not those of `training_rows`, the model does
            not have one logit, or an argument or option would have no effect.
        UserError: the pairs weigh nothing, or have no scores of a teacher, which the loss needs.
    """

    # Read by Trainer: the loss accounts for accumulation, so it must not be divided by the steps.
    loss_is_scaled_for_ga = True
    train_dataset: TokenizedPairs
    eval_dataset: TokenizedPairs | dict[str, TokenizedPairs]

    def __init__(
        self,
        model: PreTrainedModel | str,
        args: TrainingArguments,
        train_dataset: datasets.Dataset | pa.Table | TokenizedPairs,
        eval_dataset: datasets.Dataset
        | pa.Table
        | TokenizedPairs
        | dict[str, datasets.Dataset | pa.Table | TokenizedPairs]
        | None = None,
        *,
        loss: str | None = None,
        template: PairTemplate | None = None,
        processing_class: Any = None,
        **options: Any,
    ) -> None:
        require_read(args, options)
        self.loss_name = loss or str(getattr(args, "loss", "bce"))
        self.loss = loss_of(self.loss_name)
        self.template = template or PairTemplate()
        if isinstance(model, str):
            model, processing_class = load_base_model(model, None, self.template)
        require_cross_encoder(model, processing_class)
        self._encoder = PairEncoder(processing_class.backend_tokenizer, self.template)
        train_pairs = self._tokenized(train_dataset, "train_dataset", is_scaled=True)
        if self.loss.reads_teacher:
            require_teacher_scores(train_pairs.teacher)
        if isinstance(eval_dataset, dict):
            sets = eval_dataset.items()
            eval_dataset = {
                name: self._tokenized(rows, f"eval_dataset {name}") for name, rows in sets
            }
        elif eval_dataset is not None:
            eval_dataset = self._tokenized(eval_dataset)
        options.setdefault("compute_metrics", metrics_of_lists)
        args.remove_unused_columns = False
        args.label_names = LABEL_NAMES
        # A batch comes whole, from `TokenizedPairs.__getitems__`.
        multiple = MULTIPLE_ON_CPU if args.use_cpu else MULTIPLE_ON_GPU
        collator: Any = PairCollator(
            processing_class.pad_token_id,
            token_types="token_type_ids" in processing_class.model_input_names,
            multiple=multiple,
        )
        super().__init__(
            model, args, collator, train_pairs, eval_dataset, processing_class, **options
        )
        if isinstance(args, RerankerTrainingArguments):
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))
            if args.dropout is not None:
                set_dropout(model, args.dropout)
        self._packed_config = packed_config(model)
        self._packs = can_pack(args, model)
        # Read by Trainer, which otherwise counts no pairs for a model without further arguments.
        self.model_accepts_loss_kwargs = True
        # Widths vary; by default, the first ones would each be compiled separately.
        self.accelerator.state.dynamo_plugin.dynamic = True
        self._teacher = torch.from_numpy(train_pairs.teacher).to(args.device)

    def _tokenized(
        self,
        rows: datasets.Dataset | pa.Table | TokenizedPairs,
        name: str = "eval_dataset",
        *,
        is_scaled: bool = False,
    ) -> TokenizedPairs:
        """The pairs of training rows, with weights of mean 1 if they are scaled.

        Args:
            rows: the rows, or their pairs, which are returned as they are.
            name: the argument that has them.
            is_scaled: whether the weights are scaled.
        """
        if isinstance(rows, TokenizedPairs):
            return rows
        # Pairs alone need neither datasets nor pyarrow.
        from .rows import table_of_rows

        table = table_of_rows(rows, name)
        scale = weight_scale(table, self.loss.gold_pairs_only) if is_scaled else 1.0
        return TokenizedPairs(table, self._encoder, scale)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The optimizer of `args`, with separate groups for a head with its own learning rate."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        head_learning_rate = getattr(self.args, "head_learning_rate", None)
        if not is_new or head_learning_rate is None:
            return optimizer
        cross_encoder: Any = self.model if model is None else model
        body = {id(parameter) for parameter in cross_encoder.base_model.parameters()}
        for group in list(optimizer.param_groups):
            parameters = group["params"]
            head = [parameter for parameter in parameters if id(parameter) not in body]
            group["params"] = [parameter for parameter in parameters if id(parameter) in body]
            optimizer.add_param_group({**group, "params": head, "lr": head_learning_rate})
        return optimizer

    @property
    def global_batch_size(self) -> int:
        """Number of pairs of a step: as the arguments say, or that of all passes."""
        args = self.args
        size_of_passes = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        return getattr(args, "global_batch_size", size_of_passes)

    def get_train_dataloader(self) -> DataLoader:
        """The share of this process of each global batch, pass by pass."""
        args = self.args
        seed = args.seed if args.data_seed is None else args.data_seed
        batches = GlobalBatches(
            self.train_dataset,
            self.global_batch_size,
            seed,
            passes=args.gradient_accumulation_steps,
            process=args.process_index,
            processes=args.world_size,
            whole_lists=self.loss.compares_pairs,
        )
        loader = self._loader(self.train_dataset, batch_sampler=batches)
        return loader_of_own_share(loader, self.accelerator.device)

    def get_batch_samples(self, *arguments: Any, **options: Any) -> tuple[list, Any]:
        """The passes of the next step; none after the last one.

        `Trainer` would take one step more when it resumes from the last one inside an epoch.
        """
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            # Restored with the checkpoint, which was evaluated and saved.
            self.control.should_evaluate = False
            self.control.should_save = False
            return [], None
        return super().get_batch_samples(*arguments, **options)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Pairs from short to long, divided by Accelerate, whose gathering drops repeated rows."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(rows, str):
            rows = self.eval_dataset[rows]
        if rows is None:
            raise ValueError("evaluation needs lists; give eval_dataset")
        dataset = self._tokenized(rows)
        order = np.argsort(dataset.pairs.lengths, kind="stable").tolist()
        # Accelerate keeps every loader, and with it its persistent workers.
        return self.accelerator.prepare(
            self._loader(
                dataset,
                batch_size=self.args.eval_batch_size,
                sampler=order,
                persistent_workers=False,
            )
        )

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Pairs in their order, in which ``predict`` returns their logits."""
        return super().get_test_dataloader(self._tokenized(test_dataset, "test_dataset"))

    def evaluation_loop(self, *arguments: Any, **options: Any) -> EvalLoopOutput:
        """As of `Trainer`, with the loss of each pair once.

        `Trainer` takes means of batches. On several processes, the last batch of each is filled up
        with pairs of the first, whose losses would count twice.
        """
        output = super().evaluation_loop(*arguments, **options)
        name = f"{options.get('metric_key_prefix', 'eval')}_loss"
        metrics = output.metrics or {}
        if output.predictions is not None and name in metrics:
            metrics[name] = mean_loss(output)
        return output

    def _loader(self, dataset: TokenizedPairs, **options: Any) -> DataLoader:
        """A loader by the arguments of the training; these options win over them."""
        on_gpu = self.accelerator.device.type == "cuda"
        return DataLoader(
            dataset,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory and on_gpu,
            **loader_options(self.args) | options,
        )

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save a checkpoint or the model, with the template that says how to read its pairs."""
        super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return
        folder = Path(output_dir or str(self.args.output_dir))
        write_json(folder / TEMPLATE_FILE, asdict(self.template))
        weights_by_umask(folder)
        # Nothing reads it, and reading it could run code.
        (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def create_model_card(  # type: ignore[override]
        self, *, model_name: str | None = None, **metadata: Any
    ) -> None:
        """Write the card of a cross-encoder without calibration, with ``push_to_hub``.

        Args:
            model_name: title; None: that of the repo or folder.
            metadata: fields of `huggingface_hub.ModelCardData`, such as ``license``.
        """
        if not self.is_world_process_zero():
            return
        from .trainer_card import trained_card

        folder = Path(str(self.args.output_dir))
        locator = self.hub_model_id or portable_locator(str(folder))
        card = trained_card(self, model_name or Path(locator).name, locator, **metadata)
        with written(folder / CARD) as partial:
            partial.write_text(card, encoding="utf-8")

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Loss of a forward pass; in evaluation, the mean of weighted binary cross-entropies.

        Args:
            model: the model.
            inputs: a batch of `PairCollator`.
            return_outputs: whether to return the model's outputs as well.
            num_items_in_batch: number of pairs of the global batch, in training.
        """
        outputs: Any = None
        if model.training and self._packs:
            pairs = self.train_dataset.pairs.take(inputs["row"].numpy())
            cross_encoder: Any = model
            logits = packed_logits(cross_encoder, self._packed_config, pairs, self.accelerator)
        else:
            # With labels in its inputs, a one-label model would compute a mean squared error.
            texts = {name: tensor for name, tensor in inputs.items() if name not in LABEL_NAMES}
            outputs = model(**texts)
            logits = outputs.logits.squeeze(-1)
        if model.training:
            assert num_items_in_batch is not None
            total = self._training_terms(logits.float(), inputs).sum()
            loss = total / num_items_in_batch * self.accelerator.num_processes
        else:
            loss = bce(logits.float(), inputs["labels"], inputs["weight"]).mean()
        return (loss, outputs) if return_outputs else loss

    def _training_terms(
        self, logits: torch.Tensor, inputs: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """The term of the loss of each pair of a forward pass, (b,)."""
        arguments = [logits, inputs["labels"], inputs["weight"], inputs["list"]]
        if self.loss.reads_teacher:
            arguments.append(self._teacher[inputs["row"]])
        return self.loss.terms(*arguments)


def loss_of(name: str) -> Loss:
    """The loss of this name; ValueError: there is none."""
    if name not in LOSSES:
        raise ValueError(f"loss {name!r} is unknown; choose from {', '.join(LOSSES)}")
    return LOSSES[name]


def mean_loss(output: EvalLoopOutput) -> float:
    """Mean weighted binary cross-entropy of evaluated pairs."""
    label_ids: Any = output.label_ids
    columns = dict(zip(LABEL_NAMES, map(torch.as_tensor, label_ids), strict=True))
    logits = torch.as_tensor(output.predictions).float().reshape(-1)
    return bce(logits, columns["labels"], columns["weight"]).mean().item()


def metrics_of_lists(prediction: EvalPrediction) -> dict[str, float]:
    """`dev_metrics.dev_metrics`, imported late: its libraries are needed by nothing else here."""
    from .dev_metrics import dev_metrics

    return dev_metrics(prediction)
