"""The normal form of names: their distinct words, in one number and spelling."""

from collections.abc import Mapping, Sequence

from .normalization import normalize_texts

# Words in "-s" with these endings are not plurals: "process", "virus", "analysis".
SINGULAR_ENDINGS = ("ss", "us", "is")
# Plurals with these endings lose "-es": "processes", "indexes", "branches", "brushes".
PLURALS_IN_ES = ("sses", "xes", "ches", "shes")


def singular(word: str) -> str:
    """An English word without its regular plural; wrong forms that all texts share do no harm.

    >>> [singular(word) for word in ("carcinomas", "bodies", "processes", "virus", "gas")]
    ['carcinoma', 'body', 'process', 'virus', 'gas']
    """
    if len(word) > 4:
        if word.endswith("ies"):
            return word[:-3] + "y"
        if word.endswith(PLURALS_IN_ES):
            return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(SINGULAR_ENDINGS):
        return word[:-1]
    return word


def singular_words(texts: Sequence[str]) -> list[str]:
    """The sorted words in singular of each normalized text, each after a space, also the first."""
    return [_sorted_singulars(text) for text in texts]


def _sorted_singulars(text: str) -> str:
    """The words of a normalized text as `singular_words` gives them."""
    words = sorted(map(singular, text.split()))
    return "".join(f" {word}" for word in words)


# The words of a line are used for one another in names of a concept; the first stands for all.
INTERCHANGEABLE = """
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


def _representatives() -> dict[str, str]:
    """Each word of `INTERCHANGEABLE` -> the first word of its line."""
    representatives = {}
    for line in INTERCHANGEABLE.strip().splitlines():
        words = line.split()
        for word in words:
            representatives[word] = words[0]
    return representatives


REPRESENTATIVES = _representatives()
FUNCTION_WORDS = frozenset(
    ("a", "an", "and", "as", "by", "for", "from", "in", "of", "on", "or", "s", "the", "to", "type")
)


def normal_forms(texts: Sequence[str]) -> list[str]:
    """Each text as its distinct words in alphabetical order, in one number and spelling.

    Words are in the singular and in American spelling, function words and "type" are left out, and
    words that names use for one another (`INTERCHANGEABLE`), such as "cancer" and "neoplasm" or
    "II" and "2", count as one.

    >>> normal_forms(["Carcinomas of the Kidney", "renal tumour"])
    ['kidney neoplasm', 'kidney neoplasm']
    """
    names = normalize_texts(texts)
    words = {word for name in names for word in name.split()} - FUNCTION_WORDS
    forms_of_words = {word: _word_form(word) for word in words}
    return [_joined_forms(name, forms_of_words) for name in names]


def _joined_forms(name: str, forms_of_words: Mapping[str, str]) -> str:
    """The distinct forms of a name's words in alphabetical order; the name if no word has any."""
    forms = {forms_of_words[word] for word in name.split() if word in forms_of_words}
    return " ".join(sorted(forms)) or name


def _word_form(word: str) -> str:
    """A word in the singular and in American spelling, or the word that stands for it."""
    word = singular(word.replace("ae", "e").replace("oe", "e"))
    if len(word) > 4 and word.endswith("our"):
        word = f"{word[:-3]}or"
    return REPRESENTATIVES.get(word, word)
