"""A running ``umls-reranker serve``."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def search_path(*folders):
    return os.pathsep.join(map(str, filter(None, (*folders, ROOT, os.environ.get("PYTHONPATH")))))


class Service:
    """A running ``umls-reranker serve WORDS`` on a free port of 127.0.0.1; `path` is searched for
    modules first.
    """

    def __init__(self, *words, path="", cwd=None):
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": search_path(path),
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-m", "umls_reranker", "serve", *map(str, words), "--port", "0"]
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
