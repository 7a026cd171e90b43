#!/usr/bin/env python
"""How often the certificate of the high tier breaks its guarantee, and what share of the mentions it certifies.

    python benchmarks/certificate.py --draws 5000 --calibrated_draws 500
    python benchmarks/certificate.py --sequences 1000
    python benchmarks/certificate.py --choices 200
    python benchmarks/certificate.py --outcomes runs/hpo-minilm/report/outcomes.parquet

Target precision 0.95 at confidence 0.95. First table: documents whose answers are correct a little less often than
that, so that every certificate is wrong; "could be certified" are draws with enough documents for a certificate
without an error, and "power" is how often the same documents are certified where 99 % of the answers are correct.
Second table: calibrated scores, of which a threshold has to be found. With --sequences: certificates of documents that
are collected on and on, as the estimate of missing documents asks, with all documents or with new ones only. With
--choices: lists with a score and logits of little worth, so that the cross-encoder stays in some folds and is left out
in others (calibrate --lists); the tier as it is served is measured on new lists. With --outcomes: the spread of
coverage over 20 bootstrap draws of the documents of a recorded run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri
from scipy.stats import beta

from umls_reranker.calibration.certificate import find_certificate
from umls_reranker.calibration.certify import certify
from umls_reranker.calibration.decisions import rank
from umls_reranker.calibration.fitting import fit_calibration
from umls_reranker.calibration.precision_test import PrecisionTest, clopper_pearson_lower
from umls_reranker.calibration.string_counts import StringCounts
from umls_reranker.calibration.thresholds import TIERS
from umls_reranker.core.settings import CROSS_ENCODER, CalibrationArguments
from umls_reranker.data.candidate_lists import AnnotatedLists, Annotations, CandidateLists
from umls_reranker.data.semantic_types import TypeHierarchy
from umls_reranker.evaluation.outcomes import Outcomes
from umls_reranker.models.cross_encoder import Scores

TARGET, CONFIDENCE = 0.95, 0.95
TRUE_PRECISION, HARMLESS_PRECISION = 0.949, 0.99
# Calibrated scores are drawn from this beta distribution.
SCORES = (6.0, 0.8)


class Documents(NamedTuple):
    """Draws of documents, (draws, documents) each, with the size of the largest ones that there are, if that is known.

    A guarantee is not about documents larger than any seen: draws that saw none of the largest cannot break it.
    """

    size: np.ndarray
    correct: np.ndarray
    largest: int = 0


Regime = Callable[[int, np.random.Generator, float], Documents]


def equal(documents: int, mentions: int) -> Callable[..., np.ndarray]:
    return lambda draws, rng: np.full((draws, documents), mentions)


def poisson(documents: int, mentions: float) -> Callable[..., np.ndarray]:
    return lambda draws, rng: np.maximum(rng.poisson(mentions, (draws, documents)), 1)


def normal(documents: int, mean: float, deviation: float, share: float) -> Callable[..., np.ndarray]:
    """Normal sizes, of which a share is accepted: like abstracts."""

    def draw(draws: int, rng: np.random.Generator) -> np.ndarray:
        size = np.maximum(rng.normal(mean, deviation, (draws, documents)).round(), 1).astype(int)
        return np.maximum(rng.binomial(size, share), 1)

    return draw


def pareto(documents: int, at_most: int = 100_000) -> Callable[..., np.ndarray]:
    """Sizes from 3 on with infinite variance, unless cut."""
    return lambda draws, rng: np.minimum(np.ceil(3 * (1 + rng.pareto(1.2, (draws, documents)))), at_most).astype(int)


def correlated(sizes: Callable, correlation: float, largest_worst: bool = False) -> Regime:
    """Errors with this intra-document correlation (beta-binomial)."""

    def draw(draws: int, rng: np.random.Generator, precision: float) -> Documents:
        size = sizes(draws, rng)
        mean = _largest_worst(size, precision) if largest_worst else np.full(size.shape, precision)
        if correlation:
            spread = (1 - correlation) / correlation
            mean = rng.beta(mean * spread, (1 - mean) * spread)
        return Documents(size, rng.binomial(size, mean))

    return draw


def wholly_wrong(sizes: Callable, share: float) -> Regime:
    """This share of documents wholly wrong, the others' errors independent and as frequent as the precision allows."""

    def draw(draws: int, rng: np.random.Generator, precision: float) -> Documents:
        size, wrong = sizes(draws, rng), min(share, 1 - precision)
        correct = rng.binomial(size, min(precision / (1 - wrong), 1.0))
        return Documents(size, np.where(rng.random(size.shape) < wrong, 0, correct))

    return draw


def mixed(documents: int, share: float, times: int, wrong: float) -> Regime:
    """Documents of 10 mentions and a share so many times as large, of which a part is wrong as a whole."""

    def draw(draws: int, rng: np.random.Generator, precision: float) -> Documents:
        is_large = rng.random((draws, documents)) < share
        size = np.where(is_large, 10 * times, 10)
        chance = wrong * (1 - precision) / (1 - TRUE_PRECISION)
        return Documents(size, np.where(is_large & (rng.random(size.shape) < chance), 0, size), 10 * times)

    return draw


def largest_wrong(sizes: Callable, share: float, chance: float = 0.5) -> Regime:
    """The largest share of all documents wrong as a whole with a chance; the others as the precision allows."""

    def draw(draws: int, rng: np.random.Generator, precision: float) -> Documents:
        size = sizes(draws, rng)
        is_large = size > np.quantile(size, 1 - share)
        weight = size[is_large].sum() / size.sum()
        rest = min((precision - (1 - chance) * weight) / (1 - weight), 1.0)
        correct = np.where(is_large, size, rng.binomial(size, rest))
        return Documents(size, np.where(is_large & (rng.random(size.shape) < chance), 0, correct))

    return draw


def _largest_worst(size: np.ndarray, precision: float) -> np.ndarray:
    """Precision of each document: up to 20 points lower in the largest tenth; of all mentions as given."""
    largest = np.zeros(size.shape, bool)
    np.put_along_axis(largest, np.argsort(-size, axis=1)[:, : size.shape[1] // 10], True, axis=1)
    weight = (size * largest).sum(axis=1, keepdims=True) / size.sum(axis=1, keepdims=True)
    others = np.minimum(precision + 0.2 * weight, 0.999)
    return np.where(largest, (precision - (1 - weight) * others) / weight, others)


ABSTRACTS = normal(181, 46, 18, 0.3)
REGIMES: dict[str, Regime] = {
    "180 documents, 5 % five times as large, 24.5 % of those incorrect": mixed(180, 0.05, 5, 0.245),
    "180, 1.7 % ten times as large, 35 % of those incorrect": mixed(180, 0.017, 10, 0.35),
    "180, 1.1 % ten times as large, half of those incorrect": mixed(180, 0.011, 10, 0.51),
    "1,000, 5 % five times as large, 24.5 % of those incorrect": mixed(1000, 0.05, 5, 0.245),
    "1,000, 1.7 % ten times as large, 35 % of those incorrect": mixed(1000, 0.017, 10, 0.35),
    "1,000, 1.1 % ten times as large, half of those incorrect": mixed(1000, 0.011, 10, 0.51),
    "181 abstracts, the largest 5 % incorrect with probability 0.5": largest_wrong(ABSTRACTS, 0.05),
    "assumption violated: 181 abstracts, the largest 1 % always incorrect": largest_wrong(ABSTRACTS, 0.01, 1.0),
    "181 abstracts, correlation 0.3": correlated(ABSTRACTS, 0.3),
    "181 abstracts, the largest tenth worst": correlated(ABSTRACTS, 0.1, largest_worst=True),
    "400 of Pareto(1.2) sizes to 60, correlation 0.3": correlated(pareto(400, 60), 0.3),
    "400 of Pareto(1.2) sizes to 60, the largest worst": correlated(pareto(400, 60), 0.0, largest_worst=True),
    "1,000 of Pareto(1.2) sizes to 200, correlation 0.8": correlated(pareto(1000, 200), 0.8),
    "100 x 20, correlation 0.8": correlated(equal(100, 20), 0.8),
    "200 x 40, 5.1 % entirely incorrect": wholly_wrong(equal(200, 40), 0.051),
    "1,000 x 40, 5.1 % entirely incorrect": wholly_wrong(equal(1000, 40), 0.051),
    "200 x 40, 1 % entirely incorrect": wholly_wrong(equal(200, 40), 0.01),
    "harmless: 1,000 x 1": correlated(equal(1000, 1), 0.0),
    "harmless: 5,000 x 1": correlated(equal(5000, 1), 0.0),
    "harmless: 180 x 10, independent": correlated(equal(180, 10), 0.0),
    "harmless: 180 x 10, correlation 0.05": correlated(equal(180, 10), 0.05),
    "harmless: 2,000 x 10, correlation 0.05": correlated(equal(2000, 10), 0.05),
}
CALIBRATED = {
    "1,500 x 1": (equal(1500, 1), 0.0),
    "180 x 10": (poisson(180, 10), 0.0),
    "180 x 10, correlated": (poisson(180, 10), 0.2),
    "180 x 40, correlated": (poisson(180, 40), 0.2),
    "900 x 40, correlated": (poisson(900, 40), 0.2),
}


class Row(NamedTuple):
    """Shares of draws of a regime: certified although they must not be, by document and by mention; large enough to be
    certified; and certified where `HARMLESS_PRECISION` of the answers are correct."""

    broken: float
    by_mention: float
    possible: float
    power: float


def regime_row(regime: Regime, draws: int, rng: np.random.Generator) -> Row:
    found = regime(draws, rng, TRUE_PRECISION)
    passed, possible = _passed(found)
    by_mention = clopper_pearson_lower(found.correct.sum(axis=1), found.size.sum(axis=1), CONFIDENCE) >= TARGET
    harmless, _ = _passed(regime(max(1, draws // 5), rng, HARMLESS_PRECISION))
    is_broken = passed & (found.size.max(axis=1) >= found.largest)
    return Row(float(is_broken.mean()), float(by_mention.mean()), float(possible.mean()), float(harmless.mean()))


def _passed(documents: Documents) -> tuple[np.ndarray, np.ndarray]:
    """(draws,) bool, whether a draw passes the test, and whether it would without an error."""
    passed, possible = [], []
    for size, correct in zip(documents.size, documents.correct, strict=True):
        test = _test(tuple(np.sort(size).tolist()))
        passed.append(test.p_value(size, correct) <= 1 - CONFIDENCE)
        possible.append(test.effective(size) >= test.needed)
    return np.array(passed), np.array(possible)


@lru_cache(maxsize=10_000)
def _test(sizes: tuple[int, ...]) -> PrecisionTest:
    """The test for sorted sizes, which many draws share."""
    return PrecisionTest(TARGET, CONFIDENCE).for_sizes(np.array(sizes))


class Scored(NamedTuple):
    """One draw of calibrated scores."""

    scores: np.ndarray
    correct: np.ndarray
    document: np.ndarray


def scored(sizes: Callable, correlation: float, rng: np.random.Generator) -> Scored:
    size = sizes(1, rng)[0]
    document = np.repeat(np.arange(len(size)), size)
    luck = np.sqrt(correlation) * rng.normal(size=len(size))[document]
    luck += np.sqrt(1 - correlation) * rng.normal(size=len(document))
    scores = rng.beta(*SCORES, len(document))
    return Scored(scores, luck < ndtri(scores), document)


def certified(sizes: Callable, correlation: float, rng: np.random.Generator) -> tuple[float, float]:
    """(share of mentions certified, true precision there) of one draw; (0, nan) where nothing is."""
    drawn = scored(sizes, correlation, rng)
    threshold = find_certificate(*drawn, TARGET, CONFIDENCE).threshold
    return (0.0, np.nan) if threshold is None else (float(np.mean(drawn.scores >= threshold)), _precision(threshold))


def pooled(documents: int, mentions: int, correlation: float, rng: np.random.Generator) -> tuple[float, float]:
    """`certified` of logits that are mapped to probabilities by five folds, and served by the map of all."""
    drawn = scored(poisson(documents, mentions), correlation, rng)
    logits = 0.5 * np.log(drawn.scores / (1 - drawn.scores)) - 1.0
    threshold = certify(logits, drawn.correct, drawn.document, TARGET, CONFIDENCE, calibrate=True).threshold
    if threshold is None:
        return 0.0, np.nan
    return float(np.mean(logits >= threshold)), _precision(1 / (1 + np.exp(-2 * (threshold + 1.0))))


def _precision(threshold: float) -> float:
    """Mean of the scores above a threshold."""
    a, b = SCORES
    return float(a / (a + b) * beta.sf(threshold, a + 1, b) / beta.sf(threshold, a, b))


def _best_coverage() -> float:
    """Share of mentions above the threshold that one would choose who knew the precision at each."""
    grid = np.linspace(0.5, 1.0, 5001)[:-1]
    return float(beta.sf(next(t for t in grid if _precision(t) >= TARGET), *SCORES))


def ever_false(start: int, has_only_new: bool, rng: np.random.Generator, tries: int = 8) -> bool:
    """Whether anything is ever certified by collecting documents, 94.9 % of them correct, until the tool is content.

    Args:
        start: documents of the first try; each further try adds what the estimate asks for, from half as many to twice
            as many as there are.
        has_only_new: test only the documents added since the last try, as a later attempt; else all, as the first.
    """
    correct = rng.random(start) < TRUE_PRECISION
    tested = correct
    for attempt in range(1, tries + 1):
        options = {"attempt": attempt if has_only_new else 1}
        found = find_certificate(np.full(len(tested), 0.97), tested, None, TARGET, CONFIDENCE, **options)
        if found.threshold is not None:
            return True
        asked = int(np.clip(found.even or 0, len(correct) // 2, 2 * len(correct)))
        new = rng.random(asked) < TRUE_PRECISION
        correct = np.append(correct, new)
        tested = new if has_only_new else correct
        if len(correct) > 20_000:
            break
    return False


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


def drawn_lists(
    documents: int, network_weight: float, rng: np.random.Generator, mentions: int = 6, size: int = 4
) -> tuple[AnnotatedLists, np.ndarray]:
    """Lists with a retriever's score, and logits of a network that matter by a weight; golds are drawn by both.

    In one of sixty documents the golds are drawn by neither.
    """
    n = documents * mentions
    score, logits = rng.normal(size=(2, n, size))
    utility = 6.0 * score + network_weight * logits
    of_document = np.repeat(np.arange(documents), mentions)
    utility[(rng.random(documents) < 1 / 60)[of_document]] = 0.0
    gold = np.argmax(np.column_stack([np.zeros(n), utility]) + rng.gumbel(size=(n, size + 1)), axis=1) - 1
    names = [{"name": f"name {position}", "cui": f"C{position:07d}"} for position in range(size)]
    lists = CandidateLists.from_objects(TypeHierarchy.built_in(), ["mention"] * n, [names] * n)
    every = np.ones(n, bool)
    annotations = Annotations(np.full(n, ""), of_document.astype(str), every, every, gold, every, every)
    scores = {"retriever": score.ravel()}
    return replace(lists, scores=scores).annotated(annotations), logits.ravel().astype(np.float32)


class Chosen(NamedTuple):
    """A calibration with a choice about its cross-encoder, and its tier high on new lists.

    Attributes:
        coverage, precision: of the tier; precision 1 if it is empty.
        is_kept: whether the cross-encoder is weighed.
        is_mixed: whether folds have chosen otherwise.
    """

    coverage: float
    precision: float
    is_kept: bool
    is_mixed: bool


def chosen(documents: int, network_weight: float, rng: np.random.Generator) -> Chosen:
    """Fit on lists of `drawn_lists`, and measure on many others."""
    lists, logits = drawn_lists(documents, network_weight, rng)
    settings = CalibrationArguments(features=[CROSS_ENCODER, "retriever"], calibrator="platt")
    calibration, fitted = fit_calibration(
        lists,
        lambda unseen, wanted: logits,
        StringCounts.fit([]),
        settings,
        lists.hierarchy,
        seed=int(rng.integers(1 << 31)),
        may_drop_network=True,
        has_fallbacks=False,
        has_outlook=False,
    )
    new, logits = drawn_lists(5000, network_weight, rng)
    decided = rank(new, Scores(logits, 0), calibration)
    is_high = decided.tiers[decided.top] == TIERS.index("high")
    correct = new.is_gold(decided.top)
    choice = fitted["cross_encoder"]
    return Chosen(
        float(is_high.mean()),
        float(correct[is_high].mean()) if is_high.any() else 1.0,
        choice["kept"],
        set(choice["kept_in_folds"]) != {choice["kept"]},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5000)
    parser.add_argument("--calibrated_draws", type=int, default=500)
    parser.add_argument("--sequences", type=int, help="run only sequences of certificates")
    parser.add_argument("--choices", type=int, help="run only calibrations that may leave the cross-encoder out")
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--outcomes", type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    if options.outcomes:
        coverage = bootstrapped(options.outcomes, rng)
        ends = " ".join(f"{end:.3f}" for end in np.quantile(coverage, [0.0, 0.25, 0.5, 0.75, 1.0]))
        print(f"coverage: mean {coverage.mean():.3f}, deviation {coverage.std():.3f}, quartiles {ends}")
    elif options.sequences:
        print("| first documents | tested again | ever falsely certified |\n|---:|---|---:|")
        for start in (100, 300):
            for name, has_only_new in (("all documents", False), ("new documents only", True)):
                false = np.mean([ever_false(start, has_only_new, rng) for _ in range(options.sequences)])
                print(f"| {start} | {name} | {false:.1%} |", flush=True)
    elif options.choices:
        print(
            "| documents, weight of logits | stays | folds differ | something certified | coverage, mean | broken |\n"
            "|---|---:|---:|---:|---:|---:|"
        )
        for documents in (200, 400):
            for weight in (0.0, 0.3):
                draws = [chosen(documents, weight, rng) for _ in range(options.choices)]
                coverage, precision, is_kept, is_mixed = np.transpose(draws)
                print(
                    f"| {documents}, {weight} | {is_kept.mean():.1%} | {is_mixed.mean():.1%} | "
                    f"{np.mean(coverage > 0):.1%} | {coverage.mean():.3f} | {np.mean(precision < TARGET):.1%} |",
                    flush=True,
                )
    else:
        print(f"{options.draws:,} draws each; two standard errors of 5 %: {2 * np.sqrt(0.0475 / options.draws):.2%}\n")
        print(
            "| documents, true precision 0.949 | broken | mentions independent | could be certified | power |\n"
            "|---|---:|---:|---:|---:|"
        )
        for name, regime in REGIMES.items():
            row = regime_row(regime, options.draws, rng)
            print(f"| {name} | {' | '.join(f'{share:.1%}' for share in row)} |", flush=True)
        print(
            f"\n{options.calibrated_draws:,} draws each. Best coverage in hindsight: {_best_coverage():.3f}\n\n"
            "| calibrated scores | something certified | coverage, mean | 10 % to 90 % of draws | broken |\n"
            "|---|---:|---:|---:|---:|"
        )
        rows = {name: partial(certified, *regime) for name, regime in CALIBRATED.items()}
        rows |= {f"{n} x 10, correlated, logits mapped by folds": partial(pooled, n, 10, 0.2) for n in (100, 180)}
        for name, draw in rows.items():
            draws = [draw(rng) for _ in range(options.calibrated_draws)]
            coverage, precision = np.transpose(draws)
            low, high = np.quantile(coverage, [0.1, 0.9])
            print(
                f"| {name} | {np.mean(coverage > 0):.1%} | {coverage.mean():.3f} | {low:.3f} - {high:.3f} | "
                f"{np.mean(precision < TARGET):.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
