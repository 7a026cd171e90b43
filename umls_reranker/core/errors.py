"""The exception for problems that users can fix, and warnings at their own line of code."""

from __future__ import annotations

import sys
import warnings

PACKAGE = __name__.partition(".")[0]


class UserError(Exception):
    """A problem in the input, recipe or environment that the user can fix; the message is one line and says how.

    Commands print ``error: MESSAGE`` without a traceback and exit with code 2.
    """


def warn_caller(message: str) -> None:
    """Warn at the line that called this package, however many of its own calls lie between."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
