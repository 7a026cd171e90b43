"""A table of what was read and skipped of a dictionary and a corpus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from .arrow import open_arrow
from .concepts import ConceptTable
from .mentions import SPLITS


def known_mentions(folder: Path, concepts: ConceptTable) -> dict[str, int]:
    """Split -> number of mentions whose gold concept is in the dictionary.

    Args:
        folder: folder that `mentions.write_mentions` wrote.
        concepts: the dictionary.
    """
    cuis = {split: open_arrow(folder / f"{split}.arrow")["cui"].to_pylist() for split in SPLITS}
    return {split: int((concepts.rows(of_split) >= 0).sum()) for split, of_split in cuis.items()}


def reading_table(*reports: Mapping[str, Any]) -> Table:
    """A table of all counts above 0, and of all texts, in ``read_report.json`` of some stages."""
    table = Table(title="Concepts and mentions", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("how many", justify="right", overflow="fold")
    for report in reports:
        for name, value in _flat(report):
            table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
        table.add_section()
    return table


def _flat(report: Mapping[str, Any] | list[Any], *path: str) -> Iterator[tuple[str, Any]]:
    """Names and values that are neither 0 nor empty."""
    items = report.items() if isinstance(report, Mapping) else ((str(n + 1), value) for n, value in enumerate(report))
    for key, value in items:
        if isinstance(value, Mapping | list):
            yield from _flat(value, *path, key)
        elif value:
            yield ": ".join([*path, key]), value
