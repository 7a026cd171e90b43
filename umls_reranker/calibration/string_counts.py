"""Counts of strings and semantic types per concept in annotated mentions, by 64-bit hash, without names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import starmap
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from ..core.errors import UserError
from ..core.memory import Memory
from ..data.normalization import normalize_name
from ..data.semantic_types import UNKNOWN_TYPE
from ..data.type_sets import TypeSets

__all__ = ["PairCounts", "StringCounts"]

TABLES = ("strings", "concepts", "uses", "types", "typed_concepts", "typed_uses")
# Prior mentions of a concept, distributed over types as in all of training.
PRIOR_TYPED = 2.0
# Tables of a string or a concept alone.
SINGLE = ("strings", "concepts", "typed_concepts")
# Texts, and pairs of them, whose counts are remembered, about 250 bytes each.
KEPT_COUNTS = 65_536
T = TypeVar("T")


class PairCounts(NamedTuple):
    """Training counts for m pairs of n mentions and k concepts.

    Attributes:
        strings, concepts: (n,) and (k,) mentions of the training split with each string, and of each concept.
        uses: (m,) with the string and of the concept of each pair.
        type_lifts: (m,) float64, how much more often than others training mentions of the concept have the mention's
            semantic types, as a log. With n(t) training mentions of type t and p(t) its share of all,
            ``log((n(c, t) + k p) / ((n(c) + k) p))`` for concept c, k being `PRIOR_TYPED`; 0 for a concept or a type
            not seen in training, and for a mention without types.
    """

    strings: np.ndarray
    concepts: np.ndarray
    uses: np.ndarray
    type_lifts: np.ndarray


class StringCounts:
    """Uses of strings, concepts and types in the training split; strings are compared by `normalize_name`.

    Created by `fit`, stored as one safetensors file. Two of a million strings share a hash with probability 3e-8.
    """

    def __init__(self, tables: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
        self._tables = tables
        self._singles: Memory[str, bytes] = Memory(
            lambda texts: _rows(self._find(SINGLE, map(_part, texts))), KEPT_COUNTS
        )
        self._uses: Memory[tuple[str, str], bytes] = Memory(
            lambda pairs: _rows(self._find(("uses",), starmap(_parts, pairs))), KEPT_COUNTS
        )
        self._lifts: Memory[tuple[tuple[str, ...], str], bytes] = Memory(
            lambda pairs: _rows(self._type_lifts(pairs)), KEPT_COUNTS
        )

    @classmethod
    def fit(cls, mentions: Iterable[tuple[str, str, Sequence[str]]]) -> StringCounts:
        """Count (mention text, gold CUI, semantic types) of the training split; `UNKNOWN_TYPE` is none."""
        counts: dict[str, Counter[bytes]] = {name: Counter() for name in TABLES}
        distinct = Counter((normalize_name(text), cui, tuple(types)) for text, cui, types in mentions)
        for (text, cui, types), times in distinct.items():
            string, concept = _part(text), _part(cui)
            counts["strings"][string] += times
            counts["concepts"][concept] += times
            counts["uses"][string + concept] += times
            for kind in map(_part, set(types) - {UNKNOWN_TYPE}):
                counts["types"][kind] += times
                counts["typed_concepts"][concept] += times
                counts["typed_uses"][kind + concept] += times
        return cls({name: _sorted(found) for name, found in counts.items()})

    def plus(self, others: StringCounts) -> StringCounts:
        """The counts of both together."""
        tables = {}
        for name, columns in self._tables.items():
            keys, counts = (np.concatenate(pair) for pair in zip(columns, others._tables[name], strict=True))
            distinct, place = np.unique(keys, return_inverse=True)
            tables[name] = distinct, np.bincount(place, counts, len(distinct)).astype(np.int64)
        return StringCounts(tables)

    def __len__(self) -> int:
        """Number of distinct strings."""
        return len(self._tables["strings"][0])

    def of_pairs(
        self, forms: Sequence[str], types: TypeSets, cuis: Sequence[str], rows: np.ndarray, concepts: np.ndarray
    ) -> PairCounts:
        """Counts of strings and semantic types per concept.

        Args:
            forms: n normalized mentions.
            types: of the mentions.
            cuis: k concepts, "" for none.
            rows, concepts: (m,) the mention and the concept of each pair.
        """
        of_strings, _, _ = _remembered(self._singles(forms), len(SINGLE))
        _, of_concepts, typed = _remembered(self._singles(cuis), len(SINGLE))
        # What was not seen alone was not seen together.
        places = np.flatnonzero((of_strings > 0)[rows] & (of_concepts > 0)[concepts])
        uses, lifts = np.zeros(len(rows), np.int64), np.zeros(len(rows))
        uses[places] = _remembered(self._uses(_pairs(forms, rows[places], cuis, concepts[places])))
        codes = types.codes[rows]
        places = np.flatnonzero((typed > 0)[concepts] & (codes >= 0))
        lifts[places] = _remembered(self._lifts(_pairs(types.sets, codes[places], cuis, concepts[places])), kind=float)
        return PairCounts(of_strings, of_concepts, uses, lifts)

    def _type_lifts(self, pairs: Sequence[tuple[tuple[str, ...], str]]) -> np.ndarray:
        """(m,) float64, of each pair of a set of types and a concept."""
        owner = np.repeat(np.arange(len(pairs)), [len(kinds) for kinds, _ in pairs])
        each = [(kind, cui) for kinds, cui in pairs for kind in kinds]
        of_kinds, uses = (
            np.bincount(owner, self._find((table,), parts)[:, 0], len(pairs))
            for table, parts in (("types", (_part(kind) for kind, _ in each)), ("typed_uses", starmap(_parts, each)))
        )
        share = of_kinds / max(1, self._tables["types"][1].sum())
        of_concepts = self._find(("typed_concepts",), (_part(cui) for _, cui in pairs))[:, 0]
        expected = (of_concepts + PRIOR_TYPED) * share
        is_known = expected > 0
        lifts = np.zeros(len(pairs))
        lifts[is_known] = np.log((uses + PRIOR_TYPED * share)[is_known] / expected[is_known])
        return lifts

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        from safetensors.numpy import save_file

        arrays: dict[str, np.ndarray] = {}
        for name, (keys, counts) in self._tables.items():
            arrays |= {f"{name}.hash": keys, f"{name}.count": counts}
        save_file(arrays, path, metadata={"schema_version": "1"})

    @classmethod
    def load(cls, path: Path) -> StringCounts:
        """Inverse of `save`.

        Raises:
            UserError: the file is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            arrays = load_file(path)
            return cls({name: (arrays[f"{name}.hash"], arrays[f"{name}.count"]) for name in TABLES})
        except (OSError, SafetensorError, KeyError) as error:
            raise UserError(f"{path} is missing or damaged ({error}); run umls-reranker calibrate again") from None

    def _find(self, tables: Sequence[str], parts: Iterable[bytes]) -> np.ndarray:
        """Counts of n parts in these tables, (n, tables) int64."""
        wanted = np.frombuffer(b"".join(_digests(parts)), "<u8")
        found = np.zeros((len(wanted), len(tables)), np.int64)
        for place, (hashes, counts) in enumerate(map(self._tables.__getitem__, tables)):
            if len(hashes):
                places = hashes.searchsorted(wanted)
                is_there = hashes.take(places, mode="clip") == wanted
                found[is_there, place] = counts[places[is_there]]
        return found


def _rows(values: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in values]


def _remembered(found: Sequence[bytes], columns: int = 0, kind: type = np.int64) -> np.ndarray:
    """(n,), or (columns, n), of the bytes of n texts."""
    values: np.ndarray = np.frombuffer(b"".join(found), kind)
    return values.reshape(-1, columns).T if columns else values


def _pairs(firsts: Sequence[T], rows: np.ndarray, seconds: Sequence[str], others: np.ndarray) -> list[tuple[T, str]]:
    return list(zip(map(firsts.__getitem__, rows.tolist()), map(seconds.__getitem__, others.tolist()), strict=True))


def _part(text: str) -> bytes:
    """Of what is hashed. A length before each text keeps ("a", "bc") apart from ("ab", "c")."""
    return f"{len(text)}:{text}".encode()


def _parts(first: str, second: str) -> bytes:
    return _part(first) + _part(second)


def _digests(parts: Iterable[bytes]) -> list[bytes]:
    return [blake2b(part, digest_size=8).digest() for part in parts]


def _sorted(counts: Counter[bytes]) -> tuple[np.ndarray, np.ndarray]:
    keys = np.frombuffer(b"".join(_digests(counts)), "<u8")
    order = np.argsort(keys)
    return keys[order], np.array(list(counts.values()), dtype=np.int64)[order]
