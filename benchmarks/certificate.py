#!/usr/bin/env python
"""How often the certificate of the high tier breaks its guarantee, and what share it certifies.

    python benchmarks/certificate.py --draws 5000
    python benchmarks/certificate.py --choices 200
    python benchmarks/certificate.py --repeated 500
    python benchmarks/certificate.py --labels 200

Target precision 0.95 at confidence 0.95. The first form draws documents whose answers are correct a
little less often than that, so that every certificate is wrong; "could be certified" are draws with
enough documents for a certificate without an error, and "power" is how often the same documents are
certified where 99 % of the answers are correct. LEC (arXiv 2512.01556, by its abstract) keeps the
target in expectation: the tier is granted if errors stay within it after one more is assumed. The
second form draws lists with a score and logits of little worth, so that the cross-encoder may stay
or be left out; the tier high as it is served is measured on new lists. The third draws notes that
stand under several ids, with 5 % of the words changed. The fourth calls `certify`, without and with
the texts of mentions, for notes that are copied or whose labels are partly wrong. All are
of one look. Coverage on calibrated scores is a part of golden.py.
"""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import binom

from umls_reranker.calibration.arguments import CalibrationArguments
from umls_reranker.calibration.certificate import find_certificate
from umls_reranker.calibration.certify import certify
from umls_reranker.calibration.cross_encoder_logits import CrossEncoderLogits
from umls_reranker.calibration.features import CROSS_ENCODER
from umls_reranker.calibration.fitting import FitOptions, fit_calibration
from umls_reranker.calibration.precision_test import PrecisionTest
from umls_reranker.calibration.ranking import rank_scored
from umls_reranker.calibration.string_counts import StringCounts
from umls_reranker.evaluation.outcomes import Outcomes
from umls_reranker.lists.annotated_lists import AnnotatedLists, Annotations
from umls_reranker.lists.candidate_lists import CandidateLists
from umls_reranker.lists.duplicates import with_joined_documents
from umls_reranker.lists.labels import labelled_lists
from umls_reranker.lists.rows import RowPosition, Rows
from umls_reranker.lists.table import mention_table
from umls_reranker.models.cross_encoder import Scores
from umls_reranker.vocab.types import TypeHierarchy

TARGET = 0.95
CONFIDENCE = 0.95
TRUE_PRECISION = 0.949
HARMLESS_PRECISION = 0.99
ONE_LOOK = PrecisionTest(TARGET, CONFIDENCE, is_one_look=True)
# Arguments of `labelled_notes`.
LABELS = [
    (300, 1, 0.0, 0.0),
    (300, 1, 0.05, 0.0),
    (300, 1, 0.1, 0.0),
    (300, 1, 0.0, 0.05),
    (300, 1, 0.0, 0.1),
    (300, 1, 0.0, 0.25),
    (60, 5, 0.0, 0.0),
    (60, 5, 0.0, 0.1),
]


class Documents(NamedTuple):
    """Draws of documents, (draws, documents), and the size of the largest that exist, if known.

    A guarantee is not about documents larger than any seen: draws that saw none of the largest
    cannot break it.
    """

    size: np.ndarray
    correct: np.ndarray
    largest: int = 0


Sizes = Callable[[int, np.random.Generator], np.ndarray]
Regime = Callable[[int, np.random.Generator, float], Documents]


def equal(draws: int, rng: np.random.Generator, *, documents: int, mentions: int) -> np.ndarray:
    return np.full((draws, documents), mentions)


def abstracts(draws: int, rng: np.random.Generator) -> np.ndarray:
    """Normal sizes, of which a share is accepted: 30 % of 46 mentions in each of 181 abstracts."""
    size = np.maximum(rng.normal(46, 18, (draws, 181)).round(), 1).astype(int)
    return np.maximum(rng.binomial(size, 0.3), 1)


def pareto(draws: int, rng: np.random.Generator, *, documents: int, at_most: int) -> np.ndarray:
    """Sizes from 3 on with infinite variance, but cut."""
    return np.minimum(np.ceil(3 * (1 + rng.pareto(1.2, (draws, documents)))), at_most).astype(int)


def correlated(
    draws: int, rng: np.random.Generator, precision: float, *, sizes: Sizes, correlation: float
) -> Documents:
    """Errors with this intra-document correlation (beta-binomial)."""
    size = sizes(draws, rng)
    mean = np.full(size.shape, precision)
    if correlation:
        spread = (1 - correlation) / correlation
        mean = rng.beta(mean * spread, (1 - mean) * spread)
    return Documents(size, rng.binomial(size, mean))


def wholly_incorrect(
    draws: int, rng: np.random.Generator, precision: float, *, sizes: Sizes, share: float
) -> Documents:
    """This share of documents wholly incorrect, other errors as frequent as the precision allows.

    They are independent.
    """
    size = sizes(draws, rng)
    incorrect = min(share, 1 - precision)
    correct = rng.binomial(size, min(precision / (1 - incorrect), 1.0))
    return Documents(size, np.where(rng.random(size.shape) < incorrect, 0, correct))


def mixed(
    draws: int,
    rng: np.random.Generator,
    precision: float,
    *,
    documents: int,
    share: float,
    times: int,
    incorrect: float,
) -> Documents:
    """Documents of 10 mentions and a share `times` as large, a part of these wholly incorrect."""
    is_large = rng.random((draws, documents)) < share
    size = np.where(is_large, 10 * times, 10)
    chance = incorrect * (1 - precision) / (1 - TRUE_PRECISION)
    is_incorrect = is_large & (rng.random(size.shape) < chance)
    return Documents(size, np.where(is_incorrect, 0, size), 10 * times)


def largest_incorrect(
    draws: int, rng: np.random.Generator, precision: float, *, share: float, chance: float
) -> Documents:
    """The largest share of abstracts, each wholly incorrect with a chance.

    The others' errors are as frequent as the precision allows.
    """
    size = abstracts(draws, rng)
    is_large = size > np.quantile(size, 1 - share)
    weight = size[is_large].sum() / size.sum()
    rest = min((precision - (1 - chance) * weight) / (1 - weight), 1.0)
    correct = np.where(is_large, size, rng.binomial(size, rest))
    is_incorrect = is_large & (rng.random(size.shape) < chance)
    return Documents(size, np.where(is_incorrect, 0, correct))


REGIMES: dict[str, Regime] = {
    "180 documents, 5 % five times as large, 24.5 % of those incorrect": partial(
        mixed, documents=180, share=0.05, times=5, incorrect=0.245
    ),
    "180, 1.7 % ten times as large, 35 % of those incorrect": partial(
        mixed, documents=180, share=0.017, times=10, incorrect=0.35
    ),
    "180, 1.1 % ten times as large, half of those incorrect": partial(
        mixed, documents=180, share=0.011, times=10, incorrect=0.51
    ),
    "1,000, 5 % five times as large, 24.5 % of those incorrect": partial(
        mixed, documents=1000, share=0.05, times=5, incorrect=0.245
    ),
    "1,000, 1.7 % ten times as large, 35 % of those incorrect": partial(
        mixed, documents=1000, share=0.017, times=10, incorrect=0.35
    ),
    "1,000, 1.1 % ten times as large, half of those incorrect": partial(
        mixed, documents=1000, share=0.011, times=10, incorrect=0.51
    ),
    "181 abstracts, the largest 5 % incorrect with probability 0.5": partial(
        largest_incorrect, share=0.05, chance=0.5
    ),
    "assumption violated: 181 abstracts, the largest 1 % always incorrect": partial(
        largest_incorrect, share=0.01, chance=1.0
    ),
    "181 abstracts, correlation 0.3": partial(correlated, sizes=abstracts, correlation=0.3),
    "400 of Pareto(1.2) sizes to 60, correlation 0.3": partial(
        correlated, sizes=partial(pareto, documents=400, at_most=60), correlation=0.3
    ),
    "1,000 of Pareto(1.2) sizes to 200, correlation 0.8": partial(
        correlated, sizes=partial(pareto, documents=1000, at_most=200), correlation=0.8
    ),
    "100 x 20, correlation 0.8": partial(
        correlated, sizes=partial(equal, documents=100, mentions=20), correlation=0.8
    ),
    "200 x 40, 5.1 % entirely incorrect": partial(
        wholly_incorrect, sizes=partial(equal, documents=200, mentions=40), share=0.051
    ),
    "1,000 x 40, 5.1 % entirely incorrect": partial(
        wholly_incorrect, sizes=partial(equal, documents=1000, mentions=40), share=0.051
    ),
    "200 x 40, 1 % entirely incorrect": partial(
        wholly_incorrect, sizes=partial(equal, documents=200, mentions=40), share=0.01
    ),
    "harmless: 1,000 x 1": partial(
        correlated, sizes=partial(equal, documents=1000, mentions=1), correlation=0.0
    ),
    "harmless: 5,000 x 1": partial(
        correlated, sizes=partial(equal, documents=5000, mentions=1), correlation=0.0
    ),
    "harmless: 180 x 10, independent": partial(
        correlated, sizes=partial(equal, documents=180, mentions=10), correlation=0.0
    ),
    "harmless: 180 x 10, correlation 0.05": partial(
        correlated, sizes=partial(equal, documents=180, mentions=10), correlation=0.05
    ),
    "harmless: 2,000 x 10, correlation 0.05": partial(
        correlated, sizes=partial(equal, documents=2000, mentions=10), correlation=0.05
    ),
}


class RegimeShares(NamedTuple):
    """Shares of draws of a regime.

    Certified although they must not be, by document, by mention and by LEC; large enough to be
    certified; and certified where `HARMLESS_PRECISION` of the answers are correct.
    """

    broken: float
    by_mention: float
    by_lec: float
    possible: float
    power: float


def regime_shares(regime: Regime, draws: int, rng: np.random.Generator) -> RegimeShares:
    documents = regime(draws, rng, TRUE_PRECISION)
    passed, possible = _passed(documents)
    # Clopper & Pearson's lower bound (1934) is above the target, as if mentions were independent.
    correct = documents.correct.sum(axis=1)
    answers = documents.size.sum(axis=1)
    by_mention = binom.sf(correct - 1, answers, TARGET) <= 1.0 - CONFIDENCE
    by_lec = answers - correct + TARGET <= (1.0 - TARGET) * answers
    harmless, _ = _passed(regime(max(1, draws // 5), rng, HARMLESS_PRECISION))
    is_broken = passed & (documents.size.max(axis=1) >= documents.largest)
    return RegimeShares(
        broken=float(is_broken.mean()),
        by_mention=float(by_mention.mean()),
        by_lec=float(by_lec.mean()),
        possible=float(possible.mean()),
        power=float(harmless.mean()),
    )


def _passed(documents: Documents) -> tuple[np.ndarray, np.ndarray]:
    """(draws,) bool, whether a draw passes the test, and whether it would without an error."""
    results = []
    for size, correct in zip(documents.size, documents.correct, strict=True):
        test = _test(tuple(np.sort(size).tolist()))
        results.append((test.passes(size, correct), test.effective(size) >= test.needed))
    passed, possible = np.transpose(results)
    return passed, possible


@lru_cache(maxsize=10_000)
def _test(sizes: tuple[int, ...]) -> PrecisionTest:
    """The test for sorted sizes, which many draws share."""
    return ONE_LOOK.for_sizes(np.array(sizes))


def drawn_lists(
    documents: int, logit_weight: float, rng: np.random.Generator, mentions: int = 6, size: int = 4
) -> tuple[AnnotatedLists, np.ndarray]:
    """Lists with a retriever's score, and logits of a cross-encoder, which matter by a weight.

    Golds are drawn by both.

    In one of sixty documents the golds are drawn by neither. The second of two candidates is a
    parent of the first, and the fourth of the third.
    """
    n = documents * mentions
    score, logits = rng.normal(size=(2, n, size))
    utility = 6.0 * score + logit_weight * logits
    document = np.repeat(np.arange(documents), mentions)
    utility[(rng.random(documents) < 1 / 60)[document]] = 0.0
    gold = (
        np.argmax(np.column_stack([np.zeros(n), utility]) + rng.gumbel(size=(n, size + 1)), axis=1)
        - 1
    )
    names = [{"name": f"name {position}", "cui": f"C{position:07d}"} for position in range(size)]
    # No string is seen twice, so counts say nothing.
    strings = [f"mention {number}" for number in rng.integers(1 << 62, size=n)]
    columns = mention_table(strings, [names] * n)
    lists = CandidateLists.from_table(TypeHierarchy.built_in(), columns)
    every = np.ones(n, bool)
    ids = [item["cui"] for item in names]
    alternatives = np.empty(n, object)
    alternatives[:] = [(ids[position],) if position >= 0 else () for position in gold.tolist()]
    annotations = Annotations(
        cuis=np.full(n, ""),
        alternatives=alternatives,
        composite=~every,
        documents=document.astype(str),
        doc_ids=document.astype(str),
        starts=every,
        ends=every,
        gold=gold,
        in_dictionary=every,
        is_random_sample=every,
        mention_ids=np.full(n, None),
        splits=np.full(n, None),
        positions=np.full(n, None),
    )
    scores = {"retriever": score.ravel()}
    lists = AnnotatedLists.of(replace(lists, scores=scores), annotations)
    return lists, logits.ravel().astype(np.float32)


class ServedTier(NamedTuple):
    """The tier high on new lists, of a calibration of a retriever and a cross-encoder.

    Attributes:
        coverage, precision: of the tier; precision 1 if it is empty.
    """

    coverage: float
    precision: float


def served_tier(documents: int, logit_weight: float, rng: np.random.Generator) -> ServedTier:
    """Fit on lists of `drawn_lists`, and measure on many others."""
    lists, logits = drawn_lists(documents, logit_weight, rng)
    settings = CalibrationArguments(features=[CROSS_ENCODER, "retriever"], calibrator="platt")
    fit = fit_calibration(
        lists,
        CrossEncoderLogits(None, lists, by_missing_inputs={(): logits}),
        StringCounts.fit([]),
        settings,
        int(rng.integers(1 << 31)),
        options=FitOptions(is_one_look=True, has_fallbacks=False),
    )
    new, logits = drawn_lists(5000, logit_weight, rng)
    decisions = rank_scored(new, Scores(logits, 0), fit.calibration)
    outcomes = Outcomes.of(new, decisions)
    is_high = outcomes.high
    return ServedTier(
        coverage=float(is_high.mean()),
        precision=float(outcomes.correct[is_high].mean()) if is_high.any() else 1.0,
    )


def repeated_notes(notes: int, copies: int, rng: np.random.Generator) -> tuple[bool, bool]:
    """Whether a false certificate is granted for notes under several ids: as they are, and joined.

    The mentions of a note are all correct or all incorrect, in each of its copies.
    """
    is_correct = rng.random(notes) < TRUE_PRECISION
    rows = []
    for note in range(notes):
        words = np.array([f"w{word}" for word in rng.integers(3000, size=120)], object)
        for copy in range(copies):
            changed = np.where(rng.random(len(words)) < 0.05, f"x{copy}", words)
            for mention, part in enumerate(np.array_split(changed, 3)):
                row = {"doc_id": f"{note}.{copy}", "entity": f"m{mention}", "left": " ".join(part)}
                cui = "C0000001" if is_correct[note] else "C0000002"
                rows.append(row | {"cui": cui, "candidates": [{"name": "n", "cui": "C0000001"}]})
    table = Rows([RowPosition(Path("rows"), number) for number in range(len(rows))], rows)
    lists = labelled_lists(table, TypeHierarchy.built_in())
    correct = lists.is_gold(lists.offsets[:-1])
    scores = np.full(len(lists), 0.96)
    granted = []
    for annotations in (lists.annotations, with_joined_documents(lists).annotations):
        certificate = find_certificate(scores, correct, annotations.documents, ONE_LOOK)
        granted.append(certificate.threshold is not None)
    return granted[0], granted[1]


def labelled_notes(
    notes: int, copies: int, wrong: float, passed: float, rng: np.random.Generator
) -> tuple[bool, bool]:
    """Whether `certify` grants a false certificate, without and with the texts of mentions.

    Args:
        notes: number of notes, of five mentions each, with a correlation of 0.3.
        copies: number of ids that each note stands under, without one of its mentions.
        wrong: share of all labels that are wrong.
        passed: share of the incorrect answers that the annotator takes for correct.
        rng: random numbers.
    """
    precision = rng.beta(TRUE_PRECISION * 7 / 3, (1 - TRUE_PRECISION) * 7 / 3, (notes, 1))
    labels = (rng.random((notes, 5)) < precision) | (rng.random((notes, 5)) < passed)
    labels ^= rng.random((notes, 5)) < wrong
    texts = [[f"{note} {mention}" for mention in range(5)] for note in range(notes)]
    rows = [
        (f"{note}.{copy}", texts[note][mention], labels[note, mention])
        for note, copy, mention in product(range(notes), range(copies), range(5))
        if copies == 1 or mention != copy
    ]
    documents, mentions, correct = zip(*rows, strict=True)
    scores = [0.96] * len(rows)
    plain = certify(scores, correct, documents, one_look=True)
    joined = certify(scores, correct, documents, one_look=True, mentions=mentions)
    return plain.threshold is not None, joined.threshold is not None


def print_row(title: str, shares: Iterable[float]) -> None:
    print(f"| {title} | {' | '.join(f'{share:.1%}' for share in shares)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=5000)
    parser.add_argument(
        "--choices", type=int, help="run only calibrations of a retriever and a cross-encoder"
    )
    parser.add_argument("--repeated", type=int, help="run only notes that stand under several ids")
    parser.add_argument("--labels", type=int, help="run only copied notes and wrong labels")
    parser.add_argument("--seed", type=int, default=13)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    if options.choices:
        print(
            "| documents, weight of logits | certified | coverage, mean | broken |\n"
            "|---|---:|---:|---:|"
        )
        for documents, weight in product((200, 400), (0.0, 0.3)):
            draws = [served_tier(documents, weight, rng) for _ in range(options.choices)]
            columns = ServedTier(*np.transpose(draws))
            shares = (
                np.mean(columns.coverage > 0),
                columns.coverage.mean(),
                np.mean(columns.precision < TARGET),
            )
            print_row(f"{documents}, {weight}", shares)
        return
    if options.repeated:
        print("| notes x ids | broken | documents joined: broken |\n|---|---:|---:|")
        for notes, copies in ((20, 5), (60, 5)):
            results = [repeated_notes(notes, copies, rng) for _ in range(options.repeated)]
            print_row(f"{notes} x {copies}", np.mean(results, axis=0))
        return
    if options.labels:
        print("| notes x ids, labels | broken | with mentions: broken |\n|---|---:|---:|")
        for case in LABELS:
            results = [labelled_notes(*case, rng) for _ in range(options.labels)]
            title = "{} x {}, {:.0%} wrong, {:.0%} of errors passed".format(*case)
            print_row(title, np.mean(results, axis=0))
        return
    print(
        f"{options.draws:,} draws each; two standard errors of 5 %: "
        f"{2 * np.sqrt(0.0475 / options.draws):.2%}\n"
    )
    print(
        "| documents, true precision 0.949 | broken | mentions independent | LEC | "
        "could be certified | power |\n"
        "|---|---:|---:|---:|---:|---:|"
    )
    for name, regime in REGIMES.items():
        print_row(name, regime_shares(regime, options.draws, rng))


if __name__ == "__main__":
    main()
