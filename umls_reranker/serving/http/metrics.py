"""Metrics of the service for Prometheus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .refusals import error_answer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Seconds; a cross-encoder on a CPU takes about 10 ms per mention.
BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class ServiceMetrics:
    """Requests, latencies and the queue; the statistics count the answers.

    Args:
        waiting: function that returns the number of mentions waiting for a batch.
        in_flight: function that returns the number of admitted, unanswered mentions.
    """

    MEDIA_TYPE = CONTENT_TYPE_LATEST

    def __init__(self, waiting: Callable[[], int], in_flight: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "umls_reranker_service_requests", "Requests by path and status", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "umls_reranker_service_request_seconds",
            "Duration of a request in seconds",
            ["path"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        gauges = {
            "umls_reranker_service_queued_mentions": ("Mentions waiting for a batch", waiting),
            "umls_reranker_service_mentions_in_flight": ("Mentions admitted but not answered yet", in_flight),
        }
        for name, (text, value) in gauges.items():
            Gauge(name, text, registry=self.registry).set_function(value)

    def exposition(self) -> bytes:
        """Everything in the text format of Prometheus."""
        return generate_latest(self.registry)


class Watch:
    """Counts and times every request, and adds the model's version to each answer.

    It also answers failures, because the framework would omit the version.

    Args:
        app: the application.
        metrics: counts requests.
        paths: paths counted by name; all others count as ``other``.
        revision: value of the header ``x-model-revision``.
    """

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics, paths: set[str], revision: str) -> None:
        self.app, self.metrics, self.paths = app, metrics, paths
        self.header = (b"x-model-revision", revision.encode("latin-1", "replace"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, is_answered = time.perf_counter(), 500, False
        path = scope["path"] if scope["path"] in self.paths else "other"

        async def watched(message: Message) -> None:
            nonlocal status, is_answered
            if message["type"] == "http.response.start":
                status, is_answered = message["status"], True
                message["headers"] = [*message.get("headers", []), self.header]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except asyncio.CancelledError:
            # The service is stopping and this request took too long.
            if is_answered:
                raise
            await error_answer(503, "Unhealthy", "the service is stopping")(scope, receive, watched)
        except Exception:
            if not is_answered:
                await error_answer(500, "Backend", "internal error; see the log of the service")(
                    scope, receive, watched
                )
            # The server writes the error to its log.
            raise
        finally:
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - started)
