"""The two pictures of a report: are probabilities true, and what does trusting only some answers buy.

Drawn with matplotlib's Agg canvas (no display), in colors of Okabe & Ito that color-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.files import written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["reliability_plot", "risk_coverage_plot"]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
# Precision over fewer mentions than this share is too noisy to draw.
SMALLEST_COVERAGE = 0.01
MARKED_PRECISION = 0.95


def reliability_plot(curves: Mapping[str, Mapping[str, Any]], path: Path | str) -> None:
    """Reliability diagram over a histogram of the probabilities, written as PNG.

    Args:
        curves: label -> points as in ``metrics.json`` (`evaluation.curves.reliability_points`), in the order of
            drawing, six at most. The band of the last one is drawn: where a perfectly calibrated model would lie.
        path: PNG file; written beside and renamed.
    """
    figure, (axes, histogram) = _figure((6.4, 7.2), 2, height_ratios=[3, 1], sharex=True)
    axes.plot([0, 1], [0, 1], color="0.45", linewidth=1, linestyle="--", zorder=1, label="perfect calibration")
    for (name, points), color, marker in zip(curves.items(), COLORS, MARKERS, strict=False):
        line = {"color": color, "marker": marker, "markersize": 5, "linewidth": 1.6, "clip_on": False}
        axes.plot(points["mean_probability"], points["positive_rate"], label=name, zorder=3, **line)
        edges = np.append(points["lower"], points["upper"][-1:])
        histogram.stairs(points["count"], edges, color=color, linewidth=1.6)
    last = list(curves.values())[-1]
    axes.fill_between(
        last["mean_probability"],
        last["band_low"],
        last["band_high"],
        color="0.5",
        alpha=0.25,
        linewidth=0,
        label="95 % of perfectly calibrated models",
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of right pairs in the bin")
    axes.set_title("Reliability: how often is a pair of this probability right?", fontsize=11, loc="left")
    axes.legend(loc="upper left", framealpha=0.85, edgecolor="none", fontsize=9)
    histogram.set_yscale("log")
    histogram.set(xlabel="predicted probability that the candidate is right", ylabel="pairs per bin")
    _save(figure, path)


def risk_coverage_plot(systems: Mapping[str, Mapping[str, Any]], path: Path | str) -> None:
    """Precision of the answers against the share of mentions answered, most confident first, written as PNG.

    Args:
        systems: label -> curve as in ``metrics.json`` (`evaluation.curves.risk_coverage`).
        path: PNG file; written beside and renamed.
    """
    figure, (axes,) = _figure((6.8, 5.4), 1)
    lowest = 1.0
    for (name, curve), color, marker in zip(systems.items(), COLORS, MARKERS, strict=False):
        coverage, precision = np.array(curve["coverage"]), np.array(curve["precision"])
        if not len(coverage):
            continue
        shown = coverage >= min(SMALLEST_COVERAGE, coverage[-1])
        coverage, precision = 100 * coverage[shown], 100 * precision[shown]
        label = f"{name}: {precision[-1]:.1f} % right of {coverage[-1]:.0f} % answered"
        line = {"color": color, "linewidth": 1.8, "marker": marker, "markevery": [-1], "clip_on": False}
        axes.plot(coverage, precision, label=label, zorder=3, **line)
        lowest = min(lowest, float(precision.min()) / 100)
    axes.axhline(100 * MARKED_PRECISION, color="0.45", linewidth=1, linestyle="--", zorder=1)
    axes.annotate(
        f"{100 * MARKED_PRECISION:.0f} %",
        (100, 100 * MARKED_PRECISION),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color="0.35",
        annotation_clip=False,
    )
    lowest = min(lowest, MARKED_PRECISION)
    axes.set(xlim=(0, 100), ylim=(max(0.0, 100 * lowest - 5), 100.5))
    axes.set(xlabel="mentions answered, most confident first (%)", ylabel="right among the answered (%)")
    axes.set_title("What answering only the confident mentions buys", fontsize=11, loc="left")
    # Below the axes, where no curve can run into it.
    figure.legend(loc="outside lower left", frameon=False, fontsize=9, ncols=1)
    _save(figure, path)


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

    # No software version inside: equal data give equal bytes.
    with written(Path(path)) as partial, partial.open("wb") as file:
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
