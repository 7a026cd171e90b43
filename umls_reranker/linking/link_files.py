"""Files of mentions: linking them, and writing the candidate lists of their index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from ..calibration.decisions import Decisions
from ..corpora.mentions import find_ids
from ..hub.download import BUILT_IN
from ..lists.candidate_lists import CandidateLists, row_errors
from ..lists.columns import ColumnChecker, first_values
from ..lists.labels import GOLD_KEYS, gold_ids
from ..lists.read import ERROR, Rows
from ..serving.bulk import FileJob, counts_of, first_error, spark_schema, with_nulls
from ..serving.parts import RankedRows
from ..serving.review_queue import LIST_FORMATS
from ..serving.rows import RANKED, ranked_column
from .linker import LINKED_TYPE, ConceptLinker, MentionQueries
from .mentions import (
    MENTION_KEYS,
    TEXT_KEYS,
    MentionColumns,
    input_files,
    mention_columns,
    read_mentions,
)
from .usagi_sheet import UsagiSheets

if TYPE_CHECKING:
    import pandas as pd


class LinkJob(FileJob):
    """Linking a file of mentions (`mentions.read_mentions`) to concepts of an index.

    Args:
        source: as for `FileJob`.
        target: as for `FileJob`.
        batch_rows: as for `FileJob`.
        top: number of concepts to write for each mention.
        sheets: reads sheets of Usagi.
        options: other arguments of `FileJob`.
    """

    verb = "linking"

    def __init__(
        self,
        source: Path,
        target: Path,
        batch_rows: int = 1024,
        *,
        top: int = 5,
        sheets: UsagiSheets | None = None,
        **options: Any,
    ) -> None:
        self.sheets = sheets or UsagiSheets()
        super().__init__(source, target, batch_rows, **options)
        self.top = top

    def files(self) -> Sequence[Path]:
        return input_files(self.source)

    def batches(self) -> Iterator[Rows]:
        return read_mentions(self.source, self.batch_rows, self.sheets)

    def process(self, worker: ConceptLinker, rows: Rows) -> RankedRows:
        linked = LinkedRows.of(worker, rows, self.top)
        return RankedRows(
            content=rows.content,
            ranked=linked.ranked,
            errors=linked.errors,
            counts=counts_of(
                linked.lists,
                linked.decisions,
                rows,
                linked.errors,
                worker.reranker.calibration,
                golds=_golds(worker, rows),
            ),
            first_error=first_error(rows, linked.errors),
        )


class LinkedRows(NamedTuple):
    """What became of n rows.

    Attributes:
        lists: lists of those that were linked.
        decisions: what was decided about them.
        ranked: for n rows `LinkedConcept.as_row` of the first concepts, null with an error.
        errors: n reasons why a row could not be linked, None if it was.
    """

    lists: CandidateLists
    decisions: Decisions
    ranked: pa.ListArray
    errors: list[str | None]

    @classmethod
    def of(cls, linker: ConceptLinker, rows: Rows, top: int) -> LinkedRows:
        """Link rows of `read_mentions`."""
        mentions = checked_mentions(linker, rows)
        lists = linker.lists(mentions.queries, mentions.types)
        decisions = linker.reranker.decide(lists)
        ranked = ranked_column(lists, decisions, linker.reranker.model_names)
        ranked = with_nulls(linker.described_column(ranked, top), mentions.errors)
        return cls(lists=lists, decisions=decisions, ranked=ranked, errors=mentions.errors)


class CheckedMentions(NamedTuple):
    """n rows, as a linker reads them.

    Attributes:
        queries: the mentions that can be read.
        types: their semantic types.
        errors: n reasons why a row cannot be read, None if it can.
    """

    queries: MentionQueries
    types: list[Any]
    errors: list[str | None]


def checked_mentions(linker: ConceptLinker, rows: Rows) -> CheckedMentions:
    """Read the mentions of rows of `read_mentions`."""
    columns = mention_columns(rows)
    # Blank in a table that was linked before.
    errors = [str(reason) if reason else None for reason in first_values(rows.content, ERROR)]
    try:
        queries = _read(linker, columns)
        if not any(errors):
            return CheckedMentions(queries, columns.types, errors)
    except (TypeError, ValueError):
        faults = row_errors(
            lambda numbers: _read(linker, columns.take(numbers)), range(len(errors))
        )
        errors = [reason or fault for reason, fault in zip(errors, faults, strict=True)]
    columns = columns.take(number for number, error in enumerate(errors) if error is None)
    return CheckedMentions(_read(linker, columns), columns.types, errors)


def _golds(linker: ConceptLinker, rows: Rows) -> list[set[str]]:
    """The gold concepts of rows, by the ids that the dictionary has for them."""
    golds = gold_ids(rows)
    known = _dictionary_ids(linker, golds)
    return [{known[cui] for cui in gold} for gold in golds]


def _dictionary_ids(linker: ConceptLinker, golds: Sequence[set[str]]) -> dict[str, str]:
    """The dictionary's id of each gold concept that it has, and unknown ids as they are."""
    cuis = [*set().union(*golds)]
    known_ids, _ = find_ids(cuis, linker.concepts)
    return {cui: known or cui for cui, known in zip(cuis, known_ids, strict=True)}


def _with_ids(value: Any, known: Mapping[str, str]) -> Any:
    """A gold concept in any form of `gold_parts`, by the ids of the dictionary."""
    if isinstance(value, list):
        return [_with_ids(item, known) for item in value]
    return known.get(value, value) if isinstance(value, str) else value


def _read(linker: ConceptLinker, columns: MentionColumns) -> MentionQueries:
    ColumnChecker(len(columns.types)).types("entity_type", columns.types)
    queries = linker.read(
        columns.mentions, columns.documents, columns.starts, columns.lefts, columns.rights
    )
    columns.require_ends()
    return queries


class CandidatesJob(LinkJob):
    """Writing the candidates of a file's mentions as lists, or as a sheet to be labelled.

    A row of the output is a row of user-provided lists, whose scores count with its ``index_key``.
    It has the ``entity`` that was searched for and the text around it in place of the document.
    """

    verb = "searching"
    formats = LIST_FORMATS

    def process(self, worker: ConceptLinker, rows: Rows) -> RankedRows:
        queries, types, errors = checked_mentions(worker, rows)
        lists = worker.candidates(queries).to_pylist()
        searched = iter(zip(*queries, types, lists, strict=True))
        written_rows = []
        for place, row, error in zip(rows.positions, rows.mappings(), errors, strict=True):
            # In a sheet, the lines of a mention are told by its id.
            row.setdefault("mention_id", str(place).rpartition(":")[2])
            added: dict[str, Any] = {}
            if error is None:
                keys = ("entity", "left", "right", "entity_type", "candidates")
                added = dict(zip(keys, next(searched), strict=True))
                added["index_key"] = worker.retriever.index_key
            brought = {key: value for key, value in row.items() if key not in TEXT_KEYS}
            written_rows.append(brought | added)
        counts = Counter(mentions=len(lists), candidates=sum(map(len, lists)))
        counts["error"] = len(errors) - len(lists)
        golds = gold_ids(rows)
        known = _dictionary_ids(worker, golds)
        for row in written_rows:
            row.update({key: _with_ids(row[key], known) for key in GOLD_KEYS if key in row})
        for gold, row, error in zip(golds, written_rows, errors, strict=True):
            if gold and error is None:
                counts["gold"] += 1
                ids = {known[cui] for cui in gold}
                counts["in_list"] += any(item["cui"] in ids for item in row["candidates"])
        return RankedRows(
            content=written_rows,
            ranked=pa.nulls(len(errors)),
            errors=errors,
            counts=counts,
            first_error=first_error(rows, errors),
        )


#: Type of the column ``ranked`` of linked rows in Spark's notation.
LINKED_SCHEMA = spark_schema(LINKED_TYPE)


class LinkBatches:
    """Links Arrow batches in ``ray.data.Dataset.map_batches``; each actor loads the index once.

    Args:
        index: index or run folder that every node can reach.
        model: folder or Hub id that every node can reach.
        top: number of concepts of each mention.
        options: other arguments of `ConceptLinker.from_pretrained`, such as ``revision``.
    """

    def __init__(self, index: str, model: str = BUILT_IN, top: int = 5, **options: Any) -> None:
        self.linker = _load(model, index, **options)
        self.top = top

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the rows with the column ``ranked``, null where a mention cannot be linked."""
        return batch.append_column(RANKED, _linked_table(self.linker, batch, self.top))


class LinkPartitions:
    """Links frames in ``pyspark.sql.DataFrame.mapInPandas``; the workers load the index.

    Arguments are those of `LinkBatches`.
    """

    def __init__(self, index: str, model: str = BUILT_IN, top: int = 5, **options: Any) -> None:
        self.index = index
        self.model = model
        self.top = top
        self.options = options

    def __call__(self, frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Yield each frame with the column ``ranked``, None where a mention cannot be linked."""
        linker = _load(self.model, self.index, **self.options)
        for frame in frames:
            read = [name for name in MENTION_KEYS if name in frame]
            table = pa.Table.from_pandas(frame[read], preserve_index=False)
            yield frame.assign(ranked=_linked_table(linker, table, self.top).to_pylist())


def _linked_table(linker: ConceptLinker, table: pa.Table, top: int) -> pa.ListArray:
    documents = first_values(table, *TEXT_KEYS)
    return LinkedRows.of(linker, Rows(range(len(table)), table, documents), top).ranked


_load = cache(ConceptLinker.from_pretrained)
