"""What `RerankerTrainer` is given: refused with the way out, where it would fail or do nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import PreTrainedModel, TrainingArguments

from ..core.errors import UserError
from .pair_dataset import LABEL_NAMES
from .trainer_keys import REFUSED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Arguments of transformers that the trainer does not read.
UNREAD = (
    "auto_find_batch_size",
    "average_tokens_across_devices",
    "dataloader_drop_last",
    "label_names",
    "label_smoothing_factor",
    "length_column_name",
    "train_sampling_strategy",
)
# Options of Trainer that would do nothing -> what to do instead.
REFUSED_OPTIONS = {
    "compute_loss_func": "register a function of the lists with training.losses.register, and give "
    "its name as loss",
    "data_collator": "the trainer makes its own batches of training_rows",
    "model_init": "make the model, and give it as model",
}


def require_read(args: TrainingArguments | None, options: Mapping[str, Any]) -> None:
    """Refuse arguments and options of a trainer that nothing reads.

    Raises:
        ValueError: there is one; names it, and what to set instead.
    """
    if args is None:
        raise ValueError("args is missing; give TrainingArguments(output_dir=FOLDER)")
    for name in UNREAD:
        default = getattr(TrainingArguments, name)
        # The arguments of a former trainer have the labels of its pairs.
        if getattr(args, name) not in (default, LABEL_NAMES):
            raise ValueError(f"{name} has no effect: {REFUSED[name]}")
    for name, way_out in REFUSED_OPTIONS.items():
        if options.get(name) is not None:
            raise ValueError(f"{name} is not supported; {way_out}")
    optimizers = options.get("optimizers")
    has_optimizer = optimizers is not None and optimizers[0] is not None
    if has_optimizer and getattr(args, "head_learning_rate", None) is not None:
        raise ValueError(
            "head_learning_rate has no effect on the optimizer in optimizers; "
            "set the rate in its groups, or leave one of them out"
        )


def require_cross_encoder(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse what is no cross-encoder of one logit with its fast tokenizer; ValueError."""
    # Adapters of peft wrap a model.
    base: Callable[[], Any] | None = getattr(model, "get_base_model", None)
    network = base() if base is not None else model
    if not isinstance(network, PreTrainedModel):
        raise ValueError(
            f"model is a {type(model).__name__}, not a model of transformers; give its folder or "
            "Hub id, or an AutoModelForSequenceClassification of num_labels=1"
        )
    outputs = network.config.num_labels
    if outputs != 1:
        raise ValueError(
            f"model has {outputs} labels, and a reranker one logit; give its folder or Hub id, or "
            "an AutoModelForSequenceClassification of num_labels=1"
        )
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ValueError(
            "processing_class is missing: give the model's fast AutoTokenizer, or give the model "
            "by name"
        )


def require_teacher_scores(scores: np.ndarray) -> None:
    """Refuse pairs none of which has a teacher's score, (pairs,) with NaN for none; UserError."""
    if np.isnan(scores).all():
        raise UserError(
            "teacher_score: this loss learns from it, and no training candidate has one; give them "
            "log-odds of a teacher, or choose another loss"
        )
