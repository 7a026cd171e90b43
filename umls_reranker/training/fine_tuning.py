"""Fine-tuning of the cross-encoder by the sections of a recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import set_seed

from ..core.devices import resolve_attention
from ..core.errors import UserError
from ..core.keys import RunArguments
from ..models.arguments import ModelArguments
from ..models.model_files import commit_of
from ..models.pair_template import PairTemplate
from ..models.pretrained import load_base_model
from .checkpoints import last_complete_checkpoint, require_same_dtype, write_dtype
from .pair_dataset import values_of_pairs
from .recipe_arguments import training_arguments
from .trainer import RerankerTrainer
from .training_log import dev_metrics_at

# Name of a precision in accelerate, whose launch configuration can also set it -> dtype.
DTYPE_OF_PRECISION = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


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
        train: training rows (`models.pair_rows.pair_rows`) as mined.
        dev: the lists to compare checkpoints on, as training rows.
        folder: folder to write.

    Returns:
        Summary: steps, dev metrics of the best checkpoint, numbers and lengths of pairs, dtype,
        processes, commit of the base model.

    Raises:
        UserError: a setting does not fit the machine, the model or the rows; or no step was taken.
    """
    template = PairTemplate.from_recipe(model)
    set_seed(run.seed)
    pairs = len(values_of_pairs(train, "labels"))
    arguments = training_arguments(run, training, folder, train.num_rows, pairs)
    attention = resolve_attention(model.attn_implementation, arguments.device)
    cross_encoder, tokenizer = load_base_model(
        model.model, model.model_revision, template, attention, model.num_hidden_layers
    )
    trainer = RerankerTrainer(
        cross_encoder, arguments, train, dev, template=template, processing_class=tokenizer
    )
    checkpoint = last_complete_checkpoint(folder)
    dtype = DTYPE_OF_PRECISION[trainer.accelerator.mixed_precision]
    require_same_dtype(dtype, folder, is_resumed=checkpoint is not None)
    if arguments.process_index == 0:
        write_dtype(dtype, folder)
    # A resumed run is past its start; another evaluation would count against its patience.
    arguments.eval_on_start &= checkpoint is None
    trainer.train(resume_from_checkpoint=checkpoint)
    if not trainer.state.global_step:
        raise UserError("max_steps: the training took no step, so there is no model")
    trainer.save_model(str(folder / "checkpoint-best"))
    lengths = trainer.train_dataset.pairs.lengths
    return {
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "dev": dev_metrics_at(
            trainer.state.best_global_step, trainer.state.log_history, trainer.loss
        ),
        "train_pairs": pairs,
        "dev_pairs": len(trainer.eval_dataset),
        "pairs_at_max_length": int(np.count_nonzero(lengths == model.max_length)),
        "mean_tokens": float(lengths.mean()),
        "dtype": dtype,
        "base_commit": commit_of(str(cross_encoder.name_or_path)),
        "processes": arguments.world_size,
    }
