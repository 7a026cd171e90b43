#!/usr/bin/env python
"""How often the certificate of the high tier breaks its promise, and what share of the mentions it certifies.

    python benchmarks/certificate.py --draws 5000 --calibrated_draws 500
    python benchmarks/certificate.py --outcomes runs/hpo-minilm/report/outcomes.parquet

Target precision 0.95 at confidence 0.95. First table: documents whose answers are right a little less often than that,
so that every certificate is wrong. Second table: calibrated scores, of which a threshold has to be found. With
--outcomes: the spread of coverage over 20 bootstrap draws of the documents of a recorded run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.special import ndtri
from scipy.stats import beta

from umls_reranker.calibration.certificate import clopper_pearson_lower, doubt, find_certificate
from umls_reranker.evaluation.outcomes import Outcomes

TARGET, CONFIDENCE = 0.95, 0.95
TRUE_PRECISION = 0.949
# Calibrated scores are drawn from this beta distribution.
SCORES = (6.0, 0.8)

Documents = tuple[np.ndarray, np.ndarray]


def equal(documents: int, mentions: int) -> Callable[..., np.ndarray]:
    return lambda draws, rng: np.full((draws, documents), mentions)


def poisson(documents: int, mentions: float) -> Callable[..., np.ndarray]:
    return lambda draws, rng: np.maximum(rng.poisson(mentions, (draws, documents)), 1)


def pareto(documents: int, at_most: int = 100_000) -> Callable[..., np.ndarray]:
    """Sizes from 3 on with infinite variance, unless cut."""
    return lambda draws, rng: np.minimum(np.ceil(3 * (1 + rng.pareto(1.2, (draws, documents)))), at_most).astype(int)


def correlated(sizes: Callable, correlation: float, largest_worst: bool = False) -> Callable[..., Documents]:
    """Errors with this intra-document correlation (beta-binomial)."""

    def draw(draws: int, rng: np.random.Generator) -> Documents:
        size = sizes(draws, rng)
        mean = _largest_worst(size) if largest_worst else np.full(size.shape, TRUE_PRECISION)
        if correlation:
            spread = (1 - correlation) / correlation
            mean = rng.beta(mean * spread, (1 - mean) * spread)
        return size, rng.binomial(size, mean)

    return draw


def wholly_wrong(sizes: Callable, share: float) -> Callable[..., Documents]:
    """This share of documents wholly wrong, the others' errors independent and as frequent as the precision allows."""

    def draw(draws: int, rng: np.random.Generator) -> Documents:
        size = sizes(draws, rng)
        right = rng.binomial(size, min(TRUE_PRECISION / (1 - share), 1.0))
        return size, np.where(rng.random(size.shape) < share, 0, right)

    return draw


def _largest_worst(size: np.ndarray) -> np.ndarray:
    """Precision of each document: up to 20 points lower in the largest tenth; of all mentions `TRUE_PRECISION`."""
    largest = np.zeros(size.shape, bool)
    np.put_along_axis(largest, np.argsort(-size, axis=1)[:, : size.shape[1] // 10], True, axis=1)
    weight = (size * largest).sum(axis=1, keepdims=True) / size.sum(axis=1, keepdims=True)
    others = np.minimum(TRUE_PRECISION + 0.2 * weight, 0.999)
    return np.where(largest, (TRUE_PRECISION - (1 - weight) * others) / weight, others)


REGIMES = {
    "180 documents of Pareto(1.2) sizes, correlation 0.3": correlated(pareto(180), 0.3),
    "180 documents of Pareto(1.2) sizes, correlation 0.8": correlated(pareto(180), 0.8),
    "180 documents of Pareto(1.2) sizes, the largest worst": correlated(pareto(180), 0.0, largest_worst=True),
    "20 documents x 40 mentions, correlation 0.3": correlated(equal(20, 40), 0.3),
    "30 x 20, correlation 0.5": correlated(equal(30, 20), 0.5),
    "30 x 40, 3 % wholly wrong": wholly_wrong(equal(30, 40), 0.03),
    "12 x 40, 10 % wholly wrong": wholly_wrong(equal(12, 40), 0.1),
    "60 x 20, correlation 0.5": correlated(equal(60, 20), 0.5),
    "100 x 20, correlation 0.8": correlated(equal(100, 20), 0.8),
    "100 x 40, 2 % wholly wrong": wholly_wrong(equal(100, 40), 0.02),
    "200 x 40, 1 % wholly wrong": wholly_wrong(equal(200, 40), 0.01),
    "200 x 40, 5.1 % wholly wrong": wholly_wrong(equal(200, 40), 0.051),
    "1,000 of Pareto(1.2) sizes to 200, correlation 0.8": correlated(pareto(1000, 200), 0.8),
    "the same, the largest worst": correlated(pareto(1000, 200), 0.8, largest_worst=True),
    "harmless: 1,000 x 1": correlated(equal(1000, 1), 0.0),
    "harmless: 5,000 x 1": correlated(equal(5000, 1), 0.0),
    "harmless: 180 x 10, independent": correlated(equal(180, 10), 0.0),
    "harmless: 180 x 10, correlation 0.05": correlated(equal(180, 10), 0.05),
    "harmless: 2,000 x 10, independent": correlated(equal(2000, 10), 0.0),
    "harmless: 2,000 x 10, correlation 0.05": correlated(equal(2000, 10), 0.05),
}
CALIBRATED = {
    "1,500 x 1": (equal(1500, 1), 0.0),
    "180 x 10": (poisson(180, 10), 0.0),
    "180 x 10, correlated": (poisson(180, 10), 0.2),
    "180 x 40, correlated": (poisson(180, 40), 0.2),
    "900 x 40, correlated": (poisson(900, 40), 0.2),
}


def broken(regime: Callable[..., Documents], draws: int, rng: np.random.Generator) -> tuple[float, float]:
    """Shares of draws that are certified although they must not be: by document, and by mention."""
    size, right = regime(draws, rng)
    by_document = [doubt(n, r, TARGET) <= 1 - CONFIDENCE for n, r in zip(size, right, strict=True)]
    by_mention = clopper_pearson_lower(right.sum(axis=1), size.sum(axis=1), CONFIDENCE) >= TARGET
    return float(np.mean(by_document)), float(by_mention.mean())


def certified(sizes: Callable, correlation: float, rng: np.random.Generator) -> tuple[float, float]:
    """(share of mentions certified, true precision there) of one draw; (0, nan) where nothing is."""
    size = sizes(1, rng)[0]
    document = np.repeat(np.arange(len(size)), size)
    luck = np.sqrt(correlation) * rng.normal(size=len(size))[document]
    luck += np.sqrt(1 - correlation) * rng.normal(size=len(document))
    scores = rng.beta(*SCORES, len(document))
    threshold = find_certificate(scores, luck < ndtri(scores), document, TARGET, CONFIDENCE).threshold
    return (0.0, np.nan) if threshold is None else (float(np.mean(scores >= threshold)), _precision(threshold))


def _precision(threshold: float) -> float:
    """Mean of the scores above a threshold."""
    a, b = SCORES
    return float(a / (a + b) * beta.sf(threshold, a + 1, b) / beta.sf(threshold, a, b))


def _best_coverage() -> float:
    """Share of mentions above the threshold that one would choose who knew the precision at each."""
    grid = np.linspace(0.5, 1.0, 5001)[:-1]
    return float(beta.sf(next(t for t in grid if _precision(t) >= TARGET), *SCORES))


def bootstrapped(path: Path, rng: np.random.Generator, draws: int = 20) -> np.ndarray:
    """(draws,) share of mentions certified, each on documents drawn anew from those of a recorded run."""
    outcomes = Outcomes.load(path)
    right = outcomes.correct
    order = np.argsort(outcomes.document, kind="stable")
    documents = np.split(order, np.flatnonzero(outcomes.document[order][1:] != outcomes.document[order][:-1]) + 1)
    coverage = []
    for _ in range(draws):
        drawn = [documents[number] for number in rng.integers(0, len(documents), len(documents))]
        rows, index = np.concatenate(drawn), np.repeat(np.arange(len(drawn)), [len(rows) for rows in drawn])
        threshold = find_certificate(outcomes.score[rows], right[rows], index, TARGET, CONFIDENCE).threshold
        coverage.append(0.0 if threshold is None else np.mean(outcomes.score[rows] >= threshold))
    return np.array(coverage)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5000)
    parser.add_argument("--calibrated_draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--outcomes", type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    if options.outcomes:
        coverage = bootstrapped(options.outcomes, rng)
        ends = " ".join(f"{end:.3f}" for end in np.quantile(coverage, [0.0, 0.25, 0.5, 0.75, 1.0]))
        print(f"coverage: mean {coverage.mean():.3f}, deviation {coverage.std():.3f}, quartiles {ends}")
        return
    print(
        f"{options.draws:,} draws each; two standard errors of 5 %: {2 * np.sqrt(0.05 * 0.95 / options.draws):.2%}\n"
    )
    print("| documents, true precision 0.949 | broken | mentions taken as independent |\n|---|---:|---:|")
    for name, regime in REGIMES.items():
        ours, theirs = broken(regime, options.draws, rng)
        print(f"| {name} | {ours:.1%} | {theirs:.1%} |", flush=True)
    print(
        f"\n{options.calibrated_draws:,} draws each. Best coverage in hindsight: {_best_coverage():.3f}\n\n"
        "| calibrated scores | something certified | coverage, mean | 10 % to 90 % of draws | broken |\n"
        "|---|---:|---:|---:|---:|"
    )
    for name, (sizes, correlation) in CALIBRATED.items():
        coverage, precision = np.transpose(
            [certified(sizes, correlation, rng) for _ in range(options.calibrated_draws)]
        )
        low, high = np.quantile(coverage, [0.1, 0.9])
        print(
            f"| {name} | {np.mean(coverage > 0):.1%} | {coverage.mean():.3f} | {low:.3f} - {high:.3f} | "
            f"{np.mean(precision < TARGET):.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
