#!/usr/bin/env python
"""What each feature gives where lists have no score: SapBERT's candidates, shuffled.

    python benchmarks/name_features.py runs/built-in-lists/lists.jsonl

Prints acc@1, without the mentions' types, on 168 mentions of `umls_lists`, those of documents
outside `medmentions_st21pv`: of names alone, with ids of a vocabulary that was not counted, and
with CUIs. First of the cosine of trigrams and of `built-in`; then of its weights fitted again, on
the lists that `built_in.py` wrote, with all features and without each. These mentions were also
used for choosing. Of candidates with equal scores, each counts as the top candidate in part.
"""

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
from built_in import FEATURES, OWN, SEED, known_names, without_scores

from umls_reranker import UMLSReranker
from umls_reranker.calibration.cross_counting import cross_counted_features
from umls_reranker.calibration.feature_table import feature_table
from umls_reranker.calibration.features import inputs_of
from umls_reranker.calibration.fusion import FeatureFusion
from umls_reranker.calibration.missing_inputs import without_inputs
from umls_reranker.calibration.reliability import document_folds
from umls_reranker.lists.candidate_lists import CandidateLists
from umls_reranker.lists.labels import read_labelled_lists
from umls_reranker.vocab.normalization import normalize_texts
from umls_reranker.vocab.trigrams import shared_trigrams
from umls_reranker.vocab.types import TypeHierarchy

HIERARCHY = TypeHierarchy.built_in()
# Before a CUI.
PREFIXES = {"unknown": "LOCAL:", "known": ""}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lists", type=Path, help="lists that built_in.py wrote")
    parser.add_argument("--model", default="built-in")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    rows = unseen_rows(options.data)
    is_gold = np.array([one["cui"] == row["cui"] for row in rows for one in row["candidates"]])
    lists = {ids: lists_with(rows, ids) for ids in ("absent", "unknown", "known")}
    print(f"acc@1 of {len(rows)} mentions, also used for choosing\n")
    print("| | names alone | unknown ids | CUIs |\n|---|--:|--:|--:|")
    bare = lists["absent"]
    shares = shared_trigrams(
        normalize_texts(bare.mentions),
        normalize_texts(bare.names.texts),
        bare.owner,
        bare.names.codes,
    )
    print_row("cosine of trigrams", [accuracy(np.prod(shares, axis=0), is_gold, bare)] * 3)
    reranker = UMLSReranker.from_pretrained(options.model)
    tops = [
        accuracy(reranker.decide(each).scores.log_odds, is_gold, each) for each in lists.values()
    ]
    print_row(options.model, tops)
    labelled = without_scores(read_labelled_lists(options.lists, HIERARCHY))
    folds = document_folds(labelled.annotations.documents, SEED)
    features = [one for one in (*FEATURES, *OWN) if "entity_type" not in inputs_of([one])]
    gold = labelled.annotations.gold
    known = cross_counted_features(labelled, known_names(options.data), folds, features)
    names = [one for one in features if "cui" not in inputs_of([one])]
    unknown = cross_counted_features(
        without_inputs(labelled, ["cui"]), known_names(options.data), folds, names
    )
    for left_out in ((), *((one,) for one in features), OWN):
        cells = []
        for (table, counts), each in ((unknown, bare), (known, lists["known"])):
            weighed = [one for one in table.candidates if one not in left_out]
            fusion = FeatureFusion.fit(weighed, table, gold)
            utilities = fusion.utilities(feature_table(each, counts, weighed))
            cells.append(accuracy(utilities, is_gold, each))
        title = f"without {', '.join(left_out)}" if left_out else "all features"
        print_row(title, [cells[0], cells[0], cells[1]])


def unseen_rows(data: Path) -> list[dict]:
    """The lists of documents outside `medmentions_st21pv`, each in an order by chance."""
    corpus = data / "medmentions_st21pv" / "corpus_pubtator.txt.gz"
    with gzip.open(corpus, "rt", encoding="utf-8") as lines:
        known = {line.split("|")[0] for line in lines if "|t|" in line}
    with (data / "umls_lists" / "sapbert_top10.jsonl").open(encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if str(row["doc_id"]) not in known]
    rng = np.random.default_rng(SEED)
    for row in rows:
        rng.shuffle(row["candidates"])
    return rows


def lists_with(rows: list[dict], ids: str) -> CandidateLists:
    """The lists without scores and types, and with such ids."""
    changed = []
    for row in rows:
        items = [{"name": one["name"]} for one in row["candidates"]]
        for item, candidate in zip(items, row["candidates"], strict=True):
            if ids in PREFIXES:
                item["cui"] = PREFIXES[ids] + candidate["cui"]
        changed.append({"entity": row["entity"], "candidates": items})
    return CandidateLists.from_rows(HIERARCHY, changed)


def accuracy(scores: np.ndarray, is_gold: np.ndarray, lists: CandidateLists) -> float:
    """Share of mentions whose top candidate is gold; equal candidates share it."""
    best = np.full(len(lists), -np.inf)
    np.maximum.at(best, lists.owner, scores)
    is_top = scores >= best[lists.owner] - 1e-9
    tops = np.bincount(lists.owner, is_top)
    return float((np.bincount(lists.owner, is_top & is_gold) / tops).mean())


def print_row(title: str, shares: list[float]) -> None:
    print(f"| {title} | " + " | ".join(f"{share:.3f}" for share in shares) + " |", flush=True)


if __name__ == "__main__":
    main()
