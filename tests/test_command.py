"""The command ``umls-reranker``: it finds, launches and explains the scripts."""

import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from data_fixtures import write_pmids, write_pubtator, write_rrf

from umls_reranker import __main__ as command
from umls_reranker.core import launch
from umls_reranker.core.errors import UserError
from umls_reranker.core.files import find_recipe, is_recipe, shipped_configs, shipped_recipes
from umls_reranker.core.launch import LAUNCHED, begin, launch_options, launched_processes, start
from umls_reranker.core.recipe import load_recipe
from umls_reranker.core.stage_keys import planned_stages
from umls_reranker.data.sources import fingerprints, input_files

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "accelerate_configs"


def run(*words, cwd):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = [sys.executable, "-m", "umls_reranker", *map(str, words)]
    return subprocess.run(started, capture_output=True, text=True, env=environment, timeout=240, cwd=cwd)


def test_every_script_is_a_command():
    names = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))
    assert sorted(command.COMMANDS) == sorted([*names, "quickstart"])
    assert set(LAUNCHED) <= set(names)


def test_help_names_every_command_with_its_first_line(tmp_path):
    shown = run(cwd=tmp_path)
    assert shown.returncode == 0 and run("--help", cwd=tmp_path).stdout == shown.stdout
    lines = [line.split(maxsplit=1) for line in shown.stdout.splitlines() if line.startswith("  ")]
    told = {words[0]: words[1] for words in lines if words[0] in command.COMMANDS}
    assert list(told) == command.COMMANDS
    assert told["demo"] == "Open a web page to try a model."
    assert "calibrate on your own candidate lists" in shown.stdout.lower()
    assert "  umls-reranker calibrate MODEL --lists FILE --output FOLDER\n" in shown.stdout
    assert run("--version", cwd=tmp_path).stdout.strip() == command.__version__


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["mine-negatives"], "unknown command 'mine-negatives'; did you mean mine_negatives?"),
        (["Train"], "unknown command 'Train'; did you mean train?"),
        (["xyz"], "unknown command 'xyz'; see umls-reranker --help"),
        (["train", "quickstart", "--num_processes", "2"], "--num_processes needs --accelerate_config, e.g. "),
        (["train", "quickstart", "--accelerate_config"], "argument --accelerate_config: expected one argument; see "),
        (
            ["run", "quickstart", "--accelerate_config", "x"],
            "--accelerate_config: x is neither a file nor one of cpu, ",
        ),
        (["calibrate", "quickstart", "--accelerate_config", "cpu"], "unknown argument '--accelerate_config'"),
        (["run", "quickstrat"], "recipe quickstrat does not exist; recipes in the package: hpo-minilm, minilm-"),
        (["run", "quickstart", "--sed", "1"], "unknown argument '--sed'; did you mean '--seed'?"),
        (["recipes", "copy"], "name what to copy; choose from hpo-minilm, "),
        (["recipes", "copy", "quick"], "there is no quick to copy; choose from hpo-minilm, minilm-"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, words, reason):
    ended = run(*words, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: {reason}") and ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_recipes_are_listed_copied_and_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe("quickstart") == shipped_recipes()["quickstart"] / "config.yaml"
    assert all(map(is_recipe, ["quickstart", str(shipped_recipes()["quickstart"]), "not/there.yaml"]))
    assert not any(map(is_recipe, ["org/model", str(tmp_path)]))
    listed = run("recipes", cwd=tmp_path).stdout
    names = [line.split()[0] for line in listed.splitlines() if line.startswith("  ")]
    assert names == [*shipped_recipes(), *shipped_configs()]
    assert {path.name for path in (ROOT / "accelerate_configs").iterdir()} == {
        path.name for path in shipped_configs().values()
    }
    for name in ("quickstart", "multi_gpu_fp16"):
        assert run("recipes", "copy", name, cwd=tmp_path).returncode == 0
    assert {path.name for path in Path("quickstart").iterdir()} == {"README.md", "config.yaml"}
    assert Path("multi_gpu_fp16.yaml").read_text() == (CONFIGS / "multi_gpu_fp16.yaml").read_text()
    assert run("recipes", "copy", "quickstart", cwd=tmp_path).stderr.startswith("error: quickstart already exists")
    # The copy comes first, as a folder and as a name.
    Path("quickstart/config.yaml").write_text("run_name: mine\n")
    assert load_recipe("quickstart").run.run_name == load_recipe(tmp_path / "quickstart").run.run_name == "mine"


def test_a_configuration_by_name_takes_all_gpus(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)

    def processes(*words):
        options, others = launch_options(["RECIPE", "--accelerate_config", *words, "--seed", "3"])
        assert others == ["RECIPE", "--seed", "3"]
        return options.get("num_processes")

    assert processes("multi_gpu_fp16") == processes("fsdp") == 8
    assert processes("multi_gpu_fp16", "--num_processes", "2") == 2
    assert processes("multi_node_fp16") == 16 and processes("multi_node_fp16", "--num_machines", "3") == 24
    assert (processes("cpu"), processes("cpu_two_processes"), processes("single_gpu")) == (1, 2, 1)
    assert processes(str(CONFIGS / "multi_gpu_fp16.yaml")) is None
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="multi_gpu_fp16 needs GPUs, and none is visible"):
        processes("multi_gpu_fp16")


SCRIPT = """
import os, sys
rank = os.environ.get("RANK", "alone")
with open(f"rank-{rank}", "w") as file:
    names = "WORLD_SIZE", "ACCELERATE_MIXED_PRECISION", "OMP_NUM_THREADS"
    print(*map(os.environ.get, names), sys.argv[1:], file=file)
sys.exit(int(sys.argv[1]))
"""


# In a process of its own: torch's launcher renames its process, and the handlers of signals that it sets stay.
# Accelerate gives a single process on a processor all cores.
LAUNCHES = """
import sys
from pathlib import Path
import psutil
from umls_reranker.core import launch
launch.usable_cores = psutil.cpu_count = lambda logical=True: 9
options = launch.launch_options(["--accelerate_config", sys.argv[1]])[0]
for words in (["2"], sys.argv[2:]):
    print(launch.start(Path("script.py"), words, options))
"""


@pytest.mark.parametrize(
    ("config", "found"),
    [("cpu", {"alone": "None no 9"}), ("cpu_two_processes", {"0": "2 no 4", "1": "2 no 4"})],
)
def test_exit_codes_pass_through_every_launcher(tmp_path, config, found):
    (tmp_path / "script.py").write_text(SCRIPT)
    words = ["0", "--targets", "acc@1 >= 0.5"]
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    ended = subprocess.run(
        [sys.executable, "-c", LAUNCHES, config, *words],
        cwd=tmp_path,
        env=inherited | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (ended.returncode, ended.stdout) == (0, "2\n0\n"), ended.stderr
    told = {path.name.removeprefix("rank-"): path.read_text() for path in tmp_path.glob("rank-*")}
    assert told == {rank: f"{environment} {words}\n" for rank, environment in found.items()}


@pytest.mark.parametrize("content", ["num_processes: [", "distributed_type: NONSENSE\n", "surprise: 1\n", "- cpu\n"])
def test_a_configuration_that_accelerate_refuses(tmp_path, content):
    (tmp_path / "bad.yaml").write_text(content)
    (tmp_path / "script.py").write_text("")
    options, _ = launch_options(["--accelerate_config", str(tmp_path / "bad.yaml")])
    with pytest.raises(UserError, match=r"accelerate refuses .*bad\.yaml: "):
        start(tmp_path / "script.py", [], options)


@pytest.mark.parametrize("content", ["num_processes: [", "num_processes: two\n", "- cpu\n", ""])
def test_a_plan_names_a_configuration_that_cannot_be_read(tmp_path, content):
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(UserError, match=r"accelerate refuses .*bad\.yaml: "):
        launched_processes({"accelerate_config": str(tmp_path / "bad.yaml")})


STAGES = [*command.GROUPS["Stages of a run, in order"]]


class Stages:
    """Replaces `begin`: records the commands, prints two lines for each, ends with a given code."""

    def __init__(self, failing):
        self.failing, self.calls = failing, []

    def __call__(self, words, log=None):
        stage, *words = words
        self.calls.append((stage, words, log is not None))
        if log is not None:
            with log.open("a") as file:
                file.write(f"{stage} prints\nerror: {stage} ends\n")
        return SimpleNamespace(exitcode=self.failing.get(stage, 0), join=lambda: None)


@pytest.mark.parametrize(
    ("failing", "code", "started", "error"),
    [
        ({}, 0, STAGES, ""),
        ({"train": 2}, 2, STAGES[:5], "error: train ends\n"),
        ({"train": -9}, 137, STAGES[:5], "error: train ends\n"),
        ({"validate": 1}, 1, STAGES, ""),
        ({"validate": 2}, 2, STAGES[:-1], "error: validate ends\n"),
    ],
)
def test_run_shows_one_line_a_stage(monkeypatch, tmp_path, capsys, failing, code, started, error):
    stages = Stages(failing)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "begin", stages)
    words, launched = ["quickstart", "--seed", "3"], ["--accelerate_config", "cpu"]
    monkeypatch.setattr(sys, "argv", ["umls-reranker", "run", *words, *launched])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == code
    assert stages.calls == [
        (name, words + (launched if name in LAUNCHED else []), name != "summarize") for name in started
    ]
    first, *lines = capsys.readouterr().err.splitlines(keepends=True)
    folder = Path("runs/quickstart")
    assert first == f"Output goes to {folder}, the log of the stages to {folder / 'run.log'}\n"
    shown = [stage for stage in started if stage != "summarize"]
    assert [line.split()[0] for line in lines[: len(shown)]] == [f"{n}/8" for n in range(1, len(shown) + 1)]
    assert "".join(lines[len(shown) :]) == error and "\r" not in "".join(lines)
    log = (folder / "run.log").read_text()
    assert log == "".join(f"== {name}\n{name} prints\nerror: {name} ends\n" for name in shown)


def test_run_ends_with_what_a_stage_printed_where_it_says_no_reason(monkeypatch, tmp_path, capsys):
    def crash(words, log):
        with log.open("a") as file:
            file.write("Traceback ...\nboom\n")
        return SimpleNamespace(exitcode=1)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "begin", crash)
    monkeypatch.setattr(sys, "argv", ["umls-reranker", "run", "quickstart"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 1
    told = capsys.readouterr().err.splitlines()[2:]
    log = Path("runs/quickstart/run.log")
    assert told == ["Traceback ...", "boom", f"error: this stage failed; see {log}"]


@pytest.mark.parametrize("drivers", [(), (os.devnull,)], ids=["forked", "started"])
def test_a_command_is_a_process_that_writes_into_the_log(monkeypatch, tmp_path, drivers):
    monkeypatch.setattr(launch, "GPU_DRIVERS", drivers)
    monkeypatch.setattr(launch, "LIBRARIES", ["colorsys"])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    log = tmp_path / "run.log"
    log.write_text("== first\n")
    for words, code in ((["recipes"], 0), (["recipes", "copy", "quick"], 2)):
        with warnings.catch_warnings():
            # A fork inherits this: what its parent has loaded is nothing to warn about.
            warnings.simplefilter("error", RuntimeWarning)
            process = begin(words, log)
        process.join(240)
        assert process.exitcode == code
    first, *told, last = log.read_text().splitlines()
    assert first == "== first" and any(line.split()[:1] == ["quickstart"] for line in told)
    assert last.startswith("error: there is no quick to copy")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks")
def test_a_command_ends_with_the_process_that_started_it(tmp_path):
    code = (
        "import os, signal, time; from umls_reranker.core import launch\n"
        "launch.LIBRARIES, launch.GPU_DRIVERS = (), ()\n"
        "launch.runpy.run_module = lambda *names, **options: time.sleep(100)\n"
        "launch.begin([]); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    # The output ends with the last process that may write it.
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, timeout=240)
    assert done.returncode == -signal.SIGKILL


@pytest.fixture
def planned(monkeypatch, tmp_path, capsys):
    """Lists the stages of a recipe with raw files: stage -> what the dry run says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "begin", None)
    train, dev = write_pmids(Path())
    recipe = {
        "umls_dir": write_rrf(Path("META")),
        "corpus": write_pubtator(Path("corpus.txt")),
        "train_documents": train,
        "dev_documents": dev,
        "encoder_training_steps": 5,
        "start_from_encoder": True,
    }
    Path("mine.yaml").write_text("".join(f"{key}: {value}\n" for key, value in recipe.items()))

    def plan(*words, code=0):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
            patch.setattr(sys, "argv", ["umls-reranker", "run", "mine.yaml", "--dry_run", *words])
            patch.setattr(sys, "path", list(sys.path))
            # Set and removed again, so that it is unset afterwards.
            patch.setenv("WORLD_SIZE", "1")
            patch.delenv("WORLD_SIZE")
            command.main()
        out, err = capsys.readouterr()
        assert (ended.value.code, out) == (code, "")
        told = dict(line[1:].split("] ", 1) for line in err.splitlines())
        return {name: text.replace(f"runs/run/{name}", "...") for name, text in told.items() if "bytes" not in text}

    return plan


PLANNED = [
    "concepts",
    "mentions",
    "encoder",
    "vectors",
    "index",
    "candidates",
    "pairs",
    "checkpoints",
    "model",
    "report",
]


def test_a_dry_run_lists_all_stages_and_why_they_would_be_made(planned):
    launched = "--accelerate_config", str(CONFIGS / "cpu_two_processes.yaml")
    assert planned() == planned(*launched) == dict.fromkeys(PLANNED, "would be written to ...")
    assert not Path("runs").exists()
    recipe = load_recipe("mine.yaml")
    files = fingerprints(input_files(recipe), Path("cache"), printed=False)
    for name, stage in planned_stages(recipe, recipe.run.run_dir, files).items():
        with stage.writing() as (_, summary):
            summary |= {"pairs": {"train": {"pairs": {"positive": 7, "type": 0}}}}.get(name, {"strings": 1200})
    done = dict.fromkeys(PLANNED, "up to date in ...: strings 1,200")
    assert planned() == done | {"pairs": "up to date in ...: train pairs positive 7"}
    changed = planned("--learning_rate", "1e-4", "--target_precision", "0.9")
    assert {name: text for name, text in changed.items() if "rebuilt" in text} == {
        "checkpoints": "would be rebuilt (learning_rate 2e-05, now 0.0001) in ...",
        "model": "would be rebuilt (target_precision 0.95, now 0.9; other checkpoints) in ...",
        "report": "would be rebuilt (other model) in ...",
    }
    # The pairs of a training step are the recipe's, or follow from the processes.
    assert "rebuilt (global_batch_size 64, now 128)" in planned(*launched)["checkpoints"]
    shutil.rmtree("runs/run/vectors")
    assert list(planned()) == [name for name in PLANNED if name != "vectors"]
    shutil.rmtree("runs/run/index")
    assert {name for name, text in planned().items() if text.startswith("would be written to")} == {"vectors", "index"}


def test_a_dry_run_goes_on_after_a_stage_that_cannot_be_resumed(planned):
    partial = Path("runs/run/.checkpoints.partial/checkpoint-5")
    partial.mkdir(parents=True)
    (partial / "complete").touch()
    told = planned(code=2)
    assert list(told) == PLANNED
    assert told["checkpoints"].startswith("error: runs/run/.checkpoints.partial holds output of an interrupted run")
    assert told["model"] == "would be written to ..."


def test_minutes_of_stages_are_numbers(tmp_path):
    ended = run("run", "quickstart", "--stage_minutes", '{"train": "long"}', cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (2, "error: stage_minutes must map commands to minutes\n")


@pytest.mark.parametrize(
    "option", [("--num_machines", "0"), ("--num_processes", "0"), ("--main_process_port", "99999")]
)
def test_a_launch_option_that_is_out_of_range(tmp_path, monkeypatch, option):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # where it is unset, a launch sets it
    (tmp_path / "script.py").write_text("")
    with pytest.raises(UserError, match="must be 1 or more|accelerate refuses .*port must be 0-65535"):
        start(tmp_path / "script.py", [], launch_options(["--accelerate_config", "cpu_two_processes", *option])[0])
