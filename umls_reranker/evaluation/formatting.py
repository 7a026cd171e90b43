"""Figures as text: numbers, percentages and their intervals, and tables in Markdown."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

# A value as text, and its interval or "".
Cell = tuple[str, str]


def is_there(value: float | None) -> TypeGuard[float]:
    """Whether a value was measured and is finite."""
    return value is not None and math.isfinite(value)


def cell(figure: Mapping[str, Any] | None, format: str) -> Cell:
    """A figure in one of the formats of tables and its interval, or of ``mentions`` its number."""
    if format == "percent":
        return percent(figure), interval(figure)
    if format == "mentions":
        mentions = f"{figure['n']:,}" if figure else ""
        return mentions, ""
    if format == "points":
        gain = f"{100 * figure['value']:+.1f}" if figure else ""
        return gain, interval(figure, separator=" to ")
    if format == "nats":
        nats = f"{figure['value']:+.3f}" if figure else ""
        return nats, interval(figure, 3, 1.0, " to ")
    digits = 3 if format == "number" else 4
    return number(figure, digits), interval(figure, digits, 1.0)


def number(figure: Mapping[str, Any] | float | None, digits: int = 3) -> str:
    """A figure as text, a dash if there is none."""
    value = _value_of(figure)
    # Adding 0 takes its sign from a zero.
    return f"{round(value, digits) + 0.0:.{digits}f}" if is_there(value) else "–"


def percent(figure: Mapping[str, Any] | float | None, digits: int = 1) -> str:
    """A figure in percent, a dash if there is none."""
    value = _value_of(figure)
    return f"{number(100 * value, digits)}\u00a0%" if is_there(value) else "–"


def _value_of(figure: Mapping[str, Any] | float | None) -> float | None:
    return figure["value"] if isinstance(figure, Mapping) else figure


def interval(
    figure: Mapping[str, Any] | None, digits: int = 1, scale: float = 100.0, separator: str = "–"
) -> str:
    """The ends of a figure's 95 % interval, "" if it has none, as for a single document."""
    low = figure.get("low") if figure else None
    high = figure.get("high") if figure else None
    if not is_there(low) or not is_there(high):
        return ""
    if low < 0:
        separator = " to "
    return f"{number(scale * low, digits)}{separator}{number(scale * high, digits)}"


def with_ends(value: str, ends: str) -> str:
    """A value with the ends of its `interval` in brackets, if it has one."""
    return f"{value} ({ends})" if ends else value


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with columns of even width."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for cells in (header, ["-" * width for width in widths], *rows):
        padded = (text.ljust(width) for text, width in zip(cells, widths, strict=True))
        lines.append(f"| {' | '.join(padded)} |")
    return "\n".join(lines)
