"""Ranked rows, and figures of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..calibration.thresholds import TIERS
from ..core.errors import UserError


def read_ranked(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of JSON Lines that ``umls-reranker rerank`` wrote, without those that have an ``error``.

    Raises:
        UserError: the file is missing, or a line is not a ranked row (names the line).
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the output of umls-reranker rerank")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict) and "error" in row:
                continue
            if not _is_ranked(row):
                raise UserError(f"{path}:{number}: not a ranked row; give JSON Lines that umls-reranker rerank wrote")
            yield row


def _is_ranked(row: Any) -> bool:
    if not isinstance(row, dict) or not all(isinstance(row.get(name), list) for name in ("candidates", "ranked")):
        return False
    return bool(row.get("entity") or row.get("mention")) and all(
        isinstance(item, dict)
        and item.get("tier") in TIERS
        and isinstance(item.get("accepted"), bool)
        and all(isinstance(item.get(name), int | float) and abs(item[name]) <= 1 for name in ("score", "margin"))
        for item in row["ranked"]
    )
