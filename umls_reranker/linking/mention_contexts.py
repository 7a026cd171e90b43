"""What is read of mentions: their texts, the text around them, and long forms of abbreviations."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ..corpora.abbreviations import find_abbreviations
from ..corpora.surrounding_text import text_around
from ..lists.columns import TEXT, TYPES, ColumnChecker
from ..lists.table import require_lists


class _MentionInDocument(NamedTuple):
    """What is read of a mention with a document.

    Attributes:
        text: the mention, or its long form.
        left: text before it.
        right: text after it.
    """

    text: str
    left: str
    right: str


def table_with_contexts(
    mentions: Sequence[str],
    documents: Sequence[str | None] | None,
    starts: Sequence[int | None] | None,
    *,
    entity_types: Sequence[str | Sequence[str] | None] | None,
    lefts: Sequence[str] | None,
    rights: Sequence[str] | None,
    expands_abbreviations: bool,
) -> pa.Table:
    """The table of `ConceptLinker.read`, whose arguments these are.

    With `expands_abbreviations`, a mention is replaced by the long form in its document.
    """
    require_lists(
        mentions=mentions,
        documents=documents,
        starts=starts,
        lefts=lefts,
        rights=rights,
        entity_types=entity_types,
    )
    checker = ColumnChecker(len(mentions))
    texts = checker.mention_texts("mention", checker.converted("mention", mentions, TEXT))
    left_texts = _sides(checker, "left", lefts)
    right_texts = _sides(checker, "right", rights)
    if documents is not None:
        in_documents = _mentions_in_documents(
            checker, texts, documents, starts, expands_abbreviations
        )
        for row, mention in in_documents.items():
            texts[row] = mention.text
            left_texts[row] = mention.left
            right_texts[row] = mention.right
    columns = {
        "entity": pa.array(texts),
        "left": pa.array(left_texts),
        "right": pa.array(right_texts),
    }
    if entity_types is not None:
        columns["entity_type"] = checker.converted("entity_type", entity_types, TYPES)
    return pa.table(columns)


def _sides(checker: ColumnChecker, key: str, texts: Sequence[str | None] | None) -> list[str]:
    """What is read of the texts on one side of n mentions, "" where there is none.

    Args:
        checker: refuses what is no text.
        key: the side, ``left`` or ``right``.
        texts: (n,) the texts; None: no mention has one.
    """
    if texts is None:
        return [""] * checker.mentions
    sides = []
    for text in checker.converted(key, texts, TEXT).to_pylist():
        text = text or ""
        if key == "left":
            side, _ = text_around(text, len(text), len(text))
        else:
            _, side = text_around(text, 0, 0)
        sides.append(side)
    return sides


def _mentions_in_documents(
    checker: ColumnChecker,
    texts: Sequence[str],
    documents: Sequence[str | None],
    starts: Sequence[int | None] | None,
    expands_abbreviations: bool,
) -> dict[int, _MentionInDocument]:
    """Row -> what is read of its mention, for each row with a document."""
    # A column of a data frame is indexed by labels, a list by row numbers.
    starts = [None] * len(texts) if starts is None else [*starts]
    long_forms_of: dict[str, dict[str, str]] = {}
    in_documents = {}
    for row, document in enumerate(documents):
        if document is None:
            continue
        # Each document is checked once: many mentions may share one.
        if not isinstance(document, str) or document not in long_forms_of:
            checker.require("document", row, document, TEXT)
            long_forms_of[document] = find_abbreviations(document) if expands_abbreviations else {}
        mention = texts[row]
        start = _start_in_document(checker, row, mention, document, starts[row])
        left, right = text_around(document, start, start + len(mention))
        text = long_forms_of[document].get(mention, mention)
        in_documents[row] = _MentionInDocument(text, left, right)
    return in_documents


def _start_in_document(
    checker: ColumnChecker, row: int, mention: str, document: str, start: int | None
) -> int:
    """Offset of the first character of a row's mention in its document."""
    if not isinstance(start, int | np.integer | None):
        kind = type(start).__name__
        checker.refuse("start", row, f"must be an int (a character offset) or None, not {kind}")
    position = document.find(mention) if start is None else start
    if position < 0 or document[position : position + len(mention)] != mention:
        where = "" if start is None else f" at character {start}"
        checker.refuse(f"the mention {mention!r}", row, f"is not in its document{where}")
    return int(position)
