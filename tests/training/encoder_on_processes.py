"""Steps of `EncoderTrainer`, in this process or, run as a script, on each of several.

    accelerate launch --config_file CONFIG tests/training/encoder_on_processes.py MODEL FOLDER

As a script it writes the weights after the steps into FOLDER/trained.safetensors. Plain gradient
descent moves weights by as much as gradients differ; Adam would hide a factor.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer, TrainerCallback, TrainingArguments
from trigram_encoder import make_concepts

from umls_reranker.core.devices import leave_process_group
from umls_reranker.models.query_tokenizer import QueryTokenizer
from umls_reranker.training.encoder_data import QueryCollator, QueryNamePairs
from umls_reranker.training.encoder_training import EncoderTrainer, QueryNameVectors

BATCH_SIZE = 12
# Seven whole batches, and one of seven pairs.
PAIRS = 7 * BATCH_SIZE + 7
STOP = 5
SAVE = 4
WORDS = ["".join(chr(97 + (at * step) % 26) for step in (1, 3, 5, 7)) for at in range(24)]
# Three names a concept, so that some of a batch's names are of the query's own concept.
CONCEPTS = {f"C{at:07}": ("", WORDS[3 * at : 3 * at + 3]) for at in range(8)}
MENTIONS = pa.table(
    {
        "mention": [WORDS[3 * at][:3] for at in range(8)],
        "left": ["had"] * 8,
        "right": ["today"] * 8,
    }
)


class Stop(TrainerCallback):
    """Ends a training in its middle."""

    def on_step_end(self, args, state, control, **kwargs) -> None:
        control.should_training_stop = state.global_step >= STOP


def load_encoder(folder: str) -> torch.nn.Module:
    """The encoder without dropout, and without the pooler that nothing reads."""
    return AutoModel.from_pretrained(
        folder,
        dtype="float32",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        add_pooling_layer=False,
    )


def take_steps(folder: str, target: Path) -> dict[str, torch.Tensor]:
    """Weights after eight steps, stopped in between and resumed from the last checkpoint."""
    process = os.environ.get("RANK", "0")
    concepts = make_concepts(target / f"concepts-{process}", CONCEPTS)
    pairs = QueryNamePairs(MENTIONS, np.arange(8), concepts, PAIRS, seed=3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    queries = QueryTokenizer(tokenizer, 16, 4)
    for callbacks, checkpoint in (([Stop()], None), ([], target / f"checkpoint-{SAVE}")):
        encoder = load_encoder(folder)
        arguments = TrainingArguments(
            output_dir=str(target),
            use_cpu=True,
            num_train_epochs=1,
            max_grad_norm=0.0,
            save_strategy="steps",
            save_steps=SAVE,
            remove_unused_columns=False,
            disable_tqdm=True,
            report_to="none",
        )
        optimizer = torch.optim.SGD(encoder.parameters(), lr=0.5)
        schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
        trainer = EncoderTrainer(
            model=QueryNameVectors(encoder, "mean"),
            args=arguments,
            train_dataset=pairs,
            processing_class=tokenizer,
            data_collator=QueryCollator(queries),
            batch_size=BATCH_SIZE,
            optimizers=(optimizer, schedule),
            callbacks=callbacks,
        )
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    assert trainer.state.global_step == 8
    return {name: weight.detach().clone() for name, weight in encoder.named_parameters()}


def moved(folder: str, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """How far training has moved all weights."""
    start = dict(load_encoder(folder).named_parameters())
    return torch.cat([(weights[name] - start[name]).detach().flatten() for name in sorted(start)])


if __name__ == "__main__":
    model, output = sys.argv[1:]
    weights = take_steps(model, Path(output))
    if torch.distributed.get_rank() == 0:
        save_file(weights, Path(output) / "trained.safetensors")
    leave_process_group()
