"""Ranking a batch of rows, of which some may have an error instead of a list."""

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa

from ..lists.candidate_lists import CandidateLists
from ..lists.row_errors import row_errors
from ..lists.rows import Rows
from ..lists.table import first_values
from .ranked_candidate import ranked_column
from .reranker import UMLSReranker
from .row_counts import count_rows
from .rows import RankedRows

T = TypeVar("T")


def read_valid(read: Callable[[list[int]], T], errors: list[str | None]) -> T:
    """Read the rows without an error; a row that cannot be read gets one.

    Args:
        read: reads the rows of some numbers; TypeError or ValueError say why it cannot.
        errors: of each row why it cannot be ranked, None if nothing is known against it.
    """
    numbers = [number for number, error in enumerate(errors) if error is None]
    try:
        return read(numbers)
    except (TypeError, ValueError):
        for number, error in zip(numbers, row_errors(read, numbers), strict=True):
            errors[number] = error
    return read([number for number in numbers if errors[number] is None])


def rank_rows(
    reranker: UMLSReranker,
    rows: Rows,
    lists: CandidateLists,
    errors: list[str | None],
    golds: Sequence[Collection[str]],
    described: Callable[[pa.ListArray], pa.ListArray] = lambda ranked: ranked,
) -> RankedRows:
    """Rank a batch of rows.

    Args:
        reranker: ranks them.
        rows: the rows.
        lists: the lists of those without an error.
        errors: of each row, why it cannot be ranked.
        golds: ids of the gold concepts of each row.
        described: adds to the ranked candidates what is known about them.
    """
    decisions = reranker.decide(lists)
    ranked = described(ranked_column(lists, decisions, reranker.model_names))
    is_ranked = np.array([error is None for error in errors], bool)
    documents = first_values(rows.content, "doc_id")
    counts = count_rows(lists, decisions, golds, errors, documents, reranker.calibration)
    # Rows with an error have no list: a null stands for it.
    list_numbers = pa.array(np.cumsum(is_ranked) - 1, mask=~is_ranked)
    return RankedRows(
        content=rows.content,
        ranked=ranked.take(list_numbers),
        errors=errors,
        counts=counts,
        first_error=first_error(rows, errors),
    )


def first_error(rows: Rows, errors: Sequence[str | None]) -> str | None:
    """Place and reason of the first row with an error."""
    named = zip(rows.positions, errors, strict=True)
    return next((f"{position}: {error}" for position, error in named if error), None)
