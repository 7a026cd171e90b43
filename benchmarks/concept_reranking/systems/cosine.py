"""The cosine of the recipe's bi-encoder, which learned from the mentions of `train`."""

from pathlib import Path
from typing import Any

LEAST = -1.0


def scorer(_: Path) -> Any:
    return lambda rows: [[cosine(candidate) for candidate in row["candidates"]] for row in rows]


def cosine(candidate: dict[str, Any]) -> float:
    score = candidate["retrieval_score"]
    return LEAST if score is None else score
