"""Rerank a file of any size on one machine, in batches that the processes of a launch share.

Each of n processes ranks every n-th batch and keeps the result, a part of the output
(`parts.PartsFolder`). The main process then writes all parts in order, in the format of the output.
A killed job goes on with the parts that exist. The output appears when it is complete.
"""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.errors import UserError, printable
from ..core.files import naming_full_disk, require_another, require_writable, written
from ..core.hashes import file_sha256
from ..core.parallel import progress
from ..core.version import __version__
from ..lists.read import STDIN
from ..lists.reading_errors import naming
from ..lists.rows import Rows
from .input_columns import without_reviewed
from .list_warnings import NO_TIERS
from .output_format import FormatSettings, OutputFormat
from .outputs import OUTPUT_FORMATS, format_of
from .parts import Parts, PartsFolder
from .review_sheet import require_unanswered
from .row_counts import RowCounts
from .rows import RankedRows

if TYPE_CHECKING:
    from accelerate import PartialState


@dataclass(frozen=True)
class OneProcess:
    """Replaces `accelerate.PartialState` for a single process, without importing torch."""

    num_processes: int = 1
    process_index: int = 0
    is_main_process: bool = True

    def wait_for_everyone(self) -> None:
        """There is nobody to wait for."""


class FileJob(ABC):
    """One input and one output, row by row in batches.

    Args:
        source: the file or folder to read, or stdin.
        target: file to write.
        batch_rows: number of mentions ranked at once.
        overwrite: whether to replace an existing output.
        format_name: format of the output (`outputs.OUTPUT_FORMATS`); None: by the target's
            ending.
        format_settings: what the format needs besides the rows.

    Attributes:
        first_error: place and reason of the first row that `run` could not rank.

    Raises:
        UserError: the input is not found, the output has no known format, is the input or exists,
            has answers of a reviewer, or its folder is missing or cannot be written to.
    """

    # Shown before the progress bar.
    verb = "reranking"
    formats: ClassVar[Mapping[str, type[OutputFormat]]] = OUTPUT_FORMATS

    def __init__(
        self,
        source: Path,
        target: Path,
        batch_rows: int = 1024,
        *,
        overwrite: bool = False,
        format_name: str | None = None,
        format_settings: FormatSettings | None = None,
    ) -> None:
        self.source = source
        self.target = target
        self.batch_rows = batch_rows
        self.first_error: str | None = None
        self.format = format_of(target, format_name, self.formats)(
            format_settings or FormatSettings()
        )
        inputs = (*self.files(), *self.further_files())
        require_another(target, inputs)
        ending = self.format.beside if self.format.settings.only_accepted else ""
        self.beside = target.with_name(target.stem + ending) if ending else None
        if self.beside is not None and self.beside.exists() and not overwrite:
            raise UserError(f"{self.beside} already exists; choose another output, or --overwrite")
        if target.exists() and (target.is_dir() or not overwrite):
            raise UserError(
                f"{target} already exists; choose another output, "
                "or replace a file with --overwrite"
            )
        require_unanswered(target)
        if self.beside is not None:
            require_another(self.beside, inputs)
            require_unanswered(self.beside)
        require_writable(target)
        # Before they are read: of a file that changes meanwhile, the parts will not count.
        hashed = () if source == STDIN else inputs
        self._hashes = {f"the file {file}": _sha256(file) for file in hashed}

    @abstractmethod
    def files(self) -> Sequence[Path]:
        """The files of the input."""

    def further_files(self) -> Sequence[Path]:
        """Other files whose content decides the output."""
        return ()

    @abstractmethod
    def batches(self) -> Iterator[Rows]:
        """The rows of the input in batches."""

    @abstractmethod
    def process(self, worker: Any, rows: Rows) -> RankedRows:
        """What is made of a batch by the worker that `run` got."""

    @abstractmethod
    def report(self, worker: Any, counts: RowCounts) -> Iterator[str]:
        """Lines about the counts of `run`; the first tells of what was written."""

    def main(self, worker: Any, processes: PartialState | OneProcess) -> int:
        """Run the job and print what became of it; return 1 if a row has an error, else 0."""
        # The report has it, with counts.
        warnings.filterwarnings("ignore", NO_TIERS)
        counts = self.run(worker, processes)
        # A launcher kills the other processes when one ends with an error: only the process that
        # wrote the output tells.
        if not processes.is_main_process:
            return 0
        first, *further = self.report(worker, counts)
        lines = [f"{first}, written to {self.target}"]
        if self.format.counts:
            lines.append(
                ", ".join(f"{name}: {count:,}" for name, count in self.format.counts.items())
            )
        if self.beside is not None:
            lines.append(f"{self.format.about_beside}: {self.beside}")
        if self.first_error:
            lines.append(f"the first error: {self.first_error}")
        for line in [*lines, *further]:
            print(printable(line))
        return int(counts.errors > 0)

    def run(self, worker: Any, processes: PartialState | OneProcess) -> RowCounts:
        """Read all rows and write the output.

        A row that cannot be ranked is written with ``error``, the reason.

        Args:
            worker: what ranks the rows of this process, such as a `UMLSReranker`.
            processes: all processes that make this output: `devices.sharing_processes`, or one.

        Returns:
            The counts of all rows in the main process, zeros in the others.

        Raises:
            UserError: a file cannot be read or holds no mentions, the disk is full, or another
                process writes this output.
        """
        if self.source == STDIN and processes.num_processes > 1:
            raise UserError("several processes cannot share stdin; give a file")
        folder = PartsFolder(self.target, self.made_of(worker))
        with naming_full_disk(self.target), self._holding(folder, processes):
            count = 0
            batches = (rows for rows in self.batches() if len(rows.positions))
            with progress(desc=self.verb, unit=" mentions") as bar:
                for count, rows in enumerate(batches, start=1):
                    is_ours = count % processes.num_processes == processes.process_index
                    if is_ours and not folder.has(count - 1, len(rows.positions)):
                        rows = rows._replace(content=without_reviewed(rows.content))
                        folder.add(count - 1, self.process(worker, rows))
                    bar.update(len(rows.positions))
            processes.wait_for_everyone()
            if not processes.is_main_process:
                return RowCounts()
            parts = Parts(folder, count)
            if not count:
                raise UserError(f"{self.source} holds no mentions")
            self.first_error = parts.first_error
            self.write(parts)
        return parts.counts

    def write(self, parts: Parts) -> None:
        """Write the output.

        A process that outlives its run must not write into the file of the next run.
        """
        if self.beside is not None:
            with written(self.beside, shared=True) as partial:
                self.format.write_beside(partial, parts)
        with written(self.target, shared=True) as partial:
            self.format.write(partial, parts)

    def made_of(self, worker: Any) -> dict[str, Any]:
        """All that decides the parts, by names for messages: hashes of files, and the worker.

        Stdin cannot be read again, so its parts are of this process.
        """
        made_of: dict[str, Any] = {
            "the version of umls_reranker": __version__,
            "the command": [sys.argv[1:], self.verb, self.batch_rows],
        }
        if self.source == STDIN:
            made_of["stdin"] = os.getpid()
        return made_of | worker.identity | self._hashes

    @contextmanager
    def _holding(self, folder: PartsFolder, processes: PartialState | OneProcess) -> Iterator[None]:
        """Hold the folder, and remove it unless an incomplete output may go on with it."""
        if not processes.is_main_process:
            processes.wait_for_everyone()
            yield
            return
        is_left = self.source != STDIN
        with folder.held() as changes:
            for changed in changes:
                line = f"{self.target} is made from the beginning, not from finished parts"
                print(printable(f"[{self.verb}] {line}: {changed}"), file=sys.stderr)
            processes.wait_for_everyone()
            try:
                yield
                is_left = False
            finally:
                if not is_left or folder.is_empty():
                    shutil.rmtree(folder.path, ignore_errors=True)


def _sha256(path: Path) -> str:
    with naming(path):
        return file_sha256(path)
