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

from .semantic_types import UNKNOWN_TYPE, TypeHierarchy

# No type name contains it.
SEPARATOR = "\x1f"


@dataclass(frozen=True)
class TypeSets:
    """Semantic types of n rows.

    Attributes:
        sets: k sets of types.
        codes: (n,) int64, the set of each row; -1 if missing.
    """

    sets: Sequence[tuple[str, ...]]
    codes: np.ndarray

    @classmethod
    def of(cls, values: Sequence[str | Iterable[str] | None] | TypeSets) -> TypeSets:
        """Make sets from one type, several, or None for each row; `TypeSets` are returned unchanged.

        Raises:
            TypeError: a value is something else; its argument is the row.
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
        """Make sets from lists of strings without nulls; a null list is missing."""
        encoded = pc.binary_join(lists, SEPARATOR).dictionary_encode()
        sets = [tuple(text.split(SEPARATOR)) if text else () for text in encoded.dictionary.to_pylist()]
        codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        return cls(sets, codes.astype(np.int64))

    @classmethod
    def missing(cls, rows: int) -> TypeSets:
        """Make sets of rows without types."""
        return cls([], np.full(rows, -1, np.int64))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, row: int) -> tuple[str, ...]:
        return self.sets[self.codes[row]] if self.codes[row] >= 0 else ()

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return (self.sets[code] if code >= 0 else () for code in self.codes.tolist())

    def take(self, rows: np.ndarray) -> TypeSets:
        """The sets of some rows, given as indices or (n,) bool."""
        return replace(self, codes=self.codes[rows])

    def resolved(self, hierarchy: TypeHierarchy) -> tuple[TypeSets, list[str]]:
        """The sets as distinct ids of the hierarchy, and the names that it does not know, which are left out."""
        # What MedMentions writes for "no type" is not a mistake.
        ids = {name: hierarchy.resolve(name) for names in self.sets for name in names if name != UNKNOWN_TYPE}
        sets = [tuple(dict.fromkeys(filter(None, map(ids.get, names)))) for names in self.sets]
        return replace(self, sets=sets), [name for name, known in ids.items() if known is None]

    @property
    def is_known(self) -> np.ndarray:
        """Whether each row has a type, (n,) bool."""
        return np.array([*map(bool, self.sets), False])[self.codes]


def _are_types(value: Any) -> bool:
    if value is None or isinstance(value, str):
        return True
    return isinstance(value, Iterable) and all(isinstance(name, str) for name in value)
