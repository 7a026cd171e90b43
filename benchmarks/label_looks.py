"""Users who label documents step by step: how often they certify falsely, and after how many.

Run by ``python benchmarks/certificate.py --looks 2000``. Each draw is a sequence of labelled
documents with one tier. Under "each look at 5 %" a user is tested whenever he likes; under the plan
the looks of `planned_looks` are tested, whatever he does between them, and a new study follows on
as many new documents. "Cross-fitted": logits with weak information, mapped by `certify(calibrate=)`
in each look, and precision known from how they are drawn.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import NamedTuple

import numpy as np

from umls_reranker.calibration.certify import certify
from umls_reranker.calibration.looks import later_share, planned_looks
from umls_reranker.calibration.precision_test import PrecisionTest
from umls_reranker.calibration.study import Study
from umls_reranker.core.errors import TooLittleData

FALSE = 0.949
MOST = 360
STEPS = range(60, 301, 30)
DOCUMENTS = range(60, 301)
# A share of correct answers that looks good.
LOOKS_GOOD = 0.98
LOWER_TARGETS = (0.95, 0.9, 0.85)


class Sequences(NamedTuple):
    """Draws of documents in their order, (draws, documents): mentions in the tier, and correct."""

    size: np.ndarray
    correct: np.ndarray


Kind = Callable[[int, int, float, np.random.Generator], Sequences]


def terms(draws: int, documents: int, precision: float, rng: np.random.Generator) -> Sequences:
    size = np.ones((draws, documents), int)
    return Sequences(size, (rng.random(size.shape) < precision).astype(int))


def of_ten(draws: int, documents: int, precision: float, rng: np.random.Generator) -> Sequences:
    """Ten mentions each, with a correlation of 0.1."""
    size = np.full((draws, documents), 10)
    mean = rng.beta(9 * precision, 9 * (1 - precision), size.shape)
    return Sequences(size, rng.binomial(size, mean))


def mixed(
    draws: int,
    documents: int,
    precision: float,
    rng: np.random.Generator,
    *,
    share: float = 0.1,
    times: int = 3,
    only_large: bool = True,
) -> Sequences:
    """A share of the documents is larger, and only these are wrong, wholly; or all alike."""
    is_large = rng.random((draws, documents)) < share
    size = np.where(is_large, 10 * times, 10)
    if not only_large:
        mean = rng.beta(9 * precision, 9 * (1 - precision), size.shape)
        return Sequences(size, rng.binomial(size, mean))
    mean_size = 10 * (1 + share * (times - 1))
    chance = (1 - precision) * mean_size / (share * 10 * times)
    is_wrong = is_large & (rng.random(size.shape) < chance)
    return Sequences(size, np.where(is_wrong, 0, size))


KINDS: dict[str, Kind] = {"terms": terms, "10 each": of_ten, "mixed sizes": mixed}
HARMLESS: dict[str, Kind] = KINDS | {"mixed sizes": partial(mixed, only_large=False)}
POOLS: dict[str, list[int]] = {"mixed sizes": [10] * 900 + [30] * 100}


@cache
def _test(target: float, share: float, sizes: tuple[int, ...], counts: tuple[int, ...]):
    test = PrecisionTest(target, share=share)
    return test.for_sizes(np.repeat(sizes, counts))


def passes(draws: Sequences, documents: int, share: float, target: float = 0.95) -> np.ndarray:
    """Whether the first documents of each draw are certified, (draws,) bool."""
    size = draws.size[:, :documents]
    correct = draws.correct[:, :documents]
    kinds = np.unique(draws.size)
    by_kind = np.stack([(size == kind).sum(axis=1) for kind in kinds], axis=1)
    # Documents of a size with so many correct mentions.
    largest = int(kinds[-1])
    cells = size * (largest + 1) + correct
    all_cells = np.unique(cells)
    counts = np.stack([(cells == cell).sum(axis=1) for cell in all_cells], axis=1)
    cell_size, cell_correct = np.divmod(all_cells, largest + 1)
    passed = np.zeros(len(size), bool)
    for composition in np.unique(by_kind, axis=0):
        rows = np.flatnonzero((by_kind == composition).all(axis=1))
        test = _test(target, share, tuple(kinds.tolist()), tuple(composition.tolist()))
        size_of_each = np.repeat(kinds, composition)
        if test.effective(size_of_each) < test.needed:
            continue
        # Draws with equal documents have one p-value.
        of_rows, which = np.unique(counts[rows], axis=0, return_inverse=True)
        p_values = test.p_values(cell_size, cell_correct, of_rows)
        passed[rows] = (p_values <= test.level)[which.ravel()]
    return passed


def any_of(draws: Sequences, numbers: Sequence[int], target: float = 0.95) -> np.ndarray:
    """Whether any of these numbers of documents is certified at 5 %, (draws,) bool."""
    passed = np.zeros(len(draws.size), bool)
    for number in numbers:
        passed |= passes(draws, number, 1.0, target)
    return passed


def when_it_looks_good(draws: Sequences) -> np.ndarray:
    """One look at 5 %, as soon as the share of correct answers looks good, else at the end."""
    correct = np.cumsum(draws.correct, axis=1) / np.cumsum(draws.size, axis=1)
    numbers = np.array(DOCUMENTS)
    is_good = correct[:, numbers - 1] >= LOOKS_GOOD
    is_good[:, -1] = True
    stop = numbers[is_good.argmax(axis=1)]
    passed = np.zeros(len(stop), bool)
    for number in np.unique(stop):
        rows = stop == number
        stopped = Sequences(draws.size[rows], draws.correct[rows])
        passed[rows] = passes(stopped, int(number), 1.0)
    return passed


def by_plan(draws: Sequences, kind: str, target: float = 0.95) -> np.ndarray:
    """The number of documents of the first look that certifies, (draws,); 0 if none does."""
    found = np.zeros(len(draws.size), int)
    for look in planned_looks(target, sizes=POOLS.get(kind, ())):
        passed = passes(draws, look.documents, look.share, target)
        found[passed & (found == 0)] = look.documents
    return found


def by_new_study(draws: Sequences, attempt: int) -> np.ndarray:
    """Whether one look at all documents of a later study is certified, (draws,) bool."""
    return passes(draws, draws.size.shape[1], later_share(attempt))


def false_certificates(draws: int, rng: np.random.Generator) -> dict[str, list[float]]:
    """Shares of draws with a false certificate: user -> each kind at 5 %, then under the plan."""
    rows: dict[str, list[float]] = {}
    for kind, make in KINDS.items():
        longest = planned_looks(sizes=POOLS.get(kind, ()))[-1].documents
        drawn = make(draws, longest, FALSE, rng)
        # Where sizes differ, each number of documents has tests of its own: in steps.
        each = DOCUMENTS if kind != "mixed sizes" else STEPS
        planned = by_plan(drawn, kind) > 0
        good = when_it_looks_good(drawn) if kind != "mixed sizes" else None
        new = planned.copy()
        for attempt in (2, 3):
            new |= by_new_study(make(draws, longest, FALSE, rng), attempt)
        lower = np.zeros(draws, bool)
        for target in LOWER_TARGETS:
            lower |= passes(drawn, 300, 1.0, target) & (target > FALSE)
        users = {
            "restarts each 30": (any_of(drawn, STEPS), planned),
            "stops when 98 % are correct": (good, planned),
            "computes p at each document": (any_of(drawn, each), planned),
            "three targets, each as a look": (lower, planned),
            "then two new studies": (None, new),
        }
        for user, columns in users.items():
            shares = [np.nan if column is None else float(column.mean()) for column in columns]
            rows.setdefault(user, []).extend(shares)
    return rows


def cross_fitted(draws: int, rng: np.random.Generator) -> float:
    """Share of draws in which any look of a plan certifies a tier of real cross-fits falsely.

    An answer is correct with a probability that rises with its logit, 0.94 on average.
    """
    study, order = Study.draw(range(MOST))

    def chance(logit: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-(3.0 + 0.6 * logit)))

    known = rng.normal(size=200_000)
    false = 0
    for _ in range(draws):
        logit = rng.normal(size=MOST)
        correct = rng.random(MOST) < chance(logit)
        current = study
        is_false = False
        for look in study.looks:
            first = look.documents
            answers = logit[:first], correct[:first], order[:first]
            # By chance, scores may say nothing in a fifth of the documents.
            with suppress(TooLittleData):
                found = certify(*answers, calibrate=True, study=current)
                current = found.study or current
                if found.threshold is not None:
                    tier = known[known >= found.threshold]
                    is_false |= bool(len(tier)) and float(chance(tier).mean()) < 0.95
        false += is_false
    return false / draws


def medians(draws: int, rng: np.random.Generator) -> dict[str, list[str]]:
    """Documents until a certificate, median: in steps of 30 once and under the plan."""
    cases = {
        "terms of 0.98": ("terms", 0.98),
        "terms of 0.99": ("terms", 0.99),
        "flawless terms": ("terms", 1.0),
        "10 each of 0.98": ("10 each", 0.98),
        "mixed sizes of 0.98": ("mixed sizes", 0.98),
    }
    rows = {}
    for name, (kind, precision) in cases.items():
        looks = planned_looks(sizes=POOLS.get(kind, ()))
        drawn = HARMLESS[kind](draws, looks[-1].documents, precision, rng)
        found = by_plan(drawn, kind)
        at = np.where(found > 0, found, np.inf)
        median = np.quantile(at, 0.5, method="lower")
        share = (found > 0).mean()
        once = [n for n in range(60, 361, 30) if passes(drawn, n, 1.0).mean() >= 0.5]
        in_words = f"{median:.0f}" if np.isfinite(median) else "never"
        first = f"{once[0]}" if once else "never"
        rows[name] = [first, in_words, f"{share:.2f}"]
    return rows


def print_tables(draws: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    error = np.sqrt(0.055 * 0.945 / draws)
    print(f"{draws:,} draws; 5.5 % plus two standard errors: {0.055 + 2 * error:.2%}\n")
    titles = [f"{kind}: {rule}" for kind in KINDS for rule in ("each at 5 %", "plan")]
    print(f"| user | {' | '.join(titles)} |\n|---|{'--:|' * len(titles)}")
    for user, shares in false_certificates(draws, rng).items():
        cells = ["-" if np.isnan(share) else f"{share:.1%}" for share in shares]
        print(f"| {user} | {' | '.join(cells)} |", flush=True)
    print(f"\ncross-fitted, plan: {cross_fitted(draws, rng):.1%}\n")
    print("| documents until a certificate, median | once, in steps of 30 | plan | share |")
    print("|---|--:|--:|--:|")
    for name, row in medians(max(200, draws // 5), rng).items():
        print(f"| {name} | {' | '.join(row)} |", flush=True)
