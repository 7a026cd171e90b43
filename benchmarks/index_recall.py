#!/usr/bin/env python
"""Measure what IVF indexes over real names miss, by the number of clusters that they search.

    python benchmarks/index_recall.py umls_open/META/MRCONSO.RRF hp.obo more_names.txt \\
        --queries medmentions_st21pv/corpus_pubtator.txt.gz --cache name_vectors

Names are those of MRCONSO.RRF files, of OBO files (with synonyms) and of text files with a name a line; queries are
the distinct mentions of a PubTator corpus. Prints a Markdown table: recall@32 is the share of the 32 nearest names of
exact search that are found; "concept found" the share of the mentions whose own concept, where MRCONSO names it, is
among the 32 nearest concepts. Indexes are trained as `umls-reranker build_index` trains them.
"""

import argparse
import os
import re
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np

K = 32
# As in `NameIndex`: several names of a concept tend to be near a query.
NAMES_ASKED = 4 * K
SYNONYM = re.compile(r'(?:name: (.+)|synonym: "((?:[^"\\]|\\.)*)".*)')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", type=Path, nargs="+", help="MRCONSO.RRF, OBO or text files")
    parser.add_argument("--queries", type=Path, required=True, help="corpus in PubTator format")
    parser.add_argument("--sample", type=int, default=2_000, help="number of queries")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the vectors")
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2", help="Hub id or local folder")
    parser.add_argument("--pooling", default="mean", choices=("cls", "mean"), help="of the encoder")
    parser.add_argument(
        "--factories",
        nargs="+",
        default=["IVF256,SQfp16", "IVF1024,SQfp16", "IVF2048,SQfp16"],
        help="FAISS factories, each with its other search parameters after a space",
    )
    parser.add_argument(
        "--nprobe", type=int, nargs="+", default=[1, 4, 16, 32, 64, 128, 256], help="values to compare"
    )
    arguments = parser.parse_args()

    # As in the scripts: threads that spin while waiting slow down everything else on the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import faiss

    concepts_of: dict[str, set[str]] = {}
    for file in arguments.names:
        for concept, name in read_names(file):
            concepts_of.setdefault(name, set()).add(concept)
    names = list(concepts_of)
    known = {concept for concepts in concepts_of.values() for concept in concepts}
    queries, gold = sample_queries(arguments.queries, known, arguments.sample)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    vectors, asked = (encode(texts, arguments, part) for texts, part in ((names, "names"), (queries, "queries")))

    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    scores, nearest = exact.search(asked, NAMES_ASKED)
    found = concept_recall(nearest, names, concepts_of, gold)
    print(f"{date.today()}, {faiss.omp_get_max_threads()} threads, {vectors.shape[1]} dimensions")
    print(
        f"{len(names):,} distinct names, {len(queries):,} queries, of which {sum(map(bool, gold)):,} have a concept\n"
    )
    print("| index | names per cluster | nprobe | share of clusters | recall@32 | concept found | ms per query |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    print(f"| Flat | | | | 1.000 | {found:.3f} | {1e3 * seconds(exact, asked) / len(asked):.2f} |")
    for factory in arguments.factories:
        factory, _, others = factory.partition(" ")
        index = build(factory, vectors)
        clusters = faiss.extract_index_ivf(index).nlist
        for nprobe in arguments.nprobe:
            faiss.ParameterSpace().set_index_parameters(index, f"nprobe={nprobe}" + f",{others}" * bool(others))
            _, nearest = index.search(asked, NAMES_ASKED)
            own = np.where(nearest[:, :K] >= 0, np.einsum("nkd,nd->nk", vectors[nearest[:, :K]], asked), -np.inf)
            recall = (own >= scores[:, K - 1 : K] - 1e-6).mean()
            found = concept_recall(nearest, names, concepts_of, gold)
            print(
                f"| {factory} | {len(names) / clusters:.0f} | {nprobe} | {nprobe / clusters:.2%} | {recall:.3f} | "
                f"{found:.3f} | {1e3 * seconds(index, asked) / len(asked):.2f} |"
            )


def read_names(file: Path) -> Iterator[tuple[str, str]]:
    """Concept and name of each name in a file; outside MRCONSO.RRF each name is a concept of its own."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if file.name.startswith("MRCONSO"):
                fields = line.split("|")
                yield fields[0], fields[14]
            elif file.suffix == ".obo":
                if match := SYNONYM.fullmatch(line.rstrip("\n")):
                    name = match[1] or match[2]
                    yield name, name
            elif name := line.strip():
                yield name, name


def sample_queries(corpus: Path, known: set[str], size: int) -> tuple[list[str], list[str]]:
    """Distinct mentions drawn by a fixed seed, and the concept of each, empty where no file names it."""
    from umls_reranker.data.corpus_formats import read_corpus

    gold = {mention.text: mention.cui if mention.cui in known else "" for mention in read_corpus([corpus])}
    texts = sorted(gold)
    drawn = np.random.default_rng(13).permutation(len(texts))[:size]
    queries = [texts[row] for row in drawn]
    return queries, [gold[text] for text in queries]


def encode(texts: list[str], arguments: argparse.Namespace, part: str) -> np.ndarray:
    """Vectors of the texts, kept in the cache."""
    from umls_reranker.models.bi_encoder import BiEncoder

    file = arguments.cache / f"{part}-{len(texts)}.npy"
    if not file.is_file():
        encoder = BiEncoder.from_pretrained(arguments.encoder, pooling=arguments.pooling, max_length=32)
        np.save(file, encoder.encode(texts, desc=f"encoding {part}"))
    return np.load(file)


def build(factory: str, vectors: np.ndarray):
    """An index of a factory string with all vectors."""
    import faiss

    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    return index


def concept_recall(nearest: np.ndarray, names: list[str], concepts_of: dict[str, set[str]], gold: list[str]) -> float:
    """Share of the queries with a concept that have it among the K nearest ones."""
    hits = []
    for row, wanted in zip(nearest.tolist(), gold, strict=True):
        if wanted:
            listed: dict[str, None] = {}
            for number in row:
                if number >= 0 and len(listed) < K:
                    listed |= dict.fromkeys(sorted(concepts_of[names[number]]))
            hits.append(wanted in list(listed)[:K])
    return float(np.mean(hits))


def seconds(index, queries: np.ndarray) -> float:
    """Best of three searches, seconds."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        index.search(queries, NAMES_ASKED)
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    main()
