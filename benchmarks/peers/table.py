#!/usr/bin/env python
"""The table of all systems that linked an export: what they get right, how surely, at what cost.

    python benchmarks/peers/table.py runs/peers

Reads EXPORT/rows. Ties in a score are broken against the system: the gold concept ranks behind
every candidate with the same score. "At precision" answers the mentions whose top candidate has a
score of at least a threshold, the one with the largest share at this precision on the calibration
documents, and is measured on the test documents; our models have such a threshold themselves,
cross-fitted. Intervals are 95 %, by document; differences are paired. Prints Markdown.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from peer import ACCEPTED, MOST_CANDIDATES, read_rows

PRECISIONS = (0.95, ACCEPTED)
# The lowest precision in the picture.
LOWEST = 0.6
# What the picture calls systems that are not called as their folder.
TITLES = {
    "ours": "umls_reranker",
    "bm25": "bm25s",
    "fuzzy": "rapidfuzz",
    "scispacy": "scispaCy",
    "bi_encoder": "MiniLM",
}
QUALITY = [
    "system",
    "reads besides names",
    "acc@1",
    "points to ours",
    "points over its own order",
    "acc@1, gold in dictionary",
    "the same, ties as listed",
    "recall@32",
    "answered",
    "correct of these",
    *(f"answered at precision {precision:.2f} (its precision)" for precision in PRECISIONS),
]
COSTS = ["system", "memory MB", "installed MB", "minutes to install", "minutes to set up"]


class Answers(NamedTuple):
    """What a system answers for the n mentions of a split.

    Attributes:
        ranks: (n,) of the gold concept, 0 is the top, -1 if missing; behind all candidates with its
            score.
        listed: (n,) bool, whether the candidate that comes first is the gold concept.
        score: (n,) of the top candidate, -inf without candidates.
        documents: (n,) ids. in_dictionary: (n,) bool.
        accepted: (n,) whether a model that was made of lists accepts it; None for other systems.
    """

    ranks: np.ndarray
    listed: np.ndarray
    score: np.ndarray
    documents: np.ndarray
    in_dictionary: np.ndarray
    accepted: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        return self.ranks == 0


def answers(
    rows: Sequence[Mapping[str, Any]], mentions: Mapping[int, Mapping[str, Any]]
) -> Answers:
    """Judge the rows of a split by its mentions, id -> mention."""
    answered = []
    for row in rows:
        mention = mentions[row["mention_id"]]
        cuis = row["cuis"][:MOST_CANDIDATES]
        scores = row["scores"][:MOST_CANDIDATES]
        rank = -1
        if mention["cui"] in cuis:
            gold_score = scores[cuis.index(mention["cui"])]
            rank = sum(score >= gold_score for score in scores) - 1
        answer = {
            "ranks": rank,
            "listed": cuis[:1] == [mention["cui"]],
            "score": row.get("confidence", scores[0]) if cuis else -np.inf,
            "documents": mention["doc_id"],
            "in_dictionary": mention["in_dictionary"],
            "accepted": row.get("accepted"),
        }
        answered.append(answer)
    return Answers(
        **{name: np.array([answer[name] for answer in answered]) for name in Answers._fields}
    )


def threshold_at(score: np.ndarray, correct: np.ndarray, precision: float) -> float:
    """The score from which on most answers are given at this precision; inf if none are.

    Arguments are (n,).
    """
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    is_precise = np.cumsum(correct[order]) >= precision * np.arange(1, len(order) + 1)
    # Mentions with equal scores are answered together.
    is_precise &= np.append(ranked[1:] < ranked[:-1], True) & (ranked > -np.inf)
    return float(ranked[np.flatnonzero(is_precise)[-1]]) if is_precise.any() else np.inf


def quality(
    name: str,
    test: Answers,
    chosen_on: Answers | None,
    ours: Answers | None,
    before: Answers | None,
    inputs: Sequence[str],
) -> list[str]:
    """The cells of a system in the table of what it gets right.

    Args:
        chosen_on: its answers for the documents that thresholds are chosen on; without them,
            `test.accepted` counts.
        ours: those that it is compared with, for the same mentions.
        before: those of the system whose candidates it ranks, of which the order counts.
    """
    from umls_reranker.evaluation.formatting import interval, number, percent
    from umls_reranker.evaluation.intervals import Documents

    documents = Documents.of(test.documents)
    every = np.ones(len(test.ranks))

    def points_over(correct: np.ndarray) -> str:
        difference = documents.measure([test.correct * 1 - correct, every], is_share=False)
        return f"{100 * difference['value']:+.1f} ({interval(difference, separator=' to ')})"

    known = test.in_dictionary
    answered = test.score > -np.inf
    is_listed = (test.ranks >= 0) & (test.ranks < MOST_CANDIDATES)

    def with_interval(share) -> str:
        return f"{number(share)} ({interval(share, 3, 1.0)})"

    cells = [
        name,
        ", ".join(inputs) or "nothing",
        with_interval(documents.measure([test.ranks == 0, every])),
        points_over(ours.correct) if ours and test is not ours else "",
        points_over(before.listed) if before else "",
        with_interval(documents.measure([(test.ranks == 0) & known, known])),
        number(test.listed[test.in_dictionary].mean()),
        number(documents.measure([is_listed & known, known])),
        percent(answered.mean()),
        percent(documents.measure([test.correct & answered, answered])),
    ]
    for precision in PRECISIONS:
        if chosen_on:
            confident = test.score >= threshold_at(chosen_on.score, chosen_on.correct, precision)
        elif precision == ACCEPTED:
            confident = test.accepted
        else:
            cells.append("")
            continue
        coverage = with_interval(documents.measure([confident, every]))
        correct = number(documents.measure([test.correct & confident, confident]))
        cells.append(f"{coverage} ({correct})" if confident.any() else "none")
    return cells


def picture(curves: Mapping[str, Mapping[str, Any]], certified: Sequence[float]) -> str:
    """Precision against coverage as an SVG file, for light and dark pages.

    Args:
        curves: system -> its `risk_coverage`, the most important first.
        certified: coverage and precision of a certified point; none if empty.
    """

    def at(coverage: float, precision: float) -> str:
        return f"{40 + 400 * coverage:.1f},{310 - 700 * (max(precision, LOWEST) - LOWEST):.1f}"

    parts = [
        "<style>svg { color: #1b1f24; } @media (prefers-color-scheme: dark) { svg { color: "
        "#e6eaef; } }</style>"
    ]
    for tenth in range(6, 11):
        x, y = at(0, tenth / 10).split(",")
        parts.append(
            f'<path d="M{x},{y}H440" stroke="currentColor" opacity=".15"/><text x="4" '
            f'y="{y}">{tenth}0 %</text>'
        )
    labels = []
    for number, (name, curve) in reversed([*enumerate(curves.items())]):
        points = [
            pair
            for pair in zip(curve["coverage"], curve["precision"], strict=True)
            if pair[0] > 0.02
        ]
        color = f"hsl({25 + 40 * number}, 60%, 45%)" if number else "#0066a6"
        width = 1.5 if number else 3
        line = " ".join(at(*pair) for pair in points)
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="{width}"/>'
        )
        system, _, ranked = name.partition("+")
        title = TITLES.get(system, system) + (", reranked" if ranked else "")
        labels.append((float(line.rpartition(",")[2]), color, title))
    lowest = 0.0
    for y, color, title in sorted(labels):
        # Names of curves that end together stand below each other.
        lowest = max(y, lowest + 13)
        parts.append(f'<text x="445" y="{lowest:.0f}" fill="{color}">{title}</text>')
    if certified:
        x, y = at(*certified).split(",")
        parts.append(
            f'<circle cx="{x}" cy="{y}" r="5" fill="#0066a6"/><text x="{x}" '
            f'y="{float(y) - 9}">certified</text>'
        )
    parts += [
        f'<text x="{30 + 4 * share}" y="326">{share} %</text>' for share in (0, 25, 50, 75, 100)
    ]
    parts.append(
        '<text x="40" y="345">share of mentions answered; precision of the answers upward</text>'
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 580 350" font-family="sans-serif" '
        'font-size="12" fill="currentColor">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export", type=Path, help="folder that export.py wrote")
    parser.add_argument(
        "systems",
        nargs="*",
        help="folders of EXPORT/rows, in the order of the table (default: all)",
    )
    parser.add_argument("--ours", default="ours", help="the one that others are compared with")
    parser.add_argument(
        "--picture", type=Path, help="SVG file to write: precision against coverage on test"
    )
    parser.add_argument(
        "--certified", nargs=2, type=float, default=(), help="a point of it: coverage and precision"
    )
    arguments = parser.parse_args()
    from umls_reranker.evaluation.curves import risk_coverage
    from umls_reranker.evaluation.formatting import markdown_table, number

    folder = arguments.export / "rows"
    mentions = {
        split: {row["mention_id"]: row for row in read_rows(arguments.export / f"{split}.jsonl")}
        for split in ("calibration", "test")
    }

    def of(name: str, split: str = "test") -> Answers:
        return answers(list(read_rows(folder / name / f"{split}.jsonl")), mentions[split])

    ours = of(arguments.ours) if (folder / arguments.ours / "facts.json").exists() else None
    rows = []
    costs = []
    notes = []
    curves = {}
    for name in arguments.systems or sorted(
        path.parent.name for path in folder.glob("*/facts.json")
    ):
        facts = next(read_rows(folder / name / "facts.json"))
        test = ours if ours and name == arguments.ours else of(name)
        ranked, _, is_ours = name.partition("+")
        is_peer = "versions" in facts
        chosen_on = of(name, "calibration") if is_peer else None
        curves[name] = risk_coverage(test.score, test.correct)
        rows.append(
            quality(name, test, chosen_on, ours, of(ranked) if is_ours else None, facts["inputs"])
        )
        if is_peer:
            minutes = [facts.get(key, np.nan) / 60 for key in ("install_seconds", "setup_seconds")]
            sizes = [number(value, 0) for value in (facts["peak_memory_mb"], facts["installed_mb"])]
            costs.append([name, *sizes, *(number(value, 1) for value in minutes)])
            versions = ", ".join(" ".join(pair) for pair in facts["versions"].items())
            notes.append(
                f"* **{name}** ({versions}): {'; '.join(facts['deviations']) or 'as documented'}."
            )
    if arguments.picture:
        arguments.picture.write_text(picture(curves, arguments.certified), encoding="utf-8")
    print(markdown_table(QUALITY, rows), markdown_table(COSTS, costs), "\n".join(notes), sep="\n\n")


if __name__ == "__main__":
    main()
