"""Mentions of concurrent requests, ranked together."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from copy import copy
from typing import Any, NamedTuple

from ...core.errors import UserError
from ...lists.columns import InvalidRow
from ...serving.ranked_candidate import RankedCandidate
from ...serving.reranker import UMLSReranker

# A single request waits this long for others to share its batch; under load, batches are full at
# once.
WAIT_SECONDS = 0.002


class QueueFull(RuntimeError):
    """Too many mentions are in progress; try again later."""


class Call(NamedTuple):
    """A mention to rank, by arguments of `UMLSReranker.rerank`; `exhaustive` as it is made with."""

    entity: str
    candidates: Sequence[Any]
    entity_type: str | Sequence[str] | None = None
    left: str = ""
    right: str = ""
    exhaustive: bool = False
    index_key: str = ""


class _Waiting(NamedTuple):
    call: Call
    arrived: float
    answer: asyncio.Future


class Batcher:
    """A queue of mentions and one thread that ranks them in batches.

    Mentions that arrive while a batch is ranked join the next one. Results equal those of
    `UMLSReranker.rerank`. Used from one event loop, inside `running`.

    Args:
        reranker: ranks the batches.
        max_mentions: maximum mentions per batch.
        max_in_flight: maximum admitted mentions; memory stays bounded under any load.
        max_pairs: a batch with this many candidates is full; limits the time of a batch.

    Attributes:
        in_flight: mentions admitted but not answered yet.
    """

    def __init__(
        self,
        reranker: UMLSReranker,
        max_mentions: int,
        max_in_flight: int,
        *,
        max_pairs: int = 2048,
    ) -> None:
        self.reranker = reranker
        self.max_pairs = max_pairs
        self.max_mentions = max_mentions
        self.max_in_flight = max_in_flight
        self.in_flight = 0
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Rank what is waiting until the context ends; what is admitted then is ranked first."""
        with ThreadPoolExecutor(1, "rank") as thread:
            worker = asyncio.create_task(self._work(thread))
            try:
                yield
                await self._queue.join()
            finally:
                worker.cancel()

    @contextmanager
    def admitted(self, mentions: int) -> Iterator[None]:
        """Admit the mentions of a request while the context lasts.

        Raises:
            QueueFull: too many mentions are in progress.
        """
        if self.in_flight + mentions > self.max_in_flight:
            raise QueueFull(
                f"{self.in_flight} mentions are already in progress "
                f"(max_queue: {self.max_in_flight}); try again later"
            )
        self.in_flight += mentions
        try:
            yield
        finally:
            self.in_flight -= mentions

    async def rank(self, calls: Sequence[Call]) -> list[list[RankedCandidate]]:
        """Rank mentions together with those of other requests."""
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(call, loop.time(), loop.create_future()) for call in calls]
        for one in waiting:
            self._queue.put_nowait(one)
        answers = await asyncio.gather(*[one.answer for one in waiting], return_exceptions=True)
        for number, answer in enumerate(answers):
            if isinstance(answer, InvalidRow):
                # In its own request a mention has another number than in the batch.
                raise InvalidRow(number, answer.reason, len(calls))
            if isinstance(answer, BaseException):
                raise answer
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    async def _work(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next_batch()
            for exhaustive in (True, False):
                # The clients of those that are done have left.
                asked = [
                    one
                    for one in batch
                    if one.call.exhaustive == exhaustive and not one.answer.done()
                ]
                results = await loop.run_in_executor(
                    thread, self._ranked, [one.call for one in asked]
                )
                for one, result in zip(asked, results, strict=True):
                    if one.answer.done():
                        continue
                    if isinstance(result, Exception):
                        one.answer.set_exception(result)
                    else:
                        one.answer.set_result(result)
            for _ in batch:
                self._queue.task_done()

    async def _next_batch(self) -> list[_Waiting]:
        batch = [await self._queue.get()]
        left = batch[0].arrived + WAIT_SECONDS - asyncio.get_running_loop().time()
        if left > 0 and self._queue.qsize() + 1 < self.max_mentions:
            await asyncio.sleep(left)
        pairs = len(batch[0].call.candidates)
        while pairs < self.max_pairs and len(batch) < self.max_mentions and not self._queue.empty():
            batch.append(self._queue.get_nowait())
            pairs += len(batch[-1].call.candidates)
        return batch

    def _ranked(self, calls: Sequence[Call]) -> Sequence[list[RankedCandidate] | Exception]:
        """The ranking of each mention, or its error; all are exhaustive, or none is."""
        if not calls:
            return []
        # Shares the network and the statistics.
        reranker = copy(self.reranker)
        reranker.exhaustive |= calls[0].exhaustive
        try:
            return reranker.rerank_batch(
                entities=[call.entity for call in calls],
                candidates=[call.candidates for call in calls],
                entity_types=[call.entity_type for call in calls],
                lefts=[call.left for call in calls],
                rights=[call.right for call in calls],
                index_keys=[call.index_key for call in calls],
            )
        except (TypeError, ValueError, UserError) as error:
            # Of one mention, which must not fail the others.
            if len(calls) == 1:
                return [error]
            return [result for call in calls for result in self._ranked([call])]
        except Exception as error:
            # Of all, such as a lack of memory: single mentions would only take longer to end
            # likewise.
            return [error] * len(calls)
