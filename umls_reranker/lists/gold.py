"""The gold concepts of mentions: how rows give them, and which of them a model learns from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

# Keys of a row's gold concept, the first before the other.
GOLD_KEYS = ("gold_cui", "cui")


def gold_parts(value: Any) -> tuple[tuple[str, ...], ...] | None:
    """The gold concepts of a mention: the ids of each part, of which any is correct; () for none.

    A text is one id, verbatim; a list holds alternatives of one part; and a list of lists is a
    composite of parts. None is returned for anything else.

    >>> gold_parts("D003110"), gold_parts(["D003110", "C562477"])
    ((('D003110',),), (('D003110', 'C562477'),))
    >>> gold_parts([["D001943"], ["D010051"]])
    (('D001943',), ('D010051',))
    """
    parts = value if isinstance(value, list) else [[value]]
    if parts and not any(isinstance(part, list) for part in parts):
        parts = [parts]
    texts = [
        [id_text(item) for item in part] if isinstance(part, list) else [None] for part in parts
    ]
    ids = tuple(tuple(text for text in part if text) for part in texts)
    return None if None in chain(*texts) else ids


def trainable(gold: Iterable[Sequence[Sequence[str]]]) -> list[str]:
    """The gold concept of mentions, given as in `gold_parts`; "" for several or none.

    So nothing learns from mentions with several gold concepts or none.
    """
    return [parts[0][0] if list(map(len, parts or ())) == [1] else "" for parts in gold]


def id_text(value: Any) -> str | None:
    """An id as text, the same after a spreadsheet turned 7 into 7.0, or a blank cell into NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None or isinstance(value, list | dict) else str(value).strip() or None
