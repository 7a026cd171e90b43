"""Answers to requests that are refused: ``{"error": message, "error_type": kind}``.

They are those of Text Embeddings Inference, so that its clients understand them.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from .requests import refusal

# Status -> ``error_type``, of those that say more than the kind of a refusal.
ERROR_TYPES = {424: "Backend", 429: "Overloaded", 500: "Backend", 503: "Overloaded"}
# Message of the framework -> one that says what to do.
CLEARER = {
    "There was an error parsing the body": (
        "the body cannot be read; send uncompressed JSON in UTF-8, without deep nesting or numbers "
        "of thousands of digits"
    ),
    "Not Found": "unknown path; GET /openapi.json lists all paths",
}


def error_answer(
    status: int, message: str, headers: Mapping[str, str] | None = None, kind: str = "Validation"
) -> JSONResponse:
    """The answer with this status; ``error_type`` is `kind` unless `ERROR_TYPES` has another."""
    return JSONResponse(
        {"error": message, "error_type": ERROR_TYPES.get(status, kind)}, status, headers
    )


async def invalid_body(request: Request, error: RequestValidationError) -> JSONResponse:
    """The answer to a body that is not what the path takes."""
    first = error.errors()[0]
    is_of_body = first["loc"][0] == "body"
    if is_of_body and not _is_json(request.headers.get("content-type", "")):
        return error_answer(415, "expected a request with `Content-Type: application/json`")
    location = first["loc"][1:]
    if first["type"] == "json_invalid":
        # Here it is a position in the text of the body, which no message names.
        location = ()
    status, message = refusal(first, location)
    return error_answer(status, message)


def _is_json(content_type: str) -> bool:
    """Whether a content type is JSON or a kind of it, such as ``application/ld+json``."""
    media_type = content_type.partition(";")[0].strip().lower()
    subtype = media_type.rpartition("/")[2]
    return subtype.rpartition("+")[2] == "json"


async def refused(request: Request, error: HTTPException) -> JSONResponse:
    """The answer to a request that the service or the framework refuses."""
    return error_answer(error.status_code, CLEARER.get(error.detail, error.detail), error.headers)
