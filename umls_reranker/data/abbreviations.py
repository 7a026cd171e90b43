"""Abbreviations that a text defines in parentheses, and their long forms.

The algorithm is that of Schwartz & Hearst (2003), "A simple algorithm for identifying abbreviation definitions in
biomedical text", Pacific Symposium on Biocomputing 8: read from the right, the letters of the short form must be found
in the words before it, its first one at the start of a word.
"""

from __future__ import annotations

import re

PARENTHESES = re.compile(r"[(\[]([^()\[\]]{1,200})[)\]]")
# What ends a clause; no long form starts before it.
CLAUSE_END = re.compile(r"[.;:!?](?=\s)|[()\[\]]")
MOST_CHARACTERS, MOST_WORDS = 10, 2
# Characters read before a parenthesis: far more than the 15 words of a long form.
WINDOW = 2_000


def find_abbreviations(text: str) -> dict[str, str]:
    """Short forms of a document and their first definitions.

    >>> find_abbreviations("Acute myocardial infarction (AMI) and tumor necrosis factor (TNF).")
    {'AMI': 'Acute myocardial infarction', 'TNF': 'tumor necrosis factor'}
    >>> find_abbreviations("We used MRI (magnetic resonance imaging) and so on (see below).")
    {'MRI': 'magnetic resonance imaging'}
    """
    long_forms: dict[str, str] = {}
    ends = CLAUSE_END.finditer(text)
    for match in PARENTHESES.finditer(text):
        # A parenthesis itself ends a clause, so no character is read twice: time is linear in the text.
        clause = 0
        for end in ends:
            if end.start() == match.start():
                break
            clause = end.end()
        inside = re.split(r"[;,]\s", match[1], maxsplit=1)[0].strip()
        before = text[max(clause, match.start() - WINDOW) : match.start()].rstrip()
        if _is_short_form(inside):
            short, long = inside, _long_form(inside, _last_words(before, inside))
        else:
            # "MRI (magnetic resonance imaging)": the short form comes first, in capitals or with a digit.
            short = before.rsplit(maxsplit=1)[-1] if before else ""
            plain = not re.search(r"[A-Z0-9]", short[1:])
            long = None if plain or not _is_short_form(short) else _long_form(short, inside)
            long = long if long == inside else None
        if long is not None:
            long_forms.setdefault(short, long)
    return long_forms


def _is_short_form(text: str) -> bool:
    return (
        2 <= len(text) <= MOST_CHARACTERS
        and len(text.split()) <= MOST_WORDS
        and text[0].isalnum()
        and any(character.isalpha() for character in text)
    )


def _last_words(text: str, short: str) -> str:
    """The last words of a clause, as many as a long form may have."""
    letters = sum(character.isalnum() for character in short)
    most = min(letters + 5, letters * 2)
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    return text[starts[-most] if len(starts) > most else 0 :].strip()


def _long_form(short: str, text: str) -> str | None:
    """The shortest end of `text` that holds the letters of `short` in order, or None."""
    position = len(text)
    for number, letter in reversed([*enumerate(filter(str.isalnum, short.lower()))]):
        position -= 1
        while position >= 0 and not (text[position].lower() == letter and (number or _starts_word(text, position))):
            position -= 1
        if position < 0:
            return None
    # Hyphenated words are kept whole; a line may end between two words.
    while position and not text[position - 1].isspace():
        position -= 1
    long = text[position:]
    too_long = len(long.split()) > min(len(short) + 5, len(short) * 2)
    holds_itself = short.lower() in long.lower().split()
    return None if len(long) <= len(short) or too_long or holds_itself else long


def _starts_word(text: str, position: int) -> bool:
    return position == 0 or not text[position - 1].isalnum()
