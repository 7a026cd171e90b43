"""The two pictures of a report: are probabilities true, and what does trusting only some answers buy.

Drawn with matplotlib's Agg canvas (no display), in colors of Okabe & Ito that color-blind readers can tell apart.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .reliability import ece, reliability_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["reliability_plot", "risk_coverage_curve", "risk_coverage_plot"]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
# Precision over fewer mentions than this share is too noisy to draw.
SMALLEST_COVERAGE = 0.01


def reliability_plot(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], path: Path | str, *, bins: int = 15, title: str | None = None
) -> None:
    """Reliability diagram over a histogram of the probabilities, written as PNG.

    Bars are the sampling noise (95 %) of a perfectly calibrated model with as many independent pairs in the bin.

    Args:
        curves: label -> (probabilities (n,), labels (n,)), in the order of drawing, six at most.
        path: PNG file; written beside and renamed.
    """
    figure, (axes, histogram) = _figure((6.4, 7.2), 2, height_ratios=[3, 1], sharex=True)
    axes.plot([0, 1], [0, 1], color="0.45", linewidth=1, linestyle="--", zorder=1, label="perfect calibration")
    for (name, (p, y)), color, marker in zip(curves.items(), COLORS, MARKERS, strict=False):
        points = reliability_curve(p, y, bins)
        x, rate = points["mean_probability"], points["positive_rate"]
        error = np.minimum(1.96 * points["standard_error"], [rate, 1 - rate])
        label = f"{name} (ECE {ece(p, y, bins):.3f})"
        axes.errorbar(
            x,
            rate,
            yerr=error,
            color=color,
            marker=marker,
            markersize=5,
            linewidth=1.6,
            elinewidth=0.9,
            label=label,
            clip_on=False,
        )
        counts = np.histogram(p, bins=np.linspace(0, 1, bins + 1))[0]
        histogram.stairs(counts, np.linspace(0, 1, bins + 1), color=color, linewidth=1.6)
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of right pairs in the bin")
    axes.set_title(title or "Reliability: how often is a pair of this probability right?", fontsize=11, loc="left")
    axes.legend(loc="upper left", framealpha=0.85, edgecolor="none", fontsize=9)
    histogram.set_yscale("log")
    histogram.set(xlabel="predicted probability that the candidate is right", ylabel="pairs per bin")
    _save(figure, path)


def risk_coverage_plot(
    systems: Mapping[str, tuple[np.ndarray, np.ndarray]],
    path: Path | str,
    *,
    target: float | None = 0.95,
    title: str | None = None,
) -> None:
    """Precision of the answers against the share of mentions answered, most confident first, written as PNG.

    Args:
        systems: label -> (score (n,) of each mention's answer, correct (n,)); a score of -inf or NaN is no answer.
        path: PNG file; written beside and renamed.
        target: precision to mark by a line; None for none.
    """
    figure, (axes,) = _figure((6.8, 5.4), 1)
    lowest = 1.0
    for (name, (score, correct)), color, marker in zip(systems.items(), COLORS, MARKERS, strict=False):
        coverage, precision = risk_coverage_curve(score, correct)
        if not len(coverage):
            continue
        shown = coverage >= min(SMALLEST_COVERAGE, coverage[-1])
        coverage, precision = 100 * coverage[shown], 100 * precision[shown]
        label = f"{name}: {precision[-1]:.1f} % right of {coverage[-1]:.0f} % answered"
        line = {"color": color, "linewidth": 1.8, "marker": marker, "markevery": [-1], "clip_on": False}
        axes.plot(coverage, precision, label=label, zorder=3, **line)
        lowest = min(lowest, float(precision.min()) / 100)
    if target is not None:
        axes.axhline(100 * target, color="0.45", linewidth=1, linestyle="--", zorder=1)
        axes.annotate(
            f"{100 * target:.0f} %",
            (100, 100 * target),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color="0.35",
            annotation_clip=False,
        )
        lowest = min(lowest, target)
    axes.set(xlim=(0, 100), ylim=(max(0.0, 100 * lowest - 5), 100.5))
    axes.set(xlabel="mentions answered, most confident first (%)", ylabel="right among the answered (%)")
    axes.set_title(title or "What answering only the confident mentions buys", fontsize=11, loc="left")
    # Below the axes, where no curve can run into it.
    figure.legend(loc="outside lower left", frameon=False, fontsize=9, ncols=1)
    _save(figure, path)


def risk_coverage_curve(score: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(coverage, precision) at every distinct score, most confident first; equal scores are one point.

    Args:
        score: (n,) -inf or NaN where there is no answer. correct: (n,).
    """
    score = np.asarray(score, dtype=np.float64)
    answered = np.flatnonzero(score > -np.inf)
    order = answered[np.argsort(-score[answered], kind="stable")]
    ends = np.flatnonzero(np.append(score[order][1:] < score[order][:-1], len(order) > 0))
    right = np.cumsum(np.asarray(correct, dtype=np.float64)[order])[ends]
    return (ends + 1) / max(len(score), 1), right / (ends + 1)


def _figure(size: tuple[float, float], rows: int, **layout) -> tuple[Figure, tuple[Axes, ...]]:
    # Figure without pyplot: no global state, no display, nothing to close.
    from matplotlib.figure import Figure

    height_ratios = layout.pop("height_ratios", None)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    grid = figure.subplots(rows, 1, squeeze=False, gridspec_kw={"height_ratios": height_ratios}, **layout)
    for axes in grid[:, 0]:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.9", linewidth=0.7)
        axes.set_axisbelow(True)
    return figure, tuple(grid[:, 0])


def _save(figure: Figure, path: Path | str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path = Path(path)
    beside = path.with_name(f".{path.name}.tmp")
    # No software version inside: equal data give equal bytes.
    with open(beside, "wb") as file:
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    os.replace(beside, path)
