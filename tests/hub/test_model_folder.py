"""The model folder: one manifest binds its parts, and whoever changes a part renews it."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from tiny_reranker import refused, tiny_reranker

from umls_reranker import UMLSReranker
from umls_reranker.hub.file_names import CARD, MANIFEST
from umls_reranker.hub.manifest import model_files, verify_model
from umls_reranker.hub.model_folder import changing, restored, save_copy


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A model folder as after calibrate and evaluate, with what a stage or a user leaves in it."""
    folder = tiny_reranker(tmp_path_factory.mktemp("finished") / "model")
    with changing(folder) as new:
        (new / "metrics.json").write_text("{}")
        (new / "reliability.svg").write_bytes(b"\x89PNG\r\n")
        (new / "special_tokens_map.json").write_text("{}")
        (new / CARD).write_text("the card")
    (folder / "manifest.json").write_text("{}")
    (folder / "notes.txt").write_text("mine")
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "model"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another model's folder."""
    return tiny_reranker(tmp_path_factory.mktemp("other") / "model", seed=1)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def flip_last_bit(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


# What a folder holds


@pytest.mark.parametrize(
    "name",
    [
        MANIFEST,
        "config.json",
        "tokenizer.json",
        "calibrator.json",
        "thresholds.json",
        "recipe.yaml",
    ],
)
def test_a_missing_part_is_named_with_the_script_that_makes_it(folder, name):
    (folder / name).unlink()
    said = refused(verify_model, folder)
    assert str(folder) in said and name in said


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_pointer_in_place_of_a_file_says_how_to_get_it(folder, name):
    (folder / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert f"{folder / name} is a Git LFS pointer" in refused(verify_model, folder)


def test_only_the_models_own_files_belong_to_it(folder):
    left = {path.name for path in folder.iterdir()} - {path.name for path in model_files(folder)}
    assert left == {"manifest.json", "notes.txt"}


# The manifest


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", lambda folder: edit(folder / "config.json", num_hidden_layers=1)),
        (
            "tokenizer_config.json",
            lambda folder: edit(folder / "tokenizer_config.json", do_lower_case=False),
        ),
        (
            "calibrator.json",
            lambda folder: edit(folder / "calibrator.json", fitted_on={"mentions": 2}),
        ),
        ("recipe.yaml", lambda folder: (folder / "recipe.yaml").write_text("run_name: other\n")),
        ("metrics.json", lambda folder: (folder / "metrics.json").write_text("[]")),
        ("model.safetensors", lambda folder: flip_last_bit(folder / "model.safetensors")),
    ],
)
def test_a_part_that_was_changed_is_named(folder, name, change):
    before = (folder / name).read_bytes()
    change(folder)
    assert (folder / name).read_bytes() != before
    assert f"{folder / name} does not match" in refused(
        UMLSReranker.from_pretrained, folder, device="cpu"
    )


@pytest.mark.parametrize(
    "changes",
    [
        *({"max_length": 8}, {"template": {"max_length": 8}}, {"dtype": "bfloat16"}),
        *(
            {"sha256": listed}
            for listed in (None, {"config.json": 7}, {"../../etc/passwd": "0" * 64})
        ),
    ],
)
def test_an_edited_manifest_is_refused(folder, changes):
    edit(folder / MANIFEST, **changes)
    assert str(folder / MANIFEST) in refused(UMLSReranker.from_pretrained, folder)


@pytest.mark.parametrize("number", ["1e400", "-Infinity", "NaN", "9" * 400])
@pytest.mark.parametrize(
    ("name", "replaced", "key"),
    [
        ("calibrator.json", '"slope": 0.8', "models.0.parameters.slope"),
        ("calibrator.json", '"mentions": 800', "fitted_on.mentions"),
        ("thresholds.json", '"confidence": 0.95', "confidence"),
        ("thresholds.json", '"answers": 0', "models.0.certificate.answers"),
    ],
)
def test_a_number_beyond_a_float_is_named_with_file_and_key(folder, name, replaced, key, number):
    text = (folder / name).read_text()
    assert replaced in text
    label = replaced.partition(":")[0]
    with changing(folder) as new:
        (new / name).write_text(text.replace(replaced, f"{label}: {number}", 1))
    assert f"{folder / name}: {key}: " in refused(UMLSReranker.from_pretrained, folder)


def test_parts_that_do_not_travel_with_every_copy_may_be_missing(folder):
    (folder / "reliability.svg").unlink()
    verify_model(folder)
    UMLSReranker.from_pretrained(folder, device="cpu")


# Changing parts


def test_changed_parts_take_their_places_and_the_manifest_follows(folder):
    before = json.loads((folder / MANIFEST).read_text())
    with changing(folder) as new:
        (new / "metrics.json").write_text('{"x": 1}')
        assert (folder / "metrics.json").read_text() == "{}"
    after = verify_model(folder)
    changed = {name for name in after["sha256"] if after["sha256"][name] != before["sha256"][name]}
    assert changed == {"metrics.json", MANIFEST}
    assert before | {"sha256": None} == after | {"sha256": None}
    assert not [path.name for path in folder.iterdir() if "partial" in path.name]


def test_a_change_that_fails_changes_nothing(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(RuntimeError), changing(folder) as new:
        (new / "metrics.json").write_text("[]")
        raise RuntimeError
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def contents(folder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def killed(action, folder, moment) -> bool:
    """Run `action` in a process that kills itself before a step; whether it came that far."""
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, -signal.SIGKILL)
        return code != 0
    steps = 0

    def hook(event, arguments):
        nonlocal steps
        if event.partition(".")[0] in ("open", "os", "shutil", "ctypes"):
            steps += 1
            if steps == moment + 1:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(hook)
        action(folder)
        os._exit(0)
    finally:
        os._exit(1)


def evaluate_anew(folder) -> None:
    with changing(folder) as new:
        (new / "metrics.json").write_text('{"x": 1}')
        (new / "risk_coverage.svg").write_bytes(b"\x89PNG")
        (new / CARD).write_text("the new card")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no forks")
def test_a_change_killed_at_any_step_leaves_the_old_or_the_new_folder(finished, tmp_path):
    before = contents(finished)
    after = Path(shutil.copytree(finished, tmp_path / "after"))
    evaluate_anew(after)
    after = contents(after)
    seen = []
    moment = 0
    while True:
        folder = Path(shutil.copytree(finished, tmp_path / str(moment) / "model"))
        was_killed = killed(evaluate_anew, folder, moment)
        verify_model(restored(folder))
        assert contents(folder) in (before, after), f"killed before step {moment}"
        seen.append(contents(folder) == after)
        evaluate_anew(folder)
        assert contents(folder) == after
        if not was_killed:
            break
        moment += 1
    # The old folder before the renames, the new one after them.
    assert moment > 20 and not seen[0] and seen[-2] and seen == sorted(seen)


# Saving


@pytest.fixture
def clone(tmp_path, other):
    """A git clone of another model's repo, with files of a user's own."""
    clone = Path(shutil.copytree(other, tmp_path / "clone"))
    with changing(clone) as new:
        (new / "added_tokens.json").write_text("{}")
        (new / "risk_coverage.svg").write_bytes(b"\x89PNG")
    (clone / ".git" / "refs").mkdir(parents=True)
    for name in (".gitattributes", ".git/HEAD", "own.png", "onnx.txt"):
        (clone / name).write_text(name)
    return clone


def test_saving_into_a_clone_keeps_what_is_not_the_models(folder, clone):
    assert UMLSReranker.from_pretrained(folder, device="cpu").save_pretrained(clone) == clone
    assert UMLSReranker.from_pretrained(clone, device="cpu").info == verify_model(folder)
    own = {".git", ".gitattributes", "own.png", "onnx.txt"}
    assert {path.name for path in clone.iterdir()} == own | {
        path.name for path in model_files(folder)
    }
    assert (clone / ".git" / "HEAD").read_text() == ".git/HEAD" and (
        clone / "own.png"
    ).read_text() == "own.png"
    assert (clone / CARD).read_text() == "the card"


def test_saving_where_a_model_lies_already_changes_nothing(folder, tmp_path):
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    (tmp_path / "link").symlink_to(folder)
    assert save_copy(folder, folder) == folder
    save_copy(folder, tmp_path / "link")
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_saving_leaves_a_folder_of_something_else_alone(folder, tmp_path):
    target = tmp_path / "bert"
    target.mkdir()
    (target / "config.json").write_text("theirs")
    assert str(target) in refused(save_copy, folder, target)
    assert [path.name for path in target.iterdir()] == ["config.json"]
    assert (target / "config.json").read_text() == "theirs"


def test_a_save_that_broke_off_is_seen_and_made_up_for(folder, clone, monkeypatch):
    copy = shutil.copyfile

    def break_off(source, target):
        if Path(source).name == MANIFEST:
            raise KeyboardInterrupt
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", break_off)
    with pytest.raises(KeyboardInterrupt):
        save_copy(folder, clone)
    monkeypatch.undo()
    refused(verify_model, clone)
    save_copy(folder, clone)
    verify_model(clone)
    assert not (clone / "added_tokens.json").exists() and (clone / "own.png").exists()


# Reading


def test_another_user_can_read_every_file(tmp_path):
    """safetensors writes files that only the writer can read; an image serves as another user."""
    mask = os.umask(0o022)
    try:
        folder = tiny_reranker(tmp_path / "model")
        save_copy(folder, tmp_path / "copy")
    finally:
        os.umask(mask)
    for path in (*folder.rglob("*"), *(tmp_path / "copy").rglob("*")):
        assert path.stat().st_mode & 0o044 == 0o044, path
