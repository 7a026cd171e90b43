"""Which answers changed from one dictionary to the next, such as a new UMLS release, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import UserError
from ..corpora.mentions import RetiredCuis
from ..lists.read import ERROR, RowPosition, read_rows
from ..vocab.concepts import ConceptTable
from ..vocab.text import normalize_name
from .rows import RANKED

IDENTITY = ("doc_id", "mention_id", "start", "entity", "mention")
REASONS = {
    "merged": "MRCUI merged the concept into the new answer, or into another concept",
    "retired": "the dictionary has the concept no more",
    "new concept": "the former dictionary did not have the answer's concept",
    "new name": "the former dictionary did not have the name by which it was found",
    "ranking": "both dictionaries have both concepts and the name; other scores decided",
    "acceptance": "the concept is the same, but it is accepted no more, or only now",
}


class Dictionaries(NamedTuple):
    """What answers are compared by.

    Attributes:
        former: concepts of the index of the former answers.
        new: concepts of the index of the new answers.
        retired: mergers of the new release, if it has any.
    """

    former: ConceptTable
    new: ConceptTable
    retired: RetiredCuis | None = None

    def reason(self, former: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
        """Why an answer changed, a key of `REASONS`, and what a concept was ``merged_into``.

        Args:
            former: the former top candidate; empty for none.
            new: the new one, another concept; empty for none.
        """
        former_cui = former.get("cui") or ""
        new_cui = new.get("cui") or ""
        if former_cui and not self.new.has([former_cui])[0]:
            successor = self.retired and self.retired.successor(former_cui, self.new)
            return {"why": "merged", "merged_into": successor} if successor else {"why": "retired"}
        if new_cui and not self.former.has([new_cui])[0]:
            return {"why": "new concept"}
        (row,) = self.former.rows([new_cui]).tolist()
        names = set(map(normalize_name, self.former.names(row)))
        if new_cui and normalize_name(new["name"]) not in names:
            return {"why": "new name"}
        return {"why": "ranking"}


def answer_changes(
    former_path: Path, new_path: Path, dictionaries: Dictionaries
) -> Iterator[dict[str, Any] | None]:
    """Yield for each mention what changed of its answer, or None.

    Args:
        former_path: the former answers, a file that ``link`` or ``rerank`` wrote.
        new_path: the new answers for the same input.
        dictionaries: those of both.

    Raises:
        UserError: a file cannot be read, or rows are of other mentions (names the first), or are
            not ranked.
    """
    for (position, former), (_, new) in zip_longest(
        _rows(former_path), _rows(new_path), fillvalue=(RowPosition(new_path, 0), {})
    ):
        identity = {key: former[key] for key in IDENTITY if key in former}
        if not identity or identity != {key: new[key] for key in IDENTITY if key in new}:
            raise UserError(
                f"{position}: the other file does not have the same mention here; "
                "give the answers of both dictionaries for the same input"
            )
        tops: list[Mapping[str, Any]] = [
            next(iter(row.get(RANKED) or ()), {}) for row in (former, new)
        ]
        cuis = [top.get("cui") for top in tops]
        accepted = [top.get("accepted") for top in tops]
        if cuis[0] != cuis[1]:
            why = dictionaries.reason(*tops)
        elif accepted[0] != accepted[1]:
            why = {"why": "acceptance"}
        else:
            yield None
            continue
        yield identity | {"former": cuis[0], "new": cuis[1], "accepted": accepted} | why


def _rows(path: Path) -> Iterator[tuple[RowPosition, dict[str, Any]]]:
    for rows in read_rows(path):
        for position, row in zip(rows.positions, rows.mappings(), strict=True):
            if RANKED not in row and ERROR not in row:
                raise UserError(
                    f"{position}: not a ranked row; give a file that umls-reranker link wrote"
                )
            yield position, row
