"""What is published and refused, without the Hub; and both commands against a Hub on loopback."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest
import yaml
from hub_server import WRITER, HubServer, Repo
from huggingface_hub import GitRefInfo, HfApi, ModelCard, constants, parse_eval_result_entries
from list_model import run_script
from outcome_fixtures import NO_FIGURES, make_outcomes
from tiny_models import tiny_cross_encoder
from tiny_reranker import refused, tiny_reranker, tiny_reranker_without_cross_encoder

from umls_reranker import UMLSReranker
from umls_reranker.core.errors import UserError
from umls_reranker.hub import publish as publishing
from umls_reranker.hub.card_metadata import EVAL_RESULTS
from umls_reranker.hub.file_names import MANIFEST
from umls_reranker.hub.manifest import model_files, verify_model
from umls_reranker.hub.model_download import download
from umls_reranker.hub.model_folder import changing
from umls_reranker.hub.publish import operations, publish, version_contents
from umls_reranker.hub.versions import find_outcomes
from umls_reranker.pipeline.options import load_recipe
from umls_reranker.pipeline.recipe import Recipe
from umls_reranker.serving.model_source import ModelSource

REPO = "org/tiny-reranker"


def make_model(folder: Path, seed: int = 0, figures: dict | None = None, **options) -> Path:
    """A model folder as after calibrate and evaluate."""
    tiny_reranker(folder, seed=seed, **options)
    with changing(folder) as new:
        measured = {"mentions": 20 + seed} | ({"figures": figures} if figures else {})
        (new / "metrics.json").write_text(json.dumps(NO_FIGURES | measured))
        make_outcomes(400).save(new / "outcomes.parquet")
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = make_model(tmp_path_factory.mktemp("finished") / "model")
    with changing(folder) as new:
        (new / "reliability.svg").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    # What a stage or a training library leaves next to the model.
    (folder / "training_args.bin").write_bytes(b"\x80\x04pickle")
    (folder / "manifest.json").write_text("{}")
    (folder / "README.md").write_text("the card of another version")
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "model"))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "cache", token=WRITER)
        yield server


# What a version consists of


def read(contents):
    """Name -> bytes."""
    return {
        name: data if isinstance(data, bytes) else data.read_bytes()
        for name, data in contents.items()
    }


def test_a_version_is_the_files_of_the_model_and_a_card_of_its_own(folder):
    files = read(version_contents(folder, REPO, "v1.0.0"))
    assert f'from_pretrained("{REPO}", revision="v1.0.0")' in files.pop("README.md").decode()
    assert files == {
        path.name: path.read_bytes() for path in model_files(folder) if path.name != "README.md"
    }


def test_a_mere_cross_encoder_is_to_be_calibrated_first(hub, tmp_path):
    folder = tiny_cross_encoder(tmp_path / "cross-encoder")
    hub.repos["org/mere"] = Repo()
    hub.repos["org/mere"].add({path.name: path.read_bytes() for path in folder.iterdir()})
    refusals = [
        (folder, refused(publish, folder, REPO, "v1", dry_run=True)),
        (folder, refused(UMLSReranker.from_pretrained, folder)),
        ("org/mere", refused(UMLSReranker.from_pretrained, "org/mere")),
    ]
    for name, text in refusals:
        assert f"umls-reranker calibrate {name} --lists" in text


OFFICIAL = {
    "run_name": "tiny",
    "corpus": "data/MedMentions/st21pv/data/corpus_pubtator.txt.gz",
    "test_documents": "data/MedMentions/full/data/corpus_pubtator_pmids_test.txt",
    "expected_mentions": 203282,
}
MEDMENTIONS = "bigbio/medmentions"


def official_model(folder, **changes):
    recipe = Recipe.from_values(OFFICIAL | changes)
    figures = {"acc@1": {"value": 0.51}, "ece": {"value": 0.02}}
    return make_model(folder, figures=figures, recipe=recipe)


@pytest.mark.parametrize(("mentions", "variant"), [(203282, "st21pv"), (352496, "full")])
def test_results_on_an_official_split_name_the_variant(tmp_path, mentions, variant):
    folder = official_model(tmp_path / "model", expected_mentions=mentions)
    results = yaml.safe_load(version_contents(folder, REPO, "v1")[EVAL_RESULTS])
    entries = [
        (entry.dataset_id, entry.task_id, entry.value)
        for entry in parse_eval_result_entries(results)
    ]
    assert entries == [
        (MEDMENTIONS, f"{variant}-acc-1", 0.51),
        (MEDMENTIONS, f"{variant}-ece", 0.02),
    ]


@pytest.mark.parametrize(
    ("changes", "datasets"),
    [
        ({"expected_mentions": 69284}, [MEDMENTIONS]),
        ({"test_documents": "data/MedMentions/own.txt"}, [MEDMENTIONS]),
        ({"test_documents": None}, [MEDMENTIONS]),
        ({"corpus": "data/our_medmentions_style_notes.txt"}, None),
        ({"corpus": "hf://datasets/org/corpus@v1/test"}, ["org/corpus"]),
    ],
)
def test_results_on_another_split_are_compared_with_none(tmp_path, changes, datasets):
    contents = version_contents(official_model(tmp_path / "model", **changes), REPO, "v1")
    assert EVAL_RESULTS not in contents
    data = ModelCard(contents["README.md"].decode()).data
    assert data.datasets == datasets
    assert MEDMENTIONS not in {result.dataset_type for result in data.eval_results}


def test_no_path_of_this_machine_is_published(tmp_path):
    private = "/home/ada/secret"
    values = {key: f"{private}/{key}" for key in ("obo", "encoder", "model", "output_dir")}
    values |= {"run_name": "tiny", "cache_dir": "~/secret/cache", "umls_dir": "../secret/x"}
    values |= {"corpus": ["https://ada:pass@host.org/corpus.gz?signature=secret"]}
    folder = make_model(tmp_path / "model", recipe=Recipe.from_values(values))
    before = {path: path.read_bytes() for path in folder.rglob("*")}
    files = read(version_contents(folder, REPO, "v1"))
    words = (b"secret", b"/ada", b"ada:", b"pass@")
    assert [(name, word) for name, data in files.items() for word in words if word in data] == []
    (tmp_path / "sent").mkdir()
    for name, data in files.items():
        (tmp_path / "sent" / name).write_bytes(data)
    assert verify_model(tmp_path / "sent")["base_model"] == "model"
    recipe = load_recipe(tmp_path / "sent" / "recipe.yaml").to_dict()
    portable = [recipe[key] for key in ("encoder", "umls_dir", "cache_dir", "corpus")]
    assert portable == ["encoder", "x", "cache", ["https://host.org/corpus.gz"]]
    assert {path: path.read_bytes() for path in folder.rglob("*")} == before


def test_what_is_missing_or_lies_behind_links_is_not_published(folder, tmp_path):
    (tmp_path / "secret").mkdir()
    for name in ("own.png", "outcomes.parquet", "README.md", "onnx/model.onnx"):
        (tmp_path / "secret" / Path(name).name).write_text("secret")
    (folder / "README.md").unlink()
    for name in ("own.png", "README.md"):
        (folder / name).symlink_to(tmp_path / "secret" / name)
    version = (folder, REPO, "v1")
    (folder / "onnx").symlink_to(tmp_path / "secret")
    assert "model.onnx" in refused(version_contents, *version)
    (folder / "onnx").unlink()
    (folder / "metrics.json").rename(tmp_path / "metrics.json")
    assert "metrics.json" in refused(version_contents, *version)
    (folder / "metrics.json").symlink_to(tmp_path / "secret" / "own.png")
    assert "metrics.json" in refused(version_contents, *version)
    (tmp_path / "metrics.json").replace(folder / "metrics.json")
    files = read(version_contents(*version))
    assert "own.png" not in files and not any(b"secret" in data for data in files.values())


def test_a_cross_encoder_that_is_named_but_gone_is_not_published(folder):
    """The repo would lose it, and its manifest name it still."""
    with changing(folder) as new:
        (new / "onnx").mkdir()
        (new / "onnx" / "model.onnx").write_bytes(b"cross-encoder")
    assert "onnx/model.onnx" in version_contents(folder, REPO, "v1")
    (folder / "onnx" / "model.onnx").unlink()
    assert "model.onnx" in refused(version_contents, folder, REPO, "v2")


@pytest.mark.parametrize("tag", ["", "v 1", "v1..2", "v1.lock", "feedbee", "main"])
def test_a_tag_that_git_may_refuse_is_refused_first(folder, tag):
    assert refused(version_contents, folder, REPO, tag).startswith(f"tag {tag!r}")


def test_a_name_that_is_no_repo_is_refused(folder):
    assert refused(version_contents, folder, "org/a/b", "v1").startswith("repo_id 'org/a/b'")


def test_what_only_the_former_version_has_is_deleted(folder, tmp_path):
    contents = version_contents(make_model(tmp_path / "second", seed=1), REPO, "v2")
    former = [*version_contents(folder, REPO, "v1"), EVAL_RESULTS, ".gitattributes", "theirs.md"]
    changes = operations(contents, former)
    added = [change.path_in_repo for change in changes[: len(contents)]]
    deleted = [change.path_in_repo for change in changes[len(contents) :]]
    assert added == sorted(contents) and deleted == [EVAL_RESULTS, "reliability.svg"]
    # Another kind of model.
    refused(operations, contents, ["config.json", "pytorch_model.bin"])


def test_what_people_wrote_into_the_card_stays(folder, tmp_path):
    card = (
        "---\nlicense: mit\ncontact: ada@org.net\ninference: false\ntags: [ours]\n---\n# Before\n"
    )
    for tag, model in (("v1", folder), ("v2", make_model(tmp_path / "second", seed=1))):
        changes = operations(version_contents(model, REPO, tag), ["README.md"], card)
        made = next(each for each in changes if each.path_in_repo == "README.md")
        card = made.path_or_fileobj.decode() + "\nAfter 0"
    made = ModelCard(card.removesuffix("\nAfter 0"))
    data = made.data.to_dict()
    assert made.text.startswith("\n# Before\n\n<!--") and made.text.endswith("end -->\n\nAfter 0\n")
    # Of ours there is one, the newest.
    assert made.text.count("# tiny-reranker") == 1
    assert "21 mentions" in made.text and 'revision="v2"' in made.text
    expected = {"license": "mit", "contact": "ada@org.net", "inference": False}
    assert data.items() >= expected.items() and data["language"] == ["en"]
    assert "license_name" not in data and {"ours", "sentence-transformers"} <= {*data["tags"]}
    contents = version_contents(folder, REPO, "v3")
    assert "README.md" in refused(operations, contents, ["README.md"], "---\n- a\n---\n")


# What the Hub is asked for


READS = ("repo_exists", "model_info", "list_repo_refs", "list_repo_files")


@pytest.fixture
def ask(monkeypatch, folder):
    """Publish version v2 with a client of a repo in a state; gives what it was asked to change."""

    def ask(state, **options):
        api = create_autospec(HfApi, instance=True)
        # A repo is there once it is created.
        api.repo_exists.side_effect = [bool(state), True]
        api.model_info.return_value = SimpleNamespace(private=state.get("private", True), sha="")
        names = {"tags": ["v1"], "branches": state.get("branches", ["main"])}
        refs = {
            kind: [
                GitRefInfo(name=name, ref="", target_commit=f"head of {name}") for name in listed
            ]
            for kind, listed in names.items()
        }
        api.list_repo_refs.return_value = SimpleNamespace(**refs)
        api.create_commit.return_value = SimpleNamespace(oid="made", commit_url="url", pr_url=None)
        monkeypatch.setattr(publishing, "hub_api", lambda token: api)
        try:
            publish(folder, **{"token": WRITER, "repo_id": REPO, "tag": "v2"} | options)
        finally:
            calls = [(name, given) for name, _, given in api.method_calls if name not in READS]
            ask.changes = dict(calls)
        return ask.changes

    return ask


THERE = {"branches": ["main", "next"]}


@pytest.mark.parametrize(
    ("state", "options", "further", "parent", "tagged"),
    [
        ({}, {}, {"create_repo": {"private": True, "exist_ok": True}}, "main", True),
        (THERE, {}, {}, "main", True),
        (THERE, {"tag": None}, {}, "main", False),
        (THERE | {"private": False}, {"private": False}, {}, "main", True),
        (THERE, {"gated": "manual"}, {"update_repo_settings": {"gated": "manual"}}, "main", True),
        (THERE, {"create_pr": True}, {}, "main", False),
        (THERE, {"branch": "next"}, {"create_branch": {"branch": "next"}}, "next", True),
        (THERE, {"branch": "new"}, {"create_branch": {"branch": "new"}}, "main", True),
    ],
)
def test_a_version_is_one_commit_on_the_head_and_one_tag(
    ask, state, options, further, parent, tagged
):
    asked = ask(dict(state), **options)
    assert [*asked] == [*further, "create_commit", *(["create_tag"] if tagged else [])]
    assert all(asked[name].items() >= given.items() for name, given in further.items())
    assert asked["create_commit"]["parent_commit"] == f"head of {parent}"
    assert asked["create_commit"]["revision"] == options.get("branch", "main")
    assert asked["create_commit"]["create_pr"] == options.get("create_pr", False)
    if "create_branch" in further:
        assert asked["create_branch"]["revision"] == f"head of {parent}"
    if tagged:
        assert (asked["create_tag"]["tag"], asked["create_tag"]["revision"]) == ("v2", "made")


@pytest.mark.parametrize(
    ("state", "options", "named"),
    [
        (THERE, {"tag": "v1"}, "'v1'"),
        (THERE, {"tag": "next"}, "'next'"),
        (THERE | {"private": False}, {}, "private"),
        (THERE, {"create_pr": True, "branch": "next"}, "create_pr"),
        (THERE, {"token": False}, "token"),
    ],
)
def test_what_is_refused_changes_nothing(ask, state, options, named):
    assert named in refused(ask, state, **options)
    assert ask.changes == {}


@pytest.mark.parametrize("status", [401, 403, 409, 412, 500])
def test_a_commit_that_the_hub_refuses_leaves_the_former_version(hub, folder, status):
    repo = hub.repos[REPO] = Repo(private=True)
    before = (dict(repo.branches), dict(repo.tags), len(repo.commits))
    hub.faults["/commit/main"] = status
    assert f" {status} " in refused(publish, folder, REPO, "v2")
    assert (repo.branches, repo.tags, len(repo.commits)) == before


# Through the Hub's client


def test_a_version_is_published_and_loaded_by_its_tag(hub, folder, monkeypatch, tmp_path):
    publication = publish(folder, REPO, "v1")
    repo = hub.repos[REPO]
    assert repo.private and len(repo.commits) == 2  # the Hub's initial one, and ours
    assert repo.tags == {"v1": repo.branches["main"]}
    assert publication.url == f"{hub.url}/{REPO}/commit/{repo.branches['main']}"
    files = repo.files("v1")
    assert publication.sizes == {
        name: len(data) for name, data in files.items() if name != ".gitattributes"
    }
    # Only what loading needs is fetched.
    fetched = {path.name for path in download(REPO, "v1").iterdir()}
    left_out = {"reliability.svg", "README.md", "outcomes.parquet"}
    assert fetched == {path.name for path in model_files(folder)} - left_out
    publish(make_model(tmp_path / "second", seed=1), REPO, "v2")
    repo.add(repo.files() | {"pytorch_model.bin": b"\x80\x04pickle"})
    for tag, expected in (("v1", files), ("v2", repo.files("v2")), (None, repo.files("v2"))):
        snapshot = download(REPO, tag)
        verify_model(snapshot)
        assert (snapshot / "model.safetensors").read_bytes() == expected["model.safetensors"]
    assert not (snapshot / "pytorch_model.bin").exists()
    assert "v3" in refused(download, REPO, "v3")
    # Without a network, what was fetched still loads.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.log)
    assert download(REPO, "v2").is_dir()
    assert "HF_HUB_OFFLINE" in refused(download, "org/other")
    assert "HF_HUB_OFFLINE" in refused(publish, folder, REPO, "v3")
    assert len(hub.log) == asked


def test_each_version_loads_by_its_revision_and_from_another_cache(hub, folder, tmp_path):
    second = make_model(tmp_path / "second", seed=1)
    publish(folder, REPO, "v1")
    publish(second, REPO, "v2")
    commit = hub.repos[REPO].tags["v1"]
    wanted = (("v1", folder), (commit, folder), ("v2", second), (None, second))
    for number, (revision, source) in enumerate(wanted):
        loaded = UMLSReranker.from_pretrained(
            REPO, revision=revision, cache_dir=tmp_path / f"cache-{number}", device="cpu"
        )
        assert loaded.info["sha256"] == json.loads((source / MANIFEST).read_text())["sha256"]


def test_of_two_who_publish_at_once_one_is_told_and_sends_nothing(hub, folder, tmp_path):
    """Both have read the branch before one of them commits."""
    publish(folder, REPO, "v1")
    others = [make_model(tmp_path / str(seed), seed=seed) for seed in (1, 2)]
    both_have_read = threading.Barrier(2)
    hub.before_answer["/commit/main"] = both_have_read.wait

    def publish_one(number):
        try:
            publish(others[number], REPO, f"v2-{number}")
        except UserError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(2) as pool:
        told = [*pool.map(publish_one, range(2))]
    (winner,) = (number for number, error in enumerate(told) if error is None)
    assert " 412 " in told[1 - winner]
    repo = hub.repos[REPO]
    assert len(repo.commits) == 3 and [*repo.tags] == ["v1", f"v2-{winner}"]
    for name in ("model.safetensors", MANIFEST):
        assert repo.files()[name] == (others[winner] / name).read_bytes()


@pytest.mark.parametrize("name", ["model.safetensors", "thresholds.json", MANIFEST])
def test_a_file_that_was_changed_on_the_hub_is_not_loaded(hub, folder, name):
    publish(folder, REPO, "v1")
    repo = hub.repos[REPO]
    data = bytearray(repo.files()[name])
    # A digit of a number, or of a weight.
    place = max(map(data.rfind, b"0123456789"))
    data[place] ^= 1
    repo.add(repo.files() | {name: bytes(data)})
    assert name in refused(UMLSReranker.from_pretrained, REPO)
    UMLSReranker.from_pretrained(REPO, revision="v1", device="cpu")


def test_a_dry_run_without_a_token_says_what_would_be_sent(hub, folder, monkeypatch):
    sent = publish(folder, REPO, "v1", dry_run=True)
    assert sent.is_checked and hub.writes == []
    asked = len(hub.log)
    monkeypatch.setenv("HF_TOKEN", "")
    told = publish(folder, REPO, "v1", dry_run=True)
    assert told.sizes == sent.sizes and not told.is_checked and len(hub.log) == asked


def test_the_hub_counts_a_download_of_a_model_without_a_cross_encoder(hub, tmp_path):
    folder = tiny_reranker_without_cross_encoder(tmp_path / "model")
    with changing(folder) as new:
        (new / "metrics.json").write_text(json.dumps(NO_FIGURES))
    publish(folder, REPO, "v1")
    asked = len(hub.log)
    assert UMLSReranker.from_pretrained(REPO).cross_encoder is None
    assert any(line.endswith("config.json") for line in hub.log[asked:])
    assert json.loads(hub.repos[REPO].files()["config.json"]) == {"model_type": "umls_reranker"}


@pytest.mark.parametrize(("token", "named"), [("", REPO), ("hf_expired", "HF_TOKEN")])
def test_a_private_repo_needs_a_token_with_access(hub, monkeypatch, token, named):
    hub.repos[REPO] = Repo(private=True)
    monkeypatch.setenv("HF_TOKEN", token)
    assert named in refused(download, REPO)
    # With access, it is read: it holds no model.
    assert "reranker.json" in refused(download, REPO, token=WRITER)


@pytest.mark.parametrize("path", ["./model", "runs/quickstart/model", "model", "~/model"])
def test_a_path_that_is_not_there_is_not_looked_up_on_the_hub(hub, tmp_path, monkeypatch, path):
    # A checkout may hold a quickstart's run.
    monkeypatch.chdir(tmp_path)
    assert refused(download, path).startswith(f"{path} ")
    assert hub.log == []


def test_a_file_and_a_misspelled_name_are_not_looked_up_on_the_hub(hub, tmp_path):
    (tmp_path / "README.md").touch()
    assert "README.md" in refused(download, tmp_path / "README.md")
    assert "built-in" in refused(download, "builtin")
    assert hub.log == []


def test_options_of_the_hub_are_those_of_other_libraries(hub, folder, tmp_path):
    options = {"cache_dir": tmp_path / "other", "subfolder": "en/small", "device": "cpu"}
    repo = hub.repos[REPO] = Repo(private=True)
    files = read(version_contents(folder, REPO, "v1"))
    repo.add({f"en/small/{name}": data for name, data in files.items()})
    load = UMLSReranker.from_pretrained
    assert "local_files_only" in refused(load, REPO, local_files_only=True, **options)
    reranker = load(REPO, token=WRITER, **options)
    assert reranker.folder.is_relative_to(tmp_path / "other")
    assert reranker.folder.parts[-2:] == ("en", "small")
    asked = len(hub.log)
    load(REPO, local_files_only=True, **options)
    assert len(hub.log) == asked
    load(REPO, force_download=True, **options)
    assert any("GET" in line and "reranker.json" in line for line in hub.log[asked:])
    assert load(reranker.folder.parent, subfolder="small").info == reranker.info


def test_a_hub_that_cannot_be_reached_is_told_in_one_line(hub, folder, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    for message in (refused(download, REPO), refused(publish, folder, REPO, "v1.0.0")):
        assert "http://127.0.0.1:1" in message


def test_outcomes_are_found_wherever_a_version_lies(hub, folder, tmp_path):
    run = tmp_path / "run"
    report = Path(shutil.copytree(folder, run / "report"))
    for place, found in (
        (folder, folder),
        (folder / "outcomes.parquet", folder),
        (run, report),
        (report, report),
    ):
        assert find_outcomes(str(place)) == found / "outcomes.parquet"
    hub.repos[REPO] = Repo()
    hub.repos[REPO].tags["v1"] = hub.repos[REPO].add(read(version_contents(folder, REPO, "v1")))
    for place in (REPO, f"{REPO}@v1"):
        found = find_outcomes(place)
        assert found.read_bytes() == (folder / "outcomes.parquet").read_bytes()
        # The weights stay where they are.
        assert not (found.parent / "model.safetensors").exists()
    for place in (str(tmp_path), "nowhere/at/all", "org/nothing"):
        assert place in refused(find_outcomes, place)


READERS = {"outcomes.parquet": find_outcomes, "recipe.yaml": ModelSource.load}
READERS["calibrator.json"] = lambda model: run_script("monitor", model, "log.jsonl")


@pytest.mark.parametrize(("name", "load"), READERS.items())
def test_a_downloaded_file_is_verified_before_it_is_read(hub, folder, name, load):
    with changing(folder) as new:
        (new / "reference.json").write_text("{}")
    hub.repos[REPO] = Repo()
    hub.repos[REPO].add(read(version_contents(folder, REPO, "v1")) | {name: b"{"})
    assert name in refused(load, REPO)


# The script


def test_the_script_publishes_and_refuses_to_do_it_twice(hub, folder, tmp_path, capsys):
    recipe = tmp_path / "config.yaml"
    recipe.write_text(f"output_dir: {tmp_path.parent}\nrun_name: {tmp_path.name}\n")

    def run(*options, tag=("--tag", "v1.0.0")):
        run_script("publish", recipe, "--repo_id", REPO, *tag, *options)
        return capsys.readouterr().out

    assert run("--dry_run") == f"would be published with tag v1.0.0: {hub.url}/{REPO}\n"
    assert hub.writes == []
    assert run().endswith(f"{hub.url}/{REPO}/commit/{hub.repos[REPO].tags['v1.0.0']}\n")
    assert f"published with tag v{date.today():%Y.}" in run(tag=())
    assert "'v1.0.0'" in refused(run)
