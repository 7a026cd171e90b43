"""Joins concurrent calls of `UMLSReranker.rerank` into batches, because a model is fastest with many pairs at once."""

from __future__ import annotations

import inspect
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, NamedTuple

from ..ranked_candidates import RankedCandidate
from ..reranker import UMLSReranker

# The values of a mention, in the order in which `UMLSReranker.rerank_batch` takes them as columns; the last one by
# name.
SIGNATURE = inspect.signature(UMLSReranker.rerank)

# Maximum candidates per batch, except for the list of a single mention; limits the time of a batch.
MAX_PAIRS = 2048


class QueueFull(RuntimeError):
    """The queue is full; try again later."""


class MicroBatcher:
    """Accepts mentions from any number of threads and ranks them together in its own thread.

    A mention waits until a batch is full or until its deadline, counted from its arrival. Mentions that arrive while a
    batch is computed join the next one. Results equal those of `UMLSReranker.rerank`. A mention that cannot be ranked
    fails alone, without affecting its batch. As a context manager it ends with `close`.

    Args:
        reranker: ranks the batches.
        deadline_ms: milliseconds that the first mention of a batch waits for others; 0 joins only mentions that
            already wait.
        queue_size: maximum waiting mentions; memory stays bounded under any load.
        max_mentions: maximum mentions per batch.
        block: if the queue is full, wait instead of raising `QueueFull`.

    >>> with MicroBatcher(UMLSReranker.from_pretrained("runs/quickstart/model"), deadline_ms=2) as batcher:
    ...     best = batcher.rerank("cold", ["Common Cold", "Cold Temperature"])[0]
    >>> best.name
    'Common Cold'
    """

    def __init__(
        self,
        reranker: UMLSReranker,
        *,
        deadline_ms: float = 5.0,
        queue_size: int = 1024,
        max_mentions: int = 64,
        block: bool = False,
    ) -> None:
        if deadline_ms < 0 or min(queue_size, max_mentions) < 1:
            raise ValueError("deadline_ms must be at least 0; queue_size and max_mentions at least 1")
        self.reranker = reranker
        self.deadline = deadline_ms / 1000
        self.queue_size = queue_size
        self.max_mentions = max_mentions
        self.block = block
        self._queue: deque[_Waiting] = deque()
        self._pairs = 0
        self._closed = False
        lock = threading.Lock()
        self._has_room, self._has_work = threading.Condition(lock), threading.Condition(lock)
        self._worker = threading.Thread(target=self._work, name="micro-batcher", daemon=True)
        self._worker.start()

    @property
    def waiting(self) -> int:
        """Mentions in the queue."""
        return len(self._queue)

    def rerank(self, *args: Any, **kwargs: Any) -> list[RankedCandidate]:
        """Rank one mention together with concurrent calls, and wait for the result.

        Args:
            args: as for `UMLSReranker.rerank`.
            kwargs: as for `UMLSReranker.rerank`.

        Raises:
            QueueFull: the queue is full and the batcher does not block.
            RuntimeError: the batcher is closed.
        """
        return self.submit(*args, **kwargs).result()

    def submit(self, *args: Any, **kwargs: Any) -> Future[list[RankedCandidate]]:
        """Like `rerank`, but return a future; one cancelled before its batch starts costs nothing.

        Args:
            args: as for `UMLSReranker.rerank`.
            kwargs: as for `UMLSReranker.rerank`.
        """
        call = SIGNATURE.bind(self.reranker, *args, **kwargs)
        call.apply_defaults()
        # A batch that fails is ranked again, mention by mention.
        if isinstance(candidates := call.arguments["candidates"], Iterator):
            call.arguments["candidates"] = list(candidates)
        waiting = _Waiting(Future(), time.monotonic(), call.args[1:])
        with self._has_room:
            while not self._closed and len(self._queue) >= self.queue_size:
                if not self.block:
                    raise QueueFull(f"{self.queue_size} mentions are already waiting; try again later")
                self._has_room.wait()
            if self._closed:
                raise RuntimeError("the micro-batcher is closed")
            self._queue.append(waiting)
            self._pairs += waiting.pairs
            self._has_work.notify()
        return waiting.future

    def close(self) -> None:
        """Accept no more mentions, finish the waiting ones, and end the thread."""
        with self._has_work:
            self._closed = True
            self._has_work.notify_all()
            self._has_room.notify_all()
        self._worker.join()

    def __enter__(self) -> MicroBatcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _work(self) -> None:
        while batch := self._next_batch():
            batch = [waiting for waiting in batch if waiting.future.set_running_or_notify_cancel()]
            if batch and not self._finish(batch) and len(batch) > 1:
                for waiting in batch:
                    self._finish([waiting])

    def _next_batch(self) -> list[_Waiting]:
        """The next mentions, or none if the batcher is closed and empty."""
        with self._has_work:
            while not self._queue and not self._closed:
                self._has_work.wait()
            while self._queue and not self._closed and not self._is_full():
                left = self._queue[0].arrived + self.deadline - time.monotonic()
                if left <= 0:
                    break
                self._has_work.wait(left)
            batch: list[_Waiting] = []
            pairs = 0
            while self._queue and len(batch) < self.max_mentions:
                pairs += self._queue[0].pairs
                if batch and pairs > MAX_PAIRS:
                    break
                batch.append(self._queue.popleft())
                self._pairs -= batch[-1].pairs
            self._has_room.notify(len(batch))
            return batch

    def _is_full(self) -> bool:
        return len(self._queue) >= self.max_mentions or self._pairs >= MAX_PAIRS

    def _finish(self, batch: list[_Waiting]) -> bool:
        """Rank a batch and deliver the results; an error affects only its mention."""
        try:
            columns = map(list, zip(*(waiting.call for waiting in batch), strict=True))
            texts, lists, types, lefts, rights, exhaustive = columns
            results = self.reranker.rerank_batch(texts, lists, types, lefts, rights, exhaustive=exhaustive)
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
            return False
        for waiting, ranked in zip(batch, results, strict=True):
            waiting.future.set_result(ranked)
        return True


class _Waiting(NamedTuple):
    future: Future
    arrived: float
    call: tuple

    @property
    def pairs(self) -> int:
        candidates = self.call[1]
        return len(candidates) if hasattr(candidates, "__len__") else 1
