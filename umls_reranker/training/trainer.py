"""`RerankerTrainer`, whose loss does not depend on how a batch is divided; training of a recipe."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, TensorDataset
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    get_scheduler,
    set_seed,
)
from transformers.trainer import TRAINER_STATE_NAME

from ..core.devices import has_dropout, in_threads, resolve_attention, resolve_device
from ..core.errors import UserError
from ..core.json_files import read_json, write_json
from ..core.keys import RunArguments
from ..models.arguments import ModelArguments
from ..models.model_files import commit_of
from ..models.pair_template import PairTemplate
from ..models.pairs import PairEncoder
from ..models.pretrained import load_base_model
from ..models.torch_networks import PackedBert
from .losses import LOSSES, Loss, bce
from .pair_dataset import (
    LABEL_NAMES,
    GlobalBatches,
    PairCollator,
    TokenizedPairs,
    units_per_batch,
    values_of_pairs,
    weight_scale,
)
from .trainer_keys import REFUSED
from .training_arguments import RerankerTrainingArguments

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa
    from transformers import EvalPrediction

# The embeddings of words, in a BERT with a head.
WORDS = "bert.embeddings.word_embeddings.weight"
# Lengths of padded batches are multiples; tensor cores need eight.
MULTIPLE_ON_CPU = 1
MULTIPLE_ON_GPU = 8
# Arguments of transformers that the trainer does not read.
UNREAD = (
    "auto_find_batch_size",
    "average_tokens_across_devices",
    "dataloader_drop_last",
    "label_smoothing_factor",
    "train_sampling_strategy",
)


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
        options: further options of ``Trainer``, but no ``model_init``.

    Raises:
        ValueError: there is no such loss, or an argument or option would have no effect.
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
        if options.get("model_init") is not None:
            raise ValueError("model_init is not supported; make the model, and give it as model")
        require_read(args)
        self.loss = loss_of(loss or str(getattr(args, "loss", "bce")))
        template = template or PairTemplate()
        if isinstance(model, str):
            model, processing_class = load_base_model(model, None, template)
        self._encoder = PairEncoder(processing_class.backend_tokenizer, template)
        train_pairs = self._tokenized(train_dataset, is_scaled=True)
        if self.loss.reads_teacher:
            require_teacher_scores(train_pairs)
        if isinstance(eval_dataset, dict):
            eval_dataset = {name: self._tokenized(rows) for name, rows in eval_dataset.items()}
        elif eval_dataset is not None:
            eval_dataset = self._tokenized(eval_dataset)
        options.setdefault("compute_metrics", ranking_figures)
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
        self._config = model.config.to_dict() | {"architectures": [type(model).__name__]}
        self._packs = PackedBert.supports(self._config) and can_pack(args, model)
        # Read by Trainer, which otherwise counts no pairs for a model without further arguments.
        self.model_accepts_loss_kwargs = True
        # Widths vary; by default, the first ones would each be compiled separately.
        self.accelerator.state.dynamo_plugin.dynamic = True
        self._teacher = torch.from_numpy(train_pairs.teacher).to(args.device)

    def _tokenized(
        self,
        rows: datasets.Dataset | pa.Table | TokenizedPairs,
        is_scaled: bool = False,
    ) -> TokenizedPairs:
        if isinstance(rows, TokenizedPairs):
            return rows
        table = rows.with_format("arrow")[:] if hasattr(rows, "with_format") else rows
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
            head = [parameter for parameter in group["params"] if id(parameter) not in body]
            group["params"] = [parameter for parameter in group["params"] if id(parameter) in body]
            optimizer.add_param_group({**group, "params": head, "lr": head_learning_rate})
        return optimizer

    def get_train_dataloader(self) -> DataLoader:
        """Batches of this process; Accelerate's division would repeat rows at an epoch's end."""
        args = self.args
        size_of_passes = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        seed = args.seed if args.data_seed is None else args.data_seed
        batches = GlobalBatches(
            self.train_dataset,
            getattr(args, "global_batch_size", size_of_passes),
            seed,
            passes=args.gradient_accumulation_steps,
            process=args.process_index,
            processes=args.world_size,
            whole_lists=self.loss.compares_pairs,
        )
        return prepare_data_loader(
            self._loader(self.train_dataset, batch_sampler=batches),
            self.accelerator.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
        )

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
        return super().get_test_dataloader(self._tokenized(test_dataset))

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
        """Loss of a forward pass; in evaluation, the mean of weighted binary cross-entropies.

        Args:
            model: the model.
            inputs: a batch of `PairCollator`.
            return_outputs: whether to return the model's outputs as well.
            num_items_in_batch: number of pairs of the global batch, in training.
        """
        if model.training and self._packs:
            logits = self._packed_logits(model, inputs["row"].numpy())
        else:
            # With labels in its inputs, a one-label model would compute a mean squared error.
            outputs = model(
                **{name: tensor for name, tensor in inputs.items() if name not in LABEL_NAMES}
            )
            logits = outputs.logits.squeeze(-1)
        terms = [logits.float(), inputs["labels"], inputs["weight"]]
        if model.training:
            assert num_items_in_batch is not None
            terms.append(inputs["list"])
            if self.loss.reads_teacher:
                terms.append(self._teacher[inputs["row"]])
            total = self.loss.terms(*terms).sum()
            loss = total / num_items_in_batch * self.accelerator.num_processes
        else:
            loss = bce(*terms).mean()
        return (loss, outputs) if return_outputs else loss

    def _packed_logits(self, model: Any, rows: np.ndarray) -> torch.Tensor:
        """Logits of these training pairs, (b,), without padding; each thread computes a part."""
        pairs = self.train_dataset.pairs.take(rows)
        weights = dict(model.named_parameters())
        used, ids = np.unique(pairs.ids, return_inverse=True)
        words = torch.nn.functional.embedding(torch.from_numpy(used), weights[WORDS])
        pairs = replace(pairs, ids=ids)

        def logits_of(part: np.ndarray, words: torch.Tensor) -> torch.Tensor:
            body = self._config, weights | {WORDS: words}
            with self.accelerator.autocast():
                return PackedBert(*body, self.args.device, "float32").logits(pairs.take(part))

        order = np.argsort(-pairs.lengths, kind="stable")
        threads = min(torch.get_num_threads(), len(order))
        parts = [order[start::threads] for start in range(threads)]
        logits = torch.cat([*in_threads(logits_of, parts, model, words)])
        return logits[torch.from_numpy(np.concatenate(parts).argsort())]


def require_read(args: TrainingArguments) -> None:
    """Refuse arguments that differ from their defaults and that nothing reads.

    Raises:
        ValueError: there is one; names it, and what to set instead.
    """
    for name in UNREAD:
        if getattr(args, name) != getattr(TrainingArguments, name):
            raise ValueError(f"{name} has no effect: {REFUSED[name]}")


def require_teacher_scores(pairs: TokenizedPairs) -> None:
    """Refuse pairs none of which has a teacher's score; UserError."""
    if np.isnan(pairs.teacher).all():
        raise UserError(
            "teacher: this loss needs a teacher; set teacher, or give training "
            "candidates teacher_score"
        )


def loss_of(name: str) -> Loss:
    """The loss of this name; ValueError: there is none."""
    if name not in LOSSES:
        raise ValueError(f"loss {name!r} is unknown; choose from {', '.join(LOSSES)}")
    return LOSSES[name]


def can_pack(args: TrainingArguments, model: PreTrainedModel) -> bool:
    """Whether a BERT may train without padding, which takes a quarter less time of a step.

    What acts on the modules of a model acts in their own forward pass alone.
    """
    needs_modules = (
        args.torch_compile,
        args.gradient_checkpointing,
        args.neftune_noise_alpha,
        args.debug,
        has_dropout(model),
    )
    return args.use_cpu and args.world_size == 1 and not any(needs_modules)


def ranking_figures(prediction: EvalPrediction) -> dict[str, float]:
    """`dev_metrics.dev_metrics`, whose libraries are needed by nothing else here."""
    from .dev_metrics import dev_metrics

    return dev_metrics(prediction)


def set_dropout(model: PreTrainedModel, share: float) -> None:
    """Set the dropout of all layers, attention included; the saved configuration is unchanged."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share


def loader_options(arguments: TrainingArguments) -> dict[str, Any]:
    """Options of a `DataLoader` that divide its work among processes."""
    return {
        "num_workers": arguments.dataloader_num_workers,
        "persistent_workers": arguments.dataloader_persistent_workers,
        "prefetch_factor": arguments.dataloader_prefetch_factor,
        "multiprocessing_context": arguments.dataloader_multiprocessing_context,
        "in_order": arguments.dataloader_in_order,
    }


DTYPE_FILE = "dtype.json"
# Names in accelerate, whose launch configuration can also set the dtype.
DTYPES = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


def training_device(run: RunArguments) -> torch.device:
    """The device to train on.

    Raises:
        UserError: the device is not available, or it is not the first GPU, because Accelerate
            assigns visible GPUs in order.
    """
    device = resolve_device(run.device)
    if device.type == "cuda" and device.index:
        raise UserError(
            f"device: {run.device} cannot be selected for training; "
            f"set CUDA_VISIBLE_DEVICES={device.index} and device: cuda"
        )
    return device


def training_arguments(
    run: RunArguments,
    training: Mapping[str, Any],
    folder: Path,
    lists: int = 10_000,
    pairs: int = 100_000,
) -> RerankerTrainingArguments:
    """The Trainer's arguments; accumulation follows from global batch and number of processes.

    A run shorter than ``eval_steps`` is evaluated once, at its end.

    Args:
        run: section of the recipe.
        training: section of the recipe, the fields that it sets.
        folder: folder of the checkpoints.
        lists: number of training lists; by default of a dataset that stands for any.
        pairs: number of their pairs.

    Raises:
        UserError: a value is incompatible with others or with this machine.
    """
    try:
        arguments = RerankerTrainingArguments(
            **training,
            output_dir=str(folder),
            run_name=run.run_name,
            seed=run.seed,
            use_cpu=training_device(run).type == "cpu",
        )
        steps = arguments.max_steps
        if steps < 1:
            units = lists if LOSSES[arguments.loss].compares_pairs else pairs
            batches = math.ceil(units / units_per_batch(units, pairs, arguments.global_batch_size))
            steps = math.ceil(batches * arguments.num_train_epochs)
        interval = arguments.eval_steps
        if interval < 1:
            interval = math.ceil(interval * steps)
        arguments.eval_steps = min(interval, steps)
        arguments.save_steps = arguments.eval_steps
        if "logging_steps" not in training:
            arguments.logging_steps = max(1, math.ceil(arguments.eval_steps / 10))
        _try_out(arguments, steps)
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise UserError(f"the training section is invalid: {error}") from None
    return arguments


def _try_out(arguments: TrainingArguments, steps: int) -> None:
    """Create objects that the Trainer creates only in training, so that bad values fail early."""
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight])
    if arguments.optim_target_modules is None:
        kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
        optimizer = kind([weight], **options)
    get_scheduler(
        arguments.lr_scheduler_type,
        optimizer,
        arguments.get_warmup_steps(steps),
        steps,
        # A text has become a dict when the arguments were made.
        arguments.lr_scheduler_kwargs,  # type: ignore[arg-type]
    )
    DataLoader(TensorDataset(weight), **loader_options(arguments))


def fine_tune(
    run: RunArguments,
    model: ModelArguments,
    training: Mapping[str, Any],
    train: pa.Table,
    dev: pa.Table,
    folder: Path,
) -> dict[str, Any]:
    """Train on lists, stop early on the dev lists, write ``folder/checkpoint-best``.

    Checkpoints are in `folder`. A killed run resumes from them with the same data order, optimizer
    and schedule, and, with the same number of processes, the same random state. Every process of a
    launch calls this.

    Args:
        run: section of the recipe.
        model: section of the recipe.
        training: section of the recipe, the fields that it sets.
        train: training rows (`models.pairs.pair_rows`) as mined.
        dev: the lists to compare checkpoints on, as training rows.
        folder: folder to write.

    Returns:
        Summary: steps, dev metrics of the best checkpoint, numbers and lengths of pairs, dtype,
        processes, commit of the base model.
    """
    template = PairTemplate.from_recipe(model)
    set_seed(run.seed)
    pairs = len(values_of_pairs(train, "labels"))
    arguments = training_arguments(run, training, folder, train.num_rows, pairs)
    cross_encoder, tokenizer = load_base_model(
        model.model,
        model.model_revision,
        template,
        resolve_attention(model.attn_implementation, arguments.device),
        model.num_hidden_layers,
    )
    trainer = RerankerTrainer(
        cross_encoder, arguments, train, dev, template=template, processing_class=tokenizer
    )
    checkpoint = last_complete_checkpoint(folder)
    dtype = _require_same_dtype(trainer, folder, checkpoint)
    # A resumed run is past its start; another evaluation would count against its patience.
    arguments.eval_on_start &= checkpoint is None
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model(str(folder / "checkpoint-best"))
    lengths = trainer.train_dataset.pairs.lengths
    return {
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "dev": _history(trainer.state.log_history, trainer.state.best_global_step),
        "train_pairs": pairs,
        "dev_pairs": len(trainer.eval_dataset),
        "pairs_at_max_length": int(np.count_nonzero(lengths == model.max_length)),
        "mean_tokens": float(lengths.mean()),
        "dtype": dtype,
        "base_commit": commit_of(str(cross_encoder.name_or_path)),
        "processes": arguments.world_size,
    }


def _require_same_dtype(trainer: RerankerTrainer, folder: Path, checkpoint: str | None) -> str:
    """The dtype of a training, which is written into its folder; refuses to go on in another."""
    dtype = DTYPES[trainer.accelerator.mixed_precision]
    if checkpoint:
        former = read_json(folder / DTYPE_FILE)["dtype"]
        if former != dtype:
            raise UserError(
                f"bf16: the training began in {former}, not {dtype}; "
                "launch or set it as before, or add --overwrite"
            )
    if trainer.args.process_index == 0:
        write_json(folder / DTYPE_FILE, {"dtype": dtype})
    return dtype


def last_complete_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint with a readable state, which the Trainer writes last, or None."""
    checkpoints = (
        path
        for path in folder.glob("checkpoint-*")
        if path.name.removeprefix("checkpoint-").isdigit()
    )
    for path in sorted(
        checkpoints, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True
    ):
        try:
            json.loads((path / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return str(path)
    return None


def _history(log: list[dict[str, Any]], step: int | None) -> dict[str, float]:
    entry = next((entry for entry in log if entry["step"] == step and "eval_f1" in entry), {})
    names = ("f1", "precision", "recall", "roc_auc", "acc@1", "ece", "log_loss", "list_loss")
    return {name: entry[f"eval_{name}"] for name in names if f"eval_{name}" in entry}
