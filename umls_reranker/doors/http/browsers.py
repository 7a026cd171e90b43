"""Which pages of browsers may read answers, and by which addresses they may ask for them.

Any page that a user visits can send requests to services of his own machine. What a service says of
a licensed dictionary must not be read by such a page, neither directly (CORS), nor as a script
(JSONP), nor under a name of the page's own that it lets point to this machine (DNS rebinding).
"""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request

from ...core.errors import UserError
from ...serving.arguments import ServingArguments

ORIGIN = re.compile(r"https?://[^/?#\s@*]+")
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
        host = request.headers.get("host", "")
        if host.lower() != self.public_host and not _is_loopback(host):
            raise HTTPException(
                403, "the Host of the request is neither this machine nor that of public_url"
            )
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

    def url(self, request: Request) -> str:
        """The URL of the service, as the sender of a request reaches it, without a slash at its
        end.
        """
        return self.public_url or f"{request.url.scheme}://{request.headers['host']}"


def _is_loopback(host: str) -> bool:
    """Whether a header ``Host`` names this machine."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
