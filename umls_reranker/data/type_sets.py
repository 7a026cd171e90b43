"""`TypeSets`: semantic types of many rows, each set of types stored once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import distinct_numbers
from .semantic_types import UNKNOWN_TYPE, TypeHierarchy

__all__ = ["TypeSets"]


@dataclass(frozen=True)
class TypeSets:
    """Semantic types of n rows.

    Attributes:
        sets: k sets of types.
        codes: (n,) int64, the set of each row; -1 if not given.
    """

    sets: Sequence[tuple[str, ...]]
    codes: np.ndarray

    @classmethod
    def of(cls, values: Sequence[str | Iterable[str] | None] | TypeSets) -> TypeSets:
        """Of one type, several, or None for each row; `TypeSets` as they are.

        Raises:
            TypeError: a value is something else; its one argument is the row.
        """
        if isinstance(values, TypeSets):
            return values
        try:
            numbers: defaultdict[str | tuple[str, ...], int] = defaultdict(count().__next__)
            codes = [
                -1 if value is None else numbers[value if type(value) is str else tuple(value)] for value in values
            ]
            sets = [(key,) if isinstance(key, str) else key for key in numbers]
            is_text = all(isinstance(name, str) for names in sets for name in names)
        except TypeError:
            is_text = False
        if not is_text:
            raise TypeError(next(row for row, value in enumerate(values) if not _are_types(value)))
        return cls(sets, np.array(codes, np.int64))

    @classmethod
    def of_lists(cls, lists: pa.ListArray) -> TypeSets:
        """Of lists of strings without null among them; a null list is not given."""
        sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        encoded = lists.flatten().dictionary_encode()
        names, starts = encoded.indices.to_numpy(zero_copy_only=False), np.cumsum(sizes) - sizes
        codes = np.zeros(len(lists), np.int64)
        codes[sizes > 0] = 1 + names[starts[sizes > 0]]
        for position in range(1, int(sizes.max(initial=0))):
            # One type after the other makes of each list a number.
            longer = np.flatnonzero(sizes > position)
            codes[longer] = (
                1 + codes.max() + codes[longer] * (len(encoded.dictionary) + 1) + names[starts[longer] + position]
            )
            _, codes = distinct_numbers(codes, int(codes.max()) + 1)
        _, codes = distinct_numbers(codes, int(codes.max(initial=0)) + 1)
        first = np.empty(int(codes.max(initial=-1)) + 1, np.int64)
        first[codes[::-1]] = np.arange(len(codes))[::-1]
        kinds = encoded.dictionary.to_pylist()
        sets = [tuple(kinds[name] for name in names[starts[row] : starts[row] + sizes[row]]) for row in first.tolist()]
        return cls(sets, np.where(lists.is_null().to_numpy(zero_copy_only=False), -1, codes))

    @classmethod
    def missing(cls, rows: int) -> TypeSets:
        """Of rows that came without."""
        return cls([], np.full(rows, -1, np.int64))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, row: int) -> tuple[str, ...]:
        return self.sets[self.codes[row]] if self.codes[row] >= 0 else ()

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return (self.sets[code] if code >= 0 else () for code in self.codes.tolist())

    def take(self, rows: np.ndarray) -> TypeSets:
        """Those of some rows, given as indices or (n,) bool."""
        return replace(self, codes=self.codes[rows])

    def resolved(self, hierarchy: TypeHierarchy) -> tuple[TypeSets, list[str]]:
        """As ids of the hierarchy, each once, and the names that it does not know, which are left out."""
        # MedMentions' word for "no type" is not a mistake.
        ids = {name: hierarchy.resolve(name) for names in self.sets for name in names if name != UNKNOWN_TYPE}
        sets = [tuple(dict.fromkeys(filter(None, map(ids.get, names)))) for names in self.sets]
        return replace(self, sets=sets), [name for name, known in ids.items() if known is None]

    @property
    def is_known(self) -> np.ndarray:
        """(n,) bool, whether a row has any type."""
        return np.array([*map(bool, self.sets), False])[self.codes]


def _are_types(value: Any) -> bool:
    if value is None or isinstance(value, str):
        return True
    return isinstance(value, Iterable) and all(isinstance(name, str) for name in value)
