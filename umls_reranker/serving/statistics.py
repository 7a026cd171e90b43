"""Figures of a model in use, also for Prometheus."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..calibration.decisions import Tops
from ..calibration.thresholds import TIERS

if TYPE_CHECKING:
    from prometheus_client.core import Metric


# What is looked at every day, and compared with the reference.
DAILY = ("high_confidence_coverage", "accepted_coverage", "mean_top_score", "mean_margin")


# Counts of pairs of a mention and a candidate: those whose mention or name was cut to the model's
# length; those that have a logit; and of these the ones whose logit the cross-encoder computed,
# while it remembered that of the others.
PAIR_COUNTS = ("truncated_pairs", "scored_pairs", "computed_pairs")


class Statistics:
    """Sums over all that a model ranked; of constant size, and safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget everything counted so far."""
        with self._lock:
            # Number of mentions, candidates and so on by name, of the mentions of a tier by
            # ("tier", NAME), and of those that a model decided by ("model", NAME).
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
            **{name: sums[name] for name in PAIR_COUNTS},
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
        for name in ("mentions", *PAIR_COUNTS):
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
