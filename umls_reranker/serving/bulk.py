"""Rerank a file of any size on one machine, in batches that the processes of a launch share.

Of n successive batches, each of n processes ranks one. Then all exchange their results, and the main process writes
them in order. The output appears when it is complete.
"""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from ..core.errors import UserError
from ..core.files import naming_full_disk, require_another, strict, written
from ..core.progress import progress
from ..data.mention_files import OUTPUT_FORMATS, RANKED, MentionBatch, RowPosition, open_mentions
from .ranked_candidates import RANKED_TYPE, ranked_column

if TYPE_CHECKING:
    from accelerate import PartialState

    from ..data.candidate_lists import CandidateLists
    from .reranker import UMLSReranker

# Number of invalid rows that are named if all are skipped.
NAMED_ROWS = 20


@dataclass(frozen=True)
class OneProcess:
    """Replaces `accelerate.PartialState` for a single process, without importing torch."""

    num_processes: int = 1
    process_index: int = 0
    is_main_process: bool = True


class BulkCounts(NamedTuple):
    """Counts of the mentions of a file."""

    ranked: int
    left_out: int


class RowFault(NamedTuple):
    """A row that cannot be ranked, and the reason."""

    position: RowPosition
    reason: str


class CheckedBatch(NamedTuple):
    """A batch without the rows that cannot be ranked, its candidate lists, and the faults of the others."""

    batch: MentionBatch
    lists: CandidateLists
    faults: list[RowFault]


class BulkJob:
    """One input and one output.

    Args:
        source: mentions with their candidates (`mention_files.open_mentions`).
        target: file to write; its ending sets the format (JSON Lines for input in JSON Lines or CSV).
        batch_rows: number of mentions ranked at once.
        on_error: ``"stop"`` fails at the first row that cannot be ranked, before any scoring; ``"skip"`` leaves such
            rows out.
        overwrite: whether to replace an existing output.
        umls_dir: folder of a dictionary that completes the candidates (`MentionFiles.with_dictionary`), without
            changing the rows of the output.

    Raises:
        UserError: the format of input or output is not supported, the output is the input or a folder, or exists, or
            the input lacks the columns of mentions.
    """

    def __init__(
        self,
        source: Path,
        target: Path,
        batch_rows: int = 1024,
        on_error: str = "stop",
        *,
        overwrite: bool = False,
        umls_dir: Path | None = None,
    ) -> None:
        if batch_rows < 1:
            raise UserError("batch_mentions must be at least 1")
        if on_error not in ("stop", "skip"):
            raise UserError(f"on_error: {on_error!r} is unknown; choose stop or skip")
        self._mentions = open_mentions(source)
        self._target, self._batch_rows, self._on_error = target, batch_rows, on_error
        self._kind = OUTPUT_FORMATS.get(target.suffix)
        if self._kind is None:
            raise UserError(f"{target}: the output must end in one of {', '.join(OUTPUT_FORMATS)}")
        if target.is_dir():
            raise UserError(f"{target} is a folder, but the output is a single file")
        require_another(target, self._mentions.paths)
        if target.exists() and not overwrite:
            raise UserError(f"{target} already exists; choose another output or add --overwrite")
        if self._kind != "jsonl" and self._mentions.features is None:
            raise UserError(f"{target}: JSON Lines, CSV and TSV have no column types, so their output must be .jsonl")
        self._mentions = self._mentions.with_dictionary(umls_dir)

    def run(self, reranker: UMLSReranker, processes: PartialState | OneProcess) -> BulkCounts:
        """Check all rows, then rank them and write the output.

        Args:
            reranker: reranker of this process.
            processes: all processes that make this output: `devices.sharing_processes`, or one.

        Returns:
            Counts of all processes.

        Raises:
            UserError: a row cannot be ranked, which is named, or the disk is full.
        """
        gather = _gather(processes)
        own_rows, faults, left_out = self._check(reranker, processes)
        total, total_left_out = (sum(gather([count])) for count in (own_rows, left_out))
        named = sorted(gather(faults))[:NAMED_ROWS]
        is_main = processes.is_main_process
        if is_main:
            for fault in named:
                print(f"skipped: {fault.position}: {fault.reason}", file=sys.stderr)
        with (
            naming_full_disk(self._target),
            self._output() if is_main else nullcontext(lambda content: None) as write,
            progress(total=own_rows, desc="reranking", unit=" mentions") as bar,
        ):
            for batch in self._own_batches(processes):
                content = None if batch is None else self._ranked(reranker, batch, bar)
                for each in gather([content]):
                    if each is not None:
                        write(each)
        return BulkCounts(total - total_left_out, total_left_out)

    def _own_batches(self, processes: PartialState | OneProcess) -> Iterator[MentionBatch | None]:
        """The batch of this process in each round; None in the last round if there are too few."""
        batches = self._mentions.batches(self._batch_rows)
        while in_round := list(islice(batches, processes.num_processes)):
            yield in_round[processes.process_index] if processes.process_index < len(in_round) else None

    def _check(self, reranker: UMLSReranker, processes: PartialState | OneProcess) -> tuple[int, list[RowFault], int]:
        """Check the rows of this process: their number, the first `NAMED_ROWS` faults, and the number of faults."""
        rows, left_out = 0, 0
        named: list[RowFault] = []
        with progress(desc="checking", unit=" mentions") as bar:
            for batch in filter(None, self._own_batches(processes)):
                faults = _checked(batch, reranker).faults
                if faults and self._on_error == "stop":
                    fault = faults[0]
                    raise UserError(
                        f"{fault.position}: {fault.reason}; fix the row, or skip such rows with --on_error skip"
                    )
                named += faults[: NAMED_ROWS - len(named)]
                left_out += len(faults)
                rows += len(batch)
                bar.update(len(batch))
        return rows, named, left_out

    def _ranked(self, reranker: UMLSReranker, batch: MentionBatch, bar: Any) -> bytes | pa.Table:
        """The output for a batch: lines, or a table."""
        valid, lists, _ = _checked(batch, reranker)
        # A batch may take minutes; meanwhile the bar advances with the share of pairs scored.
        before, mentions_per_pair = bar.n, len(lists) / max(len(lists.names), 1)
        decisions = reranker.rank(lists, lambda pairs: bar.update(pairs * mentions_per_pair))
        bar.n = before
        bar.update(len(batch))
        ranked = ranked_column(lists, decisions, reranker.input_names)
        if self._kind != "jsonl":
            return valid.table.append_column(RANKED, ranked)
        lines = valid.lines() if self._mentions.features is None else _as_lines(valid)
        return b"".join(map(_with_ranked, lines, ranked.to_pylist()))

    @contextmanager
    def _output(self) -> Iterator[Callable[[Any], Any]]:
        """A function that writes what `_ranked` returns; at the end the file gets its name."""
        import pyarrow.parquet as pq
        from datasets import Features

        # A process that outlives its run must not write into the file of the next run.
        with written(self._target, shared=True) as partial:
            if self._mentions.features is None or self._kind == "jsonl":
                with partial.open("wb") as stream:
                    yield stream.write
                return
            ranked = Features.from_arrow_schema(pa.schema({RANKED: pa.list_(RANKED_TYPE)}))
            schema = Features({**self._mentions.features, **ranked}).arrow_schema
            make = pq.ParquetWriter if self._kind == "parquet" else pa.ipc.new_file
            with make(partial, schema) as writer:
                yield writer.write_table


def _gather(processes: PartialState | OneProcess) -> Callable[[list], list]:
    """A function that joins the lists of all processes."""
    if processes.num_processes == 1:
        return list
    from accelerate.utils import gather_object

    return gather_object


def _checked(batch: MentionBatch, reranker: UMLSReranker) -> CheckedBatch:
    known = reranker.thresholds.hierarchy, reranker.calibration.scores
    try:
        return CheckedBatch(batch, batch.lists(*known), [])
    except (TypeError, ValueError):
        faults = dict(batch.faults(*known))
        valid = batch.without(faults)
        named = [RowFault(batch.position(row), reason) for row, reason in faults.items()]
        return CheckedBatch(valid, valid.lists(*known), named)


def _as_lines(batch: MentionBatch) -> list[bytes]:
    try:
        rows = batch.rows()
    except ValueError as error:
        raise UserError(f"{batch.path}: {error}") from None
    return [json.dumps(strict(row), ensure_ascii=False, default=_as_text).encode() for row in rows]


def _as_text(value: Any) -> str:
    """Text for values without a JSON type: bytes in base64; dates, times and decimals as Python formats them."""
    return b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _with_ranked(line: bytes, ranked: list[dict[str, Any]]) -> bytes:
    """A line of JSON unchanged, with the ranked candidates at the end."""
    ending = json.dumps(ranked, ensure_ascii=False).encode()
    return b'%s, "%s": %s}\n' % (line.removeprefix(BOM_UTF8).strip().removesuffix(b"}"), RANKED.encode(), ending)
