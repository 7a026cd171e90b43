#!/usr/bin/env python
"""Measure retrieval without a cross-encoder: start-up, mentions a second, memory, and recall.

    python benchmarks/retrieval_speed.py my_index mentions.csv
    python benchmarks/retrieval_speed.py work mentions.csv --names 10000 100000 1000000

A file of mentions is linked as ``umls-reranker link`` does it, after a file of its first mention,
which is the start-up. Then each retriever alone searches distinct strings of the file, and the
trigram indexes are compared with the product of sparse matrices over all names. With ``--names``,
indexes of synthetic releases of about so many names are made first, with an untrained stand-in for
the encoder that costs next to nothing (`rehearsal.write_models`): so ``dense`` is FAISS alone.
CPU seconds count; the machine may be busy.
"""

import argparse
import csv
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from measured import disk, measured
from rehearsal import COMMAND, ROOT, write_models

from umls_reranker.retrieval.index_settings import IndexSettings
from umls_reranker.retrieval.index_sources import IndexSources
from umls_reranker.retrieval.lexical_index import LexicalIndex
from umls_reranker.retrieval.queries import Queries
from umls_reranker.retrieval.retrievers import chosen_retrievers

# Rows of a release for each name that is indexed: other languages, suppressed and equal names.
ROWS_PER_NAME = 1.96
K = 20
# Candidates of a linker: two lists of 32.
DEPTH = 64


def exact_recall(index: LexicalIndex, texts: Sequence[str]) -> float:
    """Share of the K best strings, by the product with all strings, that the search finds."""
    queries = index.weigh(texts)
    products = [(queries @ lists).tocsr() for _, lists in index._lists]
    found, _ = index._nearest(queries, K)
    shares = []
    for row, scores in enumerate(found):
        exact = np.concatenate([product[[row]].data for product in products])
        best = np.sort(exact)[::-1][:K]
        shares.append(np.mean(scores[: len(best)] >= best) if len(best) else 1.0)
    return float(np.mean(shares))


def searches(folder: Path, texts: Sequence[str]) -> None:
    """Print the CPU time of each retriever of an index for distinct strings."""
    settings = IndexSettings.load(folder)
    sources = IndexSources(folder, settings, "cpu")
    vectors = None
    if settings.encoder:
        start = time.process_time()
        vectors = sources.encoder.encode(texts)
        print(f"encoding: {1e3 * (time.process_time() - start) / len(texts):.2f} ms a string")
    for method in chosen_retrievers(settings.retrievers):
        start = time.process_time()
        retriever = method.load(sources, folder / (method.folder or ""))
        loaded = time.process_time()
        retriever.search(Queries(texts, vectors=vectors), DEPTH)
        taken = time.process_time() - loaded
        recall = ""
        if isinstance(retriever.index, LexicalIndex):
            recall = f", recall@{K} {exact_recall(retriever.index, texts[:64]):.4f}"
        print(
            f"{method.name}: opened in {loaded - start:.2f} s, "
            f"{1e3 * taken / len(texts):.2f} ms a string{recall}"
        )


def linked(folder: Path, mentions: Path, work: Path) -> None:
    """Print what it takes to link a file, without the start-up."""
    with mentions.open(encoding="utf-8", newline="") as stream:
        texts = [row["mention"] for row in csv.DictReader(stream)]
    first = work / "first.csv"
    first.write_text(f'mention\n"{texts[0]}"\n', encoding="utf-8")
    taken = []
    for number, source in enumerate((first, mentions)):
        target = work / f"linked_{number}.jsonl"
        command = [*COMMAND, "link", folder, source, target, "--overwrite", "--device", "cpu"]
        taken.append(measured(command, work / "link.log"))
    start, whole = taken
    cpu = whole.cpu - start.cpu
    print(
        f"link {mentions.name}: start-up {start.seconds:.1f} s ({start.cpu:.1f} of CPU), "
        f"{len(texts):,} mentions, {len(set(texts)):,} distinct: {len(texts) / cpu:,.0f} mentions "
        f"and {len(set(texts)) / cpu:,.0f} distinct strings a CPU second; "
        f"{whole.seconds:.1f} s, {whole.peak / 1e6:,.0f} MB of anonymous memory"
    )
    strings = np.random.default_rng(13).permutation(sorted(set(texts)))[:512].tolist()
    searches(folder, strings)


def made_index(work: Path, names: int) -> Path:
    """Make an index of a synthetic release, and print what it takes."""
    release = work / f"release_{names}"
    folder = work / f"index_{names}"
    if not (work / "encoder").exists():
        write_models(work, 384)
    rows = round(ROWS_PER_NAME * names)
    script = ROOT / "benchmarks" / "rrf_release.py"
    measured([sys.executable, script, release, "--rows", rows], work / "made.log")
    command = [*COMMAND, "index", release, folder, "--device", "cpu"]
    command += ["--encoder", work / "encoder", "--encoder_pooling", "mean"]
    taken = measured(command, work / "made.log")
    print(
        f"\nindex of {names:,} names: {taken.seconds:.0f} s, {taken.cpu:.0f} of CPU, "
        f"{taken.peak / 1e6:,.0f} MB of anonymous memory, {disk(folder) / 1e6:,.0f} MB of disk"
    )
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="an index; with --names, where they are made")
    parser.add_argument(
        "mentions", type=Path, nargs="+", help="tables (.csv) with a column mention"
    )
    parser.add_argument("--names", type=int, nargs="+", help="sizes of synthetic dictionaries")
    options = parser.parse_args()
    work = options.folder if options.names else options.folder.parent
    work.mkdir(parents=True, exist_ok=True)
    sizes = options.names or [None]
    for size in sizes:
        folder = made_index(work.resolve(), size) if size else options.folder.resolve()
        for mentions in options.mentions:
            linked(folder, mentions.resolve(), work.resolve())


if __name__ == "__main__":
    main()
