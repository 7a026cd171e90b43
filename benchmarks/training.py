#!/usr/bin/env python
"""Measure training: pairs/s and the share of the machine's matrix multiplication peak, against sentence-transformers.

    python benchmarks/training.py --pairs runs/minilm-medmentions-cpu/pairs --max_length 48

`RerankerTrainer` and sentence-transformers' `CrossEncoderTrainer` with its `BinaryCrossEntropyLoss` train the same
model on the same pairs at the same batch size, precision and learning rate. They take turns in one process, a few
steps each before their time is taken, so that other work on the machine slows both. Prints Markdown, and below the
table what the loading of batches alone would give in the training process.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path

WARM_UP_STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="pairs folder of a run")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--max_length", type=int, default=48, help="maximum tokens per pair")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--precision", nargs="+", default=["bfloat16", "float32"], choices=["bfloat16", "float32"])
    parser.add_argument("--rows", type=int, default=50_000, help="number of pairs, from the first on")
    parser.add_argument("--steps", type=int, default=40, help="timed steps per turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns per trainer")
    arguments = parser.parse_args()
    # As in the scripts; set OMP_WAIT_POLICY=ACTIVE to measure with spinning threads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch
    from datasets import Dataset

    pairs = Dataset.from_file(str(arguments.pairs / "train.arrow")).select(range(arguments.rows))
    print(
        f"{date.today()}, {platform.machine()}, {torch.get_num_threads()} threads, OMP_WAIT_POLICY "
        f"{os.environ['OMP_WAIT_POLICY']}, torch {torch.__version__}; {arguments.model}, {arguments.rows:,} pairs, "
        f"batch size {arguments.batch_size}, {arguments.rounds} turns of {arguments.steps} steps\n"
    )
    columns = (
        "pairs/s, median (best)",
        "tokens + padding per pair",
        "TFLOP/s",
        "share of peak",
        "ratio, median (best)",
    )
    print(f"| dtype | trainer | {' | '.join(columns)} |\n|---|---|{'---:|' * len(columns)}")
    with tempfile.TemporaryDirectory() as scratch:
        for precision in arguments.precision:
            trainers = {
                "umls_reranker": reranker_trainer(arguments, pairs, precision, Path(scratch)),
                "sentence-transformers": sentence_trainer(arguments, pairs, precision, Path(scratch)),
            }
            seconds = {name: [] for name in trainers}
            tokens, padding = (dict.fromkeys(trainers, 0) for _ in range(2))
            for turn in range(arguments.rounds):
                for name, (trainer, clock) in trainers.items():
                    trainer.args.seed = turn  # different batches each time
                    trainer.train()
                    seconds[name].append(clock.seconds)
                    tokens[name] += clock.tokens
                    padding[name] += clock.padding
            loading = loading_speed(trainers["umls_reranker"][0])
            peak = matmul_peak(precision)
            theirs = seconds["sentence-transformers"]
            pairs_a_turn = arguments.steps * arguments.batch_size
            for name, (_, clock) in trainers.items():
                taken = seconds[name]
                # Six operations per weight and token: two forward, four backward. Padding is not counted.
                tflops = 6 * clock.matrix_weights * tokens[name] / sum(taken) / 1e12
                ratios = [other / own for own, other in zip(taken, theirs, strict=True)]
                print(
                    f"| {precision} | {name} "
                    f"| {pairs_a_turn / statistics.median(taken):,.0f} ({pairs_a_turn / min(taken):,.0f}) "
                    f"| {tokens[name] / pairs_a_turn / arguments.rounds:.1f} "
                    f"+ {padding[name] / pairs_a_turn / arguments.rounds:.1f} "
                    f"| {tflops:.3f} | {tflops / peak:.1%} of {peak:.2f} "
                    f"| {statistics.median(ratios):.2f} ({min(theirs) / min(taken):.2f}) |",
                    flush=True,
                )
    print(f"\nLoading alone: {loading:,.0f} pairs/s.")


def loading_speed(trainer) -> float:
    """Pairs/s of reading, padding and handing over batches, without a model."""
    from itertools import islice

    batches = iter(trainer.get_train_dataloader())
    next(batches)
    start = time.perf_counter()
    pairs = sum(len(batch["labels"]) for batch in islice(batches, 200))
    return pairs / (time.perf_counter() - start)


def reranker_trainer(arguments, pairs, precision, scratch):
    from transformers import TrainingArguments

    from umls_reranker.models.pairs import PairEncoder, PairTemplate
    from umls_reranker.training.fine_tuning import load_base_model
    from umls_reranker.training.trainer import (
        LABEL_NAMES,
        PairCollator,
        RerankerTrainer,
        TokenizedPairs,
        lists_of_pairs,
        weight_scale,
    )

    template = PairTemplate(arguments.max_length)
    model, tokenizer = load_base_model(arguments.model, None, template)
    rows, encoder = lists_of_pairs(pairs.with_format("arrow")[:]), PairEncoder(tokenizer.backend_tokenizer, template)
    dataset = TokenizedPairs(rows, encoder, weight_scale(rows, of_lists=False))
    collator = PairCollator(tokenizer.pad_token_id, multiple=1)
    settings = TrainingArguments(**shared_settings(arguments, precision, scratch), label_names=LABEL_NAMES)
    return timed(RerankerTrainer(model, settings, collator, train_dataset=dataset), arguments.steps)


def sentence_trainer(arguments, pairs, precision, scratch):
    from sentence_transformers.cross_encoder import (
        CrossEncoder,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
        losses,
    )

    from umls_reranker.core.fetch import resolve_model

    model = CrossEncoder(
        resolve_model(arguments.model, None), num_labels=1, max_length=arguments.max_length, device="cpu"
    )
    settings = CrossEncoderTrainingArguments(**shared_settings(arguments, precision, scratch))
    # Its loss takes no weights.
    texts = pairs.select_columns(["mention", "name", "label"])
    loss = losses.BinaryCrossEntropyLoss(model)
    return timed(CrossEncoderTrainer(model, settings, train_dataset=texts, loss=loss), arguments.steps)


def shared_settings(arguments, precision, scratch) -> dict:
    return {
        "output_dir": str(scratch),
        "use_cpu": True,
        "bf16": precision == "bfloat16",
        "per_device_train_batch_size": arguments.batch_size,
        "max_steps": WARM_UP_STEPS + arguments.steps,
        "learning_rate": 1e-5,
        "remove_unused_columns": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }


def timed(trainer, steps: int):
    """The trainer, and a clock that each of its runs sets anew."""
    from transformers import PreTrainedModel, PrinterCallback, TrainerCallback

    class Clock(TrainerCallback):
        """Seconds of the steps after the first ones; tokens and padding of the same steps."""

        def on_train_begin(self, args, state, control, **kwargs) -> None:
            self.ids = []

        def on_step_end(self, args, state, control, **kwargs) -> None:
            if state.global_step == WARM_UP_STEPS:
                self.ids.clear()
                self.started = time.perf_counter()
            elif state.global_step == WARM_UP_STEPS + steps:
                self.seconds = time.perf_counter() - self.started
                self.padding = sum(int((ids == network.config.pad_token_id).sum()) for ids in self.ids)
                self.tokens = sum(ids.numel() for ids in self.ids) - self.padding

    network = next(module for module in trainer.model.modules() if isinstance(module, PreTrainedModel))
    clock = Clock()
    network.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: clock.ids.append(inputs[0]))
    clock.matrix_weights = sum(
        weight.numel() for name, weight in network.named_parameters() if ".layer." in name and weight.ndim == 2
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(clock)
    return trainer, clock


def matmul_peak(precision: str) -> float:
    """TFLOP/s of the best of some large matrix products."""
    import torch

    size = 2_048
    left, right = (torch.randn(size, size, dtype=getattr(torch, precision)) for _ in range(2))
    best = float("inf")
    for _ in range(15):
        start = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e12


if __name__ == "__main__":
    main()
