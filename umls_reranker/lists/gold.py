"""Gold concepts as rows give them: an id, several alternatives, or a composite of parts."""

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

# Keys of a row's gold concept, the first before the other.
GOLD_KEYS = ("gold_cui", "cui")
# The gold concept of a mention that has none.
CUI_LESS = "CUI-less"
# What else is written for it, in lower case.
NIL = ("cui-less", "cui_less", "nil", "-1", "-")


def bare_id(cui: str) -> str:
    """An id without its vocabulary, unless a mere number is left: D003920 of MESH:D003920."""
    rest = cui.rpartition(":")[2]
    return rest if rest[:1].isalpha() else cui


def gold_parts(value: Any) -> tuple[tuple[str, ...], ...] | None:
    """The gold concepts of a mention: the ids of each part, of which any is correct; () for none.

    A text is one id, verbatim, but for those of `NIL`; a list holds alternatives of one part; and a
    list of lists is a composite of parts. None is returned for anything else.

    >>> gold_parts("D003110"), gold_parts(["D003110", "C562477"])
    ((('D003110',),), (('D003110', 'C562477'),))
    >>> gold_parts([["D001943"], ["D010051"]])
    (('D001943',), ('D010051',))
    """
    parts = value if isinstance(value, list) else [[value]]
    if parts and not any(isinstance(part, list) for part in parts):
        parts = [parts]
    texts = list(map(_ids_of_part, parts))
    ids = tuple(tuple(filter(None, part)) for part in texts)
    return None if None in chain(*texts) else ids


def _ids_of_part(part: Any) -> list[str | None]:
    """The ids of a part; None for what is no id, and of what is no list."""
    return list(map(_gold_id, part)) if isinstance(part, list) else [None]


def _gold_id(value: Any) -> str | None:
    text = id_text(value)
    return CUI_LESS if text is not None and text.lower() in NIL else text


def trainable(gold: Iterable[Sequence[Sequence[str]]]) -> list[str]:
    """The gold concept of mentions, given as in `gold_parts`; "" for several or none.

    So nothing learns from mentions with several gold concepts or none.
    """
    return list(map(_sole_id, gold))


def _sole_id(parts: Sequence[Sequence[str]] | None) -> str:
    """The id of one part with one id, else ""."""
    if not parts or len(parts) > 1 or len(parts[0]) != 1:
        return ""
    return parts[0][0]


def id_text(value: Any) -> str | None:
    """An id as text, the same after a spreadsheet turned 7 into 7.0, or a blank cell into NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None or isinstance(value, list | dict) else str(value).strip() or None
