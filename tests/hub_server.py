"""A small Hugging Face Hub on loopback for the real `huggingface_hub` client.

It holds enough for a publication and its download: commits are snapshots, applied as a whole where
their parent is still the head; tags point to commits and are never moved; private repos do not
exist without a token. There are no large files. What `publish` decides is tested without it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

# The one token that is known.
WRITER = "hf_writer"


class Refused(Exception):
    """An answer of 400 or more: status, message, and the code that the client tells errors by."""


@dataclass
class Repo:
    """Commits by id, each the files by path; branches and tags are names of commits."""

    private: bool = False
    commits: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.add({".gitattributes": b""})

    def add(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Make a commit of these files the head of a branch."""
        content = {path: _etag(data) for path, data in files.items()}
        oid = _etag(repr((content, self.branches.get(branch))).encode())
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid

    def resolve(self, revision: str) -> str:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid

    def files(self, revision: str = "main") -> Mapping[str, bytes]:
        """Path -> bytes at a revision."""
        return self.commits[self.resolve(revision)]


Answer = tuple[int, dict[str, str], bytes]
# Method, pattern of the path, method of `HubServer`.
ROUTES: list[tuple[str, re.Pattern, Callable[..., Answer]]] = []


def route(method: str, path: str) -> Callable:
    """Register a method for a path with ``{repo}``, ``{rev}`` and ``{path}`` in it, which are its
    arguments.
    """
    pattern = path.replace("{repo}", "(?P<repo>[^/]+/[^/]+)").replace("{rev}", "(?P<rev>[^/]+)")
    pattern = pattern.replace("{path}", "(?P<path>.+)")

    def register(function: Callable[..., Answer]) -> Callable[..., Answer]:
        ROUTES.append((method, re.compile(pattern), function))
        return function

    return register


def answer(content: object = None, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(content or {}).encode()


class HubServer:
    """The Hub as a context manager; `repos` shows what it holds and `log` what it was asked.

    with HubServer() as hub:
        hub.connect(monkeypatch, tmp_path, token=WRITER)
        ...

    Attributes:
        faults: end of a path -> the status with which requests for it are refused.
        before_answer: end of a path -> what is called before requests for it are answered, one
            after another.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.log: list[str] = []
        self.faults: dict[str, int] = {}
        self.before_answer: dict[str, Callable[[], object]] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("_", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def connect(self, monkeypatch: object, cache: Path, token: str | None = None) -> None:
        """Point this process' `huggingface_hub` at the server, with an empty cache and only this
        token.
        """
        from huggingface_hub import constants
        from huggingface_hub.utils import _http

        settings = {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(cache),
            "HF_TOKEN_PATH": str(cache / "no-token"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_PROGRESS_BARS": True,
        }
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None))
        monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        monkeypatch.setenv("HF_TOKEN", token or "")

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """The same for a child process, as environment variables."""
        variables = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_TOKEN": token or ""}
        return variables | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}

    @property
    def writes(self) -> list[str]:
        """What was asked that changes a repo."""
        change = r"PUT|POST .*(/create$|/commit/|/branch/|/tag/)"
        return [line for line in self.log if re.match(change, line)]

    def answer(self, request: _Handler, path: str, body: bytes) -> Answer:
        """Answer a request, or raise Refused."""
        self.log.append(f"{request.command} {path}")
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind and token != WRITER:
            raise Refused(401, "Invalid credentials in Authorization header", "")
        for end, status in self.faults.items():
            if path.endswith(end):
                raise Refused(status, f"{end} fails on request", "")
        for end, wait in self.before_answer.items():
            if path.endswith(end):
                wait()
        with self._lock:
            return self._routed(request.command, path, body, token)

    def _routed(self, command: str, path: str, body: bytes, token: str) -> Answer:
        """What the route of a path answers."""
        # A dataset is read as a model is.
        path = re.sub("^/api/datasets/", "/api/models/", path).replace("/datasets/", "/")
        for method, pattern, function in ROUTES:
            match = pattern.fullmatch(path)
            if match and method == command.replace("HEAD", "GET"):
                values = {key: unquote(text) for key, text in match.groupdict().items() if text}
                if "repo" in values:
                    values["repo"] = self._repo(values["repo"], token)
                return function(self, body, **values)
        raise Refused(404, f"no such route: {command} {path}", "")

    def _repo(self, name: str, token: str) -> Repo:
        repo = self.repos.get(name)
        if repo is None or (repo.private and not token):
            raise Refused(404 if token else 401, "Repository not found", "RepoNotFound")
        return repo

    @route("POST", "/api/repos/create")
    def _create(self, body: bytes) -> Answer:
        content = json.loads(body)
        private = content.get("private") or content.get("visibility") == "private"
        name = f"{content['organization']}/{content['name']}"
        self.repos[name] = Repo(bool(private))
        return answer({"url": f"{self.url}/{name}", "name": name})

    @route("POST", "/api/validate-yaml")
    def _validate_yaml(self, body: bytes) -> Answer:
        return answer({"errors": [], "warnings": []})

    @route("GET", "/api/models/{repo}(?:/revision/{rev})?")
    def _info(self, body: bytes, repo: Repo, rev: str = "main") -> Answer:
        siblings = [{"rfilename": path} for path in sorted(repo.files(rev))]
        info = {"id": "a model", "sha": repo.resolve(rev), "private": repo.private, "tags": []}
        return answer(info | {"siblings": siblings})

    @route("GET", "/api/models/{repo}/refs")
    def _refs(self, body: bytes, repo: Repo) -> Answer:
        def listed(folder: str, names: Mapping[str, str]) -> list[dict[str, str]]:
            return [
                {"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": oid}
                for name, oid in names.items()
            ]

        refs = {"branches": listed("heads", repo.branches), "tags": listed("tags", repo.tags)}
        return answer(refs | {"converts": []})

    @route("GET", "/api/models/{repo}/tree/{rev}")
    def _tree(self, body: bytes, repo: Repo, rev: str) -> Answer:
        files = sorted(repo.files(rev).items())
        listed = [
            {"type": "file", "path": path, "size": len(data), "oid": _etag(data)}
            for path, data in files
        ]
        return answer(listed)

    @route("GET", "/{repo}/resolve/{rev}/{path}")
    def _resolve(self, body: bytes, repo: Repo, rev: str, path: str) -> Answer:
        oid = repo.resolve(rev)
        if path not in repo.files(oid):
            raise Refused(404, "Entry not found", "EntryNotFound")
        data = repo.files(oid)[path]
        return 200, {"X-Repo-Commit": oid, "ETag": f'"{_etag(data)}"'}, data

    @route("POST", "/api/models/{repo}/preupload/{rev}")
    def _preupload(self, body: bytes, repo: Repo, rev: str) -> Answer:
        paths = [file["path"] for file in json.loads(body)["files"]]
        how = {"uploadMode": "regular", "shouldIgnore": False}
        return answer({"files": [{"path": path} | how for path in paths]})

    @route("POST", "/api/models/{repo}/commit/{rev}")
    def _commit(self, body: bytes, repo: Repo, rev: str) -> Answer:
        lines = [json.loads(line) for line in body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        parent = repo.resolve(rev)
        if header.get("parentCommit", parent) != parent:
            raise Refused(412, "A commit has happened since", "")
        files = dict(repo.files(parent))
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        oid = repo.add(files, rev)
        name = next(name for name, one in self.repos.items() if one is repo)
        return answer({"commitOid": oid, "commitUrl": f"{self.url}/{name}/commit/{oid}"})

    @route("POST", "/api/models/{repo}/tag/{rev}")
    def _tag(self, body: bytes, repo: Repo, rev: str) -> Answer:
        repo.tags[json.loads(body)["tag"]] = repo.resolve(rev)
        return answer()


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: HubServer

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            status, headers, content = self.hub.answer(self, urlsplit(self.path).path, body)
        except Refused as error:
            code, message, kind = error.args
            status, headers, content = answer({"error": message}, code)
            headers |= {"X-Error-Message": message, "X-Error-Code": kind}
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self._headers_buffer.append(b"\r\n" + (b"" if self.command == "HEAD" else content))
        self.flush_headers()

    do_GET = _handle
    do_HEAD = _handle
    do_POST = _handle
    do_PUT = _handle

    def log_message(self, *arguments: object) -> None:
        pass
