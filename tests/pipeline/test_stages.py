"""Stage folders are finished, with a manifest, or missing; and which stages a recipe key makes
stale.
"""

import errno
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from umls_reranker.calibration.features import FEATURES, inputs_of
from umls_reranker.core import files
from umls_reranker.core.arrow_files import arrow_writer
from umls_reranker.core.errors import UserError
from umls_reranker.core.json_files import read_json
from umls_reranker.core.keys import RunArguments
from umls_reranker.core.stage import Stage
from umls_reranker.lists.index_scores import INDEX_SCORES, IndexScore
from umls_reranker.pipeline.recipe import Recipe
from umls_reranker.pipeline.run_folder import (
    RunFolder,
    planned_stages,
    should_run,
    tell_other_settings,
)
from umls_reranker.pipeline.stages import stage_table
from umls_reranker.retrieval.retrieval_method import RetrievalMethod
from umls_reranker.retrieval.retrievers import RETRIEVERS, register_retriever

ROOT = Path(__file__).resolve().parents[2]
FILES = {"MRCONSO": "1", "MRCUI": "2", "corpus": "3"}
WHOLE = {"retrievers": ["dense", "lexical", "nearest_mentions"], "encoder_training_steps": 5}
# Recipe key -> the stage whose settings it is in; of each the stages that read it follow.
STALE = {
    "languages": ("concepts", ["X"]),
    "train_share": ("mentions", 0.1),
    "encoder_learning_rate": ("encoder", 0.1),
    "index_factory": ("index", "IVF64,Flat"),
    "candidates_per_mention": ("lists", 3),
    "nearest_negatives": ("pairs", 1),
    "hard_negative_weight": ("pairs", 2.0),
    "min_nearest_cosine": ("pairs", 0.85),
    "learning_rate": ("checkpoints", 1e-3),
    "max_length": ("checkpoints", 8),
    "calibrator": ("model", "platt"),
    "seed": ("mentions", 3),
    "per_device_train_batch_size": (None, 8),
    "save_total_limit": (None, 5),
    "dataloader_num_workers": (None, 1),
    "device": (None, "cpu"),
    "targets": (None, ["acc@1 >= 0.5"]),
}


def some_stage(run, settings=None, inputs=None, **options):
    return Stage(run / "index", settings or {"k": 32}, inputs or {"concepts": "abc"}, **options)


def write_output(stage, text, **options):
    with stage.writing(**options) as (folder, summary):
        (folder / "names.txt").write_text(text)
        summary["names"] = len(text)


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


# Which stages a recipe key makes stale


def plan(tmp_path, files=FILES, **values):
    return planned_stages(Recipe.from_values(WHOLE | values), tmp_path, files)


def stale(before, after):
    return {name for name in before if before[name].key != after[name].key}


def with_readers(stages, name):
    """A stage and those that read it, directly or not."""
    reached = {name}
    for stage in stages.values():
        if reached & stage.content["inputs"].keys():
            reached.add(stage.name)
    return reached


@pytest.mark.parametrize("key", STALE)
def test_a_key_makes_stale_what_reads_it(tmp_path, key):
    stage, value = STALE[key]
    before = plan(tmp_path)
    assert stale(before, plan(tmp_path, **{key: value})) == (
        with_readers(before, stage) if stage else set()
    )


def test_trainings_whose_batches_had_other_pairs_before_are_made_again(tmp_path):
    versions = [
        plan(tmp_path, **keys)["checkpoints"].content["version"]
        for keys in ({}, {"loss": "bce"}, {"loss": "listwise"})
    ]
    assert versions == [2, 2, 1]


def test_a_file_makes_stale_what_is_made_from_it(tmp_path):
    before = plan(tmp_path)
    assert stale(before, plan(tmp_path, FILES | {"corpus": "4"})) == with_readers(
        before, "mentions"
    )
    assert stale(before, plan(tmp_path, FILES | {"MRCONSO": "4"})) == {*before}


def test_a_local_model_counts_by_its_content(tmp_path):
    keys = []
    for name in ("one", "two", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}" if name != "other" else "{ }")
        keys.append(
            plan(tmp_path, encoder=str(tmp_path / name), cache_dir=str(tmp_path / "cache"))[
                "vectors"
            ].key
        )
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"retrievers": ["nearest_mentions"]}, "retrievers"),
        ({"dev_share": 0.3, "calibration_share": 0.7}, "calibration_share.*test_documents"),
        (
            {"dev_share": 0.9, "calibration_share": 0.7, "test_documents": "test.txt"},
            "calibration_share",
        ),
        ({"retrievers": ["lexical"], "min_nearest_cosine": 0.85}, "min_nearest_cosine"),
    ],
)
def test_a_recipe_that_lacks_what_a_stage_needs_is_refused(values, named):
    with pytest.raises(UserError, match=named):
        stage_table(Recipe.from_values(WHOLE | values))


def test_a_training_is_made_again_when_it_starts_elsewhere(tmp_path):
    plain = {"encoder": "org/a", "encoder_revision": "v1", "encoder_training_steps": 0}
    bases = [
        plain | {"model": "org/b"},
        plain | {"model": "encoder"},
        plain | {"model": "encoder", "encoder_training_steps": 5},
        plain | {"model": "encoder", "encoder_training_steps": 6},
        plain | {"model": "encoder", "encoder": "org/c"},
    ]
    keys = {plan(tmp_path, **base)["checkpoints"].key for base in bases}
    assert len(keys) == len(bases)
    # The same start under another name.
    named = plan(tmp_path, **plain, model="org/a", model_revision="v1")
    assert named["checkpoints"].key == plan(tmp_path, **bases[1])["checkpoints"].key


def test_trainings_of_the_former_key_stay_up_to_date(tmp_path):
    base = {"encoder": "org/a", "encoder_revision": "v1", "model": "encoder"}
    stage = plan(tmp_path, **base)["checkpoints"]
    former = {"model": "org/a", "model_revision": "v1", "start_from_encoder": True}
    assert stage.content["settings"].items() >= former.items()
    assert "encoder" in stage.content["inputs"]


def test_pairs_stay_up_to_date_where_a_later_key_is_unset(tmp_path):
    pairs = plan(tmp_path)["pairs"]
    assert "nearest_negatives" in pairs.content["settings"]
    assert "min_nearest_cosine" not in pairs.content["settings"]


# What a stage reads, and was made with other settings


@pytest.mark.parametrize(
    ("reader", "changed", "named"),
    [
        ("vectors", {"encoder_training_steps": 6}, r"encoder \(encoder_training_steps\)"),
        ("vectors", {"languages": ["X"]}, r"concepts \(languages\)"),
        # Directly or not.
        ("checkpoints", {"encoder_training_steps": 6}, r"encoder \(encoder_training_steps\)"),
        ("report", {"candidates_per_mention": 3}, r"lists \(candidates_per_mention\)"),
        ("pairs", {"seed": 3}, r"mentions \(seed\), .*lists \(seed\)"),
        ("vectors", {"encoder_training_steps": 0}, None),
        ("lists", {"learning_rate": 1e-3}, None),
        ("report", {}, None),
    ],
)
def test_what_was_made_with_other_settings_is_named(tmp_path, reader, changed, named):
    for stage in plan(tmp_path).values():
        write_output(stage, "cold")
    run = RunFolder(tmp_path)
    recipe = Recipe.from_values(WHOLE | changed)
    needs = stage_table(recipe)[reader].needs
    if named is None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tell_other_settings(recipe, run, needs)
        return
    with pytest.warns(UserWarning, match=named) as told:
        tell_other_settings(recipe, run, needs)
    assert len(told) == 1


def test_what_was_made_before_its_input_was_made_again_is_named(tmp_path):
    for stage in plan(tmp_path).values():
        write_output(stage, "cold")
    write_output(plan(tmp_path, encoder_training_steps=6)["encoder"], "warm")
    recipe = Recipe.from_values(WHOLE | {"encoder_training_steps": 6})
    with pytest.warns(UserWarning, match=r"vectors \(encoder\)"):
        tell_other_settings(recipe, RunFolder(tmp_path), ("index",))


# Folders


def test_a_finished_stage_has_output_manifest_and_summary(tmp_path):
    stage = some_stage(tmp_path)
    assert not stage.is_done()
    with stage.writing() as (folder, summary):
        (folder / "names.txt").write_text("cold")
        summary |= {"names": np.int64(4), "path": Path("x")}
    assert stage.is_done() and some_stage(tmp_path).is_done()
    assert listing(tmp_path) == ["index", "stages.jsonl"]
    manifest = read_json(stage.folder / "manifest.json")
    assert manifest["stage"] == "index" and manifest["key"] == stage.key
    assert manifest["settings"] == {"k": 32} and manifest["inputs"] == {"concepts": "abc"}
    assert manifest["summary"] == {"names": 4, "path": "x"} and manifest["versions"]["torch"]
    assert RunFolder(tmp_path).key_of("index", "build_index") == stage.key


@pytest.mark.parametrize(
    "change",
    [{"settings": {"k": 33}}, {"inputs": {"concepts": "abd"}}, {"version": 2}],
    ids=["k", "concepts", "version"],
)
def test_a_change_makes_it_stale_and_is_named(tmp_path, request, change):
    write_output(some_stage(tmp_path), "cold")
    changed = some_stage(tmp_path, **change)
    assert not changed.is_done()
    assert changed.differences(changed.folder) == [request.node.callspec.id]


def break_off(stage, text):
    """Stop as a killed run does; returns what the folder held at the start."""
    with pytest.raises(KeyboardInterrupt), stage.writing() as (folder, _):
        found = listing(folder)
        (folder / text).touch()
        raise KeyboardInterrupt
    return found


def test_what_a_killed_run_left_is_gone_on_with_only_for_the_same_output(tmp_path):
    one = some_stage(tmp_path, {"rate": 1}, resumes=True)
    other = some_stage(tmp_path, {"rate": 2}, resumes=True)
    assert break_off(one, "checkpoint-1") == ["manifest.json"]
    assert break_off(other, "checkpoint-2") == ["manifest.json"]
    assert break_off(one, "checkpoint-3") == ["checkpoint-1", "manifest.json"]
    write_output(one, "cold")
    # What other settings left goes with it.
    assert listing(tmp_path) == ["index", "stages.jsonl"]
    assert listing(one.folder) == ["checkpoint-1", "checkpoint-3", "manifest.json", "names.txt"]
    break_off(other, "checkpoint-2")
    write_output(other, "cold", overwrite=True)
    assert listing(other.folder) == ["manifest.json", "names.txt"]


def test_a_clock_that_is_set_back_makes_no_negative_seconds(tmp_path, monkeypatch):
    stage = some_stage(tmp_path)
    monkeypatch.setattr("time.time", iter([2e9, *[1e9] * 99]).__next__)
    write_output(stage, "cold")
    (line,) = (stage.folder.parent / "stages.jsonl").read_text().splitlines()
    assert json.loads(line)["seconds"] >= 0


@pytest.mark.parametrize("resumes", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EFBIG, "File too large"),
        OSError("563287 requested and 388064 written"),
        OSError("Not enough free space to write 32000000 bytes after offset 128"),
        RuntimeError(
            "Error in faiss::write_index: write error in x.faiss: 8 != 15 (No space left on device)"
        ),
        RuntimeError(
            "[enforce fail] PytorchStreamWriter failed writing file data/0: file write failed"
        ),
    ],
)
def test_a_full_disk_is_said_and_the_former_output_stays(tmp_path, error, resumes):
    write_output(some_stage(tmp_path), "former")
    stage = some_stage(tmp_path, resumes=resumes)
    with pytest.raises(UserError) as told, stage.writing() as (folder, _):
        (folder / "half").write_text("half")
        raise error
    assert str(stage.partial) in str(told.value) and "disk is full" in str(told.value)
    assert (stage.folder / "names.txt").read_text() == "former"
    assert stage.partial.exists() == resumes


@pytest.mark.parametrize(
    "change", [{"key": 1}, {"settings": None}, {"inputs": []}, {"summary": None}]
)
def test_a_manifest_that_was_changed_is_named(tmp_path, change):
    write_output(some_stage(tmp_path), "cold")
    manifest = tmp_path / "index" / "manifest.json"
    manifest.write_text(json.dumps(read_json(manifest) | change))
    for ask in (
        some_stage(tmp_path).is_done,
        lambda: RunFolder(tmp_path).key_of("index", "build_index"),
    ):
        with pytest.raises(UserError, match=r"manifest\.json"):
            ask()
    write_output(some_stage(tmp_path), "cold", overwrite=True)
    assert some_stage(tmp_path).is_done()


def own_annotations(folder):
    folder.mkdir()
    (folder / "annotations.txt").write_text("mine")


def own_manifest(folder):
    folder.mkdir()
    (folder / "manifest.json").write_text('{"name": "mine"}')


def own_file(folder):
    folder.write_text("mine")


@pytest.mark.parametrize("make", [own_annotations, own_manifest, own_file])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_no_stage_made_is_refused_and_stays(tmp_path, make, overwrite):
    stage = some_stage(tmp_path)
    make(stage.folder)
    for dry_run in (True, False):
        with pytest.raises(UserError, match=re.escape(str(stage.folder))):
            should_run(stage, RunArguments(overwrite=overwrite, dry_run=dry_run))
    with pytest.raises(UserError, match=re.escape(str(stage.folder))):
        write_output(stage, "cold", overwrite=overwrite)
    assert listing(tmp_path) == ["index"]
    assert stage.folder.is_file() or "mine" in next(stage.folder.iterdir()).read_text()


def test_an_empty_folder_becomes_a_stage_s(tmp_path):
    stage = some_stage(tmp_path)
    stage.folder.mkdir()
    assert should_run(stage, RunArguments())
    write_output(stage, "cold")
    assert stage.is_done()


# The lock


def test_damaged_data_of_a_stage_is_named(tmp_path):
    table = pa.table({"mention": ["cold"]})
    with arrow_writer(tmp_path / "mentions" / "train.arrow", table.schema) as writer:
        writer.write(table)
    assert RunFolder(tmp_path).splits("mentions")["train"]["mention"] == ["cold"]
    (tmp_path / "mentions" / "train.arrow").write_text("")
    with pytest.raises(UserError, match="mentions"):
        RunFolder(tmp_path).splits("mentions")


def test_a_run_folder_is_locked_once(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE_SECONDS", 0.0)
    run = RunFolder(tmp_path / "run")
    with run.locked():
        with (
            pytest.raises(UserError, match="another process is using"),
            RunFolder(tmp_path / "run").locked(),
        ):
            pass
        with RunFolder(tmp_path / "other").locked():
            pass
    with run.locked():
        pass


def test_processes_beside_the_owner_share_its_folder_and_take_no_lock(tmp_path):
    run = RunFolder(tmp_path)
    stage = some_stage(tmp_path)
    with run.locked(), stage.writing() as (folder, summary):
        beside = some_stage(tmp_path).writing_together(is_owner=False)
        with run.locked(owner=False), beside as (same, dropped):
            (same / "shard").write_text("1")
            dropped["names"] = 5
        assert same == folder and not stage.is_done()
        summary["names"] = 4
    assert stage.is_done() and read_json(stage.folder / "manifest.json")["summary"] == {"names": 4}
    assert (stage.folder / "shard").read_text() == "1"


# What retrievers declare decides the stages of their indexes, and what their scores are made


OF_ENCODER = {
    "encoder",
    "encoder_revision",
    "encoder_pooling",
    "encoder_max_length",
    "encoder_dtype",
}


class Other(RetrievalMethod):
    name = "other"
    help = "something else"


@pytest.fixture(autouse=True)
def restored():
    """What a test registers is forgotten."""
    yield
    for registry in (RETRIEVERS, INDEX_SCORES, FEATURES):
        registry.pop("other", None)


def plan_of_retrievers(tmp_path, names, steps=5):
    recipe = Recipe.from_values(
        {"retrievers": names, "encoder_training_steps": steps, "global_batch_size": 64}
    )
    return planned_stages(recipe, tmp_path, {"MRCONSO": "1", "corpus": "2"})


@pytest.mark.parametrize("trained", [{"encoder"}, set()], ids=["trained", "not trained"])
def test_indexes_are_made_from_what_retrievers_declare(tmp_path, trained):
    stages = plan_of_retrievers(
        tmp_path, ["nearest_mentions", "lexical", "context", "dense"], 5 if trained else 0
    )
    made_from = {
        "index": ({"index_factory"}, {"concepts", "vectors"} | trained),
        "lexical": ({"schema_version"}, {"concepts"}),
        "mention_index": (OF_ENCODER, {"concepts", "mentions"} | trained),
    }
    assert {
        name: ({*stages[name].content["settings"]}, {*stages[name].content["inputs"]})
        for name in made_from
    } == made_from
    order = ["vectors", "index", "lexical", "mention_index", "lists", "pairs"]
    assert [name for name in stages if name in order] == order
    searched = {"index", "lexical", "mention_index", "mentions"}
    assert {*stages["lists"].content["inputs"]} == searched and {
        *stages["pairs"].content["inputs"]
    } == {"lists"}


def test_a_score_of_a_retriever_that_reads_context_needs_context():
    class InContext(Other):
        reads_context = True
        score_name = "other"

    assert inputs_of(["retrieval", "context", "lexical"]) == [
        *("retrieval_score", "context", "context_score", "lexical_score")
    ]
    register_retriever(InContext, IndexScore("something else", reads_context=True))
    assert inputs_of(["other"]) == ["context", "other_score"]


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"name": "lexical"}, "the retriever lexical already has the name 'lexical'"),
        ({"folder": "index"}, "the retriever dense already has the folder 'index'"),
        ({"score_name": "context"}, "the retriever context already has the score_name 'context'"),
        (
            {"inputs": ("concepts", "pairs")},
            r"other: unknown inputs \['pairs'\]; choose from concepts, mentions",
        ),
    ],
)
def test_what_cannot_be_told_apart_is_refused(declared, message):
    with pytest.raises(ValueError, match=message):
        register_retriever(type("Declared", (Other,), declared))
    assert "other" not in RETRIEVERS
