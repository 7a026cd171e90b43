"""Which pages of browsers may read answers, and by which addresses they may ask for them.

Any page that a user visits can send requests to services of his own machine. What a service says of
a licensed dictionary must not be read by such a page, neither directly (CORS), nor as a script
(JSONP), nor under a name of the page's own that it lets point to this machine (DNS rebinding).

Starlette's ``TrustedHostMiddleware`` reads neither an IPv6 address (0.46) nor the number of a port
(1.10), and its ``CORSMiddleware`` answers pages that may not read the answer.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ...core.errors import UserError
from ...serving.arguments import ServingArguments
from .refusals import error_answer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

ORIGIN = re.compile(r"https?://[^/?#\s@*]+")
# The value of a header ``Host``: a name or an address, and perhaps a port.
HOST = re.compile(
    r"(?:(?P<name>[a-z0-9.-]+)|\[(?P<ipv6>[a-f0-9:]+)\])(?::(?P<port>[0-9]{1,5}))?",
    re.IGNORECASE,
)
MOST_PORT = 65535
OTHER_HOST = (
    "the Host of the request is neither this machine nor that of public_url, by which others "
    "reach the service"
)
# A script of another page must not run an answer, and nothing may keep one.
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Vary": "Origin"}


class BrowserAccess:
    """Admits requests by their host and origin.

    Args:
        serving: names the pages (``allow_origin``) and the service's own URL (``public_url``).

    Raises:
        UserError: one of these is no URL of its kind.
    """

    def __init__(self, serving: ServingArguments) -> None:
        for origin in serving.allow_origin:
            if not ORIGIN.fullmatch(origin):
                raise UserError(
                    f"allow_origin: {origin!r} is no address of a page; write scheme, host and "
                    "port, such as http://127.0.0.1:3333"
                )
        self.origins = {origin.lower() for origin in serving.allow_origin}
        self.public_url = (serving.public_url or "").rstrip("/")
        self.public_host = None
        # Only then no proxy, and no other machine, knows the service by a name of its own.
        self.is_of_this_machine = _is_loopback_name(serving.host) and not self.public_url
        if self.public_url:
            parts = urlsplit(self.public_url)
            origin = f"{parts.scheme}://{parts.netloc}"
            if not ORIGIN.fullmatch(origin) or parts.query or parts.fragment:
                raise UserError(
                    f"public_url: {serving.public_url!r} is no URL of a service; write it as "
                    "https://host:port/path"
                )
            self.public_host = parts.netloc.lower()

    def admit(self, request: Request) -> dict[str, str]:
        """The headers of the answer to a request.

        Raises:
            HTTPException: the request is refused; the message says what would admit it.
        """
        if not self.is_own_host(request.headers.get("host", "")):
            raise HTTPException(403, OTHER_HOST)
        if "callback" in request.query_params:
            raise HTTPException(400, "callback: answers are JSON, never scripts; use CORS")
        origin = request.headers.get("origin")
        if origin is None:
            return HEADERS
        if origin.lower() not in self.origins:
            raise HTTPException(
                403, "pages of this Origin may not read the service; allow_origin names those"
            )
        return HEADERS | {"Access-Control-Allow-Origin": origin}

    def is_own_host(self, host: str) -> bool:
        """Whether a header ``Host`` names this machine, or the service as ``public_url`` does."""
        return host.lower() == self.public_host or _is_loopback(host)

    def url(self, request: Request) -> str:
        """The URL of the service, as the sender of a request reaches it, without a slash at its
        end.
        """
        return self.public_url or f"{request.url.scheme}://{request.headers['host']}"


class HostMiddleware:
    """Refuses requests, on every path, whose ``Host`` is not the service's own.

    Args:
        app: the application.
        access: knows the service's hosts.
    """

    def __init__(self, app: ASGIApp, access: BrowserAccess) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        app = self.app
        if scope["type"] == "http":
            host = Headers(scope=scope).get("host", "")
            if not self.access.is_own_host(host):
                app = error_answer(403, OTHER_HOST)
        await app(scope, receive, send)


def _is_loopback(host: str) -> bool:
    """Whether a header ``Host`` names this machine."""
    match = HOST.fullmatch(host)
    if match is None or int(match["port"] or 0) > MOST_PORT:
        return False
    return _is_loopback_name(match["name"] or match["ipv6"])


def _is_loopback_name(name: str) -> bool:
    """Whether a name, or an address without brackets, is that of this machine."""
    if name.lower() == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
