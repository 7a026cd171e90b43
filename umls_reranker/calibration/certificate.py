"""The high-confidence tier's promise: thresholds whose precision is certified, not hoped for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .reliability import document_index

__all__ = ["CERTIFICATION_GRID", "Certificate", "certified_threshold", "certify", "clopper_pearson_lower"]

# Chosen once, strictest first; never from labels, or the certificate would not hold.
CERTIFICATION_GRID = np.array([0.999, 0.995, *np.round(np.arange(99, 49, -1) / 100, 2)])
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
    """Thresholds of the grid from `highest` down to `lowest` whose precision is certified, all at once."""

    highest: float
    lowest: float

    def at_least(self, threshold: float) -> float | None:
        """The lowest certified threshold that is not below `threshold`."""
        grid = CERTIFICATION_GRID
        usable = grid[(grid <= self.highest) & (grid >= max(self.lowest, threshold))]
        return float(usable[-1]) if len(usable) else None


def certify(
    top_p: np.ndarray,
    correct: np.ndarray,
    target: float = 0.95,
    confidence: float = 0.95,
    groups: Sequence | None = None,
) -> Certificate | None:
    """Certify that top candidates with ``p >= t`` are right with probability `target` or more, at `confidence`.

    Fixed-sequence testing (Maurer et al. 1995; "learn then test", Angelopoulos et al. 2021): the thresholds of a
    fixed grid are tested from the strictest downward, each at the full level, up to the first that fails. A promise
    is broken only when the first false hypothesis of the sequence passes, so no correction for the number of
    thresholds is due. The sequence may start anywhere as long as labels have no say in it: it starts at the highest
    threshold that accepts twice the least number that can pass (59 without an error at 95 % / 95 %), or that number
    where none accepts twice. How many are accepted depends on scores and documents alone; given those, the labels
    are as random as before, so every test keeps its level.

    Without `groups` the test is the exact binomial one (Clopper-Pearson). Errors of one document resemble each other
    (the same string recurs), which makes that test break its promise two to three times too often on MedMentions; with
    `groups` the counts are divided by the design effect first (Korn & Graubard 1998), which is estimated and so makes
    the test approximate; on resampled MedMentions documents the promise then broke in 1 to 4 % of draws.

    Args:
        top_p: (n,) calibrated probability of each mention's top candidate.
        correct: (n,) whether it is the gold concept.
        groups: (n,) document of each mention.

    Returns:
        The certified part of `CERTIFICATION_GRID`, or None when not even the first threshold passes.
    """
    n, successes, deff, cluster = _accepted(top_p, correct, groups)
    least = np.ceil(np.log(1.0 - confidence) / np.log(target))
    planned = n / (1.0 + (cluster - 1.0) * PLANNED_CORRELATION)
    starts = np.flatnonzero(planned >= 2 * least)
    starts = starts if len(starts) else np.flatnonzero(planned >= least)
    if not len(starts):
        return None
    passed = clopper_pearson_lower(successes / deff, n / deff, confidence)[starts[0] :] >= target
    length = len(passed) if passed.all() else int(np.argmin(passed))
    if not length:
        return None
    certified = CERTIFICATION_GRID[starts[0] : starts[0] + length]
    return Certificate(highest=float(certified[0]), lowest=float(certified[-1]))


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


def _accepted(
    top_p: np.ndarray, correct: np.ndarray, groups: Sequence | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Per threshold of the grid, each (grid,): accepted, of those correct, design effect, mean mentions per document.

    The mean is over mentions (how many share one's document), the form in which clusters inflate a variance.
    """
    top_p, correct = np.asarray(top_p, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    size = len(CERTIFICATION_GRID)
    # The first threshold of the descending grid that accepts each mention; `size` where none does.
    first = np.searchsorted(-CERTIFICATION_GRID, -top_p, side="left")
    if groups is None:
        n, successes = (np.bincount(first, weights=w, minlength=size + 1)[:size].cumsum() for w in (None, correct))
        return n.astype(np.float64), successes, np.ones(size), np.ones(size)
    index, documents = document_index(groups)
    n_by_document, right_by_document = (
        np.bincount(index * (size + 1) + first, weights=w, minlength=documents * (size + 1))
        .reshape(documents, size + 1)[:, :size]
        .cumsum(axis=1)
        for w in (None, correct)
    )
    n, successes = n_by_document.sum(axis=0).astype(np.float64), right_by_document.sum(axis=0)
    rate = successes / np.maximum(n, 1)
    surprise = right_by_document - n_by_document * rate
    clustered = documents / max(documents - 1, 1) * (surprise**2).sum(axis=0)
    independent = n * rate * (1 - rate)
    deff = np.maximum(clustered / np.where(independent > 0, independent, np.inf), 1.0)
    cluster = np.maximum((n_by_document.astype(np.float64) ** 2).sum(axis=0) / np.maximum(n, 1), 1.0)
    # Few errors at strict thresholds estimate poorly; the correlation at the lowest one gives a floor.
    correlation = (deff[-1] - 1.0) / (cluster[-1] - 1.0) if cluster[-1] > 1 else 0.0
    return n, successes, np.maximum(deff, 1.0 + (cluster - 1.0) * correlation), cluster
