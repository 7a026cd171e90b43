"""The real OpenRefine, as Debian's package has it, driven by the requests that its page sends."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

SHARE = Path("/usr/share/openrefine/webapp")
# Debian's package does not link it, and without it each reconciliation answers 500.
MISSING_JAR = Path("/usr/share/java/localizer.jar")
ENGINE = json.dumps({"facets": [], "mode": "row-based"})
BOUNDARY = "a-boundary-of-parts"
PART = '--{boundary}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n'


def is_installed() -> bool:
    """Whether this machine has OpenRefine."""
    return bool(shutil.which("openrefine")) and SHARE.is_dir() and MISSING_JAR.is_file()


class OpenRefine:
    """A running program without projects, on a free port of 127.0.0.1 unless one is given.

    Args:
        folder: an empty folder for it.
        port: its port; 0 chooses one.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        webapp = folder / "webapp"
        shutil.copytree(SHARE, webapp)
        shutil.copy(MISSING_JAR, webapp / "WEB-INF" / "lib")
        if not port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = ["openrefine", "-i", "127.0.0.1", "-p", str(port), "-w", str(webapp)]
        command += ["-x", "refine.headless=true", "-d", str(folder / "data")]
        self.log = folder / "log.txt"
        with self.log.open("w") as log:
            # The command is a shell that starts Java: both are ended by their group.
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True
            )

    def __enter__(self):
        end = time.monotonic() + 120
        while True:
            try:
                self._token()
                return self
            except URLError:
                assert self._process.poll() is None, self.log.read_text()
                assert time.monotonic() < end, self.log.read_text()
                time.sleep(0.5)

    def __exit__(self, *exception) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait(60)

    def import_table(self, text: str, name: str = "terms") -> str:
        """Make a project of a table in CSV; gives its number."""
        file = '; filename="terms.csv"\r\nContent-Type: text/csv'
        parts = {
            "project-file": (file, text),
            "project-name": ("", name),
            "format": ("", "text/line-based/*sv"),
        }
        body = "".join(
            PART.format(boundary=BOUNDARY, name=key, more=more, value=value)
            for key, (more, value) in parts.items()
        )
        options = json.dumps({"separator": ",", "headerLines": 1})
        query = urlencode({"csrf_token": self._token(), "options": options})
        request = Request(
            f"{self.url}/command/core/create-project-from-upload?{query}",
            f"{body}--{BOUNDARY}--\r\n".encode(),
            {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
        )
        with urlopen(request) as answer:
            return answer.geturl().split("project=")[1]

    def reconcile(self, project: str, service: str, column: str, properties=()) -> float:
        """Reconcile a column, as the page's dialog asks for it; gives the seconds it took.

        Args:
            project: its number.
            service: address of the service.
            column: name of the column.
            properties: names of columns that are properties of these names.
        """
        with urlopen(service) as answer:
            manifest = json.load(answer)
        details = [{"column": each, "property": {"id": each, "name": each}} for each in properties]
        config = {
            "mode": "standard-service",
            "service": service,
            "identifierSpace": manifest["identifierSpace"],
            "schemaSpace": manifest["schemaSpace"],
            "type": None,
            "autoMatch": True,
            "columnDetails": details,
            "limit": 5,
            "batchSize": manifest["batchSize"],
        }
        began = time.monotonic()
        self.post("reconcile", project, columnName=column, config=json.dumps(config))
        self.wait(project)
        return time.monotonic() - began

    def wait(self, project: str) -> None:
        """Wait until nothing runs in a project."""
        while self._get(f"get-processes?project={project}")["processes"]:
            time.sleep(0.1)

    def cells(self, project: str, column: str) -> list[dict]:
        """What is known about each cell of a reconciled column: ``j`` the judgment, ``c`` the
        candidates, ``m`` the match, and ``v`` the text.
        """
        rows = self.post("get-rows", project, start=0, limit=100_000)
        recons = rows["pool"]["recons"]
        place = self._place(project, column)
        cells = [row["cells"][place] for row in rows["rows"]]
        return [recons[str(cell["r"])] | {"v": cell["v"]} for cell in cells]

    def judge(self, project: str, column: str, row: int, candidate=None) -> None:
        """Click on a candidate of a cell, or on "Create new item"."""
        judged = {"judgment": "new"}
        if candidate is not None:
            judged = {"judgment": "matched", "id": candidate["id"], "name": candidate["name"]}
            judged |= {"score": candidate.get("score", 0), "types": ""}
        place = self._place(project, column)
        spaces = {"identifierSpace": "i", "schemaSpace": "s"}
        self.post("recon-judge-one-cell", project, row=row, cell=place, **judged, **spaces)

    def match_best(self, project: str, column: str) -> None:
        """Reconcile, Actions, Match each cell to its best candidate."""
        self.post("recon-match-best-candidates", project, columnName=column)
        self.wait(project)

    def add_column(self, project: str, column: str, name: str, expression: str) -> None:
        """Edit column, Add column based on this column."""
        self.post(
            "add-column",
            project,
            baseColumnName=column,
            newColumnName=name,
            columnInsertIndex=1,
            expression=f"grel:{expression}",
            onError="set-to-blank",
        )

    def extend(self, project: str, column: str, properties: list[str]) -> None:
        """Edit column, Add columns from reconciled values."""
        extension = {"properties": [{"id": name, "name": name} for name in properties]}
        with_config = self._column(project, column)["reconConfig"]
        self.post(
            "extend-data",
            project,
            baseColumnName=column,
            columnInsertIndex=1,
            extension=json.dumps(extension),
            endpoint=with_config["service"],
            identifierSpace=with_config["identifierSpace"],
            schemaSpace=with_config["schemaSpace"],
        )
        self.wait(project)

    def export(self, project: str) -> str:
        """Export, Comma-separated value."""
        return self.post("export-rows/terms.csv", project, is_json=False, format="csv")

    def _column(self, project: str, name: str) -> dict:
        columns = self._get(f"get-models?project={project}")["columnModel"]["columns"]
        return next(column for column in columns if column["name"] == name)

    def _place(self, project: str, column: str) -> int:
        return self._column(project, column)["cellIndex"]

    def _get(self, command: str):
        with urlopen(f"{self.url}/command/core/{command}") as answer:
            return json.load(answer)

    def _token(self) -> str:
        return self._get("get-csrf-token")["token"]

    def post(self, command: str, project: str, *, is_json: bool = True, **form):
        """Send a command of the page; gives its answer, in JSON unless it is not."""
        form |= {"project": project, "engine": ENGINE, "csrf_token": self._token()}
        with urlopen(f"{self.url}/command/core/{command}", urlencode(form).encode()) as answer:
            content = answer.read()
        if is_json:
            return json.loads(content)
        return content.decode()
