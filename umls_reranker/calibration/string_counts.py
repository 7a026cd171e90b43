"""How often training used a string, and a semantic type, for a concept: counts by 64-bit hash, without any names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ..core.errors import UserError
from ..data.normalization import normalize_name
from ..data.semantic_types import UNKNOWN_TYPE

__all__ = ["StringCounts"]

TABLES = ("strings", "concepts", "uses", "types", "typed_concepts", "typed_uses")
# Mentions that a concept is credited with, spread over types as in all of training.
PRIOR_TYPED = 2.0


class StringCounts:
    """Uses of strings, concepts and types in the training split; strings are compared by `normalize_name`.

    Made by `fit`, kept as one safetensors file. Two of a million strings share a hash with probability 3e-8.
    """

    def __init__(self, tables: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
        self._tables = tables

    @classmethod
    def fit(cls, mentions: Iterable[tuple[str, str, Sequence[str]]]) -> StringCounts:
        """Count (mention text, gold CUI, semantic types) of the training split; `UNKNOWN_TYPE` is none."""
        counts: dict[str, Counter[int]] = {name: Counter() for name in TABLES}
        distinct = Counter((normalize_name(text), cui, tuple(types)) for text, cui, types in mentions)
        for (text, cui, types), times in distinct.items():
            counts["strings"][_hash(text)] += times
            counts["concepts"][_hash(cui)] += times
            counts["uses"][_hash(text, cui)] += times
            for kind in set(types) - {UNKNOWN_TYPE}:
                counts["types"][_hash(kind)] += times
                counts["typed_concepts"][_hash(cui)] += times
                counts["typed_uses"][_hash(kind, cui)] += times
        return cls({name: _sorted(found) for name, found in counts.items()})

    def __len__(self) -> int:
        """Number of distinct strings."""
        return len(self._tables["strings"][0])

    def of_strings(self, texts: Sequence[str]) -> np.ndarray:
        """(n,) int64, mentions of the training split with each text."""
        return self._look_up("strings", [_hash(normalize_name(text)) for text in texts])

    def of_concepts(self, cuis: Sequence[str | None]) -> np.ndarray:
        """(n,) int64, mentions of the training split that stood for each concept; 0 for None."""
        known: dict[str, int] = {}
        return self._look_up("concepts", [known.get(cui) or known.setdefault(cui, _hash(cui or "")) for cui in cuis])

    def of_uses(self, texts: Sequence[str], cuis: Sequence[str | None], rows: np.ndarray) -> np.ndarray:
        """How often a string stood for a concept.

        Args:
            texts: n mentions.
            cuis: m concepts.
            rows: (m,) the mention that each concept is a candidate of.

        Returns:
            (m,) int64; 0 for a concept of None.
        """
        forms = [normalize_name(text) for text in texts]
        return self._look_up(
            "uses", [_hash(forms[row], cui or "") for row, cui in zip(rows.tolist(), cuis, strict=True)]
        )

    def type_lifts(self, types: Sequence[Sequence[str]], cuis: Sequence[str | None], rows: np.ndarray) -> np.ndarray:
        """How much more often than others training mentions of a concept have the mention's semantic types, as a log.

        With n(t) training mentions of type t and p(t) its share of all, ``log((n(c, t) + k p) / ((n(c) + k) p))`` for
        concept c; 0 for a concept or a type that training had not, and for a mention without types.

        Args:
            types: n lists of type ids.
            cuis: m concepts.
            rows: (m,) the mention that each concept is a candidate of.

        Returns:
            (m,) float64.
        """
        total = self._tables["types"][1].sum()
        sizes = [len(kinds) for kinds in types]
        shares = np.zeros(len(types))
        owner = np.repeat(np.arange(len(types)), sizes)
        np.add.at(shares, owner, self._look_up("types", [_hash(kind) for kinds in types for kind in kinds]))
        known: dict[str, int] = {}
        keys = [known.get(cui) or known.setdefault(cui, _hash(cui or "")) for cui in cuis]
        uses = np.zeros(len(rows))
        pairs = [(place, _hash(kind, cuis[place] or "")) for place, row in enumerate(rows) for kind in types[row]]
        if pairs:
            places, hashes = zip(*pairs, strict=True)
            np.add.at(uses, list(places), self._look_up("typed_uses", list(hashes)))
        share = shares[rows] / max(1, total)
        expected = (self._look_up("typed_concepts", keys) + PRIOR_TYPED) * share
        is_known = expected > 0
        lifts = np.zeros(len(rows))
        lifts[is_known] = np.log((uses + PRIOR_TYPED * share)[is_known] / expected[is_known])
        return lifts

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        from safetensors.numpy import save_file

        arrays = {}
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

    def _look_up(self, table: str, keys: list[int]) -> np.ndarray:
        hashes, counts = self._tables[table]
        wanted = np.array(keys, dtype=np.uint64)
        if not len(hashes):
            return np.zeros(len(wanted), np.int64)
        places = np.searchsorted(hashes, wanted).clip(max=len(hashes) - 1)
        return np.where(hashes[places] == wanted, counts[places], 0)


def _hash(*texts: str) -> int:
    # A length before each text keeps ("a", "bc") apart from ("ab", "c").
    joined = "".join(f"{len(text)}:{text}" for text in texts)
    return int.from_bytes(blake2b(joined.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _sorted(counts: Counter[int]) -> tuple[np.ndarray, np.ndarray]:
    keys = np.array(sorted(counts), dtype=np.uint64)
    return keys, np.array([counts[key] for key in keys.tolist()], dtype=np.int64)
