"""The normalized form of names, by which they are compared."""

import re
import unicodedata
from collections.abc import Sequence

import pyarrow as pa

NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
# Characters are composed in pieces of this length: the time for a run of combining marks is
# quadratic in its length.
PIECE = 256
# For this many texts or fewer, Arrow is slower than Python.
FEW_TEXTS = 128
# A table for `bytes.translate`: each ASCII letter in lower case, digits, and else a space.
LOWERED = bytes(range(128)).lower()
FOLDED = re.sub(rb"[^a-z0-9]", b" ", LOWERED).ljust(256, b" ")
# Combining accents of Latin, Greek and Cyrillic letters.
ACCENTS = re.compile("[\u0300-\u036f]")
# The Unicode categories of characters that nobody sees.
INVISIBLE = ("Cc", "Cf")


def normalize_name(text: str) -> str:
    """The normalized form of a name: NFKC, case folded, one space for all but letters and digits.

    A text without letters or digits keeps its characters, so the form is empty only for blank text.

    >>> normalize_name("Diabetes-Mellitus,  type II")
    'diabetes mellitus type ii'
    """
    if text.isascii():
        folded = text.lower()
    elif len(text) <= PIECE:
        folded = _folded(text)
    else:
        folded = " ".join(map(_folded_by_pieces, text.split()))
    return NOT_ALPHANUMERIC.sub(" ", folded).strip() or " ".join(folded.split())


def _folded_by_pieces(word: str) -> str:
    """A long word, composed and case folded piece by piece."""
    starts = range(0, len(word), PIECE)
    return "".join(_folded(word[start : start + PIECE]) for start in starts)


def _folded(text: str) -> str:
    """A text in NFKC, case folded, and in NFKC again, because folding may decompose characters."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def are_alike(first: str, second: str) -> bool:
    """Whether two texts have the same normalized form but for accents and invisible characters.

    >>> are_alike("Sj\u00f6gren syndrome", "sjogren-syndrome"), are_alike("left", "right")
    (True, False)
    """
    return _plain_form(first) == _plain_form(second)


def _plain_form(text: str) -> str:
    """The normalized form without accents and invisible characters."""
    decomposed = unicodedata.normalize("NFD", visible(text))
    return normalize_name(ACCENTS.sub("", decomposed))


def visible(text: str) -> str:
    """The text without characters that nobody sees, such as the zero width space."""
    if text.isprintable():
        return text
    return "".join(
        character
        for character in text
        if character.isspace() or unicodedata.category(character) not in INVISIBLE
    )


def normalize_names(names: pa.StringArray) -> pa.StringArray:
    """`normalize_name` of each name, (n,).

    ASCII names, nearly all, are processed at once on their bytes, the others one by one.

    Args:
        names: (n,) string, without nulls.
    """
    import pyarrow.compute as pc

    if not len(names):
        return names
    _, offsets, content = names.buffers()
    folded = pa.py_buffer(content.to_pybytes().translate(FOLDED))
    spaced = pa.Array.from_buffers(
        pa.string(), len(names), [None, offsets, folded], offset=names.offset
    )
    forms = pc.replace_substring_regex(pc.ascii_trim(spaced, " "), "  +", " ")
    one_by_one = pc.invert(pc.and_(pc.string_is_ascii(names), pc.not_equal(forms, "")))
    slow_forms = [normalize_name(text) for text in names.filter(one_by_one).to_pylist()]
    return pc.replace_with_mask(forms, one_by_one, pa.array(slow_forms, pa.string()))


def normalize_texts(texts: Sequence[str]) -> list[str]:
    """`normalize_name` of each text."""
    if len(texts) <= FEW_TEXTS:
        return list(map(normalize_name, texts))
    return normalize_names(pa.array(texts, pa.string())).to_pylist()
