"""Starting the HTTP service."""

import asyncio
import signal
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from ...core.errors import UserError
from ...linking.linker import ConceptLinker
from ...serving.arguments import ServingArguments
from ...serving.reranker import UMLSReranker

# Seconds to finish requests in progress; a container manager must wait longer before killing.
STOP_SECONDS = 30


def timed_protocol(seconds: float) -> type[asyncio.Protocol]:
    """Uvicorn's protocol, closing connections whose next request does not begin in time.

    A request begins when all its headers have come; the rest is limited by the application.

    Args:
        seconds: after the connection, or the answer before.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    class TimedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._closing = self.loop.call_later(seconds, self._close_if_waiting)

        def on_response_complete(self) -> None:
            self._closing.cancel()
            self._closing = self.loop.call_later(seconds, self._close_if_waiting)
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._closing.cancel()
            super().connection_lost(exc)

        def _close_if_waiting(self) -> None:
            # The answer to a request in progress begins to count anew.
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return TimedProtocol


def serve(serving: ServingArguments, options: Mapping[str, Any], *, dry_run: bool = False) -> None:
    """Load what the settings name and serve it until a signal.

    Args:
        serving: the settings.
        options: how the model is loaded, as arguments of `UMLSReranker.from_pretrained`.
        dry_run: only load it.

    Raises:
        UserError: the extra ``serve`` is not installed, or the model or index cannot be loaded.
    """
    try:
        import uvicorn

        from .app import create_app
        from .middleware import READ_SECONDS
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; install the extra serve") from None
    print(f"loading {serving.served_model}", file=sys.stderr, flush=True)
    model = str(serving.served_model)
    linker = None
    if serving.served_index:
        linker = ConceptLinker.from_pretrained(model, serving.served_index, **options)
    reranker = linker.reranker if linker else UMLSReranker.from_pretrained(model, **options)
    # The first call is slow: no request should wait for it. It warns of missing inputs, as
    # expected.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reranker.rerank("warm-up", ["warm", "up"])
        if linker is not None:
            linker.link("warm-up")
    reranker.reset_statistics()
    advice = reranker.advice(options.get("dtype"), in_batches=False)
    if advice:
        print(advice, file=sys.stderr)
    app = create_app(reranker, serving, linker)
    if dry_run:
        print(
            f"would serve {serving.served_model} on {serving.host}:{serving.port}", file=sys.stderr
        )
        return
    # Uvicorn shuts down cleanly and then re-raises the signal; that must not look like a crash.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    uvicorn.Server(
        uvicorn.Config(
            app,
            host=serving.host,
            port=serving.port,
            http=timed_protocol(READ_SECONDS),
            timeout_graceful_shutdown=STOP_SECONDS,
            access_log=False,
        )
    ).run()
