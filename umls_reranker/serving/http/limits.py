"""Limits on the size and duration of requests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from asyncio import Protocol

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 2_000_000
# Time for the headers of a request to arrive, and again for its body.
READ_SECONDS = 30.0


class BodyLimit:
    """Stops reading a body that is too long, with or without a stated length, or too slow.

    Args:
        app: the application.
        most: maximum bytes of a body.
        seconds: time for the complete body to arrive.
    """

    def __init__(self, app: ASGIApp, most: int, seconds: float) -> None:
        self.app, self.most, self.seconds = app, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with a limited body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        lengths = [value for name, value in scope.get("headers", []) if name == b"content-length"]
        announced = int(lengths[0]) if lengths and lengths[0].isdigit() else 0
        read, deadline = 0, asyncio.get_running_loop().time() + self.seconds
        is_whole = False

        async def limited() -> Message:
            nonlocal read, is_whole
            # After the body, only the disconnect can follow, which has no deadline.
            left = None if is_whole else deadline - asyncio.get_running_loop().time()
            try:
                message = await asyncio.wait_for(receive(), left)
            except asyncio.TimeoutError:
                late = f"the request was not complete after {self.seconds:g} seconds"
                # The rest of the body may still arrive and must not be read as the next request.
                raise HTTPException(408, late, {"connection": "close"}) from None
            is_whole = not message.get("more_body", False)
            read += len(message.get("body", b""))
            if max(read, announced) > self.most:
                raise HTTPException(413, f"the request is longer than {self.most:,} bytes")
            return message

        await self.app(scope, limited, send)


def http_protocol(seconds: float) -> type[Protocol]:
    """Uvicorn's HTTP protocol, which closes a connection whose headers take longer than this.

    Uvicorn itself waits for headers without limit; `BodyLimit` handles bodies.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    # Dynamic, because Uvicorn has one class for httptools and one for h11.
    class HeaderTimeout(AutoHTTPProtocol):  # type: ignore[valid-type, misc]
        timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.timer = self.loop.call_later(seconds, transport.close)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self.cancel()
            elif self.timer is None:
                self.timer = self.loop.call_later(seconds, self.transport.close)

        def connection_lost(self, error: Exception | None) -> None:
            self.cancel()
            super().connection_lost(error)

        def cancel(self) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

    return HeaderTimeout
