#!/usr/bin/env python
"""Mine semantic negatives with this package and with sentence-transformers, same vectors, same machine.

    python benchmarks/mining.py --names 1000000 --mentions 5000
    python benchmarks/mining.py --names 100000 --mentions 5000
    python benchmarks/mining.py --names 1000000 --mentions 2000 --real name_vectors   # the cache of index_recall.py

Names are clustered random unit vectors of a made-up dictionary: concepts with one or more names, some names shared by
concepts, some equal up to case and punctuation. With --real, they are vectors of real names, and others near these
until there are enough; mentions are real ones, whose gold concept is that of the nearest name. Both sides get their
vectors ready-made and take the same number of nearest ones and of negatives: 64 nearest concepts here, which takes
some 256 names, 64 nearest names there. Timed is what follows: search, guards, writing the pairs. Our index is loaded
before; `mine_hard_negatives` makes its own (a copy of the vectors) each time, which is part of its time. Its search is
exact, as ours with Flat; with another factory string the recall of the nearest names is given as well. On a busy
machine compare the seconds of processors, which depend less on what else runs.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

# As the package's scripts do: threads that spin while they wait take the processor from others, on both sides.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset, load_from_disk

from umls_reranker.data.columns import Concept
from umls_reranker.data.concepts import ConceptTable, write_concepts
from umls_reranker.data.normalization import normalize_name
from umls_reranker.data.semantic_types import SemanticType, TypeHierarchy
from umls_reranker.retrieval.faiss_index import search_exactly
from umls_reranker.retrieval.mining import mine_pairs
from umls_reranker.retrieval.name_index import NameIndex
from umls_reranker.retrieval.name_vectors import NameVectors
from umls_reranker.retrieval.negatives import MiningConfig
from umls_reranker.retrieval.retriever import Retriever
from umls_reranker.retrieval.retrievers import Dense

NAMES_PER_CONCEPT = 2.16  # 7.4 million English names of 3.4 million concepts in 2017AA
CLUSTERS_PER_CONCEPT = 1 / 50
SHARED, RESPELLED = 0.02, 0.02  # shares of names that are another concept's, as it is or in capitals
CLUSTER_SPREAD, CONCEPT_SPREAD, MENTION_SPREAD, REAL_SPREAD = 0.8, 0.5, 0.3, 0.7
NEAREST = 64


class Clock:
    """Adds up time while it is entered.

    Attributes:
        seconds: (2,) of the wall, and of processors.
    """

    def __init__(self) -> None:
        self.seconds = np.zeros(2)

    def __enter__(self) -> None:
        self.seconds -= (time.perf_counter(), time.process_time())

    def __exit__(self, *_: object) -> None:
        self.seconds += (time.perf_counter(), time.process_time())


class ReadyVectors:
    """A stand-in for both bi-encoders: looks vectors up by string, and counts the seconds that it takes.

    Args:
        texts: distinct strings.
        vectors: (n, dimension) float32, unit.
    """

    device = "cpu"

    def __init__(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        self.rows = {text: row for row, text in enumerate(texts)}
        self.vectors = vectors
        self.dimension = vectors.shape[1]
        self.identity = {"model": "ready", "revision": None, "pooling": "mean", "max_length": 32}
        self.clock = Clock()

    def encode(self, texts: Sequence[str], **_: object) -> np.ndarray:
        with self.clock:
            return self.vectors[[self.rows[text] for text in texts]]

    encode_document = encode_query = encode

    def get_embedding_dimension(self) -> int:
        return self.dimension

    def similarity_pairwise(self, first: np.ndarray, second: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.einsum("nd,nd->n", first, second))


def make_dictionary(
    names: int, mentions: int, dimension: int, seed: int, real: Path | None
) -> tuple[list[Concept], Dataset, ReadyVectors]:
    """Concepts, mentions of them, and the vectors of all strings.

    Args:
        real: folder with vectors of real names and mentions, if these are to be used.
    """
    draw = np.random.default_rng(seed)
    count = round(names / NAMES_PER_CONCEPT)
    owner = np.sort(np.concatenate([np.arange(count), draw.integers(0, count, names - count)]))
    clusters = draw.standard_normal((max(1, round(count * CLUSTERS_PER_CONCEPT)), dimension), dtype=np.float32)
    centers = clusters[draw.integers(0, len(clusters), count)]
    centers += CLUSTER_SPREAD * draw.standard_normal(centers.shape, dtype=np.float32)
    texts = [f"concept {row} name {number}" for number, row in enumerate(owner)]
    vectors = _spread(centers[owner], CONCEPT_SPREAD, draw)
    if real:
        known = np.load(next(real.glob("names-*.npy")))[:names]
        vectors = _spread(known[draw.integers(0, len(known), names)], REAL_SPREAD, draw)
        vectors[draw.permutation(names)[: len(known)]] = known
    kind = draw.random(names)
    for number in np.flatnonzero(kind < SHARED + RESPELLED).tolist():
        other = int(draw.integers(0, names))
        texts[number] = texts[other] if kind[number] < SHARED else texts[other].upper().replace(" ", "-")
        vectors[number] = vectors[other]
    about = draw.integers(0, names, mentions)
    asked, spoken = [f"mention {number}" for number in range(mentions)], _spread(vectors[about], MENTION_SPREAD, draw)
    if real:
        spoken = np.load(next(real.glob("queries-*.npy")))[:mentions]
        about = search_exactly(vectors, spoken, 1)[1][:, 0]
    gold = [f"C{row:07}" for row in owner[about]]
    known = ReadyVectors([*texts, *asked], np.concatenate([vectors, spoken]))
    edges = np.searchsorted(owner, np.arange(count + 1))
    forms = [list(dict.fromkeys(texts[edges[row] : edges[row + 1]])) for row in range(count)]
    concepts = [Concept(f"C{row:07}", own[0], tuple(own[1:]), ("T1",)) for row, own in enumerate(forms)]
    columns = {"mention_id": range(mentions), "mention": asked, "cui": gold, "semantic_types": [["T1"]] * mentions}
    return concepts, Dataset.from_dict(columns | {"left": [""] * mentions, "right": [""] * mentions}), known


def _spread(vectors: np.ndarray, amount: float, draw: np.random.Generator) -> np.ndarray:
    """Unit vectors at a distance of about `amount` from those of `vectors`."""
    for start in range(0, len(vectors), 65_536):
        part = vectors[start : start + 65_536]
        noise = draw.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
        part += amount / np.sqrt(part.shape[1]) * noise
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


Negative = tuple[str, str, str | None]
"""Mention, name, and the concept where the miner knows it."""


class Ours:
    """`mine_pairs`, semantic negatives alone, with an index of some FAISS factory string."""

    def __init__(
        self, folder: Path, concepts: ConceptTable, known: ReadyVectors, index: str, asked: Sequence[str]
    ) -> None:
        folder.mkdir()
        self.concepts, self.known, self.folder = concepts, known, folder
        factory, _, parameters = index.partition(" ")
        vectors = NameVectors.build(concepts, known, folder / "vectors")
        self.index = NameIndex.build(vectors, folder, factory, parameters)
        self.title = f"umls_reranker, {index}"
        if factory != "Flat":
            shares = self.index.measure_recall(vectors) | {"mentions @64": self.recall(vectors, known.encode(asked))}
            print(f"{index}:", ", ".join(f"{name} {share:.3f}" for name, share in shares.items()), flush=True)

    def recall(self, vectors: NameVectors, asked: np.ndarray) -> float:
        """Share of the 64 nearest names of each mention that are found, or others as near."""
        names = np.concatenate([shard for _, shard in vectors.shards()])
        kth = search_exactly(names, asked, NEAREST)[0][:, -1:]
        found = self.index._vectors.search(asked, 4 * NEAREST)[1][:, :NEAREST]
        cosines = np.stack([names[own] @ query for own, query in zip(found, asked, strict=True)])
        return float(((cosines >= kth - 1e-6) & (found >= 0)).mean())

    def mine(self, mentions: Dataset, negatives: int, neighbors: int) -> list[Negative]:
        config = MiningConfig(
            nearest_negatives=negatives, same_type_negatives=0, random_negatives=0, neighbors=neighbors
        )
        mine_pairs(
            mentions, Retriever([Dense(self.index)], self.known), self.concepts, config, self.folder / "pairs", ""
        )
        pairs = load_from_disk(str(self.folder / "pairs")).with_format("arrow")[:]
        wrong = pairs.filter(pc.equal(pairs["label"], 0))
        return list(zip(*(wrong[key].to_pylist() for key in ("mention", "name", "cui")), strict=True))


class Theirs:
    """`sentence_transformers.util.mine_hard_negatives` with FAISS."""

    title = "sentence-transformers"

    def __init__(self, concepts: list[Concept], known: ReadyVectors) -> None:
        from sentence_transformers.util import mine_hard_negatives

        self._mine = mine_hard_negatives
        self.corpus = list(dict.fromkeys(name for concept in concepts for name in (concept.name, *concept.synonyms)))
        self.preferred = {concept.cui: concept.name for concept in concepts}
        self.known = known

    def mine(self, mentions: Dataset, negatives: int, neighbors: int) -> list[Negative]:
        pairs = {"anchor": mentions["mention"][:], "positive": [self.preferred[cui] for cui in mentions["cui"]]}
        mined = self._mine(
            Dataset.from_dict(pairs),
            self.known,
            corpus=self.corpus,
            range_max=neighbors,
            num_negatives=negatives,
            use_faiss=True,
            output_format="labeled-pair",
            verbose=False,
        ).to_dict()
        rows = zip(mined["anchor"], mined["positive"], mined["label"], strict=True)
        return [(mention, name, None) for mention, name, label in rows if not label]


def false_negatives(found: list[Negative], concepts: list[Concept], mentions: Dataset) -> tuple[int, int]:
    """Negatives that name the gold concept, and those whose concepts all share a normalized name with it.

    A negative without a concept represents every concept that has its name.
    """
    names = {concept.cui: {concept.name, *concept.synonyms} for concept in concepts}
    owners: dict[str, set[str]] = {}
    forms: dict[str, set[str]] = {}
    for cui, own in names.items():
        for name in own:
            owners.setdefault(name, set()).add(cui)
            forms.setdefault(normalize_name(name), set()).add(cui)
    gold = dict(zip(mentions["mention"], mentions["cui"], strict=True))
    of_gold = shared = 0
    for mention, name, cui in found:
        own = gold[mention]
        meant = {cui} if cui else owners[name]
        sharing = set().union(*(forms[normalize_name(form)] for form in names[own]))
        of_gold += own in meant
        shared += own not in meant and meant <= sharing
    return of_gold, shared


def processor() -> str:
    """The processor's name where Linux tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"names": 1_000_000, "mentions": 5_000, "dimension": 384, "seed": 13}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--negatives", type=int, default=5, help="negatives per mention")
    parser.add_argument("--neighbors", type=int, default=64, help="concepts (ours) or names (theirs) searched")
    parser.add_argument(
        "--indexes", nargs="+", default=["Flat", "IVF1024,Flat nprobe=32"], help="factory strings and parameters"
    )
    parser.add_argument("--real", type=Path, help="folder with names-*.npy and queries-*.npy of real names")
    parser.add_argument("--rounds", type=int, default=3, help="times that each side runs, in turn")
    options = parser.parse_args()
    concepts, mentions, known = make_dictionary(
        options.names, options.mentions, options.dimension, options.seed, options.real
    )
    with tempfile.TemporaryDirectory() as folder:
        thing = TypeHierarchy([SemanticType("T1", "Thing", None, None)])
        write_concepts(concepts, thing, Path(folder) / "concepts", "")
        table = ConceptTable.load(Path(folder) / "concepts")
        indexes = enumerate(options.indexes)
        ours = [
            Ours(Path(folder) / str(number), table, known, index, mentions["mention"][:]) for number, index in indexes
        ]
        sides = [Theirs(concepts, known), *ours]
        seconds: dict[str, list[float]] = {side.title: [] for side in sides}
        used: dict[str, list[float]] = {side.title: [] for side in sides}
        found = {}
        for number in range(options.rounds):
            for side in sides:
                known.clock, clock = Clock(), Clock()
                with clock:
                    found[side.title] = side.mine(mentions, options.negatives, options.neighbors)
                wall, processors = clock.seconds - known.clock.seconds
                seconds[side.title].append(wall)
                used[side.title].append(processors)
                print(
                    f"round {number + 1}, {side.title}: {wall:.1f} s, {processors:.1f} s of processors",
                    flush=True,
                )
    print(
        f"\n{options.names:,} names x {options.dimension} of {len(concepts):,} concepts, {options.mentions:,} mentions"
        f", {options.negatives} negatives of the {options.neighbors} nearest; {options.rounds} rounds in turn; "
        f"{processor()}, {os.cpu_count()} of them, {date.today()}\n"
    )
    columns = ["best s", "median s", "processor s", "mentions/s", "negatives", "of the gold concept"]
    columns += ["sharing a name with it", "throughput", "per processor s"]
    print(f"| | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    theirs = sides[0].title
    for side in sides:
        own, spent = seconds[side.title], used[side.title]
        times = min(own), statistics.median(own), statistics.median(spent)
        cells = [*(f"{value:.1f}" for value in times), f"{options.mentions / statistics.median(own):,.0f}"]
        counts = len(found[side.title]), *false_negatives(found[side.title], concepts, mentions)
        cells += [f"{count:,}" for count in counts]
        # Rounds in turn see the same load, so their ratios are compared.
        for base, taken in ((seconds[theirs], own), (used[theirs], spent)):
            cells.append(f"{statistics.median(b / t for b, t in zip(base, taken, strict=True)):.1f} x")
        print(f"| {side.title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
