"""Rerank a file of any size: in shards that processes share out among them, that survive a kill, and that are joined.

Shard k holds the rows from k times its size on, and process r of n makes the shards k with k mod n = r; so every row
is scored by exactly one process, whichever they are, without any of them talking to another. A shard appears when it
is whole. Whoever finishes last joins them in order, and only then does the output appear.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .exported import calibration_files
from .mention_files import FORMATS, RANKED_FIELDS, MentionFile, joined, open_mentions, write_shard
from .progress import progress
from .resources import file_sha256
from .stages import naming_full_disk

if TYPE_CHECKING:
    from .reranker import RankedCandidate, UMLSReranker

__all__ = ["BulkJob", "Process", "rerank_rows"]


@dataclass(frozen=True)
class Process:
    """This process among those that ``accelerate launch`` (or torchrun) started.

    Attributes:
        rank: its number.
        count: of processes on all nodes.
        local_rank: its number on this node, which is that of its GPU.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> Process:
        """As told by ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``."""
        names = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
        return cls(*(int(os.environ.get(name, usual)) for name, usual in names))

    def device(self, device: str) -> str:
        """The process' own GPU where ``auto`` (or ``cuda``) is one of several."""
        import torch

        if device in ("auto", "cuda") and torch.cuda.is_available():
            return f"cuda:{self.local_rank % torch.cuda.device_count()}"
        return device


class BulkJob:
    """One input and one output.

    Args:
        source: mentions with their candidates (`mention_files.open_mentions`).
        target: file to write, in the input's format, or another by its ending (JSON Lines stays JSON Lines).
        batch_rows: mentions held in memory.
        shard_rows: mentions in a shard, which is what a kill can cost.

    Raises:
        UserError: input or output have no supported format.
    """

    def __init__(self, source: Path, target: Path, batch_rows: int, shard_rows: int) -> None:
        if min(batch_rows, shard_rows) < 1:
            raise UserError("batch_mentions and shard_mentions must be at least 1")
        self.mentions: MentionFile = open_mentions(source, shard_rows)
        self.target = target
        self.batch_rows, self.shard_rows = batch_rows, shard_rows
        if FORMATS.get(target.suffix) is None:
            raise UserError(f"{target}: the output's name must end in one of {', '.join(FORMATS)}")
        if FORMATS[self.mentions.paths[0].suffix] == "jsonl" and FORMATS[target.suffix] != "jsonl":
            raise UserError(f"{target}: JSON Lines have no column types, so their output is .jsonl too")
        if not self.mentions.rows and FORMATS[target.suffix] != "jsonl":
            raise UserError(f"{source} holds no mentions")

    def folder_for(self, reranker: UMLSReranker) -> Path:
        """Where the shards lie: a name that tells this input, model and precision from any other."""
        files = [(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) for path in self.mentions.paths]
        # The thresholds carry the calibrator's hash, and the calibrator that of the weights.
        thresholds = file_sha256(calibration_files(reranker.folder, reranker.scorer.backend)[1])
        scorer = reranker.scorer
        content = [files, thresholds, scorer.backend, scorer.precision, reranker.accept_tier, self.shard_rows]
        key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        return self.target.with_name(f".{self.target.name}.shards-{key}")

    def run(self, reranker: UMLSReranker, process: Process) -> int:
        """Make the shards of this process that are not there yet, and join them all when none is missing.

        Returns:
            Mentions scored.
        """
        folder = self.folder_for(reranker)
        folder.mkdir(parents=True, exist_ok=True)
        for former in folder.parent.glob(f".{self.target.name}.shards-*") if process.rank == 0 else ():
            if former != folder:
                shutil.rmtree(former)
        count = -(-self.mentions.rows // self.shard_rows)
        shards = [folder / f"{number:07}{self.target.suffix}" for number in range(count)]
        own = list(enumerate(shards))[process.rank :: process.count]
        left = [(number, path) for number, path in own if not path.exists()]
        sizes = [min(self.shard_rows, self.mentions.rows - number * self.shard_rows) for number, _ in left]
        desc = "reranking" + (f" (process {process.rank} of {process.count})" if process.count > 1 else "")
        try:
            with naming_full_disk(self.target), progress(total=sum(sizes), desc=desc, unit=" mentions") as bar:
                for (number, path), size in zip(left, sizes, strict=True):
                    start = number * self.shard_rows
                    write_shard(path, self._ranked(reranker, start, start + size, bar))
                self._join(folder, shards)
        except BaseException:
            # Without a finished shard there is nothing to go on from.
            with suppress(OSError):
                folder.rmdir()
            raise
        return sum(sizes)

    def _ranked(self, reranker: UMLSReranker, start: int, stop: int, bar: Any) -> Iterator[tuple[Any, list, list]]:
        for first, piece in self.mentions.read(start, stop, self.batch_rows):
            rows = self.mentions.mentions(piece, first)
            try:
                ranked = rerank_rows(reranker, rows)
            except (TypeError, ValueError) as error:
                last = self.mentions.place(first + len(rows) - 1)
                raise UserError(f"{self.mentions.place(first)} to {last}: {error}") from None
            yield piece, rows, ranked
            bar.update(len(rows))

    def _join(self, folder: Path, shards: list[Path]) -> None:
        """Join the shards unless one is missing or another process is at it."""
        try:
            descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o644)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folder.is_dir() and all(path.exists() for path in shards):
                joined(shards, self.target)
                shutil.rmtree(folder)
        except BlockingIOError:
            return
        finally:
            os.close(descriptor)


def rerank_rows(reranker: UMLSReranker, rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rank the candidates of n mentions given as mappings (``entity``, ``candidates``, ``entity_type``, ``left``,
    ``right``; the last three may be absent or None), each result as mappings of `RANKED_FIELDS`.

    Raises:
        TypeError, ValueError: as `UMLSReranker.rerank`.
    """
    ranked = reranker.rerank_batch(
        [row["entity"] for row in rows],
        [row["candidates"] for row in rows],
        [row.get("entity_type") for row in rows],
        [row.get("left") or "" for row in rows],
        [row.get("right") or "" for row in rows],
    )
    return [[_as_row(item) for item in candidates] for candidates in ranked]


def _as_row(item: RankedCandidate) -> dict[str, Any]:
    """A ranked candidate as it is written to files."""
    values = (item.name, item.cui, item.cross_encoder_score, item.margin, item.logit, item.tier, item.accepted)
    return dict(zip(RANKED_FIELDS, values, strict=True))
