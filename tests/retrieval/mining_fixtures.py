"""A dictionary and lists of its concepts, for the tests of mining."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from list_fixtures import make_lists
from trigram_encoder import HIERARCHY, make_concepts

from umls_reranker.core.arrays import open_arrow
from umls_reranker.models.pairs import PairTemplate
from umls_reranker.retrieval import mining
from umls_reranker.retrieval.arguments import MiningArguments
from umls_reranker.retrieval.negatives import SOURCES
from umls_reranker.vocab.text import normalize_name

NEAREST_ONLY = {"same_type_negatives": 0, "random_negatives": 0}


class Setup:
    """Concepts (CUI -> types separated by blanks, names) in a folder."""

    def __init__(self, path: Path, concepts: dict[str, tuple[str, list[str]]]) -> None:
        self.path = path
        self.concepts = make_concepts(path / "concepts", concepts)
        self.runs = 0

    def mine(
        self,
        mentions,
        *,
        chunk=8_192,
        seed=13,
        relations=None,
        template=None,
        scores=(),
        teachers=(),
        **settings,
    ):
        """Pairs as rows, and the report; a mention is (text, gold CUI, CUIs of its list), candidates are called so."""
        self.runs += 1
        texts, golds, cuis = zip(*mentions, strict=True)
        candidates = [
            [{"name": f"name of {cui}", "cui": cui} for cui in of_list] for of_list in cuis
        ]
        places = [
            of_list.index(gold) if gold in of_list else -1
            for gold, of_list in zip(golds, cuis, strict=True)
        ]
        lefts = [f"left of {text} " for text in texts]
        rights = [f" right of {text}" for text in texts]
        types = [["T3"]] * len(texts)
        lists = make_lists(texts, candidates, types, HIERARCHY, lefts, rights, places, golds)
        lists = replace(lists, scores=dict(scores))
        out = self.path / f"pairs-{self.runs}.arrow"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mining, "MENTIONS_AT_ONCE", chunk)
            miner = mining.PairMiner(
                self.concepts,
                MiningArguments(**settings),
                seed,
                relations=relations,
                template=template or PairTemplate(),
                teachers=teachers,
            )
            report = miner.mine(lists, out)
        rows = open_arrow(out).to_pylist()
        # Without a limit, the mined mentions are those whose gold concept is in the dictionary.
        known = [number for number, gold in enumerate(golds) if len(self.names(gold))]
        keys = {"mention": "entity", "left": "left", "right": "right"}
        lists_of = {
            "name": "names",
            "cui": "cuis",
            "label": "labels",
            "weight": "weights",
            "source": "sources",
        }
        pairs = []
        for number, row in zip(
            known if len(known) == len(rows) else range(len(rows)), rows, strict=True
        ):
            for values in zip(*(row[name] for name in lists_of.values()), strict=True):
                pair = {key: row[name] for key, name in keys.items()} | dict(
                    zip(lists_of, values, strict=True)
                )
                pairs.append(pair | {"mention_id": number, "source": SOURCES[pair["source"]]})
        for pair, score in zip(
            pairs, (score for row in rows for score in row.get("teacher", ())), strict=False
        ):
            pair["teacher"] = score
        return pairs, report

    def forms(self, cui: str) -> set[str]:
        return {normalize_name(name) for name in self.names(cui)}

    def names(self, cui: str) -> list[str]:
        return self.concepts.names(int(self.concepts.rows([cui])[0]))


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
