"""The package as a whole: quick to import, no unsafe loading, every script explains itself."""

import ast
import doctest
import importlib
import json
import re
import shutil
import subprocess
import sysconfig
from configparser import ConfigParser
from types import SimpleNamespace

import pandas as pd
import pyarrow as pa
import pytest
import yaml
from data_fixtures import write_rrf
from expressions import places
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packed_assignments import packed_lines
from processes import ROOT, python
from surface import statements
from tiny_reranker import tiny_reranker

import umls_reranker
from umls_reranker.pipeline.recipe import KEYS, ONLY_OPTIONS

CONFIG = ConfigParser()
CONFIG.read(ROOT / "setup.cfg", encoding="utf-8")
SOURCES = sorted(
    path for folder in ("umls_reranker", "scripts") for path in (ROOT / folder).rglob("*.py")
)
HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "sklearn",
    "faiss",
    "pyarrow",
    "accelerate",
    "evaluate",
)


# What a checkout has at its top, and no command leaves there.
TOP_LEVEL = {
    ".ci",
    ".dockerignore",
    ".github",
    ".gitignore",
    ".pre-commit-config.yaml",
    "accelerate_configs",
    "benchmarks",
    "CHANGELOG.md",
    "CITATION.cff",
    "compose.yaml",
    "conftest.py",
    "constraints.txt",
    "CONTRIBUTING.md",
    "Dockerfile",
    "docs",
    "examples",
    "LICENSE",
    "Makefile",
    "MANIFEST.in",
    "prometheus.yml",
    "pyproject.toml",
    "README.md",
    "recipes",
    "ruff.toml",
    "scripts",
    "SECURITY.md",
    "setup.cfg",
    "tests",
    "umls_reranker",
}
LARGEST_FILE = 1_000_000


@pytest.fixture(scope="module")
def tracked():
    """The files that git tracks."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def test_nothing_that_a_command_wrote_is_tracked(tracked):
    assert {name.partition("/")[0] for name in tracked} == TOP_LEVEL


def test_only_the_models_in_the_package_have_large_files(tracked):
    large = [name for name in tracked if (ROOT / name).stat().st_size > LARGEST_FILE]
    assert large and all(name.startswith("umls_reranker/built_in") for name in large)


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, umls_reranker; umls_reranker.UserError; print(*sys.modules)"
    loaded = python("-c", code).stdout.split()
    assert "umls_reranker.core.errors" in loaded
    assert {*HEAVY, "numpy"}.isdisjoint(loaded)


def test_public_names_resolve():
    assert set(umls_reranker.__all__) <= set(dir(umls_reranker))
    for name in umls_reranker.__all__:
        assert getattr(umls_reranker, name) is not None


def test_a_class_has_its_name_alone():
    places = {}
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert not {name: paths for name, paths in places.items() if len(paths) > 1}


def matches(pattern):
    """File -> what matches in it, of the sources in which something does."""
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in SOURCES}
    hits = {path: re.findall(pattern, text) for path, text in texts.items()}
    return {path: found for path, found in hits.items() if found}


def test_nothing_is_loaded_that_could_run_code():
    # NumPy's files are read and written without pickle only when told so.
    assert (
        matches(
            r"(?<!allow_)pickle|allow_pickle(?!=False)|joblib|torch\.load|"
            r"trust_remote_code(?!=False)"
        )
        == {}
    )


def test_an_assignment_gives_several_names_one_value_or_swaps():
    assert packed_lines("a = b\na, b = f()\na, b = b, a\na, (b, *c) = x.y[0]\n") == []
    assert packed_lines(
        "a, b = x, y\na = b = x\nif x:\n    a, b = b, x\na, b = (f(c) for c in x)\n"
    ) == [1, 2, 4, 5]


def test_statements_are_those_of_the_syntax_tree_without_docstrings_and_imports():
    text = '"""A."""\nimport a\nif a:\n    b = 1; c()\ndef f():\n    """B."""\n'
    assert statements(text) == 4


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("a = b + c + d + e + f + g + h + i + j + k", []),
        ("a = b + c + d + e + f + g + h + i + j + k + l", ["dense"]),
        ("a = [\n    b(c(d + e)),\n    f(g(h + i)),\n    j(k(l + m)),\n    n(o(p + q)),\n]", []),
        ("if a := b():\n    pass\nwhile (a := b()) > 0:\n    pass", []),
        ("if c and (a := b()):\n    pass", ["walrus"]),
        ("a = b if c else d\nreturn b if c else d", []),
        ("a(b if c else d)\nx = b if c else d if e else f", ["ternary", "ternary"]),
        ("def f():\n    " + "a()\n    " * 54, []),
        ("def f():\n    " + "a()\n    " * 55, ["long"]),
        ('def f():\n    """B."""\n    # C.\n\n    ' + "a()\n    " * 54, []),
    ],
)
def test_what_must_be_read_twice_is_found(text, kinds):
    assert [place.kind for place in places(text)] == kinds


# What each command prints for --help, and which libraries are loaded by then.
HELP = """
import contextlib, io, json, sys
from umls_reranker.__main__ import dispatch

told = {}
for name in sys.argv[1:]:
    sys.argv = ["umls-reranker", name, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        dispatch()
    told[name] = printed.getvalue(), list(sys.modules)
print(json.dumps(told))
"""


def test_every_command_explains_itself_at_once():
    names = {path.stem for path in (ROOT / "scripts").glob("*.py")} - {"train"}
    names = [*sorted(names), "train"]
    told = json.loads(python("-c", HELP, *names).stdout)
    assert [*told] == names
    for name, (text, loaded) in told.items():
        assert (
            text.startswith(f"usage: umls-reranker {name} ")
            and f"\n    umls-reranker {name}" in text
        ), name
        # Both forms of these, with a recipe and with lists.
        if name in ("calibrate", "evaluate"):
            assert {"--lists", "--output", "--dictionary", "--output_dir"} <= {*text.split()}
        # The features that a recipe can name are functions of pyarrow; training's part is a class
        # of transformers.
        assert name == "train" or ({*HEAVY} - {"pyarrow"}).isdisjoint(loaded), name


# What depends on the machine, the release or the moment, and what a page of the docs offers.
SET_BY_NO_RECIPE = {
    *("output_dir", "cache_dir", *ONLY_OPTIONS, "encoder_dtype"),
    *("sources", "identifiers", "add_names"),
    *("teacher", "context_tokens", "accept_precision"),
}


def test_a_key_that_no_recipe_sets_is_a_constant():
    recipes = [path.read_text(encoding="utf-8") for path in ROOT.glob("recipes/*/config.yaml")]
    in_use = {key for text in recipes for key in yaml.load(text, yaml.BaseLoader)}
    assert KEYS.keys() - in_use == SET_BY_NO_RECIPE


def test_messages_name_the_command_that_a_user_of_the_wheel_has():
    assert matches(r"scripts/\w+\.py") == {}


def test_the_wheel_lists_every_package():
    folders = {path.parent for path in (ROOT / "umls_reranker").rglob("__init__.py")}
    found = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    extra = {f"umls_reranker.{name}" for name in ("accelerate_configs", "recipes", "scripts")}
    assert set(CONFIG["options"]["packages"].split()) == found | extra


def test_the_constraints_hold_a_version_of_every_requirement():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if not line.startswith("#")]
    versions = {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pinned
    }
    extras = CONFIG["options.extras_require"]
    needed = CONFIG["options"]["install_requires"] + extras["quickstart"] + extras["serve"]
    # What parses each request of the image.
    assert "h11" in versions
    for requirement in map(Requirement, needed.split("\n")[1:]):
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier


# What runs elsewhere: the workflows of the host, the image, and the services beside it


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read_yaml(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def instructions():
    """The lines of the Dockerfile as (instruction, rest), the last stage's and those before."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    return [
        tuple(line.split(maxsplit=1))
        for line in text.splitlines()
        if line and not line.startswith("#")
    ]


def values(instruction):
    return [rest for name, rest in instructions() if name == instruction]


def test_the_workflow_calls_what_ci_calls_and_all_of_it_exists():
    targets = set(
        re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    workflow = read_yaml(ROOT / ".github" / "workflows" / "tests.yml")
    called = set()
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            for target in re.findall(
                r"\bmake (\S+|\$\{\{.*?\}\})", step.get("run", "").replace("${{ ", "${{")
            ):
                called |= set(
                    job["strategy"]["matrix"]["target"] if "matrix.target" in target else [target]
                )
    ci = set(
        re.findall(r"^make (\S+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert ci and ci <= called <= targets


def test_tests_run_on_every_python_that_the_package_names():
    named = re.findall(r"Python :: (3\.\d+)", CONFIG["metadata"]["classifiers"])
    jobs = read_yaml(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == named
    systems = {
        entry["os"].partition("-")[0] for entry in jobs["test"]["strategy"]["matrix"]["include"]
    }
    assert systems == {"macos", "windows"}


@pytest.mark.extra
@pytest.mark.parametrize(
    ("linter", "files"), [("actionlint", WORKFLOWS), ("hadolint", [ROOT / "Dockerfile"])]
)
def test_workflows_and_image_are_well_formed(linter, files):
    path = shutil.which(linter, path=sysconfig.get_path("scripts")) or pytest.skip(
        f"{linter} is not installed"
    )
    done = subprocess.run([path, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_has_what_it_copies_and_checks_the_port_that_it_serves():
    kept = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line[0] == "!"
    }
    assert {rest.split()[0] for rest in values("COPY") if "--from" not in rest} - kept == {"."}
    assert all((ROOT / path).exists() for path in kept)
    (check,) = values("HEALTHCHECK")
    (port,) = values("EXPOSE")
    assert f":{port}/" in check


# The examples of the docstrings run, and print what they say


MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in SOURCES
    if ">>> " in path.read_text(encoding="utf-8")
)
# Its example needs a whole run: tests/linking/test_linker.py.
MODULES.remove("umls_reranker.linking.linker")
ROWS = {"entity": ["cold"], "candidates": [["Common Cold", "Cold Temperature"]]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where examples run: it has a model under runs/quickstart, and a small release in META."""
    folder = tmp_path_factory.mktemp("examples")
    write_rrf(folder / "META")
    tiny_reranker(folder / "runs" / "quickstart" / "model", seed=3)
    return folder


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.filterwarnings("ignore:missing inputs")
def test_examples_print_what_they_say(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    # They replace a dataset of Ray and a frame of Spark.
    others = {
        "UMLSReranker": umls_reranker.UMLSReranker,
        "dataset": SimpleNamespace(
            map_batches=lambda kind, fn_constructor_args, **options: kind(*fn_constructor_args)(
                pa.table(ROWS)
            )
        ),
        "frame": SimpleNamespace(
            mapInPandas=lambda function, schema: list(function([pd.DataFrame(ROWS)]))
        ),
    }
    failed, tried = doctest.testmod(importlib.import_module(name), extraglobs=others)
    assert tried and not failed
