"""Labelled candidate lists of a user's own pipeline, from a file or folder, checked row by row."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..core.arrays import RepeatedTexts, number_distinct
from ..core.errors import UserError
from ..core.settings import FEATURES
from .candidate_lists import AnnotatedLists, Annotations, CandidateLists
from .cuis import normalize_cui
from .dictionary import Dictionary
from .list_columns import CANDIDATE_KEYS, MENTION_FIELDS
from .mention_files import LINE, NUMBER, MentionBatch, RowPosition, id_text, open_mentions
from .semantic_types import TypeHierarchy
from .type_sets import TypeSets

# With fewer documents, too little is left to fit on when a fifth is held out.
FEWEST_DOCUMENTS = 10
# Columns of labelled mentions; the last two are optional.
LABEL_FIELDS = ("doc_id", "cui", "split", "mention_id")
# Those that are read; the last two are of `MentionBatch.table`.
KNOWN_COLUMNS = {*MENTION_FIELDS, *LABEL_FIELDS, "mention", LINE, NUMBER}
SUFFIX = "_score"
# An outlier is this many times larger than nearly all other scores; fewer scores have no outliers.
OUTLIER_RATIO = 1e6
FEWEST_SCORES = 50
BATCH_MENTIONS = 4_096
# UMLS CUIs, and ids of other vocabularies such as HP:0000001 and D003924.
CONCEPT_ID = re.compile(r"\S+")


class UnknownTypes(NamedTuple):
    """Semantic types that the hierarchy does not know, and how many mentions or candidates have any of them."""

    names: Sequence[str]
    rows: int

    @classmethod
    def of(cls, values: Sequence[Any], hierarchy: TypeHierarchy) -> UnknownTypes:
        """Find the unknown types of n mentions or candidates, each with one type, several, or None."""
        types = TypeSets.of(values)
        _, names = types.resolved(hierarchy)
        has_unknown = np.array([*(not {*names}.isdisjoint(kinds) for kinds in types.sets), False])
        return cls(names, int(has_unknown[types.codes].sum()))


@dataclass(frozen=True)
class LabelledLists:
    """Content of a file, or a batch of it.

    Attributes:
        lists: n mentions with annotations, CUIs in the form of `normalize_cui`, and the scores that all candidates
            have.
        not_in_list: mentions whose gold concept is not among their candidates.
        unread_columns: keys of mentions that are not used.
        unread_keys: keys of candidates that are not used.
        blank_scores: retrievers without a score for any candidate.
        unknown_mention_types: types of mentions that the hierarchy of `lists` does not know.
        unknown_candidate_types: types of candidates that it does not know.
        positions: file and row of each mention, for messages.
        splits: n values of the column ``split``, None if a row has none.
        mention_ids: n values of the column ``mention_id``, None if a row has none.
        dictionary: the dictionary that completed the candidates.
    """

    lists: AnnotatedLists
    not_in_list: int
    unread_columns: tuple[str, ...]
    unread_keys: tuple[str, ...]
    blank_scores: tuple[str, ...]
    unknown_mention_types: UnknownTypes
    unknown_candidate_types: UnknownTypes
    positions: Sequence[RowPosition]
    splits: Sequence[Any]
    mention_ids: Sequence[Any]
    dictionary: Dictionary | None


@dataclass(frozen=True)
class AddedMentions:
    """k mentions that follow those of a file.

    Attributes:
        rows: rows as in the file, completed by the dictionary.
        positions: origin of each, for messages.
        certifies: whether each may count for a certificate.
        replaced: numbers of the file's mentions, from 0, that these replace.
    """

    rows: list[dict[str, Any]]
    positions: list[RowPosition]
    certifies: list[bool]
    replaced: set[int]


def read_labelled_lists(
    path: Path,
    hierarchy: TypeHierarchy,
    umls_dir: Path | None = None,
    *,
    add: Callable[[LabelledLists], AddedMentions] | None = None,
    further_cuis: Collection[str] = (),
    fitted_on: bool = True,
) -> LabelledLists:
    """Read a file or folder at once; arguments and errors are those of `labelled_batches`.

    Args:
        path: the file or folder.
        hierarchy: as for `labelled_batches`.
        umls_dir: folder of a dictionary that completes the candidates (`MentionFiles.with_dictionary`).
        add: function that returns further mentions, given those of the file; they are read like these.
        further_cuis: CUIs of the further mentions' candidates.
        fitted_on: whether a model is to be fitted, which needs documents to fit on and others to measure on.

    Raises:
        UserError: as for `labelled_batches`; a mention_id is repeated in a document, there are too few documents, or
            no list contains its gold CUI.
    """
    batches = list(open_mentions(path).with_dictionary(umls_dir, further_cuis).batches(BATCH_MENTIONS))
    if not batches:
        raise UserError(f"{path} holds no mentions")
    labelled = _read(batches, hierarchy)
    if add is not None:
        labelled = _read(batches, hierarchy, add(labelled))
    refuse_repeated_ids(labelled, {})
    if fitted_on:
        require_documents(path, set(labelled.lists.annotations.documents))
    if labelled.not_in_list == len(labelled.lists):
        raise UserError(
            f"{path}: no list contains its gold CUI (first: {labelled.lists.annotations.cuis[0]} of "
            f"{labelled.positions[0]}); use the same vocabulary for the ids of candidates and cui"
        )
    return labelled


def require_documents(path: Path, documents: Collection[str]) -> None:
    """Refuse lists with too few documents to hold some out."""
    count = len(documents)
    if count < FEWEST_DOCUMENTS:
        raise UserError(
            f"{path}: all mentions are from {count} document{'s' * (count > 1)}; a model is fitted on some documents "
            f"and measured on others: give at least {FEWEST_DOCUMENTS}, and each mention the doc_id of its document"
        )


def refuse_repeated_ids(batch: LabelledLists, first_rows: dict[tuple[str, str], RowPosition]) -> None:
    """Refuse a mention_id that is repeated in a document.

    Args:
        batch: the lists.
        first_rows: (document, mention_id) -> its row in earlier batches; it is updated.
    """
    rows = zip(batch.lists.annotations.documents, batch.mention_ids, batch.positions, strict=True)
    for document, mention_id, position in rows:
        if (text := id_text(mention_id)) is None:
            continue
        first_row = first_rows.setdefault((document, text), position)
        if first_row != position:
            raise UserError(
                f"{position}: mention_id {mention_id!r} of document {document} was already used in {first_row}; list "
                "each mention once, with a unique id or none"
            )


def repeated_rows(labelled: LabelledLists) -> list[tuple[RowPosition, RowPosition]]:
    """Pairs of a mention without mention_id and an earlier one of its document that equals it with all candidates.

    Both may be real if the context is short or missing, so they are not refused.
    """
    lists, annotations = labelled.lists, labelled.lists.annotations
    candidates = list(zip(lists.cuis.to_list(), lists.names.to_list(), strict=True))
    first_rows: dict[Any, RowPosition] = {}
    repeated = []
    for row, position in enumerate(labelled.positions):
        if id_text(labelled.mention_ids[row]) is not None:
            continue
        content = (
            (annotations.documents[row], annotations.cuis[row]),
            (lists.mentions[row], lists.lefts[row], lists.rights[row]),
            tuple(candidates[lists.offsets[row] : lists.offsets[row + 1]]),
        )
        first_row = first_rows.setdefault(content, position)
        if first_row != position:
            repeated.append((position, first_row))
    return repeated


def labelled_batches(path: Path, hierarchy: TypeHierarchy) -> Iterator[LabelledLists]:
    """Read and check a file or a folder of mentions (`open_mentions`), which also have ``doc_id`` and ``cui``.

    ``NAME_score`` of a candidate is the score of retriever NAME, which must not be the name of a feature. A mention
    whose list lacks the gold concept stays, without a correct candidate; the gold concept is never added.

    Args:
        path: the file or folder.
        hierarchy: resolves the names of semantic types.

    Raises:
        UserError: the file cannot be read, or a row is invalid; names the row and says what to do.
    """
    former: set[str] | None = None
    is_empty = True
    for batch in open_mentions(path).batches(BATCH_MENTIONS):
        labelled = _read([batch], hierarchy)
        is_empty = False
        if len(labelled.lists.names):
            scores = set(labelled.lists.scores)
            former = scores if former is None else former
            for name in former ^ scores:
                raise UserError(
                    f"{labelled.positions[0]}: candidates from here on have {'a' if name in scores else 'no'} "
                    f"{name}{SUFFIX}, unlike those before; give all candidates one, or none"
                )
        yield labelled
    if is_empty:
        raise UserError(f"{path} holds no mentions")


def _read(
    batches: Sequence[MentionBatch], hierarchy: TypeHierarchy, added: AddedMentions | None = None
) -> LabelledLists:
    positions = [batch.position(row) for batch in batches for row in range(len(batch))]
    rows: list[dict[str, Any]] = []
    scores: list[str] = []
    columns: dict[str, None] = {}
    try:
        for batch in batches:
            batch_rows = batch.mentions([*MENTION_FIELDS, *LABEL_FIELDS])
            columns |= dict.fromkeys(chain(batch.table.column_names, *batch_rows))
            rows += batch_rows
        certifies = np.ones(len(rows), bool)
        if added is not None:
            retained = [number for number in range(len(rows)) if number not in added.replaced]
            rows = [*(rows[number] for number in retained), *added.rows]
            positions = [*(positions[number] for number in retained), *added.positions]
            certifies = np.append(certifies[retained], added.certifies)
        keys = _candidate_keys(rows)
        scores = [key.removesuffix(SUFFIX) for key in keys if key.endswith(SUFFIX)]
        lists = CandidateLists.from_rows(hierarchy, rows, scores)
    except (TypeError, ValueError) as error:
        for batch in batches:
            for row, reason in batch.faults(hierarchy, scores):
                raise UserError(f"{batch.position(row)}: {reason}") from None
        for added_row, position in zip(added.rows, added.positions, strict=True) if added else ():
            try:
                CandidateLists.from_rows(hierarchy, [added_row], scores)
            except (TypeError, ValueError) as fault:
                raise UserError(f"{position}: {fault}") from None
        # Of a column that no candidate list needs.
        raise UserError(f"{batches[0].path}: {error}") from None
    for name in scores:
        if not name or name in FEATURES:
            raise UserError(
                f"{batches[0].path}: {name!r} is not allowed as the name of a retriever; rename {name}{SUFFIX} to "
                f"NAME{SUFFIX}, such as sapbert{SUFFIX}"
            )
    documents = [_document(row.get("doc_id"), position) for row, position in zip(rows, positions, strict=True)]
    gold_cuis = [_gold_cui(row.get("cui"), position) for row, position in zip(rows, positions, strict=True)]
    _check_candidates(lists, positions)
    cuis, codes = number_distinct([normalize_cui(text) for text in lists.cuis.texts])
    has_scores = {name: column for name, column in lists.scores.items() if not np.isnan(column).all()}
    lists = replace(lists, cuis=RepeatedTexts(cuis, codes[lists.cuis.codes]), scores=has_scores)
    _refuse_outliers(lists, positions)
    gold = _gold_positions(lists, gold_cuis)
    # Offsets only distinguish mentions within a document.
    starts = np.arange(len(lists))
    annotations = Annotations(
        np.array(gold_cuis, object),
        np.array(documents, object),
        starts,
        starts + 1,
        gold,
        in_dictionary=np.ones(len(lists), bool),
        certifies=certifies,
    )
    candidates = [candidate for row in rows for candidate in row["candidates"]]
    candidate_types = [item.get("semantic_types") if isinstance(item, dict) else None for item in candidates]
    return LabelledLists(
        lists.annotated(annotations),
        int((gold < 0).sum()),
        tuple(name for name in columns if name not in KNOWN_COLUMNS),
        tuple(key for key in keys if key not in CANDIDATE_KEYS and not key.endswith(SUFFIX)),
        tuple(name for name in scores if name not in has_scores),
        UnknownTypes.of([row.get("entity_type") for row in rows], hierarchy),
        UnknownTypes.of(candidate_types, hierarchy),
        positions,
        [row.get("split") for row in rows],
        [row.get("mention_id") for row in rows],
        batches[0].dictionary,
    )


def best_of_each_concept(lists: CandidateLists, scores: np.ndarray | None = None) -> np.ndarray:
    """The candidate of each concept in a list with the highest score (m,), or without scores its first, (k,) int64.

    So several names of one concept do not compete for probability or margin. Each takes the position of the first
    candidate of its concept, so the concepts of a list keep their order.
    """
    first = np.unique(lists.concepts, return_index=True)[1]
    if scores is None:
        return np.sort(first)
    order = np.argsort(-scores, kind="stable")
    best = order[np.unique(lists.concepts[order], return_index=True)[1]]
    return best[np.argsort(first)]


def _candidate_keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys of all candidates, in order."""
    keys: dict[str, None] = {}
    for row in rows:
        for candidate in row["candidates"] or ():
            if isinstance(candidate, dict):
                keys |= dict.fromkeys(candidate)
    return list(keys)


def _document(doc_id: Any, position: RowPosition) -> str:
    document = id_text(doc_id)
    if document is None:
        raise UserError(f"{position}: doc_id is missing; give every mention the id of its document")
    return document


def _gold_cui(cui: Any, position: RowPosition) -> str:
    if cui is None or cui == "":
        raise UserError(f"{position}: cui, the mention's gold concept, is missing; leave out unlabelled mentions")
    if not isinstance(cui, str) or not CONCEPT_ID.fullmatch(cui.strip()):
        raise UserError(f"{position}: cui {cui!r} is not a CUI; write it as C0009443")
    return normalize_cui(cui)


def _check_candidates(lists: CandidateLists, positions: Sequence[RowPosition]) -> None:
    """Refuse candidates without a CUI, and scores that only some have."""
    codes, texts = lists.cuis.codes, lists.cuis.texts
    is_missing = np.array([not (text and text.strip()) for text in texts], bool)[codes]
    remedy = "give each candidate the CUI of its concept, which is compared with the gold CUI"
    _refuse_first(is_missing, lists, positions, f"has no cui; {remedy}")
    is_other = np.array([not CONCEPT_ID.fullmatch(text.strip()) for text in texts], bool)[codes]
    example = repr(lists.cuis[int(is_other.argmax())]) if len(codes) else ""
    _refuse_first(is_other, lists, positions, f"has the cui {example}, which is not a CUI; write it as C0009443")
    for name, column in lists.scores.items():
        if not np.isnan(column).all():
            _refuse_first(
                ~np.isfinite(column),
                lists,
                positions,
                f"has no {name}{SUFFIX} (or none that is finite), although others do; give it to all candidates "
                "(those not found get the retriever's lowest) or to none",
            )


def _refuse_outliers(lists: CandidateLists, positions: Sequence[RowPosition]) -> None:
    """Refuse a score whose absolute value is above a million, and a million times that of nearly all others.

    Nearly all means all but the largest thousandth, and all but at least three. A genuine score is never refused:
    cosines and probabilities are too small, and logits, odds, BM25 and counts have no such gap below the few largest.
    """
    for name, column in lists.scores.items():
        sizes = np.abs(column)
        if len(sizes) < FEWEST_SCORES:
            continue
        rank = max(len(sizes) // 1000, 3)
        usual = np.partition(sizes, -1 - rank)[-1 - rank]
        is_outlier = sizes > OUTLIER_RATIO * max(usual, 1.0)
        outlier = column[int(is_outlier.argmax())]
        _refuse_first(
            is_outlier,
            lists,
            positions,
            f"has the {name}{SUFFIX} {outlier:.4g}, but nearly all others are at most {usual:.4g} in absolute value; "
            "correct it",
        )


def _refuse_first(
    is_refused: np.ndarray, lists: CandidateLists, positions: Sequence[RowPosition], reason: str
) -> None:
    """Raise `UserError` with the reason for the first of these candidates, (m,) bool, if there is any."""
    if is_refused.any():
        candidate = int(is_refused.argmax())
        row = int(lists.owner[candidate])
        raise UserError(f"{positions[row]}: candidate {candidate - lists.offsets[row]} {reason}")


def _gold_positions(lists: CandidateLists, gold_cuis: Sequence[str]) -> np.ndarray:
    """The first candidate of each list with the gold concept, or -1, (n,) int64."""
    is_gold = np.array(lists.cuis.to_list(), object) == np.array(gold_cuis, object)[lists.owner]
    # The first one is assigned last.
    correct = np.flatnonzero(is_gold)[::-1]
    gold = np.full(len(lists), -1, np.int64)
    gold[lists.owner[correct]] = correct - lists.offsets[:-1][lists.owner[correct]]
    return gold
