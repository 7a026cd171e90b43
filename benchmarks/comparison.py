#!/usr/bin/env python
"""How often a version that is as good as the former is called worse, and how often it is shown to be as good.

    python benchmarks/comparison.py --draws 1000
    python benchmarks/comparison.py --draws 300 --margin 0.02

Both versions are drawn alike: answers that differ, or go wrong together, by document; documents of many sizes. The
verdict is that of `evaluation.comparison.compare`: any of three figures, at 95 % for the three together. The first
form compares intervals by the number of documents; the second gives the verdicts by the size of the test split and the
share of answers in which the versions differ.
"""

from __future__ import annotations

import argparse

import numpy as np

from umls_reranker.calibration.resampling import bootstrap_sums, document_sums, jackknife_sums, ratio
from umls_reranker.evaluation.comparison import INCONCLUSIVE, WORSE, figure_difference
from umls_reranker.evaluation.linking import sums_to_f1
from umls_reranker.evaluation.metrics import FIGURES

DOCUMENTS = (10, 20, 40)
LEVEL = 1.0 - 0.05 / 3
RIGHT, SHARED = 0.75, 0.6  # share of correct answers, and of mentions that both versions answer alike
SIZES = {
    "Poisson(8) mentions": lambda rng, n: 1 + rng.poisson(8, n),
    "Pareto(1.2) mentions": lambda rng, n: np.minimum(1 + (8 * rng.pareto(1.2, n)).astype(int), 400),
}

# Documents of a test split and their mean number of mentions: MedMentions, the size of the quickstart, few.
SPLITS = ((168, 45), (500, 2.25), (60, 10))
# Share of answers that a version redraws.
DRAWN_ANEW = (0.05, 0.1, 0.2, 0.4)


def by_document(correlation: float):
    """Shares of right answers that vary over the documents with this intra-document correlation."""
    scale = (1 - correlation) / correlation
    return lambda rng, n: rng.beta(RIGHT * scale, (1 - RIGHT) * scale, n)


QUALITY = {
    "independent": lambda rng, n: np.full(n, RIGHT),
    "nearly all correct": lambda rng, n: np.full(n, 0.97),
    "correlation 0.3": by_document(0.3),
    "correlation 0.8": by_document(0.8),
    "one document in 20 entirely incorrect": lambda rng, n: np.where(rng.random(n) < 0.05, 0.0, 0.8),
}


def figures(rng: np.random.Generator, sizes: np.ndarray, quality) -> list[tuple[np.ndarray, object, int]]:
    """(documents, 2 k) sums of both versions, their statistic, and which sign is better, of three figures."""
    count, index = len(sizes), np.repeat(np.arange(len(sizes)), sizes)
    common, luck = rng.random(len(index)) < SHARED, rng.random(len(index))
    columns = []
    for _ in range(2):
        share = quality(rng, count)[index]
        right = np.where(common, luck, rng.random(len(index))) < share
        score = np.clip(share + 0.1 * rng.normal(size=len(index)), 0.02, 0.98)
        columns.append((right, score, rng.random(len(index)) < 0.8))
    known = (rng.random(len(index)) < 0.9) | columns[0][0] | columns[1][0]
    one = np.ones(len(index))
    accuracy = [column for right, _, _ in columns for column in (right, one)]
    answers = [column for right, _, given in columns for column in (given & right, given, known)]
    brier = [column for right, score, _ in columns for column in ((score - right) ** 2, one)]
    named = ((accuracy, ratio, 1), (answers, sums_to_f1, 1), (brier, ratio, -1))
    return [(document_sums(index, count, chosen), statistic, sign) for chosen, statistic, sign in named]


def called_worse(found, interval) -> bool:
    """Whether any figure's interval lies wholly on the wrong side of 0."""

    def is_worse(sums, statistic, sign):
        half = sums.shape[1] // 2
        low, high = interval(sums, lambda drawn: statistic(drawn[..., :half]) - statistic(drawn[..., half:]))
        return sign * (high if sign > 0 else low) < 0

    return any(is_worse(*figure) for figure in found)


def verdict(
    rng: np.random.Generator, documents: int, mentions: float, anew: float, margin: float
) -> tuple[str, float]:
    """Of two versions that are right with the same probability, and the share of mentions in which they differ."""
    sizes = 1 + rng.poisson(rng.gamma(2.0, (mentions - 1) / 2, documents))
    index = np.repeat(np.arange(documents), sizes)
    quality = by_document(0.1)(rng, documents)[index]
    log_odds = np.log(quality / (1 - quality)) + 1.5 * rng.normal(size=len(index))
    p, one = 1 / (1 + np.exp(-log_odds)), np.ones(len(index))
    common = rng.random(len(index)) < p
    columns: dict[str, list] = {"acc@1": [], "correct_answers_f1": [], "brier_of_top": []}
    for _ in range(2):
        right = np.where(rng.random(len(index)) < anew, rng.random(len(index)) < p, common)
        score = 1 / (1 + np.exp(-log_odds - 0.3 * rng.normal(size=len(index))))
        columns["acc@1"].append([right, one])
        columns["correct_answers_f1"].append([(score > 0.5) & right, score > 0.5, one])
        columns["brier_of_top"].append([(score - right) ** 2, one])
    verdicts = set()
    for figure in (figure for figure in FIGURES if figure.margin is not None):
        sums = [document_sums(index, documents, version) for version in columns[figure.name]]
        verdicts.add(figure_difference(figure, *sums, margin, LEVEL).verdict)
    (ours, _), (theirs, _) = columns["acc@1"]
    return next((name for name in (WORSE, INCONCLUSIVE) if name in verdicts), "passes"), float((ours != theirs).mean())


def print_verdicts(draws: int, seed: int, margin: float) -> None:
    """A table of `verdict`."""
    names = ("passes", INCONCLUSIVE, WORSE)
    print("| documents | mentions each | answers that differ |", " | ".join(names), "|")
    print("|--:" * (3 + len(names)) + "|")
    for documents, mentions in SPLITS:
        for anew in DRAWN_ANEW:
            rng = np.random.default_rng(seed)
            drawn = [verdict(rng, documents, mentions, anew, margin) for _ in range(draws)]
            differ = 100 * np.mean([share for _, share in drawn])
            cells = [f"{100 * np.mean([said == name for said, _ in drawn]):.1f}" for name in names]
            print(f"| {documents} | {mentions:g} | {differ:.1f} % |", " | ".join(cells), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--margin", type=float, help="print verdicts with this margin instead")
    options = parser.parse_args()
    if options.margin is not None:
        print_verdicts(options.draws, options.seed, options.margin)
        return
    intervals = {
        "jackknife": lambda sums, statistic: jackknife_sums(sums, statistic, confidence=LEVEL),
        "bootstrap": lambda sums, statistic: bootstrap_sums(sums, statistic, confidence=LEVEL, resamples=400),
    }
    heads = [f"{name}, {documents}" for documents in DOCUMENTS for name in intervals]
    print("| documents of | answers |", " | ".join(heads), "|")
    print("|---|---|" + "--:|" * len(heads))
    for size, draw_sizes in SIZES.items():
        for kind, quality in QUALITY.items():
            cells = []
            for documents in DOCUMENTS:
                rng = np.random.default_rng(options.seed)
                called = dict.fromkeys(intervals, 0)
                for _ in range(options.draws):
                    found = figures(rng, draw_sizes(rng, documents), quality)
                    for name, interval in intervals.items():
                        called[name] += called_worse(found, interval)
                cells += [f"{100 * count / options.draws:.1f}" for count in called.values()]
            print(f"| {size} | {kind} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
