"""Logged predictions: JSON lines written by ``umls-reranker rerank``, or by a service in the same format.

One object per line: ``entity``, ``candidates``, ``ranked`` (`RankedCandidate.as_row` of each, the top candidate first)
and optionally ``entity_type``, ``left``, ``right``, ``mention_id``, ``doc_id``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..calibration.thresholds import TIERS
from ..core.errors import UserError
from ..core.lines import is_finite
from ..data.cuis import normalize_cui
from ..data.mention_files import FORMATS, id_text, read_line
from .monitoring.figures import Top


@dataclass(frozen=True, slots=True)
class LoggedMention:
    """One line.

    Attributes:
        row: the object as read, with names for candidates that had none.
        types: names or ids of the mention's semantic types, as logged.
        top: decision about the top candidate, None without candidates.
        line: its number in the file, from 1; 0 if it is not from a file.
    """

    row: Mapping[str, Any]
    types: list[str]
    top: Top | None
    line: int = 0

    @property
    def document(self) -> str | None:
        """Id of the document, if logged."""
        return id_text(self.row.get("doc_id"))

    @property
    def mention_id(self) -> str | None:
        """Id of the mention, if logged."""
        return id_text(self.row.get("mention_id"))


def read_predictions(path: Path) -> Iterator[LoggedMention]:
    """Read line by line; blank lines are skipped.

    Raises:
        UserError: the file is missing or a table, or a line is not such an object, which is named.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the output of umls-reranker rerank")
    if FORMATS.get(path.suffix, "jsonl") != "jsonl":
        raise UserError(f"{path} is a table; predictions are read from JSON Lines: rerank into a .jsonl file")
    return _predictions(path)


def _predictions(path: Path) -> Iterator[LoggedMention]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                logged = _logged(read_line(line), number)
            except (ValueError, KeyError, TypeError, AttributeError):
                reason = "not a complete output line of umls-reranker rerank"
                if b'"cross_encoder_score"' in line:
                    reason = "cross_encoder_score is now named score; rename the key or rerank these mentions"
                raise UserError(f"{path}:{number}: {reason}") from None
            yield logged


def _logged(row: dict[str, Any], line: int) -> LoggedMention:
    """Read a row; any error means that it is not a prediction."""
    candidates, ranked, types = row["candidates"], row["ranked"], _as_list(row.get("entity_type") or [])
    if not isinstance(candidates, list) or not isinstance(ranked, list):
        raise TypeError
    # A candidate may be a CUI whose name came from a dictionary.
    names = {item["cui"]: item["name"] for item in ranked if item.get("cui")}
    for item in candidates:
        if isinstance(item, dict) and item.get("name") is None:
            item["name"] = names[item["cui"]]
    texts = [row["entity"], *types, *(row.get(name) or "" for name in ("left", "right", "note", "reason"))]
    for item in (*candidates, *ranked):
        concept_of(item)
        about = {"name": item} if isinstance(item, str) else item
        texts += [about["name"], about.get("preferred_name") or "", *_as_list(about.get("semantic_types") or [])]
    texts += [item.get("inputs", "") for item in ranked]
    numbers = [item[key] for item in ranked for key in ("score", "margin", "logit") if item.get(key) is not None]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError
    if not all(type(number) in (int, float) and is_finite(number) for number in numbers):
        raise ValueError
    if not ranked:
        return LoggedMention(row, types, None, line)
    top = Top(*(ranked[0][name] for name in Top._fields))
    is_decided = 0 <= top.score <= 1 and top.margin is not None and top.tier in TIERS and type(top.accepted) is bool
    if not is_decided or not candidates:
        raise ValueError
    return LoggedMention(row, types, top, line)


def _as_list(value: Any) -> list[Any]:
    """A list unchanged, and a text as a list of one."""
    if not isinstance(value, str | list):
        raise TypeError
    return [value] if isinstance(value, str) else value


def concept_of(candidate: Mapping[str, Any] | str) -> str:
    """The concept of a candidate: its CUI in the form of `normalize_cui`, or its name if it has none."""
    name, cui = (candidate, None) if isinstance(candidate, str) else (candidate["name"], candidate.get("cui"))
    return normalize_cui(cui or name)
