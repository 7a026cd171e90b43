#!/usr/bin/env python
"""Measure what a training step takes of a processor beside the arithmetic of its network.

    python benchmarks/step_cost.py
    accelerate launch --config_file accelerate_configs/cpu_two_processes.yaml \\
        benchmarks/step_cost.py

Two networks have as many parameters as BERT-base, but tiny ones. One computes nothing: what is left
is the batch, the loop of the trainer, and the optimizer's calls. The other one has twelve layers of
width 12, and adds the calls of a real network, which a processor also makes for a GPU.

CPU time is that of the main thread on one core, which other jobs lengthen least.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

# More threads would wait for each other, and count as work.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
from transformers.modeling_outputs import SequenceClassifierOutput

from umls_reranker.core.devices import leave_process_group
from umls_reranker.core.parallel import started_processes
from umls_reranker.models.batches import PairBatch
from umls_reranker.training.pair_dataset import TokenizedPairs
from umls_reranker.training.trainer import RerankerTrainer
from umls_reranker.training.training_arguments import OneGpuArguments

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY = 1_000
PAIRS_OF_LIST = 10
# The first steps make the optimizer's moments, and fill caches.
WARM_UP = 20


class Time(NamedTuple):
    """Seconds of this thread on the processor, and elapsed ones."""

    cpu: float = 0.0
    elapsed: float = 0.0

    def __add__(self, other: "Time") -> "Time":
        return Time(self.cpu + other.cpu, self.elapsed + other.elapsed)

    def __sub__(self, other: "Time") -> "Time":
        return Time(self.cpu - other.cpu, self.elapsed - other.elapsed)


def now() -> Time:
    return Time(time.thread_time(), time.perf_counter())


class RandomPairs(TokenizedPairs):
    """Pairs of 9 to 25 tokens in lists of ten."""

    def __init__(self, lists: int) -> None:
        random = np.random.default_rng(13)
        pairs = lists * PAIRS_OF_LIST
        lengths = random.integers(9, 26, pairs)
        ids = random.integers(len(SPECIAL_TOKENS), VOCABULARY, lengths.sum()).astype(np.int32)
        self.pairs = PairBatch(ids, lengths, np.full(pairs, 4))
        self.offsets = np.arange(0, pairs + 1, PAIRS_OF_LIST)
        self.labels = (np.arange(pairs) % PAIRS_OF_LIST == 0).astype(np.float32)
        self.weights = np.ones(pairs, np.float32)
        self.teacher = np.full(pairs, np.nan, np.float32)


class Nothing(torch.autograd.Function):
    """Logits of zero, whose gradient of each weight is zero, in two calls."""

    @staticmethod
    def forward(ctx: Any, pairs: int, *weights: torch.Tensor) -> torch.Tensor:
        ctx.weights = weights
        return torch.zeros(pairs, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple:
        return None, *torch._foreach_mul(ctx.weights, 0.0)


class NoNetwork(BertForSequenceClassification):
    """The parameters of the network, which computes nothing."""

    def forward(self, input_ids: torch.Tensor, **inputs: Any) -> SequenceClassifierOutput:
        if not hasattr(self, "weights"):
            self.weights = list(self.parameters())
        return SequenceClassifierOutput(logits=Nothing.apply(len(input_ids), *self.weights))


NETWORKS = {"no network": NoNetwork, "twelve layers": BertForSequenceClassification}


class Clock(transformers.TrainerCallback):
    """What each part of each step takes.

    Attributes:
        steps: part -> time, for each step.
    """

    def __init__(self) -> None:
        self.steps: list[dict[str, Time]] = []

    def watch(self, owner: Any, method: str, part: str) -> None:
        """Count the calls of a method as a part of the step."""
        call: Callable = getattr(owner, method)

        def watched(*arguments: Any, **options: Any) -> Any:
            began = now()
            result = call(*arguments, **options)
            self.parts[part] = self.parts.get(part, Time()) + (now() - began)
            return result

        setattr(owner, method, watched)

    def begin_step(self) -> None:
        self.parts: dict[str, Time] = {}
        self.began = now()

    def on_train_begin(
        self, *arguments: Any, optimizer: torch.optim.Optimizer, **options: Any
    ) -> None:
        self.watch(optimizer, "step", "optimizer")
        self.begin_step()

    def on_step_end(self, *arguments: Any, **options: Any) -> None:
        whole = now() - self.began
        parts = sum(self.parts.values(), Time())
        self.steps.append(self.parts | {"the loop": whole - parts, "a step": whole})
        self.begin_step()


def measure(network: str, pairs: int, steps: int, *, bf16: bool = False) -> list[dict[str, Time]]:
    """What the parts of each step took, without the first ones.

    Args:
        network: name of one of `NETWORKS`.
        pairs: pairs of a step in this process.
        steps: how many steps are counted.
        bf16: whether the network computes in bfloat16.
    """
    torch.set_num_threads(1)
    size = {"hidden_size": 12, "intermediate_size": 12, "num_attention_heads": 1}
    model = NETWORKS[network](BertConfig(vocab_size=VOCABULARY, num_labels=1, **size))
    words = {token: number for number, token in enumerate(SPECIAL_TOKENS)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, "[UNK]")),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = OneGpuArguments(
            output_dir=folder,
            use_cpu=True,
            bf16=bf16,
            per_device_train_batch_size=pairs,
            max_steps=WARM_UP + steps,
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            ddp_find_unused_parameters=False,
        )
        trainer = RerankerTrainer(model, arguments, RandomPairs(10_000), processing_class=tokenizer)
        trainer.remove_callback(transformers.PrinterCallback)
        clock = Clock()
        trainer.add_callback(clock)
        clock.watch(trainer, "get_batch_samples", "the batch")
        clock.watch(trainer, "compute_loss", "forward")
        clock.watch(trainer.accelerator, "backward", "backward")
        clock.watch(trainer, "_clip_grad_norm", "clipping")
        trainer.train()
    return clock.steps[WARM_UP:]


def table(title: str, steps: list[dict[str, Time]]) -> str:
    """Milliseconds of the parts of a step, as Markdown."""
    lines = [f"| {title} | CPU, median | best | elapsed, median | best |", "|---|--:|--:|--:|--:|"]
    for part in steps[0]:
        milliseconds = 1_000 * np.array([step[part] for step in steps])
        best = milliseconds.min(axis=0)
        median = np.median(milliseconds, axis=0)
        figures = [median[0], best[0], median[1], best[1]]
        lines.append(f"| {part} | {' | '.join(f'{figure:.1f}' for figure in figures)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pairs", type=int, default=64, help="pairs of a step in all processes (default: 64)"
    )
    parser.add_argument(
        "--share",
        type=int,
        default=8,
        help="pairs of each process where there is a network (default: 8, of 64 on 8 GPUs)",
    )
    parser.add_argument("--steps", type=int, default=300, help="steps that are counted")
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16")
    options = parser.parse_args()
    processes = started_processes()
    pairs = {"no network": options.pairs // processes, "twelve layers": options.share}
    for network, share in pairs.items():
        steps = measure(network, share, options.steps, bf16=options.bf16)
        if os.environ.get("RANK", "0") == "0":
            title = f"ms; {network}, {processes} x {share} pairs"
            print(f"{table(title, steps)}\n")
    leave_process_group()


if __name__ == "__main__":
    main()
