"""Filters on the columns of a release's file, that count what they drop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..core.errors import UserError
from .pipes import Block

__all__ = ["Filter", "Filters", "Matched", "few"]


class Filter(NamedTuple):
    """Keeps the lines whose `column` has one of `values`.

    Attributes:
        key: recipe key that sets it.
        column: e.g. LAT.
        values: empty keeps all.
    """

    key: str
    column: str
    values: Sequence[str]


class Matched(NamedTuple):
    """What filters make of a block.

    Attributes:
        read: lines seen.
        rows: those that pass all filters, (n,), int64.
        dropped: lines that each filter drops of those that the ones before it keep.
        found: values of each filter's column, where no line passes it.
    """

    read: int
    rows: np.ndarray
    dropped: list[int]
    found: list[list[str]]


class Filters:
    """Filters one after the other, and their counts over all blocks of a file.

    Attributes:
        active: those that do not keep all.
        read: lines seen.
        kept: lines that pass.
    """

    def __init__(self, filters: Iterable[Filter]) -> None:
        self.active = [filter for filter in filters if filter.values]
        self.read = self.kept = 0
        self._dropped = [0] * len(self.active)
        self._found: list[set[str]] = [set() for _ in self.active]

    @property
    def dropped(self) -> dict[str, int]:
        """Lines dropped, by recipe key."""
        return {filter.key: count for filter, count in zip(self.active, self._dropped, strict=True)}

    def match(self, block: Block) -> Matched:
        """Apply to a block; changes nothing, so that threads may call it."""
        rows = np.arange(len(block))
        dropped, found = [], []
        for filter in self.active:
            passes = block.places_in(filter.column, filter.values, rows) < len(filter.values)
            found.append([] if passes.any() else block.strings(filter.column, rows).unique().to_pylist())
            dropped.append(len(rows) - int(np.count_nonzero(passes)))
            rows = rows[passes]
        return Matched(len(block), rows, dropped, found)

    def count(self, matched: Matched) -> None:
        """Add a block's counts."""
        self.read += matched.read
        self.kept += len(matched.rows)
        self._dropped = [total + count for total, count in zip(self._dropped, matched.dropped, strict=True)]
        for known, found in zip(self._found, matched.found, strict=True):
            known.update(found)

    def nothing_left(self, file: str) -> UserError:
        """The error that names the filter which dropped the last lines."""
        place = max(place for place, count in enumerate(self._dropped) if count)
        key, column, values = self.active[place]
        if key == "keep_suppressed":
            return UserError(
                f"{file}: all names that pass the other filters are suppressed; set keep_suppressed: true"
            )
        seen = few(self._found[place])
        return UserError(f"{file}: no name passes `{key}: [{', '.join(values)}]`; of {column}, the file has {seen}")


def few(values: Iterable[str]) -> str:
    """Values as an error message lists them."""
    ordered = sorted(values)
    return ", ".join(ordered[:12]) + (f" and {len(ordered) - 12} more" if len(ordered) > 12 else "")
