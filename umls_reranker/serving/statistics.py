"""Figures of a model in use, also for Prometheus, and one test for drift."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..calibration.decisions import TIERS, Tops
from ..calibration.features import ALL_INPUTS
from ..calibration.reliability import document_index, document_sums
from ..core.arrays import list_offsets, number_distinct
from ..core.errors import UserError
from ..core.json_files import read_json, require_format

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from ..evaluation.outcomes import Outcomes

SCHEMA_VERSION = 3
# What is looked at every day, and compared with the reference.
DAILY = ("high_confidence_coverage", "accepted_coverage", "mean_top_score", "mean_margin")
# Cells of the top scores, of equal width: shares of ten cells, or of deciles, differ too much
# between the fit that serves and the five that are cross-fitted. Two further cells hold mentions
# that a model of fewer inputs decided, and mentions without candidates.
SCORE_CELLS = 5
# With enough mentions the smallest difference is significant.
SMALLEST_PSI = 0.02
# With fewer, the variance between documents is not known well enough to test.
FEWEST_DOCUMENTS = 20


# Counts of pairs: whose mention or name was cut to the model's length; that have a logit; for which
# the cross-encoder computed it, while it knew those of the others.
PAIRS = ("truncated_pairs", "scored_pairs", "computed_pairs")
# Tier of a top candidate, None without one, -> its index in `TIERS`, or -1.
TIER_NUMBERS: dict[str | None, int] = {
    None: -1,
    **{tier: number for number, tier in enumerate(TIERS)},
}


# Stands for the top candidate of a mention without candidates.
NO_CANDIDATE: dict[str, Any] = {"score": np.nan, "margin": np.nan, "tier": None, "accepted": False}


def tops_of_rows(rows: Iterable[Mapping[str, Any]]) -> tuple[Tops, list[str]]:
    """What ranked rows (`read_ranked`) say about top candidates.

    Returns:
        The columns, and the names of the models, "all" first.
    """
    sizes = []
    tops = []
    for row in rows:
        ranked = row["ranked"]
        top = ranked[0] if ranked else NO_CANDIDATE
        sizes.append(len(ranked))
        tops.append(top)
    deciding = (top.get("model_name", ALL_INPUTS) for top in tops)
    model_names, models = number_distinct([ALL_INPUTS, *deciding])
    return Tops(
        positions=np.where(sizes, list_offsets(sizes)[:-1], -1),
        sizes=np.array(sizes, np.int64),
        probabilities=np.array([top["score"] for top in tops], np.float64),
        margins=np.array([top["margin"] for top in tops], np.float64),
        tiers=np.array([TIER_NUMBERS[top["tier"]] for top in tops], np.int64),
        accepted=np.array([top["accepted"] for top in tops], bool),
        models=models[1:],
    ), model_names


class Statistics:
    """Sums over all that a model ranked; of constant size, and safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget everything counted so far."""
        with self._lock:
            self._sums: Counter = Counter()

    def add(self, tops: Tops, model_names: Sequence[str], **pairs: int) -> None:
        """Count mentions and pairs.

        Args:
            tops: what was decided about the mentions.
            model_names: names of the models, by their index in `tops`.
            pairs: numbers of `PAIRS`.
        """
        tiers = Counter(tops.tiers.tolist())
        counts = {("tier", tier): tiers[number] for number, tier in enumerate(TIERS)}
        models = Counter(("model", model_names[number]) for number in tops.models.tolist())
        sums: dict[str, float] = {
            "mentions": len(tops.sizes),
            "without_candidates": int((tops.sizes == 0).sum()),
            "candidates": int(tops.sizes.sum()),
            "accepted": int(tops.accepted.sum()),
            "scores": float(np.nansum(tops.probabilities)),
            "margins": float(np.nansum(tops.margins)),
            **pairs,
        }
        with self._lock:
            for more in (sums, counts, models):
                self._sums.update(more)

    def to_dict(self) -> dict[str, Any]:
        """Counts, shares of all mentions, and means over those with candidates or None.

        A mention without candidates or tiers counts as not accepted. ``models`` counts mentions by
        the model that decided.
        """
        with self._lock:
            sums = self._sums.copy()
        mentions = sums["mentions"]
        ranked = mentions - sums["without_candidates"]
        return {
            "mentions": mentions,
            "without_candidates": sums["without_candidates"],
            "candidates": sums["candidates"],
            **{name: sums[name] for name in PAIRS},
            "models": {key[1]: count for key, count in sums.items() if key[0] == "model"},
            "tiers": {tier: sums["tier", tier] for tier in TIERS},
            "high_confidence_coverage": _mean(sums["tier", "high"], mentions),
            "accepted_coverage": _mean(sums["accepted"], mentions),
            "mean_top_score": _mean(sums["scores"], ranked),
            "mean_margin": _mean(sums["margins"], ranked),
        }


def _mean(total: float, count: int) -> float | None:
    return total / count if count else None


class StatisticsCollector:
    """Statistics for a registry of prometheus_client (extra ``monitoring``)."""

    def __init__(self, statistics: Statistics) -> None:
        self.statistics = statistics

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; called by the client library."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        figures = self.statistics.to_dict()
        for name in ("mentions", *PAIRS):
            yield CounterMetricFamily(
                f"umls_reranker_{name}", name.replace("_", " "), figures[name]
            )
        tiers = CounterMetricFamily(
            "umls_reranker_answers", "top candidates by tier", labels=["tier"]
        )
        for tier, count in figures["tiers"].items():
            tiers.add_metric([tier], count)
        yield tiers
        for name in DAILY:
            if figures[name] is not None:
                yield GaugeMetricFamily(f"umls_reranker_{name}", "since the start", figures[name])


class Drift(NamedTuple):
    """How much mentions differ from the reference.

    Attributes:
        psi: population stability index, nats: the sum over cells of (q - p) log(q / p).
        p_value: probability of a difference this large between samples of documents of one
            distribution.
        cell: name of the cell whose share changed most.
        share: share of that cell.
        reference_share: its share in the reference.
        noticed: change of a share that tests at 0.05 find at least four times in five.
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
        shares: (k,) share of each cell.
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
        cell = np.minimum((np.nan_to_num(scores) * SCORE_CELLS).astype(int), SCORE_CELLS - 1)
        cell = np.where(np.isnan(scores), SCORE_CELLS + 1, np.where(is_fallback, SCORE_CELLS, cell))
        index, count = document_index(documents)
        sums = document_sums(index, count, [np.ones(len(cell))], cell, SCORE_CELLS + 2)[:, 0]
        shares = sums.sum(axis=0) / max(len(cell), 1)
        residuals = (sums - sums.sum(axis=1, keepdims=True) * shares) / max(len(cell), 1)
        return cls(len(cell), count, shares, count / max(count - 1, 1) * residuals.T @ residuals)

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
        used = pooled > 0
        difference = (other.shares - self.shares)[used] / np.sqrt(pooled[used])
        covariance = (self.covariance + other.covariance)[np.ix_(used, used)]
        covariance = covariance / np.sqrt(np.outer(pooled[used], pooled[used]))
        trace = float(np.trace(covariance))
        squares = float((covariance**2).sum())
        p_value = 1.0
        # The smallest change that counts, of a share and of the others together.
        noticed = np.sqrt(SMALLEST_PSI * pooled * (1 - pooled))
        if squares > 0:
            freedom = trace**2 / squares
            noncentrality = chndtrinc(chi2.isf(0.05, freedom), freedom, 0.2)
            variances = np.diag(self.covariance + other.covariance)
            noticed = np.maximum(noticed, np.sqrt(noncentrality * variances))
            p_value = float(chi2.sf(difference @ difference * trace / squares, freedom))
        # Half a mention per cell keeps the index finite for empty cells.
        p = (self.mentions * self.shares + 0.5) / (self.mentions + len(pooled) / 2)
        q = (other.mentions * other.shares + 0.5) / (other.mentions + len(pooled) / 2)
        moved = int(np.argmax(np.abs(other.shares - self.shares)))
        of_scores = [
            f"scores of {cell / SCORE_CELLS:.1f} to {(cell + 1) / SCORE_CELLS:.1f}"
            for cell in range(SCORE_CELLS)
        ]
        names = [*of_scores, "decided with fewer inputs", "without candidates"]
        return Drift(
            psi=float(((q - p) * np.log(q / p)).sum()),
            p_value=p_value,
            cell=names[moved],
            share=float(other.shares[moved]),
            reference_share=float(self.shares[moved]),
            noticed=float(noticed.max()),
        )


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


def read_ranked(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of JSON Lines that ``umls-reranker rerank`` or ``link`` wrote, but for ``error``.

    Raises:
        UserError: the file is missing, or a line is not a ranked row (names the line).
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the output of umls-reranker rerank or link")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict) and "error" in row:
                continue
            if not _is_ranked(row):
                raise UserError(
                    f"{path}:{number}: not a ranked row; give JSON Lines "
                    "that umls-reranker rerank or link wrote"
                )
            yield row


def _is_ranked(row: Any) -> bool:
    """Whether a value is a mention with its ranked candidates."""
    if not isinstance(row, dict) or not isinstance(row.get("ranked"), list):
        return False
    has_text = bool(row.get("entity") or row.get("mention"))
    return has_text and all(map(_is_ranked_candidate, row["ranked"]))


def _is_ranked_candidate(item: Any) -> bool:
    if not isinstance(item, dict) or item.get("tier") not in (*TIERS, None):
        return False
    if not isinstance(item.get("accepted"), bool | None):
        return False
    has_scores = _is_score(item.get("score")) and _is_score(item.get("margin"))
    return has_scores and isinstance(item.get("model_name", ""), str)


def _is_score(value: Any) -> bool:
    """Whether a value can be a score or a margin."""
    return isinstance(value, int | float) and abs(value) <= 1
