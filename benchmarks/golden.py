#!/usr/bin/env python
"""Compare the package with recorded numbers: tokens, answers, certificates, runs, time, memory.

    python benchmarks/golden.py --fast         # minutes: tokens, logits, answers, certificates
    python benchmarks/golden.py                # hours: also whole runs, and 17 million rows
    python benchmarks/golden.py ncbi --write   # record one part

Numbers and tolerances are in golden.json; it has rows, ids, scores and tiers, and no names. A time
out of its tolerance is a warning. A part whose data are absent is skipped. All is measured by the
command line, `UMLSReranker`, the service and files of a run, except by `internals`; so --code
measures another checkout with the same script. Runs are kept in --work, one folder for each
checkout, and resumed.
"""

import argparse
import hashlib
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measured import ROOT, measured
from published import arguments
from scoring import interleaved, list_seconds, load_service, random_cross_encoder, times_as_fast

RECORD = Path(__file__).with_suffix(".json")
TEMPLATES = {"plain": {"max_length": 16}, "context": {"max_length": 32, "context_tokens": 24}}
# Documents, mentions in each, share of documents with incorrect answers alone, draws.
REGIMES = {
    "1,500 x 1": (1500, 1, 0.0, 200),
    "180 x 10": (180, 10, 0.0, 150),
    "200 x 40, 5.1 % incorrect": (200, 40, 0.051, 100),
}


class Figure(NamedTuple):
    """A measured value: a number, numbers or texts; and how far, or how many texts, may be off."""

    name: str
    value: Any
    tolerance: float
    is_timing: bool = False


Figures = Iterator[Figure]


class Golden:
    """The checkout that is measured, the data, and a folder for runs."""

    def __init__(self, code: Path, data: Path, work: Path) -> None:
        self.code = code.resolve()
        self.data = data.resolve()
        self.work = work.resolve()
        self.environment = {"PYTHONPATH": str(self.code), "UMLS_RERANKER_PROGRESS": "0"}

    def umls_reranker(self, *words: Any) -> str:
        """What a command prints."""
        command = [sys.executable, "-m", "umls_reranker", *map(str, words)]
        settings = {
            "cwd": self.work,
            "env": os.environ | self.environment,
            "capture_output": True,
            "text": True,
        }
        return subprocess.run(command, **settings, check=True).stdout

    def file(self, name: str) -> Path:
        if not (self.data / name).exists():
            raise FileNotFoundError(name)
        return self.data / name

    def rows(self) -> list[dict[str, Any]]:
        """Labelled lists of another pipeline: 266 mentions with ten candidates each."""
        with self.file("umls_lists/sapbert_top10.jsonl").open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    def write(self, name: str, lines: list[str]) -> Path:
        path = self.work / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    def reranker(self) -> Path:
        """A reranker with a random head, calibrated on the lists."""
        folder = self.work / "reranker"
        if not folder.exists():
            lists = self.write("lists.jsonl", list(map(json.dumps, self.rows())))
            self.umls_reranker(
                "calibrate",
                random_cross_encoder(self.work),
                "--lists",
                lists,
                "--output",
                folder,
                "--one_look",
            )
        return folder


def internals(*names: str) -> list[Any]:
    """Classes and functions of the package that nobody else imports, whatever their module."""
    import umls_reranker

    everything = pkgutil.walk_packages(umls_reranker.__path__, "umls_reranker.")
    layers = ("models", "calibration")
    modules = [
        importlib.import_module(one.name) for one in everything if one.name.split(".")[1] in layers
    ]
    return [
        next(getattr(module, name) for module in modules if hasattr(module, name)) for name in names
    ]


def pairs(golden: Golden) -> Figures:
    """Token ids of pairs in each template, bit for bit, and logits in float32."""
    from transformers import AutoTokenizer

    encoder, template, cross_encoder = internals("PairEncoder", "PairTemplate", "PairScorer")
    texts = [
        (row["entity"], candidate["name"], row["left"], row["right"])
        for row in golden.rows()
        for candidate in row["candidates"]
    ]
    folder = random_cross_encoder(golden.work)
    for name, settings in TEMPLATES.items():
        shape = template(**settings)
        tokenizer = AutoTokenizer.from_pretrained(folder).backend_tokenizer
        encoded = encoder(tokenizer, shape).encode(*zip(*texts, strict=True))
        # Some versions also return which pairs were truncated.
        ids = np.asarray((encoded[0] if isinstance(encoded, tuple) else encoded).ids, np.int32)
        yield Figure(f"token ids, {name}", [hashlib.sha256(ids.tobytes()).hexdigest()], 0)
        logits = (
            cross_encoder.from_folder(folder, shape, "cpu", "float32")
            .score(*zip(*texts[::40], strict=True))
            .logits
        )
        yield Figure(f"logits, {name}", np.round(logits.astype(float), 6).tolist(), 1e-4)


def built_in(golden: Golden) -> Figures:
    """Answers of the model in the package: the top candidate's CUI, score and tier."""
    rows = golden.rows()
    inputs = {
        "all": rows,
        "names": [row | {"candidates": [c["name"] for c in row["candidates"]]} for row in rows],
    }
    for name in list(inputs):
        inputs[f"{name}, no type"] = [row | {"entity_type": None} for row in inputs[name]]
    output = golden.work / "ranked.jsonl"
    for name, changed in inputs.items():
        source = golden.write("rows.jsonl", list(map(json.dumps, changed)))
        golden.umls_reranker("rerank", "built-in-fast", source, output, "--overwrite")
        answers = [
            json.loads(line)["ranked"][0]
            for line in output.read_text(encoding="utf-8").splitlines()
        ]
        cuis = [{c["name"]: c["cui"] for c in row["candidates"]} for row in rows]
        top = [
            best["cui"] or names[best["name"]] for best, names in zip(answers, cuis, strict=True)
        ]
        yield Figure(f"built-in-fast, {name}: top candidates", top, 0)
        yield Figure(
            f"built-in-fast, {name}: scores", [round(best["score"], 6) for best in answers], 1e-3
        )
        yield Figure(f"built-in-fast, {name}: tiers", [best["tier"] for best in answers], 0)


def calibrate(golden: Golden) -> Figures:
    """Points of acc@1 over the order of the lists, for mentions of unseen documents."""
    files = [
        golden.file(f"medmentions_st21pv/corpus_pubtator_pmids_{name}.txt")
        for name in ("trng", "dev")
    ]
    known = {document for file in files for document in file.read_text().split()}
    lists = golden.write(
        "unseen.jsonl", [json.dumps(row) for row in golden.rows() if row["doc_id"] not in known]
    )
    printed = golden.umls_reranker(
        "calibrate", "built-in-fast", "--lists", lists, "--output", golden.work / "calibrated"
    )
    gain, low = re.search(r"([+-][\d.]+) points over [^(]*\(([+-]?[\d.]+) to", printed).groups()
    yield Figure("calibrate built-in-fast: gain in points", float(gain), 0.7)
    yield Figure("calibrate built-in-fast: its lower limit", float(low), 1.5)


def certificates(golden: Golden) -> Figures:
    """Shares of draws that are certified, and that are certified below 0.95; mean coverage."""
    find_certificate, precision_test = internals("find_certificate", "PrecisionTest")
    one_look = precision_test(is_one_look=True)
    for name, (documents, mentions, incorrect, draws) in REGIMES.items():
        rng = np.random.default_rng(13)
        results = []
        for _ in range(draws):
            document = np.repeat(
                np.arange(documents), np.maximum(rng.poisson(mentions, documents), 1)
            )
            scores = (
                np.full(len(document), 0.97) if incorrect else rng.beta(6.0, 0.8, len(document))
            )
            correct = (
                (rng.random(documents) >= incorrect)[document]
                if incorrect
                else rng.random(len(scores)) < scores
            )
            threshold = find_certificate(scores, correct, document, one_look).threshold
            is_high = scores >= (np.inf if threshold is None else threshold)
            precision = 1 - incorrect if incorrect or not is_high.any() else scores[is_high].mean()
            results.append((is_high.any(), is_high.any() and precision < 0.95, is_high.mean()))
        for title, share in zip(
            ("certified", "broken", "coverage"), np.mean(results, axis=0).tolist(), strict=True
        ):
            yield Figure(f"certificate, {name}: {title}", share, 0.03)


def quickstart(golden: Golden) -> Figures:
    """The quickstart with three seeds: of each, and the mean."""
    runs = []
    for seed in (13, 14, 15):
        name = f"quickstart-{seed}"
        began = time.perf_counter()
        golden.umls_reranker(
            "run", "quickstart", "--seed", seed, "--run_name", name, "--output_dir", "runs"
        )
        minutes = Figure("minutes", (time.perf_counter() - began) / 60, 2.0, is_timing=True)
        runs.append([*run_figures(golden.work / "runs" / name), minutes])
    for figure, *others in zip(*runs, strict=True):
        values = [figure.value, *(one.value for one in others)]
        yield figure._replace(name=f"quickstart: {figure.name}, mean", value=float(np.mean(values)))
        yield figure._replace(
            name=f"quickstart: {figure.name}", value=values, tolerance=3 * figure.tolerance
        )


def ncbi(golden: Golden) -> Figures:
    """NCBI Disease: trained on train, measured on dev."""
    yield from corpus_run(golden, "ncbi-disease")


def bc5cdr(golden: Golden) -> Figures:
    """Diseases of BC5CDR: trained on the training documents, measured on dev."""
    yield from corpus_run(golden, "bc5cdr-disease")


def corpus_run(golden: Golden, recipe: str) -> Figures:
    words = arguments(recipe, golden.file("medic"), golden.work / f"{recipe}-documents")
    golden.umls_reranker("run", *words, "--run_name", recipe, "--output_dir", "runs")
    for figure in run_figures(golden.work / "runs" / recipe):
        yield figure._replace(name=f"{recipe} on dev: {figure.name}")


def run_figures(run: Path) -> Figures:
    """Figures of the test split of a finished run."""
    import pyarrow.parquet as pq

    table = pq.read_table(next(run.rglob("outcomes.parquet"))).to_pydict()
    correct = np.array(table["rank"]) == 0
    is_high = np.array(table["tier"]) == "high"
    metrics = next(run.rglob("metrics.json")).read_text(encoding="utf-8")
    # Of calibrated candidates; figures of raw ones follow.
    ece = re.search(r'["/]ece"\s*:\s*{\s*"value"\s*:\s*([\d.e-]+)', metrics)[1]
    yield Figure("acc@1", correct.mean().item(), 0.01)
    yield Figure("ECE", float(ece), 0.004)
    yield Figure("high", is_high.mean().item(), 0.05)
    yield Figure(
        "precision of high", correct[is_high].mean().item() if is_high.any() else 1.0, 0.02
    )


def release(golden: Golden) -> Figures:
    """Minutes and memory of reading 17 million rows of MRCONSO with their types."""
    meta = golden.work / "META"
    if not meta.exists():
        words = [ROOT / "benchmarks" / "rrf_release.py", meta, "--rows", "17000000"]
        subprocess.run(
            [sys.executable, *words], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True
        )
    recipe = golden.write(
        "release.yaml", ["concept_source: rrf", "mention_source: corpus", f"umls_dir: {meta}"]
    )
    corpus = golden.file("medmentions_st21pv") / "corpus_pubtator.txt.gz"
    command = [sys.executable, "-m", "umls_reranker", "prepare_data", recipe, "--corpus", corpus]
    command += ["--output_dir", golden.work / "release"]
    for part, name in {"train": "trng", "dev": "dev"}.items():
        command += [f"--{part}_documents", corpus.with_name(f"corpus_pubtator_pmids_{name}.txt")]
    taken = measured(command, golden.work / "release.log", env=golden.environment)
    yield Figure("17 million rows: minutes", taken.seconds / 60, 0.5, is_timing=True)
    yield Figure("17 million rows: peak memory, GB", taken.peak / 1e9, 0.5)


def speed(golden: Golden) -> Figures:
    """Lists of ten: one by `built-in-fast`, all against CrossEncoder; service for 8 clients."""
    from umls_reranker import UMLSReranker

    rows = golden.rows()
    model = UMLSReranker.from_pretrained("built-in-fast")
    calls = (
        partial(model.rerank, row["entity"], row["candidates"], row["entity_type"]) for row in rows
    )
    taken, _ = interleaved({str(number): call for number, call in enumerate(calls)}, 1)
    yield Figure(
        "one list by built-in-fast, ms, p50",
        1000 * float(np.median([*taken.values()])),
        2.0,
        is_timing=True,
    )
    taken, _ = list_seconds(golden.reranker(), rows[:24], 3)
    for name in ("rerank", "rerank_batch"):
        ratio = times_as_fast(taken, name, "rank")
        yield Figure(f"{name}, times as fast as rank", ratio, ratio / 4, is_timing=True)
    seconds, peak = load_service(golden.reranker(), rows, golden.environment)
    for name, share in {"p50": 0.5, "p99": 0.99}.items():
        yield Figure(
            f"service: ms, {name}", 1000 * float(np.quantile(seconds, share)), 50, is_timing=True
        )
    yield Figure("service: peak memory, MB", peak / 1e6, 100)


FAST = (pairs, built_in, calibrate, certificates, speed)
WHOLE = (quickstart, ncbi, bc5cdr, release)


def difference(value: Any, recorded: Any) -> float:
    """The largest of numbers, how many of texts; infinite if there are more or fewer."""
    pairs = list(
        zip_longest(*(one if isinstance(one, list) else [one] for one in (value, recorded)))
    )
    if any(None in pair for pair in pairs):
        return float("inf")
    if isinstance(pairs[0][0], str):
        return sum(a != b for a, b in pairs)
    return max(abs(a - b) for a, b in pairs)


def compare(
    golden: Golden, parts: Sequence[Callable[[Golden], Figures]], is_recorded: bool
) -> bool:
    """Print recorded and measured values; returns whether all are within their tolerance.

    Args:
        is_recorded: record what is measured instead; tolerances that were recorded stay.
    """
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    is_good = True
    print(
        "| number | recorded | measured | difference | tolerance | |\n|---|---:|---:|---:|---:|---|"
    )
    for part in parts:
        try:
            for name, value, tolerance, is_timing in part(golden):
                known = record.get(name, {"value": None, "tolerance": tolerance})
                tolerance = known["tolerance"]
                apart = difference(value, known["value"])
                verdict = "warning" if is_timing else "**out**"
                if apart <= tolerance:
                    verdict = "ok"
                values = [
                    f"{x:.4g}" if isinstance(x, int | float) else "-"
                    for x in (known["value"], value)
                ]
                print(
                    f"| {name} | {' | '.join(values)} | {apart:.2g} | "
                    f"{tolerance:.2g} | {verdict} |",
                    flush=True,
                )
                is_good &= verdict != "**out**"
                record[name] = {"value": value, "tolerance": tolerance}
        except FileNotFoundError as missing:
            print(f"| {part.__name__} | | | | | skipped: {missing} |", flush=True)
        except Exception as error:
            print(
                f"| {part.__name__} | | | | | **failed**: {error} {getattr(error, 'stderr', '')} |",
                flush=True,
            )
            is_good = False
    if is_recorded:
        lines = (
            f"{json.dumps(name)}: {json.dumps(value)}" for name, value in sorted(record.items())
        )
        RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return is_good or is_recorded


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {part.__name__: part for part in FAST + WHOLE}
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(parts)} (default: all)"
    )
    parser.add_argument("--fast", action="store_true", help="only what takes minutes")
    parser.add_argument(
        "--code", type=Path, default=ROOT, help="checkout to measure (default: this one)"
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument(
        "--work", type=Path, help="folder for runs, which are resumed (default: a temporary one)"
    )
    parser.add_argument("--write", action="store_true", help="record what is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        golden = Golden(options.code, options.data, options.work or Path(scratch))
        golden.work.mkdir(parents=True, exist_ok=True)
        sys.path.insert(0, str(golden.code))
        os.environ |= golden.environment
        chosen = [parts[name] for name in options.parts] or (FAST if options.fast else FAST + WHOLE)
        sys.exit(not compare(golden, chosen, options.write))


if __name__ == "__main__":
    main()
