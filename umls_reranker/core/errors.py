"""The exception for problems that users can fix."""

__all__ = ["UserError"]


class UserError(Exception):
    """Raised for problems in the input, recipe or environment that users can fix; the message is one line and says
    how.

    Scripts print ``error: MESSAGE`` without a traceback and exit with code 2 (`umls_reranker.core.script`).
    """
