"""What can go wrong between here and the Hub, each as one line that says what to do."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import UserError

__all__ = ["SIGN_IN", "hub_calls", "signed_in", "without_password"]

SIGN_IN = "set HF_TOKEN or run `hf auth login`"
ADVICE = {
    401: f"the token is not valid, so {SIGN_IN} again",
    403: f"the token lacks the permission, so {SIGN_IN} with one that has it",
    409: "the tag was made meanwhile, so choose a new one",
    412: "someone published to main meanwhile; look at what they did, then run again",
    429: "too many requests, so wait and run again",
}


# HF_ENDPOINT may be a mirror with user and password in its address, and these write the addresses they ask.
LOGGERS = ("httpx", "httpx2", "huggingface_hub.file_download", "huggingface_hub.utils._http")


def without_password(text: str) -> str:
    """A text in which addresses have lost ``user:password@``."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


def _hide_password(record: logging.LogRecord) -> bool:
    record.msg, record.args = without_password(record.getMessage()), ()
    return True


for _name in LOGGERS:
    logging.getLogger(_name).addFilter(_hide_password)


@contextmanager
def hub_calls(
    repo_id: str, token: str | bool | None, *, publishing: bool = False, outcome: str = ""
) -> Iterator[None]:
    """Turn what the Hub client raises into one line that says what to do; `outcome` is added to it."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    # httpx.HTTPError in huggingface_hub 1.x, httpx2.HTTPError in 2.x.
    http_error = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
    try:
        yield
    except (http_error, LocalEntryNotFoundError, ConnectionError, RuntimeError, ValueError) as error:
        reason = _reason(error, repo_id, signed_in=signed_in(token), publishing=publishing)
        # Not from the error, whose text may hold the password.
        raise UserError(without_password(" ".join((reason + outcome).split()))) from None


def _reason(error: BaseException, repo_id: str, *, signed_in: bool, publishing: bool) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    # The client wraps: "not in the cache" around "cannot connect", "error while uploading" around "connection broke".
    while isinstance(error, (LocalEntryNotFoundError, RuntimeError)) and error.__cause__ is not None:
        error = error.__cause__
    hub = f"the Hub at {constants.ENDPOINT}"
    if isinstance(error, GatedRepoError):
        return f"{repo_id} is gated; ask for access at {constants.ENDPOINT}/{repo_id}, then {SIGN_IN}"
    if isinstance(error, RepositoryNotFoundError):
        if signed_in:
            return f"{hub} has no repo {repo_id} that this token may use; check the name and the token's access"
        return f"{hub} has no public repo {repo_id}; check the name, or if it is private {SIGN_IN}"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        advice = ADVICE.get(status, "try again later" if status >= 500 else "check the names and the token")
        return f"{hub} answered {status} ({error.server_message or 'without a reason'}); {advice}"
    if isinstance(error, (OfflineModeIsEnabled, LocalEntryNotFoundError)):
        if publishing:
            return "HF_HUB_OFFLINE is set; unset it to publish"
        return (
            f"{repo_id} is not complete in the local cache and HF_HUB_OFFLINE is set; unset it or give a local folder"
        )
    if isinstance(error, (ValueError, RuntimeError)):
        return f"{hub} or its client refused {repo_id}: {error}"
    reason = f"no connection to {hub} ({type(error).__name__}: {error}); check the network and HF_ENDPOINT"
    if publishing:
        return f"{reason}, then run again"
    return f"{reason}, or give a local folder; HF_HUB_OFFLINE=1 uses what is in the cache without asking the Hub"


def signed_in(token: str | bool | None) -> bool:
    """Whether the Hub client will send a token: the one given, or that of the environment or `hf auth login`."""
    from huggingface_hub import get_token

    return token is not False and bool(token if isinstance(token, str) else get_token())
