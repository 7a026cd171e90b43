"""A stand-in for the bi-encoder: counts of hashed letter trigrams, the same for a text whatever is
next to it.
"""

import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from umls_reranker.models.bi_encoder import CHUNK
from umls_reranker.retrieval.name_index import NameIndex
from umls_reranker.retrieval.name_vectors import NameVectors
from umls_reranker.vocab.concept_folder import write_concepts
from umls_reranker.vocab.concept_table import ConceptTable
from umls_reranker.vocab.concepts import Concept, concept_table
from umls_reranker.vocab.types import SemanticType, TypeHierarchy


class TrigramEncoder:
    """Gives equal vectors for equal texts up to case; `asked` counts the texts."""

    def __init__(self, dimension: int = 64, name: str = "trigrams") -> None:
        self.dimension = dimension
        self.identity = {"model": name, "revision": None, "pooling": "mean", "max_length": 64}
        self.asked: Counter[str] = Counter()

    def encode(
        self, texts: Sequence[str], *, token_budget: int | None = None, desc: str | None = None
    ) -> np.ndarray:
        self.asked.update(texts)
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            padded = f"  {text.lower()}  "
            for start in range(len(padded) - 2):
                vectors[row, zlib.crc32(padded[start : start + 3].encode()) % self.dimension] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class PlainEncoder(TrigramEncoder):
    """Reads no text around a mention, as it says."""

    class queries:
        context_tokens = 0

    def encode(self, texts, contexts=None, **settings):
        assert contexts is None
        return super().encode(texts, **settings)


HIERARCHY = TypeHierarchy(
    [
        SemanticType("T1", "Thing", None, "G"),
        SemanticType("T2", "Disease", "T1", "G"),
        SemanticType("T3", "Infection", "T2", "G"),
        SemanticType("T4", "Organ", "T1", "G"),
    ]
)


def make_concepts(path: Path, concepts: dict[str, tuple[str, list[str]]]) -> ConceptTable:
    """Write CUI -> (types separated by blanks, names) and open it."""
    rows = [
        Concept(cui, names[0], tuple(names[1:]), tuple(types.split()))
        for cui, (types, names) in concepts.items()
    ]
    write_concepts(concept_table(rows), HIERARCHY, path)
    return ConceptTable.load(path)


def toy_concepts(path: Path) -> ConceptTable:
    """Rows: 0 common cold, 1 cold temperature, 2 heart."""
    names = {"C0000001": ("T3", ["common cold", "Cold", "head-cold"])}
    names |= {
        "C0000002": ("T1", ["cold temperature", "cold"]),
        "C0000003": ("T4", ["heart", "cardiac organ"]),
    }
    return make_concepts(path, names)


def random_concepts(seed: int, count: int) -> dict[str, tuple[str, list[str]]]:
    """Some concepts with dozens of names, and many names that several concepts share."""
    words = [
        "heart",
        "Liver",
        "skin",
        "acute",
        "chronic",
        "pain",
        "failure",
        "cold",
        "left",
        "upper-lobe",
        "II",
        "1",
    ]
    draw = np.random.default_rng(seed)
    concepts = {}
    for number in range(count):
        size = 40 if number % 10 == 0 else draw.integers(1, 5)
        names = {" ".join(draw.choice(words, draw.integers(1, 4))) for _ in range(size)}
        concepts[f"C{number:07}"] = ("", sorted(names))
    return concepts


def encode_names(
    concepts: ConceptTable, encoder: TrigramEncoder, folder: Path, shard: int = CHUNK
) -> NameVectors:
    """Write and encode the names as one process."""
    vectors = NameVectors.prepare(concepts, encoder, folder, shard)
    vectors.encode_share(encoder, 0, 1)
    return vectors


def build_index(
    concepts: ConceptTable, encoder: TrigramEncoder, path: Path, **settings
) -> NameIndex:
    """Encode the names next to `path`, and write a `NameIndex` with these settings into it."""
    path.mkdir(exist_ok=True)
    vectors = encode_names(concepts, encoder, path.with_name(f"{path.name}-vectors"))
    return NameIndex.build(vectors, path, **settings)
