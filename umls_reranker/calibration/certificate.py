"""The high-confidence tier's promise: thresholds whose precision is certified, not hoped for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .resampling import document_index, document_sums

__all__ = ["Certificate", "certified_threshold", "certify", "clopper_pearson_lower", "is_promising", "lower_bounds"]

# Places from which the sequence is walked down, at most.
STARTS = 3
# Each threshold of the sequence accepts this many times the mentions of the one before, and none lies below FLOOR.
STEP = 1.02
FLOOR = 0.5
# Thresholds are kept to four decimals.
PLACES = 1e4
# Correlation of errors within a document assumed when the first threshold to test is chosen (MedMentions: about 0.1).
PLANNED_CORRELATION = 0.1


def clopper_pearson_lower(successes: np.ndarray, n: np.ndarray, confidence: float = 0.95) -> np.ndarray:
    """Exact one-sided lower confidence bound of a binomial proportion (Clopper & Pearson 1934).

    Counts may be fractional (effective sample sizes) and of any shape; 0 where there is no success.
    """
    from scipy.special import betaincinv

    successes, n = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    bound = betaincinv(np.maximum(successes, 1e-9), n - successes + 1.0, 1.0 - confidence)
    return np.where(successes > 0, bound, 0.0)


@dataclass(frozen=True)
class Certificate:
    """Thresholds, descending, whose precision is certified, all at once."""

    thresholds: tuple[float, ...]

    @property
    def highest(self) -> float:
        return self.thresholds[0]

    @property
    def lowest(self) -> float:
        return self.thresholds[-1]

    def at_least(self, threshold: float) -> float | None:
        """The lowest certified threshold that is not below `threshold`."""
        usable = [certified for certified in self.thresholds if certified >= threshold]
        return usable[-1] if usable else None


def certify(
    top_p: np.ndarray,
    correct: np.ndarray,
    target: float = 0.95,
    confidence: float = 0.95,
    groups: Sequence | None = None,
) -> Certificate | None:
    """Certify that top candidates with ``p >= t`` are right with probability `target` or more, at `confidence`.

    Fixed-sequence testing (Maurer et al. 1995; "learn then test", Angelopoulos et al. 2021): a sequence of thresholds
    is tested downward from each of three starts, up to the first that fails, and the risk of an error is shared out
    among the starts. On a way down a promise is broken only when the first false hypothesis passes, so no correction
    for the number of thresholds is due. Sequence and starts may be any as long as labels have no say in them. Each
    threshold accepts 2 % more mentions than the one before; the first start is the highest that accepts twice the
    least number that can pass (59 without an error at 95 % / 95 %), or that number where none accepts twice, and the
    others lie a third and two thirds down the rest: where the few highest scores hold a wrong string of one document,
    a lower threshold, which weighs it among many, can still pass. How many are accepted depends on scores and
    documents alone; given those, the labels are as random as before, so every test keeps its level.

    Without `groups` the test is the exact binomial one (Clopper-Pearson). Errors of one document resemble each other
    (the same string recurs), which makes that test break its promise two to three times too often on MedMentions; with
    `groups` see `lower_bounds`.

    Args:
        top_p: (n,) calibrated probability of each mention's top candidate.
        correct: (n,) whether it is the gold concept.
        groups: (n,) document of each mention.

    Returns:
        The certified thresholds, or None when no start passes.
    """
    top_p = np.asarray(top_p, dtype=np.float64)
    thresholds, starts = _sequence(top_p, target, confidence, groups)
    if not len(starts):
        return None
    level = 1.0 - (1.0 - confidence) / len(starts)
    passed = lower_bounds(*_by_document(top_p, correct, thresholds, groups), level) >= target
    certified = np.zeros(len(thresholds), bool)
    for start in starts:
        failed = np.flatnonzero(~passed[start:])
        certified[start : start + failed[0] if len(failed) else None] = True
    return Certificate(tuple(thresholds[certified].tolist())) if certified.any() else None


def certified_threshold(
    top_p: np.ndarray,
    correct: np.ndarray,
    target: float = 0.95,
    confidence: float = 0.95,
    groups: Sequence | None = None,
) -> float | None:
    """The lowest threshold that `certify` certifies, or None."""
    certificate = certify(top_p, correct, target, confidence, groups)
    return certificate.lowest if certificate else None


def is_promising(
    top_p: np.ndarray, target: float = 0.95, confidence: float = 0.95, groups: Sequence | None = None
) -> bool:
    """Whether some threshold would pass if top candidates were right as often as their probabilities say.

    Labels have no say in it, so what is not promising may be left untested, and costs the rest no confidence.
    """
    top_p = np.asarray(top_p, dtype=np.float64)
    thresholds, starts = _sequence(top_p, target, confidence, groups)
    if not len(starts):
        return False
    level = 1.0 - (1.0 - confidence) / len(starts)
    accepted, right = _by_document(top_p, top_p, thresholds[starts[0] :], groups)
    planned = _planned(accepted, groups)
    expected = planned * right.sum(axis=0) / np.maximum(accepted.sum(axis=0), 1.0)
    return bool(np.any(clopper_pearson_lower(expected, planned, level) >= target))


def lower_bounds(
    accepted: np.ndarray, right: np.ndarray, confidence: float = 0.95, times: np.ndarray | None = None
) -> np.ndarray:
    """Lower confidence bound of the precision at each threshold, with whole documents as what is drawn.

    Clopper & Pearson's bound of counts divided by the design effect (Korn & Graubard 1998), which makes the exact test
    approximate: the effect is how many times larger the variance between documents is than that of as many independent
    mentions. Few errors at strict thresholds estimate it poorly, so the correlation at the last threshold, where there
    are most, gives a floor. Where each document has one mention, and where all counts stand in one row, the effect is
    1 and the bound the exact one.

    Args:
        accepted, right: (documents, k) mentions of each document with ``p >= t``, and of those the right ones, for k
            descending thresholds.
        times: (draws, documents) how often each document is drawn; once each unless given.

    Returns:
        (k,) float64, or (draws, k).
    """
    accepted, right = np.asarray(accepted, dtype=np.float64), np.asarray(right, dtype=np.float64)
    drawn = np.ones((1, len(accepted))) if times is None else np.asarray(times, dtype=np.float64)
    documents = drawn.sum(axis=1, keepdims=True)
    n, successes = drawn @ accepted, drawn @ right
    rate = successes / np.maximum(n, 1)
    squares = drawn @ accepted**2
    # Squared surprises of documents, right - rate x accepted, summed.
    surprise = drawn @ right**2 - 2 * rate * (drawn @ (right * accepted)) + rate**2 * squares
    clustered = documents / np.maximum(documents - 1, 1) * np.maximum(surprise, 0.0)
    independent = n * rate * (1 - rate)
    effect = np.maximum(clustered / np.where(independent > 1e-9, independent, np.inf), 1.0)
    # Mentions that share a mention's document, on average: the form in which clusters inflate a variance.
    cluster = np.maximum(squares / np.maximum(n, 1), 1.0)
    crowd = cluster[:, -1:] - 1.0
    correlation = np.where(crowd > 0, (effect[:, -1:] - 1.0) / np.where(crowd > 0, crowd, 1.0), 0.0)
    effect = np.where(cluster > 1, np.maximum(effect, 1.0 + (cluster - 1.0) * correlation), 1.0)
    bounds = clopper_pearson_lower(successes / effect, n / effect, confidence)
    return bounds[0] if times is None else bounds


def _sequence(
    top_p: np.ndarray, target: float, confidence: float, groups: Sequence | None
) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds, descending, and the places where testing starts; none where too few mentions are accepted."""
    least = np.ceil(np.log(1.0 - confidence) / np.log(target))
    ordered = np.sort(top_p[~np.isnan(top_p)])[::-1]
    ordered = ordered[ordered >= FLOOR]
    if len(ordered) < least:
        return np.empty(0), np.empty(0, np.int64)
    steps = int(np.log(len(ordered) / least) / np.log(STEP))
    places = np.unique(np.append(least * STEP ** np.arange(steps + 1), len(ordered)).astype(np.int64))
    thresholds = np.unique(np.floor(ordered[places - 1] * PLACES) / PLACES)[::-1]
    planned = _planned(_by_document(top_p, np.zeros(len(top_p)), thresholds, groups)[0], groups)
    usable = np.flatnonzero(planned >= 2 * least)
    usable = usable if len(usable) else np.flatnonzero(planned >= least)
    if not len(usable):
        return thresholds, usable
    first, rest = usable[0], len(thresholds) - usable[0]
    return thresholds, np.unique(first + np.arange(STARTS) * rest // STARTS)


def _planned(accepted: np.ndarray, groups: Sequence | None) -> np.ndarray:
    """(k,) independent mentions that those accepted of each document (documents, k) are reckoned to be worth."""
    n = accepted.sum(axis=0)
    if groups is None:
        return n
    cluster = np.maximum((accepted**2).sum(axis=0) / np.maximum(n, 1), 1.0)
    return n / (1.0 + (cluster - 1.0) * PLANNED_CORRELATION)


def _by_document(
    top_p: np.ndarray, right: np.ndarray, thresholds: np.ndarray, groups: Sequence | None
) -> tuple[np.ndarray, np.ndarray]:
    """(documents, thresholds) mentions accepted, and the sum of `right` (n,) over them; in one row without groups."""
    index, documents = (np.zeros(len(top_p), np.int64), 1) if groups is None else document_index(groups)
    # The first threshold of the descending sequence that accepts each mention; beyond the last where none does.
    first = np.searchsorted(-thresholds, -top_p, side="left")
    sums = document_sums(
        index, documents, [np.ones(len(top_p)), np.asarray(right, np.float64)], first, len(thresholds) + 1
    )
    accepted, hits = np.moveaxis(sums[:, :, :-1].cumsum(axis=2), 1, 0)
    return accepted, hits
