"""Modules that are not found, as where they are not installed: code for ``sitecustomize.py`` or a
script.
"""

ABSENT = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            return None
        return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""


def absent(names) -> str:
    """Code after which modules of these names are not found."""
    return ABSENT.format(names=tuple(names))
