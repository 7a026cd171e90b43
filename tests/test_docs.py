"""The site: it builds without a warning, and its reference has every name that a guide uses."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from test_pages import PAGES, blocks_of

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*ROOT.glob("umls_reranker/**/*.py"), *ROOT.glob("scripts/*.py")])
# Proofs and simulations for people who change the code name what they are about.
GUIDES = [page for page in PAGES if page != "docs/methods.md"]
SEVERAL_NAMES = re.compile(r"    \w+(, \w+)+: ")
SECTION = re.compile(r"^(?:Args|Attributes|Raises):\n((?:    .*\n?|\n)+)", re.MULTILINE)


def docstrings(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def test_each_parameter_has_a_line_of_its_own():
    entries = [
        (path.name, entry)
        for path in SOURCES
        for text in docstrings(path)
        for section in SECTION.findall(text)
        for entry in section.splitlines()
    ]
    assert len(entries) > 1000
    assert [(name, entry) for name, entry in entries if SEVERAL_NAMES.match(entry)] == []


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The full names of what the reference of a freshly built site documents."""
    pytest.importorskip("sphinx", reason="needs the extra docs")
    site = tmp_path_factory.mktemp("site")
    options = ["--fail-on-warning", "--keep-going", "--quiet", "--conf-dir", "docs"]
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, ".", str(site)], capture_output=True, text=True, cwd=ROOT
    )
    assert built.returncode == 0, built.stderr
    lines = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    return {name for name, kind, *_ in map(str.split, lines) if kind.startswith("py:")}


def names_of_ours(reference):
    """Public attributes of documented classes, documented or not."""
    names = set()
    for name in reference:
        module, _, attribute = name.rpartition(".")
        if attribute[:1].isupper():
            found = getattr(importlib.import_module(module), attribute)
            if inspect.isclass(found):
                names |= {*dir(found), *re.findall(r"\bself\.(\w+)\b.* = ", inspect.getsource(found))}
    return {name for name in names if not name.startswith("_")} - {*dir(tuple), *dir(Exception), *dir(dict)}


@pytest.mark.extra
def test_every_name_that_a_guide_uses_is_in_the_reference(reference):
    documented, ours = {name.rpartition(".")[2] for name in reference}, names_of_ours(reference)
    classes = {name for path in SOURCES for name in re.findall(r"^class ([A-Z]\w+)", path.read_text("utf-8"), re.M)}
    missing = set()
    for page in GUIDES:
        blocks, prose = blocks_of(page)
        for block in blocks:
            if block.language != "python":
                continue
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("umls_reranker"):
                    missing |= {(page, alias.name) for alias in node.names if alias.name not in documented}
                if isinstance(node, ast.Attribute) and node.attr in ours - documented:
                    missing.add((page, node.attr))
        for code in re.findall(r"`([^`]+)`", "\n".join(line for _, line in prose)):
            used = {*re.findall(r"\b[A-Z]\w+\b", code)} & classes | {*re.findall(r"(?<=\.)\w+|\w+(?=\()", code)} & ours
            missing |= {(page, name) for name in used - documented}
    assert missing == set()


@pytest.mark.extra
def test_every_name_that_the_package_exports_is_in_the_reference(reference):
    import umls_reranker

    exported = {f"umls_reranker.{name}" for name in umls_reranker.__all__ if not name.startswith("_")}
    assert exported - reference == set()
