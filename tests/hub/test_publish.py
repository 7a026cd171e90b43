"""Publishing and loading through the real Hub client, against a Hub on loopback."""

import json
import os
import shutil
import socket
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import yaml
from hub_server import READER, STRANGER, WRITER, Blob, Commit, HubServer, Repo
from huggingface_hub import ModelCard, parse_eval_result_entries
from list_model import run_script
from outcome_fixtures import NO_FIGURES, make_outcomes
from tiny_reranker import refused, tiny_reranker, tiny_reranker_without_cross_encoder

from umls_reranker import UMLSReranker
from umls_reranker.hub.download import download
from umls_reranker.hub.model_folder import changing, model_files, verify_model
from umls_reranker.hub.publish import find_outcomes, publish
from umls_reranker.pipeline.recipe import Recipe, load_recipe
from umls_reranker.serving.model_source import ModelSource

ROOT = Path(__file__).resolve().parents[2]
REPO = "org/tiny-reranker"


def make_model(folder: Path, seed: int = 0) -> Path:
    """A model folder as after calibrate and evaluate."""
    tiny_reranker(folder, seed=seed)
    with changing(folder) as new:
        (new / "metrics.json").write_text(json.dumps(NO_FIGURES | {"mentions": 20 + seed}))
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


def sign_in(monkeypatch, token):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)


def second_version(folder):
    """Other weights, other figures, no plot."""
    shutil.rmtree(folder)
    make_model(folder, seed=1)


# Publishing


def test_a_version_is_one_commit_and_one_tag(hub, folder):
    publication = publish(folder, REPO, "v1.0.0")
    repo = hub.repos[REPO]
    assert repo.private and len(repo.commits) == 2  # the Hub's initial one, and ours
    assert repo.tags == {"v1.0.0": repo.branches["main"]}
    assert publication.url == f"{hub.url}/{REPO}/commit/{repo.branches['main']}"
    files = repo.files("v1.0.0")
    assert publication.sizes == {
        name: len(data) for name, data in files.items() if name != ".gitattributes"
    }
    card = files.pop("README.md").decode()
    assert f'from_pretrained("{REPO}", revision="v1.0.0")' in card
    expected = {
        path.name: path.read_bytes() for path in model_files(folder) if path.name != "README.md"
    }
    assert {name: data for name, data in files.items() if name != ".gitattributes"} == expected


def test_a_dry_run_without_a_token_says_what_would_be_sent(hub, folder, monkeypatch):
    sent = publish(folder, "org/other", "v1")
    asked = len(hub.log)
    sign_in(monkeypatch, None)
    told = publish(folder, "org/other", "v1", dry_run=True)
    assert told.sizes == sent.sizes and not told.is_checked
    assert len(hub.log) == asked


def test_the_results_on_a_dataset_of_the_hub_are_those_of_the_version(hub, tmp_path):
    recipe = Recipe.from_values({"run_name": "tiny", "corpus": "data/MedMentions/corpus.txt"})
    folder = tiny_reranker(tmp_path / "model", recipe=recipe)
    figures = {"acc@1": {"value": 0.51}, "ece": {"value": 0.02}}
    with changing(folder) as new:
        (new / "metrics.json").write_text(json.dumps(NO_FIGURES | {"figures": figures}))
    publish(folder, REPO, "v1")
    results = hub.repos[REPO].files("v1")[".eval_results/umls_reranker.yaml"]
    entries = parse_eval_result_entries(yaml.safe_load(results))
    assert [(entry.dataset_id, entry.task_id, entry.value) for entry in entries] == [
        ("bigbio/medmentions", "acc-1", 0.51),
        ("bigbio/medmentions", "ece", 0.02),
    ]
    # The next version was measured on something else.
    shutil.rmtree(folder)
    publish(make_model(folder), REPO, "v2")
    assert ".eval_results/umls_reranker.yaml" not in hub.repos[REPO].files("v2")


def test_the_hub_counts_a_download_of_a_model_without_a_cross_encoder(hub, tmp_path):
    folder = tiny_reranker_without_cross_encoder(tmp_path / "model")
    with changing(folder) as new:
        (new / "metrics.json").write_text(json.dumps(NO_FIGURES))
    publish(folder, REPO, "v1")
    asked = len(hub.log)
    assert UMLSReranker.from_pretrained(REPO).cross_encoder is None
    assert any(line.endswith("config.json") for line in hub.log[asked:])
    assert json.loads(hub.repos[REPO].files()["config.json"]) == {"model_type": "umls_reranker"}


def test_no_path_of_this_machine_is_published(hub, tmp_path):
    private = "/home/ada/secret"
    values = {key: f"{private}/{key}" for key in ("obo", "encoder", "model", "output_dir")}
    values |= {"run_name": "tiny", "cache_dir": "~/secret/cache", "umls_dir": "../secret/x"}
    values |= {"corpus": ["https://ada:pass@host.org/corpus.gz?signature=secret"]}
    folder = tiny_reranker(tmp_path / "model", recipe=Recipe.from_values(values))
    with changing(folder) as new:
        (new / "metrics.json").write_text(json.dumps(NO_FIGURES))
    before = {path: path.read_bytes() for path in folder.rglob("*")}
    publish(folder, REPO, "v1.0.0")
    words = (b"secret", b"/ada", b"ada:", b"pass@")
    files = hub.repos[REPO].files("v1.0.0")
    assert [(name, word) for name, data in files.items() for word in words if word in data] == []
    snapshot = download(REPO, "v1.0.0")
    assert verify_model(snapshot)["base_model"] == "model"
    recipe = load_recipe(snapshot / "recipe.yaml").to_dict()
    assert [recipe[key] for key in ("encoder", "umls_dir", "cache_dir")] == [
        "encoder",
        "x",
        "cache",
    ]
    assert recipe["corpus"] == ["https://host.org/corpus.gz"]
    assert {path: path.read_bytes() for path in folder.rglob("*")} == before


def test_what_is_missing_or_lies_behind_links_is_not_published(hub, folder, tmp_path):
    (tmp_path / "secret").mkdir()
    for name in ("own.png", "outcomes.parquet", "README.md", "onnx/model.onnx"):
        (tmp_path / "secret" / Path(name).name).write_text("secret")
    (folder / "README.md").unlink()
    for name in ("own.png", "README.md"):
        (folder / name).symlink_to(tmp_path / "secret" / name)
    (folder / "onnx").symlink_to(tmp_path / "secret")
    assert "model.onnx does not belong to this model" in refused(publish, folder, REPO, "v1.0.0")
    (folder / "onnx").unlink()
    (folder / "metrics.json").rename(tmp_path / "metrics.json")
    assert "umls-reranker evaluate" in refused(publish, folder, REPO, "v1.0.0")
    (folder / "metrics.json").symlink_to(tmp_path / "secret" / "own.png")
    assert "metrics.json does not match" in refused(publish, folder, REPO, "v1.0.0")
    (tmp_path / "metrics.json").replace(folder / "metrics.json")
    publish(folder, REPO, "v1.0.0")
    files = hub.repos[REPO].files("v1.0.0")
    assert "own.png" not in files and not any(b"secret" in data for data in files.values())


def test_versions_do_not_mix(hub, folder):
    publish(folder, REPO, "v1.0.0")
    first = hub.repos[REPO].files("v1.0.0")
    second_version(folder)
    publish(folder, REPO, "v2.0.0")
    repo = hub.repos[REPO]
    sent = len(hub.writes)
    assert (
        f"{REPO} already has 'v1.0.0'" in refused(publish, folder, REPO, "v1.0.0")
        and len(hub.writes) == sent
    )
    assert repo.files("v1.0.0") == first
    assert "reliability.svg" in first and "reliability.svg" not in repo.files("v2.0.0")
    for tag, seed_files in (
        ("v1.0.0", first),
        ("v2.0.0", repo.files("v2.0.0")),
        (None, repo.files("v2.0.0")),
    ):
        snapshot = download(REPO, tag)
        verify_model(snapshot)
        assert (snapshot / "model.safetensors").read_bytes() == seed_files["model.safetensors"]


def test_a_team_publishes_to_a_branch_or_by_a_pull_request(hub, folder):
    publish(folder, REPO, "v1", gated="manual", commit_message="The first")
    repo = hub.repos[REPO]
    first = repo.branches["main"]
    assert (repo.gated, repo.commits[first].message) == ("manual", "The first")
    second_version(folder)
    publish(folder, REPO, "v2-rc1", branch="next")
    assert (
        repo.tags == {"v1": first, "v2-rc1": repo.branches["next"]}
        and repo.branches["main"] == first
    )
    publish(folder, REPO, None, branch="next")
    request = publish(folder, REPO, "v2", create_pr=True)
    assert request.url == f"{hub.url}/{REPO}/discussions/1"
    assert (
        repo.branches["main"] == first and repo.commits[repo.branches["refs/pr/1"]].parent == first
    )
    assert {*repo.tags} == {"v1", "v2-rc1"} and b'revision="v2"' in repo.files("refs/pr/1")[
        "README.md"
    ]
    assert "create_pr" in refused(publish, folder, REPO, "v3", create_pr=True, branch="next")


def test_what_people_wrote_into_the_card_stays(hub, folder):
    own = "---\nlicense: mit\ncontact: ada@org.net\ninference: false\ntags: [ours]\n---\n# Before\n"
    hub.repos[REPO] = repo = Repo(private=True)
    repo.add(Commit({"README.md": Blob(own.encode())}, repo.branches["main"], "theirs"))
    for tag in ("v1", "v2"):
        publish(folder, REPO, tag)
        card = repo.files(tag)["README.md"]
        head = repo.commits[repo.branches["main"]]
        repo.add(Commit(head.files | {"README.md": Blob(card + b"\nAfter 0")}, head.oid, "theirs"))
        second_version(folder)
    card = ModelCard(card.decode())
    data = card.data.to_dict()
    text = card.text
    assert text.startswith("\n# Before\n\n<!--") and text.endswith("end -->\n\nAfter 0\n")
    # Of ours there is one, the newest.
    assert text.count("# tiny-reranker") == 1 and "21 mentions" in text and 'revision="v2"' in text
    expected = {
        "license": "mit",
        "contact": "ada@org.net",
        "inference": False,
        "library_name": "transformers",
    }
    assert data.items() >= expected.items() and data["language"] == ["en"]
    assert "license_name" not in data and {"ours", "sentence-transformers"} <= {*data["tags"]}
    repo.add(Commit({"README.md": Blob(b"---\n- a\n---\n")}, repo.branches["main"], "theirs"))
    assert "README.md" in refused(publish, folder, REPO, "v3")


@pytest.mark.parametrize(
    "tag", ["", "v 1", "v1/2", "-v1", "v1.", "v1..2", "v1.lock", "v1^", "feedbee", "main"]
)
def test_a_tag_that_git_may_refuse_is_refused_first(hub, folder, tag):
    assert refused(publish, folder, REPO, tag).startswith(f"tag {tag!r}")
    assert refused(publish, folder, "org/a/b", "v1").startswith("repo_id 'org/a/b'")
    assert hub.log == []


def test_a_cross_encoder_that_is_named_but_gone_is_not_published(hub, folder):
    """The repo would lose it, and its manifest name it still."""
    with changing(folder) as new:
        (new / "onnx").mkdir()
        (new / "onnx" / "model.onnx").write_bytes(b"cross-encoder")
    publish(folder, REPO, "v1.0.0")
    (folder / "onnx" / "model.onnx").unlink()
    assert "model.onnx is missing; umls-reranker export writes it" in refused(
        publish, folder, REPO, "v2.0.0"
    )
    assert "onnx/model.onnx" in hub.repos[REPO].files("main")


def test_a_public_repo_and_that_of_another_model_are_not_published_to(hub, folder):
    hub.repos[REPO] = repo = Repo(private=False)
    assert (
        "is public, but private is true" in refused(publish, folder, REPO, "v1.0.0")
        and hub.writes == []
    )
    publish(folder, REPO, "v1.0.0", private=False)
    assert "v1.0.0" in repo.tags
    sent = len(hub.writes)
    repo.add(
        Commit(
            {"config.json": Blob(b"{}"), "pytorch_model.bin": Blob(b"")},
            repo.branches["main"],
            "theirs",
        )
    )
    assert (
        "another kind" in refused(publish, folder, REPO, "v2.0.0", private=False)
        and len(hub.writes) == sent
    )


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (READER, "lacks permission"),
        (STRANGER, "lacks permission"),
        ("hf_expired", "token is invalid"),
        (None, "hf auth login"),
    ],
)
def test_a_token_without_write_access_is_told_so(hub, folder, monkeypatch, token, reason):
    sign_in(monkeypatch, None)
    message = refused(publish, folder, REPO, "v1.0.0", token=token)
    assert (
        reason in message
        and "HF_TOKEN" in message
        and (token or "hf_") not in message
        and hub.repos == {}
    )


@pytest.mark.parametrize(
    "fault",
    [lambda hub: hub.break_uploads(after_bytes=20_000), lambda hub: hub.fail("commit", 500)],
)
def test_a_broken_upload_leaves_the_former_version(hub, folder, fault):
    publish(folder, REPO, "v1.0.0")
    repo = hub.repos[REPO]
    before = (dict(repo.branches), dict(repo.tags), len(repo.commits))
    second_version(folder)
    fault(hub)
    message = refused(publish, folder, REPO, "v2.0.0")
    assert message.endswith("this version has no tag, and earlier versions are as they were")
    assert (repo.branches, repo.tags, len(repo.commits)) == before
    verify_model(download(REPO))

    hub.heal()
    publish(folder, REPO, "v2.0.0")
    assert (download(REPO, "v2.0.0") / "model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()


def test_a_tag_that_failed_is_made_up_for_without_a_second_commit(hub, folder):
    hub.fail("tag", 503)
    assert "answered 503" in refused(publish, folder, REPO, "v1.0.0")
    repo = hub.repos[REPO]
    assert repo.tags == {} and len(repo.commits) == 2
    hub.heal()
    publish(folder, REPO, "v1.0.0")
    assert repo.tags == {"v1.0.0": repo.branches["main"]} and len(repo.commits) == 2


def test_a_commit_by_someone_else_meanwhile_is_not_buried(hub, folder):
    hub.repos[REPO] = repo = Repo(private=True)
    theirs = Commit({"README.md": Blob(b"theirs")}, repo.branches["main"], "theirs")
    hub.before("preupload", lambda: repo.add(theirs))
    assert "someone published to main in the meantime" in refused(publish, folder, REPO, "v1.0.0")
    assert repo.files() == {"README.md": b"theirs"} and repo.tags == {}


# Loading


@pytest.mark.parametrize(
    "path", ["./model", "/no/such/folder", "runs/quickstart/model", "model", "~/model"]
)
def test_a_path_that_is_not_there_is_not_looked_up_on_the_hub(hub, tmp_path, monkeypatch, path):
    # A checkout may hold a quickstart's run.
    monkeypatch.chdir(tmp_path)
    assert (
        refused(download, path)
        == f"{path} is neither a local folder nor a Hub repo of the form NAMESPACE/NAME"
    )
    assert hub.log == []


def test_a_file_and_a_misspelled_name_are_not_looked_up_on_the_hub(hub, tmp_path):
    (tmp_path / "README.md").touch()
    assert refused(download, tmp_path / "README.md").endswith(
        "is a file; give the folder of a model"
    )
    assert refused(download, "builtin").endswith("NAMESPACE/NAME; did you mean built-in?")
    assert hub.log == []


def test_only_what_loading_needs_is_fetched(hub, folder):
    publish(folder, REPO, "v1.0.0")
    repo = hub.repos[REPO]
    head = repo.commits[repo.branches["main"]]
    repo.add(
        Commit(
            head.files | {"pytorch_model.bin": Blob(b"\x80\x04pickle", True)}, head.oid, "pickle"
        )
    )
    snapshot = download(REPO)
    fetched = {path.name for path in snapshot.iterdir()}
    assert fetched == {path.name for path in model_files(folder)} - {"reliability.svg", "README.md"}
    verify_model(snapshot)


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (None, "no public repo of this name: org/tiny-reranker"),
        (STRANGER, "that the token can access: org/tiny-reranker"),
        ("hf_expired", "the token is invalid"),
    ],
)
def test_a_private_repo_needs_a_token_with_access(hub, folder, monkeypatch, token, reason):
    publish(folder, REPO, "v1.0.0")
    sign_in(monkeypatch, token)
    assert reason in refused(download, REPO)
    verify_model(download(REPO, token=READER))


def test_without_network_a_fetched_version_still_loads(hub, folder, monkeypatch):
    from huggingface_hub import constants

    publish(folder, REPO, "v1.0.0")
    snapshot = download(REPO, "v1.0.0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.log)
    assert download(REPO, "v1.0.0") == snapshot
    assert "HF_HUB_OFFLINE" in refused(download, REPO, "v2.0.0")
    assert "HF_HUB_OFFLINE" in refused(publish, folder, REPO, "v2.0.0")
    assert len(hub.log) == asked


def test_options_of_the_hub_are_those_of_other_libraries(hub, folder, tmp_path):
    options = {"cache_dir": tmp_path / "other", "subfolder": "en/small", "device": "cpu"}
    publish(folder, REPO, "v1")
    repo = hub.repos[REPO]
    repo.add(
        Commit(
            {f"en/small/{name}": Blob(data) for name, data in repo.files().items()}, None, "moved"
        )
    )
    assert "local_files_only" in refused(
        UMLSReranker.from_pretrained, REPO, local_files_only=True, **options
    )
    reranker = UMLSReranker.from_pretrained(REPO, token=READER, **options)
    assert reranker.folder.is_relative_to(tmp_path / "other") and reranker.folder.parts[-2:] == (
        "en",
        "small",
    )
    asked = len(hub.log)
    UMLSReranker.from_pretrained(REPO, local_files_only=True, **options)
    assert len(hub.log) == asked
    UMLSReranker.from_pretrained(REPO, force_download=True, **options)
    assert any("GET" in line and "reranker.json" in line for line in hub.log[asked:])
    assert (
        UMLSReranker.from_pretrained(reranker.folder.parent, subfolder="small").info
        == reranker.info
    )


def test_a_hub_that_cannot_be_reached_is_told_in_one_line(hub, folder, monkeypatch):
    from huggingface_hub import constants

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        for message in (refused(download, REPO), refused(publish, folder, REPO, "v1.0.0")):
            assert message.startswith(
                f"no connection to the Hub at {constants.ENDPOINT} (ConnectError"
            )


def test_outcomes_are_found_wherever_a_version_lies(hub, folder, tmp_path):
    with changing(folder) as new:
        make_outcomes(400).save(new / "outcomes.parquet")
    run = tmp_path / "run"
    report = Path(shutil.copytree(folder, run / "report"))
    for place, found in (
        (folder, folder),
        (folder / "outcomes.parquet", folder),
        (run, report),
        (report, report),
    ):
        assert find_outcomes(str(place)) == found / "outcomes.parquet"
    publish(folder, REPO, "v1")
    for place in (REPO, f"{REPO}@v1"):
        found = find_outcomes(place)
        assert found.read_bytes() == (folder / "outcomes.parquet").read_bytes()
        # The weights stay where they are.
        assert not (found.parent / "model.safetensors").exists()
    for place in (str(tmp_path), "nowhere/at/all", "org/nothing"):
        assert place in refused(find_outcomes, place)


READERS = {"outcomes.parquet": find_outcomes, "recipe.yaml": ModelSource.load}
READERS["calibrator.json"] = lambda model: run_script("monitor", model, "log.jsonl")


@pytest.mark.parametrize(("name", "read"), READERS.items())
def test_a_downloaded_file_is_verified_before_it_is_read(hub, folder, name, read):
    with changing(folder) as new:
        make_outcomes(400).save(new / "outcomes.parquet")
        (new / "reference.json").write_text("{}")
    publish(folder, REPO, "v1")
    repo = hub.repos[REPO]
    repo.add(Commit(repo.commits[repo.branches["main"]].files | {name: Blob(b"{")}, None, "theirs"))
    assert f"{name} does not match" in refused(read, REPO)


# The script


def test_the_script_publishes_and_refuses_to_do_it_twice(hub, folder, tmp_path):
    with changing(folder) as new:
        make_outcomes(400).save(new / "outcomes.parquet")
    recipe = tmp_path / "config.yaml"
    recipe.write_text(f"output_dir: {tmp_path}\nrun_name: .\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= hub.environment(tmp_path / "home", token=WRITER) | {"PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "umls_reranker",
        "publish",
        recipe,
        "--repo_id",
        REPO,
        "--tag",
        "v1.0.0",
    ]

    def run(*options):
        return subprocess.run(
            [*command, *options], env=environment, capture_output=True, text=True, timeout=240
        )

    dry = run("--dry_run")
    assert (dry.returncode, dry.stdout) == (
        0,
        f"would be published with tag v1.0.0: {hub.url}/{REPO}\n",
    ), dry.stderr
    assert hub.writes == []
    assert run().stdout.endswith(f"{hub.url}/{REPO}/commit/{hub.repos[REPO].tags['v1.0.0']}\n")
    undated = run("--tag=", "--against", "v1.0.0")
    assert "not inferior on the same 400 mentions" in undated.stdout, undated.stderr
    assert f"published with tag v{date.today():%Y.}" in undated.stdout
    again = run()
    assert again.returncode == 2 and again.stderr.startswith(f"error: {REPO} already has 'v1.0.0'")
