"""The normalized and the normal form of names, their trigrams, and the pattern of a CUI."""

import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
# Characters composed at once: the time for a run of combining marks is quadratic in its length.
PIECE = 256
# Up to this many texts, Arrow is slower than Python.
FEW_TEXTS = 128
# Maps each ASCII byte to lower case, and to a space unless it is a letter or digit.
LOWERED = bytes(range(128)).lower()
FOLDED = re.sub(rb"[^a-z0-9]", b" ", LOWERED).ljust(256, b" ")


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
    starts = range(0, len(word), PIECE)
    return "".join(_folded(word[start : start + PIECE]) for start in starts)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


# Combining accents of Latin, Greek and Cyrillic letters, and characters without a width.
ACCENTS = re.compile("[\u0300-\u036f]")
INVISIBLE = ("Cc", "Cf")


def are_alike(first: str, second: str) -> bool:
    """Whether two texts have the same normalized form but for accents and invisible characters.

    >>> are_alike("Sj\u00f6gren syndrome", "sjogren-syndrome"), are_alike("left", "right")
    (True, False)
    """
    return _plain_form(first) == _plain_form(second)


def _plain_form(text: str) -> str:
    return normalize_name(ACCENTS.sub("", unicodedata.normalize("NFD", visible(text))))


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


def trigrams(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """All character trigrams of n texts, text after text.

    Each word has a space on both sides, so "heart" has " he", "hea", "ear", "art" and "rt "
    (``char_wb`` of scikit-learn).

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


# Sets of trigrams: log2 of their bits, and arbitrary odd numbers for hashing, one per character.
TRIGRAM_BITS = 11
FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)
TEXTS_AT_ONCE = 4_096
PAIRS_AT_ONCE = 16_384


def _trigram_sets(texts: Sequence[str]) -> np.ndarray:
    """The sets of n texts, (n, 32) uint64."""
    sets = np.empty((len(texts), (1 << TRIGRAM_BITS) // 64), np.uint64)
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        some = texts[start : start + TEXTS_AT_ONCE]
        owner, characters = trigrams(some)
        hashes = sum(row * factor for row, factor in zip(characters, FACTORS, strict=True))
        bits = np.zeros((len(some), 1 << TRIGRAM_BITS), bool)
        bits[owner, hashes >> np.uint64(64 - TRIGRAM_BITS)] = True
        sets[start : start + len(some)] = np.packbits(bits, axis=1).view(np.uint64)
    return sets


def shared_trigrams(
    mentions: Sequence[str], names: Sequence[str], owner: np.ndarray, name_codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Share of a mention's character trigrams in a name, and of the name's trigrams in the mention.

    The trigrams of a text are kept as a set of 2,048 bits, by hash: comparing two texts takes the
    same time whatever their length. Names of some twenty trigrams differ from exact sets by less
    than 0.01 on average.

    >>> pair = np.array([0])
    >>> [float(share[0]) for share in shared_trigrams(["heart"], ["heart attack"], pair, pair)]
    [1.0, 0.45454545454545453]

    Args:
        mentions: n normalized texts.
        names: distinct names of candidates, normalized.
        owner: (m,) mention of each candidate.
        name_codes: (m,) position of each candidate's name in `names`.

    Returns:
        Two of (m,) float64: shares of the mention's trigrams that are in the name, and of the
        name's that are in the mention; 0 for a text without any.
    """
    mention_sets = _trigram_sets(mentions)
    name_sets = _trigram_sets(names)
    shared = np.empty(len(owner))
    for start in range(0, len(owner), PAIRS_AT_ONCE):
        pairs = slice(start, start + PAIRS_AT_ONCE)
        shared[pairs] = _sizes(mention_sets[owner[pairs]] & name_sets[name_codes[pairs]])
    mention_sizes = np.maximum(_sizes(mention_sets), 1)
    return shared / mention_sizes[owner], shared / np.maximum(_sizes(name_sets), 1)[name_codes]


def _sizes(sets: np.ndarray) -> np.ndarray:
    """Number of bits in each set, (n,)."""
    return np.bitwise_count(sets).sum(axis=1, dtype=np.int64)


# Endings of words in "-s" that are not plurals: "process", "virus", "analysis".
NO_PLURALS = ("ss", "us", "is")
# Plurals that lose "-es": "processes", "indexes", "branches", "brushes".
IN_ES = ("sses", "xes", "ches", "shes")


def singular(word: str) -> str:
    """An English word without its regular plural; wrong forms that all texts share do no harm.

    >>> [singular(word) for word in ("carcinomas", "bodies", "processes", "virus", "gas")]
    ['carcinoma', 'body', 'process', 'virus', 'gas']
    """
    if len(word) > 4:
        if word.endswith("ies"):
            return word[:-3] + "y"
        if word.endswith(IN_ES):
            return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(NO_PLURALS):
        return word[:-1]
    return word


def singular_words(texts: Sequence[str]) -> list[str]:
    """The sorted words in singular of each normalized text, each after a space, also the first."""
    return ["".join(f" {word}" for word in sorted(map(singular, text.split()))) for text in texts]


# Words that names of a concept use for one another, by the first of each line.
ALIKE = """
neoplasm neoplasia neoplastic tumor cancer carcinoma adenocarcinoma malignancy malignant
disease disorder syndrome condition illness disturbance
deficiency deficient absence absent lack loss defect defective
hereditary inherited heritable familial genetic
abnormality abnormal anomaly malformation
injury injured damage trauma lesion
failure insufficiency dysfunction impairment impaired
hemorrhage hemorrhagic bleeding
seizure convulsion
kidney renal nephric
liver hepatic
brain cerebral
heart cardiac cardial
lung pulmonary
vessel vascular
eye ocular
skin cutaneous dermal
blood hematologic hematological
bone osseous
stomach gastric
breast mammary
mental psychiatric
1 i
2 ii
3 iii
4 iv
"""
CLASS_OF = {word: line.split()[0] for line in ALIKE.strip().splitlines() for word in line.split()}
FUNCTION_WORDS = frozenset(
    ("a", "an", "and", "as", "by", "for", "from", "in", "of", "on", "or", "s", "the", "to", "type")
)


def normal_forms(texts: Sequence[str]) -> list[str]:
    """Each text as its distinct words in alphabetical order, in one number and spelling.

    Words are in the singular and in American spelling, function words and "type" are left out, and
    words that names use for one another (`ALIKE`), such as "cancer" and "neoplasm" or "II" and "2",
    count as one.

    >>> normal_forms(["Carcinomas of the Kidney", "renal tumour"])
    ['kidney neoplasm', 'kidney neoplasm']
    """
    names = normalize_texts(texts)
    words = {word for name in names for word in name.split()} - FUNCTION_WORDS
    classes = {word: _word_class(word) for word in words}
    return [_joined_classes(name, classes) for name in names]


def _joined_classes(name: str, classes: Mapping[str, str]) -> str:
    """The distinct classes of a name's words in alphabetical order; the name if it has none."""
    found = {classes[word] for word in name.split() if word in classes}
    return " ".join(sorted(found)) or name


def _word_class(word: str) -> str:
    word = singular(word.replace("ae", "e").replace("oe", "e"))
    if len(word) > 4 and word.endswith("our"):
        word = f"{word[:-3]}or"
    return CLASS_OF.get(word, word)


CUI = re.compile(r"C[0-9]{7}", re.IGNORECASE)
# Also "HbSC" and "T-ALL".
ACRONYM = re.compile(r"(?=\S*[A-Z]\S*[A-Z])\S{1,7}")
