#!/usr/bin/env python
"""How often whoever labels on and tests again is certified falsely, and after how many documents.

    python benchmarks/any_time.py
    python benchmarks/any_time.py --served 2000
    python benchmarks/any_time.py --refits lists.jsonl --draws 300

The first form tests a tier after every further document (of unequal sizes, after every further
twentieth) and compares the rule of `PrecisionTest.level_at` with others, exactly for terms and by
simulation for documents. The second fits acceptance thresholds on the same labels, to which the
tier high is raised. The third refits everything at each look on real labelled lists, each a
document, in a drawn order: their answers are thinned until hardly any tier has the target, and the
tier as it is served is measured on all other lists. Certificates are at 95 % confidence.
"""

import argparse
import json
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from pathlib import Path

import numpy as np
from certificate import Documents, correlated, equal, mixed, wholly_incorrect
from scipy.special import betaln
from scipy.stats import beta, binom

from umls_reranker.calibration.arguments import CalibrationArguments
from umls_reranker.calibration.cross_encoder_logits import CrossEncoderLogits
from umls_reranker.calibration.fitting import FitOptions, Fitted, fit_calibration
from umls_reranker.calibration.precision_test import FIRST_ERRORS, PrecisionTest
from umls_reranker.calibration.ranking import rank_scored
from umls_reranker.calibration.string_counts import StringCounts
from umls_reranker.calibration.threshold_fitting import fit_thresholds
from umls_reranker.core.errors import TooLittleData
from umls_reranker.evaluation.outcomes import Outcomes
from umls_reranker.lists.annotated_lists import AnnotatedLists
from umls_reranker.lists.gold import CUI_LESS
from umls_reranker.lists.labels import labelled_lists
from umls_reranker.lists.rows import Rows
from umls_reranker.models.cross_encoder import Scores
from umls_reranker.serving.calibrate_lists import usable_features
from umls_reranker.vocab.types import TypeHierarchy

CONFIDENCE = 0.95
# A precision just below 0.95.
FALSE = 0.949
# Documents at which the exact calculations end, and the simulations.
MOST_TERMS = 12_000
MOST_DOCUMENTS = 1_000
MOST_UNEQUAL = 1_500
POWERS = (0.5, 0.8)
TERMS = [
    (0.95, 0.97),
    (0.95, 0.98),
    (0.95, 0.99),
    (0.9, 0.93),
    (0.9, 0.95),
    (0.95, 1.0),
    (0.9, 1.0),
]


def growing(first: float, last: int, step: float) -> list[int]:
    """Numbers of documents, each larger than the one before by a share."""
    numbers = {int(first * (1 + step) ** power) for power in range(1000)}
    return sorted(number for number in numbers if number <= last)


# Terms, exactly. A rule is the most errors with which each number of terms passes; -1: none.


@dataclass(frozen=True)
class OtherSpending(PrecisionTest):
    """The test with another level at growing numbers of documents.

    Attributes:
        share: share of the error probability up to the documents of `FIRST_ERRORS`.
        decay: power of the documents beyond by which it falls.
        logarithmic: whether it falls by the power of 1 plus their logarithm.
    """

    share: float = 0.3
    decay: float = 0.7
    logarithmic: bool = False

    def level_at(self, documents: float) -> float:
        relative = max(1.0, documents * (1.0 - self.target) / FIRST_ERRORS)
        if self.logarithmic:
            relative = 1.0 + np.log(relative)
        return self.share * (1.0 - self.confidence) * relative**-self.decay


def rule_of_test(test: PrecisionTest, most: int) -> np.ndarray:
    """The rule of a test, (most + 1,)."""
    sizes = np.ones(2)
    correct = np.array([1.0, 0.0])

    def passes(terms: int, errors: int) -> bool:
        counts = np.array([[terms - errors, errors]])
        return bool(test.p_values(sizes, correct, counts)[0] <= test.level_at(terms))

    rule = np.full(most + 1, -1)
    numbers = range(1, most + 1)
    for errors in count():
        fewest = bisect_left(numbers, True, key=partial(passes, errors=errors))
        if fewest == most:
            return rule
        rule[numbers[fewest] :] = errors


def rule_of_martingale(target: float, most: int) -> np.ndarray:
    """The rule of a bet on all precisions above the target, (most + 1,).

    The capital is the likelihood of a uniform mixture of them over that of the target.
    """
    rule = np.full(most + 1, -1)
    for terms in range(1, most + 1):
        errors = np.arange(rule[terms - 1] + 2)
        correct = terms - errors
        of_mixture = beta.logsf(target, correct + 1, errors + 1) + betaln(correct + 1, errors + 1)
        of_target = correct * np.log(target) + errors * np.log1p(-target) + np.log1p(-target)
        passed = np.flatnonzero(
            (of_mixture - of_target >= -np.log(1 - CONFIDENCE)) & (correct >= 0)
        )
        rule[terms] = passed.max(initial=-1)
    return rule


def at_looks(rule: np.ndarray, looks: Sequence[int]) -> np.ndarray:
    """A rule that is tested at some numbers of terms alone."""
    tested = np.full_like(rule, -1)
    tested[[*looks]] = rule[[*looks]]
    return tested


def chance_to_pass(rule: np.ndarray, precision: float) -> np.ndarray:
    """Probability of having passed at any number of terms so far, (most + 1,)."""
    # Of those that have not passed, by their number of errors.
    waiting = np.zeros(rule.max() + 2)
    waiting[0] = 1.0
    chance = np.zeros(len(rule))
    for terms in range(1, len(rule)):
        with_error = waiting * (1.0 - precision)
        waiting = waiting * precision
        waiting[1:] += with_error[:-1]
        passed = waiting[: rule[terms] + 1].sum()
        waiting[: rule[terms] + 1] = 0.0
        chance[terms] = chance[terms - 1] + passed
    return chance


def chance_at_once(rule: np.ndarray, precision: float) -> np.ndarray:
    """Probability of passing in one look at each number of terms, (most + 1,)."""
    return binom.cdf(rule, np.arange(len(rule)), 1.0 - precision)


def fewest_with_powers(chance: np.ndarray, numbers: Sequence[int]) -> str:
    """The numbers of documents from which on the chance to pass has `POWERS`, in words."""
    cells = []
    for power in POWERS:
        first = 1 + int(np.flatnonzero(chance < power)[-1])
        cells.append(f"{numbers[first]:,}" if first < len(numbers) else "never")
    return " / ".join(cells)


def rules(target: float, most: int) -> dict[str, np.ndarray]:
    """The rule of the package, and others."""
    package = PrecisionTest(target, CONFIDENCE)
    other = partial(OtherSpending, target, CONFIDENCE)
    coarse = rule_of_test(other(share=0.4), most)
    return {
        "any time": rule_of_test(package, most),
        "mixture martingale": rule_of_martingale(target, most),
        "0.25, power 0.5": rule_of_test(other(share=0.25, decay=0.5), most),
        "0.32, power 0.8": rule_of_test(other(share=0.32, decay=0.8), most),
        "0.3, logarithm to 1.5": rule_of_test(other(decay=1.5, logarithmic=True), most),
        "0.4, each tenth more": at_looks(coarse, growing(package.needed, most, 0.1)),
    }


def print_terms() -> None:
    print("| target, precision of terms | one look |", end="")
    names = [*rules(0.9, 2)]
    print(f" {' | '.join(names)} |\n|---|--:|{'--:|' * len(names)}")
    most = 2_000
    for target, precision in TERMS:
        once = rule_of_test(PrecisionTest(target, CONFIDENCE, is_one_look=True), most)
        chances = [chance_at_once(once, precision)]
        chances += [chance_to_pass(rule, precision) for rule in rules(target, most).values()]
        cells = [fewest_with_powers(chance, range(most + 1)) for chance in chances]
        print(f"| {target}, {precision} | {' | '.join(cells)} |", flush=True)
    for target in (0.95, 0.9, 0.8):
        all_rules = rules(target, MOST_TERMS).values()
        shares = [f"{chance_to_pass(rule, target)[-1]:.1%}" for rule in all_rules]
        print(f"| false at {target}, exact | - | {' | '.join(shares)} |", flush=True)


# Documents, by simulation.


def unequal(
    draws: int, rng: np.random.Generator, *, documents: int, share: float, times: int
) -> np.ndarray:
    """Sizes of 10, and a share that is larger."""
    return np.where(rng.random((draws, documents)) < share, 10 * times, 10)


def repeated(draws: int, rng: np.random.Generator, *, documents: int) -> np.ndarray:
    """Sizes of terms that occur up to eight times."""
    return rng.choice([1, 2, 4, 8], (draws, documents), p=[0.7, 0.15, 0.1, 0.05])


def of_sites(
    draws: int, rng: np.random.Generator, precision: float, *, documents: int
) -> Documents:
    """Documents of ten mentions from twelve sites, some of which are much worse."""
    sites = np.array([0.99] * 9 + [0.9, 0.85, 0.728])
    sites += precision - sites.mean()
    mean = np.clip(sites[rng.integers(len(sites), size=(draws, documents))], 0.0, 1.0)
    mean = rng.beta(9 * mean + 1e-9, 9 * (1 - mean) + 1e-9)
    size = np.full((draws, documents), 10)
    return Documents(size, rng.binomial(size, mean))


TEN_EACH = partial(equal, documents=MOST_DOCUMENTS, mentions=10)
FIVE_TIMES = partial(unequal, documents=MOST_UNEQUAL, share=0.05, times=5)
MIXED = partial(mixed, documents=MOST_UNEQUAL)
FALSE_REGIMES: dict[str, Callable[[int, np.random.Generator, float], Documents]] = {
    "ten each, correlation 0.1": partial(correlated, sizes=TEN_EACH, correlation=0.1),
    "ten each, correlation 0.3": partial(correlated, sizes=TEN_EACH, correlation=0.3),
    "ten each, wholly incorrect": partial(wholly_incorrect, sizes=TEN_EACH, share=0.051),
    "ten each, of twelve sites": partial(of_sites, documents=MOST_DOCUMENTS),
    "terms that occur 1, 2, 4 or 8 times": partial(
        wholly_incorrect, sizes=partial(repeated, documents=MOST_UNEQUAL), share=0.051
    ),
    "a tenth three times as large, these alone incorrect": partial(
        MIXED, share=0.1, times=3, incorrect=0.204
    ),
    "a twentieth five times as large, these alone incorrect": partial(
        MIXED, share=0.05, times=5, incorrect=0.245
    ),
    "a twentieth five times as large, correlation 0.1": partial(
        correlated, sizes=FIVE_TIMES, correlation=0.1
    ),
}
POWER_REGIMES = {
    name: FALSE_REGIMES[name]
    for name in ("ten each, correlation 0.1", "a twentieth five times as large, correlation 0.1")
}


@lru_cache(maxsize=100_000)
def _for_sizes(test: PrecisionTest, sizes: tuple[int, ...], counts: tuple[int, ...]):
    return test.for_sizes(np.repeat(sizes, counts))


def passes_at(draws: Documents, documents: int, test: PrecisionTest) -> np.ndarray:
    """Whether the first documents of each draw pass, (draws,) bool."""
    size = draws.size[:, :documents]
    correct = draws.correct[:, :documents]
    # Kinds of documents, by size and correct answers.
    factor = int(draws.size.max()) + 1
    kinds, kind = np.unique(size * factor + correct, return_inverse=True)
    kind = kind.reshape(size.shape)
    rows = np.arange(len(size))[:, None]
    counts = np.zeros((len(size), len(kinds)), int)
    np.add.at(counts, (rows, kind), 1)
    kind_sizes, kind_correct = np.divmod(kinds, factor)
    p_values = test.p_values(kind_sizes, kind_correct, counts)
    sizes = np.unique(kind_sizes)
    if len(sizes) == 1:
        return p_values <= test.level_at(documents)
    passed = np.zeros(len(size), bool)
    # A larger power lets no other draw pass at one look.
    for row in np.flatnonzero(p_values <= test.level_at(0)):
        of_sizes = [int(counts[row, kind_sizes == each].sum()) for each in sizes]
        own_test = _for_sizes(test, tuple(sizes.tolist()), tuple(of_sizes))
        level = own_test.level_at(own_test.effective(size[row]))
        passed[row] = own_test.p_values(kind_sizes, kind_correct, counts[[row]])[0] <= level
    return passed


def first_passed(draws: Documents, test: PrecisionTest, looks: Sequence[int]) -> np.ndarray:
    """The number of documents of the first look that passes, (draws,); infinite if none does."""
    found = np.full(len(draws.size), np.inf)
    for documents in looks:
        waiting = np.flatnonzero(np.isinf(found))
        if not len(waiting):
            break
        still = Documents(draws.size[waiting], draws.correct[waiting])
        found[waiting[passes_at(still, documents, test)]] = documents
    return found


def looks_at(draws: Documents, test: PrecisionTest) -> list[int]:
    """All numbers of documents from the least that may pass, of unequal sizes in steps."""
    documents = draws.size.shape[1]
    if draws.size.min() == draws.size.max():
        return [*range(test.needed, documents + 1)]
    return growing(test.needed, documents, 0.05)


def share_in_words(share: float, draws: int) -> str:
    """A share with its Monte Carlo standard error."""
    return f"{share:.1%} ± {np.sqrt(share * (1 - share) / draws):.1%}"


def print_documents(draws: int, rng: np.random.Generator) -> None:
    test = PrecisionTest(0.95, CONFIDENCE)
    print(f"\n{draws:,} draws, precision {FALSE}\n\n| documents | false |\n|---|--:|")
    for name, regime in FALSE_REGIMES.items():
        drawn = regime(draws, rng, FALSE)
        share = float(np.isfinite(first_passed(drawn, test, looks_at(drawn, test))).mean())
        print(f"| {name} | {share_in_words(share, draws)} |", flush=True)
    print("\n| documents, 0.95, 0.98 | one look, 50 / 80 % | any time |\n|---|--:|--:|")
    once = PrecisionTest(0.95, CONFIDENCE, is_one_look=True)
    for name, regime in POWER_REGIMES.items():
        drawn = regime(draws, rng, 0.98)
        looks = growing(once.needed, 600, 0.03)
        power = np.array([passes_at(drawn, documents, once).mean() for documents in looks])
        at_once = fewest_with_powers(power, looks)
        all_looks = looks_at(drawn, test)
        first = first_passed(drawn, test, all_looks)
        chance = np.array([(first <= documents).mean() for documents in all_looks])
        print(f"| {name} | {at_once} | {fewest_with_powers(chance, all_looks)} |", flush=True)


# The tier as it is served.


def drawn_answers(documents: int, rng: np.random.Generator) -> tuple[AnnotatedLists, np.ndarray]:
    """Terms with one candidate each, correct in `FALSE` whatever its score, and the scores."""
    is_correct = rng.random(documents) < FALSE
    rows = [
        {
            "doc_id": str(number),
            "entity": f"m{number}",
            "cui": "C0000001" if is_correct[number] else "C0000002",
            "candidates": [{"name": "n", "cui": "C0000001"}],
        }
        for number in range(documents)
    ]
    lists = labelled_lists(Rows.of(rows), TypeHierarchy.built_in())
    return lists, rng.uniform(0.9, 0.999, documents)


def served_falsely(accept_precision: float | None, rng: np.random.Generator) -> bool:
    """Whether any look at one draw certifies a tier, which is false."""
    lists, scores = drawn_answers(MOST_DOCUMENTS, rng)
    settings = CalibrationArguments(target_precision=0.95, accept_precision=accept_precision)
    for documents in growing(PrecisionTest(0.95, CONFIDENCE).needed, MOST_DOCUMENTS, 0.1):
        first = np.arange(documents)
        table = fit_thresholds(lists.take(first), scores[first], first, settings)
        if table.is_certified:
            return True
    return False


def print_served(draws: int, rng: np.random.Generator) -> None:
    print(f"{draws:,} draws, precision {FALSE}\n\n| accept_precision | false |\n|---|--:|")
    for accept_precision in (None, 0.97, 0.99):
        share = float(np.mean([served_falsely(accept_precision, rng) for _ in range(draws)]))
        print(f"| {accept_precision} | {share_in_words(share, draws)} |", flush=True)


# Real refits.


class ThinnedLists:
    """Real labelled lists, each a document, of which no answer is correct more often than wished.

    Args:
        path: lists, JSON Lines.
        precision: of a tier, at most, as far as held-out scores tell.
        rng: random numbers.
    """

    def __init__(self, path: Path, precision: float, rng: np.random.Generator) -> None:
        from sklearn.isotonic import IsotonicRegression

        of_text = {}
        with path.open(encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                text = row.get("entity") or row["mention"]
                row["candidates"] = row["candidates"][:8]
                brought = {
                    key: row[key] for key in ("cui", "candidates", "index_key") if key in row
                }
                of_text[text.casefold()] = {"entity": text} | brought
        rows = list(of_text.values())
        self.rows = [rows[number] for number in rng.permutation(len(rows))[:3000].tolist()]
        self.rng = rng
        lists = self.lists_of(range(len(self.rows)))
        outcomes = Outcomes.of(lists, fitted(lists).decisions)
        expected = IsotonicRegression(out_of_bounds="clip").fit_transform(
            np.nan_to_num(outcomes.score), outcomes.correct
        )
        # The chance that the gold concept of a list stays.
        self.stays = np.minimum(1.0, precision / np.maximum(expected, 1e-9))

    def lists_of(self, numbers: Sequence[int], *, is_thinned: bool = False) -> AnnotatedLists:
        """Some of the lists, each with its number as its document."""
        stays = self.rng.random(len(numbers)) < self.stays[[*numbers]] if is_thinned else None
        rows = []
        for place, number in enumerate(numbers):
            row = {"doc_id": str(number)} | self.rows[number]
            if stays is not None and not stays[place]:
                row["cui"] = CUI_LESS
            rows.append(row)
        return labelled_lists(Rows.of(rows), TypeHierarchy.built_in())

    def precision_of_tier(self, fit: Fitted, numbers: Sequence[int]) -> float:
        """The precision that the served tier has on some lists after thinning; NaN if empty."""
        lists = self.lists_of(numbers)
        logits = np.full(len(lists.owner), np.nan)
        outcomes = Outcomes.of(lists, rank_scored(lists, Scores(logits, 0), fit.calibration))
        is_high = outcomes.high
        if not is_high.any():
            return np.nan
        return float((outcomes.correct * self.stays[[*numbers]])[is_high].mean())


def fitted(lists: AnnotatedLists) -> Fitted:
    """Everything fitted on lists, from nothing."""
    settings = CalibrationArguments(
        target_precision=0.95, features=usable_features(lists, has_cross_encoder=False)
    )
    return fit_calibration(
        lists,
        CrossEncoderLogits(None, lists),
        StringCounts.fit([]),
        settings,
        seed=13,
        options=FitOptions(has_fallbacks=False),
    )


def print_refits(path: Path, draws: int, rng: np.random.Generator) -> None:
    population = ThinnedLists(path, 0.945, rng)
    looks = growing(100, 750, 0.1)
    granted = 0
    false = 0
    for draw in range(1, draws + 1):
        order = rng.permutation(len(population.rows))
        lists = population.lists_of(order[: looks[-1]].tolist(), is_thinned=True)
        for documents in looks:
            try:
                fit = fitted(lists.take(np.arange(documents)))
            except TooLittleData:
                continue
            if fit.calibration.models[0].thresholds.is_certified:
                granted += 1
                others = order[looks[-1] :].tolist()
                false += bool(population.precision_of_tier(fit, others) < 0.95)
                break
        if draw % 20 == 0 or draw == draws:
            print(
                f"{draw} draws, looks at {', '.join(map(str, looks))}: certified "
                f"{share_in_words(granted / draw, draw)}, falsely "
                f"{share_in_words(false / draw, draw)}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--served", type=int, help="run only thresholds fitted on the same labels")
    parser.add_argument("--refits", type=Path, help="run only refits of these labelled lists")
    parser.add_argument("--seed", type=int, default=13)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    if options.served:
        print_served(options.served, rng)
    elif options.refits:
        print_refits(options.refits, options.draws, rng)
    else:
        print_terms()
        print_documents(options.draws, rng)


if __name__ == "__main__":
    main()
