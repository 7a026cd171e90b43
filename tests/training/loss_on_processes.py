"""Steps of `RerankerTrainer` on tokenized pairs, in this process or, run as a script, on each of several.

    accelerate launch --config_file CONFIG tests/training/loss_on_processes.py MODEL FOLDER

As a script it takes the steps of `CASES` and writes what `take_steps` gives into FOLDER, one safetensors file a case.
"""

import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, PreTrainedModel, TrainerCallback, TrainingArguments

from umls_reranker.core.losses import LOSSES
from umls_reranker.core.script import leave_process_group
from umls_reranker.training.collator import PairCollator
from umls_reranker.training.dataset import SCHEMA, TokenizedPairs
from umls_reranker.training.sampling import MentionLists
from umls_reranker.training.trainer import LABEL_NAMES, RerankerTrainer

# Case -> rows, rows a forward pass, passes a step, steps, loss; for two processes.
CASES = {
    "full": (32, 8, 2, 1, "bce"),
    "ragged": (27, 8, 2, 1, "bce"),
    "fewer rows than passes": (3, 8, 2, 1, "bce"),
    "one row": (1, 16, 1, 1, "bce"),
    "50 steps": (600, 32, 1, 50, "bce"),
    "list-wise": (32, 8, 2, 1, "listwise"),
    "list-wise, ragged": (27, 8, 2, 1, "listwise"),
    "list-wise, fewer mentions than passes": (3, 8, 2, 1, "listwise"),
    "list-wise, 50 steps": (600, 32, 1, 50, "listwise"),
}
LIST_SCALE = 0.7


def write_pairs(folder: Path, pairs: Sequence[dict], rows_per_shard: int = 1_000) -> TokenizedPairs:
    """Write tokenized pairs as `tokenize_pairs` does."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for start in range(0, len(pairs), rows_per_shard):
        shards.append(folder / f"{start}.arrow")
        with pa.ipc.new_stream(shards[-1], SCHEMA) as writer:
            writer.write_table(pa.Table.from_pylist(pairs[start : start + rows_per_shard], SCHEMA))
    return TokenizedPairs(shards)


def make_pairs(folder: Path, rows: int) -> TokenizedPairs:
    """Tokenized pairs of many lengths and weights, in several shards; a third is positive, told by one token."""
    choose = random.Random(7)
    pairs = []
    for row in range(rows):
        label, weight = float(row % 3 == 0), choose.choice([0.25, 1.0, 4.0])
        ids = [2, 5 if label else 6, *(choose.randrange(7, 50) for _ in range(choose.randrange(1, 23))), 3]
        pairs.append({"input_ids": ids, "first_length": 2, "labels": label, "weight": weight})
    return write_pairs(folder, pairs, rows_per_shard=10)


def make_lists(rows: int) -> MentionLists:
    """Mentions of those rows: of one to three pairs, some of them without a gold one."""
    row = np.arange(rows)
    return MentionLists(np.cumsum((row % 3 == 0) | (row % 12 == 5) | (row % 12 == 10)))


def load_model(folder: str) -> PreTrainedModel:
    """The model without dropout, which would make the same batch another one each time."""
    return AutoModelForSequenceClassification.from_pretrained(
        folder, dtype="float32", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )


def make_trainer(folder: str, output: str, pairs: TokenizedPairs, loss: str = "bce", **options) -> RerankerTrainer:
    """A trainer on the processor, as `fine_tune` builds it."""
    of_lists = LOSSES[loss].of_lists
    arguments = TrainingArguments(
        output_dir=output,
        use_cpu=True,
        remove_unused_columns=False,
        label_names=LABEL_NAMES,
        logging_steps=1,
        disable_tqdm=True,
        **{"save_strategy": "no", "max_grad_norm": 0.0} | options,
    )
    collator = PairCollator(pad_token_id=0)
    model = load_model(folder)
    return RerankerTrainer(
        model,
        arguments,
        collator,
        train_dataset=pairs,
        eval_dataset=pairs,
        loss=LOSSES[loss],
        lists=make_lists(len(pairs)) if of_lists else None,
        scale=LIST_SCALE if of_lists else 1.0,
    )


class GradientKeeper(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
        gradients = {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}
        # Sharded ones are put together.
        self.gradients = {
            name: gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient.clone()
            for name, gradient in gradients.items()
        }


def take_steps(
    folder: str, rows: int, per_device: int, passes: int, steps: int = 1, loss: str = "bce"
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Take optimizer steps over rows; returns the last gradient of each parameter and the logged losses."""
    keeper = GradientKeeper()
    with tempfile.TemporaryDirectory() as output:
        trainer = make_trainer(
            folder,
            output,
            make_pairs(Path(output) / "pairs", rows),
            loss,
            per_device_train_batch_size=per_device,
            gradient_accumulation_steps=passes,
            max_steps=steps,
            learning_rate=3e-3,
        )
        trainer.add_callback(keeper)
        trainer.train()
    return keeper.gradients, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


if __name__ == "__main__":
    model, target = sys.argv[1:]
    for name, numbers in CASES.items():
        gradients, losses = take_steps(model, *numbers)
        assert torch.distributed.get_world_size() == 2
        if torch.distributed.get_rank() == 0:
            save_file(gradients | {"losses": torch.tensor(losses)}, Path(target) / f"{name}.safetensors")
    leave_process_group()
    # One that still runs when Python ends can abort the process.
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    assert not [name for name in threads if "gloo" in name], threads
