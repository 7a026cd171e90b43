"""What runs elsewhere: the workflows of the host, the image, and the services beside it."""

import re
import shutil
import subprocess
import sysconfig
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read_yaml(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def instructions():
    """The lines of the Dockerfile as (instruction, rest), the last stage's and those before."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    return [
        tuple(line.split(maxsplit=1))
        for line in text.splitlines()
        if line and not line.startswith("#")
    ]


def values(instruction):
    return [rest for name, rest in instructions() if name == instruction]


def test_the_workflow_calls_what_ci_calls_and_all_of_it_exists():
    targets = set(
        re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    workflow = read_yaml(ROOT / ".github" / "workflows" / "tests.yml")
    called = set()
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            for target in re.findall(
                r"\bmake (\S+|\$\{\{.*?\}\})", step.get("run", "").replace("${{ ", "${{")
            ):
                called |= set(
                    job["strategy"]["matrix"]["target"] if "matrix.target" in target else [target]
                )
    ci = set(
        re.findall(r"^make (\S+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert ci and ci <= called <= targets


def test_tests_run_on_every_python_that_the_package_names():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    named = re.findall(r"Python :: (3\.\d+)", config["metadata"]["classifiers"])
    jobs = read_yaml(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == named
    systems = {
        entry["os"].partition("-")[0] for entry in jobs["test"]["strategy"]["matrix"]["include"]
    }
    assert systems == {"macos", "windows"}


@pytest.mark.extra
@pytest.mark.parametrize(
    ("linter", "files"), [("actionlint", WORKFLOWS), ("hadolint", [ROOT / "Dockerfile"])]
)
def test_workflows_and_image_are_well_formed(linter, files):
    path = shutil.which(linter, path=sysconfig.get_path("scripts")) or pytest.skip(
        f"{linter} is not installed"
    )
    done = subprocess.run([path, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_has_what_it_copies_and_checks_the_port_that_it_serves():
    kept = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line[0] == "!"
    }
    assert {rest.split()[0] for rest in values("COPY") if "--from" not in rest} - kept == {"."}
    assert all((ROOT / path).exists() for path in kept)
    (check,) = values("HEALTHCHECK")
    (port,) = values("EXPOSE")
    assert f":{port}/" in check
