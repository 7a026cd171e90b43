"""The examples of the docstrings run, and print what they say."""

import doctest
import importlib
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pyarrow as pa
import pytest
from data_fixtures import write_rrf
from tiny_reranker import tiny_reranker

import umls_reranker

PACKAGE = Path(umls_reranker.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
# Its example needs a whole run: tests/serving/test_linker.py.
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
