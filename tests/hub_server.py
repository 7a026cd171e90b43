"""A small Hugging Face Hub on loopback for the real `huggingface_hub` client: repos, LFS, tags,
tokens, faults.

What it keeps true of the real one: commits are immutable snapshots; a commit names large files by
their SHA-256 and is applied as a whole, only when all of them have arrived and ``main`` is still at
its parent; tags point to commits and are never moved; private repos do not exist for strangers;
large files lie on a storage host of their own, whose links carry no token. It does not speak xet,
so the client must have it turned off (`HubServer.connect`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

WRITER = "hf_writer"
READER = "hf_reader"
STRANGER = "hf_stranger"

# token -> (user, organizations, may write)
ACCOUNTS = {
    WRITER: ("ada", ("org",), True),
    READER: ("ben", ("org",), False),
    STRANGER: ("eve", (), True),
}
GITATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


class HTTPError(Exception):
    """An answer of 400 or more, with the headers that the client tells errors apart by."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})


def git_oid(kind: str, data: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()


@dataclass(frozen=True)
class Blob:
    """One file's content; a large file is named by its SHA-256."""

    data: bytes
    is_large: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def oid(self) -> str:
        return git_oid("blob", self.data)

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_large else self.oid


@dataclass(frozen=True)
class Commit:
    """A snapshot of all files, its parent and its message."""

    files: Mapping[str, Blob]
    parent: str | None
    message: str

    @property
    def oid(self) -> str:
        tree = "\n".join(f"{path} {blob.oid}" for path, blob in sorted(self.files.items()))
        return git_oid("commit", f"{tree}\nparent {self.parent}\n\n{self.message}".encode())


@dataclass
class Repo:
    """Commits by id; branches and tags are names of commits."""

    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    gated: str | None = None

    def __post_init__(self) -> None:
        self.add(Commit({".gitattributes": Blob(GITATTRIBUTES)}, None, "initial commit"))

    def add(self, commit: Commit, branch: str = "main") -> str:
        self.commits[commit.oid] = commit
        self.branches[branch] = commit.oid
        return commit.oid

    def resolve(self, revision: str) -> str:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise HTTPError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Path -> bytes at a revision."""
        return {
            path: blob.data for path, blob in self.commits[self.resolve(revision)].files.items()
        }


@dataclass
class Request:
    """A parsed request: who asks for what."""

    method: str
    path: str
    token: str | None
    body: bytes
    query: str = ""
    repo: str = ""

    def json(self) -> dict:
        return json.loads(self.body)


Answer = tuple[int, dict[str, str], bytes]


class Route(NamedTuple):
    """A method of `HubServer`; `operation` is what `HubServer.before` calls it, `writes` whether it
    changes a repo.
    """

    method: str
    pattern: re.Pattern
    function: Callable
    operation: str
    writes: bool


ROUTES: list[Route] = []


def route(method: str, path: str, operation: str = "", writes: bool = False) -> Callable:
    """Register a method for a path with ``{repo}``, ``{rev}`` and ``{path}`` in it, which are its
    arguments.
    """
    pattern = (
        path.replace(".", r"\.")
        .replace("{repo}", "(?P<repo>[^/]+/[^/]+)")
        .replace("{rev}", "(?P<rev>[^/]+)")
    )
    pattern = pattern.replace("{path}", "(?P<path>.+)")

    def register(function: Callable) -> Callable:
        ROUTES.append(Route(method, re.compile(pattern), function, operation, writes))
        return function

    return register


def answer(content: object = None, status: int = 200, **headers: str) -> Answer:
    return (
        status,
        {"Content-Type": "application/json"} | headers,
        json.dumps(content or {}).encode(),
    )


class HubServer:
    """The Hub as a context manager; `repos` shows what it holds and `log` what it was asked.

    with HubServer() as hub:
        hub.connect(monkeypatch, tmp_path, token=WRITER)
        ...
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.storage: dict[str, bytes] = {}
        self.log: list[str] = []
        self.upload_limit: int | None = None
        self._before: dict[str, Callable[[], object]] = {}
        self._lock = threading.RLock()
        self._servers = [_serve(self, self._answer), _serve(self, self._answer_storage)]
        # Another host name, as with the real storage: the client must not take its token there.
        self.url = f"http://127.0.0.1:{self._servers[0].server_port}"
        self.storage_url = f"http://localhost:{self._servers[1].server_port}"

    def __enter__(self) -> HubServer:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def connect(self, monkeypatch: object, cache: Path, token: str | None = None) -> None:
        """Point this process' `huggingface_hub` at the server, with an empty cache and only this
        token.
        """
        from huggingface_hub import constants
        from huggingface_hub.utils import _http

        settings = {
            "ENDPOINT": self.url,
            "HF_HUB_CACHE": str(cache),
            "HF_TOKEN_PATH": str(cache / "no-token"),
        }
        settings["HUGGINGFACE_CO_URL_TEMPLATE"] = (
            self.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        settings |= {
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_PROGRESS_BARS": True,
        }
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None))
        monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        if token is None:
            monkeypatch.delenv("HF_TOKEN", raising=False)
        else:
            monkeypatch.setenv("HF_TOKEN", token)

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """The same for a child process, as environment variables."""
        variables = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        }
        return variables | {"HF_TOKEN": token or ""}

    def before(self, operation: str, action: Callable[[], object]) -> None:
        """Run `action` whenever the operation is asked for, before it happens.

        Args:
            operation: ``create``, ``preupload``, ``upload``, ``commit`` or ``tag``.
        """
        self._before[operation] = action

    def fail(self, operation: str, status: int) -> None:
        """From now on answer the operation with this status."""

        def refuse() -> None:
            raise HTTPError(status, f"{operation} fails on request")

        self.before(operation, refuse)

    def break_uploads(self, after_bytes: int) -> None:
        """From now on drop the connection of an upload after that many bytes."""
        self.upload_limit = after_bytes

    def heal(self) -> None:
        """Undo `before`, `fail` and `break_uploads`."""
        self._before.clear()
        self.upload_limit = None

    @property
    def writes(self) -> list[str]:
        """What was asked that changes a repo or sends a file."""
        change = r"PUT|POST .*(/create$|/commit/|/branch/|/tag/|/preupload/|\.git/)"
        return [line for line in self.log if re.match(change, line)]

    def _answer(self, request: Request) -> Answer:
        self.log.append(f"{request.method} {request.path}")
        # A dataset is read as a model is.
        request.path = re.sub(
            r"^/(api/)?datasets/", lambda match: "/api/models/" if match[1] else "/", request.path
        )
        if request.token is not None and request.token not in ACCOUNTS:
            raise HTTPError(401, "Invalid credentials in Authorization header")
        for route in ROUTES:
            match = route.pattern.fullmatch(request.path)
            if match and route.method == request.method.replace("HEAD", "GET"):
                with self._lock:
                    return self._call(
                        route,
                        request,
                        {key: unquote(text) for key, text in match.groupdict().items()},
                    )
        raise HTTPError(404, f"no such route: {request.method} {request.path}")

    def _call(self, route: Route, request: Request, values: dict[str, Any]) -> Answer:
        self._announce(route.operation)
        if "repo" in values:
            request.repo = values["repo"]
            if route.writes:
                self._check_may_write(request, request.repo)
            values["repo"] = self._readable(request, request.repo)
        return route.function(self, request, **values)

    def _announce(self, operation: str) -> None:
        if operation in self._before:
            self._before[operation]()

    def _readable(self, request: Request, name: str) -> Repo:
        repo = self.repos.get(name)
        if repo is None or (repo.private and not self._is_member(request, name)):
            if request.token is None:
                raise HTTPError(401, "Invalid username or password.", "RepoNotFound")
            raise HTTPError(404, "Repository not found", "RepoNotFound")
        return repo

    def _check_may_write(self, request: Request, name: str) -> None:
        if request.token is None:
            raise HTTPError(401, "Invalid username or password.")
        if not (self._is_member(request, name) and ACCOUNTS[request.token][2]):
            namespace = name.split("/")[0]
            raise HTTPError(
                403, f'You don\'t have the rights to write under the namespace "{namespace}"'
            )

    def _is_member(self, request: Request, name: str) -> bool:
        user, organizations, _ = ACCOUNTS.get(request.token, ("", (), False))
        return name.split("/")[0] in (user, *organizations)

    @route("POST", "/api/repos/create", "create")
    def _create(self, request: Request) -> Answer:
        content = request.json()
        name = f"{content['organization']}/{content['name']}"
        self._check_may_write(request, name)
        status = 409 if name in self.repos else 200
        if status == 200:
            self.repos[name] = Repo(
                private=content.get("private") or content.get("visibility") == "private"
            )
        return answer({"url": f"{self.url}/{name}", "name": name}, status)

    @route("POST", "/api/validate-yaml")
    def _validate_yaml(self, request: Request) -> Answer:
        return answer({"errors": [], "warnings": []})

    @route("GET", "/api/models/{repo}")
    @route("GET", "/api/models/{repo}/revision/{rev}")
    def _info(self, request: Request, repo: Repo, rev: str = "main") -> Answer:
        oid = repo.resolve(rev)
        siblings = [{"rfilename": path} for path in sorted(repo.commits[oid].files)]
        return answer(
            {
                "id": request.repo,
                "sha": oid,
                "private": repo.private,
                "siblings": siblings,
                "tags": [],
            }
        )

    @route("GET", "/api/models/{repo}/refs")
    def _refs(self, request: Request, repo: Repo) -> Answer:
        refs = {
            kind: [
                {"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": oid}
                for name, oid in names.items()
            ]
            for kind, folder, names in (
                ("branches", "heads", repo.branches),
                ("tags", "tags", repo.tags),
            )
        }
        return answer(refs | {"converts": []})

    @route("GET", "/api/models/{repo}/tree/{rev}")
    def _tree(self, request: Request, repo: Repo, rev: str) -> Answer:
        entries = []
        for name, blob in sorted(repo.commits[repo.resolve(rev)].files.items()):
            entry = {"type": "file", "path": name, "size": len(blob.data), "oid": blob.oid}
            if blob.is_large:
                entry["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": 130}
            entries.append(entry)
        return answer(entries)

    @route("GET", "/{repo}/resolve/{rev}/{path}")
    def _resolve(self, request: Request, repo: Repo, rev: str, path: str) -> Answer:
        oid = repo.resolve(rev)
        blob = repo.commits[oid].files.get(path)
        if blob is None:
            missing = HTTPError(404, "Entry not found", "EntryNotFound")
            missing.headers["X-Repo-Commit"] = oid
            raise missing
        headers = {"X-Repo-Commit": oid, "ETag": f'"{blob.etag}"'}
        if not blob.is_large:
            return 200, headers, blob.data
        headers |= {"X-Linked-ETag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.data))}
        return 302, headers | {"Location": f"{self.storage_url}/{blob.sha256}"}, b""

    @route("POST", "/api/models/{repo}/preupload/{rev}", "preupload", writes=True)
    def _preupload(self, request: Request, repo: Repo, rev: str) -> Answer:
        present = repo.commits[repo.resolve(rev)].files
        files = []
        for file in request.json()["files"]:
            is_large = b"\0" in base64.b64decode(file["sample"]) or file["size"] > 10_000_000
            info = {
                "path": file["path"],
                "uploadMode": "lfs" if is_large else "regular",
                "shouldIgnore": False,
            }
            files.append(
                info | ({"oid": present[file["path"]].etag} if file["path"] in present else {})
            )
        return answer({"files": files})

    @route("POST", "/{repo}.git/info/lfs/objects/batch", writes=True)
    def _batch(self, request: Request, repo: Repo) -> Answer:
        objects = []
        for entry in request.json()["objects"]:
            if entry["oid"] not in self.storage:
                entry["actions"] = {"upload": {"href": f"{self.storage_url}/{entry['oid']}"}}
            objects.append(entry)
        return answer({"transfer": "basic", "objects": objects})

    @route("POST", "/api/models/{repo}/commit/{rev}", "commit", writes=True)
    def _commit(self, request: Request, repo: Repo, rev: str) -> Answer:
        lines = [json.loads(line) for line in request.body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        parent = repo.resolve(rev)
        if header.get("parentCommit", parent) != parent:
            raise HTTPError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.commits[parent].files)
        for line in lines:
            self._apply(files, line["key"], line["value"])
        branch = "refs/pr/1" if "create_pr=1" in request.query else rev
        oid = repo.add(Commit(files, parent, header["summary"]), branch)
        url = f"{self.url}/{request.repo}"
        links = {"commitUrl": f"{url}/commit/{oid}", "pullRequestUrl": f"{url}/discussions/1"}
        return answer({"success": True, "commitOid": oid} | links)

    @route("POST", "/api/models/{repo}/branch/{rev}", writes=True)
    def _branch(self, request: Request, repo: Repo, rev: str) -> Answer:
        if rev in repo.branches:
            raise HTTPError(409, f"Branch {rev} already exists")
        repo.branches[rev] = repo.resolve(request.json()["startingPoint"])
        return answer()

    @route("PUT", "/api/models/{repo}/settings", writes=True)
    def _settings(self, request: Request, repo: Repo) -> Answer:
        repo.gated = request.json()["gated"]
        return answer()

    def _apply(self, files: dict[str, Blob], key: str, value: dict) -> None:
        if key == "file":
            files[value["path"]] = Blob(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if value["oid"] not in self.storage:
                raise HTTPError(
                    400,
                    "Your push was rejected because an LFS pointer pointed to a file that does not "
                    "exist.",
                )
            files[value["path"]] = Blob(self.storage[value["oid"]], is_large=True)
        elif key == "deletedFile" and files.pop(value["path"], None) is None:
            raise HTTPError(404, "A file with this name doesn't exist", "EntryNotFound")

    @route("POST", "/api/models/{repo}/tag/{rev}", "tag", writes=True)
    def _tag(self, request: Request, repo: Repo, rev: str) -> Answer:
        name = request.json()["tag"]
        if name in repo.tags:
            raise HTTPError(409, f"Tag {name} already exists")
        repo.tags[name] = repo.resolve(rev)
        return answer()

    def _answer_storage(self, request: Request) -> Answer:
        self.log.append(f"{request.method} storage{request.path}")
        oid = request.path[1:]
        if request.token is not None:
            raise HTTPError(400, "Only one auth mechanism allowed: the link is signed")
        if request.method == "PUT":
            self._announce("upload")
            if hashlib.sha256(request.body).hexdigest() != oid:
                raise HTTPError(400, "the content does not match its checksum")
            self.storage[oid] = request.body
            return answer()
        return 200, {"ETag": f'"{oid}"'}, self.storage[oid]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: HubServer
    respond: Callable[[Request], Answer]

    def _handle(self) -> None:
        limit = self.hub.upload_limit if self.command == "PUT" else None
        body = b""
        for chunk in self._chunks():
            body += chunk
            if limit is not None and len(body) > limit:
                self.close_connection = True
                return
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        url = urlsplit(self.path)
        request = Request(
            self.command, url.path, token if kind == "Bearer" else None, body, url.query
        )
        try:
            status, headers, content = self.respond(request)
        except HTTPError as error:
            status, headers, content = answer({"error": str(error)}, error.status, **error.headers)
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self._headers_buffer.append(b"\r\n" + (b"" if self.command == "HEAD" else content))
        self.flush_headers()

    do_GET = _handle
    do_HEAD = _handle
    do_POST = _handle
    do_PUT = _handle

    def _chunks(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left and (chunk := self.rfile.read(min(left, 1 << 14))):
            left -= len(chunk)
            yield chunk

    def log_message(self, *arguments: object) -> None:
        pass


def _serve(hub: HubServer, respond: Callable[[Request], Answer]) -> ThreadingHTTPServer:
    handler = type("Handler", (_Handler,), {"hub": hub, "respond": staticmethod(respond)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    return server
