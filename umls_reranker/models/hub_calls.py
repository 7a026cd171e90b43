"""Calls of the Hugging Face Hub, whose client's errors become one line that says what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from ..core.errors import UserError
from ..core.locators import portable_locator
from ..core.version import __version__

# As fsspec and `datasets` write it; some revision names contain slashes.
HUB_DATASET = re.compile(
    r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/\w+/[\w.-]+|"
    r"[^/@]+))?(?P<inner>/[^@]*)?"
)
# httpx.HTTPError in huggingface_hub 1.x, httpx2.HTTPError in 2.x.
HTTP_ERROR: Any = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
HUB_ERRORS: tuple[type[Exception], ...] = (
    HTTP_ERROR,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    ConnectionError,
)
# The client raises RuntimeError around what broke an upload.
CAUGHT: tuple[type[Exception], ...] = (*HUB_ERRORS, RuntimeError)

SIGN_IN = "set HF_TOKEN or run `hf auth login`"
ADVICE = {
    401: f"the token is invalid; {SIGN_IN} again",
    403: f"the token lacks permission; {SIGN_IN} with one that has it",
    409: "someone else wrote to the repo in the meantime; "
    "if the tag is taken, choose another, otherwise run again",
    412: "someone published to main in the meantime; review that version, then run again",
}


@contextmanager
def hub_calls(
    repo_id: str, token: str | bool | None = None, *, outcome: str = ""
) -> Iterator[None]:
    """Turn errors of the Hub client into one line that says what to do, plus `outcome`."""
    try:
        yield
    except CAUGHT as error:
        cause: BaseException = error
        # The client wraps: "not in the cache" around "cannot connect", "error while uploading"
        # around "it broke".
        while (
            isinstance(cause, (LocalEntryNotFoundError, RuntimeError))
            and cause.__cause__ is not None
        ):
            cause = cause.__cause__
        if not isinstance(cause, HUB_ERRORS):
            raise
        raise UserError(_reason(cause, repo_id, signed_in(token)) + outcome) from None


def _reason(error: BaseException, repo_id: str, is_signed_in: bool) -> str:
    hub = f"the Hub at {portable_locator(constants.ENDPOINT)}"
    if isinstance(error, GatedRepoError):
        return f"{repo_id} is gated on {hub}; request access there, then {SIGN_IN}"
    if isinstance(error, RepositoryNotFoundError):
        kind = (
            "repo of this name that the token can access"
            if is_signed_in
            else "public repo of this name"
        )
        return f"{hub} has no {kind}: {repo_id}; check the name or {SIGN_IN}"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        advice = ADVICE.get(status, "check the names and the token, or try again later")
        return f"{hub} answered {status} ({error.server_message or 'without a reason'}); {advice}"
    if isinstance(error, (OfflineModeIsEnabled, LocalEntryNotFoundError)):
        return (
            f"{repo_id} is not in the cache, and HF_HUB_OFFLINE or local_files_only is set; "
            "give a local folder"
        )
    if isinstance(error, HFValidationError):
        return f"{hub} or its client refused {repo_id}: {error}"
    return (
        f"no connection to {hub} ({type(error).__name__}); check the network and HF_ENDPOINT, "
        "or use local folders"
    )


def hub_api(token: str | bool | None) -> HfApi:
    """The Hub client; its requests name this library."""
    return HfApi(token=token, library_name="umls_reranker", library_version=__version__)


def signed_in(token: str | bool | None) -> bool:
    """Whether the Hub client will send a token: the given one, the environment's, or a login's."""
    if token is False:
        return False
    sent_token = token if isinstance(token, str) else get_token()
    return bool(sent_token)
