"""Labelled candidate lists of somebody's own pipeline, from a file or folder, checked row by row."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..core.arrays import RepeatedTexts, number_distinct
from ..core.errors import UserError
from .candidate_lists import AnnotatedLists, Annotations, CandidateLists
from .cuis import normalize_cui
from .list_columns import CANDIDATE_KEYS, table_rows
from .mention_files import MentionFile, open_mentions
from .semantic_types import TypeHierarchy

__all__ = ["LabelledLists", "best_of_each_concept", "labelled_pieces", "read_labelled_lists", "require_documents"]

# With fewer, too little is left to fit on when a fifth is held out.
FEWEST_DOCUMENTS = 10
SUFFIX = "_score"
# Mentions of a piece.
PIECE = 4_096
# UMLS CUIs, and ids of other vocabularies such as HP:0000001 and D003924.
CUI = re.compile(r"[Cc]\d{7}|(?![Cc]\d+$)\S+")


@dataclass(frozen=True)
class LabelledLists:
    """Content of a file, or a piece of it.

    Attributes:
        lists: with annotations, CUIs in the form of `normalize_cui`, and the scores that all candidates have.
        not_in_list: mentions whose gold concept is not among their candidates.
        unread: keys of candidates that nothing reads.
        file, first: what was read, and the number of the first row.
        further: values of other columns, None where a row has none.
    """

    lists: AnnotatedLists
    not_in_list: int
    unread: tuple[str, ...]
    file: MentionFile
    first: int = 0
    further: dict[str, list[Any]] = field(default_factory=dict)

    def place(self, row: int) -> str:
        """File and row of a mention, for messages."""
        return self.file.place(self.first + row)


def read_labelled_lists(path: Path, hierarchy: TypeHierarchy, reserved: Collection[str] = ()) -> LabelledLists:
    """Read a file or folder at once; arguments and errors are those of `labelled_pieces`.

    Raises:
        UserError: also if there are too few documents, or no gold concept is in its list.
    """
    (found,) = labelled_pieces(path, hierarchy, reserved, at_once=True)
    require_documents(path, set(found.lists.annotations.documents))
    if found.not_in_list == len(found.lists):
        raise UserError(
            f"{path}: no list holds its mention's cui (first: {found.lists.annotations.cuis[0]} of {found.place(0)}); "
            "give candidates and cui ids of one vocabulary"
        )
    return found


def require_documents(path: Path, documents: Collection[str]) -> None:
    """Refuse lists with too few documents for holding some out."""
    count = len(documents)
    if count < FEWEST_DOCUMENTS:
        raise UserError(
            f"{path}: all mentions are of {count} document{'s' * (count > 1)}; a model is fitted on some documents "
            f"and measured on others, so give {FEWEST_DOCUMENTS} or more, and each mention the doc_id of its own"
        )


def labelled_pieces(
    path: Path,
    hierarchy: TypeHierarchy,
    reserved: Collection[str] = (),
    further: Sequence[str] = (),
    *,
    at_once: bool = False,
) -> Iterator[LabelledLists]:
    """Read and check a file or a folder of mentions (`open_mentions`), each with ``doc_id`` and ``cui`` too.

    Of candidates, ``NAME_score`` is the score of retriever NAME. Mentions whose gold concept is not in the list stay,
    without a right answer; it is never added.

    Args:
        hierarchy: resolves the names of semantic types.
        reserved: names that no retriever may have: those of features, also of our own retrievers.
        further: other columns to read.
        at_once: yield one piece instead of pieces of `PIECE` mentions.

    Raises:
        UserError: the file cannot be read, or a row is invalid; names the row and says what to do.
    """
    file = open_mentions(path, shard_rows=1 << 30)
    if not file.rows:
        raise UserError(f"{path} holds no mentions")
    former: tuple[str, ...] | None = None
    for first, piece in file.read(0, file.rows, file.rows if at_once else PIECE):
        found = _read(file, first, piece, hierarchy, reserved, further)
        if len(found.lists.names):
            given = tuple(found.lists.scores)
            former = given if former is None else former
            for name in {*former} ^ {*given}:
                raise UserError(
                    f"{found.place(0)}: candidates from here on have {'a' if name in given else 'no'} {name}{SUFFIX}, "
                    "unlike those before; give all candidates one, or none"
                )
        yield found


def _read(
    file: MentionFile,
    first: int,
    piece: Any,
    hierarchy: TypeHierarchy,
    reserved: Collection[str],
    further: Sequence[str],
) -> LabelledLists:
    scores: Iterable[str] = ()
    try:
        rows = piece if isinstance(piece, pa.Table) else file.objects(piece)
        keys = _candidate_keys(rows)
        scores = [key.removesuffix(SUFFIX) for key in keys if key.endswith(SUFFIX)]
        make = CandidateLists.from_table if isinstance(rows, pa.Table) else CandidateLists.from_rows
        lists = make(hierarchy, rows, scores)
    except (TypeError, ValueError):
        row, reason = next(iter(file.faults(piece, hierarchy, scores).items()))
        raise UserError(f"{file.place(first + row)}: {reason}") from None
    taken = next((name for name in scores if not name or name in reserved), None)
    if taken is not None:
        raise UserError(
            f"{file.paths[0]}: no retriever can be called {taken!r}; rename {taken}{SUFFIX} to NAME{SUFFIX}, "
            f"such as sapbert{SUFFIX}"
        )
    documents = [_document(file, first + row, value) for row, value in enumerate(_column(file, rows, "doc_id"))]
    gold = [_gold(file, first + row, value) for row, value in enumerate(_column(file, rows, "cui"))]
    _check_candidates(file, first, lists)
    cuis, codes = number_distinct([normalize_cui(text) for text in lists.cuis.texts])
    lists = replace(lists, cuis=RepeatedTexts(cuis, codes[lists.cuis.codes]))
    places = _gold_places(lists, gold)
    numbers = np.arange(first, first + len(lists))
    all_of_them = np.ones(len(lists), bool)
    annotations = Annotations(
        np.array(gold, object),
        np.array(documents, object),
        numbers,
        numbers + 1,
        places,
        in_dictionary=all_of_them,
        certifies=all_of_them,
    )
    given = {name: column for name, column in lists.scores.items() if not np.isnan(column).all()}
    return LabelledLists(
        replace(lists, scores=given).annotated(annotations),
        int((places < 0).sum()),
        tuple(key for key in keys if key not in CANDIDATE_KEYS and not key.endswith(SUFFIX)),
        file,
        first,
        {name: _column(file, rows, name) for name in further},
    )


def best_of_each_concept(lists: CandidateLists, scores: np.ndarray | None = None) -> np.ndarray:
    """(m,) bool, the candidate with the highest score (m,) of each concept in a list, or the first one without scores.

    Several names of one concept do not compete for probability or margin in the ranking.
    """
    order = np.arange(len(lists.concepts)) if scores is None else np.argsort(-scores, kind="stable")
    kept = np.zeros(len(order), bool)
    kept[order[np.unique(lists.concepts[order], return_index=True)[1]]] = True
    return kept


def _candidate_keys(rows: pa.Table | Sequence[dict[str, Any]]) -> list[str]:
    """Keys of all candidates, in order."""
    if isinstance(rows, pa.Table):
        kind = rows.schema.field("candidates").type
        # Of lists of any kind, also those of one size.
        kind = getattr(kind, "value_type", kind)
        return [part.name for part in kind] if pa.types.is_struct(kind) else []
    items = (item for row in rows for item in row["candidates"] or () if isinstance(item, dict))
    return list(dict.fromkeys(key for item in items for key in item))


def _column(file: MentionFile, rows: pa.Table | Sequence[dict[str, Any]], name: str) -> list[Any]:
    """A value for each row, or None."""
    if not isinstance(rows, pa.Table):
        return [row.get(name) for row in rows]
    if name not in rows.column_names:
        return [None] * rows.num_rows
    refusal = "the column {name}, {kind}, cannot be read ({error}); give it as text"
    try:
        return [row[name] for row in table_rows(rows.select([name]), refusal)]
    except ValueError as error:
        raise UserError(f"{file.paths[0]}: {error}") from None


def _document(file: MentionFile, row: int, found: Any) -> str:
    if found is None or found != found or not str(found).strip():
        raise UserError(f"{file.place(row)}: doc_id is missing; give every mention the id of its document")
    return str(found)


def _gold(file: MentionFile, row: int, found: Any) -> str:
    if found is None or found == "":
        raise UserError(
            f"{file.place(row)}: cui, the mention's right concept, is missing; leave out mentions that nobody labelled"
        )
    if not isinstance(found, str) or not CUI.fullmatch(found.strip()):
        raise UserError(f"{file.place(row)}: cui is {found!r}, which is no CUI; write it as C0009443")
    return normalize_cui(found)


def _check_candidates(file: MentionFile, first: int, lists: CandidateLists) -> None:
    """Refuse candidates without a CUI, and scores that only some have."""

    def fault(wrong: np.ndarray, reason: str, remedy: str) -> None:
        if wrong.any():
            place = int(wrong.argmax())
            row = int(lists.owner[place])
            number = place - int(lists.offsets[row])
            raise UserError(f"{file.place(first + row)}: candidate {number} {reason}; {remedy}")

    codes, texts = lists.cuis.codes, lists.cuis.texts
    missing = np.array([not (text and text.strip()) for text in texts], bool)[codes]
    fault(missing, "has no cui", "give each candidate the CUI of its concept, by which the right one is found")
    wrong = np.array([not CUI.fullmatch((text or "C0000000").strip()) for text in texts], bool)[codes]
    named = repr(lists.cuis[int(wrong.argmax())]) if len(wrong) else ""
    fault(wrong, f"has the cui {named}, which is no CUI", "write it as C0009443")
    for name, column in lists.scores.items():
        lacking = ~np.isfinite(column)
        if not np.isnan(column).all():
            fault(
                lacking,
                f"has no {name}{SUFFIX} (or none that is finite), as others have",
                "give all candidates one, the retriever's lowest where it did not find them, or none",
            )


def _gold_places(lists: CandidateLists, gold: Sequence[str]) -> np.ndarray:
    """(n,) int64, the first candidate of each list with the gold concept, or -1."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys((*lists.cuis.texts, *gold)))}
    own = np.array([numbers[text] for text in lists.cuis.texts], np.int64)[lists.cuis.codes]
    right = np.flatnonzero(own == np.array([numbers[text] for text in gold])[lists.owner])[::-1]
    places = np.full(len(lists), -1, np.int64)
    places[lists.owner[right]] = right - lists.offsets[:-1][lists.owner[right]]
    return places
