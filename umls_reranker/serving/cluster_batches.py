"""Reranking on clusters: Arrow batches of Ray, and frames of Spark."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..lists.table import CANDIDATES
from .input_columns import RANKED
from .ranked_candidate import RANKED_TYPE, ranked_column
from .reranker import UMLSReranker

if TYPE_CHECKING:
    import pandas as pd

# Columns of a frame that are read.
FRAME_COLUMNS = ("entity", "mention", "candidates", "entity_type", "left", "right")
SPARK_NAMES = {
    pa.int64(): "long",
    pa.bool_(): "boolean",
    pa.list_(pa.string()): "array<string>",
}


def spark_schema(row: pa.StructType) -> str:
    """The type of lists of these rows in Spark's notation."""
    fields = (f"{field.name}: {SPARK_NAMES.get(field.type, field.type)}" for field in row)
    return f"array<struct<{', '.join(fields)}>>"


#: Type of the column ``ranked`` in Spark's notation.
RANKED_SCHEMA = spark_schema(RANKED_TYPE)


class RerankBatches:
    """Reranks Arrow batches in ``ray.data.Dataset.map_batches``; each actor loads the model once.

    Args:
        model: folder or Hub id that every node can reach.
        options: other arguments of `UMLSReranker.from_pretrained`, such as ``revision``.

    >>> options = {"batch_format": "pyarrow", "concurrency": 8}
    >>> options["fn_constructor_args"] = ("runs/quickstart/model",)
    >>> ranked = dataset.map_batches(RerankBatches, **options)
    """

    def __init__(self, model: str, **options: Any) -> None:
        self.reranker = _load_reranker(model, **options)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the rows with the column ``ranked``."""
        lists = self.reranker.read_table(batch)
        ranked = ranked_column(lists, self.reranker.decide(lists), self.reranker.model_names)
        return batch.append_column(RANKED, ranked)


class RerankPartitions:
    """Reranks frames in ``pyspark.sql.DataFrame.mapInPandas``; the workers load the model.

    Args:
        model: folder or Hub id that every node can reach.
        options: other arguments of `UMLSReranker.from_pretrained`, such as ``revision``.

    >>> candidates = "candidates array<struct<name: string, cui: string, sapbert_score: double>>"
    >>> schema = f"entity string, {candidates}, ranked {RANKED_SCHEMA}"
    >>> ranked = frame.mapInPandas(RerankPartitions("runs/quickstart/model"), schema)
    """

    def __init__(self, model: str, **options: Any) -> None:
        self.arguments = {"model": model, **options}

    def __call__(self, frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Yield each frame with the column ``ranked``."""
        yield from ranked_frames(RerankBatches(**self.arguments), frames, FRAME_COLUMNS)


def ranked_frames(
    rank: Callable[[pa.Table], pa.Table], frames: Iterator[pd.DataFrame], names: Sequence[str]
) -> Iterator[pd.DataFrame]:
    """Yield each frame with the column ``ranked``.

    Args:
        rank: adds the column to a table.
        frames: the frames.
        names: the columns that `rank` reads.
    """
    for frame in frames:
        read = frame[[name for name in names if name in frame]]
        if CANDIDATES in read:
            read = read.assign(candidates=_plain_lists(read[CANDIDATES]))
        table = pa.Table.from_pandas(read, preserve_index=False)
        yield frame.assign(ranked=rank(table)[RANKED].to_pylist())


def _plain_lists(column: Iterable[Any]) -> list[Any]:
    """Lists in place of arrays: Spark's empty ones are of floats, and no structs to Arrow."""
    lists = []
    for candidates in column:
        items = candidates.tolist() if isinstance(candidates, np.ndarray) else candidates
        lists.append(items)
    return lists


_load_reranker = cache(UMLSReranker.from_pretrained)
