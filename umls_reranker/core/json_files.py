"""JSON files: written beside and renamed, read with an error that names the file."""

import json
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .errors import UserError
from .files import written
from .version import __version__


def write_json(path: Path, content: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Write JSON atomically; numbers that are not finite become null.

    Args:
        path: the file.
        content: what to write.
        default: converts values without a JSON form; None raises TypeError.
    """
    text = json.dumps(
        strict(content), indent=2, ensure_ascii=False, allow_nan=False, default=default
    )
    with written(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def strict(content: Any) -> Any:
    """The content with null in place of numbers that are not finite, which JSON lacks."""
    if isinstance(content, dict):
        return {key: strict(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [strict(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_json(path: Path) -> Any:
    """Read JSON; a missing or damaged file is a `UserError` that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a file; write it again") from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not valid JSON ({error}); it was modified or truncated, write it again"
        ) from None


class RepeatedKey(dict[str, Any]):
    """An object of JSON that has a key more than once, of which it holds the last value.

    Attributes:
        key: the key.
    """

    key = ""


def marking_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON by its pairs, as an ``object_pairs_hook``."""
    content = dict(pairs)
    if len(content) == len(pairs):
        return content
    keys = [key for key, _ in pairs]
    repeated = RepeatedKey(content)
    repeated.key = next(key for key in keys if keys.count(key) > 1)
    return repeated


def require_finite(path: Path, content: Any, key: str = "") -> None:
    """Refuse numbers beyond a float, which Python reads, though no file is written with them.

    Args:
        path: the file.
        content: its content, or a part of it.
        key: the keys that lead to the part, with dots between them.

    Raises:
        UserError: a number is NaN, infinite, or an integer too large for a float.
    """
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(content, dict):
        parts = content.items()
    elif isinstance(content, list):
        parts = enumerate(content)
    elif isinstance(content, int | float) and not abs(content) <= sys.float_info.max:
        raise UserError(
            f"{path}: {key}: the number is beyond a float; the file was modified, use another copy"
        )
    for name, part in parts:
        require_finite(path, part, f"{key}.{name}".lstrip("."))


def require_format(path: Path, content: Any, version: int, command: str) -> None:
    """Refuse a file with another ``schema_version``.

    Args:
        path: the file.
        content: its content.
        version: the required version.
        command: the subcommand that writes the file.

    Raises:
        UserError: it is newer, older or missing; the message says what to do.
    """
    actual = content.get("schema_version") if isinstance(content, dict) else None
    if type(actual) is int and actual > version:
        raise UserError(
            f"{path} has schema_version {actual}, newer than umls_reranker {__version__} can read; "
            "upgrade: pip install -U umls_reranker"
        )
    if actual != version or type(actual) is not int:
        raise UserError(
            f"{path} has schema_version {actual!r}, not {version}; "
            f"run umls-reranker {command} again"
        )
