"""Versions of a model beside each other: where the outcomes of one are found, and whether the next may follow it."""

from __future__ import annotations

import warnings
from pathlib import Path

from ..core.errors import UserError
from ..evaluation.comparison import compare
from ..evaluation.outcomes import OUTCOMES_FILE, Outcomes
from .download import download

__all__ = ["find_outcomes", "refuse_worse"]


def find_outcomes(place: str) -> Path:
    """What a version answered on its test split: ``outcomes.parquet`` of a run, report or model folder, or of a repo.

    Args:
        place: a folder, the file itself, or a Hub repo as ``NAMESPACE/NAME`` or ``NAMESPACE/NAME@REVISION``.

    Raises:
        UserError: there is no such place, or it holds no outcomes.
    """
    path = Path(place).expanduser()
    for found in (path, path / OUTCOMES_FILE, path / "report" / OUTCOMES_FILE):
        if found.is_file():
            return found
    if path.exists():
        raise UserError(f"{place} holds no {OUTCOMES_FILE}; scripts/evaluate.py makes it")
    repo_id, _, revision = place.partition("@")
    found = _published(repo_id, revision or None)
    if found is None:
        raise UserError(f"{place} holds no {OUTCOMES_FILE}; it was published without")
    return found


def refuse_worse(folder: Path, repo_id: str, revision: str, token: str | None = None) -> None:
    """Refuse a model folder that is worse than a published version on the mentions that both were evaluated on.

    Where the published version has no outcomes there is nothing to compare; where the two share too little for
    `compare`, a warning says so.

    Raises:
        UserError: it is worse in a figure of `compare`; the message names figure, difference and the way out.
    """
    published = _published(repo_id, revision, token)
    if published is None or not (folder / OUTCOMES_FILE).is_file():
        return
    try:
        comparison = compare(Outcomes.load(folder / OUTCOMES_FILE), Outcomes.load(published))
    except UserError as error:
        warnings.warn(f"not compared with what {repo_id} holds: {error}", stacklevel=3)
        return
    if comparison.worse:
        raise UserError(
            f"{folder} is {comparison.sentence()} than what {repo_id} holds; "
            "set force_worse (--force_worse) to publish it all the same"
        )


def _published(repo_id: str, revision: str | None, token: str | None = None) -> Path | None:
    found = download(repo_id, revision, token=token, files=("reranker.json", OUTCOMES_FILE)) / OUTCOMES_FILE
    return found if found.is_file() else None
