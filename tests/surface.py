"""Print what a user and a reader must know: ``python tests/surface.py``. Nothing is refused.

Statements are those of the syntax tree, without docstrings and imports; options are the lines of
each command's ``--help``.
"""

import ast
import contextlib
import io
import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "umls_reranker"


def statements(text: str) -> int:
    """Number of statements of a module."""
    nodes = ast.walk(ast.parse(text))
    return sum(isinstance(node, ast.stmt) and not is_left_out(node) for node in nodes)


def is_left_out(node: ast.stmt) -> bool:
    """Whether it is an import or a docstring."""
    is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_docstring or isinstance(node, (ast.Import, ast.ImportFrom))


def statements_by_room() -> Counter[str]:
    """Statements of the package by its folders, and of the scripts."""
    counts: Counter[str] = Counter()
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        folder = path.relative_to(ROOT).parts[:-1]
        counts[folder[1] if len(folder) > 1 else folder[0]] += statements(path.read_text("utf-8"))
    return counts


def help_of(command: str) -> str:
    """What ``umls-reranker COMMAND --help`` prints."""
    from umls_reranker.__main__ import dispatch

    sys.argv = ["umls-reranker", command, "--help"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        dispatch()
    return printed.getvalue()


def main() -> None:
    counts = statements_by_room()
    rooms = ", ".join(f"{room} {count:,}" for room, count in counts.most_common())
    print(f"{counts.total():,} statements without imports: {rooms}")
    from umls_reranker.__main__ import COMMANDS
    from umls_reranker.pipeline.recipe import KEYS, ONLY_OPTIONS, training_keys

    keys = len(training_keys()) + len(KEYS.keys() - {*ONLY_OPTIONS})
    options = {name: re.findall(r"^  (--?\w+)", help_of(name), re.MULTILINE) for name in COMMANDS}
    total = sum(map(len, options.values()))
    print(f"{keys} recipe keys, {len(COMMANDS)} commands with {total} options")


if __name__ == "__main__":
    main()
