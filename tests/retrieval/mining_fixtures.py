"""A dictionary and lists of its concepts, for the tests of mining."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
from list_fixtures import make_lists
from trigram_encoder import HIERARCHY, make_concepts

from umls_reranker.core.arrays import open_arrow
from umls_reranker.retrieval import mining
from umls_reranker.retrieval.arguments import MiningArguments
from umls_reranker.retrieval.mining import SOURCES

NEAREST_ONLY = {"same_type_negatives": 0, "random_negatives": 0}


# Arguments of `PairMiner` besides the settings.
OPTIONS = {"relations", "template", "teachers", "filters"}
# Key of a pair -> column of training rows.
COLUMNS = {name: f"{name}s" for name in ("name", "cui", "label", "weight", "source")}
COLUMNS["teacher"] = "teacher"


class Setup:
    """Concepts (CUI -> types separated by blanks, names) in a folder."""

    def __init__(self, path: Path, concepts: dict[str, tuple[str, list[str]]]) -> None:
        self.path = path
        self.concepts = make_concepts(path / "concepts", concepts)
        self.runs = 0

    def mine(self, mentions, *, chunk=8_192, seed=13, scores=(), **settings):
        """Pairs as rows, and the report; a mention is (text, gold CUI, CUIs of its list),
        candidates are called so.
        """
        self.runs += 1
        texts, golds, cuis = zip(*mentions, strict=True)
        candidates = [[{"name": f"name of {cui}", "cui": cui} for cui in listed] for listed in cuis]
        lists = make_lists(
            texts,
            candidates,
            [["T3"]] * len(texts),
            HIERARCHY,
            [f"left of {text} " for text in texts],
            [f" right of {text}" for text in texts],
            [
                listed.index(gold) if gold in listed else -1
                for gold, listed in zip(golds, cuis, strict=True)
            ],
            golds,
        )
        out = self.path / f"pairs-{self.runs}.arrow"
        options = {key: settings.pop(key) for key in OPTIONS & settings.keys()}
        miner = mining.PairMiner(self.concepts, MiningArguments(**settings), seed, **options)
        report = miner.mine(replace(lists, scores=dict(scores)), out, chunk)
        rows = open_arrow(out).to_pylist()
        # Without a limit, the mined mentions are those whose gold concept is in the dictionary.
        known = [number for number, gold in enumerate(golds) if len(self.names(gold))]
        numbers = known if len(known) == len(rows) else range(len(rows))
        return list(chain.from_iterable(map(pairs_of, numbers, rows))), report

    def names(self, cui: str) -> list[str]:
        return self.concepts.names(int(self.concepts.rows([cui])[0]))


def pairs_of(number, row):
    """The pairs of a training row."""
    columns = {name: row[column] for name, column in COLUMNS.items() if column in row}
    for values in zip(*columns.values(), strict=True):
        pair = dict(zip(columns, values, strict=True))
        pair["source"] = SOURCES[pair["source"]]
        yield row | {"mention_id": number, "mention": row["entity"]} | pair


class Relations:
    """A stand-in for `RelationTable`: ``{(gold row, other row): kind}``."""

    def __init__(self, pairs: dict[tuple[int, int], str]) -> None:
        self.pairs = pairs

    def related(self, gold: np.ndarray, rows: np.ndarray, kind: str) -> np.ndarray:
        gold, rows = np.broadcast_arrays(gold, rows)
        flat = [self.pairs.get(pair) == kind for pair in zip(gold.flat, rows.flat, strict=True)]
        return np.array(flat, bool).reshape(rows.shape)
