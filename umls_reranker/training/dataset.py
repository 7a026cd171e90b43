"""Mined pairs -> tokenized pairs: Arrow shards, made once by all cores, memory-mapped."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset

from ..core.cores import usable_cores
from ..core.errors import UserError
from ..core.files import written
from ..core.launch import end_with_parent
from ..core.progress import progress
from ..data.arrow import open_arrow
from ..models.tokens import PairEncoder
from .collator import LabelledPairs

ROWS_PER_SHARD = 50_000

SCHEMA = pa.schema(
    {"input_ids": pa.list_(pa.int32()), "first_length": pa.int16(), "labels": pa.float32(), "weight": pa.float32()}
)


def weight_scale(pairs: Dataset, label: float | None = None) -> float:
    """The factor that scales the pairs' weights to mean 1, so that weighting does not change the step size.

    Args:
        pairs: all training pairs.
        label: label of the pairs that count; None: all count.
    """
    columns = pairs.select_columns(["weight", "label"]).with_format("numpy")[:]
    weights = columns["weight"].astype(np.float64)
    if label is not None:
        weights = weights[columns["label"] == label]
    if not len(weights):
        raise UserError("there are no training pairs; mining_report.json says what was left out")
    if not weights.sum() > 0:
        raise UserError("pair weights must not all be 0; check the *_weight keys of the recipe")
    return len(weights) / weights.sum()


class TokenizedPairs(torch.utils.data.Dataset[LabelledPairs]):
    """The pairs written by `tokenize_pairs`; a map-style dataset for `torch.utils.data.DataLoader`.

    Token ids stay on disk until they are read; memory holds 16 bytes per pair.

    Args:
        shards: the Arrow files in order; all but the last have the same number of rows.

    Attributes:
        lengths: (n,) int16, tokens of each pair.
    """

    def __init__(self, shards: Sequence[Path]) -> None:
        tables = [open_arrow(shard).combine_chunks() for shard in shards]
        lists = [_only_chunk(table["input_ids"]) for table in tables]
        self._tokens = [column.values.to_numpy() for column in lists]
        self._offsets = [column.offsets.to_numpy() for column in lists]
        self._rows_per_shard = max(1, tables[0].num_rows)
        self.lengths = np.concatenate([np.diff(offsets) for offsets in self._offsets]).astype(np.int16)
        columns = pa.concat_tables(tables).select(["first_length", "labels", "weight"])
        self._first_lengths, self._labels, self._weights = (column.to_numpy() for column in columns.columns)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> LabelledPairs:
        return self.__getitems__([row])

    def __getitems__(self, rows: Sequence[int]) -> LabelledPairs:
        numbers = np.asarray(rows, np.int64)
        tokens = []
        for shard, row in zip(*np.divmod(numbers, self._rows_per_shard), strict=True):
            start, end = self._offsets[shard][row : row + 2]
            tokens.append(self._tokens[shard][start:end])
        return LabelledPairs(
            ids=np.concatenate(tokens),
            lengths=self.lengths[numbers],
            first_lengths=self._first_lengths[numbers],
            labels=self._labels[numbers],
            weights=self._weights[numbers],
            rows=numbers,
        )


def _only_chunk(column: pa.ChunkedArray) -> pa.ListArray:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def tokenize_pairs(
    pairs: Dataset, encoder: PairEncoder, scale: float, folder: Path, workers: int | None = None
) -> TokenizedPairs:
    """Tokenize pairs into Arrow shards; existing shards are reused.

    Args:
        pairs: with the columns ``mention``, ``left``, ``right``, ``name``, ``label`` and ``weight``.
        encoder: tokenizer and template.
        scale: factor of the weights (`weight_scale`).
        folder: folder of the shards; it must not hold shards of other pairs.
        workers: number of processes, by default one per core; the result does not depend on it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = max(1, -(-len(pairs) // ROWS_PER_SHARD))
    shards = [folder / f"{number:05}-of-{count:05}.arrow" for number in range(count)]
    unwritten = [number for number, shard in enumerate(shards) if not shard.exists()]
    if unwritten:
        for leftover in folder.glob(".*.partial"):
            leftover.unlink(missing_ok=True)
        _write_shards(shards, unwritten, pairs, encoder, scale, workers or usable_cores())
    return TokenizedPairs(shards)


def _write_shards(
    shards: list[Path], unwritten: list[int], pairs: Dataset, encoder: PairEncoder, scale: float, workers: int
) -> None:
    tasks = []
    for number in unwritten:
        span = slice(number * ROWS_PER_SHARD, (number + 1) * ROWS_PER_SHARD)
        tasks.append(partial(_write_shard, shards[number], pairs, span, encoder, scale))
    with progress(total=len(tasks), desc=f"tokenizing {shards[0].parent.name}", unit=" shards") as bar:
        if len(tasks) == 1 or workers == 1:
            for task in tasks:
                task()
                bar.update()
            return
        # A forked child would inherit locks of torch's and the tokenizer's threads.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(min(workers, len(tasks)), context, _start_worker)
        try:
            for done in as_completed([pool.submit(task) for task in tasks]):
                done.result()
                bar.update()
        finally:
            # After Ctrl-C or an error, only shards in progress are finished.
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Ctrl-C reaches every process of the terminal; the parent decides which shards are finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _write_shard(shard: Path, pairs: Dataset, span: slice, encoder: PairEncoder, scale: float) -> None:
    rows = pairs.with_format("arrow")[span]
    columns = ["mention", "name", *(("left", "right") if encoder.template.context_tokens else ())]
    encoded = encoder.encode(*(rows[column].to_pylist() for column in columns))
    table = pa.table(
        [
            pa.ListArray.from_arrays(pa.array(encoded.offsets, pa.int32()), pa.array(encoded.ids)),
            pa.array(encoded.first_lengths.astype(np.int16)),
            rows["label"].cast(pa.float32()),
            pa.array((rows["weight"].to_numpy() * scale).astype(np.float32)),
        ],
        schema=SCHEMA,
    ).combine_chunks()
    with written(shard, shared=True) as file, pa.ipc.new_stream(file, SCHEMA) as writer:
        writer.write_table(table)
