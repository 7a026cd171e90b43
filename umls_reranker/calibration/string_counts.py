"""How often training used a string, and a semantic type, for a concept: counts by 64-bit hash, without any names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..core.arrays import distinct_numbers
from ..core.errors import UserError
from ..data.candidate_lists import TypeSets
from ..data.normalization import normalize_name
from ..data.semantic_types import UNKNOWN_TYPE
from ..models.tokens import TokenCache

__all__ = ["PairCounts", "StringCounts"]

TABLES = ("strings", "concepts", "uses", "types", "typed_concepts", "typed_uses")
# Mentions that a concept is credited with, spread over types as in all of training.
PRIOR_TYPED = 2.0
SINGLE, PAIRED = ("strings", "types", "concepts", "typed_concepts"), ("uses", "typed_uses")
# Texts, and pairs of them, whose counts are remembered, about 250 bytes each.
KEPT_COUNTS = 65_536


class PairCounts(NamedTuple):
    """What training knows of the m pairs of n mentions and k concepts.

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

    Made by `fit`, kept as one safetensors file. Two of a million strings share a hash with probability 3e-8.
    """

    def __init__(self, tables: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
        self._tables = tables
        self._singles: TokenCache[str] = TokenCache(lambda texts: self._find(SINGLE, map(_part, texts)), KEPT_COUNTS)
        self._pairs: TokenCache[tuple[str, str]] = TokenCache(
            lambda pairs: self._find(PAIRED, (_part(first) + _part(second) for first, second in pairs)), KEPT_COUNTS
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

    def __len__(self) -> int:
        """Number of distinct strings."""
        return len(self._tables["strings"][0])

    def of_pairs(
        self, forms: Sequence[str], types: TypeSets, cuis: Sequence[str], rows: np.ndarray, concepts: np.ndarray
    ) -> PairCounts:
        """How often strings, and semantic types, stood for concepts.

        Args:
            forms: n normalized mentions.
            types: of the mentions.
            cuis: k concepts, "" for none.
            rows, concepts: (m,) the mention and the concept of each pair.
        """
        of_strings = _columns(self._singles(forms), SINGLE)[0]
        _, _, of_concepts, typed = _columns(self._singles(cuis), SINGLE)
        # What was not seen alone was not seen together.
        places = np.flatnonzero((of_strings > 0)[rows] & (of_concepts > 0)[concepts])
        pairs = zip(rows[places].tolist(), concepts[places].tolist(), strict=True)
        uses = np.zeros(len(rows), np.int64)
        uses[places] = _columns(self._pairs([(forms[row], cuis[concept]) for row, concept in pairs]), PAIRED)[0]
        return PairCounts(of_strings, of_concepts, uses, self._type_lifts(types, cuis, typed, rows, concepts))

    def _type_lifts(
        self, types: TypeSets, cuis: Sequence[str], of_concepts: np.ndarray, rows: np.ndarray, concepts: np.ndarray
    ) -> np.ndarray:
        sets = [*types.sets, ()]
        kinds = list(dict.fromkeys(kind for names in sets for kind in names))
        of_kinds = dict(zip(kinds, _columns(self._singles(kinds), SINGLE)[1].tolist(), strict=True))
        share = np.array([sum(map(of_kinds.__getitem__, names)) for names in sets]) / max(
            1, self._tables["types"][1].sum()
        )
        # Each set of types with each concept once.
        width = max(1, len(cuis))
        pairs, place = distinct_numbers(types.codes[rows] % len(sets) * width + concepts, len(sets) * width)
        row, concept = np.divmod(pairs, width)
        known = np.flatnonzero(of_concepts[concept])
        given = zip(row[known].tolist(), concept[known].tolist(), strict=True)
        typed = _columns(self._pairs([(kind, cuis[other]) for own, other in given for kind in sets[own]]), PAIRED)[1]
        sizes = np.array(list(map(len, sets)))
        uses = np.bincount(known.repeat(sizes[row[known]]), typed, len(pairs))
        share = share[row]
        expected = (of_concepts[concept] + PRIOR_TYPED) * share
        is_known = expected > 0
        lifts = np.zeros(len(pairs))
        lifts[is_known] = np.log((uses + PRIOR_TYPED * share)[is_known] / expected[is_known])
        return lifts[place]

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        from safetensors.numpy import save_file

        arrays: dict[str, np.ndarray] = {}
        for name, (keys, counts) in self._tables.items():
            arrays |= {f"{name}.hash": keys, f"{name}.count": counts}
        save_file(arrays, path, metadata={"schema_version": "1"})

    @classmethod
    def load(cls, path: Path) -> StringCounts:
        """Read what `save` wrote.

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

    def _find(self, tables: Sequence[str], parts: Iterable[bytes]) -> list[bytes]:
        """Counts of each part in these tables, as bytes of int64."""
        wanted = np.frombuffer(b"".join(_digests(parts)), "<u8")
        found = np.zeros((len(wanted), len(tables)), np.int64)
        for place, (hashes, counts) in enumerate(map(self._tables.__getitem__, tables)):
            if len(hashes):
                places = hashes.searchsorted(wanted)
                is_there = hashes.take(places, mode="clip") == wanted
                found[is_there, place] = counts[places[is_there]]
        return [row.tobytes() for row in found]


def _columns(counts: Sequence[bytes], tables: Sequence[str]) -> np.ndarray:
    """(tables, n) of the bytes of n texts."""
    return np.frombuffer(b"".join(counts), np.int64).reshape(-1, len(tables)).T


def _part(text: str) -> bytes:
    """Of what is hashed. A length before each text keeps ("a", "bc") apart from ("ab", "c")."""
    return f"{len(text)}:{text}".encode()


def _digests(parts: Iterable[bytes]) -> list[bytes]:
    return [blake2b(part, digest_size=8).digest() for part in parts]


def _sorted(counts: Counter[bytes]) -> tuple[np.ndarray, np.ndarray]:
    keys = np.frombuffer(b"".join(_digests(counts)), "<u8")
    order = np.argsort(keys)
    return keys[order], np.array(list(counts.values()), dtype=np.int64)[order]
