"""Arrays: offsets of lists, repeated texts, Arrow files; long work: its cores and its progress."""

from __future__ import annotations

import os
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .files import written

if TYPE_CHECKING:
    import pyarrow as pa

MOST_THREADS = 8
SECONDS_BETWEEN_LINES = 30.0

Item = TypeVar("Item")
Result = TypeVar("Result")


def list_offsets(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """(n + 1,) int64 offsets of lists with these lengths."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def list_owner(offsets: np.ndarray) -> np.ndarray:
    """(m,) the list that each item belongs to."""
    return np.arange(len(offsets) - 1).repeat(offsets[1:] - offsets[:-1])


def lists_with_any(candidates: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Whether any candidate of a list is true in `candidates` (m,), (n,) bool."""
    return np.diff(list_offsets(candidates)[offsets]) > 0


def distinct_numbers(numbers: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values of numbers in [0, size), ascending, and each number's index among them.

    Like `np.unique`, without sorting if `size` is not much larger than the count of numbers.

    >>> distinct_numbers(np.array([7, 2, 7]), 8)
    (array([2, 7]), array([1, 0, 1]))
    """
    if size > 8 * len(numbers) + 1024:
        return np.unique(numbers, return_inverse=True)
    positions = np.zeros(size, np.int64)
    positions[numbers] = 1
    distinct = np.flatnonzero(positions)
    positions[distinct] = np.arange(len(distinct))
    return distinct, positions[numbers]


def number_distinct(values: Sequence) -> tuple[list, np.ndarray]:
    """The distinct values in order of first occurrence, and each value's index in them, (n,) int64.

    >>> number_distinct(["b", "a", "b"])
    (['b', 'a'], array([0, 1, 0]))
    """
    numbers: defaultdict = defaultdict(count().__next__)
    number_of_value = np.fromiter(map(numbers.__getitem__, values), np.int64, len(values))
    return list(numbers), number_of_value


@dataclass(frozen=True, eq=False)
class RepeatedTexts(Sequence[Any]):
    """A column of texts, each held once; None where a row has none.

    Attributes:
        texts: k texts.
        codes: (n,) int64, index of each row's text.
    """

    texts: Sequence[Any]
    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, row: Any) -> Any:
        """The text of one row, or the column of several, given as a slice or an array."""
        if isinstance(row, slice | np.ndarray):
            return RepeatedTexts(self.texts, self.codes[row])
        return self.texts[self.codes[row]]

    def to_list(self) -> list[str]:
        """The text of each row."""
        return list(map(self.texts.__getitem__, self.codes.tolist()))

    def distinct(self) -> tuple[Sequence[str], np.ndarray]:
        """Like `number_distinct`, in the order of `texts`, without merging equal texts.

        If there are at most as many texts as rows, texts that no row holds may be included.
        """
        if len(self.texts) <= len(self.codes):
            return self.texts, self.codes
        used, numbers = distinct_numbers(self.codes, len(self.texts))
        return [self.texts[code] for code in used.tolist()], numbers


def expand_ranges(starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All numbers of n ranges, one range after the other, and which range each belongs to.

    >>> owners, numbers = expand_ranges(np.array([5, 0, 8]), np.array([7, 0, 9]))
    >>> owners.tolist(), numbers.tolist()
    ([0, 0, 2], [5, 6, 8])
    """
    counts = stops - starts
    owners = np.repeat(np.arange(len(counts)), counts)
    return owners, np.arange(len(owners)) + np.repeat(starts - (np.cumsum(counts) - counts), counts)


def ranking(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Flat indices of the candidates by mention, the top one first; ties keep their order."""
    mention = list_owner(offsets)
    scores = np.asarray(scores, dtype=np.float64)
    if len(scores) != len(mention):
        raise ValueError(
            f"offsets are of {len(mention)} candidates, but there are {len(scores)} scores"
        )
    return np.lexsort((-scores, mention))


def best_candidates(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Flat index of each list's candidate with the highest score (m,); -1 for an empty list.

    The result is (n,) int64. Equal scores keep the order of the list: retrieval rank breaks ties.
    """
    return firsts(ranking(scores, offsets), offsets)


def firsts(order: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Flat index of each list's top candidate by a `ranking`, (n,) int64; -1 for an empty list."""
    filled = offsets[1:] > offsets[:-1]
    first = np.full(len(filled), -1, np.int64)
    first[filled] = order[offsets[:-1][filled]]
    return first


def values_at(column: np.ndarray, positions: np.ndarray, otherwise: Any) -> np.ndarray:
    """Values of a column (m,) at positions (n,), `otherwise` where these are -1."""
    values = np.full(len(positions), otherwise, column.dtype)
    is_there = positions >= 0
    values[is_there] = column[positions[is_there]]
    return values


def hash_texts(texts: Sequence[str]) -> np.ndarray:
    """64-bit hashes of n texts, (n,) uint64, the same on every machine."""
    return np.frombuffer(
        b"".join([blake2b(text.encode(), digest_size=8).digest() for text in texts]), "<u8"
    )


@contextmanager
def arrow_writer(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatchStreamWriter]:
    """Yield a writer of tables and batches; without an error, its output becomes the file `path`.

    Columns as lists or arrays are written by
    ``writer.write(pa.Table.from_pydict(columns, schema))``.

    Args:
        path: the file, whose folder is made if it is missing.
        schema: the columns; that of ``datasets.Features`` is ``features.arrow_schema``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    import pyarrow as pa

    with written(path) as partial, pa.ipc.new_stream(partial, schema) as writer:
        yield writer


def open_arrow(path: Path) -> pa.Table:
    """Memory-map a file that `arrow_writer` wrote; nothing is read before it is used.

    Raises:
        OSError, pa.ArrowInvalid: the file is missing or damaged.
    """
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_stream(source).read_all()


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """The values of a column; those of a single chunk are not copied, so they may stay on disk."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def write_numbers(path: Path, numbers: np.ndarray) -> None:
    """Write an array of numbers in NumPy's format, atomically."""
    with written(path) as partial, partial.open("wb") as stream:
        np.save(stream, numbers, allow_pickle=False)


def openmp_threads() -> int | None:
    """Threads of a process by ``OMP_NUM_THREADS``, or None if it is not a number.

    Of a list, which OpenMP reads as nested levels, the first number counts.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) or None if first.isdecimal() else None


def started_processes(name: str = "WORLD_SIZE") -> int:
    """The launcher's number of processes, or of those on this machine (``LOCAL_WORLD_SIZE``)."""
    return int(os.environ.get(name, "1"))


def usable_cores() -> int:
    """Cores that this process may use, or all where the system does not tell (macOS, Windows)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield ``function(item)`` for each item in order, with one thread per core.

    It suits functions that spend their time in Arrow and NumPy. Only a few items are processed
    ahead of the yielded one. An exception of `function` is raised at the turn of its item.
    """
    threads = min(usable_cores(), MOST_THREADS)
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def progress(
    iterable: Iterable | None = None,
    *,
    total: int | None = None,
    desc: str | None = "",
    unit: str = "it",
) -> Any:
    """A `tqdm` bar: redrawn and then removed on a terminal, one state every half minute in a log.

    Args:
        iterable: to iterate over, or None for a bar moved by ``bar.update(n)``.
        total: expected number of units; by default ``len(iterable)``.
        desc: short name of the work, shown before the bar; None shows no bar.
        unit: what is counted, e.g. ``" names"``.

    Setting ``UMLS_RERANKER_PROGRESS=0`` turns all bars off.
    """
    from tqdm.auto import tqdm

    on_terminal = sys.stderr.isatty()
    interval = 0.2 if on_terminal else SECONDS_BETWEEN_LINES
    delay = 0 if on_terminal else SECONDS_BETWEEN_LINES
    return tqdm(
        iterable,
        total=total,
        desc=desc,
        unit=unit,
        unit_scale=True,
        dynamic_ncols=on_terminal,
        leave=not on_terminal,
        mininterval=interval,
        delay=delay,
        disable=desc is None or os.environ.get("UMLS_RERANKER_PROGRESS") == "0",
    )
