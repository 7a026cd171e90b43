"""The site: it builds without a warning, and its reference has every name that is exported or
imported by a guide. What the first hour of the developer notes names exists.
"""

import ast
import re
import subprocess
import sys
import zlib
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import pytest
from test_pages import PAGES, blocks_of

import umls_reranker

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.extra
def test_the_reference_has_every_name_that_is_exported_or_imported_by_a_guide(tmp_path):
    pytest.importorskip("sphinx", reason="needs the extra docs")
    options = ["--fail-on-warning", "--keep-going", "--quiet", "--conf-dir", "docs"]
    command = [sys.executable, "-m", "sphinx", *options, ".", str(tmp_path)]
    built = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert built.returncode == 0, built.stderr
    lines = (
        zlib.decompress((tmp_path / "objects.inv").read_bytes().split(b"\n", 4)[4])
        .decode()
        .splitlines()
    )
    documented = {
        name.rpartition(".")[2]
        for name, kind, *_ in map(str.split, lines)
        if kind.startswith("py:")
    }
    code = [
        block.text for page in PAGES for block in blocks_of(page)[0] if block.language == "python"
    ]
    imports = [
        node
        for text in code
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom)
    ]
    used = {
        name.name
        for node in imports
        if node.module.startswith("umls_reranker")
        for name in node.names
    }
    assert used | {name for name in umls_reranker.__all__ if not name.startswith("_")} <= documented


def test_the_first_hour_names_files_and_functions_that_exist():
    page = (ROOT / "docs" / "internal" / "first-hour.md").read_text(encoding="utf-8")
    places = re.findall(r"`(\w+/[\w/]+)\.py(?::([\w.]+))?`", page)
    assert len(places) > 30
    for path, name in places:
        if path.startswith("tests/"):
            assert (ROOT / f"{path}.py").is_file(), path
            continue
        module = import_module(f"umls_reranker.{path.replace('/', '.')}")
        assert not name or attrgetter(name)(module) is not None, f"{path}: {name}"
