"""One optimizer step of `RerankerTrainer`, in this process or, run as a script, on each of several.

    RANK=0 WORLD_SIZE=2 ... python tests/loss_on_processes.py MODEL TARGET ROWS PER_DEVICE ACCUMULATED

Process 0 writes its gradients, and the loss that is logged, to the safetensors file TARGET.
"""

import random
import sys
import tempfile

import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, PreTrainedModel, TrainerCallback, TrainingArguments

from umls_reranker.training.collator import PairCollator
from umls_reranker.training.trainer import LABEL_NAMES, RerankerTrainer

__all__ = ["load_model", "make_pairs", "make_trainer", "take_step"]


def make_pairs(rows: int) -> Dataset:
    """Tokenized pairs of many lengths and weights, a third of them positive."""
    choose = random.Random(7)
    pairs = []
    for row in range(rows):
        ids = [2, *(choose.randrange(5, 50) for _ in range(choose.randrange(2, 24))), 3]
        label, weight = float(row % 3 == 0), choose.choice([0.25, 1.0, 4.0])
        pair = {"input_ids": ids, "first_length": 2, "length": len(ids), "labels": label, "weight": weight, "row": row}
        pairs.append(pair)
    return Dataset.from_list(pairs)


def load_model(folder: str) -> PreTrainedModel:
    """The model without dropout, which would make the same batch another one each time."""
    return AutoModelForSequenceClassification.from_pretrained(
        folder, dtype="float32", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )


def make_trainer(folder: str, output: str, pairs: Dataset, **options) -> RerankerTrainer:
    """A trainer on the processor, as `fine_tune` builds it."""
    arguments = TrainingArguments(
        output_dir=output,
        use_cpu=True,
        max_grad_norm=0.0,
        remove_unused_columns=False,
        label_names=LABEL_NAMES,
        train_sampling_strategy="group_by_length",
        logging_steps=1,
        disable_tqdm=True,
        **{"save_strategy": "no"} | options,
    )
    collator = PairCollator(pad_token_id=0)
    model = load_model(folder)
    return RerankerTrainer(model, arguments, collator, train_dataset=pairs, eval_dataset=pairs)


class GradientKeeper(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
        self.gradients = {name.removeprefix("module."): p.grad.clone() for name, p in model.named_parameters()}


def take_step(folder: str, rows: int, per_device: int, accumulated: int) -> tuple[dict[str, torch.Tensor], float]:
    """Take one optimizer step over all rows; returns the gradient of each parameter and the logged loss."""
    keeper = GradientKeeper()
    with tempfile.TemporaryDirectory() as output:
        trainer = make_trainer(
            folder,
            output,
            make_pairs(rows),
            per_device_train_batch_size=per_device,
            gradient_accumulation_steps=accumulated,
            max_steps=1,
        )
        trainer.add_callback(keeper)
        trainer.train()
    return keeper.gradients, trainer.state.log_history[0]["loss"]


if __name__ == "__main__":
    model, target, *numbers = sys.argv[1:]
    gradients, loss = take_step(model, *map(int, numbers))
    assert torch.distributed.get_world_size() == 2
    if torch.distributed.get_rank() == 0:
        save_file(gradients | {"loss": torch.tensor(loss)}, target)
