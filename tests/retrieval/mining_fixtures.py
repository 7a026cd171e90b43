"""A dictionary, its index, and mining over it, for the tests of mining."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from trigram_encoder import TrigramEncoder, build_index, make_concepts

from umls_reranker.data.normalization import normalize_name
from umls_reranker.retrieval import mining
from umls_reranker.retrieval.negatives import MiningConfig
from umls_reranker.retrieval.retriever import Retriever
from umls_reranker.retrieval.retrievers import Dense


def make_mentions(rows: list[tuple[str, str, list[str]]]) -> Dataset:
    """Rows of text, gold CUI, types; ids are 7, 8, ..."""
    texts, cuis, types = zip(*rows, strict=True)
    return Dataset.from_dict(
        {
            "mention_id": range(7, 7 + len(rows)),
            "mention": texts,
            "left": [f"left of {text} " for text in texts],
            "right": [f" right of {text}" for text in texts],
            "cui": cuis,
            "semantic_types": types,
        }
    )


class Setup:
    """Concepts (CUI -> types separated by blanks, names) in a folder, an encoder and an index over them."""

    def __init__(self, path: Path, concepts: dict[str, tuple[str, list[str]]]) -> None:
        self.path = path
        self.encoder = TrigramEncoder()
        self.concepts = make_concepts(path / "concepts", concepts)
        self.index = build_index(self.concepts, self.encoder, path / "index")
        self.searched = Retriever([Dense(self.index)], self.encoder), self.concepts
        self.runs = 0

    def mine(self, mentions: Dataset, config: MiningConfig | None = None, chunk: int = 8_192, **settings):
        """Pairs as a dataset, the report, and the pairs' columns."""
        self.runs += 1
        out = self.path / f"pairs-{self.runs}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mining, "MENTIONS_AT_ONCE", chunk)
            report = mining.mine_pairs(mentions, *self.searched, config or MiningConfig(), out, **settings)
        pairs = Dataset.from_file(str(out.with_suffix(".arrow")))
        return pairs, report, pairs.to_dict()

    def forms(self, cui: str) -> set[str]:
        return {normalize_name(name) for name in self.concepts.names(int(self.concepts.rows([cui])[0]))}


class Relations:
    """A stand-in for `RelationTable`: ``{(gold row, other row): kind}``."""

    def __init__(self, pairs: dict[tuple[int, int], str]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def related(self, gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
        gold, rows = np.broadcast_arrays(gold, rows)
        flat = [pair in self.pairs for pair in zip(gold.flat, rows.flat, strict=True)]
        return np.array(flat, bool).reshape(rows.shape)
