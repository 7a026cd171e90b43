"""How often training used a string for a concept: counts by 64-bit hash, so that a table holds no names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ..data.concepts import normalize_name
from ..errors import UserError

__all__ = ["StringCounts"]

TABLES = ("strings", "concepts", "uses")


class StringCounts:
    """Uses of strings and concepts in the training split; strings are compared by `normalize_name`.

    Made by `fit`, kept as one safetensors file. Two of a million strings share a hash with probability 3e-8.
    """

    def __init__(self, tables: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
        self._tables = tables

    @classmethod
    def fit(cls, mentions: Iterable[tuple[str, str]]) -> StringCounts:
        """Count (mention text, gold CUI) of the training split."""
        counts: dict[str, Counter[int]] = {name: Counter() for name in TABLES}
        for (text, cui), times in Counter((normalize_name(text), cui) for text, cui in mentions).items():
            counts["strings"][_hash(text)] += times
            counts["concepts"][_hash(cui)] += times
            counts["uses"][_hash(text, cui)] += times
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
            raise UserError(f"{path} is missing or damaged ({error}); run scripts/calibrate.py again") from None

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
