"""Progress bars of long work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm

SECONDS_BETWEEN_LINES = 30.0


def progress(
    iterable: Iterable | None = None,
    *,
    total: int | None = None,
    desc: str | None = "",
    unit: str = "it",
) -> Any:
    """A `tqdm` bar: redrawn and then removed on a terminal, one state every half minute in a log.

    Args:
        iterable: to iterate over, or None for a bar moved by ``bar.update(n)``.
        total: expected number of units; by default ``len(iterable)``.
        desc: short name of the work, shown before the bar; None shows no bar.
        unit: what is counted, e.g. ``" names"``.

    Setting ``UMLS_RERANKER_PROGRESS=0`` turns all bars off.
    """
    on_terminal = sys.stderr.isatty()
    return tqdm(
        iterable,
        total=total,
        desc=desc,
        unit=unit,
        unit_scale=True,
        dynamic_ncols=on_terminal,
        leave=not on_terminal,
        mininterval=0.2 if on_terminal else SECONDS_BETWEEN_LINES,
        delay=0 if on_terminal else SECONDS_BETWEEN_LINES,
        disable=desc is None or os.environ.get("UMLS_RERANKER_PROGRESS") == "0",
    )
