"""The normalized form of names, of one or of millions, and its hash."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from xxhash import xxh3_64_intdigest

from ..core.arrays import list_offsets
from ..core.memory import Memory

__all__ = ["hash_names", "normalize_name", "normalize_names", "normalize_texts"]

NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
SPACE = ord(" ")
# Intermediate results of this many names fit a core's cache.
NAMES_AT_ONCE = 16_384
# Up to this many are faster one by one.
FEW_NAMES = 64
# Characters of a word that are composed at once: the time for a run of combining marks grows with its square.
PIECE = 256
# Forms that are remembered, about 200 bytes each.
KEPT_FORMS = 65_536
# Each byte of an ASCII name in lower case, with a space for other signs than letters and digits.
FOLDED = bytes(byte if chr(byte).isalnum() else SPACE for byte in bytes(range(128)).lower()).ljust(256, b" ")


def normalize_name(text: str) -> str:
    """The normalized form of a name: NFKC, case folded, runs of signs other than letters and digits as one space.

    A text without letters or digits keeps its signs, so the form is empty only for blank text.

    >>> normalize_name("Diabetes-Mellitus,  type II")
    'diabetes mellitus type ii'
    """
    if text.isascii():
        folded = text.lower()
    elif len(text) <= PIECE:
        folded = _folded(text)
    else:
        folded = " ".join(
            "".join(_folded(word[start : start + PIECE]) for start in range(0, len(word), PIECE))
            for word in text.split()
        )
    return NOT_ALPHANUMERIC.sub(" ", folded).strip() or " ".join(folded.split())


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def normalize_names(names: pa.StringArray) -> pa.StringArray:
    """`normalize_name` of each name, (n,).

    ASCII names, nearly all, are processed at once on their bytes, the others one by one.

    Args:
        names: (n,) string, without nulls.
    """
    if len(names) <= FEW_NAMES:
        return pa.array(list(map(normalize_name, names.to_pylist())), pa.string())
    if len(names) <= NAMES_AT_ONCE:
        return _normalized(names)
    return pa.concat_arrays(
        _normalized(names.slice(start, NAMES_AT_ONCE)) for start in range(0, len(names), NAMES_AT_ONCE)
    )


def _forms(texts: Sequence[str]) -> list[str]:
    return normalize_names(pa.array(texts, pa.string())).to_pylist()


# `normalize_name` of each text, and remembered.
normalize_texts = Memory(_forms, KEPT_FORMS)


def _normalized(names: pa.StringArray) -> pa.StringArray:
    starts, content = _bytes_of(names)
    if not len(content):
        return names
    text = np.frombuffer(content.tobytes().translate(FOLDED), np.uint8)
    solid = text != SPACE
    # Of a run of other bytes, the first one remains as the space, unless the run starts the name.
    kept = solid.copy()
    kept[1:] |= solid[:-1]
    filled = np.flatnonzero(starts[:-1] < starts[1:])
    opening = starts[filled]
    kept[opening] = solid[opening]
    # Differences of cumulative sums: reduceat would take ten times as long.
    totals = np.zeros(len(kept) + 1, dtype=np.int32)
    np.cumsum(kept, out=totals[1:])
    sizes = np.diff(totals[starts]).astype(np.int64)
    text = text[kept]
    # A run at the end of a name leaves a space there.
    filled = np.flatnonzero(sizes)
    last = (np.cumsum(sizes) - 1)[filled]
    is_closing = text[last] == SPACE
    kept = np.ones(len(text), dtype=bool)
    kept[last[is_closing]] = False
    sizes[filled[is_closing]] -= 1
    forms = _strings(list_offsets(sizes), text[kept])
    slow = sizes == 0
    slow[np.searchsorted(starts, np.flatnonzero(content >= 128), side="right") - 1] = True
    return _with_others(forms, names, slow) if slow.any() else forms


def _with_others(forms: pa.StringArray, names: pa.StringArray, others: np.ndarray) -> pa.StringArray:
    """`forms`, with those of `others`, (n,) bool, computed one by one."""
    made = [normalize_name(text) for text in names.filter(pa.array(others)).to_pylist()]
    place = np.arange(len(names))
    place[others] = len(names) + np.arange(len(made))
    return pa.concat_arrays([forms, pa.array(made, pa.string())]).take(pa.array(place))


def hash_names(names: pa.StringArray) -> np.ndarray:
    """XXH3 of each name's bytes, (n,), uint64, the same on every machine. Different names may have the same hash."""
    contents = names.cast(pa.binary()).to_pylist()
    return np.fromiter(map(xxh3_64_intdigest, contents), np.uint64, len(contents))


def _bytes_of(names: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
    """Where each name starts, and after the last one, (n + 1,), int64; and the bytes of all, (m,), uint8."""
    _, offsets, content = names.buffers()
    starts = (
        np.frombuffer(offsets, np.int32, len(names) + 1, 4 * names.offset).astype(np.int64)
        if offsets
        else np.zeros(1, np.int64)
    )
    size = int(starts[-1] - starts[0])
    content = np.frombuffer(content, np.uint8, size, starts[0]) if size else np.empty(0, np.uint8)
    return starts - starts[0], content


def _strings(starts: np.ndarray, content: np.ndarray) -> pa.StringArray:
    buffers = [None, pa.py_buffer(starts.astype(np.int32)), pa.py_buffer(content)]
    return pa.Array.from_buffers(pa.string(), len(starts) - 1, buffers)
