"""Fine-tuning from mined pairs to ``checkpoint-best``, resumable at every checkpoint."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import DatasetDict
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProgressCallback,
    TrainingArguments,
    set_seed,
)
from transformers.integrations import TensorBoardCallback

from ..core.arguments import ModelArguments, RunArguments, TrainingStageArguments
from ..core.devices import resolve_precision
from ..core.errors import UserError
from ..core.fetch import resolve_model
from ..models.pretrained import load_pretrained
from ..models.template import PairTemplate
from ..models.tokens import PairEncoder
from .callbacks import (
    CheckpointCallback,
    ConsoleCallback,
    EarlyStopping,
    ThroughputCallback,
    ended_state,
    last_complete_checkpoint,
)
from .collator import PairCollator
from .dataset import tokenize_pairs, weight_scale
from .losses import GOLD_LABEL
from .processes import training_device, use_one_gpu
from .sampling import MentionLists
from .trainer import LABEL_NAMES, RerankerTrainer, dev_metrics

__all__ = ["fine_tune", "load_base_model", "training_arguments"]

LOWER_IS_BETTER = {"log_loss", "list_loss"}
# Names of accelerate, whose launch configuration can ask for a precision too.
PRECISIONS = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


def load_base_model(
    model: str, revision: str | None, template: PairTemplate
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the base model with a fresh head of one logit, and its tokenizer with the template's markers.

    Raises:
        UserError: the model cannot be found or reached, or its weights are damaged.
    """
    from safetensors import SafetensorError

    source = resolve_model(model, revision)
    try:
        tokenizer = load_pretrained(AutoTokenizer, source)
        network = load_pretrained(
            AutoModelForSequenceClassification, source, num_labels=1, use_safetensors=True, dtype="float32"
        )
    except SafetensorError as error:
        raise UserError(f"model {model}: the weights are corrupt ({error}); fetch them again") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"model {model} cannot be loaded ({' '.join(str(error).split())}); it needs config.json, "
            "model.safetensors and tokenizer files"
        ) from None
    longest = getattr(network.config, "max_position_embeddings", template.max_length)
    if template.max_length > longest:
        raise UserError(f"max_length: {template.max_length} is more than the {longest} tokens that {model} reads")
    if template.prepare_tokenizer(tokenizer):
        network.resize_token_embeddings(len(tokenizer))
    return network, tokenizer


def training_arguments(
    run: RunArguments,
    training: TrainingStageArguments,
    folder: Path,
    train_pairs: int,
    lists: MentionLists | None = None,
) -> TrainingArguments:
    """The Trainer's arguments for a recipe; accumulation follows from the global batch and the process count.

    A run shorter than ``eval_steps`` is evaluated once, at its end.

    Args:
        train_pairs: number of training pairs.
        lists: their mentions, where batches hold whole ones.

    Raises:
        UserError: the global batch cannot be cut evenly, or float16 is asked for without a GPU.
    """
    device = training_device(run)
    precision = resolve_precision(training.training_precision, device, key="training_precision")
    processes = PartialState().num_processes
    per_step = training.per_device_batch_size * processes
    if training.global_batch_size % per_step:
        raise UserError(
            f"global_batch_size: {training.global_batch_size} is not a multiple of per_device_batch_size "
            f"{training.per_device_batch_size} x {processes} processes; change one of them"
        )
    steps = training.max_steps
    if steps < 1:
        batch = training.global_batch_size
        batches = train_pairs / batch if lists is None else len(lists) / lists.per_batch(batch)
        steps = math.ceil(math.ceil(batches) * training.num_train_epochs)
    eval_steps = min(training.eval_steps, steps)
    arguments = TrainingArguments(
        output_dir=str(folder),
        seed=run.seed,
        use_cpu=device.type == "cpu",
        bf16=precision == "bfloat16",
        fp16=precision == "float16",
        torch_compile=training.torch_compile,
        learning_rate=training.learning_rate,
        num_train_epochs=training.num_train_epochs,
        max_steps=training.max_steps,
        weight_decay=training.weight_decay,
        warmup_steps=training.warmup_share,
        max_grad_norm=training.max_grad_norm,
        per_device_train_batch_size=training.per_device_batch_size,
        per_device_eval_batch_size=training.per_device_batch_size * 2,
        gradient_accumulation_steps=training.global_batch_size // per_step,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        label_names=LABEL_NAMES,
        dataloader_num_workers=training.dataloader_workers,
        eval_strategy="steps",
        eval_steps=eval_steps,
        save_strategy="steps",
        save_steps=eval_steps,
        load_best_model_at_end=True,
        metric_for_best_model=training.metric_for_best_model,
        greater_is_better=training.metric_for_best_model not in LOWER_IS_BETTER,
        logging_steps=max(1, math.ceil(eval_steps / 10)),
        logging_nan_inf_filter=False,  # it waits for the device after every pass, and hides what went wrong
        disable_tqdm=False,  # at low verbosity the Trainer would print dicts in place of its bar
        report_to="none",
    )
    use_one_gpu(arguments)
    return arguments


def fine_tune(
    run: RunArguments,
    model: ModelArguments,
    training: TrainingStageArguments,
    pairs: DatasetDict,
    folder: Path,
) -> dict[str, Any]:
    """Train on ``pairs["train"]``, stop early on ``pairs["dev"]``, write ``folder/checkpoint-best``.

    Checkpoints lie in `folder`; when it holds one from a killed run, training resumes from there, with the same data
    order, optimizer and schedule, and on as many processes the same random state. Every process of a launch calls
    this.

    Args:
        pairs: ``train`` as mined, and ``dev`` as `dev_lists.dev_pairs` gives them.

    Returns:
        Summary: steps, dev metrics of the best checkpoint, numbers and lengths of pairs, precision and processes.
    """
    share, scale = listwise_share(training), weight_scale(pairs["train"])
    list_scale = weight_scale(pairs["train"], label=GOLD_LABEL) / scale if share else 1.0
    lists = MentionLists(pairs["train"].with_format("numpy")["mention_id"][:]) if share else None
    arguments = training_arguments(run, training, folder, len(pairs["train"]), lists)
    template = PairTemplate.from_recipe(model)
    set_seed(run.seed)
    network, tokenizer = load_base_model(model.model, model.model_revision, template)
    encoder = PairEncoder(tokenizer, template)
    with arguments.main_process_first(local=False, desc="tokenizing"):
        train_set = tokenize_pairs(pairs["train"], encoder, scale, folder / "tokenized-train")
        dev_set = tokenize_pairs(pairs["dev"], encoder, scale, folder / "tokenized-dev")
    pairs_per_step = training.global_batch_size
    if lists is not None:
        pairs_per_step = lists.per_batch(pairs_per_step) * float(lists.sizes.mean())
    stopping = EarlyStopping(training.early_stopping_patience)
    trainer = RerankerTrainer(
        model=network,
        args=arguments,
        train_dataset=train_set,
        eval_dataset=dev_set,
        processing_class=tokenizer,
        data_collator=PairCollator(
            tokenizer.pad_token_id,
            "token_type_ids" in tokenizer.model_input_names,
            pad_to_multiple_of=1 if arguments.use_cpu else 8,
        ),
        compute_metrics=dev_metrics(pairs["dev"].with_format("numpy")["mention_id"][:]),
        lists=lists,
        listwise_weight=share,
        list_scale=list_scale,
        callbacks=[
            ThroughputCallback(pairs_per_step),
            CheckpointCallback(training.save_total_limit),
            stopping,
            _tensorboard(folder / "tensorboard"),
        ],
    )
    # Widths differ from batch to batch; by default each would be compiled anew before they are taken as variable.
    trainer.accelerator.state.dynamo_plugin.dynamic = True
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(ConsoleCallback)
    checkpoint = last_complete_checkpoint(folder)
    ended = ended_state(checkpoint, arguments, stopping)
    if ended is None:
        trainer.train(resume_from_checkpoint=checkpoint)
    else:
        # Going on from there would train longer than an undisturbed run does.
        trainer.state = ended
        trainer._load_best_model()
    trainer.save_model(str(folder / "checkpoint-best"))
    lengths = train_set.lengths
    return {
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "dev": _history(trainer.state.log_history, trainer.state.best_global_step),
        "train_pairs": len(train_set),
        "dev_pairs": len(dev_set),
        "pairs_at_max_length": int(np.count_nonzero(lengths == model.max_length)),
        "mean_tokens": float(lengths.mean()),
        "precision": PRECISIONS[trainer.accelerator.mixed_precision],
        "processes": arguments.world_size,
    }


def listwise_share(training: TrainingStageArguments) -> float:
    """Share of the list-wise loss, 0 to 1.

    Raises:
        UserError: the recipe's share is outside.
    """
    if not 0 <= training.listwise_weight <= 1:
        raise UserError(f"listwise_weight: {training.listwise_weight} is no share; use 0 to 1")
    return {"bce": 0.0, "listwise": 1.0, "mixed": training.listwise_weight}[training.loss]


def _history(log: list[dict[str, Any]], step: int | None) -> dict[str, float]:
    entry = next((entry for entry in log if entry["step"] == step and "eval_f1" in entry), {})
    names = ("f1", "precision", "recall", "roc_auc", "acc@1", "ece", "log_loss", "list_loss")
    return {name: entry[f"eval_{name}"] for name in names if f"eval_{name}" in entry}


def _tensorboard(folder: Path) -> TensorBoardCallback:
    callback = TensorBoardCallback()
    callback.logging_dir = str(folder)
    return callback
