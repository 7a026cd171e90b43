"""What a user can get wrong: one line that says so, exit code 2, no traceback, nothing half-written."""

import json
import shutil
import socket

import pytest
from pipeline_fixtures import contents

pytest_plugins = ["pipeline_fixtures"]


def assert_refused(outcome, *reasons):
    """Exactly one line reports the error, the last one."""
    assert outcome.code == 2, outcome.err
    last = outcome.err.splitlines()[-1]
    assert outcome.errors == [last] and last.startswith("error: "), outcome.err
    for reason in reasons:
        assert reason in last
    assert len(last) < 700


@pytest.fixture
def raw(scripts, tmp_path):
    """A copy of the raw files, to be damaged."""
    folder = tmp_path / "raw"
    folder.mkdir()
    shutil.copytree(scripts.materials / "META", folder / "META")
    shutil.copy(scripts.materials / "corpus.txt", folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A run folder in which everything up to the model is finished."""
    folder = tmp_path / "mini"
    shutil.copytree(finished.folder, folder, ignore=shutil.ignore_patterns("checkpoint-*0", "runs", "report"))
    return folder


@pytest.fixture(scope="module")
def damaged_model(scripts, tmp_path_factory):
    """The tiny cross-encoder with its weights cut short."""
    folder = shutil.copytree(scripts.materials / "model", tmp_path_factory.mktemp("damaged") / "model")
    cut_short(folder / "model.safetensors")
    return folder


def cut_short(file):
    file.write_bytes(file.read_bytes()[:1000])


def edit(file, line, change):
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[line - 1] = change(lines[line - 1])
    file.write_text("".join(lines), encoding="utf-8")


# Recipe and raw files


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("learning_rte: 1e-5", "config.yaml: unknown key 'learning_rte'; did you mean 'learning_rate'?"),
        ("max_steps: many", "config.yaml: max_steps: 'many' is not of type int"),
        ("calibrator: plat", "config.yaml: calibrator: 'plat' is not one of platt, temperature"),
        ("languages: ENG", "config.yaml: languages must be a list"),
        ("targets: [", "config.yaml is not valid YAML"),
    ],
)
def test_a_recipe_that_cannot_be_read(scripts, tmp_path, line, reason):
    recipe = tmp_path / "config.yaml"
    recipe.write_text(f"output_dir: {tmp_path / 'runs'}\n{line}\n")
    assert_refused(scripts.run("prepare_data", recipe), reason)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["nowhere.yaml"], "recipe nowhere.yaml does not exist"),
        (["--help_me"], "unknown key '--help_me'"),
        (["--corpus", "/nowhere/corpus.txt"], "/nowhere/corpus.txt"),
        (["--umls_dir", "/nowhere"], "/nowhere/MRCONSO.RRF does not exist"),
        (["--dev_documents", "/nowhere/pmids.txt"], "/nowhere/pmids.txt"),
        (["--corpus", "http://127.0.0.1:1/corpus.txt"], "http://127.0.0.1:1/corpus.txt: download failed"),
        (["--languages", "FIN"], "FIN"),
        (["--expected_mentions", "121"], "contains 120 mentions, but expected_mentions is 121"),
        (["--dev_share", "0.7"], "dev_share and calibration_share must leave a share"),
    ],
)
def test_a_wrong_path_or_setting(scripts, tmp_path, words, reason):
    recipe = [] if words[0].endswith(".yaml") else [scripts.recipe]
    outcome = scripts.run("prepare_data", *recipe, *words, output_dir=tmp_path / "runs")
    assert_refused(outcome, reason)
    # What was finished before the error stays.
    assert {path.name for path in tmp_path.glob("runs/mini/*")} <= {".lock", "concepts", "stages.jsonl"}


def test_a_damaged_raw_file(scripts, raw, tmp_path):
    def prepare(**changed):
        paths = {"umls_dir": raw / "META", "corpus": raw / "corpus.txt"}
        outcome = scripts.run("prepare_data", **paths, **changed, output_dir=tmp_path / "runs")
        left = {path.name for path in (tmp_path / "runs").glob("mini/*")}
        assert left <= {".lock", "concepts", "stages.jsonl"}
        return outcome

    good = contents(raw)
    files = {name: raw / name for name in good}
    conso, corpus = files["META/MRCONSO.RRF"], files["corpus.txt"]
    original = {path: path.read_bytes() for path in files.values()}

    edit(conso, 3, lambda line: line.replace("|", "", 1))
    assert_refused(prepare(), f"{conso}:3: expected 18 fields")
    conso.write_bytes(b"")
    assert_refused(prepare(), "MRCONSO.RRF")
    conso.write_bytes(original[conso])

    corpus.write_bytes(original[corpus].replace(b"\t", b" "))
    outcome = prepare()
    # The first ten are named.
    assert outcome.code == 2 and outcome.errors[0].count(f"{corpus}:") == 10
    corpus.write_bytes(b"")
    assert_refused(prepare(), f"{corpus} is empty")
    corpus.write_bytes(b"\xff\xfe\x00")
    assert_refused(prepare(), str(corpus))

    for path, content in original.items():
        path.write_bytes(content)
    assert contents(raw) == good


# Stages


@pytest.mark.parametrize("script", ["build_index", "mine_negatives", "train", "calibrate", "evaluate", "validate"])
def test_a_stage_before_the_one_that_it_needs(scripts, tmp_path, script):
    outcome = scripts.run(script, output_dir=tmp_path / "runs")
    assert_refused(outcome, "does not exist yet; run umls-reranker ")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("script", "overrides", "reason"),
    [
        ("build_index", {"encoder": "/nowhere/encoder"}, "/nowhere/encoder does not exist"),
        ("build_index", {"index_factory": "Flatt"}, "index_factory 'Flatt'"),
        (
            "build_index",
            {"index_factory": "IVF4,Flat"},
            "IVF4,Flat searches only 1 of its 4 clusters by default",
        ),
        ("build_index", {"index_factory": "IVF4,Flat", "index_parameters": "nprobe=4"}, "there are 87; use IVF2"),
        ("build_index", {"encoder_dtype": "float16"}, "encoder_dtype: float16 needs a GPU"),
        ("build_index", {"encoder_max_length": 1000}, "at most 128 tokens"),
        ("mine_negatives", {"encoder_pooling": "cls", "seed": 1}, "run umls-reranker build_index again"),
        ("train", {"fp16": True}, "fp16: float16 needs a GPU"),
        ("train", {"model": "/nowhere/model"}, "/nowhere/model does not exist"),
        ("train", {"max_length": 1000}, "max_length: 1000 is more than the 128 tokens"),
        ("train", {"global_batch_size": 20}, "global_batch_size: 20 is not a multiple"),
        ("calibrate", {"scoring_dtype": "float16"}, "float16 needs a GPU"),
        ("evaluate", {"device": "gpu", "bootstrap_resamples": 9}, "device 'gpu' is unknown"),
        ("validate", {"targets": ["acc1 >= 0"]}, "acc@1"),
    ],
)
def test_a_setting_that_cannot_work(scripts, finished, run, script, overrides, reason):
    if script == "validate":
        shutil.copytree(finished.folder / "report", run / "report")
    before = contents(run)
    assert_refused(scripts.run(script, **overrides, output_dir=run.parent), reason)
    left = contents(run)
    # Training keeps the marker that it would resume from.
    assert {name: left[name] for name in left if name != ".checkpoints.partial/resume.json"} == before


def test_damaged_weights(scripts, run, damaged_model):
    before = contents(run)
    encoder = scripts.run("build_index", encoder=damaged_model, encoder_pooling="cls", output_dir=run.parent)
    assert_refused(encoder, str(damaged_model))
    refused = f"{damaged_model} cannot be loaded: the weights are corrupt"
    assert_refused(scripts.run("train", model=damaged_model, output_dir=run.parent), refused)
    left = contents(run)
    assert {name: left[name] for name in left if name != ".checkpoints.partial/resume.json"} == before

    best = run / "checkpoints" / "checkpoint-best" / "model.safetensors"
    weights = best.read_bytes()
    cut_short(best)
    assert_refused(
        scripts.run("calibrate", calibrator="temperature", output_dir=run.parent), "the weights are corrupt"
    )
    best.write_bytes(weights)
    assert not list(run.glob(".model*"))


def test_a_damaged_model_folder(scripts, finished, run, tmp_path):
    mentions = tmp_path / "mentions.jsonl"
    mentions.write_text(json.dumps({"entity": "cold", "candidates": ["common cold"]}) + "\n")
    output = tmp_path / "output.jsonl"
    model = run / "model"
    commands = [
        ("evaluate", [scripts.recipe, "--output_dir", run.parent]),
        ("rerank", [model, mentions, output, "--device", "cpu"]),
        ("publish", [scripts.recipe, "--output_dir", run.parent, "--repo_id", "org/mini", "--tag", "v1"]),
    ]

    def assert_all_refuse(*reasons):
        before = contents(tmp_path)
        for script, words in commands:
            assert_refused(scripts.run(script, *words), *reasons)
        assert contents(tmp_path) == before

    weights, calibrator = model / "model.safetensors", model / "calibrator.json"
    whole = weights.read_bytes()
    cut_short(weights)
    assert_all_refuse(str(weights), "does not match reranker.json")
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert_all_refuse(str(weights), "does not match reranker.json")
    weights.write_bytes(whole)
    text = calibrator.read_text()
    calibrator.write_text(text[:100])
    assert_all_refuse(str(calibrator), "is not valid JSON")
    calibrator.unlink()
    assert_all_refuse(str(calibrator), "is missing; umls-reranker calibrate writes it")
    calibrator.write_text(text)
    assert scripts.run("rerank", *commands[1][1]).code == 0


def test_a_file_of_mentions_that_cannot_be_read(scripts, finished, tmp_path):
    model, output = finished.folder / "model", tmp_path / "output.jsonl"
    good = json.dumps({"entity": "cold", "candidates": ["common cold"]})
    for line, reason in [
        ("cold\tcommon cold", "mentions.jsonl:2: not JSON"),
        ('{"entity": "cold"}', "mentions.jsonl:2: lacks candidates"),
        ('{"entity": "", "candidates": ["x"]}', "mentions.jsonl:2: entity is blank"),
        ('{"entity": "cold", "candidates": [7]}', "mentions.jsonl:2: candidate 0"),
    ]:
        mentions = tmp_path / "mentions.jsonl"
        mentions.write_text(f"{good}\n{line}\n")
        assert_refused(scripts.run("rerank", model, mentions, output, "--device", "cpu"), reason)
        assert [path.name for path in tmp_path.iterdir()] == ["mentions.jsonl"]
    assert_refused(scripts.run("rerank", model, tmp_path / "none.jsonl", output), "none.jsonl does not exist")
    assert_refused(scripts.run("monitor", model, mentions), "mentions.jsonl:1: not a ranked row")
    assert_refused(scripts.run("monitor", tmp_path, mentions), "reranker.json is missing")


def test_a_hub_that_cannot_be_reached(scripts, run, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        hub = f"http://127.0.0.1:{probe.getsockname()[1]}"
    before = contents(run)
    outcome = scripts.run("build_index", hub=hub, encoder="org/model", output_dir=run.parent)
    assert_refused(outcome, f"no connection to the Hub at {hub}")
    outcome = scripts.run("train", hub=hub, model="org/model", output_dir=run.parent)
    assert_refused(outcome, f"no connection to the Hub at {hub}")
    mentions = tmp_path / "mentions.jsonl"
    mentions.write_text('{"entity": "cold", "candidates": ["cold"]}\n')
    environment = {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    outcome = scripts.run_alone("rerank", "org/model", mentions, tmp_path / "output.jsonl", env=environment)
    assert_refused(outcome, f"no connection to the Hub at {hub}")
    left = contents(run)
    assert {name: left[name] for name in left if name != ".checkpoints.partial/resume.json"} == before
    assert not (tmp_path / "output.jsonl").exists()
