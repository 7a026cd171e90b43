"""From raw files to a published model, script by script, on a miniature release, corpus and model."""

import json
import re
import shutil
import textwrap
from pathlib import Path

import pytest
from data_fixtures import PMIDS, VOCABULARY
from datasets import Features, List, Value
from hub_server import WRITER, HubServer
from pipeline_fixtures import COPIES, SCRIPTS, STAGE_SCRIPTS, change_times, contents

from umls_reranker import UMLSReranker
from umls_reranker.core.files import read_json
from umls_reranker.core.recipe import load_recipe
from umls_reranker.core.stages import RunFolder
from umls_reranker.hub.model_folder import changing, verify_model
from umls_reranker.retrieval.negatives import SOURCES
from umls_reranker.vocab.text import normalize_name

pytest_plugins = ["pipeline_fixtures"]

CHEAP_STAGES = ("concepts", "mentions", "vectors", "index", "lists", "pairs")
STAGES = (*CHEAP_STAGES, "checkpoints", "model", "report")
TEXT, TEXTS = Value("string"), List(Value("string"))
COLUMNS = {
    "concepts": {
        "cui": TEXT,
        "name": TEXT,
        "synonyms": TEXTS,
        "semantic_types": TEXTS,
        "definition": TEXT,
    },
    "mentions": {
        "mention_id": Value("int64"),
        "doc_id": TEXT,
        "start": Value("int32"),
        "end": Value("int32"),
        "mention": TEXT,
        "left": TEXT,
        "right": TEXT,
        "cui": TEXT,
        "semantic_types": TEXTS,
    },
    "lists": {
        "mention_id": Value("int64"),
        "doc_id": TEXT,
        "start": Value("int32"),
        "end": Value("int32"),
        "entity": TEXT,
        "left": TEXT,
        "right": TEXT,
        "cui": TEXT,
        "entity_type": TEXTS,
        "index_key": TEXT,
        "candidates": List({"cui": TEXT, "name": TEXT, "retrieval_score": Value("float32")}),
    },
}
SPLITS = {
    "mentions": ["train", "dev", "calibration", "test"],
    "lists": ["train", "dev", "calibration", "test"],
    "pairs": ["train"],
}
MODEL_FILES = {
    *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    *("reranker.json", "calibrator.json", "thresholds.json", "recipe.yaml", "metrics.json", "README.md"),
    *("string_counts.safetensors", "reliability.svg", "risk_coverage.svg", "outcomes.parquet", "reference.json"),
}
REPORT_FILES = {
    *("metrics.json", "report.html", "outcomes.parquet", "reference.json", "manifest.json"),
    *("reliability.svg", "risk_coverage.svg"),
}


@pytest.fixture(scope="module")
def tables(finished):
    return {name: RunFolder(finished.folder).splits(name) for name in CHEAP_STAGES if name not in ("vectors", "index")}


def copy_stages(finished, folder, stages):
    """A run folder with some finished stages; returns it."""
    for stage in stages:
        shutil.copytree(finished.folder / stage, folder / "mini" / stage)
    return folder / "mini"


# What a run leaves


def test_every_script_ends_well(finished):
    assert [name for name, outcome in finished.outcomes.items() if outcome.code or outcome.errors] == []
    assert [stage for script in STAGE_SCRIPTS for stage in finished.outcomes[script].remade] == list(STAGES)
    assert re.match(
        r"best checkpoint: step \d+ of 60; dev pairs: f1 ", finished.outcomes["train"].out.splitlines()[-1]
    )
    assert "3 passed, 0 failed" in finished.outcomes["validate"].out
    assert [
        name for name, outcome in finished.outcomes.items() if "shards" in outcome.err or "weights:" in outcome.err
    ] == []
    _, printed = finished.outcomes["summarize"].out.split("This prints:")
    assert all(re.match(r"    \d\.\d{3}  \w+ +\S", line) for line in printed.strip("\n").splitlines())


@pytest.mark.filterwarnings("ignore:missing inputs")
def test_the_example_prints_what_the_summary_says(finished, capsys):
    lines, printed = finished.outcomes["summarize"].out.split("Use it:\n")[1].split("This prints:\n")
    assert "UMLSReranker.from_pretrained(" in lines
    exec(textwrap.dedent(lines), {})
    assert capsys.readouterr().out.strip() == textwrap.dedent(printed).strip()


def test_the_run_folder_holds_every_stage(finished):
    present = {path.name for path in finished.folder.iterdir()}
    assert present == {*STAGES, "checklist.json", "stages.jsonl", ".lock"}
    for stage in STAGES:
        manifest = json.loads((finished.folder / stage / "manifest.json").read_text())
        assert (manifest["schema_version"], manifest["stage"]) == (2, stage)
        assert manifest["key"] and manifest["settings"] and manifest["inputs"] and manifest["versions"]["torch"]
    index = {path.name for path in (finished.folder / "index").iterdir()}
    assert index == {"names.faiss", "names.arrow", "index.json", "manifest.json"}
    assert (finished.folder / "pairs" / "mining_report.json").is_file()
    checkpoints = {path.name for path in (finished.folder / "checkpoints").glob("checkpoint-*")}
    assert checkpoints >= {"checkpoint-60", "checkpoint-best"} and len(checkpoints) <= 4
    report = {path.name for path in (finished.folder / "report").iterdir()}
    assert report == REPORT_FILES
    logged = [json.loads(line)["stage"] for line in (finished.folder / "stages.jsonl").read_text().splitlines()]
    assert sorted(logged) == sorted(STAGES)


def test_the_model_folder_is_complete(finished):
    model = finished.folder / "model"
    assert {path.name for path in model.iterdir()} == MODEL_FILES | {"manifest.json"}
    listed = verify_model(model)["sha256"]
    assert set(listed) == MODEL_FILES - {"README.md"}
    calibrator = read_json(model / "calibrator.json")
    tried = calibrator["fitted_on"]["cross_validated_losses"]
    assert calibrator["inputs"][0]["method"] in tried and "isotonic" not in tried
    assert load_recipe(model / "recipe.yaml") == load_recipe(finished.recipe)
    best = finished.folder / "checkpoints" / "checkpoint-best" / "model.safetensors"
    assert (model / "model.safetensors").read_bytes() == best.read_bytes()
    for name in REPORT_FILES & MODEL_FILES:
        assert (model / name).read_bytes() == (finished.folder / "report" / name).read_bytes()


def test_columns_and_splits(tables):
    for name, splits in SPLITS.items():
        assert sorted(tables[name]) == sorted(splits)
        for split in splits:
            if name in COLUMNS:
                assert tables[name][split].features == Features(COLUMNS[name])
    columns = {"entity", "left", "right", "names", "labels", "weights", "cuis", "sources"}
    assert set(tables["pairs"]["train"].column_names) == columns


def test_splits_share_no_document(tables):
    documents = {split: set(rows["doc_id"]) for split, rows in tables["mentions"].items()}
    assert documents["train"] == set(PMIDS)
    held_out = [documents[split] for split in ("dev", "calibration", "test")]
    assert set.union(*held_out) == set(COPIES) and sum(map(len, held_out)) == len(COPIES)
    assert sum(len(rows) for rows in tables["mentions"].values()) == 120
    for rows in tables["mentions"].values():
        assert rows["mention_id"][:] == list(range(len(rows)))


def test_the_gold_concept_is_never_put_into_a_list(scripts, finished, tables, tmp_path):
    def check(split, lists, k):
        for mention, found in zip(tables["mentions"][split], lists, strict=True):
            names = {"entity": "mention", "entity_type": "semantic_types"}
            assert {names.get(key, key): found[key] for key in COLUMNS["lists"] if key in mention} == {
                key: mention[key] for key in COLUMNS["lists"] if key in mention
            }
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
        missing += sum(row["cui"] in VOCABULARY and row["candidates"][0]["cui"] != row["cui"] for row in lists)
    assert missing > 0


def test_negatives_are_other_concepts(tables):
    names = {cui: {normalize_name(name) for name in names} for cui, (_, names) in VOCABULARY.items()}
    weights = {"positive": 5.0, "nearest": 1.5, "type": 1.0, "random": 1.0}
    for mention, row in zip(tables["lists"]["train"], tables["pairs"]["train"], strict=True):
        gold, *cuis = row["cuis"]
        assert (row["entity"], gold, row["labels"]) == (mention["entity"], mention["cui"], [1] + [0] * 9)
        sources = [SOURCES[source] for source in row["sources"]]
        assert sources[0] == "positive" and row["weights"] == [weights[source] for source in sources]
        assert gold not in cuis and len(set(cuis)) == 9
        for cui, name in zip(row["cuis"], row["names"], strict=True):
            assert normalize_name(name) in names[cui] and (cui == gold or not names[cui] & names[gold])


def test_reports_count_what_was_lost(finished):
    reading = json.loads((finished.folder / "mentions" / "read_report.json").read_text())
    assert (reading["corpus"]["documents"], reading["corpus"]["mentions"], reading["corpus"]["malformed"]) == (
        40,
        120,
        {},
    )
    mining = json.loads((finished.folder / "pairs" / "mining_report.json").read_text())
    assert mining["mentions"] == mining["mined_mentions"] == 58
    assert mining["dropped_shared_name_nearest"] > 0
    metrics = json.loads((finished.folder / "report" / "metrics.json").read_text())
    figures = metrics["figures"]
    known = figures["acc@1_in_dictionary"]
    assert metrics["out_of_dictionary"] == metrics["mentions"] - known["n"]
    assert set(metrics["rows"]["systems"]) >= {"reranker", "lists_order", "exact_match", "most_frequent_cui"}
    assert known["low"] <= known["value"] <= known["high"] and 0 <= figures["roc_auc"]["value"] <= 1


# Running again


def test_the_same_command_again_changes_nothing(scripts, finished):
    before, times = contents(finished.folder), change_times(finished.folder)
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
        changes = {name.split("/")[0] for name, digest in contents(run).items() if before.get(name) != digest}
        return [stage for outcome in outcomes for stage in outcome.remade], changes

    # The name of the repo is in the card.
    assert remade(repo_id="org/mini", tag="v1") == ([], {"model"})
    assert "org/mini" in (run / "model" / "README.md").read_text(encoding="utf-8")
    assert remade(bootstrap_resamples=60)[0] == ["report"]
    assert remade(candidates_per_mention=6)[0] == ["lists", "pairs", "checkpoints", "model", "report"]
    stages, changes = remade(hard_negative_weight=2.0)
    assert stages == ["pairs", "checkpoints", "model", "report"] and changes == set(stages)


def test_two_runs_give_the_same_bytes(scripts, finished, tmp_path):
    for script in STAGE_SCRIPTS[:3]:
        assert scripts.run(script, output_dir=tmp_path).code == 0
    for stage in CHEAP_STAGES:
        assert contents(tmp_path / "mini" / stage) == contents(finished.folder / stage), stage


def test_overwrite_remakes_and_a_dry_run_does_not(scripts, finished, tmp_path):
    run = copy_stages(finished, tmp_path, CHEAP_STAGES)
    before = change_times(run)
    planned = scripts.run("mine_negatives", output_dir=tmp_path, overwrite=True, dry_run=True)
    assert (planned.code, planned.remade) == (0, []) and "[pairs] would be written" in planned.err
    assert change_times(run) == before
    digests = contents(run)
    assert scripts.run("mine_negatives", output_dir=tmp_path, overwrite=True).remade == ["pairs"]
    assert contents(run) == digests and change_times(run) != before


@pytest.mark.parametrize("script", ["validate", "export", "export_index", "serve"])
def test_a_dry_run_of_what_is_no_stage_changes_nothing_either(script, scripts, finished, tmp_path):
    before = change_times(finished.folder)
    keys = {"index_folder": tmp_path / "index"} if script == "export_index" else {}
    keys |= {"served_model": finished.folder / "model"} if script == "serve" else {}
    outcome = scripts.run(script, **keys, dry_run=True)
    assert (outcome.code, outcome.errors) == (0, []) and "would " in outcome.err, outcome.err
    assert change_times(finished.folder) == before and not list(tmp_path.iterdir())


# Using what a run made


@pytest.fixture(scope="module")
def reranker(finished):
    return UMLSReranker.from_pretrained(finished.folder / "model", device="cpu", dtype="float32")


def test_a_file_of_mentions_is_reranked_and_monitored(scripts, finished, reranker, tmp_path):
    rows = [
        {"entity": "cold", "candidates": [{"name": "common cold", "cui": "C9000004"}, "cold temperature"]},
        {"entity": "fever", "candidates": ["high temperature"], "entity_type": "Sign or Symptom", "id": 7},
        {"entity": "moon dust", "candidates": [], "entity_type": ["T047", "T184"]},
    ]
    source, target = tmp_path / "input.jsonl", tmp_path / "output.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    model = finished.folder / "model"
    outcome = scripts.run("rerank", model, source, target, device="cpu", dtype="float32", batch_mentions=2)
    assert (outcome.code, outcome.errors) == (0, []), outcome.err
    assert outcome.out == f"3 mentions written to {target}, 0 skipped\n"
    written = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [{key: value for key, value in row.items() if key != "ranked"} for row in written] == rows
    for row, entry in zip(rows, written, strict=True):
        expected = reranker.rerank(row["entity"], row["candidates"], row.get("entity_type"))
        assert [item["name"] for item in entry["ranked"]] == [item.name for item in expected]
        for item, one in zip(entry["ranked"], expected, strict=True):
            assert item["score"] == pytest.approx(one.score, abs=1e-6)
            assert (item["cui"], item["tier"], item["accepted"]) == (one.cui, one.tier, one.accepted)
    assert {path.name for path in tmp_path.iterdir()} == {"input.jsonl", "output.jsonl"}

    recipe = tmp_path / "deployment.yaml"
    recipe.write_text(f"served_model: {model}\n", encoding="utf-8")
    table = scripts.run("monitor", model, target)
    assert scripts.run("monitor", recipe, target).out == table.out
    assert table.code == 0 and table.out.startswith("3 mentions, 1 of them without candidates")
    assert table.out.splitlines()[-1] == "too few documents to test for drift"
    figures = json.loads(scripts.run("monitor", model, target, "--json").out)
    tops = [entry["ranked"][0]["score"] for entry in written if entry["ranked"]]
    assert figures["mean_top_score"] == pytest.approx(sum(tops) / 2)
    assert figures["candidates"] == 3 and figures["drift"] is None

    unmeasured = shutil.copytree(model, tmp_path / "model")
    reference = json.loads((model / "reference.json").read_text(encoding="utf-8"))
    reference["figures"]["mean_top_score"] = dict.fromkeys(("value", "low", "high"))
    with changing(unmeasured) as new:
        (new / "reference.json").write_text(json.dumps(reference), encoding="utf-8")
    table = scripts.run("monitor", unmeasured, target)
    assert table.code == 0, table.err
    (line,) = (line for line in table.out.splitlines() if line.startswith("mean_top_score"))
    assert line.split()[2:] == ["-", "-", "..", "-"]


def test_a_published_model_scores_like_the_one_of_the_run(scripts, finished, reranker, monkeypatch, tmp_path):
    with HubServer() as hub:
        environment = hub.environment(tmp_path / "home", WRITER)
        outcome = scripts.run_alone("publish", env=environment, repo_id="org/mini", tag="v1")
        assert (outcome.code, outcome.errors) == (0, []), outcome.err
        assert set(hub.repos["org/mini"].files("v1")) == MODEL_FILES | {".gitattributes"}
        hub.connect(monkeypatch, tmp_path / "cache", token=WRITER)
        published = UMLSReranker.from_pretrained("org/mini", revision="v1", device="cpu", dtype="float32")
    names = [names[0] for _, names in VOCABULARY.values()]
    ours, theirs = (model.rerank("renal failure", names, "T047") for model in (reranker, published))
    assert [item.name for item in theirs] == [item.name for item in ours]
    assert [item.score for item in theirs] == [item.score for item in ours]
    assert Path(published.folder).is_relative_to(tmp_path)
