"""Processes of their own: Python, a fork, and a running ``umls-reranker serve``."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
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
    """Code, of ``sitecustomize.py`` or a script, after which modules of these names are not found,
    as where they are not installed.
    """
    return ABSENT.format(names=tuple(names))


def variables(path=""):
    """Environment variables with which Python finds modules in a folder and this checkout."""
    folders = filter(None, (path, ROOT, os.environ.get("PYTHONPATH")))
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, folders))}


def python(*words, path="", env=None, fails=False, **options):
    """Run Python, which must end well unless it `fails`; gives what `subprocess.run` does.

    Args:
        path: a folder that is searched for modules first.
        env: further environment variables.
    """
    ended = subprocess.run(
        [sys.executable, *map(str, words)],
        env=variables(path) | (env or {}),
        **{"capture_output": True, "text": True, "timeout": 240} | options,
    )
    assert fails or ended.returncode == 0, ended.stderr
    return ended


def run_forked(work):
    """Run `work` in a fork of this process, for a minute at most; gives the exit code, or None."""

    def run():
        # The tokenizer's threads do not survive a fork, wherever an earlier test turned them on.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        work()

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join(60)
    code = child.exitcode
    child.kill()
    child.join()
    return code


class Service:
    """A running ``umls-reranker serve WORDS`` on a free port of 127.0.0.1; `path` is searched for
    modules first.
    """

    def __init__(self, *words, path="", cwd=None):
        command = [sys.executable, "-m", "umls_reranker", "serve", *map(str, words), "--port", "0"]
        environment = variables(path) | {"PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=environment, cwd=cwd
        )
        self.lines = []
        for line in self.process.stderr:
            self.lines.append(line)
            if "Uvicorn running on" in line:
                break
        assert self.process.poll() is None and self.lines, "".join(self.lines)
        self.url = self.lines[-1].split("running on ")[1].split()[0]
        self._reading = threading.Thread(
            target=lambda: self.lines.extend(self.process.stderr), daemon=True
        )
        self._reading.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.wait(10)

    def stop(self):
        """End it as a container's manager does; gives the exit code and what it printed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self._reading.join(10)
        return code, "".join(self.lines)
