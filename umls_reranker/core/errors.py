"""The one exception for what a user can cause and mend."""

__all__ = ["UserError"]


class UserError(Exception):
    """A fault in the input, the recipe or the surroundings; the message is one line that says what to do.

    Scripts print it as ``error: MESSAGE`` without a traceback and end with exit code 2 (`umls_reranker.core.script`).
    """
