#!/usr/bin/env python
"""What bfloat16 saves on a CPU: one list and batches, one and two threads, networks of three sizes.

    python benchmarks/dtypes.py

The networks have random weights, since these do not change the time: 4 and 6 layers of 384 (22 M
parameters) and 12 of 768 (110 M). Lists are of 12 candidates, with texts as long as those of an
ontology. Both dtypes take turns; printed are medians in milliseconds a list, and their ratio.
"""

import argparse
import os
import subprocess
import sys
import time
from statistics import median

import numpy as np

CANDIDATES = 12
# Layers, width and heads.
SHAPES = {"4 x 384": (4, 384, 12), "6 x 384": (6, 384, 12), "12 x 768": (12, 768, 12)}
VOCABULARY = 30_522
TOKENS_OF_PAIRS = (10, 24)
DTYPES = ("float32", "bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lists", type=int, default=8, help="lists of a batch (default: 8)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each dtype (default: 5)")
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads is None:
        for threads in (1, 2):
            # The number of threads is fixed when torch starts.
            environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
            command = [sys.executable, *sys.argv, "--threads", str(threads)]
            subprocess.run(command, env=environment, check=True)
        return
    measure(options)


def measure(options: argparse.Namespace) -> None:
    """Print a table for this process' number of threads."""
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    print(f"\n{options.threads} threads, {capability}; milliseconds a list")
    print(f"{'layers x width':16}{'':10}{'float32':>10}{'bfloat16':>10}{'ratio':>8}")
    for name, shape in SHAPES.items():
        scorers = {dtype: random_network(*shape, dtype) for dtype in DTYPES}
        for what, lists in (("one list", 1), (f"{options.lists} lists", options.lists)):
            times: dict[str, list[float]] = {dtype: [] for dtype in DTYPES}
            for turn in range(options.rounds + 1):
                for dtype, network in scorers.items():
                    seconds = run(network, lists, turn)
                    # The first turn prepares the kernels.
                    if turn:
                        times[dtype].append(1000 * seconds / lists)
            single = median(times["float32"])
            half = median(times["bfloat16"])
            print(f"{name:16}{what:10}{single:10.1f}{half:10.1f}{single / half:8.2f}")


def random_network(layers: int, width: int, heads: int, dtype: str):
    """A cross-encoder with random weights."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from umls_reranker.models.torch_networks import PackedBert

    torch.manual_seed(13)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        num_labels=1,
        architectures=["BertForSequenceClassification"],
    )
    weights = BertForSequenceClassification(config).state_dict()
    return PackedBert(config.to_dict(), weights, torch.device("cpu"), dtype)


def run(network, lists: int, seed: int) -> float:
    """Seconds to score so many lists, as `PairScorer` divides them."""
    from umls_reranker.models.batches import PackedTexts, PairBatch, divide_by_length
    from umls_reranker.models.cross_encoder import LEAST_TOKENS

    generator = np.random.default_rng(seed)
    pairs = []
    for _ in range(lists * CANDIDATES):
        length = generator.integers(*TOKENS_OF_PAIRS)
        pairs.append(generator.integers(1_000, VOCABULARY, length).tolist())
    texts = PackedTexts.join(pairs)
    first_lengths = texts.lengths // 2
    batch = PairBatch(texts.ids, texts.lengths, first_lengths)
    share = -(-int(texts.lengths.sum()) // network.threads)
    budget = min(network.token_budget, max(share, LEAST_TOKENS))
    started = time.perf_counter()
    batches = divide_by_length(texts.lengths, budget, network.padded)
    network.collect(list(network.map(lambda rows: network(batch.take(rows)), batches)))
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
