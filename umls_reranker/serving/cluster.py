"""Reranking on a cluster, with Spark's ``mapInPandas`` or Ray Data's ``map_batches``.

Rows have the columns ``entity`` (or ``mention``) and ``candidates`` (lists of names, or of structs with ``name``,
``cui`` and scores such as ``sapbert_score``) and optionally ``entity_type``, ``left`` and ``right``. The column
``ranked`` is added: the fields of `RankedCandidate.as_row` for each candidate, the top candidate first. Each worker
loads the model once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..data.candidate_lists import CandidateLists
from .ranked_candidates import RANKED, RANKED_TYPE, ranked_column

if TYPE_CHECKING:
    import pandas as pd

    from .reranker import UMLSReranker

# Columns of a frame that are read.
MENTION_COLUMNS = ("entity", "mention", "candidates", "entity_type", "left", "right")
SPARK_NAMES = {pa.int64(): "long", pa.bool_(): "boolean"}
#: Type of the column ``ranked`` in Spark's notation.
RANKED_SCHEMA = "array<struct<{}>>".format(
    ", ".join(f"{field.name}: {SPARK_NAMES.get(field.type, field.type)}" for field in RANKED_TYPE)
)


class RerankBatches:
    """Reranks Arrow batches in ``ray.data.Dataset.map_batches``, as a class whose actors each load the model once.

    Args:
        model: folder or Hub id that every node can reach.
        options: other arguments of `UMLSReranker.from_pretrained`, such as ``revision``.

    >>> options = {"fn_constructor_args": ("runs/quickstart/model",), "batch_format": "pyarrow", "concurrency": 8}
    >>> ranked = dataset.map_batches(RerankBatches, **options)
    """

    def __init__(self, model: str, **options: Any) -> None:
        self.reranker = _load(model, **options)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the rows with the column ``ranked``."""
        return batch.append_column(RANKED, _ranked(self.reranker, batch))


class RerankPartitions:
    """Reranks frames in ``pyspark.sql.DataFrame.mapInPandas``; sent to the workers without the model.

    Args:
        model: folder or Hub id that every node can reach.
        options: other arguments of `UMLSReranker.from_pretrained`, such as ``revision``.

    >>> candidates = "candidates array<struct<name: string, cui: string, sapbert_score: double>>"
    >>> schema = f"entity string, {candidates}, ranked {RANKED_SCHEMA}"
    >>> ranked = frame.mapInPandas(RerankPartitions("runs/quickstart/model"), schema)
    """

    def __init__(self, model: str, **options: Any) -> None:
        self.model, self.options = model, options

    def __call__(self, frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Yield each frame with the column ``ranked``."""
        reranker = _load(self.model, **self.options)
        for frame in frames:
            mention_columns = [name for name in MENTION_COLUMNS if name in frame]
            # Spark's empty arrays are float arrays, which Arrow cannot combine with arrays of structs.
            lists = [c.tolist() if isinstance(c, np.ndarray) else c for c in frame["candidates"]]
            table = pa.Table.from_pandas(frame[mention_columns].assign(candidates=lists), preserve_index=False)
            yield frame.assign(ranked=_ranked(reranker, table).to_pylist())


def _ranked(reranker: UMLSReranker, table: pa.Table) -> pa.ListArray:
    lists = CandidateLists.from_rows(reranker.thresholds.hierarchy, table, reranker.calibration.scores)
    return ranked_column(lists, reranker.rank(lists), reranker.input_names)


@cache
def _load(model: str, **options: Any) -> UMLSReranker:
    from .reranker import UMLSReranker

    return UMLSReranker.from_pretrained(model, **options)
