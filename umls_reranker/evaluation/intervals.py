"""95 % intervals of figures: whole documents are resampled, because their mentions are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..calibration.reliability import (
    bootstrap_sums,
    calibration_report,
    document_index,
    document_sums,
    ratio,
)

# The probability on each side of a 95 % interval.
TAIL = 0.025
# A figure as ``metrics.json`` holds it: ``value``, and the ends of its interval, ``low`` and
# ``high``; often also ``n``, the mentions that count, and ``population``, which they are.
Measure = dict[str, Any]


@dataclass(frozen=True)
class Documents:
    """The documents of n rows, such as mentions, and their resampling for 95 % intervals.

    Attributes:
        index: (n,) int64 document of each row.
        count: number of documents.
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.
    """

    index: np.ndarray
    count: int
    resamples: int = 1000
    seed: int = 0

    @classmethod
    def of(cls, ids: Sequence | np.ndarray, resamples: int = 1000, seed: int = 0) -> Documents:
        """Make it from the id of each row's document."""
        return cls(*document_index(ids), resamples=resamples, seed=seed)

    def take(self, rows: np.ndarray) -> Documents:
        """The documents of some rows: indices, which may repeat, or (n,) bool."""
        index, count = document_index(self.index[rows])
        return replace(self, index=index, count=count)

    def measure(
        self,
        columns: Sequence[np.ndarray],
        statistic: Callable[[np.ndarray], np.ndarray] = ratio,
        *,
        is_share: bool = True,
    ) -> Measure:
        """A statistic of the sums of k columns (n,), with its `interval`.

        Args:
            columns: the columns; the last one is 1 for each row that counts, and ``n`` is its sum.
            statistic: makes the figure from sums (..., k); by default, the first divided by the
                second.
            is_share: as for `interval`.
        """
        sums = document_sums(self.index, self.count, columns)
        figure = self.interval(sums, statistic, is_share=is_share)
        return figure | {"n": int(columns[-1].sum())}

    def calibration(self, p: np.ndarray, labels: np.ndarray) -> dict[str, Measure]:
        """The `calibration_report` of probabilities (n,) and labels (n,)."""
        return calibration_report(p, labels, self.index, resamples=self.resamples, seed=self.seed)

    def interval(
        self,
        sums: np.ndarray,
        statistic: Callable[[np.ndarray], np.ndarray],
        *,
        is_share: bool,
    ) -> Measure:
        """A statistic of sums (documents, k) as ``{"value", "low", "high"}``, 95 % by document.

        Resamples of one document, or of documents that are correct or incorrect throughout, do not
        vary. One document has no interval. A share of 1 or 0 over n documents reaches to what n
        equal documents exclude: ``0.025 ** (1 / n)``.

        Args:
            sums: sums of k columns by document.
            statistic: makes the figure from sums (..., k).
            is_share: whether the figure is a share of the mentions that the second column counts;
                a difference of 0 has an interval of 0.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(statistic(sums.sum(axis=0)))
        if len(sums) < 2:
            return {"value": value, "low": np.nan, "high": np.nan}
        low, high = bootstrap_sums(sums, statistic, resamples=self.resamples, seed=self.seed)
        if is_share and low == high and value in (0.0, 1.0):
            counting_documents = np.count_nonzero(sums[:, 1])
            # Below this share, so many documents are all correct in less than 2.5 % of draws.
            lowest_share = TAIL ** (1.0 / counting_documents)
            if value == 1.0:
                low = lowest_share
                high = 1.0
            else:
                low = 0.0
                high = 1.0 - lowest_share
        return {"value": value, "low": low, "high": high}
