"""Documents of equal or nearly equal content, such as notes copied forward, which count as one."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TypeAlias
from zlib import crc32

import numpy as np

from ..core.arrays import number_distinct
from .annotated_lists import AnnotatedLists

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
# Hashes of the pieces of a document, and how many of them an equal document has at least.
Content: TypeAlias = tuple[set[int], int]


def with_joined_documents(lists: AnnotatedLists) -> AnnotatedLists:
    """The same lists, with the name of the first of nearly equal documents for all of them.

    ``doc_ids`` stay. Documents are compared by the texts around their mentions, or where no mention
    has any by their mentions and candidates.
    """
    content = partial(_content, lists, lists.cuis.to_list())
    documents = _joined(lists.annotations.doc_ids.tolist(), content)
    return replace(lists, annotations=replace(lists.annotations, documents=documents))


def joined_by_mentions(documents: Sequence[str], mentions: Sequence[str]) -> np.ndarray:
    """The document of each of n mentions, the first of those whose mentions are nearly the same.

    Args:
        documents: (n,) their names.
        mentions: (n,) texts of the mentions, in the order of the documents.
    """

    def content(rows: Sequence[int]) -> Content:
        return _pieces([*dict.fromkeys(mentions[row] for row in rows)], MENTIONS), 1

    return _joined(documents, content)


def _joined(documents: Sequence[str], content: Callable[[Sequence[int]], Content]) -> np.ndarray:
    """The name of the first document like that of each row, (n,), by `content` of its rows."""
    names, owner = number_distinct(documents)
    rows: list[list[int]] = [[] for _ in names]
    for row, document in enumerate(owner.tolist()):
        rows[document].append(row)
    first = _first_alike([*map(content, rows)])
    return np.array(names, object)[np.array(first, np.int64)[owner]]


def _content(lists: AnnotatedLists, ids: Sequence[str], rows: Sequence[int]) -> Content:
    """What a document is compared by; `ids` are those of all candidates, `rows` its mentions."""
    if any((lists.lefts[row] + lists.rights[row]).strip() for row in rows):
        texts = [f"{lists.lefts[row]} {lists.mentions[row]} {lists.rights[row]}" for row in rows]
        return set().union(*(_pieces(text.split(), WORDS) for text in texts)), FEWEST_SHARED
    offsets = lists.offsets
    mentions = [f"{lists.mentions[row]} {ids[offsets[row] : offsets[row + 1]]}" for row in rows]
    return _pieces(list(dict.fromkeys(mentions)), MENTIONS), 1


def _pieces(items: Sequence[str], size: int) -> set[int]:
    """Hashes of successive items, the same on every machine."""
    starts = range(len(items) - size + 1)
    return {crc32("\n".join(items[start : start + size]).encode()) for start in starts}


def _first_alike(contents: Sequence[Content]) -> list[int]:
    """The number of the first document that each is like, directly or by others; else its own."""
    every = 1 + sum(len(pieces) for pieces, _ in contents) // MOST_PIECES
    first = list(range(len(contents)))
    documents_of_piece: defaultdict[int, list[int]] = defaultdict(list)
    sizes: list[int] = []
    for number, (all_pieces, fewest) in enumerate(contents):
        pieces = [piece for piece in all_pieces if piece % every == 0]
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
