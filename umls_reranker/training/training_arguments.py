"""`RerankerTrainingArguments`: a recipe's training section, and the division of a batch."""

import importlib.util
import os
from dataclasses import dataclass
from typing import Any

from accelerate import PartialState
from transformers import TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from ..core.devices import resolve_device, resolve_dtype
from ..core.errors import UserError
from ..core.keys import LARGEST, recipe_key
from .losses import LOSSES
from .trainer_keys import REFUSED

# Loggers whose module has another name.
LOGGER_MODULES = {"azure_ml": "azureml", "flyte": "flytekit"}
# Numbers of the library's fields -> the lowest that its Trainer follows; below, it does something
# else in silence.
LEAST = {
    "adam_epsilon": 0,
    "dataloader_num_workers": 0,
    "eval_delay": 0,
    "max_grad_norm": 0,
    "per_device_eval_batch_size": 1,
    "save_total_limit": 1,
    "warmup_steps": 0,
    "weight_decay": 0,
}
# Value of max_steps for as many as num_train_epochs have.
STEPS_OF_EPOCHS = -1
METRICS = ("roc_auc", "f1", "acc@1", "log_loss", "list_loss")


class OneGpuArguments(TrainingArguments):
    """Arguments of a process that uses one GPU.

    Without a launcher, a Trainer would spread a larger batch over all visible GPUs.
    """

    @property
    def n_gpu(self) -> int:
        return min(super().n_gpu, 1)


def divide_batch(pairs: int, most: int, processes: int) -> tuple[int, int]:
    """Pairs of a forward pass, at most `most`, and passes of each process, which make up a batch.

    The passes need not divide the batch: its loss is the same however it is cut
    (`training.pair_dataset`).

    >>> divide_batch(64, 16, 8), divide_batch(64, 16, 3)
    ((8, 1), (11, 2))
    """
    passes = -(-pairs // (most * processes))
    return -(-pairs // (passes * processes)), passes


@dataclass
class RerankerTrainingArguments(OneGpuArguments):
    """Training: fields of transformers.TrainingArguments, with defaults for cross-encoders.

    Some are no keys, but follow from the others (`__post_init__`); another value is refused.
    """

    loss: str = recipe_key("bce", "loss to minimize", LOSSES)
    global_batch_size: int = recipe_key(
        64,
        "pairs per optimizer step over all processes; decides gradient_accumulation_steps for any "
        "number of devices, so results do not depend on it",
        least=1,
    )
    max_dev_pairs: int = recipe_key(
        50_000,
        "maximum number of dev candidates for comparing checkpoints, sampled from all documents",
        least=1,
    )
    dropout: float | None = recipe_key(
        None,
        "dropout in training; 0 works better for a single pass over the pairs; empty: "
        "the base model's default",
        least=0,
        most=1,
    )
    head_learning_rate: float | None = recipe_key(
        None,
        "peak learning rate of the randomly initialized head; about ten times learning_rate helps "
        "in short runs; empty: learning_rate",
        least=0,
    )
    early_stopping_patience: int = recipe_key(
        3, "evaluations without improvement before training stops", least=1
    )

    learning_rate: float = recipe_key(2e-5, "peak learning rate", least=0)
    per_device_train_batch_size: int = recipe_key(
        64,
        "maximum number of pairs per forward pass on one device; "
        "lower it if memory runs out, then resume",
        least=1,
    )
    # None is resolved before the class reads it.
    bf16: bool | None = recipe_key(  # type: ignore[assignment]
        None,
        "bfloat16; empty: as launched, else if the hardware supports it and fp16 is not set; "
        "fp16, as launched, else on a GPU that is fast only in float16 (V100, T4)",
    )
    eval_steps: float = recipe_key(
        500,
        "optimizer steps between evaluations, each with a checkpoint; "
        "below 1: a share of all steps",
        least=1e-6,
    )
    metric_for_best_model: str = recipe_key(
        "roc_auc",
        "dev metric that selects the best checkpoint; list_loss: cross-entropy of the gold "
        "candidate over the list",
        METRICS,
    )
    report_to: list[str] = recipe_key(
        ["tensorboard"], "where to log in addition to the console; install it yourself"
    )

    # The library's help of these holds; only their defaults are others.
    fp16: bool | None = None  # type: ignore[assignment]
    per_device_eval_batch_size: int = 256
    warmup_steps: float = 0.06
    weight_decay: float = 0.01
    save_total_limit: int | None = 2
    logging_first_step: bool = True
    # The library's defaults hide NaN losses, show no bar, and seek unused weights at every step.
    logging_nan_inf_filter: bool = False
    disable_tqdm: bool = False
    ddp_find_unused_parameters: bool = False

    # These follow from others.
    eval_strategy: Any = None
    save_strategy: Any = None
    save_steps: Any = None
    load_best_model_at_end: Any = None
    greater_is_better: Any = None
    restore_callback_states_from_checkpoint: Any = None
    auto_find_batch_size: Any = None
    gradient_accumulation_steps: Any = None

    def __post_init__(self) -> None:
        if self.deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
            raise UserError(
                "deepspeed: it rounds labels and weights to the dtype of the model; use fsdp.yaml"
            )
        self._require_in_range()
        self._choose_loggers()
        self._choose_precision()
        self.per_device_train_batch_size, passes = divide_batch(
            self.global_batch_size, self.per_device_train_batch_size, PartialState().num_processes
        )
        self._follow("gradient_accumulation_steps", passes)
        self._follow("auto_find_batch_size", False)
        # The evaluation chooses the checkpoint.
        self._follow("eval_strategy", "steps")
        self._follow("save_strategy", "steps")
        self._follow("save_steps", self.eval_steps)
        self._follow("load_best_model_at_end", True)
        self._follow("greater_is_better", not self.metric_for_best_model.endswith("loss"))
        # Otherwise early stopping would forget its patience.
        self._follow("restore_callback_states_from_checkpoint", True)
        super().__post_init__()

    def _require_in_range(self) -> None:
        """Refuse numbers with which there would be no training, or another than they say."""
        if not 0 < self.num_train_epochs <= LARGEST:
            raise UserError(f"num_train_epochs: {self.num_train_epochs} is no number above 0")
        if self.max_steps != STEPS_OF_EPOCHS and not 1 <= self.max_steps <= LARGEST:
            raise UserError(
                f"max_steps: {self.max_steps} is no number of steps; give 1 or more, or "
                f"{STEPS_OF_EPOCHS} for those of num_train_epochs"
            )
        for name, least in LEAST.items():
            number = getattr(self, name)
            if number is not None and not least <= number <= LARGEST:
                raise UserError(f"{name}: {number} is out of range; give {least} or more")

    def _choose_loggers(self) -> None:
        """Make ``report_to`` a list without "none"; refuse a logger that cannot be used.

        All installed ones are what "all" means, and TrainingArguments finds them.
        """
        if isinstance(self.report_to, str):
            self.report_to = [self.report_to]
        self.report_to = [name for name in self.report_to if name != "none"]
        if self.report_to == ["all"]:
            return
        try:
            get_reporting_integration_callbacks(self.report_to)
        except ValueError as error:
            raise UserError(f"report_to: {error}") from None
        for name in self.report_to:
            if importlib.util.find_spec(LOGGER_MODULES.get(name, name)) is None:
                raise UserError(f"report_to: {name} is not installed; install it, or leave it out")

    def _follow(self, name: str, value: Any) -> None:
        """Set a field that follows from others; refuse another value."""
        given = getattr(self, name)
        if given is not None and given != value:
            raise UserError(f"{name}: it cannot be {given}; {REFUSED[name]}")
        setattr(self, name, value)

    def _choose_precision(self) -> None:
        """Set ``bf16`` and ``fp16`` as launched or by the hardware; refuse what contradicts."""
        device = resolve_device("cpu" if self.use_cpu else "auto")
        launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if self.bf16 is None:
            dtype = launched if launched != "no" else resolve_dtype("auto", device)
            self.bf16 = not self.fp16 and dtype in ("bf16", "bfloat16")
            if self.fp16 is None:
                self.fp16 = dtype in ("fp16", "float16")
        self.fp16 = bool(self.fp16)
        chosen = next((name for name in ("fp16", "bf16") if getattr(self, name)), "no")
        if launched not in ("no", chosen):
            raise UserError(
                f"bf16, fp16: they say {chosen}, but the launch configuration says "
                f"mixed_precision: {launched}; change one of them"
            )
        if self.fp16 and device.type == "cpu":
            way_out = "add --fp16 no"
            if launched == "fp16":
                way_out = "choose another launch configuration"
            raise UserError(f"fp16: float16 needs a GPU; {way_out}")


OWN_FIELDS = tuple(RerankerTrainingArguments.__annotations__)
