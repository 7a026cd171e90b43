"""Labelled candidate lists of somebody's own pipeline, from a file: what a model is calibrated on without a run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration.fusion import CANDIDATE_FEATURES
from ..core.errors import UserError
from ..data.candidate_lists import SCORES, AnnotatedLists, Annotations, CandidateLists
from ..data.cuis import normalize_cui
from ..data.semantic_types import TypeHierarchy
from .mention_files import MentionFile, open_mentions

__all__ = ["LabelledLists", "best_of_each_concept", "read_labelled_lists"]

# With fewer, too little is left to fit on when a fifth is held out.
FEWEST_DOCUMENTS = 10
SUFFIX = "_score"
# UMLS CUIs, and ids of other vocabularies such as HP:0000001 and D003924.
CUI = re.compile(r"[Cc]\d{7}|(?![Cc]\d+$)\S+")
# Keys of a candidate that are no scores.
KEYS = ("name", "cui", "preferred_name", "definition", "semantic_types")


@dataclass(frozen=True)
class LabelledLists:
    """What a file holds.

    Attributes:
        lists: with annotations; their scores are those that all candidates have.
        not_in_list: mentions whose gold concept is not among their candidates.
        unread: keys of candidates that nothing reads.
    """

    lists: AnnotatedLists
    not_in_list: int
    unread: tuple[str, ...]


def read_labelled_lists(path: Path, hierarchy: TypeHierarchy) -> LabelledLists:
    """Read and check a file or a folder of mentions (`open_mentions`), each with ``doc_id`` and ``cui`` too.

    Of candidates, ``NAME_score`` is the score of retriever NAME. Mentions whose gold concept is not in the list stay,
    as ones that have no right answer there; it is never put in.

    Args:
        hierarchy: resolves the names of semantic types.

    Raises:
        UserError: the file cannot be read, or a row will not do; names the row and says what to do.
    """
    file = open_mentions(path, shard_rows=1 << 30)
    if not file.rows:
        raise UserError(f"{path} holds no mentions")
    ((_, piece),) = file.read(0, file.rows, file.rows)
    scores: Iterable[str] = SCORES
    try:
        rows = file.objects(piece)
        keys = _candidate_keys(rows)
        scores = dict.fromkeys((*SCORES, *(key.removesuffix(SUFFIX) for key in keys if key.endswith(SUFFIX))))
        lists = file.lists(piece, hierarchy, scores)
    except (TypeError, ValueError):
        row, reason = next(iter(file.faults(piece, hierarchy, scores).items()))
        raise UserError(f"{file.place(row)}: {reason}") from None
    taken = next((name for name in scores if name in CANDIDATE_FEATURES and name not in SCORES), None)
    if taken or "" in scores:
        raise UserError(f"{path}: no retriever can be called {taken!r}; give {taken or ''}{SUFFIX} another name")
    documents = [_document(file, row, item) for row, item in enumerate(rows)]
    gold = [_gold(file, row, item) for row, item in enumerate(rows)]
    _check_candidates(file, lists)
    count = len(set(documents))
    if count < FEWEST_DOCUMENTS:
        raise UserError(
            f"{path}: all mentions are of {count} document{'s' * (count > 1)}; a model is fitted on some documents "
            f"and measured on others, so give {FEWEST_DOCUMENTS} or more, and each mention the doc_id of its own"
        )
    places = _gold_places(lists, gold)
    missing = int((places < 0).sum())
    if missing == len(rows):
        raise UserError(
            f"{path}: no list holds its mention's cui (first: {gold[0]} of {file.place(0)}); give candidates and cui "
            "ids of one vocabulary"
        )
    known = np.ones(len(rows), bool)
    numbers = np.arange(len(rows))
    annotations = Annotations(np.array(gold, object), np.array(documents, object), numbers, numbers + 1, places, known)
    given = {name: column for name, column in lists.scores.items() if not np.isnan(column).all()}
    unread = tuple(key for key in keys if key not in KEYS and not key.endswith(SUFFIX))
    return LabelledLists(replace(lists, scores=given).annotated(annotations), missing, unread)


def best_of_each_concept(lists: CandidateLists, scores: np.ndarray) -> np.ndarray:
    """(m,) bool, of several candidates of one concept in a list the one with the highest score (m,).

    Several names of one concept compete neither for probability nor for the margin when they are ranked.
    """
    order = np.lexsort((-scores, lists.concepts))
    kept = np.zeros(len(order), bool)
    kept[order[np.append(True, np.diff(lists.concepts[order]) > 0)]] = True
    return kept


def _candidate_keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys of all candidates, in order."""
    items = (item for row in rows for item in row["candidates"] or () if isinstance(item, Mapping))
    return list(dict.fromkeys(key for item in items for key in item))


def _document(file: MentionFile, row: int, item: Mapping[str, Any]) -> str:
    found = item.get("doc_id")
    if found is None or found != found or not str(found).strip():
        raise UserError(f"{file.place(row)}: doc_id is missing; give every mention the id of its document")
    return str(found)


def _gold(file: MentionFile, row: int, item: Mapping[str, Any]) -> str:
    found = item.get("cui")
    if found is None or found == "":
        raise UserError(
            f"{file.place(row)}: cui, the mention's right concept, is missing; leave out mentions that nobody labelled"
        )
    if not isinstance(found, str) or not CUI.fullmatch(found.strip()):
        raise UserError(f"{file.place(row)}: cui is {found!r}, which is no CUI; write it as C0009443")
    return normalize_cui(found)


def _check_candidates(file: MentionFile, lists: CandidateLists) -> None:
    """Refuse candidates without a CUI, and scores that only some have."""

    def fault(wrong: np.ndarray, reason: str, remedy: str) -> None:
        if wrong.any():
            place = int(wrong.argmax())
            row = int(lists.owner[place])
            number = place - int(lists.offsets[row]) + 1
            raise UserError(f"{file.place(row)}: candidate {number} {reason}; {remedy}")

    encoded = lists.encoded_cuis
    codes, texts = encoded.codes, encoded.texts
    missing = np.array([not (text and text.strip()) for text in texts], bool)[codes]
    fault(missing, "has no cui", "give each candidate the CUI of its concept, by which the right one is found")
    wrong = np.array([not CUI.fullmatch((text or "C0000000").strip()) for text in texts], bool)[codes]
    named = repr(lists.cuis[int(wrong.argmax())].as_py()) if len(wrong) else ""
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
    encoded = lists.encoded_cuis
    texts = [normalize_cui(text) for text in encoded.texts]
    numbers = {text: number for number, text in enumerate(dict.fromkeys((*texts, *gold)))}
    own = np.array([numbers[text] for text in texts], np.int64)[encoded.codes]
    right = np.flatnonzero(own == np.array([numbers[text] for text in gold])[lists.owner])[::-1]
    places = np.full(len(lists), -1, np.int64)
    places[lists.owner[right]] = right - lists.offsets[:-1][lists.owner[right]]
    return places
