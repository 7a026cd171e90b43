"""Corrections of a model that was calibrated on labelled lists: they follow the rows of the lists' file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration.inputs import ScoreRange
from ..data.candidate_rows import CUI_LESS
from ..data.labelled_lists import CUI, SUFFIX, AddedMentions, LabelledLists, read_labelled_lists
from ..data.list_columns import FIELDS
from ..data.mention_files import RowPosition, id_text
from ..data.mentions import FEEDBACK_PREFIX
from ..data.semantic_types import TypeHierarchy
from .corrections import load_feedback


def lists_with_corrections(
    path: Path, hierarchy: TypeHierarchy, folder: Path, umls_dir: Path | None = None
) -> tuple[LabelledLists, dict[str, Any]]:
    """Labelled lists of a file, followed by corrections, which are read as further rows of it.

    Only fields that the file's lists have count in a correction: if it alone had types or definitions, the file's
    mentions would lack them. A correction replaces the row of the same mention: of the same document and id or, if
    either has no id, of the same document, text and context. Corrections without a document may all be from one.

    Args:
        path: as for `read_labelled_lists`.
        hierarchy: as for `read_labelled_lists`.
        folder: folder of the dataset of corrections.
        umls_dir: as for `read_labelled_lists`.

    Returns:
        Lists, of which a certificate may rest on the mentions of the file and the corrections that were ``drawn`` at
        random; and what ``calibrator.json`` says about corrections: how many were ``used``, of these are
        ``certifying`` (drawn), how many rows they ``replaced``, and how many were ``left_out``:
        ``without_candidates``, ``without_scores`` (one that the file's candidates have, or within what they hold), and
        ``without_cui`` (in a candidate, or chosen).

    Raises:
        UserError: as for `read_labelled_lists` and `load_feedback`.
    """
    corrections = list(load_feedback(folder))
    cuis = {item["cui"] for correction in corrections for item in correction["candidates"] if item["cui"]}
    report: dict[str, Any] = {}

    def add(labelled: LabelledLists) -> AddedMentions:
        added, counts = _fitting(labelled, corrections, folder)
        report.update(counts)
        return added

    return read_labelled_lists(path, hierarchy, umls_dir, add=add, further_cuis=cuis), report


def described_corrections(report: Mapping[str, Any]) -> str:
    """The report of `lists_with_corrections` as a sentence."""
    left_out = ", ".join(
        f"{count:,} {reason.replace('_', ' ')}" for reason, count in report["left_out"].items() if count
    )
    return (
        f"corrections: {report['used']:,} added to the lists, {report['replaced']:,} of them replacing the row of "
        f"their mention; {report['certifying']:,} were drawn at random and count for metrics and, in new documents, "
        f"for certificates; left out: {left_out or 'none'}"
    )


def _fitting(
    labelled: LabelledLists, corrections: Sequence[Mapping[str, Any]], folder: Path
) -> tuple[AddedMentions, dict[str, Any]]:
    """The corrections that can be read like the lists of a file, as rows, and counts of these and the others."""
    rows = list(map(_as_row, corrections))
    if labelled.dictionary is not None:
        rows = labelled.dictionary.add_to(rows)
    lists, mentions = labelled.lists, _FileMentions(labelled)
    ranges = {f"{name}{SUFFIX}": ScoreRange.of(column) for name, column in lists.scores.items()}
    keys = ["name", "cui", *ranges]
    keys += [name for name in FIELDS if getattr(lists, f"{name}s").null_count < len(lists.names)]
    keys += ["semantic_types"] if (lists.candidate_types.codes >= 0).any() else []
    added = AddedMentions([], [], [], set())
    lost = dict.fromkeys(("without_candidates", "without_scores", "without_cui"), 0)
    for number, (row, correction) in enumerate(zip(rows, corrections, strict=True), start=1):
        if reason := _reason_to_leave_out(row, ranges):
            lost[reason] += 1
            continue
        row["candidates"] = [{key: item.get(key) for key in keys} for item in row["candidates"]]
        if not mentions.have_types:
            del row["entity_type"]
        if not mentions.have_context:
            del row["left"], row["right"]
        same = mentions.same_as(correction)
        added.rows.append(row)
        added.positions.append(RowPosition(folder, number))
        # The row that it replaces was drawn at random, and without the uncertain ones the rest would look too good.
        added.certifies.append(correction["drawn"] or bool(same))
        added.replaced.update(same)
    counts = {"used": len(added.rows), "certifying": sum(added.certifies), "replaced": len(added.replaced)}
    return added, counts | {"left_out": lost}


def _as_row(correction: Mapping[str, Any]) -> dict[str, Any]:
    """A correction as a row of a file of lists."""
    columns = zip(correction["score_names"], correction["scores"], strict=True)
    scores = {f"{name}{SUFFIX}": values for name, values in columns}
    return {
        "doc_id": correction["doc_id"] or FEEDBACK_PREFIX,
        "mention_id": correction["mention_id"],
        "entity": correction["mention"],
        "entity_type": correction["semantic_types"] or None,
        "left": correction["left"],
        "right": correction["right"],
        "cui": correction["chosen"] or CUI_LESS,
        "candidates": [
            item | {key: values[position] for key, values in scores.items()}
            for position, item in enumerate(correction["candidates"])
        ],
    }


def _reason_to_leave_out(row: Mapping[str, Any], ranges: Mapping[str, ScoreRange]) -> str | None:
    """Why a row cannot be read with lists whose candidates have scores in these ranges; None if it can."""
    candidates = row["candidates"]
    if not candidates:
        return "without_candidates"
    columns = ((known, [item.get(key) for item in candidates]) for key, known in ranges.items())
    if any(np.isnan(known.inside(np.array(column, np.float64))).any() for known, column in columns):
        return "without_scores"
    cuis = [row["cui"], *((item["cui"] or "").strip() for item in candidates)]
    return None if all(map(CUI.fullmatch, cuis)) else "without_cui"


class _FileMentions:
    """The mentions of a file, to find those of corrections.

    Attributes:
        have_types: whether any of them has a type.
        have_context: whether any of them has text around it.
    """

    def __init__(self, labelled: LabelledLists) -> None:
        lists = labelled.lists
        self.have_types = bool(lists.types.is_known.any())
        self.have_context = any(map(str.strip, (*lists.lefts, *lists.rights)))
        self._ids = list(map(id_text, labelled.mention_ids))
        self._by_id: dict[tuple[str, str | None], int] = {}
        self._by_text: defaultdict[tuple[str, ...], set[int]] = defaultdict(set)
        columns = zip(lists.annotations.documents, self._ids, lists.mentions, lists.lefts, lists.rights, strict=True)
        for number, (document, mention_id, *texts) in enumerate(columns):
            self._by_id[document, mention_id] = number
            self._by_text[self._key(document, texts)].add(number)

    def same_as(self, row: Mapping[str, Any]) -> set[int]:
        """Numbers of the mentions that a correction belongs to."""
        document, mention_id = row["doc_id"], row["mention_id"]
        if mention_id is not None and (document, mention_id) in self._by_id:
            return {self._by_id[document, mention_id]}
        equal = self._by_text.get(self._key(document, [row["mention"], row["left"], row["right"]]), set())
        return {number for number in equal if mention_id is None or self._ids[number] is None}

    def _key(self, document: str, texts: Sequence[str]) -> tuple[str, ...]:
        return (document, *(texts if self.have_context else texts[:1]))
