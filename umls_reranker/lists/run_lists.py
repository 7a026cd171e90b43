"""The candidate lists of a run: how they are written, and read again as labelled lists."""

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..core.arrow_files import arrow_writer
from ..vocab.concept_table import ConceptTable
from .annotated_lists import AnnotatedLists
from .labels import read_labelled_lists


def read_run_lists(run: Path, split: str, concepts: ConceptTable) -> AnnotatedLists:
    """The lists of a run's split, completed by its dictionary."""
    return read_labelled_lists(
        run / "lists" / f"{split}.arrow", concepts.hierarchy, concepts=concepts, fitted_on=False
    )


def list_rows(
    mentions: pa.Table, offsets: np.ndarray, candidates: Mapping[str, pa.Array], index_key: str = ""
) -> pa.Table:
    """Rows of a run's lists.

    Args:
        mentions: n rows with the columns of `MENTION_FEATURES`.
        offsets: (n + 1,) where each mention's candidates start.
        candidates: key -> m values.
        index_key: ``index_key`` (index.json) of the index whose scores they have; "" for those of
            a user.
    """
    renamed = {"mention": "entity", "semantic_types": "entity_type"}
    items = pa.StructArray.from_arrays(list(candidates.values()), list(candidates))
    columns = {renamed.get(name, name): mentions[name] for name in mentions.column_names}
    columns["index_key"] = pa.array([index_key] * len(mentions), pa.string())
    return pa.table(
        columns | {"candidates": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items)}
    )


def write_list_rows(batches: Iterator[pa.Table], path: Path) -> None:
    """Write at least one batch of `list_rows` into a file, which `read_labelled_lists` reads."""
    first = next(batches)
    with arrow_writer(path, first.schema) as writer:
        for batch in chain([first], batches):
            writer.write(batch)
