"""Finished batches of a job, kept beside its output so that a killed job can go on."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from filelock import FileLock, Timeout

from ..core.files import written

# A part is written after so many batches or seconds, whichever is earlier.
PART_BATCHES = 16
PART_SECONDS = 30.0
# Key of a part's metadata, and the column of lines.
STATE = b"umls_reranker_part"
LINE = "line"


class RankedBatch(NamedTuple):
    """What a process makes of a batch of rows.

    Attributes:
        content: what the output's format makes of them.
        counts: as of `FileJob.run`.
        first_error: reason and row of the first mention that could not be ranked.
        batches: number of batches; several in a part of a journal.
    """

    content: Any
    counts: Counter[str]
    first_error: str | None
    batches: int = 1


class Journal:
    """The parts of an output that is not complete, in a hidden folder beside it.

    Only the job that holds the folder's lock reads and writes them. After an error the parts stay.

    Args:
        folder: the folder, whose name says what decides the output; None: nothing is kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self._waiting: list[RankedBatch] = []
        self._last = time.monotonic()
        self._folder = folder or Path()
        self._lock = FileLock(self._folder / ".lock")
        if folder is not None:
            folder.mkdir(exist_ok=True)
            with suppress(Timeout):
                self._lock.acquire(timeout=0)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        """Remove the folder, unless it has parts of an output that is not complete."""
        if self._lock.is_locked:
            if kind is None or not self._files():
                shutil.rmtree(self._folder, ignore_errors=True)
            self._lock.release()

    def parts(self) -> Iterator[RankedBatch]:
        """The parts of a former attempt, in order."""
        for file in self._files():
            with pa.memory_map(str(file)) as source:
                table = pa.ipc.open_file(source).read_all()
            metadata = table.schema.metadata
            state = json.loads(metadata.pop(STATE))
            is_lines = table.column_names == [LINE]
            table = table.replace_schema_metadata(metadata or None)
            yield RankedBatch(
                content=table[LINE].to_pylist() if is_lines else table,
                counts=Counter(state["counts"]),
                first_error=state["first_error"],
                batches=state["batches"],
            )

    def add(self, result: RankedBatch) -> None:
        """Take a finished batch, of lines or a table; the next part is written when it is due."""
        if not self._lock.is_locked:
            return
        self._waiting.append(result)
        is_old = time.monotonic() - self._last > PART_SECONDS
        if is_old or len(self._waiting) >= PART_BATCHES:
            self._write()

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.arrow")) if self._lock.is_locked else []

    def _write(self) -> None:
        tables = [
            result.content
            if isinstance(result.content, pa.Table)
            else pa.table({LINE: pa.array(result.content, pa.large_binary())})
            for result in self._waiting
        ]
        table = pa.concat_tables(tables)
        state = {
            "batches": sum(result.batches for result in self._waiting),
            "counts": sum((result.counts for result in self._waiting), Counter()),
            "first_error": next(
                (result.first_error for result in self._waiting if result.first_error), None
            ),
        }
        metadata = {**(table.schema.metadata or {}), STATE: json.dumps(state).encode()}
        schema = table.schema.with_metadata(metadata)
        path = self._folder / f"{len(self._files()):06}.arrow"
        with written(path) as partial, pa.ipc.new_file(partial, schema) as writer:
            writer.write_table(table.replace_schema_metadata(metadata))
        self._waiting = []
        self._last = time.monotonic()
