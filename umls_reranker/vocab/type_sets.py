"""The semantic types of many rows, each distinct set once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from .types import UNKNOWN_TYPE, TypeHierarchy

# ASCII's character between texts of a record, which no name contains.
UNIT_SEPARATOR = "\x1f"
TYPE_LISTS = pa.list_(pa.string())


@dataclass(frozen=True)
class TypeSets:
    """Semantic types of n rows.

    Attributes:
        sets: k distinct sets of types.
        codes: (n,) int64, the set of each row; -1 if missing.
    """

    sets: Sequence[tuple[str, ...]]
    codes: np.ndarray

    @classmethod
    def of_lists(cls, lists: pa.ListArray) -> TypeSets:
        """Make sets from lists of strings without nulls; a null list is missing."""
        import pyarrow.compute as pc

        encoded = pc.binary_join(lists, UNIT_SEPARATOR).dictionary_encode()
        sets = list(map(_parted, encoded.dictionary.to_pylist()))
        codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        return cls(sets, codes.astype(np.int64))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, row: int) -> tuple[str, ...]:
        return self.sets[self.codes[row]] if self.codes[row] >= 0 else ()

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        # The code of missing ones, -1, is that of the last.
        sets = [*self.sets, ()]
        return (sets[code] for code in self.codes.tolist())

    def take(self, rows: np.ndarray) -> TypeSets:
        """The sets of some rows, given as indices or (n,) bool."""
        return replace(self, codes=self.codes[rows])

    def resolved(self, hierarchy: TypeHierarchy) -> tuple[TypeSets, list[str]]:
        """The sets as distinct ids of the hierarchy, and the names that it does not know."""
        # What MedMentions writes for "no type" is not a mistake.
        names = dict.fromkeys(itertools.chain.from_iterable(self.sets))
        ids = {name: hierarchy.resolve(name) for name in names if name != UNKNOWN_TYPE}
        sets = []
        for names_of_set in self.sets:
            ids_of_set = filter(None, map(ids.get, names_of_set))
            sets.append(tuple(dict.fromkeys(ids_of_set)))
        unknown_names = [name for name, type_id in ids.items() if type_id is None]
        return replace(self, sets=sets), unknown_names

    @property
    def is_known(self) -> np.ndarray:
        """Whether each row has a type, (n,) bool."""
        # The code of missing ones, -1, is that of the last.
        has_type = [*map(bool, self.sets), False]
        return np.array(has_type)[self.codes]


def _parted(joined: str) -> tuple[str, ...]:
    """The types that `UNIT_SEPARATOR` joins in a text."""
    return tuple(joined.split(UNIT_SEPARATOR)) if joined else ()


def type_lists(values: Sequence[str | Iterable[str] | None]) -> pa.ListArray:
    """One type, several, or None for each row as lists of strings; others raise TypeError."""
    lists = list(map(_listed, values))
    names = itertools.chain.from_iterable(filter(None, lists))
    if not all(isinstance(name, str) for name in names):
        raise TypeError("types must be strings or lists of strings")
    return pa.array(lists, TYPE_LISTS)


def _listed(value: str | Iterable[str] | None) -> list[str] | None:
    """One type, several, or None as `TypeSets.of_lists` reads them."""
    if isinstance(value, str):
        return [value]
    return None if value is None else [*value]
