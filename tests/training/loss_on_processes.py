"""Steps of `RerankerTrainer` on tokenized pairs, in this process or, run as a script, on each of
several.

    accelerate launch --config_file CONFIG tests/training/loss_on_processes.py MODEL FOLDER

As a script it takes the steps of `CASES` and writes what `take_steps` gives into FOLDER, one
safetensors file a case, and what `evaluate_others` gives.
"""

import json
import random
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    TrainerCallback,
    TrainingArguments,
)

from umls_reranker.core.devices import leave_process_group
from umls_reranker.models.pair_template import PairTemplate
from umls_reranker.models.pairs import PairEncoder
from umls_reranker.training.pair_dataset import TokenizedPairs
from umls_reranker.training.trainer import RerankerTrainer

# As `pair_rows` gives them.
TRAINING_ROW = pa.schema(
    {
        "entity": pa.string(),
        "left": pa.string(),
        "right": pa.string(),
        "names": pa.list_(pa.string()),
        "labels": pa.list_(pa.int8()),
        "weights": pa.list_(pa.float32()),
    }
)
TAUGHT_ROW = TRAINING_ROW.append(pa.field("teacher", pa.list_(pa.float32())))
# Case -> rows, rows a forward pass, passes a step, steps, loss; for two processes.
CASES = {
    "ragged": (27, 8, 2, 1, "bce"),
    "fewer rows than passes": (3, 8, 2, 1, "bce"),
    "one row": (1, 16, 1, 1, "bce"),
    "20 steps": (150, 32, 1, 20, "bce"),
    "list-wise, ragged": (27, 8, 2, 1, "listwise"),
    "list-wise, fewer mentions than passes": (3, 8, 2, 1, "listwise"),
    "list-wise, 20 steps": (150, 32, 1, 20, "listwise"),
    "teacher's shares": (27, 8, 2, 1, "listwise_kl"),
    "teacher's shares, fewer mentions than passes": (3, 8, 2, 1, "listwise_kl"),
}


def make_rows(pairs: int) -> pa.Table:
    """Training rows of one to three pairs, some without a gold one; a third of the pairs is gold,
    told by a letter.

    Every fifth pair lacks the teacher's score.
    """
    choose = random.Random(7)
    rows = []
    for number in range(pairs):
        label = int(number % 3 == 0)
        weight = choose.choice([0.25, 1.0, 4.0])
        name = ("a" if label else "b") + "".join(
            choose.choices("cdefghijklmnop", k=choose.randrange(1, 23))
        )
        if number % 3 == 0 or number % 12 in (5, 10):
            rows.append(
                {"entity": "m", "left": "", "right": ""} | {key: [] for key in TAUGHT_ROW.names[3:]}
            )
        score = None if number % 5 == 1 else number * 7 % 13 / 2 - 3
        for key, value in zip(TAUGHT_ROW.names[3:], (name, label, weight, score), strict=True):
            rows[-1][key].append(value)
    return pa.Table.from_pylist(rows, TAUGHT_ROW)


def make_pairs(folder: str, pairs: int) -> TokenizedPairs:
    """The rows, tokenized for the model in a folder."""
    return TokenizedPairs(
        make_rows(pairs),
        PairEncoder(AutoTokenizer.from_pretrained(folder).backend_tokenizer, PairTemplate(48)),
    )


def load_model(folder: str) -> PreTrainedModel:
    """The model without dropout, which would make the same batch another one each time."""
    return AutoModelForSequenceClassification.from_pretrained(
        folder, dtype="float32", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )


def make_trainer(
    folder: str, output: str, pairs: TokenizedPairs, loss: str = "bce", **options
) -> RerankerTrainer:
    """A trainer on the processor, as `fine_tune` builds it; `dev` takes the place of the pairs in
    evaluation.
    """
    dev = options.pop("dev", pairs)
    arguments = TrainingArguments(
        output_dir=output,
        use_cpu=True,
        logging_steps=1,
        disable_tqdm=True,
        **{"save_strategy": "no", "max_grad_norm": 0.0} | options,
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return RerankerTrainer(
        load_model(folder), arguments, pairs, dev, loss=loss, processing_class=tokenizer
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
    """Take optimizer steps over rows; returns the last gradient of each parameter and the logged
    losses.
    """
    keeper = GradientKeeper()
    with tempfile.TemporaryDirectory() as output:
        trainer = make_trainer(
            folder,
            output,
            make_pairs(folder, rows),
            loss,
            per_device_train_batch_size=per_device,
            gradient_accumulation_steps=passes,
            max_steps=steps,
            learning_rate=3e-3,
        )
        trainer.add_callback(keeper)
        trainer.train()
    return keeper.gradients, [
        entry["loss"] for entry in trainer.state.log_history if "loss" in entry
    ]


def evaluate_others(folder: str) -> dict[str, float]:
    """Figures of sets that are not those of the trainer, in batches that do not divide them."""
    with tempfile.TemporaryDirectory() as output:
        pairs = make_pairs(folder, 27)
        trainer = make_trainer(folder, output, pairs, per_device_eval_batch_size=4)
        return trainer.evaluate({"rows": make_rows(50), "pairs": make_pairs(folder, 31)})


if __name__ == "__main__":
    model, target = sys.argv[1:]
    metrics = evaluate_others(model)
    if torch.distributed.get_rank() == 0:
        (Path(target) / "metrics.json").write_text(json.dumps(metrics))
    for name, numbers in CASES.items():
        gradients, losses = take_steps(model, *numbers)
        assert torch.distributed.get_world_size() == 2
        if torch.distributed.get_rank() == 0:
            save_file(
                gradients | {"losses": torch.tensor(losses)}, Path(target) / f"{name}.safetensors"
            )
    leave_process_group()
    # One that still runs when Python ends can abort the process.
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    assert not [name for name in threads if "gloo" in name], threads
