#!/usr/bin/env python
"""Measure how long it takes to build indexes of names and to search them, and what approximate ones miss.

    python benchmarks/retrieval.py --names 100000 1000000

The names are made up by `rrf_release`; their vectors are random projections of their letter trigrams, so that names
of one concept lie close together. Queries are names with two letters exchanged. Prints a Markdown table: recall@k is
that of the k nearest names against exact search, "found" the share of queries whose concept is among the 64 nearest
concepts. Times are those of one process with OMP_NUM_THREADS threads; where something else uses the cores, CPU time
says more.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
from rrf_release import CONCEPTS_PER_CHUNK, NAME_FORMS, Concepts, Draws

from umls_reranker.core.cores import usable_cores

K = 64
BATCH = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=int, nargs="+", default=[100_000], help="numbers of names")
    parser.add_argument("--dimension", type=int, default=256, help="of the vectors")
    parser.add_argument("--queries", type=int, default=1_000, help="number of queries")
    parser.add_argument("--seed", type=int, default=13, help="of names and queries")
    parser.add_argument(
        "--indexes",
        nargs="+",
        default=["Flat", "SQ8", "PQ32", "IVF{clusters},Flat", "IVF{clusters},SQfp16", "HNSW32,Flat", "lexical"],
        help="FAISS factory strings and lexical; {clusters} is four times the root of the number of names",
    )
    parser.add_argument("--parameters", nargs="+", default=["nprobe=32", "efSearch=128"], help="for IVF and for HNSW")
    arguments = parser.parse_args()

    # As in the scripts: threads that spin while they wait take the time of whatever else uses the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    by_kind = {"IVF": arguments.parameters[0], "HNSW": arguments.parameters[1]}
    cores = os.environ.get("OMP_NUM_THREADS", usable_cores())
    print(f"{date.today()}, {platform.machine()}, {cores} threads, {arguments.dimension} dimensions\n")
    columns = ["names", "index", "encode, s", "build, s", "on disk, MB", "search, ms a query", "CPU, ms a query"]
    print("| " + " | ".join([*columns, "recall@1", "@10", "@64", "found"]) + " |")
    print("|---:|:---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for size in arguments.names:
        concepts, encoder = MadeUpConcepts(size, arguments.seed), TrigramProjection(arguments.dimension)
        queries, gold = concepts.queries(arguments.queries, arguments.seed)
        for kind in arguments.indexes:
            factory = kind.format(clusters=int(4 * size**0.5))
            parameters = next((value for name, value in by_kind.items() if factory.startswith(name)), "")
            with tempfile.TemporaryDirectory() as folder:
                figures = measure(factory, parameters, concepts, encoder, Path(folder), queries, gold)
            print(f"| {size:,} | {factory} {parameters} | " + " | ".join(figures) + " |", flush=True)


def measure(factory, parameters, concepts, encoder, folder, queries, gold) -> list[str]:
    """The columns of the table from "encode, s" on."""
    from umls_reranker.retrieval.lexical_index import LexicalIndex
    from umls_reranker.retrieval.name_index import NameIndex
    from umls_reranker.retrieval.name_vectors import NameVectors

    encoded_folder, folder = folder / "vectors", folder / "index"
    folder.mkdir()
    start = time.perf_counter()
    if factory != "lexical":
        encoded_names = NameVectors.build(concepts, encoder, encoded_folder)
    encoded = time.perf_counter()
    if factory == "lexical":
        index, recall = LexicalIndex.build(concepts, folder), {}
    else:
        index = NameIndex.build(encoded_names, folder, factory, parameters)
        recall = {} if factory == "Flat" else index.measure_recall(encoded_names)
    built = time.perf_counter()
    vectors = queries if factory == "lexical" else encoder.encode(queries)
    index.search(vectors[:10], K)
    started = np.array([time.perf_counter(), time.process_time()])
    found = index.search(vectors, K)
    search = (np.array([time.perf_counter(), time.process_time()]) - started) / len(queries)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    shares = [f"{recall[f'recall@{k}']:.3f}" if recall else "" for k in (1, 10, 64)]
    hits = (found.rows == gold[:, None]).any(axis=1).mean()
    seconds = f"{encoded - start:.1f}", f"{built - encoded:.1f}"
    return [*seconds, f"{size / 1e6:,.0f}", *(f"{1000 * spent:.2f}" for spent in search), *shares, f"{hits:.3f}"]


class MadeUpConcepts:
    """As many concepts as have some number of names; a stand-in for a `ConceptTable`."""

    def __init__(self, names: int, seed: int) -> None:
        owners, texts, first = [], [], 0
        while names > 0:
            chunk = Concepts(first, CONCEPTS_PER_CHUNK, seed)
            chunk.keep_names(names)
            own = np.repeat(np.arange(len(chunk.counts)), chunk.counts)
            forms = Draws(len(own), seed, first).codes(NAME_FORMS)
            owners.append(first + own)
            texts.append(chunk.names(own, forms, seed + first))
            first, names = first + len(chunk.counts), names - len(own)
        self._owners, self._texts, self._size = np.concatenate(owners), pa.chunked_array(texts), first

    def __len__(self) -> int:
        return self._size

    def iter_names(self) -> Iterator[tuple[np.ndarray, list[str]]]:
        for start in range(0, len(self._owners), BATCH):
            yield self._owners[start : start + BATCH], self._texts.slice(start, BATCH).to_pylist()

    def queries(self, size: int, seed: int) -> tuple[list[str], np.ndarray]:
        """Names with two neighboring letters exchanged, and the rows of their concepts."""
        draw = np.random.default_rng(seed)
        chosen = np.sort(draw.choice(len(self._owners), size, replace=False))
        texts = self._texts.take(pa.array(chosen)).to_pylist()
        places = [int(draw.integers(0, max(1, len(text) - 1))) for text in texts]
        changed = [t[:i] + t[i : i + 2][::-1] + t[i + 2 :] for t, i in zip(texts, places, strict=True)]
        return changed, self._owners[chosen]


class TrigramProjection:
    """Unit vectors of texts: a random projection of their trigrams; a stand-in for a `BiEncoder`."""

    def __init__(self, dimension: int) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        self.dimension, self.identity = dimension, {"model": "trigrams"}
        self._counts = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 3), n_features=1 << 14, dtype=np.float32)
        self._projection = np.random.default_rng(0).standard_normal((1 << 14, dimension), dtype=np.float32)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors = self._counts.transform(texts) @ self._projection
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


if __name__ == "__main__":
    main()
