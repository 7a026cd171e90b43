"""Ranked rows in JSON Lines, as ``umls-reranker rerank`` or ``link`` wrote them, read again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration.decisions import Tops
from ..calibration.fallback_models import ALL_INPUTS
from ..calibration.thresholds import TIERS
from ..core.arrays import list_offsets, number_distinct
from ..core.errors import UserError
from ..core.json_files import RepeatedKey, marking_repeated

# Tier of a top candidate, None without one, -> its index in `TIERS`, or -1.
TIER_NUMBERS: dict[str | None, int] = {
    None: -1,
    **{tier: number for number, tier in enumerate(TIERS)},
}
# Stands for the top candidate of a mention without candidates.
NO_CANDIDATE: dict[str, Any] = {"score": np.nan, "margin": np.nan, "tier": None, "accepted": False}


def tops_of_rows(rows: Iterable[Mapping[str, Any]]) -> tuple[Tops, list[str]]:
    """What ranked rows (`read_ranked`) say about top candidates.

    Returns:
        The columns, and the names of the models, "all" first.
    """
    sizes = []
    tops = []
    for row in rows:
        ranked = row["ranked"]
        top = ranked[0] if ranked else NO_CANDIDATE
        sizes.append(len(ranked))
        tops.append(top)
    deciding = (top.get("model_name", ALL_INPUTS) for top in tops)
    # The one of all inputs comes first even if it decided nothing, so that its number is 0.
    model_names, models = number_distinct([ALL_INPUTS, *deciding])
    return Tops(
        positions=np.where(sizes, list_offsets(sizes)[:-1], -1),
        sizes=np.array(sizes, np.int64),
        probabilities=np.array([top["score"] for top in tops], np.float64),
        margins=np.array([top["margin"] for top in tops], np.float64),
        tiers=np.array([TIER_NUMBERS[top["tier"]] for top in tops], np.int64),
        accepted=np.array([top["accepted"] for top in tops], bool),
        models=models[1:],
    ), model_names


def read_ranked(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of JSON Lines that ``umls-reranker rerank`` or ``link`` wrote, but for ``error``.

    Raises:
        UserError: the file is missing, or a line is not a ranked row (names the line).
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the output of umls-reranker rerank or link")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line, object_pairs_hook=marking_repeated)
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict) and "error" in row:
                continue
            if not _is_ranked(row):
                raise UserError(
                    f"{path}:{number}: not a ranked row; give JSON Lines "
                    "that umls-reranker rerank or link wrote"
                )
            yield row


def _is_ranked(row: Any) -> bool:
    """Whether a value is a mention with its ranked candidates."""
    if not isinstance(row, dict) or isinstance(row, RepeatedKey):
        return False
    if not isinstance(row.get("ranked"), list):
        return False
    has_text = bool(row.get("entity") or row.get("mention"))
    return has_text and all(map(_is_ranked_candidate, row["ranked"]))


def _is_ranked_candidate(item: Any) -> bool:
    if not isinstance(item, dict) or item.get("tier") not in (*TIERS, None):
        return False
    if not isinstance(item.get("accepted"), bool | None):
        return False
    has_scores = _is_score(item.get("score")) and _is_score(item.get("margin"))
    return has_scores and isinstance(item.get("model_name", ""), str)


def _is_score(value: Any) -> bool:
    """Whether a value can be a score or a margin."""
    return isinstance(value, int | float) and abs(value) <= 1
