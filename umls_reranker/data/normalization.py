"""The form in which two names count as the same, of one name or of millions; and its hash."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pyarrow as pa

__all__ = ["hash_names", "normalize_name", "normalize_names"]

NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
SPACE = ord(" ")

# Odd constants of splitmix64 (Steele, Lea & Flood 2014) and of its stream increment.
FIRST, SECOND, STEP = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB), np.uint64(0x9E3779B97F4A7C15)


def normalize_name(text: str) -> str:
    """The form in which two names count as the same: NFKC, case folded, other than letters and digits one space.

    A text without any letter or digit keeps its signs, so that the form is empty only for blank text.

    >>> normalize_name("Diabetes-Mellitus,  type II")
    'diabetes mellitus type ii'
    """
    if text.isascii():
        folded = text.lower()
    else:
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return NOT_ALPHANUMERIC.sub(" ", folded).strip() or " ".join(folded.split())


def normalize_names(names: pa.StringArray) -> pa.StringArray:
    """`normalize_name` of each name, (n,).

    ASCII names, nearly all of them, are done at once on their bytes; the others one by one.

    Args:
        names: (n,) string, without nulls.
    """
    starts, content = _bytes_of(names)
    if not len(content):
        return names
    lower = content + (((content - ord("A")) < 26).view(np.uint8) << 5)
    solid = ((lower - ord("a")) < 26) | ((lower - ord("0")) < 10)
    # Of a run of other bytes the first one stays, as the space, unless the run opens the name.
    kept = solid.copy()
    kept[1:] |= solid[:-1]
    filled = np.flatnonzero(starts[:-1] < starts[1:])
    opening = starts[filled]
    kept[opening] = solid[opening]
    sizes = np.zeros(len(names), dtype=np.int64)
    sizes[filled] = np.add.reduceat(kept, opening, dtype=np.int64)
    text = np.where(solid, lower, np.uint8(SPACE))[kept]
    # A run that closes the name has left its space at the end.
    filled = np.flatnonzero(sizes)
    last = (np.cumsum(sizes) - 1)[filled]
    is_closing = text[last] == SPACE
    kept = np.ones(len(text), dtype=bool)
    kept[last[is_closing]] = False
    sizes[filled[is_closing]] -= 1
    forms = _strings(np.concatenate([[0], np.cumsum(sizes)]), text[kept])
    slow = sizes == 0
    slow[np.searchsorted(starts, np.flatnonzero(content >= 128), side="right") - 1] = True
    return _with_others(forms, names, slow) if slow.any() else forms


def _with_others(forms: pa.StringArray, names: pa.StringArray, others: np.ndarray) -> pa.StringArray:
    """`forms`, but for `others`, (n,) bool: those are made one by one."""
    made = [normalize_name(text) for text in names.filter(pa.array(others)).to_pylist()]
    place = np.arange(len(names))
    place[others] = len(names) + np.arange(len(made))
    return pa.concat_arrays([forms, pa.array(made, pa.string())]).take(pa.array(place))


def hash_names(names: pa.StringArray) -> np.ndarray:
    """A 64-bit hash of each name's bytes, (n,), uint64; the same on every machine.

    The bytes are taken eight at a time, the last ones filled up with zeros; each word is mixed, multiplied by an odd
    number that depends on its place, and added up with the length. Names that differ may hash alike.
    """
    starts, content = _bytes_of(names)
    sizes = np.diff(starts)
    words_of = (sizes + 7) // 8
    first = np.cumsum(words_of) - words_of
    owners = np.repeat(np.arange(len(sizes)), words_of)
    number = np.arange(len(owners)) - first[owners]
    padded = np.concatenate([content, np.zeros(8, dtype=np.uint8)])
    # Every place of the bytes, seen as the first of eight.
    windows = np.ndarray(shape=(len(content) + 1,), dtype="<u8", buffer=padded, strides=(1,))
    words = windows[starts[owners] + 8 * number].astype(np.uint64)
    excess = 8 * np.maximum(8 * (number + 1) - sizes[owners], 0).astype(np.uint64)
    words = _mixed(words << excess)
    words *= 2 * _mixed((number.astype(np.uint64) + np.uint64(1)) * STEP) + np.uint64(1)
    totals = np.concatenate([[np.uint64(0)], np.cumsum(words)])
    return _mixed(totals[first + words_of] - totals[first] + sizes.astype(np.uint64) * STEP)


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64, a permutation of the 64-bit numbers."""
    values = (values ^ (values >> np.uint64(30))) * FIRST
    values = (values ^ (values >> np.uint64(27))) * SECOND
    return values ^ (values >> np.uint64(31))


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
