"""Drift of a distribution: a two-sample test, and the population stability index for its size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from .reference import Distribution

__all__ = ["SMALLEST_PSI", "Drift", "drift_of", "spent"]

# Usual reading of the index: below 0.1 stable, 0.1 to 0.25 moderate drift, above 0.25 large drift.
SMALLEST_PSI = 0.1


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
        p_value=float(chi2.sf(statistic / reference.scale, reference.degrees)),
        cell=reference.cells[moved],
        share=float(b[moved] / m),
        reference_share=float(a[moved] / n),
    )


def spent(alpha: float, look: int) -> float:
    """Level of test number k (from 1), alpha / (k (k + 1)): any number of tests together spend `alpha`."""
    return alpha / (look * (look + 1))
