#!/usr/bin/env python
"""How far logits and scores of the same lists differ by processor, batch, call and door.

    python benchmarks/same_numbers.py MODEL LISTS.jsonl
    python benchmarks/same_numbers.py MODEL LISTS.jsonl --dtype bfloat16

MODEL is a reranker with a cross-encoder, and LISTS are rows as `umls-reranker rerank` reads them.
What is compared with one batch of all lists in this process: kernels of other processors, one
thread, other token budgets, each list alone, after 100,000 other pairs whose logits are remembered,
a file, and the HTTP service. A difference of order, tier or pruning counts as one of rounding where
two values, or a value and its threshold, lie within `BOUND`; others are counted apart.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measured import measured
from scoring import answer, free_port, wait_for

Row = dict[str, Any]
BOUND = 1e-5
OTHER_PAIRS = 100_000
BUDGETS = (128, 512, 8_192)
# Variables that keep PyTorch, oneDNN and OpenBLAS from instructions of newer processors.
KERNELS = {
    "AVX2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "AVX512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "AVX512-BF16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
}
COLUMNS = {
    "entities": "entity",
    "candidates": "candidates",
    "entity_types": "entity_type",
    "lefts": "left",
    "rights": "right",
    "index_keys": "index_key",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="folder of a reranker with a cross-encoder")
    parser.add_argument("lists", type=Path, help="mentions with their candidates, JSON Lines")
    parser.add_argument("--mentions", type=int, default=600, help="lists to compare (default: 600)")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with options.lists.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(options.mentions), strict=False)]
    if options.write:
        options.write.write_text(json.dumps(by_python(options, rows)))
        return
    compare(options, rows)


def compare(options: argparse.Namespace, rows: list[Row]) -> None:
    """Print a row for each way to rank the same lists."""
    reference = by_python(options, rows)
    ways: dict[str, Callable[[], list[Any]]] = {
        name: lambda variables=variables: in_process(options, variables)
        for name, variables in KERNELS.items()
    }
    ways["one thread"] = lambda: in_process(options, {"OMP_NUM_THREADS": "1"})
    for budget in BUDGETS:
        ways[f"{budget:,} tokens a batch"] = lambda budget=budget: by_python(
            options, rows, token_budget=budget
        )
    ways["each list alone"] = lambda: one_by_one(options, rows)
    ways[f"after {OTHER_PAIRS:,} other pairs"] = lambda: after_others(options, rows)
    ways["a file"] = lambda: by_file(options, rows)
    print(f"{len(rows)} lists, {options.dtype}\n")
    print("| | logit | score | another order | tier | pruned | order not by rounding |")
    print("|---|--:|--:|--:|--:|--:|--:|", flush=True)
    for name, way in ways.items():
        print(f"| {name} | " + " | ".join(differences(reference, way())) + " |", flush=True)
    # Of whose index a list is, a request does not say.
    without_key = [{name: row[name] for name in row if name != "index_key"} for row in rows]
    cells = differences(by_python(options, without_key), by_http(options, without_key))
    print("| HTTP | " + " | ".join(cells) + " |")


def differences(reference: list[Any], others: list[Any]) -> Iterator[str]:
    """The cells of a row: largest differences, and counts of mentions that differ."""
    logit = 0.0
    score = 0.0
    counts = dict.fromkeys(("order", "tier", "pruned"), 0)
    unexplained = 0
    for ranked, other_ranked in zip(reference, others, strict=True):
        first = {key(row): row for row in ranked}
        second = {key(row): row for row in other_ranked}
        is_pruned = False
        for name, row in first.items():
            other = second[name]
            score = max(score, abs(row["score"] - other["score"]))
            if (row["logit"] is None) != (other["logit"] is None):
                is_pruned = True
            elif row["logit"] is not None:
                logit = max(logit, abs(row["logit"] - other["logit"]))
        counts["pruned"] += is_pruned
        counts["tier"] += [row["tier"] for row in ranked[:1]] != [
            row["tier"] for row in other_ranked[:1]
        ]
        is_other_order = [key(row) for row in ranked] != [key(row) for row in other_ranked]
        counts["order"] += is_other_order
        if is_other_order:
            scores = [first[key(row)]["score"] for row in other_ranked]
            rises = np.diff(scores)
            unexplained += bool((rises > BOUND).any())
    yield f"{logit:.1e}"
    yield f"{score:.1e}"
    yield from map(str, counts.values())
    yield str(unexplained)


def key(row: Row) -> tuple[str, str]:
    """What tells a candidate of a list from the others."""
    return str(row["cui"]), row["name"]


def loaded(options: argparse.Namespace, **settings: Any) -> Any:
    """The reranker, which remembers nothing unless it is said."""
    from umls_reranker import UMLSReranker

    settings = {"device": "cpu", "dtype": options.dtype, "remembered_pairs": 0} | settings
    return UMLSReranker.from_pretrained(options.model, **settings)


def ranked(reranker: Any, rows: list[Row]) -> list[Any]:
    """Ranked candidates of each row, as JSON has them."""
    columns = {name: [row.get(column) or "" for row in rows] for name, column in COLUMNS.items()}
    columns["entity_types"] = [row.get("entity_type") for row in rows]
    lists = reranker.rerank_batch(**columns)
    return [[plain(candidate) for candidate in candidates] for candidates in lists]


def plain(candidate: Any) -> Row:
    """The fields of a ranked candidate that are compared."""
    return {name: getattr(candidate, name) for name in ("cui", "name", "logit", "score", "tier")}


def by_python(options: argparse.Namespace, rows: list[Row], **settings: Any) -> list[Any]:
    """All lists in one call."""
    return ranked(loaded(options, **settings), rows)


def one_by_one(options: argparse.Namespace, rows: list[Row]) -> list[Any]:
    """Each list in a call of its own."""
    reranker = loaded(options)
    return [ranked(reranker, [row])[0] for row in rows]


def after_others(options: argparse.Namespace, rows: list[Row]) -> list[Any]:
    """After other pairs, among them parts of these lists, whose logits are remembered."""
    reranker = loaded(options, remembered_pairs=2 * OTHER_PAIRS)
    for row in rows:
        half = row | {"candidates": row["candidates"][::2]}
        ranked(reranker, [half])
    mentions = [f"{row['entity']} {number}" for number in range(4) for row in rows]
    names = [candidate["name"] for row in rows for candidate in row["candidates"]]
    scorer = reranker.cross_encoder
    for start in range(0, OTHER_PAIRS, 1_000):
        numbers = range(start, start + 1_000)
        scorer.score(
            [mentions[number % len(mentions)] for number in numbers],
            [names[number * 7 % len(names)] for number in numbers],
        )
    return ranked(reranker, rows)


def in_process(options: argparse.Namespace, variables: dict[str, str]) -> list[Any]:
    """All lists in one call of a process with these variables."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ranked.json"
        command = [sys.executable, *sys.argv, "--write", path]
        subprocess.run(command, env=os.environ | variables, check=True)
        return json.loads(path.read_text())


def by_file(options: argparse.Namespace, rows: list[Row]) -> list[Any]:
    """By `umls-reranker rerank`, as users call it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "lists.jsonl"
        target = Path(folder) / "ranked.jsonl"
        source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        command = ["rerank", options.model, source, target, "--dtype", options.dtype]
        subprocess.run(
            [sys.executable, "-m", "umls_reranker", *map(str, command)],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return [json.loads(line)["ranked"] for line in target.read_text().splitlines()]


def by_http(options: argparse.Namespace, rows: list[Row]) -> list[Any]:
    """By requests of one mention each."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    results = []

    def requests() -> None:
        wait_for(f"{address}/health")
        for row in rows:
            body = json.dumps({"mentions": [row]}).encode()
            results.append(json.loads(answer(f"{address}/rank", body))[0])

    settings = ["--scoring_dtype", options.dtype, "--port", port]
    command = [sys.executable, "-m", "umls_reranker", "serve", options.model, *settings]
    with tempfile.TemporaryDirectory() as folder:
        measured(command, Path(folder) / "log", meanwhile=requests, codes=(0, -15))
    return results


if __name__ == "__main__":
    main()
