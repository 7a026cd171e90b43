#!/usr/bin/env python
"""Measure scoring against sentence_transformers.CrossEncoder: pairs and lists a second, one mention, start, memory.

    python benchmarks/scoring.py RUN
    python benchmarks/scoring.py RUN --only lists
    python benchmarks/scoring.py RUN --only memory

RUN is a finished run whose template has no context, so that both read the same; its dev candidates give the pairs, and
its test mentions with as many candidates as most have give the whole lists.
Runs are interleaved, so that what else the machine does meets all alike; printed are the best and the median. The
machine's peak is given too: a product of 2048 x 2048 matrices, and the model's largest layer as it is computed here.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder with mentions/, candidates/ and model/")
    parser.add_argument("--pairs", type=int, default=2_000, help="distinct pairs per run (default: 2,000)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved runs of each (default: 5)")
    parser.add_argument("--mentions", type=int, default=32, help="whole lists per run (default: 32)")
    parser.add_argument("--budget", type=int, default=1_024, help="token budget (default: 1,024)")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="mentions in memory runs"
    )
    parser.add_argument(
        "--only", choices=["speed", "lists", "latency", "start", "memory"], nargs="+", help="sections to run"
    )
    options = parser.parse_args()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    parts = {"speed": speed, "lists": lists, "latency": latency, "start": start, "memory": memory}
    for name in options.only or parts:
        parts[name](options)


def speed(options) -> None:
    """Pairs a second, ours and theirs, and how far ours are from their float32 logits."""
    import torch

    mentions, names = distinct_pairs(options.run, options.pairs)
    scorers = {precision: our_scorer(options, precision) for precision in ("bfloat16", "float32")}
    theirs = {precision: their_encoder(options, precision) for precision in ("float32", "bfloat16")}
    by_length = sorted(zip(mentions, names, strict=True), key=lambda pair: -len(pair[0]) - len(pair[1]))
    as_called = list(zip(mentions, names, strict=True))
    runs = {f"peak {name}": run for name, (_, run) in peaks(options.budget).items()}
    for precision, scorer in scorers.items():
        runs[f"ours, {precision}"] = lambda scorer=scorer: scorer.score(mentions, names).logits
    settings = {"predict": (theirs["float32"], as_called, 32)}
    for size in (32, 64, 128):
        settings[f"predict, bfloat16, sorted, batch {size}"] = (theirs["bfloat16"], by_length, size)
    for name, (encoder, pairs, size) in settings.items():
        runs[name] = lambda encoder=encoder, pairs=pairs, size=size: encoder.predict(
            pairs, batch_size=size, show_progress_bar=False, activation_fn=torch.nn.Identity()
        )
    times, results = interleaved(runs, options.rounds)
    encoded = scorers["bfloat16"].encoder.encode(mentions, names)
    tokens = int(encoded.offsets[-1])
    print(f"{len(mentions):,} distinct pairs, {tokens / len(mentions):.1f} tokens each, {threads()} threads\n")
    work = {f"peak {name}": flops for name, (flops, _) in peaks(options.budget).items()}
    done, usual = forward_flops(scorers["bfloat16"].network, encoded.lengths)
    print("| run | best | median | GFLOP/s done (best) |\n|:---|---:|---:|---:|")
    for name, seconds in times.items():
        best, median = min(seconds), float(np.median(seconds))
        if name in work:
            print(f"| {name} | {best * 1e3:.1f} ms | {median * 1e3:.1f} ms | {work[name] / best / 1e9:.0f} |")
        else:
            rate = (done if name.startswith("ours") else usual) / best / 1e9
            print(f"| {name} | {len(mentions) / best:,.0f} /s | {len(mentions) / median:,.0f} /s | {rate:.0f} |")
    ours = times["ours, bfloat16"]
    for name in settings:
        ratios = sorted(other / own for other, own in zip(times[name], ours, strict=True))
        print(f"ours is {min(times[name]) / min(ours):.2f} times `{name}` (median of rounds {np.median(ratios):.2f})")
    for name, other in (("2048^3", "peak bfloat16, 2048^3"), ("layer", "peak bfloat16, layer")):
        print(
            f"useful share of the bfloat16 peak ({name}): {done / min(ours) / (work[other] / min(times[other])):.0%}"
        )
    float32, reference = results["ours, float32"], np.asarray(results["predict"])
    print(f"largest difference to predict in float32: {np.abs(float32 - reference).max():.1e}")
    agree(options, scorers, theirs)


def agree(options, scorers, theirs) -> None:
    """Rankings of whole candidate lists against their float32 logits."""
    import torch

    lists = candidate_lists(options.run, 60)
    columns = [(mention, name) for mention, names in lists for name in names]
    predicted = theirs["float32"].predict(columns, show_progress_bar=False, activation_fn=torch.nn.Identity())
    half = theirs["bfloat16"].predict(columns, show_progress_bar=False, activation_fn=torch.nn.Identity())
    rows = {name: scorer.score(*zip(*columns, strict=True)).logits for name, scorer in scorers.items()}
    batches = {512: [], 4_096: []}
    for budget in batches:
        scorers["bfloat16"].token_budget = budget
        batches[budget] = scorers["bfloat16"].score(*zip(*columns, strict=True)).logits
    print(f"bfloat16 by budget 512 and 4,096: {np.abs(batches[512] - batches[4_096]).max():.1e} apart at most")
    for name, logits in (rows | {"predict, bfloat16": half}).items():
        at, tops, orders, widest = 0, 0, 0, 0.0
        for _, names in lists:
            part = slice(at, at + len(names))
            own, other = (np.argsort(-x[part], kind="stable") for x in (np.asarray(logits), np.asarray(predicted)))
            tops += own[0] == other[0]
            orders += bool((own == other).all())
            gaps = np.asarray(predicted)[part][other[0]] - np.asarray(predicted)[part][own[0]]
            widest, at = max(widest, float(gaps)), at + len(names)
        apart = np.abs(logits - predicted)
        print(
            f"{name}: same top candidate in {tops} of {len(lists)} lists, same order in {orders}; largest float32 "
            f"margin where the top candidate differs {widest:.4f}; logit difference {apart.mean():.4f} on average, "
            f"{apart.max():.4f} at most"
        )


def lists(options) -> None:
    """Whole lists in float32, by PyTorch and by an exported network: all scored, those that can win, and `rank`."""
    from overhead import rows_of

    from umls_reranker import UMLSReranker
    from umls_reranker.data.candidate_lists import CandidateLists
    from umls_reranker.hub.model_folder import ONNX

    rows, _ = rows_of(options.run, options.mentions)
    reranker, theirs = our_reranker(options, "float32"), their_encoder(options, "float32")
    columns = [[row[key] for row in rows] for key in rows[0]]
    # Both read the same texts.
    calibration, template = reranker.calibration, reranker.template
    read = CandidateLists.from_rows(reranker.thresholds.hierarchy, rows, calibration.scores)
    mentions, texts = list(template.mention_texts(read)), list(template.candidate_texts(read))
    spans = list(zip(mentions, pairwise(read.offsets.tolist()), strict=True))
    runs: dict[str, Callable] = {
        "CrossEncoder.rank": lambda: [
            theirs.rank(mention, texts[start:end], show_progress_bar=False) for mention, (start, end) in spans
        ]
    }
    model = options.run / "model"
    rerankers = {"": reranker}
    if (model / ONNX).is_file():
        rerankers[", onnx"] = UMLSReranker.from_pretrained(model, backend="onnx")
    for backend, one in rerankers.items():
        for ending, exhaustive in (("all scored", True), ("retained only", False)):
            runs[f"rerank, {ending}{backend}"] = lambda one=one, exhaustive=exhaustive: [
                one.rerank(*row.values(), exhaustive=exhaustive) for row in rows
            ]
            runs[f"rerank_batch, {ending}{backend}"] = lambda one=one, exhaustive=exhaustive: one.rerank_batch(
                *columns, exhaustive=exhaustive
            )
    times, results = interleaved(runs, options.rounds)
    whole = results["rerank_batch, all scored"]
    print(f"\n{len(rows)} mentions, lists of {len(whole[0])}, {threads()} threads.")
    for backend in rerankers:
        part = results[f"rerank_batch, retained only{backend}"]
        same = sum(one[0].cui == other[0].cui for one, other in zip(whole, part, strict=True))
        scored = sum(ranked[0].scored for ranked in part) / sum(map(len, part))
        print(f"Scored{backend or ', float32'}: {scored:.1%}, the top candidate is the same for {same} mentions.")
    print()
    print("| run | mentions per second, best | median | times `rank` | times all scored |\n|:---|---:|---:|---:|---:|")

    def times_of(other: str, name: str) -> float:
        return float(np.median([a / b for a, b in zip(times[other], times[name], strict=True)]))

    for name, seconds in times.items():
        rates = f"{len(rows) / min(seconds):.1f} | {len(rows) / np.median(seconds):.1f}"
        # In float32.
        all_scored = f"{name.split(',')[0]}, all scored"
        ratio = f"{times_of(all_scored, name):.2f}" if all_scored in times else ""
        print(f"| {name} | {rates} | {times_of('CrossEncoder.rank', name):.2f} | {ratio} |")


def latency(options) -> None:
    """One mention with 32 candidates: ours, the network alone, and CrossEncoder.rank."""
    from umls_reranker.models.batches import PairBatch

    mention, names = next((m, n) for m, n in candidate_lists(options.run, 1_000) if len(n) >= 32)
    names = names[:32]
    candidates = [{"name": name, "cui": f"C{place}"} for place, name in enumerate(names)]
    runs: dict[str, Callable] = {}
    for precision in ("bfloat16", "float32"):
        reranker = our_reranker(options, precision)
        scorer = reranker.scorer
        encoded = scorer.encoder.encode([mention] * 32, names)
        batch = PairBatch.of(encoded, np.argsort(-encoded.lengths, kind="stable"))
        runs[f"rerank, {precision}"] = lambda one=reranker: one.rerank(mention, candidates)
        runs[f"scores alone, {precision}"] = lambda scorer=scorer: scorer.score([mention] * 32, names)
        runs[f"one forward pass, {precision}"] = lambda scorer=scorer, batch=batch: scorer.network(batch)
        theirs = their_encoder(options, precision)
        runs[f"CrossEncoder.rank, {precision}"] = lambda theirs=theirs: theirs.rank(
            mention, names, show_progress_bar=False
        )
    times, _ = interleaved(runs, 20 * options.rounds)
    print(f"\none mention x 32 candidates, {int(encoded.offsets[-1])} tokens\n")
    print("| run | best | median |\n|:---|---:|---:|")
    for name, seconds in times.items():
        print(f"| {name} | {min(seconds) * 1e3:.1f} ms | {np.median(seconds) * 1e3:.1f} ms |")


def start(options) -> None:
    """Seconds of an import, and from `from_pretrained` to the first score, each in a process of its own."""
    load = f"UMLSReranker.from_pretrained({str(options.run / 'model')!r}, device='cpu').rerank('cold', ['a cold'])"
    clock = "import time; wall, cpu = time.perf_counter(), time.process_time()"
    ended = "print(time.perf_counter() - wall, time.process_time() - cpu)"
    for title, before, timed in (
        ("import", "", "import umls_reranker"),
        ("from_pretrained to first score", "from umls_reranker import UMLSReranker; ", load),
    ):
        code = f"{before}{clock}; {timed}; {ended}"
        runs = [
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
            for _ in range(options.rounds)
        ]
        wall, cpu = np.array(runs, dtype=np.float64).T
        print(f"{title}: best {wall.min():.2f} s, median {np.median(wall):.2f} s; CPU time {cpu.min():.2f} s")


def memory(options) -> None:
    """Anonymous memory of bulk runs of growing size with a two-layer model, ten candidates a mention."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import pyarrow as pa
    import pyarrow.parquet as pq
    from tiny_reranker import tiny_reranker

    print("\n| pairs | seconds | peak anonymous memory, MB |\n|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = tiny_reranker(folder / "model")
        for rows in options.rows:
            source = folder / f"{rows}.parquet"
            with pq.ParquetWriter(
                source, pa.schema({"entity": pa.string(), "candidates": pa.list_(pa.string())})
            ) as out:
                for first in range(0, rows, 10_000):
                    numbers = range(first, min(rows, first + 10_000))
                    table = {"entity": [f"m {i}" for i in numbers]}
                    table["candidates"] = [[f"n {i} {j}" for j in range(10)] for i in numbers]
                    out.write_table(pa.table(table))
            script = Path(__file__).parents[1] / "scripts" / "rerank.py"
            began = time.perf_counter()
            arguments = [sys.executable, script, model, source, folder / "out.parquet", "--device", "cpu"]
            process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            peak = watched(process)
            assert process.returncode == 0 and pq.read_metadata(folder / "out.parquet").num_rows == rows
            print(f"| {rows * 10:,} | {time.perf_counter() - began:.0f} | {peak / 1e6:,.0f} |", flush=True)


def watched(process: subprocess.Popen) -> int:
    """Wait for a process; its highest anonymous memory in bytes."""
    peak, status = 0, Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        peak = max(peak, int(fields.get("RssAnon", "0 kB").split()[0]) * 1024)
        time.sleep(0.1)
    return peak


def peaks(tokens: int) -> dict[str, tuple[float, Callable]]:
    """Matrix products that show what the machine can do: floating-point operations, and a function that does them."""
    import torch

    def every_thread(left, right) -> Callable:
        """As the engine computes: a product in each thread, rather than threads that share one."""

        def work() -> None:
            torch.set_num_threads(1)
            for _ in range(20):
                torch.mm(left, right)

        def run() -> None:
            workers = [threading.Thread(target=work) for _ in range(threads())]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()

        return run

    found = {}
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        square, layer = torch.randn(2048, 2048, dtype=dtype), torch.randn(384, 1536, dtype=dtype)
        rows = torch.randn(tokens, 384, dtype=dtype)
        found[f"{name}, 2048^3"] = (2.0 * 2048**3, lambda square=square: torch.mm(square, square))
        found[f"{name}, layer"] = (threads() * 20 * 2.0 * tokens * 384 * 1536, every_thread(rows, layer))
    return found


def forward_flops(network, lengths: np.ndarray) -> tuple[float, float]:
    """Operations of the matrix products of a forward pass without padding: as done here, and as a full pass has."""
    width, inner = network.body.words.shape[1], network.body.layers[0].up[0].shape[0]
    tokens, squares, pairs = lengths.sum(), (lengths.astype(np.float64) ** 2).sum(), len(lengths)
    layer = 2 * tokens * (4 * width**2 + 2 * width * inner) + 4 * squares * width
    last = 2 * tokens * 2 * width**2 + 2 * pairs * (2 * width**2 + 2 * width * inner) + 4 * tokens * width
    head = 2 * pairs * width**2
    count = len(network.body.layers)
    return float((count - 1) * layer + last + head), float(count * layer + head)


def interleaved(
    runs: dict[str, Callable], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[dict[str, list[float]], dict]:
    """Seconds of every run, one of each in turn, after one that is not counted; and what they gave."""
    results = {name: run() for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = clock()
            run()
            times[name].append(clock() - began)
    return times, results


def our_scorer(options, precision: str):
    return our_reranker(options, precision).scorer


def our_reranker(options, precision: str):
    from umls_reranker import UMLSReranker

    return UMLSReranker.from_pretrained(
        options.run / "model", device="cpu", dtype=precision, token_budget=options.budget
    )


def their_encoder(options, precision: str):
    from sentence_transformers import CrossEncoder

    model = options.run / "model"
    longest = json.loads((model / "reranker.json").read_text())["max_length"]
    return CrossEncoder(str(model), max_length=longest, device="cpu", model_kwargs={"dtype": precision})


def candidate_lists(run: Path, count: int) -> list[tuple[str, list[str]]]:
    """Dev mentions with their candidates' names, spread over the split."""
    from umls_reranker.core.stages import RunFolder

    mentions = RunFolder(run).splits("mentions")["dev"].select_columns(["mention"])
    names = RunFolder(run).splits("candidates")["dev"].select_columns(["names"])
    rows = np.linspace(0, len(mentions) - 1, min(count, len(mentions))).astype(int)
    return list(zip(mentions.select(rows)["mention"], names.select(rows)["names"], strict=True))


def distinct_pairs(run: Path, count: int) -> tuple[list[str], list[str]]:
    """Distinct pairs of mention and name, in an order that is not that of the mentions."""
    pairs = dict.fromkeys((mention, name) for mention, names in candidate_lists(run, count) for name in names)
    chosen = np.random.default_rng(0).permutation(len(pairs))[:count]
    listed = list(pairs)
    return [listed[row][0] for row in chosen], [listed[row][1] for row in chosen]


def threads() -> int:
    import torch

    return torch.get_num_threads()


if __name__ == "__main__":
    main()
