"""Drift of a distribution: a two-sample test, and the population stability index for its size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .reference import Distribution

__all__ = ["SMALLEST_PSI", "Drift", "chi_square_tail", "drift_of", "spent"]

# Usual reading of the index: below 0.1 stable, 0.1 to 0.25 moderate drift, above 0.25 large drift.
SMALLEST_PSI = 0.1
EPSILON = 1e-14


@dataclass(frozen=True)
class Drift:
    """A window compared with the reference.

    Attributes:
        psi: population stability index, nats: the sum over cells of (q - p) log(q / p).
        p_value: probability of at least this difference between two samples of one distribution.
        cell: label of the cell whose share changed most. share, reference_share: of that cell.
    """

    psi: float
    p_value: float
    cell: str
    share: float
    reference_share: float


def drift_of(reference: Distribution, counts: np.ndarray) -> Drift:
    """Compare the counts of a window, (k,), with the reference's.

    Pearson's two-sample statistic, assuming the reference's clustering by document for both (see `Distribution`).
    """
    a, b = np.array(reference.counts, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    used = a + b > 0
    n, m = a.sum(), b.sum()
    statistic = ((np.sqrt(m / n) * a - np.sqrt(n / m) * b)[used] ** 2 / (a + b)[used]).sum()
    # Half a mention per cell keeps the index finite for empty cells.
    p, q = (a + 0.5) / (n + len(a) / 2), (b + 0.5) / (m + len(b) / 2)
    moved = int(np.argmax(np.abs(q - p)))
    return Drift(
        psi=float(((q - p) * np.log(q / p)).sum()),
        p_value=chi_square_tail(float(statistic) / reference.scale, reference.degrees),
        cell=reference.cells[moved],
        share=float(b[moved] / m),
        reference_share=float(a[moved] / n),
    )


def chi_square_tail(x: float, degrees: float) -> float:
    """Probability of at least `x` under the chi-square distribution; serving does not need SciPy for it.

    The power series and the continued fraction of the incomplete gamma function (Abramowitz and Stegun 1964, 6.5.29
    and 6.5.31), each where it converges fast.
    """
    a, x = degrees / 2, x / 2
    if x <= 0:
        return 1.0
    factor = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        while term > EPSILON * total:
            a += 1
            term *= x / a
            total += term
        return 1 - factor * total
    # Evaluated from its front by Lentz's method.
    b = x + 1 - a
    c, d = math.inf, 1 / b
    fraction, change, n = d, 0.0, 0
    while abs(change - 1) > EPSILON:
        n += 1
        numerator = n * (a - n)
        b += 2
        c, d = b + numerator / c, 1 / (b + numerator * d)
        change = c * d
        fraction *= change
    return factor * fraction


def spent(alpha: float, look: int) -> float:
    """Level of test number k (from 1), alpha / (k (k + 1)): any number of tests together spend `alpha`."""
    return alpha / (look * (look + 1))
