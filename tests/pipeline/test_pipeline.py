"""From raw files to a published model, script by script, on a miniature release, corpus and
model.
"""

import json
import re
import shutil
import sys

import pytest
import yaml
from data_fixtures import VOCABULARY
from list_fixtures import ROUNDING, given_candidates
from pipeline_fixtures import (
    ROOT,
    SCRIPTS,
    STAGE_SCRIPTS,
    assert_same_files,
    change_times,
    contents,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_models import tiny_cross_encoder
from transformers import BertConfig, BertForSequenceClassification

from umls_reranker import ConceptLinker, UMLSReranker
from umls_reranker.calibration.features import FEATURES, STAND_INS
from umls_reranker.core.hashes import file_sha256
from umls_reranker.core.json_files import read_json
from umls_reranker.hub.manifest import verify_model
from umls_reranker.lists.read import read_rows
from umls_reranker.lists.run_lists import read_run_lists
from umls_reranker.pipeline import model as model_stages
from umls_reranker.pipeline.command import MISSED_TARGET
from umls_reranker.pipeline.options import load_recipe
from umls_reranker.pipeline.run_folder import RunFolder

pytest_plugins = ["pipeline_fixtures"]

CHEAP_STAGES = ("concepts", "mentions", "vectors", "index", "lists", "pairs")
STAGES = (*CHEAP_STAGES, "checkpoints", "model", "report")
OF_MENTIONS = ("mention_id", "doc_id", "start", "end", "left", "right", "cui")
SPLITS = {
    "mentions": ["train", "dev", "calibration", "test"],
    "lists": ["train", "dev", "calibration", "test"],
    "pairs": ["train"],
}
MODEL_FILES = {
    *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    *(
        "reranker.json",
        "calibrator.json",
        "thresholds.json",
        "recipe.yaml",
        "metrics.json",
        "README.md",
    ),
    *(
        "sentence_bert_config.json",
        "string_counts.safetensors",
        "reliability.svg",
        "risk_coverage.svg",
        "outcomes.parquet",
        "reference.json",
    ),
}
REPORT_FILES = {
    "metrics.json",
    "outcomes.parquet",
    "reference.json",
    "reliability.svg",
    "risk_coverage.svg",
}


@pytest.fixture(scope="module")
def tables(finished):
    return {
        name: RunFolder(finished.folder).splits(name)
        for name in CHEAP_STAGES
        if name not in ("vectors", "index")
    }


def copy_stages(finished, folder, stages):
    """A run folder with some finished stages; returns it."""
    for stage in stages:
        shutil.copytree(finished.folder / stage, folder / "mini" / stage)
    shutil.copyfile(finished.folder / "index.json", folder / "mini" / "index.json")
    return folder / "mini"


# What a run leaves


def test_every_script_ends_well(finished):
    assert [
        name for name, outcome in finished.outcomes.items() if outcome.code or outcome.errors
    ] == []
    assert [
        stage for script in STAGE_SCRIPTS for stage in finished.outcomes[script].remade
    ] == list(STAGES)
    assert re.match(
        r"best checkpoint: step \d+ of 60; dev: f1 ",
        finished.outcomes["train"].out.splitlines()[-1],
    )
    assert "3 passed, 0 failed" in finished.outcomes["validate"].out


def test_the_run_folder_holds_every_stage(finished):
    present = {path.name for path in finished.folder.iterdir()}
    assert present == {
        *STAGES,
        "index.json",
        "checklist.json",
        "stages.jsonl",
        ".lock",
        "tensorboard",
    }
    for stage in STAGES:
        manifest = json.loads((finished.folder / stage / "manifest.json").read_text())
        assert (manifest["schema_version"], manifest["stage"]) == (2, stage)
        assert (
            manifest["key"]
            and manifest["settings"]
            and manifest["inputs"]
            and manifest["versions"]["torch"]
        )
    checkpoints = {path.name for path in (finished.folder / "checkpoints").glob("checkpoint-*")}
    assert checkpoints >= {"checkpoint-60", "checkpoint-best"} and len(checkpoints) <= 4
    logged = [
        json.loads(line)["stage"]
        for line in (finished.folder / "stages.jsonl").read_text().splitlines()
    ]
    assert sorted(logged) == sorted(STAGES)


def test_the_model_folder_is_complete(finished):
    model = finished.folder / "model"
    assert {path.name for path in model.iterdir()} == MODEL_FILES | {"manifest.json"}
    listed = verify_model(model)["sha256"]
    assert set(listed) == MODEL_FILES - {"README.md"}
    calibrator = read_json(model / "calibrator.json")
    tried = calibrator["fitted_on"]["cross_validated_losses"]
    assert calibrator["models"][0]["method"] in tried and "isotonic" not in tried
    assert load_recipe(model / "recipe.yaml") == load_recipe(finished.recipe)
    best = finished.folder / "checkpoints" / "checkpoint-best" / "model.safetensors"
    assert (model / "model.safetensors").read_bytes() == best.read_bytes()
    for name in REPORT_FILES:
        assert (model / name).read_bytes() == (finished.folder / "report" / name).read_bytes()


def test_splits_and_columns(tables):
    for name, splits in SPLITS.items():
        assert sorted(tables[name]) == sorted(splits)
    columns = {"entity", "left", "right", "names", "labels", "weights", "cuis", "sources"}
    assert set(tables["pairs"]["train"].column_names) == columns


def test_the_gold_concept_is_never_put_into_a_list(scripts, finished, tables, tmp_path):
    def check(split, lists, k):
        for mention, found in zip(tables["mentions"][split], lists, strict=True):
            assert [found[key] for key in OF_MENTIONS] == [mention[key] for key in OF_MENTIONS]
            given = (mention["mention"], mention["semantic_types"])
            assert (found["entity"], found["entity_type"]) == given
            scores = [item["retrieval_score"] for item in found["candidates"]]
            assert len({item["cui"] for item in found["candidates"]}) == len(scores) == k
            assert scores == sorted(scores, reverse=True)

    # Training mentions whose concept the dictionary lacks are not mined, and get no list.
    assert len(tables["lists"]["train"]) == len(tables["mentions"]["train"]) - 2
    for split in SPLITS["mentions"][1:]:
        check(split, tables["lists"][split], 8)
    # "cold" names two concepts, and a list of one holds one of them.
    run = copy_stages(finished, tmp_path, ("concepts", "mentions", "index"))
    assert scripts.run("build_index", output_dir=tmp_path, candidates_per_mention=1).remade == [
        "vectors",
        "lists",
    ]
    missing = 0
    for split, lists in RunFolder(run).splits("lists").items():
        if split != "train":
            check(split, lists, 1)
        found = [(row["cui"][0][0], row["candidates"][0]["cui"]) for row in lists]
        missing += sum(gold in VOCABULARY and cui != gold for gold, cui in found)
    assert missing > 0


def test_reports_count_what_was_lost(finished):
    reading = json.loads((finished.folder / "mentions" / "read_report.json").read_text())
    assert (
        reading["corpus"]["documents"],
        reading["corpus"]["mentions"],
        reading["corpus"]["malformed"],
    ) == (
        40,
        120,
        {},
    )
    corpus = finished.folder.parents[1] / "corpus.txt"
    assert reading["sha256"]["corpus corpus.txt"] == file_sha256(corpus)
    mining = json.loads((finished.folder / "pairs" / "mining_report.json").read_text())
    assert mining["mentions"] == mining["mined_mentions"] == 58
    metrics = json.loads((finished.folder / "report" / "metrics.json").read_text())
    figures = metrics["figures"]
    known = figures["acc@1_in_dictionary"]
    assert metrics["out_of_dictionary"] == metrics["mentions"] - known["n"]
    assert set(metrics["rows"]["systems"]) >= {
        "reranker",
        "lists_order",
        "exact_match",
        "most_frequent_cui",
    }
    assert known["low"] <= known["value"] <= known["high"] and 0 <= figures["roc_auc"]["value"] <= 1


# Running again


def test_the_same_command_again_changes_nothing(scripts, finished):
    before = contents(finished.folder)
    times = change_times(finished.folder)
    log = (finished.folder / "stages.jsonl").read_bytes()
    skipped = []
    for script in SCRIPTS:
        outcome = scripts.run(script)
        assert (outcome.code, outcome.remade) == (0, []), outcome.err
        skipped += outcome.skipped
    assert skipped == list(STAGES)
    assert contents(finished.folder) == before
    # validate checks anew each time.
    assert change_times(finished.folder) | {"checklist.json": 0} == times | {"checklist.json": 0}
    assert (finished.folder / "stages.jsonl").read_bytes() == log


def test_a_changed_key_remakes_what_depends_on_it(scripts, finished, tmp_path):
    run = copy_stages(finished, tmp_path, STAGES)
    keys = {"output_dir": tmp_path}

    def remade(**changed):
        keys.update(changed)
        before = contents(run)
        outcomes = [scripts.run(script, **keys) for script in STAGE_SCRIPTS]
        assert {outcome.code for outcome in outcomes} == {0}, outcomes[-1].err
        changes = {
            name.split("/")[0]
            for name, digest in contents(run).items()
            if before.get(name) != digest
        }
        return [stage for outcome in outcomes for stage in outcome.remade], changes

    assert remade() == ([], set())
    # What other keys make stale is in the tests of stages.
    assert remade(target_precision=0.9)[0] == ["model", "report"]


def test_a_run_ends_in_one_process_with_one_loaded_model(finished, tmp_path, monkeypatch):
    without = shutil.ignore_patterns("report", "checklist.json")
    shutil.copytree(finished.folder, tmp_path / "mini", ignore=without)
    loaded = []
    load = UMLSReranker.from_pretrained

    def counted(*words, **options):
        loaded.append(words)
        return load(*words, **options)

    monkeypatch.setattr(UMLSReranker, "from_pretrained", counted)
    words = ["model", str(finished.recipe), "--output_dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*words, "--targets", "acc@1 >= 1.1"])
    with pytest.warns(UserWarning, match="missing inputs: entity_type"):
        assert model_stages.main() == MISSED_TARGET
    assert loaded == [(tmp_path / "mini" / "model",)]
    # Each of two threads computes a smaller batch than one alone.
    for folder in ("report", "model"):
        assert_same_files(tmp_path / "mini" / folder, finished.folder / folder)


def test_isotonic_calibrates_the_cross_encoder_alone(scripts, finished, tmp_path):
    run = copy_stages(finished, tmp_path, STAGES[:-2])
    keys = {"output_dir": tmp_path, "calibrator": "isotonic", "features": []}
    outcomes = [scripts.run(script, **keys) for script in ("calibrate", "evaluate", "validate")]
    assert [outcome.code for outcome in outcomes] == [0, 0, 0], outcomes[-1].err
    (model,) = read_json(run / "model" / "calibrator.json")["models"]
    assert (model["method"], model["fusion"]) == ("isotonic", None)
    # The baseline weighs the scores of the lists, which isotonic regression cannot do.
    assert "calibrated list scores" in outcomes[0].out


@pytest.mark.parametrize("script", ["validate", "export", "export_index", "serve"])
def test_a_dry_run_of_what_is_no_stage_changes_nothing_either(script, scripts, finished, tmp_path):
    before = change_times(finished.folder)
    keys = {"index_folder": tmp_path / "index"} if script == "export_index" else {}
    keys |= {"served_model": finished.folder / "model"} if script == "serve" else {}
    outcome = scripts.run(script, **keys, dry_run=True)
    assert (outcome.code, outcome.errors) == (0, []) and "would " in outcome.err, outcome.err
    assert change_times(finished.folder) == before and not list(tmp_path.iterdir())


# Using what a run made


# The sapbert-medmentions recipe unchanged, with overrides only on the command line, trained by two


RECIPE = ROOT / "recipes" / "sapbert-medmentions" / "config.yaml"
BEFORE_THE_MODEL = ("concepts", "mentions", "vectors", "index", "lists", "pairs", "checkpoints")


def test_two_launched_processes_make_the_indexes_of_one(scripts, finished, tmp_path):
    run = copy_stages(finished, tmp_path, ("concepts", "mentions"))
    outcome = scripts.launch("build_index", scripts.recipe, "--output_dir", tmp_path)
    assert (outcome.code, outcome.errors) == (0, []), outcome.err
    for stage in ("vectors", "index", "lists"):
        assert_same_files(run / stage, finished.folder / stage)


def test_the_reference_recipe_trains_on_two_processes(scripts, tmp_path):
    raw = scripts.materials
    overrides = {
        "output_dir": tmp_path,
        "umls_dir": raw / "META",
        "corpus": raw / "corpus.txt",
        "train_documents": raw / "train.txt",
        "dev_documents": raw / "dev.txt",
        "test_documents": raw / "test.txt",
        "expected_mentions": 120,
        "encoder": raw / "encoder",
        "model": raw / "model",
        "index_factory": "Flat",
        "index_parameters": "",
        "bf16": False,
        "device": "cpu",
        "global_batch_size": 15,
        "per_device_train_batch_size": 4,
        "max_steps": 6,
        "eval_steps": 3,
    }
    for script in ("prepare_data", "build_index", "mine_negatives"):
        outcome = scripts.run(script, RECIPE, **overrides)
        assert (outcome.code, outcome.errors) == (0, []), outcome.err
    options = [word for key, value in overrides.items() for word in (f"--{key}", value)]
    outcome = scripts.launch("train", RECIPE, *options)
    assert (outcome.code, outcome.errors) == (0, []), outcome.err

    run = tmp_path / "sapbert-medmentions"
    assert {path.name for path in run.iterdir()} == {
        *BEFORE_THE_MODEL,
        "index.json",
        "stages.jsonl",
        ".lock",
        "tensorboard",
    }
    manifest = json.loads((run / "checkpoints" / "manifest.json").read_text())
    (events,) = (run / "tensorboard" / manifest["key"][:12]).iterdir()
    curve = EventAccumulator(str(events)).Reload().Scalars("train/loss")
    assert [event.step for event in curve] == list(
        range(1, 7)
    ) and f"'loss': '{curve[0].value:.4g}'" in outcome.out
    summary = manifest["summary"]
    assert (summary["processes"], summary["steps"], summary["dtype"]) == (2, 6, "float32")
    assert summary["train_pairs"] == sum(map(len, RunFolder(run).splits("pairs")["train"]["names"]))
    assert f"best checkpoint: step {summary['best_step']} of 6" in outcome.out
    assert (run / "checkpoints" / "checkpoint-best" / "model.safetensors").is_file()


# A full run with everything that reads context: trained encoder, union of retrievers,


@pytest.fixture(scope="module")
def context_run(scripts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("context")
    keys = {
        "output_dir": folder,
        "encoder_training_steps": 4,
        "retrievers": ["dense", "context", "lexical", "forms", "nearest_mentions"],
        "max_steps": 10,
        "model": "encoder",
        "context_tokens": 4,
        "features": list(FEATURES),
    }
    names = (
        "prepare_data",
        "train_encoder",
        "build_index",
        "mine_negatives",
        "train",
        "calibrate",
        "evaluate",
    )
    for script in names:
        outcome = scripts.run(script, **keys)
        assert outcome.code == 0, outcome.err
    return folder / "mini", scripts, keys


def test_a_model_names_the_encoder_that_it_started_from(context_run):
    folder, scripts, _ = context_run
    assert verify_model(folder / "model")["base_model"] == str(scripts.materials / "encoder")
    assert load_recipe(folder / "model" / "recipe.yaml").model.model == "encoder"


def test_a_model_on_the_command_line_is_trained_not_the_encoder(context_run, tmp_path):
    folder, scripts, keys = context_run
    made_anew = shutil.ignore_patterns("checkpoints", "model", "report", "tensorboard")
    shutil.copytree(folder, tmp_path / "mini", ignore=made_anew)
    other = tiny_cross_encoder(tmp_path / "other")
    narrow = BertConfig.from_pretrained(other, hidden_size=16)
    BertForSequenceClassification(narrow).save_pretrained(other)
    # As recipes said it before.
    former = yaml.safe_load(scripts.recipe.read_text(encoding="utf-8"))
    del former["model"]
    recipe = tmp_path / "former.yaml"
    recipe.write_text(yaml.safe_dump(former | {"start_from_encoder": True}), encoding="utf-8")
    settings = {name: value for name, value in keys.items() if name != "model"}
    settings |= {"output_dir": tmp_path, "max_steps": 1}
    sizes = {}
    for name, model in {"encoder": {}, "other": {"model": other}}.items():
        outcome = scripts.run("train", recipe, **settings, **model)
        assert outcome.code == 0, outcome.err
        best = tmp_path / "mini" / "checkpoints" / "checkpoint-best"
        sizes[name] = read_json(best / "config.json")["hidden_size"]
    assert sizes == {"encoder": 32, "other": 16}


@pytest.mark.parametrize("words", [["--dry_run"], []], ids=["dry run", "run"])
def test_an_encoder_of_other_settings_is_named_where_it_is_used(context_run, tmp_path, words):
    folder, scripts, keys = context_run
    shutil.copytree(folder, tmp_path / "mini")
    settings = keys | {"output_dir": tmp_path, "encoder_training_steps": 250}
    outcome = scripts.run("build_index", scripts.recipe, *words, **settings)
    assert outcome.code == 0, outcome.err
    (told,) = [line for line in outcome.err.splitlines() if line.startswith("warning: ")]
    assert "encoder (encoder_training_steps)" in told


def first_row(folder):
    """The first row of the test lists."""
    return next(
        row for batch in read_rows(folder / "lists" / "test.arrow") for row in batch.mappings()
    )


def test_lists_hold_the_scores_of_all_retrievers(context_run):
    keys = {"cui", "name", "retrieval_score", "context_score", "lexical_score", "forms_score"}
    assert {*first_row(context_run[0])["candidates"][0]} == keys
    summary = json.loads((context_run[0] / "lists" / "manifest.json").read_text())["summary"]
    assert set(summary["test"]["recall"]) == {
        "dense",
        "context",
        "lexical",
        "forms",
        "nearest_mentions",
        "union",
    }


def test_the_reranker_weighs_all_features_and_has_fallbacks_without_what_requests_may_lack(
    context_run,
):
    reranker = UMLSReranker.from_pretrained(context_run[0] / "model")
    models = {model.name: model for model in reranker.calibration.models}
    assert list(models) == ["all", "no type", "names", "names, no type"]
    # Where a retriever gives scores, nothing stands in for them.
    assert set(models["all"].fusion.weights) == set(FEATURES).difference(STAND_INS)
    of_names = {name for name, feature in FEATURES.items() if not feature.inputs}
    assert (
        set(models["names"].fusion.weights)
        == set(models["names, no type"].fusion.weights)
        == of_names
    )
    row = first_row(context_run[0])
    bare = [{"name": candidate["name"], "cui": candidate["cui"]} for candidate in row["candidates"]]
    given = {name: row[name] for name in ("left", "right", "index_key")}
    # The types of a run's candidates are in its dictionary.
    with pytest.warns(UserWarning, match="missing inputs: semantic_types"):
        ranked = reranker.rerank(row["entity"], row["candidates"], "T047", **given)
    assert {item.model_name for item in ranked} == {"no type"}
    with pytest.warns(UserWarning, match="no tiers"):
        ranked = reranker.rerank(row["entity"], bare)
    assert {item.model_name for item in ranked} == {"names, no type"}


@pytest.mark.filterwarnings("ignore:missing inputs")  # some mentions have no type
def test_the_linker_gives_the_scores_of_the_evaluation(context_run):
    # Candidates, their types and all scores: the reranker sees what calibration and evaluation saw.
    linker = ConceptLinker.from_run(context_run[0], device="cpu", dtype="float32")
    mentions = RunFolder(context_run[0]).splits("mentions")["test"]
    reranker = linker.reranker
    lists = read_run_lists(context_run[0], "test", linker.concepts)
    expected = reranker.decide(lists).probabilities.tolist()
    linked = linker.link_batch(
        list(mentions["mention"]),
        entity_types=list(mentions["semantic_types"]),
        lefts=list(mentions["left"]),
        rights=list(mentions["right"]),
    )
    by_cui = [{item.cui: item.score for item in items} for items in linked]
    found = [
        by_cui[row][cui]
        for row, cui in zip(lists.owner.tolist(), lists.cuis.to_list(), strict=True)
    ]
    assert found == pytest.approx(expected, abs=ROUNDING)


def test_a_linker_retrieves_what_was_evaluated_wherever_its_index_lies(context_run, tmp_path):
    folder, scripts, keys = context_run
    outcome = scripts.run("export_index", index_folder=tmp_path / "index", **keys)
    assert outcome.code == 0, outcome.err
    parts = {"concepts", "index", "lexical", "forms", "mention_index", "encoder", "index.json"}
    assert {path.name for path in (tmp_path / "index").iterdir()} == parts
    linker = ConceptLinker.from_pretrained(
        folder / "model", tmp_path / "index", device="cpu", dtype="float32"
    )
    # The key is over all three indexes.
    lists = read_run_lists(folder, "test", linker.concepts)
    index_key = linker.reranker.calibration.source.index_key
    assert linker.retriever.index_key == index_key == lists.index_keys[0]
    queries = linker.read(lists.mentions, lefts=lists.lefts, rights=lists.rights)
    retrieved = linker.candidates(queries).to_pylist()
    for found, expected in zip(retrieved, given_candidates(lists), strict=True):
        assert [(item["cui"], item["name"]) for item in found] == [
            (item["cui"], item["name"]) for item in expected
        ]
        for item, same in zip(found, expected, strict=True):
            assert set(item) == set(same) >= {"retrieval_score", "context_score", "lexical_score"}
            assert item["semantic_types"] == same["semantic_types"]
            scores = [key for key in item if key.endswith("_score")]
            assert [item[key] for key in scores] == pytest.approx(
                [same[key] for key in scores], abs=1e-5
            )
