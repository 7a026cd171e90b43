"""One test for drift: are mentions in use like those that the model was evaluated on?

The reference is ``reference.json`` of the model folder. It holds a histogram of the top scores, and
the figures that are looked at every day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..calibration.reliability import document_index, document_sums
from ..core.errors import UserError
from ..core.json_files import read_json, require_format
from .statistics import DAILY

if TYPE_CHECKING:
    from ..evaluation.outcomes import Outcomes

# The version of the format of ``reference.json``.
SCHEMA_VERSION = 3
# Cells of the top scores, of equal width: shares of ten cells, or of deciles, differ too much
# between the fit that serves and the five that are cross-fitted.
SCORE_CELLS = 5
# Two further cells: mentions that a model of fewer inputs decided, and those without candidates.
FALLBACK_CELL = SCORE_CELLS
NO_CANDIDATES_CELL = SCORE_CELLS + 1
CELL_NAMES = [
    *(
        f"scores of {cell / SCORE_CELLS:.1f} to {(cell + 1) / SCORE_CELLS:.1f}"
        for cell in range(SCORE_CELLS)
    ),
    "decided with fewer inputs",
    "without candidates",
]
# With enough mentions the smallest difference is significant.
SMALLEST_PSI = 0.02
# With fewer, the variance between documents is not known well enough to test.
FEWEST_DOCUMENTS_TO_TEST = 20
# What a change is called noticed by: a test at this level that misses it at most this often.
LEVEL = 0.05
MISSED = 0.2


class Drift(NamedTuple):
    """How much mentions differ from the reference.

    Attributes:
        psi: population stability index, nats: the sum over cells of (q - p) log(q / p).
        p_value: probability of a difference this large between samples of documents of one
            distribution.
        cell: name of the cell whose share changed most.
        share: share of that cell.
        reference_share: its share in the reference.
        noticed: change of a share that tests at 0.05 find at least four times in five
            (`LEVEL`, `MISSED`).
    """

    psi: float
    p_value: float
    cell: str
    share: float
    reference_share: float
    noticed: float


@dataclass(frozen=True)
class Histogram:
    """Shares of n mentions in the cells of scores and inputs, and how much documents vary.

    Attributes:
        mentions: n.
        documents: number of their documents.
        shares: (k,) share of each cell, in the order of `CELL_NAMES`.
        covariance: (k, k) covariance of the shares, documents being drawn at random.
    """

    mentions: int
    documents: int
    shares: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, is_fallback: np.ndarray, documents: Sequence[str]) -> Histogram:
        """Count mentions.

        Args:
            scores: (n,) scores of the top candidates, NaN without candidates.
            is_fallback: (n,) bool, whether a model of fewer inputs decided.
            documents: (n,) document of each mention.
        """
        mentions = len(scores)
        # A score of 1 belongs to the last cell.
        cell = np.minimum((np.nan_to_num(scores) * SCORE_CELLS).astype(int), SCORE_CELLS - 1)
        cell = np.where(is_fallback, FALLBACK_CELL, cell)
        cell = np.where(np.isnan(scores), NO_CANDIDATES_CELL, cell)
        index, count = document_index(documents)
        # (documents, k) mentions of each document in each cell.
        counts = document_sums(index, count, [np.ones(mentions)], cell, len(CELL_NAMES))[:, 0]
        shares = counts.sum(axis=0) / max(mentions, 1)
        # By how much a document's counts differ from those that the shares predict.
        residuals = (counts - counts.sum(axis=1, keepdims=True) * shares) / max(mentions, 1)
        covariance = count / max(count - 1, 1) * residuals.T @ residuals
        return cls(mentions, count, shares, covariance)

    @classmethod
    def of_outcomes(cls, outcomes: Outcomes) -> Histogram:
        """Count the outcomes of an evaluation."""
        return cls.of(outcomes.score, outcomes.decided_by > 0, outcomes.document.tolist())

    def drift_to(self, other: Histogram) -> Drift:
        """Compare with further mentions.

        Mentions of a document share a subject, so shares vary more than those of independent
        mentions. Pearson's statistic of two samples is a weighted sum of chi-squares, whose weights
        are those of the covariance of both; its first two moments are those of ``scale`` times a
        chi-square (Rao & Scott 1984, second order).
        """
        from scipy.special import chndtrinc
        from scipy.stats import chi2

        total = self.mentions + other.mentions
        pooled = (self.mentions * self.shares + other.mentions * other.shares) / total
        covariance = self.covariance + other.covariance
        # Pearson's statistic divides by the pooled share, so empty cells are left out.
        used = pooled > 0
        difference = (other.shares - self.shares)[used] / np.sqrt(pooled[used])
        of_difference = covariance[np.ix_(used, used)]
        of_difference = of_difference / np.sqrt(np.outer(pooled[used], pooled[used]))
        trace = float(np.trace(of_difference))
        squares = float((of_difference**2).sum())
        p_value = 1.0
        # The smallest change that counts, of a share and of the others together.
        noticed = np.sqrt(SMALLEST_PSI * pooled * (1 - pooled))
        if squares > 0:
            freedom = trace**2 / squares
            statistic = difference @ difference * trace / squares
            p_value = float(chi2.sf(statistic, freedom))
            noncentrality = chndtrinc(chi2.isf(LEVEL, freedom), freedom, MISSED)
            noticed = np.maximum(noticed, np.sqrt(noncentrality * np.diag(covariance)))
        moved = int(np.argmax(np.abs(other.shares - self.shares)))
        return Drift(
            psi=self._stability_index(other),
            p_value=p_value,
            cell=CELL_NAMES[moved],
            share=float(other.shares[moved]),
            reference_share=float(self.shares[moved]),
            noticed=float(noticed.max()),
        )

    def _stability_index(self, other: Histogram) -> float:
        """The population stability index between two histograms, nats."""
        # Half a mention per cell keeps the index finite for empty cells.
        added = len(self.shares) / 2
        p = (self.mentions * self.shares + 0.5) / (self.mentions + added)
        q = (other.mentions * other.shares + 0.5) / (other.mentions + added)
        return float(((q - p) * np.log(q / p)).sum())


def reference_content(
    figures: Mapping[str, Mapping[str, Any]], histogram: Histogram
) -> dict[str, Any]:
    """The content of ``reference.json``: what a model did on documents that it was not fitted on.

    Args:
        figures: those of ``metrics.json``.
        histogram: of the scores and inputs.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "figures": {
            name: {key: figures[name][key] for key in ("value", "low", "high")} for name in DAILY
        },
        "mentions": histogram.mentions,
        "documents": histogram.documents,
        "shares": histogram.shares.tolist(),
        "covariance": histogram.covariance.tolist(),
    }


def read_reference(path: Path) -> tuple[dict[str, dict[str, float | None]], Histogram]:
    """Figures and histogram of ``reference.json``.

    Raises:
        UserError: the file is missing, or of another version.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; umls-reranker evaluate writes it")
    content = read_json(path)
    require_format(path, content, SCHEMA_VERSION, "evaluate")
    return content["figures"], Histogram(
        mentions=content["mentions"],
        documents=content["documents"],
        shares=np.array(content["shares"]),
        covariance=np.array(content["covariance"]),
    )
