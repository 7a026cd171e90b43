"""The Reconciliation Service API 0.2, by which OpenRefine asks for concepts.

The protocol is that of https://reconciliation-api.github.io/specs/0.2. A type is a semantic type,
the properties ``left`` and ``right`` are the text around a mention. ``score`` is 100 times the
probability, and ``match`` is the tier ``high``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from html import escape
from os.path import expanduser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import Field, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from ...calibration.thresholds import TIERS
from ...linking.search import with_id_first
from ...lists.columns import length_fault
from ...serving.arguments import ServingArguments
from ...vocab.concept_codes import ConceptCodes
from .browsers import BrowserAccess
from .entities import Entities
from .requests import (
    MAX_MENTIONS,
    ExtendRequest,
    LinkedMention,
    ReconcileQuery,
    Text,
    refusal,
    too_many,
)

if TYPE_CHECKING:
    from ...linking.linked_concept import LinkedConcept
    from ...linking.linker import ConceptLinker

PATH = "/reconcile"
SEMANTIC_NETWORK = "https://uts.nlm.nih.gov/uts/umls/semantic-network/"
# What is known about a mention besides its text, and may be in columns beside it.
CONTEXTS = {"left": "text before the term", "right": "text after the term"}
# A feature is a number: how high each tier is.
TIER_HEIGHTS = {tier: number for number, tier in enumerate(reversed(TIERS))}
# Of lists that people read.
MOST_TYPES = 30
MOST_SUGGESTED = 10
PREVIEW_WIDTH = 430
PREVIEW_HEIGHT = 200
# A preview runs nothing and loads nothing.
PREVIEW_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
FORM = "application/x-www-form-urlencoded"
FieldContent = TypeVar("FieldContent")


class Linking(Protocol):
    """What links: `app.Service`."""

    serving: ServingArguments
    linker: ConceptLinker | None
    access: BrowserAccess

    def admitted(self, mentions: int) -> AbstractContextManager[None]:
        """Admit a request of so many mentions."""

    def require_linker(self) -> ConceptLinker:
        """The linker; without one the request is refused."""

    def linked(
        self, mentions: Sequence[LinkedMention], document: str | None = None, top: int = 5
    ) -> Awaitable[dict[int, list[LinkedConcept]]]:
        """Number -> the first concepts of each mention that can be linked, the best first."""

    def found(
        self, mentions: Sequence[LinkedMention]
    ) -> Awaitable[dict[int, list[dict[str, Any]]]]:
        """Number -> the candidates of each mention that can be linked, as retrieved."""


class Reconciliation:
    """The paths of the protocol.

    Args:
        service: links.

    Raises:
        UserError: the index has no codes that can be read.
    """

    def __init__(self, service: Linking) -> None:
        serving = service.serving
        self.service = service
        self.is_blind = serving.blind
        self.access = service.access
        self.most_queries = serving.max_request_mentions
        queries = Annotated[dict[Text, ReconcileQuery], Field(max_length=self.most_queries)]
        self.queries: TypeAdapter[dict[str, ReconcileQuery]] = TypeAdapter(queries)
        self.extension = TypeAdapter(ExtendRequest)
        self._codes = ConceptCodes()
        if service.linker is not None and serving.served_index:
            self._codes = ConceptCodes.load(Path(expanduser(serving.served_index)))

    def add_to(self, router: APIRouter) -> None:
        """Add the paths to the others."""
        answers: dict[str, Callable[..., Any]] = {
            PATH: self.reconcile,
            f"{PATH}/suggest/entity": self.suggest_entity,
            f"{PATH}/suggest/type": self.suggest_type,
            f"{PATH}/suggest/property": self.suggest_property,
            f"{PATH}/properties": self.proposed_properties,
            f"{PATH}/preview": self.preview,
        }
        for path, answer in answers.items():
            router.get(path)(answer)
        router.post(PATH)(self.reconcile)

    @cached_property
    def entities(self) -> Entities:
        """The concepts of the index."""
        return Entities(self.service.require_linker().concepts, self._codes)

    async def reconcile(self, request: Request) -> Response:
        """The manifest; or candidates for ``queries``, or columns for ``extend``."""
        headers = self.access.admit(request)
        fields = await _fields(request)
        if "queries" in fields:
            queries = _parsed_field(self.queries, "queries", fields["queries"])
            return JSONResponse(await self.candidates(queries), headers=headers)
        if "extend" in fields:
            wanted = _parsed_field(self.extension, "extend", fields["extend"])
            extension = await run_in_threadpool(self.extended, wanted)
            return JSONResponse(extension, headers=headers)
        manifest = await run_in_threadpool(self.manifest, self.access.url(request) + PATH)
        return JSONResponse(manifest, headers=headers)

    def manifest(self, url: str) -> dict[str, Any]:
        """What the service can do.

        Args:
            url: that of the paths.
        """
        suggest = {
            kind: {"service_url": url, "service_path": f"/suggest/{kind}"}
            for kind in ("entity", "type", "property")
        }
        preview = f"{url}/preview?id={{{{id}}}}"
        name = Path(self.service.serving.served_index or "dictionary").name
        if self.is_blind:
            name += ", blind"
        return {
            "versions": ["0.1", "0.2"],
            "name": f"umls_reranker, {name}",
            "identifierSpace": self.entities.namespace,
            "schemaSpace": SEMANTIC_NETWORK,
            "view": {"url": preview},
            "preview": {"url": preview, "width": PREVIEW_WIDTH, "height": PREVIEW_HEIGHT},
            "suggest": suggest,
            "extend": {
                "propose_properties": {"service_url": url, "service_path": "/properties"},
                "property_settings": [],
            },
            "defaultTypes": self.entities.types[:MOST_TYPES],
            "batchSize": self.most_queries,
        }

    async def candidates(self, queries: Mapping[str, ReconcileQuery]) -> dict[str, Any]:
        """The candidates of each query; none of a blank or too long one."""
        results: dict[str, Any] = {key: {"result": []} for key in queries}
        asked = {
            key: query
            for key, query in queries.items()
            if query.query.strip() and not length_fault(len(query.query)) and query.limit
        }
        if not asked:
            # So that a service without an index says so.
            self.service.require_linker()
            return results
        keys = [*asked]
        mentions = list(map(_mention_of_query, asked.values()))
        if self.is_blind:
            retrieved = await self.service.found(mentions)
            lists = [list(map(self._blind_result, items)) for items in retrieved.values()]
        else:
            top = max(query.limit for query in asked.values())
            linked = await self.service.linked(mentions, top=top)
            lists = [list(map(self._result, concepts)) for concepts in linked.values()]
        for key, candidates in zip(keys, lists, strict=True):
            results[key] = {"result": candidates[: asked[key].limit]}
        return results

    async def suggest_entity(self, request: Request, prefix: str = "", cursor: int = 0) -> Response:
        """Concepts whose names are like a text, as retrieved, or the one with this id."""
        headers = self.access.admit(request)
        text = prefix.strip()
        query = ReconcileQuery(query=text)
        found: list[Mapping[str, Any]] = []
        if text and not length_fault(len(text)):
            retrieved = await self.service.found([_mention_of_query(query)])
            concepts = self.service.require_linker().concepts
            found = await run_in_threadpool(with_id_first, concepts, text, retrieved[0])
        result = []
        for item in found[max(cursor, 0) :][:MOST_SUGGESTED]:
            concept = self.entities.entity(item)
            concept["notable"] = concept.pop("type")
            result.append(concept)
        return JSONResponse({"result": result}, headers=headers)

    async def suggest_type(self, request: Request, prefix: str = "") -> Response:
        """The semantic types whose name or id has a text."""
        headers = self.access.admit(request)
        types = await run_in_threadpool(lambda: self.entities.types)
        return JSONResponse({"result": _with_text(types, prefix)}, headers=headers)

    async def suggest_property(self, request: Request, prefix: str = "") -> Response:
        """The properties of queries whose name or id has a text."""
        headers = self.access.admit(request)
        properties = [{"id": key, "name": name} for key, name in CONTEXTS.items()]
        return JSONResponse({"result": _with_text(properties, prefix)}, headers=headers)

    async def proposed_properties(self, request: Request, type: str = "") -> Response:
        """The columns that can be added to reconciled cells, whatever their type."""
        headers = self.access.admit(request)
        columns = await run_in_threadpool(lambda: self.entities.columns)
        # OpenRefine shows these names as HTML.
        properties = [{"id": key, "name": escape(columns[key], False)} for key in columns]
        return JSONResponse({"properties": properties, "type": type}, headers=headers)

    def extended(self, wanted: ExtendRequest) -> dict[str, Any]:
        """The columns of reconciled cells; those of an unknown concept are empty."""
        lists: dict[str, Sequence[Any]] = {
            "extend.ids": wanted.ids,
            "extend.properties": wanted.properties,
        }
        for name, items in lists.items():
            if len(items) > self.most_queries:
                message = too_many(name, len(items), self.most_queries, MAX_MENTIONS)
                raise HTTPException(413, message)
        for number, column in enumerate(wanted.properties):
            if column.id not in self.entities.columns:
                raise HTTPException(
                    422,
                    f"extend.properties.{number}.id: there is no such column; "
                    f"{PATH}/properties lists all",
                )
        names = [column.id for column in wanted.properties]
        return {
            "meta": [{"id": name, "name": self.entities.columns[name]} for name in names],
            "rows": {
                cui: {
                    name: [{"str": text} for text in self.entities.texts(cui, name)]
                    for name in names
                }
                for cui in wanted.ids
            },
        }

    async def preview(self, request: Request, id: str) -> Response:
        """What is known about a concept, as a small page."""
        headers = self.access.admit(request)
        page = await run_in_threadpool(self.entities.page, id)
        if page is None:
            raise HTTPException(404, "the index has no such concept")
        return HTMLResponse(page, headers=headers | PREVIEW_HEADERS)

    def _result(self, concept: LinkedConcept) -> dict[str, Any]:
        """A ranked candidate."""
        features = {
            "margin": round(concept.margin, 4),
            "tier": TIER_HEIGHTS.get(concept.tier or ""),
            "accepted": concept.accepted,
        }
        return self.entities.entity(concept.candidate) | {
            "score": round(100.0 * concept.score, 2),
            "match": concept.rank == 1 and concept.tier == "high",
            "features": [
                {"id": name, "value": value}
                for name, value in features.items()
                if value is not None
            ],
        }

    def _blind_result(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """A candidate as retrieved; all have the same score, since the protocol wants one."""
        return self.entities.entity(item) | {"score": 0, "match": False}


async def _fields(request: Request) -> dict[str, str]:
    """The fields of the form that was posted, or of the address.

    Raises:
        HTTPException: what was posted is no form in UTF-8.
    """
    if request.method != "POST":
        return dict(request.query_params)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != FORM:
        raise HTTPException(415, f"expected a request with `Content-Type: {FORM}`")
    try:
        body = (await request.body()).decode()
        pairs = parse_qsl(body, keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise HTTPException(400, "the form cannot be read; send it in UTF-8") from None
    return dict(pairs)


def _parsed_field(adapter: TypeAdapter[FieldContent], name: str, text: str) -> FieldContent:
    """What a field of a form has in JSON.

    Raises:
        HTTPException: it is not what the adapter takes.
    """
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        status, message = refusal(dict(first), (name, *first["loc"]))
        raise HTTPException(status, message) from None


def _mention_of_query(query: ReconcileQuery) -> LinkedMention:
    """The mention that a query asks for."""
    contexts = {given.pid: _text_of_value(given.v) for given in query.properties}
    return LinkedMention(
        mention=query.query,
        entity_type=query.type,
        left=contexts.get("left", ""),
        right=contexts.get("right", ""),
    )


def _text_of_value(value: Any) -> str:
    """The text of a value of a property: of a reconciled cell its name, of several all."""
    if isinstance(value, list):
        return " ".join(map(_text_of_value, value))
    if isinstance(value, dict):
        return _text_of_value(value.get("name") or value.get("id"))
    return "" if value is None else str(value)


def _with_text(items: Iterable[Mapping[str, str]], text: str) -> list[Mapping[str, str]]:
    """The items whose name or id has a text, in any case."""
    wanted = text.strip().casefold()
    return [
        item
        for item in items
        if wanted in item["name"].casefold() or wanted in item["id"].casefold()
    ]
