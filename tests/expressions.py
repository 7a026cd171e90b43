"""Refuse more code that must be read twice than there may be:
``python tests/expressions.py DENSE WALRUSES TERNARIES LONG FOLDER ...``, the most of each kind.

* dense: a simple statement of ten or more operations, such as calls, operators, subscripts and
  loops of comprehensions. Of a table over several lines the densest field counts.
* walrus: an assignment inside an expression, outside a plain test of ``if`` or ``while``.
* ternary: one that is not the whole value of an assignment or of ``return``.
* long: a function of more than 55 lines of code; docstrings, comments and blank lines do not count.
"""

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

KINDS = ("dense", "walrus", "ternary", "long")
MOST_LINES = 55
NO_CODE = (
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
)
MOST_OPERATIONS = 9
OPERATIONS = (
    ast.BinOp,
    ast.BoolOp,
    ast.Call,
    ast.Compare,
    ast.IfExp,
    ast.Lambda,
    ast.NamedExpr,
    ast.Subscript,
    ast.UnaryOp,
    ast.comprehension,
)
# What is read field by field if it has several lines; so is a call of several arguments.
DISPLAYS = (ast.Dict, ast.List, ast.Set, ast.Tuple)
FEWEST_ARGUMENTS = 3
WITH_A_VALUE = (ast.AnnAssign, ast.Assign, ast.Return)


class Place(NamedTuple):
    """A line where something of one of the `KINDS` begins."""

    kind: str
    line: int


def places(text: str) -> list[Place]:
    """What must be read twice in a module."""
    found = []
    plain = set()
    tree = ast.parse(text)
    lines = code_lines(text, tree)
    for node in ast.walk(tree):
        # A node comes before those inside it.
        if isinstance(node, (ast.If, ast.While)):
            plain.add(left_end(node.test))
        elif isinstance(node, WITH_A_VALUE):
            plain.add(node.value)
        has_body = hasattr(node, "body") or isinstance(node, ast.Match)
        is_simple = isinstance(node, ast.stmt) and not has_body
        if is_simple and operations(node) > MOST_OPERATIONS:
            found.append(Place("dense", node.lineno))
        if isinstance(node, ast.NamedExpr) and node not in plain:
            found.append(Place("walrus", node.lineno))
        if isinstance(node, ast.IfExp) and node not in plain:
            found.append(Place("ternary", node.lineno))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            own_lines = lines & set(range(node.lineno, node.end_lineno + 1))
            if len(own_lines) > MOST_LINES:
                found.append(Place("long", node.lineno))
    return sorted(found, key=lambda place: place.line)


def code_lines(text: str, tree: ast.Module) -> set[int]:
    """The numbers of the lines with code."""
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return lines


def left_end(test: ast.expr) -> ast.expr:
    """What a test compares or negates: the walrus of ``if (a := f()) is None`` is plain."""
    while True:
        if isinstance(test, ast.Compare):
            test = test.left
        elif isinstance(test, ast.UnaryOp):
            test = test.operand
        else:
            return test


def operations(node: ast.AST) -> int:
    """Operations of a statement without its annotations; of a table, those of its densest field."""
    counts = [operations(part) for part in parts(node)]
    inside = max(counts, default=0) if is_table(node) else sum(counts)
    return inside + isinstance(node, OPERATIONS)


def parts(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes directly below one, without annotations."""
    for name, value in ast.iter_fields(node):
        if name == "annotation":
            continue
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.AST):
                yield part


def is_table(node: ast.AST) -> bool:
    """Whether it is a display, or a call of several arguments, over several lines."""
    if not isinstance(node, (*DISPLAYS, ast.Call)):
        return False
    is_long = True
    if isinstance(node, ast.Call):
        is_long = len(node.args) + len(node.keywords) >= FEWEST_ARGUMENTS
    return is_long and node.end_lineno > node.lineno


def main() -> int:
    limits = dict(zip(KINDS, map(int, sys.argv[1:5]), strict=True))
    found = []
    for folder in sys.argv[5:]:
        for path in sorted(Path(folder).rglob("*.py")):
            found += [(path, place) for place in places(path.read_text(encoding="utf-8"))]
    code = 0
    for kind, limit in limits.items():
        lines = [f"{path}:{place.line}: {kind}" for path, place in found if place.kind == kind]
        print(f"{len(lines)} of kind {kind}, at most {limit}")
        if len(lines) > limit:
            print("\n".join(lines))
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
