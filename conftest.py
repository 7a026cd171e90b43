"""Settings that hold for all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run; new ones are tried with `pytest --hypothesis-profile=default`.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

# What tests keep is none of the user's; the models of the Hub stay where they are.
USER_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("HF_HOME", str(USER_CACHE / "huggingface"))
