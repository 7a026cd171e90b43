"""The form in which two names count as the same, of one name or of millions; and its hash."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pyarrow as pa

__all__ = ["hash_names", "normalize_name", "normalize_names"]

NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
SPACE = ord(" ")
# What is made of so many names on the way stays within a core's cache.
NAMES_AT_ONCE = 16_384
# Each byte of an ASCII name in lower case, and a space for what is no letter or digit.
FOLDED = bytes(byte if chr(byte).isalnum() else SPACE for byte in bytes(range(128)).lower()).ljust(256, b" ")

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
    if len(names) <= NAMES_AT_ONCE:
        return _normalized(names)
    return pa.concat_arrays(
        _normalized(names.slice(start, NAMES_AT_ONCE)) for start in range(0, len(names), NAMES_AT_ONCE)
    )


def _normalized(names: pa.StringArray) -> pa.StringArray:
    starts, content = _bytes_of(names)
    if not len(content):
        return names
    text = np.frombuffer(content.tobytes().translate(FOLDED), np.uint8)
    solid = text != SPACE
    # Of a run of other bytes the first one stays, as the space, unless the run opens the name.
    kept = solid.copy()
    kept[1:] |= solid[:-1]
    filled = np.flatnonzero(starts[:-1] < starts[1:])
    opening = starts[filled]
    kept[opening] = solid[opening]
    # Differences of running totals: reduceat would take ten times as long.
    totals = np.zeros(len(kept) + 1, dtype=np.int32)
    np.cumsum(kept, out=totals[1:])
    sizes = np.diff(totals[starts]).astype(np.int64)
    text = text[kept]
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

    The bytes are taken eight at a time, the last ones filled up with zeros; each word, its upper half folded onto the
    lower one, is multiplied by an odd number that depends on its place; their sum, the length added, is mixed. Names
    that differ may hash alike.
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
    last = (first + words_of - 1)[sizes > 0]
    words[last] <<= (8 * (-sizes[sizes > 0] % 8)).astype(np.uint64)
    # A product's upper bits depend on all bits of the word, its lower ones on the lower bits alone.
    words ^= words >> np.uint64(32)
    words *= _factors(int(words_of.max(initial=0)))[number]
    totals = np.concatenate([[np.uint64(0)], np.cumsum(words)])
    return _mixed(totals[first + words_of] - totals[first] + sizes.astype(np.uint64) * STEP)


def _factors(count: int) -> np.ndarray:
    """An odd number for each place of a word, (count,), uint64."""
    return 2 * _mixed(np.arange(1, count + 1, dtype=np.uint64) * STEP) + np.uint64(1)


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
