"""The service as an ASGI application.

Requests contain texts, never models, paths or repos: the served model is fixed at the start. The
formats of ``/rerank``, ``/info`` and errors, and the status codes, are those of Text Embeddings
Inference 1.8 (https://huggingface.github.io/text-embeddings-inference), so that its clients work
unchanged.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Gauge,
    generate_latest,
)
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Route

from ...core.errors import UserError
from ...core.version import __version__
from ...hub.file_names import MANIFEST, WEIGHTS
from ...hub.manifest import version_digits
from ...lists.columns import MAX_MENTION_CHARS, InvalidRow, length_fault
from ...serving.arguments import ServingArguments
from ...serving.ranked_candidate import RankedCandidate
from ...serving.reranker import UMLSReranker
from ...serving.statistics import StatisticsCollector
from .batching import Batcher, Call, QueueFull
from .browsers import BrowserAccess, HostMiddleware
from .middleware import MAX_BODY_BYTES, RequestMiddleware
from .reconcile import Reconciliation
from .refusals import error_answer, invalid_body, refused
from .requests import (
    LinkedMention,
    LinkRequest,
    MentionRow,
    RankRequest,
    RerankRequest,
    request_bodies,
)

if TYPE_CHECKING:
    import pyarrow as pa

    # A service that does not link needs neither indexes nor an encoder.
    from ...linking.linked_concept import LinkedConcept
    from ...linking.linker import ConceptLinker

AnyMention = TypeVar("AnyMention", bound=MentionRow)


class Service:
    """The answers of one process, to requests that its limits admit.

    Args:
        reranker: the reranker.
        serving: the limits.
        linker: linker with the same reranker; None: no linking.

    Raises:
        UserError: the limits contradict each other, or the settings name pages or a URL that are
            none.
    """

    def __init__(
        self, reranker: UMLSReranker, serving: ServingArguments, linker: ConceptLinker | None = None
    ) -> None:
        if serving.max_request_mentions > serving.max_queue:
            raise UserError(
                f"max_request_mentions: {serving.max_request_mentions} mentions never fit into "
                f"max_queue: {serving.max_queue}; lower the former or raise the latter"
            )
        self.access = BrowserAccess(serving)
        reranker.quotes_callers = False
        self.reranker = reranker
        self.serving = serving
        self.linker = linker
        self.batcher = Batcher(reranker, serving.batch_mentions, serving.max_queue)
        self.registry = CollectorRegistry()
        self.registry.register(StatisticsCollector(reranker.statistics))
        in_flight = Gauge(
            "umls_reranker_service_mentions_in_flight",
            "Mentions not answered yet",
            registry=self.registry,
        )
        in_flight.set_function(lambda: self.batcher.in_flight)
        # A tag may be moved to another version, the digits, which are of its hash, may not.
        version = "+".join(filter(None, (serving.served_revision, version_digits(reranker.info))))
        self.header = (b"x-model-revision", version.encode("latin-1", "replace"))

    def router(self) -> APIRouter:
        """The paths."""
        router = APIRouter()
        answers: dict[str, Callable[..., Any]] = {
            "/rerank": self.rerank,
            "/rank": self.rank,
            "/link": self.link,
        }
        for path, body in request_bodies(self.serving).items():
            router.post(path)(_taking(body, answers[path]))
        Reconciliation(self).add_to(router)
        router.get("/health")(self.health)
        router.get("/metrics")(self.metrics)
        router.get("/info")(self.info)
        return router

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Rank while the application runs."""
        async with self.batcher.running():
            yield

    @contextmanager
    def admitted(self, mentions: int, numbers: Sequence[int] = (0,)) -> Iterator[None]:
        """Admit a request of so many mentions; exceptions of what answers it become refusals.

        Args:
            mentions: how many.
            numbers: the numbers of those that are read, for messages.
        """
        try:
            with self.batcher.admitted(mentions):
                yield
        except InvalidRow as error:
            raise HTTPException(
                422, str(InvalidRow(numbers[error.row], error.reason, mentions))
            ) from None
        except QueueFull as error:
            raise HTTPException(429, str(error), {"Retry-After": "1"}) from None
        except (TypeError, ValueError) as error:
            raise HTTPException(422, str(error)) from None
        except UserError as error:
            raise HTTPException(424, str(error)) from None

    async def rerank(self, request: RerankRequest) -> JSONResponse:
        """Texts by score, the highest first: a calibrated probability, or raw log-odds."""
        if not request.texts:
            return error_answer(400, "`texts` cannot be empty", kind="Empty")
        texts = [{"name": text, "index": index} for index, text in enumerate(request.texts)]
        with self.admitted(1):
            truncate = request.truncate
            if truncate is None:
                truncate = self.serving.auto_truncate
            if not truncate:
                await run_in_threadpool(self._refuse_long_texts, request)
            (ranked,) = await self.batcher.rank([Call(request.query, texts, exhaustive=True)])
            logits: Sequence[float | None] = [item.logit for item in ranked]
            if request.raw_scores and None in logits:
                logits = await run_in_threadpool(
                    self._raw_scores, request.query, [item.name for item in ranked]
                )
        rows = []
        for item, logit in zip(ranked, logits, strict=True):
            score = logit if request.raw_scores else item.score
            row = {"index": item.candidate["index"], "score": score}
            if request.return_text:
                row["text"] = item.name
            rows.append(row)
        return JSONResponse(sorted(rows, key=lambda row: -row["score"]))

    def _raw_scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """The logits of the cross-encoder as they are, also of texts that it cannot tell apart.

        Clients of Text Embeddings Inference expect a number for each text.
        """
        cross_encoder = self.reranker.cross_encoder
        if cross_encoder is None or not self.reranker.calibration.uses_cross_encoder:
            raise HTTPException(
                422,
                "this model does not score texts with a cross-encoder, so there are no raw scores; "
                "remove raw_scores",
            )
        return cross_encoder.score([query] * len(texts), texts).logits.tolist()

    def _refuse_long_texts(self, request: RerankRequest) -> None:
        """Refuse texts that the cross-encoder would read in part only."""
        cross_encoder = self.reranker.cross_encoder
        if cross_encoder is None:
            return
        _, is_truncated = cross_encoder.encoder.encode(
            [request.query] * len(request.texts), request.texts
        )
        if count := int(is_truncated.sum()):
            raise HTTPException(
                413,
                f"Input validation error: {count} texts have more than "
                f"{cross_encoder.template.max_length} tokens; set truncate or shorten them",
            )

    async def rank(self, request: RankRequest) -> JSONResponse:
        """Candidates of each mention, the top candidate first, with their decisions."""
        by_number = _of_allowed_length(request.mentions)
        calls = [
            Call(
                mention.mention,
                [item.model_dump() for item in mention.candidates],
                mention.entity_type,
                mention.left,
                mention.right,
            )
            for mention in by_number.values()
        ]
        with self.admitted(len(request.mentions), [*by_number]):
            ranked = await self.batcher.rank(calls)
        return await run_in_threadpool(_in_place, request.mentions, by_number, ranked)

    async def link(self, request: LinkRequest) -> JSONResponse:
        """Concepts of each mention, the top candidate first, with their decisions."""
        linked = await self.linked(request.mentions, request.document, request.top)
        return await run_in_threadpool(_in_place, request.mentions, linked, linked.values())

    async def linked(
        self, mentions: Sequence[LinkedMention], document: str | None = None, top: int = 5
    ) -> dict[int, list[LinkedConcept]]:
        """Number -> the first concepts of each mention that is not too long, the best first."""
        by_number = _of_allowed_length(mentions)
        with self.admitted(len(mentions), [*by_number]):
            table, lists = await self.candidates([*by_number.values()], document)
            linker = self.require_linker()
            searched = table.select(["entity", "left", "right"]).to_pylist()
            calls = [
                Call(
                    row["entity"],
                    candidates,
                    mention.entity_type,
                    row["left"],
                    row["right"],
                    index_key=linker.retriever.index_key,
                )
                for mention, row, candidates in zip(
                    by_number.values(), searched, lists, strict=True
                )
            ]
            ranked = await self.batcher.rank(calls)
            linked = await run_in_threadpool(linker.described, [items[:top] for items in ranked])
        return dict(zip(by_number, linked, strict=True))

    async def found(self, mentions: Sequence[LinkedMention]) -> dict[int, list[dict[str, Any]]]:
        """Number -> the candidates of each mention that is not too long, as retrieved."""
        by_number = _of_allowed_length(mentions)
        with self.admitted(len(mentions), [*by_number]):
            _, lists = await self.candidates([*by_number.values()])
        return dict(zip(by_number, lists, strict=True))

    async def candidates(
        self, mentions: Sequence[LinkedMention], document: str | None = None
    ) -> tuple[pa.Table, list[list[dict[str, Any]]]]:
        """The table of `ConceptLinker.read`, and the candidates of each mention as retrieved."""
        linker = self.require_linker()
        table = await run_in_threadpool(
            linker.read,
            [one.mention for one in mentions],
            [document] * len(mentions),
            [one.start for one in mentions],
            lefts=[one.left for one in mentions],
            rights=[one.right for one in mentions],
        )
        return table, await run_in_threadpool(lambda: linker.candidates(table).to_pylist())

    def require_linker(self) -> ConceptLinker:
        """The linker; without one the request is refused."""
        if self.linker is None:
            raise HTTPException(
                424,
                "this service has no index to link with; it only ranks given candidates",
            )
        return self.linker

    async def health(self) -> Response:
        """200 while requests are accepted."""
        return Response()

    async def metrics(self) -> Response:
        """Figures of the service and of the reranker in the text format of Prometheus."""
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

    async def info(self) -> dict[str, Any]:
        """The served model and the limits."""
        cross_encoder = self.reranker.cross_encoder
        serving = self.serving
        # Clients expect text and numbers here. Without a cross-encoder, only the length of a
        # request limits texts.
        dtype = "float64"
        most_tokens = MAX_BODY_BYTES
        tokens_of_batch = MAX_BODY_BYTES
        if cross_encoder is not None:
            dtype = cross_encoder.dtype
            most_tokens = cross_encoder.template.max_length
            tokens_of_batch = cross_encoder.token_budget
        return {
            "model_id": serving.served_model,
            "model_sha": serving.served_revision or None,
            "model_dtype": dtype,
            "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
            "max_concurrent_requests": serving.max_queue,
            "max_input_length": most_tokens,
            "max_batch_tokens": tokens_of_batch,
            "max_batch_requests": serving.batch_mentions,
            "max_client_batch_size": serving.max_candidates,
            "max_mention_chars": MAX_MENTION_CHARS,
            "auto_truncate": serving.auto_truncate,
            "tokenization_workers": 1,
            "version": __version__,
            "manifest_sha256": self.reranker.info["sha256"][MANIFEST],
            "weights_sha256": self.reranker.info["sha256"].get(WEIGHTS),
            "links": self.linker is not None,
            "calibrated_on": self.reranker.calibrated_on,
        }

    async def failed(self, request: Request, error: Exception) -> JSONResponse:
        """The answer to an error of ours, which the server writes to its log."""
        name, value = self.header
        # This answer comes from outside of all middleware.
        headers = {name.decode("latin-1"): value.decode("latin-1")}
        return error_answer(500, "internal error; see the log of the service", headers)


def create_app(
    reranker: UMLSReranker, serving: ServingArguments, linker: ConceptLinker | None = None
) -> FastAPI:
    """Make the service for one process; arguments and errors are those of `Service`."""
    service = Service(reranker, serving, linker)
    app = FastAPI(
        title="umls_reranker",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=service.lifespan,
    )
    app.state.batcher = service.batcher
    router = service.router()
    app.include_router(router)
    app.exception_handler(RequestValidationError)(invalid_body)
    app.exception_handler(HTTPException)(refused)
    app.exception_handler(Exception)(service.failed)
    paths = {route.path for route in (*app.routes, *router.routes) if isinstance(route, Route)}
    if service.access.is_of_this_machine:
        app.add_middleware(HostMiddleware, access=service.access)
    # The outermost one: it counts refusals too.
    app.add_middleware(
        RequestMiddleware, registry=service.registry, paths=paths, header=service.header
    )
    return app


def _of_allowed_length(mentions: Sequence[AnyMention]) -> dict[int, AnyMention]:
    """Number in the request -> mention, of those that are not too long."""
    return {
        number: mention
        for number, mention in enumerate(mentions)
        if not length_fault(len(mention.mention))
    }


def _in_place(
    mentions: Sequence[MentionRow],
    numbers: Iterable[int],
    ranked: Iterable[Sequence[RankedCandidate]],
) -> JSONResponse:
    """The rows of each mention; or ``{"error": reason}`` if it is too long, and so not ranked.

    Args:
        mentions: all mentions of the request.
        numbers: the numbers of those that were ranked.
        ranked: the candidates of each of these.
    """
    ranked_of = dict(zip(numbers, ranked, strict=True))
    answers: list[Any] = []
    for number, mention in enumerate(mentions):
        if number in ranked_of:
            answers.append([item.as_row() for item in ranked_of[number]])
        else:
            answers.append({"error": f"mention {length_fault(len(mention.mention))}"})
    return JSONResponse(answers)


def _taking(body: type[BaseModel], answer: Callable[..., Any]) -> Callable[..., Any]:
    """The endpoint `answer` for a class of bodies that is made at the start."""

    async def endpoint(request: Any) -> Any:
        return await answer(request)

    endpoint.__name__ = answer.__name__
    endpoint.__doc__ = answer.__doc__
    endpoint.__annotations__ = {"request": body}
    return endpoint
