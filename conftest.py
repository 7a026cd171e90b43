"""Settings that hold for all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run; new ones are tried with `pytest --hypothesis-profile=default`.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

# Studies of tests are none of the user's; the models of the Hub stay where they are.
USER_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("HF_HOME", str(USER_CACHE / "huggingface"))


@pytest.fixture(scope="module", autouse=True)
def _ledger_of_module(tmp_path_factory):
    """Fixtures of a module note their studies where none of its tests looks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def ledger(tmp_path_factory, monkeypatch):
    """An empty ledger for each test; returns its folder."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return cache / "umls_reranker" / "studies"
