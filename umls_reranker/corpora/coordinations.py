"""The conjuncts of a composite mention: "breast and ovarian cancer" names two concepts."""

import re

CONJUNCTIONS = re.compile(
    r",\s*(?:and/or|and|or)\s+|\s+(?:and/or|and|or|as well as)\s+|\s*/\s*|,\s+"
)
# "carcinoma of the breast and ovary": what stands before both.
SHARED_START = re.compile(r".*\b(?:of|in)\s+(?:the\s+)?(?=\S)")
# A conjunct that ends with one of these, in singular or plural, needs no other's last word.
HEAD = re.compile(
    r"(?:abnormalit|anomal|cancer|carcinoma|cyst|damage|defect|deficienc|disease|disorder|"
    r"dysfunction|dystroph|failure|infection|injur|insufficienc|lesion|leuk(?:a)?emia|lymphoma|"
    r"malformation|neoplasm|syndrome|toxicit|tumou?r)(?:y|ies|s)?$",
    re.IGNORECASE,
)


def conjuncts(text: str) -> list[str]:
    """The parts of a coordination, each with the words that they share (after D'Souza and Ng 2015).

    >>> conjuncts("brain, breast, and prostate cancer")
    ['brain cancer', 'breast cancer', 'prostate cancer']
    >>> conjuncts("cancer of the breast and ovary")
    ['cancer of the breast', 'cancer of the ovary']
    """
    parts = [part for part in CONJUNCTIONS.split(text) if part]
    if len(parts) < 2:
        return [text]
    last = parts[-1]
    shared = SHARED_START.match(parts[0])
    if shared and not SHARED_START.match(last):
        return [parts[0], *(shared[0] + part for part in parts[1:])]
    words = last.split()
    if len(words) == 1:
        return parts
    return [*(_with_head(part, words[-1]) for part in parts[:-1]), last]


def _with_head(part: str, head: str) -> str:
    """A part of a coordination with the head that all share, unless it has one of its own."""
    return part if HEAD.search(part) else f"{part} {head}"
