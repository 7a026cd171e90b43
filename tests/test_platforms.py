"""What is missing on macOS (CPU affinity) and on Windows (fcntl, fork) is never asked for without
need.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_reranker import tiny_reranker

ROOT = Path(__file__).parents[1]
# What Windows lacks is hidden from this package only: on Linux, asyncio and torch need it.
AS_ON_WINDOWS = """
import builtins, os, pkgutil, sys

def without_posix(name, globals=None, *rest, found=builtins.__import__, **named):
    ours = (globals or {}).get("__name__", "").startswith("umls_reranker")
    if ours and name in ("fcntl", "grp", "pwd", "resource", "termios"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return found(name, globals, *rest, **named)

builtins.__import__ = without_posix
import torch, transformers
for name in ("fork", "getuid", "register_at_fork", "sched_getaffinity"):
    delattr(os, name)

import umls_reranker
for module in pkgutil.walk_packages(umls_reranker.__path__, "umls_reranker."):
    try:
        __import__(module.name)
    except ModuleNotFoundError as error:
        # An extra that tests do not install.
        assert error.name == "gradio", error

from fastapi.testclient import TestClient
from umls_reranker.serving.arguments import ServingArguments
from umls_reranker.doors.http.app import create_app

reranker = umls_reranker.UMLSReranker.from_pretrained(sys.argv[1], device="cpu")
with TestClient(create_app(reranker, ServingArguments())) as client:
    answer = client.post("/rerank", json={"query": "cold", "texts": ["common cold", "cough"]})
assert answer.status_code == 200, answer.text
"""


@pytest.mark.extra  # the host's macOS and Windows run all tests
def test_every_module_loads_and_a_request_is_answered_without_what_windows_lacks(tmp_path):
    command = [sys.executable, "-c", AS_ON_WINDOWS, tiny_reranker(tmp_path / "model")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert ended.returncode == 0, ended.stderr
