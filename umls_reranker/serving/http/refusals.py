"""Refused requests, in the error format of Text Embeddings Inference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from ...core.errors import UserError
from .micro_batching import QueueFull

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

# These replace "There was an error parsing the body" and "Not Found".
CLEARER = {
    400: "the body cannot be read; send uncompressed JSON in UTF-8 without deep nesting",
    404: "unknown path; GET /openapi.json lists all paths",
}


class ErrorAnswer(BaseModel):
    """The body of every error."""

    error: str
    error_type: str


class Refusal(HTTPException):
    """A refused request.

    Args:
        status: HTTP status.
        kind: ``error_type``: Validation, Empty, Overloaded, Backend or Unhealthy.
        message: one line.
    """

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(status, message)
        self.kind = kind


@contextmanager
def as_refusal() -> Iterator[None]:
    """Turn exceptions of linker, batcher and reranker into a `Refusal`."""
    try:
        yield
    except QueueFull as error:
        raise Refusal(429, "Overloaded", str(error)) from None
    except (TypeError, ValueError) as error:
        raise Refusal(422, "Validation", str(error)) from None
    except UserError as error:
        raise Refusal(424, "Backend", str(error)) from None


def error_answer(status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Make an error in this format; arguments are those of `Refusal`."""
    return JSONResponse({"error": message, "error_type": kind}, status, headers)


def add_error_answers(app: FastAPI) -> None:
    """Make the application answer every refusal with ``error`` and ``error_type``."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower().rpartition("/")[2]
        if kind.rpartition("+")[2] != "json":
            return error_answer(415, "Validation", "expected a request with `Content-Type: application/json`")
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return error_answer(400, "Validation", f"the body is not valid JSON: {first['ctx']['error']}")
        # Without Pydantic's names for the alternatives of a field.
        location = (str(key) for key in first["loc"][1:] if isinstance(key, int) or key.isidentifier())
        field = ".".join(location) or "the body"
        return error_answer(422, "Validation", f"{field}: {first['msg'].removeprefix('Value error, ')}")

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error, Refusal):
            return error_answer(error.status_code, error.kind, error.detail)
        message = CLEARER.get(error.status_code, error.detail)
        return error_answer(error.status_code, "Validation", message, error.headers)
