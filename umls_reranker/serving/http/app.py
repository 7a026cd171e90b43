"""The service as an ASGI application.

Requests contain texts, never models, paths or repos: the served model is fixed at the start. The formats of
``/rerank``, ``/info`` and errors, and the status codes, are those of Text Embeddings Inference 1.8
(https://huggingface.github.io/text-embeddings-inference), so that its clients work unchanged.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Route

from ...core.errors import UserError
from ...core.version import __version__
from ...hub.model_folder import WEIGHTS, version_digits
from ..arguments import ServingArguments
from ..reranker import UMLSReranker
from ..statistics import StatisticsCollector
from .batching import Batcher, QueueFull
from .requests import LinkRequest, RankRequest, RerankRequest

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    # A service that does not link needs neither indexes nor an encoder.
    from ..linker import ConceptLinker

MAX_BODY_BYTES = 2_000_000
# Seconds; a cross-encoder on a CPU takes about 10 ms per mention.
BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
# These replace "There was an error parsing the body" and "Not Found".
CLEARER = {
    400: "the body cannot be read; send uncompressed JSON in UTF-8 without deep nesting",
    404: "unknown path; GET /openapi.json lists all paths",
}


class Refusal(HTTPException):
    """A refused request.

    Args:
        status: HTTP status.
        kind: ``error_type``: Validation, Empty, Overloaded or Backend.
        message: one line.
        headers: of the answer.
    """

    def __init__(self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, headers)
        self.kind = kind


@contextmanager
def _as_refusal() -> Iterator[None]:
    """Turn exceptions of linker, batcher and reranker into a `Refusal`."""
    try:
        yield
    except QueueFull as error:
        raise Refusal(429, "Overloaded", str(error), {"Retry-After": "1"}) from None
    except (TypeError, ValueError) as error:
        raise Refusal(422, "Validation", str(error)) from None
    except UserError as error:
        raise Refusal(424, "Backend", str(error)) from None


class Door:
    """Limits the length of bodies, counts and times requests, and names the model's version in each answer.

    Args:
        app: the application.
        registry: gets the figures.
        paths: paths counted by name; all others count as ``other``.
        header: name and value of the version.
    """

    def __init__(
        self, app: ASGIApp, registry: CollectorRegistry, paths: set[str], header: tuple[bytes, bytes]
    ) -> None:
        self.app, self.paths, self.header = app, paths, header
        name = "umls_reranker_service_request"
        self.requests = Counter(f"{name}s", "Requests by path and status", ["path", "status"], registry=registry)
        self.seconds = Histogram(
            f"{name}_seconds", "Duration of a request in seconds", ["path"], buckets=BUCKETS, registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, read = time.perf_counter(), 500, 0
        path = scope["path"] if scope["path"] in self.paths else "other"

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY_BYTES:
                # The rest of the body must not be read as the next request.
                raise HTTPException(
                    413, f"the request is longer than {MAX_BODY_BYTES:,} bytes", {"connection": "close"}
                )
            return message

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), self.header]
            await send(message)

        try:
            await self.app(scope, limited, watched)
        finally:
            self.requests.labels(path, str(status)).inc()
            self.seconds.labels(path).observe(time.perf_counter() - began)


def create_app(reranker: UMLSReranker, serving: ServingArguments, linker: ConceptLinker | None = None) -> FastAPI:
    """Make the service for one process.

    Args:
        reranker: the reranker.
        serving: the limits.
        linker: linker with the same reranker; None: no linking.

    Raises:
        UserError: the limits contradict each other.
    """
    if serving.max_request_mentions > serving.max_queue:
        raise UserError(
            f"max_request_mentions: {serving.max_request_mentions} mentions never fit into max_queue: "
            f"{serving.max_queue}; lower the former or raise the latter"
        )
    batcher = Batcher(reranker, serving.batch_mentions, serving.max_queue)
    registry = CollectorRegistry()
    registry.register(StatisticsCollector(reranker.statistics))
    in_flight = Gauge("umls_reranker_service_mentions_in_flight", "Mentions not answered yet", registry=registry)
    in_flight.set_function(lambda: batcher.in_flight)
    version = serving.served_revision or version_digits(reranker.info)
    header = (b"x-model-revision", version.encode("latin-1", "replace"))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with batcher.running():
            yield

    app = FastAPI(title="umls_reranker", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.batcher = batcher
    _answer_errors(app, header)

    @contextmanager
    def admitted(mentions: int, candidates: int = 0) -> Iterator[None]:
        """Admit a request of so many mentions, with so many candidates of a mention at most."""
        limits = ((mentions, serving.max_request_mentions), (candidates, serving.max_candidates))
        for count, most in limits:
            if count > most:
                raise Refusal(413, "Validation", f"batch size {count} > maximum allowed batch size {most}")
        with _as_refusal(), batcher.admitted(mentions):
            yield

    @app.post("/rerank")
    async def rerank(request: RerankRequest) -> JSONResponse:
        """Texts by score, the highest first: a calibrated probability, or raw log-odds; all texts are scored."""
        if not request.texts:
            raise Refusal(400, "Empty", "`texts` cannot be empty")
        texts = [{"name": text, "index": index} for index, text in enumerate(request.texts)]
        with admitted(1, len(texts)):
            if reranker.cross_encoder and not (
                serving.auto_truncate if request.truncate is None else request.truncate
            ):
                encode = reranker.cross_encoder.encoder.encode
                _, lost = await run_in_threadpool(encode, [request.query] * len(texts), request.texts)
                if cut := int(lost.sum()):
                    reason = f"{cut} texts have more than {reranker.template.max_length} tokens"
                    raise Refusal(413, "Validation", f"Input validation error: {reason}; set truncate or shorten them")
            (ranked,) = await batcher.rank([(request.query, texts, None, "", "", True, "")])
        if request.raw_scores and any(item.logit is None for item in ranked):
            reason = "this model does not score texts with a cross-encoder, so there are no raw scores"
            raise Refusal(422, "Validation", f"{reason}; remove raw_scores")
        rows = [
            {"index": item.candidate["index"], "score": item.logit if request.raw_scores else item.score}
            | ({"text": item.name} if request.return_text else {})
            for item in ranked
        ]
        return JSONResponse(sorted(rows, key=lambda row: -row["score"]))

    @app.post("/rank")
    async def rank(request: RankRequest) -> JSONResponse:
        """Candidates of each mention, the top candidate first, with probability, margin, tier and decision."""
        with admitted(len(request.mentions), max(len(one.candidates) for one in request.mentions)):
            lists = [[item.model_dump() for item in one.candidates] for one in request.mentions]
            calls = [
                (one.mention, items, one.entity_type, one.left, one.right, False, "")
                for one, items in zip(request.mentions, lists, strict=True)
            ]
            ranked = await batcher.rank(calls)
        return JSONResponse([[item.as_row() for item in items] for items in ranked])

    @app.post("/link")
    async def link(request: LinkRequest) -> JSONResponse:
        """Concepts of each mention, the top candidate first, with probability, margin, tier and decision."""
        if linker is None:
            raise Refusal(424, "Backend", "this service has no index to link with; it only ranks given candidates")
        keys = ("mention", "start", "left", "right", "entity_type")
        mentions, starts, lefts, rights, types = ([getattr(one, key) for one in request.mentions] for key in keys)
        documents = [request.document] * len(mentions)
        with admitted(len(mentions)):
            queries = await run_in_threadpool(linker.read, mentions, documents, starts, lefts, rights)
            candidates = await run_in_threadpool(linker.candidates, queries)
            columns = zip(queries.texts, candidates, types, *queries[1:], strict=True)
            ranked = await batcher.rank([(*call, False, linker.retriever.index_key) for call in columns])
            linked = await run_in_threadpool(linker.described, [items[: request.top] for items in ranked])
        return JSONResponse([[item.as_row() for item in items] for items in linked])

    @app.get("/health")
    async def health() -> Response:
        """200 while requests are accepted."""
        return Response()

    @app.get("/metrics")
    async def metrics() -> Response:
        """Figures of the service and of the reranker's statistics in the text format of Prometheus."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/info")
    async def info() -> dict[str, Any]:
        """The served model and the limits."""
        cross_encoder = reranker.cross_encoder
        return {
            "model_id": serving.served_model,
            "model_sha": serving.served_revision or None,
            # Clients expect text and numbers here. Without a cross-encoder, only the length of a request limits its
            # texts.
            "model_dtype": cross_encoder.dtype if cross_encoder else "float64",
            "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
            "max_concurrent_requests": serving.max_queue,
            "max_input_length": cross_encoder.template.max_length if cross_encoder else MAX_BODY_BYTES,
            "max_batch_tokens": cross_encoder.token_budget if cross_encoder else MAX_BODY_BYTES,
            "max_batch_requests": serving.batch_mentions,
            "max_client_batch_size": serving.max_candidates,
            "auto_truncate": serving.auto_truncate,
            "tokenization_workers": 1,
            "version": __version__,
            "weights_sha256": reranker.info["sha256"].get(WEIGHTS),
            "links": linker is not None,
        }

    paths = {route.path for route in app.routes if isinstance(route, Route)}
    app.add_middleware(Door, registry=registry, paths=paths, header=header)
    return app


def _answer_errors(app: FastAPI, header: tuple[bytes, bytes]) -> None:
    """Make the application answer every error with ``error`` and ``error_type``."""

    def answer(status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"error": message, "error_type": kind}, status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower().rpartition("/")[2]
        if kind.rpartition("+")[2] != "json":
            return answer(415, "Validation", "expected a request with `Content-Type: application/json`")
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return answer(400, "Validation", f"the body is not valid JSON: {first['ctx']['error']}")
        # Without Pydantic's names for the alternatives of a field.
        location = (str(key) for key in first["loc"][1:] if isinstance(key, int) or key.isidentifier())
        field = ".".join(location) or "the body"
        return answer(422, "Validation", f"{field}: {first['msg'].removeprefix('Value error, ')}")

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error, Refusal):
            return answer(error.status_code, error.kind, error.detail, error.headers)
        message = CLEARER.get(error.status_code, error.detail)
        return answer(error.status_code, "Validation", message, error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        # Outside of all middleware; the server writes the error to its log.
        name, value = (part.decode("latin-1") for part in header)
        return answer(500, "Backend", "internal error; see the log of the service", {name: value})
