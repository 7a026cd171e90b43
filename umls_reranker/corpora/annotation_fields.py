"""What the fields of an annotation say: concepts, types, and the offsets of passages."""

import re
from collections.abc import Iterable, Sequence

from ..core.errors import Malformed

# Type ids. MedMentions writes UnknownType for a concept without a type.
TYPE = re.compile(r"T[0-9]{3}|UnknownType")
SEPARATORS = re.compile(r"[,;|+\s]+")
# Maximum characters between two passages; more means a wrong offset.
MAX_PASSAGE_GAP = 1_000_000
# What corpora write in place of an id.
NO_ID = ("", "-", "-1")


def annotated_concepts(identifier: str) -> tuple[tuple[str, ...], ...]:
    """The concepts that an annotation names, without the prefix ``UMLS:``; a part may lack an id.

    >>> annotated_concepts("UMLS:C0009443"), annotated_concepts("D007153+D040181")
    ((('C0009443',),), (('D007153',), ('D040181',)))
    >>> annotated_concepts("D007674|-1"), annotated_concepts("-1")
    ((('D007674',), ()), ())
    """
    ids = dict.fromkeys(word.removeprefix("UMLS:") for word in SEPARATORS.split(identifier.strip()))
    parts = tuple(map(_concept_of, ids))
    return parts if any(parts) else ()


def _concept_of(word: str) -> tuple[str, ...]:
    """The concept that a word names; none if it is no id."""
    return () if word in NO_ID else (word,)


def type_ids(types: Sequence[str]) -> tuple[str, ...]:
    """Those of some types that are type ids."""
    return tuple(filter(TYPE.fullmatch, types))


def annotated_types(text: str) -> tuple[str, ...]:
    """The types in a text: all words if they are type ids, or else the whole text.

    >>> annotated_types("T047,T184"), annotated_types("Sequence Variant")
    (('T047', 'T184'), ('Sequence Variant',))
    """
    text = text.strip()
    words = SEPARATORS.split(text)
    ids = type_ids(words)
    if len(ids) == len(words):
        return ids
    return (text,) if text else ()


def join_passages(passages: Iterable[tuple[int, str]]) -> str:
    """The text of a document from offset and text of its passages; blanks fill the gaps.

    Raises:
        Malformed: passages overlap, or are far apart.

    >>> join_passages([(0, "Cold"), (5, "A cold.")])
    'Cold A cold.'
    """
    pieces = []
    length = 0
    for offset, text in passages:
        if not text:
            continue
        if not length <= offset <= length + MAX_PASSAGE_GAP:
            problem = "passages overlap" if offset < length else "passages far apart"
            raise Malformed(
                problem, f": one starts at {offset}, and the text before it ends at {length}"
            )
        pieces += [" " * (offset - length), text]
        length = offset + len(text)
    return "".join(pieces)
