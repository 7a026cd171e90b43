"""Logged predictions: JSON lines written by umls-reranker rerank, or by a service in the same format.

One object per line: ``entity``, ``candidates``, ``ranked`` (best first, each with ``name``, ``cui``, ``score``,
``margin``, ``logit``, ``tier``, ``accepted``, ``inputs``) and, if known, ``entity_type``, ``left``, ``right``,
``mention_id``, ``doc_id``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..data.cuis import normalize_cui
from .monitoring.figures import Top

__all__ = ["LoggedMention", "concept_of", "read_predictions"]


@dataclass(frozen=True, slots=True)
class LoggedMention:
    """One line.

    Attributes:
        row: the object as it was read.
        types: names or ids of the mention's semantic types, as given.
        top: of the best candidate, None without candidates.
    """

    row: Mapping[str, Any]
    types: list[str]
    top: Top | None

    @property
    def document(self) -> str | None:
        """Id of the document, if logged."""
        return _text(self.row.get("doc_id"))

    @property
    def mention_id(self) -> str | None:
        """Id of the mention, if logged."""
        return _text(self.row.get("mention_id"))


def read_predictions(path: Path) -> Iterator[LoggedMention]:
    """Read line by line; blank lines are skipped.

    Raises:
        UserError: the file is missing, or a line is not such an object (named).
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the output of umls-reranker rerank")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                row["entity"] + ""
                for item in (*row["candidates"], *row["ranked"]):
                    concept_of(item)
                best = row["ranked"][0] if row["ranked"] else None
                types = row.get("entity_type") or []
                top = best and Top(float(best["score"]), float(best["margin"]), best["tier"], best["accepted"])
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise UserError(f"{path}:{number}: not a line that umls-reranker rerank wrote") from None
            yield LoggedMention(row, [types] if isinstance(types, str) else list(types), top)


def concept_of(candidate: Mapping[str, Any] | str) -> str:
    """The concept of a candidate: its CUI in the form of `normalize_cui`, or its name if it has none."""
    name, cui = (candidate, None) if isinstance(candidate, str) else (candidate["name"], candidate.get("cui"))
    return normalize_cui(cui or name)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
