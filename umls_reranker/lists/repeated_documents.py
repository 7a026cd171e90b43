"""Documents of equal or nearly equal content, such as notes copied forward, which count as one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple
from zlib import crc32

import numpy as np

from ..core.arrays import number_distinct
from .candidate_lists import AnnotatedLists

# Successive words of texts that are compared, and how many such pieces two of them share at least.
WORDS = 3
FEWEST_SHARED = 8
# Without texts, successive distinct mentions with their candidates.
MENTIONS = 3
# Share of the pieces of the shorter document that the other has.
SHARED = 0.5
# A piece that this many documents have before is not looked for in others: it may be boilerplate.
MOST_DOCUMENTS = 20
# Of more pieces in all, only some are compared.
MOST_PIECES = 2_000_000


class Content(NamedTuple):
    """What a document is compared by.

    Attributes:
        pieces: hashes of its pieces.
        fewest: how many of them an equal document has at least.
    """

    pieces: set[int]
    fewest: int


def with_joined_documents(lists: AnnotatedLists) -> AnnotatedLists:
    """The same lists, with the name of the first of nearly equal documents for all of them.

    ``doc_ids`` stay. Documents are compared by the texts around their mentions, or where no mention
    has any by their mentions and candidates.
    """
    annotations = lists.annotations
    names, owner = number_distinct(annotations.doc_ids.tolist())
    first = np.array(_first_alike(_contents(lists, owner, len(names))), np.int64)
    documents = np.array(names, object)[first[owner]]
    return replace(lists, annotations=replace(annotations, documents=documents))


def _contents(lists: AnnotatedLists, owner: np.ndarray, count: int) -> list[Content]:
    """The contents of documents; `owner` is the document of each mention, (n,)."""
    texts: list[list[str]] = [[] for _ in range(count)]
    mentions: list[dict[str, None]] = [{} for _ in range(count)]
    has_text = np.zeros(count, bool)
    ids = lists.cuis.to_list()
    for row, document in enumerate(owner.tolist()):
        texts[document].append(f"{lists.lefts[row]} {lists.mentions[row]} {lists.rights[row]}")
        has_text[document] |= bool((lists.lefts[row] + lists.rights[row]).strip())
        candidates = ids[lists.offsets[row] : lists.offsets[row + 1]]
        mentions[document][f"{lists.mentions[row]} {candidates}"] = None
    contents = []
    for document in range(count):
        if has_text[document]:
            pieces = set[int]().union(*(_pieces(text.split(), WORDS) for text in texts[document]))
            contents.append(Content(pieces, FEWEST_SHARED))
        else:
            contents.append(Content(_pieces([*mentions[document]], MENTIONS), 1))
    every = 1 + sum(len(content.pieces) for content in contents) // MOST_PIECES
    if every == 1:
        return contents
    return [
        content._replace(pieces={piece for piece in content.pieces if piece % every == 0})
        for content in contents
    ]


def _pieces(items: Sequence[str], size: int) -> set[int]:
    """Hashes of successive items, the same on every machine."""
    starts = range(len(items) - size + 1)
    return {crc32("\n".join(items[start : start + size]).encode()) for start in starts}


def _first_alike(contents: Sequence[Content]) -> list[int]:
    """The number of the first document that each is like, directly or by others; else its own."""
    first = list(range(len(contents)))
    documents_of_piece: defaultdict[int, list[int]] = defaultdict(list)
    sizes: list[int] = []
    for number, (pieces, fewest) in enumerate(contents):
        shared = Counter(chain.from_iterable(documents_of_piece[piece] for piece in pieces))
        alike = {number}
        for document, count in shared.items():
            if count >= max(fewest, SHARED * min(len(pieces), sizes[document])):
                alike.add(first[document])
        if len(alike) > 1:
            root = min(alike)
            first = [root if document in alike else document for document in first]
        rare = [piece for piece in pieces if len(documents_of_piece[piece]) < MOST_DOCUMENTS]
        for piece in rare:
            documents_of_piece[piece].append(number)
        sizes.append(len(rare))
    return first
