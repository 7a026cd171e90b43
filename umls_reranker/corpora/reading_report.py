"""The counts of what was read, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table


def reading_table(*reports: Mapping[str, Any]) -> Table:
    """A table of all counts above 0, and of all texts, in ``read_report.json`` of some stages."""
    table = Table(title="Concepts and mentions", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("how many", justify="right", overflow="fold")
    for report in reports:
        for name, value in _flat(report):
            shown = f"{value:,}" if isinstance(value, int) else str(value)
            table.add_row(name.replace("_", " "), shown)
        table.add_section()
    return table


def _flat(report: Mapping[str, Any] | list[Any], *path: str) -> Iterator[tuple[str, Any]]:
    """Names and values that are neither 0 nor empty."""
    if not isinstance(report, Mapping):
        report = {str(number): value for number, value in enumerate(report, start=1)}
    for key, value in report.items():
        if isinstance(value, Mapping | list):
            yield from _flat(value, *path, key)
        elif value:
            yield ": ".join([*path, key]), value
