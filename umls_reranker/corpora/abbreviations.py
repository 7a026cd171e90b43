"""Abbreviations of a document and their long forms, found where the document defines them.

``tumor necrosis factor (TNF)`` and ``TNF (tumor necrosis factor)`` define TNF. The letters of a
short form must occur in its long form in order.
"""

import re

from ..lists.columns import MAX_MENTION_CHARS

PARENTHESES = re.compile(r"[(\[]([^()\[\]]{1,200})[)\]]")
# What ends a clause; no long form starts before it.
CLAUSE_END = re.compile(r"[.;:!?](?=\s)|[()\[\]]")
# Characters of text before a parenthesis in which a long form may lie: it is a mention.
LONG_FORM_WINDOW = MAX_MENTION_CHARS


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
        # A parenthesis itself ends a clause, so no character is read twice: time is linear.
        clause_start = 0
        for end in ends:
            if end.start() == match.start():
                break
            clause_start = end.end()
        window_start = max(clause_start, match.start() - LONG_FORM_WINDOW)
        left = text[window_start : match.start()].rstrip()
        inside = re.split(r"[;,]\s", match[1], maxsplit=1)[0].strip()
        short, long = _definition(left, inside)
        if long is not None:
            long_forms.setdefault(short, long)
    return long_forms


def _definition(left: str, inside: str) -> tuple[str, str | None]:
    """A short form, and its long form or None.

    Args:
        left: the text of the clause on the left of a parenthesis.
        inside: the text inside it.
    """
    if _is_short_form(inside):
        return inside, _long_form(inside, _last_words(left, inside))
    # "MRI (magnetic resonance imaging)": the short form comes first, in capitals or with a digit.
    short = left.rsplit(maxsplit=1)[-1] if left else ""
    if not re.search(r"[A-Z0-9]", short[1:]) or not _is_short_form(short):
        return short, None
    if _long_form(short, inside) != inside:
        return short, None
    return short, inside


def _is_short_form(text: str) -> bool:
    """Whether a text has 2 to 10 characters in at most two words, and begins like a name."""
    if not 2 <= len(text) <= 10 or len(text.split()) > 2:
        return False
    has_letter = any(character.isalpha() for character in text)
    return has_letter and text[0].isalnum()


def _last_words(text: str, short: str) -> str:
    """The last words of a clause, as many as a long form may have."""
    letters = sum(character.isalnum() for character in short)
    max_words = _max_words(letters)
    word_starts = [match.start() for match in re.finditer(r"\S+", text)]
    first = word_starts[-max_words] if len(word_starts) > max_words else 0
    return text[first:].strip()


def _max_words(short_length: int) -> int:
    """Largest number of words of the long form of a short form with this number of characters."""
    return min(short_length + 5, short_length * 2)


def _is_letter_at(position: int, text: str, letter: str, *, is_first: bool) -> bool:
    """Whether a text has a letter of a short form there; the first letter begins a word."""
    if text[position].lower() != letter:
        return False
    return not is_first or position == 0 or not text[position - 1].isalnum()


def _long_form(short: str, text: str) -> str | None:
    """The shortest end of `text` that holds the letters of `short` in order, or None."""
    position = len(text)
    letters = [character for character in short.lower() if character.isalnum()]
    # The last letter is looked for first, from the end of the text.
    for number, letter in reversed([*enumerate(letters)]):
        position -= 1
        while position >= 0 and not _is_letter_at(position, text, letter, is_first=number == 0):
            position -= 1
        if position < 0:
            return None
    # Hyphenated words are kept whole; a line may end between two words.
    while position and not text[position - 1].isspace():
        position -= 1
    long = text[position:]
    is_too_short = len(long) <= len(short)
    is_too_long = len(long.split()) > _max_words(len(short))
    holds_short_form = short.lower() in long.lower().split()
    return None if is_too_short or is_too_long or holds_short_form else long
