"""Refuse more statements than the ceiling: ``python tests/statements.py CEILING FOLDER ...``.

Statements are what a reader has to follow: those of the syntax tree, without docstrings.
"""

import ast
import sys
from pathlib import Path


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def statements(text: str) -> int:
    """Number of statements of a module."""
    nodes = ast.walk(ast.parse(text))
    return sum(isinstance(node, ast.stmt) and not is_docstring(node) for node in nodes)


if __name__ == "__main__":
    ceiling = int(sys.argv[1])
    files = [path for folder in sys.argv[2:] for path in Path(folder).rglob("*.py")]
    count = sum(statements(path.read_text(encoding="utf-8")) for path in files)
    print(f"{count:,} statements, at most {ceiling:,}")
    sys.exit(count > ceiling)
