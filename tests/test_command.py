"""The command ``umls-reranker``: it finds, launches and explains the scripts."""

import json
import re
import signal
import sys
from pathlib import Path

import pytest
from data_fixtures import write_pmids, write_pubtator, write_rrf
from processes import ROOT, python

from umls_reranker import __main__ as command
from umls_reranker.core.errors import UserError
from umls_reranker.pipeline import runner
from umls_reranker.pipeline.options import load_recipe, parse_recipe
from umls_reranker.pipeline.run_folder import planned_stages
from umls_reranker.pipeline.runner import show_plan
from umls_reranker.pipeline.shipped import find_recipe, is_recipe, shipped_configs, shipped_recipes
from umls_reranker.pipeline.sources import fingerprints, input_files
from umls_reranker.pipeline.stages import stage_table


def run(*words, cwd):
    return python("-m", "umls_reranker", *words, cwd=cwd, fails=True)


def test_every_script_is_a_command():
    names = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))
    assert sorted(command.COMMANDS) == sorted([*names, "quickstart"])


def test_help_names_every_command_with_its_first_line(tmp_path):
    shown = run(cwd=tmp_path)
    assert shown.returncode == 0 and run("--help", cwd=tmp_path).stdout == shown.stdout
    lines = [line.split(maxsplit=1) for line in shown.stdout.splitlines() if line.startswith("  ")]
    told = {words[0]: words[1] for words in lines if words[0] in command.COMMANDS}
    assert list(told) == command.COMMANDS
    assert run("--version", cwd=tmp_path).stdout.strip() == command.__version__


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["mine-negatives"], "mine_negatives?"),
        (["run", "quickstart", "--accelerate_config", "x"], "--accelerate_config: x"),
        (["recipes", "copy", "quick"], "bc5cdr-disease"),
    ],
)
def test_a_mistake_is_one_line_that_names_it_or_the_way_out(tmp_path, words, named):
    ended = run(*words, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert (
        ended.stderr.startswith("error: ")
        and named in ended.stderr
        and ended.stderr.count("\n") == 1
    )
    assert list(tmp_path.iterdir()) == []


def test_recipes_are_listed_copied_and_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe("quickstart") == shipped_recipes()["quickstart"] / "config.yaml"
    assert all(
        map(is_recipe, ["quickstart", str(shipped_recipes()["quickstart"]), "not/there.yaml"])
    )
    assert not any(map(is_recipe, ["org/model", str(tmp_path)]))
    listed = run("recipes", cwd=tmp_path).stdout
    names = [line.split()[0] for line in listed.splitlines() if line.startswith("  ")]
    assert names == [*shipped_recipes(), *shipped_configs()]
    for name in ("quickstart", "multi_gpu_fp16"):
        assert run("recipes", "copy", name, cwd=tmp_path).returncode == 0
    assert Path("multi_gpu_fp16.yaml").is_file()
    assert run("recipes", "copy", "quickstart", cwd=tmp_path).stderr.startswith(
        "error: quickstart already exists"
    )
    # The copy comes first, as a folder and as a name.
    Path("quickstart/config.yaml").write_text("run_name: mine\n")
    assert (
        load_recipe("quickstart").run.run_name
        == load_recipe(tmp_path / "quickstart").run.run_name
        == "mine"
    )


STAGES = ["preflight", *command.GROUPS["Stages of a run, in order"][:5], "model"]
# In place of a Python that runs a stage: says what it was asked, and ends with the code that is set
# for the stage.
FAKE = """#!{python}
import json, os, sys
words = sys.argv[1:]
module = words.index("-m", "-m" in words[2:] and 2) + 1
stage = words[module].rpartition(".")[2] if "." in words[module] else words[module + 1]
print(json.dumps(words), file=open("calls", "a"))
print(f"[estimate] {{stage}} prints" if stage == "preflight" else f"{{stage}} prints")
print(f"error: {{stage}} ends")
sys.exit(json.loads(os.environ["FAILING"]).get(stage, 0))
"""


@pytest.fixture
def run_stages(monkeypatch, tmp_path, capsys):
    """Runs ``umls-reranker run`` with stages that only say how they were started."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "python").write_text(FAKE.format(python=sys.executable))
    (tmp_path / "python").chmod(0o755)

    def run_stages(*words, failing=None):
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
            patch.setenv("FAILING", json.dumps(failing or {}))
            patch.setattr(signal, "signal", lambda number, handler: None)
            patch.setattr(runner, "show_results", lambda folder: None)
            patch.setattr(sys, "executable", str(tmp_path / "python"))
            patch.setattr(sys, "argv", ["umls-reranker", "run", *words])
            command.main()
        return ended.value.code, capsys.readouterr().err.splitlines()

    return run_stages


@pytest.mark.parametrize(
    ("failing", "code", "started", "error"),
    [
        ({}, 0, STAGES, []),
        ({"preflight": 2}, 2, STAGES[:1], ["error: preflight ends"]),
        ({"train": 2}, 2, STAGES[:6], ["error: train ends"]),
        ({"model": 3}, 1, STAGES, []),
        ({"model": 2}, 2, STAGES, ["error: model ends"]),
        ({"model": 1}, 1, STAGES, ["error: model ends"]),
    ],
)
def test_run_shows_one_line_a_stage(run_stages, failing, code, started, error):
    words = ["quickstart", "--seed", "3"]
    ended, (first, *lines) = run_stages(*words, "--accelerate_config", "cpu", failing=failing)
    assert ended == code
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(shipped_configs()["cpu"])]
    calls = [json.loads(line) for line in Path("calls").read_text().splitlines()]
    shared = {"preflight", "train_encoder", "build_index", "train"}
    modules = {name: [f"umls_reranker.pipeline.{name}"] for name in ("preflight", "model")}
    started_as = [["-m", *modules.get(name, ["umls_reranker", name]), *words] for name in started]
    assert calls == [
        [*(launch if name in shared else []), *call]
        for name, call in zip(started, started_as, strict=True)
    ]
    log = Path("runs/quickstart/run.log")
    assert str(log) in first
    lines = (
        [line for line in lines if line != "[estimate] preflight prints"] if started[1:] else lines
    )
    assert [line.split()[0] for line in lines[: len(started)]] == [
        f"{n}/7" for n in range(1, len(started) + 1)
    ]
    assert lines[len(started) :] == error
    logged = log.read_text()
    assert logged.count("== ") == len(started)
    assert logged.endswith(f"error: {started[-1]} ends\n")


def test_a_dry_run_shows_of_the_check_its_error_or_its_estimate(run_stages):
    keys = {"concept_source": "names", "names": "names.txt", "mention_source": "held_out_synonyms"}
    Path("names.txt").write_text("C1||cold\n")
    Path("mine.yaml").write_text(json.dumps(keys))
    for code, last in ((2, "error: preflight ends"), (0, "[estimate] preflight prints")):
        ended, lines = run_stages(
            "mine.yaml", "--dry_run", "--accelerate_config", "cpu", failing={"preflight": code}
        )
        assert (
            ended == code and lines[-1] == last and sum("preflight" in line for line in lines) == 1
        )


def test_a_dry_run_lists_all_stages_and_why_they_would_be_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train, dev = write_pmids(tmp_path)
    keys = {
        "umls_dir": write_rrf(tmp_path / "META"),
        "corpus": write_pubtator(tmp_path / "corpus.txt"),
        "train_documents": train,
        "dev_documents": dev,
        "encoder_training_steps": 5,
        "model": "encoder",
    }

    def planned(**changed):
        keys.update(changed)
        capsys.readouterr()
        Path("mine.yaml").write_text("".join(f"{key}: {keys[key]}\n" for key in keys))
        show_plan(parse_recipe("", (), argv=["mine.yaml", "--dry_run"]))
        told = dict(line[1:].split("] ", 1) for line in capsys.readouterr().err.splitlines())
        return {name: text for name, text in told.items() if "bytes" not in text}

    with pytest.raises(UserError, match="calibration_share.*test_documents"):
        planned(dev_share=0.3, calibration_share=0.7)
    told = planned(dev_share=0.2, calibration_share=0.4)
    assert all(text.startswith("would be written to") for text in told.values())
    assert not Path("runs").exists()
    recipe = load_recipe("mine.yaml")
    assert [*told] == [*stage_table(recipe)]
    files = fingerprints(input_files(recipe), tmp_path / "cache", printed=False)
    for stage in planned_stages(recipe, tmp_path / "runs" / "run", files).values():
        with stage.writing():
            pass
    changed = planned(learning_rate="1e-4")
    reasons = {
        name: re.findall(r"\((\w+)\)", text)
        for name, text in changed.items()
        if "up to date" not in text
    }
    assert reasons == {
        "checkpoints": ["learning_rate"],
        "model": ["checkpoints"],
        "report": ["model"],
    }


# Command -> a line of it, whose words are paths and names.
LINES = {
    "link": "index in.csv out.csv --model m --reviewed a.csv b.csv --omop_concepts C.csv R.csv",
    "rerank": "built-in in.jsonl out.jsonl --dictionary META",
    "candidates": "index in.csv sheet.csv",
    "search": "index cold",
    "index": "META names.csv index --add_names a.csv --encoder built-in --cache_dir c",
    "calibrate": "built-in --lists a.jsonl --answers a.csv --add b.jsonl --output m",
    "evaluate": "built-in --lists a.jsonl --output report --dictionary META",
    "train": "--lists a.jsonl b.jsonl --output m --model base",
    "select_for_review": "out.jsonl sheet.csv",
    "monitor": "built-in out.jsonl",
    "publish": "m --repo_id org/m",
    "export": "quickstart --output_dir runs",
    "export_index": "quickstart --index_folder index",
    "validate": "quickstart --against m",
    "serve": "built-in --served_index index",
    "run": "quickstart --output_dir runs --run_name r --corpus a.txt b.txt --umls_dir META",
}


@pytest.mark.parametrize("name", LINES)
def test_an_empty_word_is_not_the_current_folder(name, tmp_path, monkeypatch):
    """As of a shell variable that is not set."""
    monkeypatch.chdir(tmp_path)
    words = LINES[name].split()
    lines = []
    for number, word in enumerate(words):
        if not word.startswith("--"):
            lines.append([*words[:number], "", *words[number + 1 :]])
        elif number + 1 < len(words):
            lines.append([*words[:number], f"{word}=", *words[number + 2 :]])
    for line in lines:
        monkeypatch.setattr(sys, "argv", ["umls-reranker", name, *line])
        with pytest.raises(UserError, match="is empty"):
            command.dispatch()
    assert [*tmp_path.iterdir()] == []
