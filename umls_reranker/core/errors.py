"""Errors that a user can fix, and warnings that name the caller's line."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

PACKAGE = __name__.partition(".")[0]


class UserError(Exception):
    """A problem in the input, recipe or environment that the user can fix.

    The message is one line and says how. Commands print ``error: MESSAGE`` without a traceback and
    exit with code 2.
    """


class TooLittleData(UserError):
    """Too few documents, mentions or errors to fit or certify something; callers may do less."""


class NoConnection(UserError):
    """A server cannot be reached."""


class CollectedErrors(list[str]):
    """Messages of errors that are told together."""

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Add the message of a `UserError` that is raised here to these, and go on after it.

        Without a connection all are raised at once: whatever else is to be fetched would fail, too.
        """
        try:
            yield
        except UserError as error:
            self.append(str(error))
            if isinstance(error, NoConnection):
                self.raise_any()

    def raise_any(self) -> None:
        """Raise one `UserError` with all messages, if there are any."""
        if self:
            raise UserError("; ".join(dict.fromkeys(self)))


def warn_caller(message: str) -> None:
    """Warn at the line that called this package, however many of its own calls lie between."""
    frame = sys._getframe(1)
    level = 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE:
        frame = frame.f_back
        level += 1
    warnings.warn(message, stacklevel=level)


def printable(text: str) -> str:
    """The text with escapes in place of characters that a terminal would obey, or not show.

    Names of files may have such, and messages name files.
    """
    return "".join(map(_printable_character, text))


def _printable_character(character: str) -> str:
    """The character, or its escape."""
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


class Malformed(Exception):
    """A malformed piece of a file: `reason` is counted, `detail` completes the message."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}{detail}")
        self.reason = reason
