"""What every request of the service passes through: limits, figures and the version's header."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.exceptions import HTTPException

from .refusals import error_answer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 2_000_000
# Seconds within which a whole request must have come: half-sent ones would fill the service.
READ_SECONDS = 30.0
# Upper ends of the cells of the histogram of durations, in seconds; a cross-encoder on a CPU takes
# about 10 ms per mention.
BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class RequestMiddleware:
    """Limits bodies, counts and times requests, and names the model's version in each answer.

    Args:
        app: the application.
        registry: gets the figures.
        paths: paths counted by name; all others count as ``other``.
        header: name and value of the version.
    """

    def __init__(
        self,
        app: ASGIApp,
        registry: CollectorRegistry,
        paths: set[str],
        header: tuple[bytes, bytes],
    ) -> None:
        self.app = app
        self.paths = paths
        self.header = header
        name = "umls_reranker_service_request"
        self.requests = Counter(
            f"{name}s", "Requests by path and status", ["path", "status"], registry=registry
        )
        self.seconds = Histogram(
            f"{name}_seconds",
            "Duration of a request in seconds",
            ["path"],
            buckets=BUCKETS,
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        path = scope["path"] if scope["path"] in self.paths else "other"
        status = 0
        received_bytes = 0
        is_whole = False

        async def limited() -> Message:
            """Receive, within the limits of time and length."""
            nonlocal received_bytes, is_whole
            left = None if is_whole else began + READ_SECONDS - time.perf_counter()
            try:
                message = await asyncio.wait_for(receive(), left)
            except asyncio.TimeoutError:
                reason = f"the request did not come within {READ_SECONDS:g} seconds"
                raise HTTPException(408, reason, {"connection": "close"}) from None
            is_whole = not message.get("more_body", False)
            received_bytes += len(message.get("body", b""))
            if received_bytes > MAX_BODY_BYTES:
                reason = f"the request is longer than {MAX_BODY_BYTES:,} bytes"
                # The rest of the body must not be read as the next request.
                raise HTTPException(413, reason, {"connection": "close"})
            return message

        async def watched(message: Message) -> None:
            """Send, with the version in the headers; the status is remembered."""
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), self.header]
            await send(message)

        try:
            await self.app(scope, limited, watched)
        except asyncio.CancelledError:
            # The server stops, and its grace has ended; mostly, half of the request never came.
            if not status:
                busy = error_answer(503, "the service stops", {"connection": "close"})
                await busy(scope, receive, watched)
        finally:
            # Without an answer so far, the application failed.
            self.requests.labels(path, str(status or 500)).inc()
            self.seconds.labels(path).observe(time.perf_counter() - began)
