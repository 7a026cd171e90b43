"""Rerank a file of any size on one machine, in shards that processes share and that survive a kill.

Shard k starts at row k times the shard size, and process r of n makes the shards k with k mod n = r, so each row is
scored by exactly one process. A shard appears when it is complete. The first process holds a lock during the whole
run. When all shards exist, it joins them in order, and only then does the output appear.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.cores import started_processes
from ..core.errors import UserError
from ..core.files import file_sha256, json_sha256, naming_full_disk, require_another
from ..core.locks import hold
from ..core.progress import progress
from ..core.version import __version__
from ..data.mention_files import FORMATS, MentionFile, open_mentions
from ..hub.model_folder import MANIFEST
from .ranked_candidates import ranked_column
from .ranked_files import check_columns, joined, write_shard

if TYPE_CHECKING:
    from accelerate import PartialState

    from ..calibration.decisions import Decisions
    from ..data.candidate_lists import CandidateLists
    from .reranker import UMLSReranker

__all__ = ["BulkJob"]

# Number of invalid rows that are named when all are left out.
NAMED_ROWS = 20


class BulkJob:
    """One input and one output.

    Args:
        source: mentions with their candidates (`mention_files.open_mentions`).
        target: file to write; its ending sets the format (JSON Lines stays JSON Lines).
        batch_rows: mentions held in memory.
        shard_rows: mentions in a shard; a kill loses at most one shard.
        on_error: ``"raise"`` stops at the first row that cannot be ranked, before any scoring; ``"skip"`` leaves such
            rows out.

    Attributes:
        skipped: rows left out, after `run` in the first process.

    Raises:
        UserError: the format of input or output is not supported, the output is the input, or the input lacks the
            columns of mentions.
    """

    def __init__(self, source: Path, target: Path, batch_rows: int, shard_rows: int, on_error: str = "raise") -> None:
        if min(batch_rows, shard_rows) < 1:
            raise UserError("batch_mentions and shard_mentions must be at least 1")
        if on_error not in ("raise", "skip"):
            raise UserError(f"on_error: {on_error!r} is unknown; choose raise or skip")
        self.mentions: MentionFile = open_mentions(source, shard_rows)
        self._files = self._state()
        self.source, self.target = source, target
        self.batch_rows, self.shard_rows, self.on_error = batch_rows, shard_rows, on_error
        self.skipped = 0
        require_another(target, self.mentions.paths)
        check_columns(self.mentions, target)
        if not self.mentions.rows and FORMATS[target.suffix] != "jsonl":
            raise UserError(f"{source} holds no mentions")

    def key_for(self, reranker: UMLSReranker) -> str:
        """SHA-256 of everything that decides a shard: input, model, dtype and settings."""
        scorer = reranker.scorer
        # The manifest holds the hashes of all parts.
        model = [
            file_sha256(reranker.folder / MANIFEST),
            scorer.backend,
            scorer.dtype,
            reranker.accept_tier,
            reranker.exhaustive,
        ]
        content = [__version__, self._files, model, self.shard_rows, self.on_error]
        return json_sha256(content)

    def run(self, reranker: UMLSReranker, processes: PartialState) -> int:
        """Make the missing shards of this process; the first process joins all shards at the end.

        Args:
            reranker: of this process.
            processes: all processes that make this output (`devices.sharing_processes`).

        Returns:
            Rows in the new shards.

        Raises:
            UserError: a row cannot be ranked (named), another run is writing the same output, or the processes are not
                on one machine.
        """
        here = started_processes("LOCAL_WORLD_SIZE")
        if processes.num_processes > here:
            raise UserError(
                f"{processes.num_processes} processes were started, {here} of them on this machine; start all on one "
                "machine with --accelerate_config, and share work between machines with Ray or Spark"
            )
        folder = self.target.with_name(f".{self.target.name}.shards")
        count = -(-self.mentions.rows // self.shard_rows)
        shards = [folder / f"{number:07}{self.target.suffix}" for number in range(count)]
        first = processes.is_main_process
        if first:
            folder.mkdir(parents=True, exist_ok=True)
        refusal = f"{self.target} is being made by another run; wait for it, or choose another output"
        with hold(folder / "lock", refusal) if first else nullcontext():
            try:
                if first:
                    self._drop_former(folder, self.key_for(reranker))
                processes.wait_for_everyone()
                own = range(processes.process_index, count, processes.num_processes)
                rows = self._make(reranker, {shards[k]: self._span(k) for k in own if not shards[k].exists()})
                processes.wait_for_everyone()
                if first:
                    if self._state() != self._files:
                        raise UserError(
                            f"{self.source} changed while it was read, so {self.target} would mix two versions; run "
                            "again when nothing writes there"
                        )
                    whole = folder / f"whole{self.target.suffix}"
                    with naming_full_disk(self.target):
                        self.skipped = self.mentions.rows - joined(shards, whole)
                    whole.replace(self.target)
                    shutil.rmtree(folder, ignore_errors=True)
            except BaseException:
                # Without a finished shard there is nothing to resume.
                if first and not any(shard.exists() for shard in shards):
                    shutil.rmtree(folder, ignore_errors=True)
                raise
        return rows

    def _state(self) -> list[tuple[str, int, int]]:
        """Names, sizes and times of the input's files."""
        return [(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) for path in self.mentions.paths]

    def _drop_former(self, folder: Path, key: str) -> None:
        """Remove shards made from other input, model or settings."""
        file = folder / "key"
        if not (file.is_file() and file.read_text() == key):
            formers = [former for former in folder.iterdir() if former.name != "lock"]
            if formers:
                print(
                    f"dropping the shards in {folder}: they are from another input, model or setting", file=sys.stderr
                )
            for former in formers:
                former.unlink()
            file.write_text(key)

    def _make(self, reranker: UMLSReranker, shards: dict[Path, range]) -> int:
        """Check the rows of all shards, then make the shards one by one; returns their number of rows."""
        rows = sum(map(len, shards.values()))
        with progress(total=rows, desc="checking", unit=" mentions") as bar:
            found = (faults for span in shards.values() for *_, faults in self._pieces(reranker, span, bar))
            faults = (fault for some in found for fault in some)
            for count, (row, reason) in enumerate(faults):
                fault = f"{self.mentions.place(row)}: {reason}"
                if self.on_error == "raise":
                    raise UserError(f"{fault}; fix the row, or leave such rows out with on_error: skip")
                if count < NAMED_ROWS:
                    bar.write(f"left out: {fault}", sys.stderr)
        with naming_full_disk(self.target), progress(total=rows, desc="reranking", unit=" mentions") as bar:
            for path, span in shards.items():
                pieces = self._pieces(reranker, span, bar)
                ranked = (
                    (piece, ranked_column(lists, _rank(reranker, lists, bar), reranker.input_names))
                    for piece, lists, _ in pieces
                )
                write_shard(path, ranked)
        return rows

    def _span(self, number: int) -> range:
        start = number * self.shard_rows
        return range(start, min(start + self.shard_rows, self.mentions.rows))

    def _pieces(
        self, reranker: UMLSReranker, span: range, bar: Any
    ) -> Iterator[tuple[Any, CandidateLists, list[tuple[int, str]]]]:
        """Pieces of a shard without the rows that cannot be ranked, the other rows as lists, and of those left out the
        numbers and what is wrong with them."""
        known = reranker.thresholds.hierarchy, reranker.calibration.scores
        for first, piece in self.mentions.read(span.start, span.stop, self.batch_rows):
            rows, faults = len(piece), {}
            try:
                lists = self.mentions.lists(piece, *known)
            except (TypeError, ValueError):
                faults = self.mentions.faults(piece, *known)
                piece = self.mentions.without(piece, [*faults])
                lists = self.mentions.lists(piece, *known)
            yield piece, lists, [(first + place, reason) for place, reason in faults.items()]
            bar.update(rows)


def _rank(reranker: UMLSReranker, lists: CandidateLists, bar: Any) -> Decisions:
    """Decide about a piece, which may take minutes; meanwhile the bar moves by the share of pairs that are scored."""
    before, share = bar.n, len(lists) / max(len(lists.names), 1)
    decisions = reranker.rank(lists, lambda pairs: bar.update(pairs * share))
    # `_pieces` counts the whole piece.
    bar.n = before
    return decisions
