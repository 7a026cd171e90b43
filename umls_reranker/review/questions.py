"""Questions of the page to a model: the content of its boxes, typed, pasted as JSON, or of an example."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import UserError
from ..data.list_columns import FIELDS, MENTION_FIELDS
from ..data.mention_files import open_mentions, read_line
from ..data.semantic_types import TypeHierarchy
from ..serving.reranker import UMLSReranker

# Number of rows of a file that become examples, and maximum number read for them.
EXAMPLES, MOST_READ = 5, 64
COLD = "The patient was tired and complained of a cold."
# Name, CUI, type, and where in the range of a score the candidate is.
COLDS = (
    ("Common Cold", "C0009443", "T047", 0.95),
    ("Cold Temperature", "C0009264", "T070", 0.6),
    ("Cold Sensation", "C0234192", "T184", 0.45),
)


class Question(NamedTuple):
    """The content of the boxes.

    Attributes:
        text: text around the mention; may be empty.
        types: ids of the mention's semantic types.
        candidates: candidates as users type them (`parse_candidates`).
        start: offset of the mention in the text, if it was selected there.
    """

    text: str
    mention: str
    types: Sequence[str] = ()
    candidates: str = ""
    start: int | None = None

    @classmethod
    def of_row(cls, row: Mapping[str, Any], hierarchy: TypeHierarchy) -> Question:
        """Make a question from a mention and its candidates, as `mention_files.read_line` returns them.

        Raises:
            ValueError: a value has the wrong type.
        """
        left, mention, right = (row.get(key) or "" for key in ("left", "entity", "right"))
        types, candidates = row.get("entity_type") or [], row["candidates"]
        types = [types] if isinstance(types, str) else types
        if not all(isinstance(text, str) for text in (left, mention, right)):
            raise ValueError("mention (or entity), left and right must be strings")
        if not isinstance(types, list) or not all(isinstance(kind, str) for kind in types):
            raise ValueError("entity_type must be a string or a list of strings")
        if not isinstance(candidates, list):
            raise ValueError("candidates must be a list")
        lines = [json.dumps(_candidate(item, number), ensure_ascii=False) for number, item in enumerate(candidates)]
        known = list(filter(None, map(hierarchy.resolve, types)))
        has_context = bool(left or right)
        start = len(left) if has_context else None
        return cls(left + mention + right if has_context else "", mention, known, "\n".join(lines), start)

    def unpacked(self, hierarchy: TypeHierarchy) -> Question:
        """The question with a row of JSON, pasted as candidates, divided among the boxes.

        Raises:
            ValueError: the row lacks a field, or a value has the wrong type.
        """
        row = _json(self.candidates)
        if not isinstance(row, dict) or "candidates" not in row:
            return self
        return self.of_row(read_line(json.dumps(row, ensure_ascii=False).encode()), hierarchy)


def parse_candidates(text: str) -> list[dict[str, Any]]:
    """Parse candidates, one per line: ``name | CUI | type; type``, of which only the name is required.

    A line may also be JSON, with all fields that a model reads, such as scores, or the whole text one JSON list.

    >>> parse_candidates("Common Cold | C0009443 | T047")
    [{'name': 'Common Cold', 'cui': 'C0009443', 'semantic_types': ['T047']}]
    >>> parse_candidates('{"name": "Common Cold", "sapbert_score": 0.87}')
    [{'name': 'Common Cold', 'sapbert_score': 0.87}]

    Raises:
        ValueError: a line of JSON is invalid, which is named, or is not a candidate.
    """
    whole = _json(text)
    if isinstance(whole, list | dict):
        items = whole if isinstance(whole, list) else [whole]
        return [_candidate(item, number) for number, item in enumerate(items)]
    candidates = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        if line.lstrip().startswith("{"):
            item = _json(line.strip().removesuffix(","))
            if item is None:
                raise ValueError(f"line {number} of the candidates is not JSON; write one object per line")
            candidates.append(_candidate(item, number - 1))
        else:
            candidates.append(_typed(line))
    return candidates


def examples_in(path: Path, hierarchy: TypeHierarchy) -> list[Question]:
    """The first mentions with candidates of a file of lists.

    Raises:
        UserError: the file cannot be read.
    """
    return list(islice(_questions(path, hierarchy), EXAMPLES))


def example_for(reranker: UMLSReranker) -> Question:
    """A mention with all inputs of a model; scores are synthetic, in the range of calibration."""
    reads = reranker.calibration.models[0].reads(reranker.template.reads)
    ranges, hierarchy = reranker.calibration.score_ranges, reranker.thresholds.hierarchy
    types = [known] if "entity_type" in reads and (known := hierarchy.resolve(COLDS[0][2])) else []
    fields = [name for name in FIELDS if name in reads]
    lines = []
    for name, cui, kind, position in COLDS:
        if not ranges and not fields:
            lines.append(f"{name} | {cui} | {kind}")
            continue
        candidate: dict[str, Any] = {"name": name, "cui": cui}
        candidate |= {field: name if field == "preferred_name" else "" for field in fields}
        candidate |= {"semantic_types": [kind]} if "semantic_types" in reads else {}
        for score, (low, high) in ranges.items():
            candidate[f"{score}_score"] = float(f"{low + position * (high - low):.4g}")
        lines.append(json.dumps(candidate))
    return Question(COLD, "cold", types, "\n".join(lines))


def _questions(path: Path, hierarchy: TypeHierarchy) -> Iterator[Question]:
    for batch in open_mentions(path).batches(MOST_READ):
        try:
            rows = batch.rows(MENTION_FIELDS)
            yield from (Question.of_row(row, hierarchy) for row in rows if row["candidates"])
        except ValueError as error:
            raise UserError(f"{path}: {error}") from None
        return


def _json(text: str) -> Any:
    """An object or a list of JSON; None if it is something else."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _candidate(item: Any, number: int) -> dict[str, Any]:
    """A candidate of JSON without null fields; a text is its name."""
    if isinstance(item, str):
        return {"name": item}
    if not isinstance(item, dict):
        raise ValueError(f"candidate {number} is {reprlib.repr(item)}, neither a name nor an object with name and cui")
    if "candidates" in item:
        raise ValueError("several rows with candidates; paste one row at a time")
    return {key: value for key, value in item.items() if value is not None}


def _typed(line: str) -> dict[str, Any]:
    name, cui, types = (*(part.strip() for part in line.split("|", 2)), "", "")[:3]
    candidate: dict[str, Any] = {"name": name}
    if cui:
        candidate["cui"] = cui
    if types:
        candidate["semantic_types"] = [kind.strip() for kind in types.split(";")]
    return candidate
