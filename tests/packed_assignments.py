"""Name each assignment that packs several into one:
``python tests/packed_assignments.py FOLDER ...``.

Several names on the left need one call, name, attribute, item or await on the right, or a swap
(``a, b = b, a``). A chain (``a = b = x``) is refused too; ruff refuses the semicolon.
"""

import ast
import sys
from pathlib import Path

WHOLE = (ast.Call, ast.Name, ast.Attribute, ast.Subscript, ast.Await)


def is_packed(node: ast.AST) -> bool:
    if not isinstance(node, ast.Assign):
        return False
    names = node.targets[0]
    if len(node.targets) > 1 or not isinstance(names, (ast.Tuple, ast.List)):
        return len(node.targets) > 1
    if isinstance(node.value, ast.Tuple):
        is_swap = sorted(map(ast.unparse, names.elts)) == sorted(map(ast.unparse, node.value.elts))
        return not is_swap
    return not isinstance(node.value, WHOLE)


def packed_lines(text: str) -> list[int]:
    """The numbers of the lines on which packed assignments begin."""
    return sorted(node.lineno for node in ast.walk(ast.parse(text)) if is_packed(node))


if __name__ == "__main__":
    files = sorted(path for folder in sys.argv[1:] for path in Path(folder).rglob("*.py"))
    packed = [
        f"{path}:{line}"
        for path in files
        for line in packed_lines(path.read_text(encoding="utf-8"))
    ]
    for place in packed:
        print(f"{place}: one name a statement")
    sys.exit(bool(packed))
