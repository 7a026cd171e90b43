"""Shared by the routes: admission, the micro-batcher, the linker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from ...core.errors import UserError
from ...core.settings import ServingArguments
from ..ranked_candidates import RankedCandidate
from ..reranker import UMLSReranker
from .micro_batching import MicroBatcher
from .refusals import Refusal, as_refusal
from .requests import LinkRequest

if TYPE_CHECKING:
    # A service that does not link needs neither indexes nor an encoder.
    from ..linker import ConceptLinker, LinkedConcept

# A single request waits this long for others to share its batch; under load, batches fill sooner.
BATCH_DEADLINE_MS = 2.0


class Engine:
    """Ranks and links for all requests of a process.

    The number of admitted mentions is limited, so memory is bounded under any load. `admitted` runs in the event
    loop's thread.

    Args:
        reranker: the reranker.
        serving: the limits.
        linker: linker with the same reranker; None: no linking.

    Raises:
        UserError: the limits contradict each other.
    """

    def __init__(self, reranker: UMLSReranker, serving: ServingArguments, linker: ConceptLinker | None = None) -> None:
        if serving.max_request_mentions > serving.max_queue:
            raise UserError(
                f"max_request_mentions: {serving.max_request_mentions} mentions never fit into max_queue: "
                f"{serving.max_queue}; lower the former or raise the latter"
            )
        self.reranker, self.serving, self.linker = reranker, serving, linker
        self.batcher = MicroBatcher(
            reranker,
            deadline_ms=BATCH_DEADLINE_MS,
            queue_size=serving.max_queue,
            max_mentions=serving.batch_mentions,
        )
        self.in_flight = 0
        self.is_open = True

    @contextmanager
    def admitted(self, mentions: int, candidates: int = 0) -> Iterator[None]:
        """Admit the mentions of a request to the queue.

        Args:
            mentions: number of mentions.
            candidates: largest number of candidates of a mention.

        Raises:
            Refusal: the request has too many of them, too many mentions are in progress, or the service is stopping.
        """
        limits = ((mentions, self.serving.max_request_mentions), (candidates, self.serving.max_candidates))
        for count, most in limits:
            if count > most:
                raise Refusal(413, "Validation", f"batch size {count} > maximum allowed batch size {most}")
        if not self.is_open:
            raise Refusal(503, "Unhealthy", "the service is stopping")
        if self.in_flight + mentions > self.serving.max_queue:
            raise Refusal(429, "Overloaded", f"{self.in_flight} mentions are already in progress; try again later")
        self.in_flight += mentions
        try:
            yield
        finally:
            self.in_flight -= mentions

    async def rank(self, calls: Sequence[tuple]) -> list[list[RankedCandidate]]:
        """Rank mentions, as arguments of `UMLSReranker.rerank`, together with those of other requests."""
        with as_refusal():
            return await asyncio.gather(*[asyncio.wrap_future(self.batcher.submit(*call)) for call in calls])

    async def link(self, request: LinkRequest) -> list[list[LinkedConcept]]:
        """Concepts of each mention of a request, the top candidate first."""
        if self.linker is None:
            raise Refusal(424, "Backend", "this service has no index to link with; it only ranks given candidates")
        keys = ("mention", "start", "left", "right", "entity_type")
        mentions, starts, lefts, rights, types = ([getattr(one, key) for one in request.mentions] for key in keys)
        documents = [request.document] * len(mentions)
        with as_refusal():
            queries = await run_in_threadpool(self.linker.read, mentions, documents, starts, lefts, rights)
            candidates = await run_in_threadpool(self.linker.candidates, queries)
        ranked = await self.rank(list(zip(queries.texts, candidates, types, *queries[1:], strict=True)))
        return await run_in_threadpool(self.linker.described, [items[: request.top] for items in ranked])

    def cut_pairs(self, query: str, texts: Sequence[str]) -> int:
        """Number of pairs whose query or text is too long for the network; none without one."""
        scorer = self.reranker.scorer
        return int(scorer.encoder.encode([query] * len(texts), texts)[1].sum()) if scorer else 0

    def close(self) -> None:
        """Accept nothing more, rank the waiting mentions, and stop."""
        self.is_open = False
        self.batcher.close()
