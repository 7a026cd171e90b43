#!/usr/bin/env python
"""The table of all systems that linked an export: what they get right, how sure they can be of it, and what it costs.

    python benchmarks/peers/table.py runs/peers --ours ours

Reads EXPORT/rows. Ties in a score are broken against the system: the gold concept ranks behind every candidate with
the same score. "At precision" answers the mentions whose top candidate has a score of at least a threshold, the one
with the largest share at this precision on the calibration documents (those of dev for a model fitted on these), and
is measured on the test documents. Intervals are 95 %, by document; differences are paired. Prints Markdown.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PRECISIONS = (0.95, 0.90)
MOST_CANDIDATES = 32
HEADER = [
    *("system", "reads besides names", "acc@1", "points to ours", "acc@1, gold in dictionary", "ties as listed"),
    *("recall@32", "answered", "correct of these"),
    *(f"answered at precision {precision:.2f} (its precision)" for precision in PRECISIONS),
    *("mentions/s", "memory MB", "installed MB", "minutes to set up"),
]


class Answers(NamedTuple):
    """What a system answers for the n mentions of a split.

    Attributes:
        ranks: (n,) of the gold concept, 0 is the top, -1 if missing; behind all candidates with its score.
        listed: (n,) bool, whether the candidate that comes first is the gold concept.
        score: (n,) of the top candidate, -inf without candidates.
        documents: (n,) ids. in_dictionary: (n,) bool.
    """

    ranks: np.ndarray
    listed: np.ndarray
    score: np.ndarray
    documents: np.ndarray
    in_dictionary: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        return self.ranks == 0


def answers(rows: Sequence[Mapping[str, Any]], mentions: Mapping[int, Mapping[str, Any]]) -> Answers:
    """Judge the rows of a split by its mentions, id -> mention."""
    columns: list[tuple] = []
    for row in rows:
        mention, cuis, scores = mentions[row["mention_id"]], row["cuis"][:MOST_CANDIDATES], row["scores"]
        rank = -1
        if mention["cui"] in cuis:
            rank = sum(score >= scores[cuis.index(mention["cui"])] for score in scores[: len(cuis)]) - 1
        top = row.get("confidence", scores[0]) if cuis else -np.inf
        columns.append((rank, cuis[:1] == [mention["cui"]], top, mention["doc_id"], mention["in_dictionary"]))
    return Answers(*(np.array(column) for column in zip(*columns, strict=True)))


def threshold_at(score: np.ndarray, correct: np.ndarray, precision: float) -> float:
    """The score from which on answers are the most at this precision; inf if none are. Arguments are (n,)."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    is_precise = np.cumsum(correct[order]) >= precision * np.arange(1, len(order) + 1)
    # Mentions with equal scores are answered together.
    is_precise &= np.append(ranked[1:] < ranked[:-1], True) & (ranked > -np.inf)
    return float(ranked[np.flatnonzero(is_precise)[-1]]) if is_precise.any() else np.inf


def table_row(name: str, test: Answers, chosen_on: Answers, ours: Answers, facts: Mapping[str, Any]) -> list[str]:
    """The cells of a system.

    Args:
        chosen_on: its answers for the documents that thresholds are chosen on.
        ours: of the system that it is compared with, for the same mentions.
        facts: of its facts.json.
    """
    from umls_reranker.calibration.resampling import ratio
    from umls_reranker.evaluation.formats import number, percent, with_interval
    from umls_reranker.evaluation.linking import Documents, linking_metrics

    documents, every = Documents.of(test.documents), np.ones(len(test.ranks))
    metrics = linking_metrics(test.ranks, test.in_dictionary, documents, ks=(MOST_CANDIDATES,))
    inside, answered = metrics["in_dictionary"], test.score > -np.inf
    # Not `ratio` itself, whose intervals at 0 and 1 are those of a share.
    difference = documents.measure([test.correct * 1 - ours.correct, every], lambda sums: 100 * ratio(sums))
    cells = [
        name,
        ", ".join(facts["inputs"]) or "nothing",
        with_interval(metrics["acc@1"]),
        with_interval(difference, 1) if test is not ours else "",
        with_interval(inside["acc@1"]),
        number(test.listed[test.in_dictionary].mean()),
        number(inside[f"recall@{MOST_CANDIDATES}"]),
        percent(answered.mean()),
        percent(documents.measure([test.correct & answered, answered])),
    ]
    for precision in PRECISIONS:
        confident = test.score >= threshold_at(chosen_on.score, chosen_on.correct, precision)
        share = documents.measure([confident, every])
        cells.append(f"{with_interval(share)} ({number(documents.measure([test.correct & confident, confident]))})")
    minutes = (facts.get("setup_seconds", np.nan) + facts.get("install_seconds", 0)) / 60
    costs = (facts.get("mentions_per_second"), facts.get("peak_memory_mb"), facts.get("installed_mb"))
    return [*cells, *(number(cost, 0) for cost in costs), number(minutes, 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path, help="folder that export.py wrote")
    parser.add_argument("--ours", default="ours", help="system that the others are compared with")
    parser.add_argument("--rows", default="rows", help="name of the folder in EXPORT that holds the rows")
    parser.add_argument("systems", nargs="*", help="folders in it, in the order of the table (default: all)")
    arguments = parser.parse_args()
    from peer import read_rows

    from umls_reranker.evaluation.formats import markdown_table

    folder = arguments.export / arguments.rows
    mentions = {
        split: {row["mention_id"]: row for row in read_rows(arguments.export / f"{split}.jsonl")}
        for split in ("dev", "calibration", "test")
    }

    def of(name: str, split: str) -> Answers:
        return answers(list(read_rows(folder / name / f"{split}.jsonl")), mentions[split])

    ours, cells, notes = of(arguments.ours, "test"), [], []
    for name in arguments.systems or sorted(path.parent.name for path in folder.glob("*/facts.json")):
        facts = next(read_rows(folder / name / "facts.json"))
        seconds = [row["seconds"] for row in read_rows(folder / name / "test.jsonl") if "seconds" in row]
        if seconds:
            facts["mentions_per_second"] = len(seconds) / sum(seconds)
        test = ours if name == arguments.ours else of(name, "test")
        cells.append(table_row(name, test, of(name, facts.get("chosen_on", "calibration")), ours, facts))
        versions = ", ".join(f"{package} {number}" for package, number in facts.get("versions", {}).items())
        notes.append(f"* **{name}** ({versions}): {'; '.join(facts['deviations']) or 'as documented'}.")
    print(markdown_table(HEADER, cells), "", *notes, sep="\n")


if __name__ == "__main__":
    main()
