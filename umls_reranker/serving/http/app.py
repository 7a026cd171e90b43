"""The service as an ASGI application.

Requests contain texts, never models, paths or repos: the served model is fixed at the start. The formats of
``/rerank``, ``/info`` and errors, and the status codes, are those of Text Embeddings Inference 1.8
(https://huggingface.github.io/text-embeddings-inference), so that its clients work unchanged.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.routing import Route

from ...core.settings import ServingArguments
from ...core.version import __version__
from ...hub.model_folder import WEIGHTS, version_digits
from ..reranker import UMLSReranker
from ..statistics import StatisticsCollector
from .engine import Engine
from .limits import MAX_BODY_BYTES, READ_SECONDS, BodyLimit
from .metrics import ServiceMetrics, Watch
from .refusals import ErrorAnswer, Refusal, add_error_answers
from .requests import LinkRequest, RankRequest, RerankRequest

if TYPE_CHECKING:
    from ..linker import ConceptLinker


def create_app(reranker: UMLSReranker, serving: ServingArguments, linker: ConceptLinker | None = None) -> FastAPI:
    """Make the service for one process; on shutdown, admitted requests are answered first.

    Args:
        reranker: the reranker.
        serving: the limits.
        linker: linker with the same reranker; None: no linking.

    Raises:
        UserError: the limits contradict each other.
    """
    engine = Engine(reranker, serving, linker)
    metrics = ServiceMetrics(lambda: engine.batcher.waiting, lambda: engine.in_flight)
    metrics.registry.register(StatisticsCollector(reranker.statistics))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(engine.close)

    # Otherwise /openapi.json describes errors in FastAPI's format.
    errors: dict[int | str, dict[str, Any]] = {
        "4XX": {"model": ErrorAnswer, "description": "Refused"},
        "5XX": {"model": ErrorAnswer, "description": "Failed"},
    }
    app = FastAPI(
        title="umls_reranker",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=errors,
    )
    app.state.engine = engine
    add_error_answers(app)

    @app.post("/rerank")
    async def rerank(request: RerankRequest) -> JSONResponse:
        """Texts by score, the highest first: a calibrated probability, or raw log-odds; all texts are scored."""
        if not request.texts:
            raise Refusal(400, "Empty", "`texts` cannot be empty")
        with engine.admitted(1, len(request.texts)):
            await require_fit(request)
            texts = [{"name": text, "index": index} for index, text in enumerate(request.texts)]
            (ranked,) = await engine.rank([(request.query, texts, None, "", "", True)])
        if request.raw_scores and any(item.logit is None for item in ranked):
            reason = "this model does not score texts with a cross-encoder, so there are no raw scores"
            raise Refusal(422, "Validation", f"{reason}; remove raw_scores")
        rows = [
            {"index": item.candidate["index"], "score": item.logit if request.raw_scores else item.score}
            | ({"text": item.name} if request.return_text else {})
            for item in ranked
        ]
        return JSONResponse(sorted(rows, key=lambda row: -row["score"]))

    async def require_fit(request: RerankRequest) -> None:
        """Refuse texts that are too long if the request forbids truncation."""
        may_cut = serving.auto_truncate if request.truncate is None else request.truncate
        on_the_left = request.truncation_direction.lower() == "left"
        if may_cut and not on_the_left:
            return
        if cut := await run_in_threadpool(engine.cut_pairs, request.query, request.texts):
            way_out = "this model truncates on the right only" if may_cut else "set truncate or shorten them"
            most = reranker.template.max_length
            raise Refusal(
                413, "Validation", f"Input validation error: {cut} texts have more than {most} tokens; {way_out}"
            )

    @app.post("/rank")
    async def rank(request: RankRequest) -> JSONResponse:
        """Candidates of each mention, the top candidate first, with probability, margin, tier and decision."""
        with engine.admitted(len(request.mentions), max(len(one.candidates) for one in request.mentions)):
            calls = [
                (one.mention, [item.model_dump() for item in one.candidates], one.entity_type, one.left, one.right)
                for one in request.mentions
            ]
            ranked = await engine.rank(calls)
        return JSONResponse([[item.as_row() for item in items] for items in ranked])

    @app.post("/link")
    async def link(request: LinkRequest) -> JSONResponse:
        """Concepts of each mention, the top candidate first, with probability, margin, tier and decision."""
        with engine.admitted(len(request.mentions)):
            linked = await engine.link(request)
        return JSONResponse([[item.as_row() for item in items] for items in linked])

    @app.get("/health")
    async def health() -> Response:
        """200 while requests are accepted, else 503."""
        if not engine.is_open:
            raise Refusal(503, "Unhealthy", "the service is stopping")
        return Response()

    @app.get("/metrics")
    async def exposition() -> Response:
        """Figures of the service and of the reranker's statistics in the text format of Prometheus."""
        return Response(metrics.exposition(), media_type=metrics.MEDIA_TYPE)

    @app.get("/info")
    async def info() -> dict[str, Any]:
        """The served model and the limits."""
        scorer = reranker.scorer
        return {
            "model_id": serving.served_model,
            "model_sha": serving.served_revision or None,
            # Clients expect text and numbers here. Without a network, only the length of a request limits its texts.
            "model_dtype": scorer.dtype if scorer else "float64",
            "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
            "max_concurrent_requests": serving.max_queue,
            "max_input_length": scorer.template.max_length if scorer else MAX_BODY_BYTES,
            "max_batch_tokens": scorer.token_budget if scorer else MAX_BODY_BYTES,
            "max_batch_requests": serving.batch_mentions,
            "max_client_batch_size": serving.max_candidates,
            "auto_truncate": serving.auto_truncate,
            "tokenization_workers": 1,
            "version": __version__,
            "weights_sha256": reranker.info["sha256"].get(WEIGHTS),
            "links": linker is not None,
        }

    app.add_middleware(BodyLimit, most=MAX_BODY_BYTES, seconds=READ_SECONDS)
    app.add_middleware(
        Watch,
        metrics=metrics,
        paths={route.path for route in app.routes if isinstance(route, Route)},
        revision=served_version(reranker, serving),
    )
    return app


def served_version(reranker: UMLSReranker, serving: ServingArguments) -> str:
    """Name of the model's version: the revision, or the first digits of the manifest's hash."""
    return serving.served_revision or version_digits(reranker.info)
