"""The normalized form of names, of one or of millions, its hash, and its character trigrams."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64_intdigest

from ..core.memory import Memory

NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
# Characters composed at once: the time for a run of combining marks is quadratic in its length.
PIECE = 256
# Number of cached forms, about 200 bytes each.
KEPT_FORMS = 65_536
# Maps each ASCII byte to lower case, and to a space unless it is a letter or digit.
FOLDED = bytes(byte if chr(byte).isalnum() else ord(" ") for byte in bytes(range(128)).lower()).ljust(256, b" ")


def normalize_name(text: str) -> str:
    """The normalized form of a name: NFKC, case folded, other characters than letters and digits as one space.

    A text without letters or digits keeps its characters, so the form is empty only for blank text.

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
    if not len(names):
        return names
    _, offsets, content = names.buffers()
    folded = pa.py_buffer(content.to_pybytes().translate(FOLDED))
    spaced = pa.Array.from_buffers(pa.string(), len(names), [None, offsets, folded], offset=names.offset)
    forms = pc.replace_substring_regex(pc.ascii_trim(spaced, " "), "  +", " ")
    one_by_one = pc.invert(pc.and_(pc.string_is_ascii(names), pc.not_equal(forms, "")))
    slow_forms = [normalize_name(text) for text in names.filter(one_by_one).to_pylist()]
    return pc.replace_with_mask(forms, one_by_one, pa.array(slow_forms, pa.string()))


def _forms(texts: Sequence[str]) -> list[str]:
    return normalize_names(pa.array(texts, pa.string())).to_pylist()


# `normalize_name`, cached.
normalize_texts = Memory(_forms, KEPT_FORMS)


def hash_names(names: pa.StringArray) -> np.ndarray:
    """XXH3 of each name's bytes, (n,), uint64, the same on every machine. Different names may have the same hash."""
    contents = names.cast(pa.binary()).to_pylist()
    return np.fromiter(map(xxh3_64_intdigest, contents), np.uint64, len(contents))


def trigrams(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """All character trigrams of n texts, text after text.

    Each word has a space on both sides, so "heart" has " he", "hea", "ear", "art" and "rt " (``char_wb`` of
    scikit-learn).

    Args:
        texts: normalized texts, whose words are separated by single spaces.

    Returns:
        (t,) int64, the text of each trigram; (3, t) uint32, the code points of its characters.

    >>> owner, characters = trigrams(["arm", "of"])
    >>> owner.tolist(), ["".join(map(chr, trigram)) for trigram in characters.T]
    ([0, 0, 0, 1, 1], [' ar', 'arm', 'rm ', ' of', 'of '])
    """
    characters = np.frombuffer(f" {' '.join(texts)} ".encode("utf-32-le"), np.uint32)
    owner = np.repeat(np.arange(len(texts)), [len(text) + 1 for text in texts])[:-1]
    inside = np.flatnonzero(characters[1:-1] != ord(" "))
    return owner[inside], np.stack([characters[inside + position] for position in range(3)])
