"""What runs elsewhere: the workflows of the host, the image, and the services beside it."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import venv
from configparser import ConfigParser
from pathlib import Path

import httpx
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read_yaml(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def tool(name):
    """A linter of the extra `hosting`."""
    path = shutil.which(name, path=sysconfig.get_path("scripts"))
    return path or pytest.skip(f"{name} is not installed")


def instructions():
    """The lines of the Dockerfile as (instruction, rest), the last stage's and those before."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line and not line.startswith("#")]


def values(instruction):
    return [rest for name, rest in instructions() if name == instruction]


def test_the_workflow_calls_what_ci_calls_and_all_of_it_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    workflow = read_yaml(ROOT / ".github" / "workflows" / "tests.yml")
    called = set()
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            for target in re.findall(r"\bmake (\S+|\$\{\{.*?\}\})", step.get("run", "").replace("${{ ", "${{")):
                called |= set(job["strategy"]["matrix"]["target"] if "matrix.target" in target else [target])
    ci = set(re.findall(r"^make (\S+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE))
    assert ci and ci <= called <= targets


def test_tests_run_on_every_python_that_the_package_names():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    named = re.findall(r"Python :: (3\.\d+)", config["metadata"]["classifiers"])
    jobs = read_yaml(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == named
    systems = {entry["os"].partition("-")[0] for entry in jobs["test"]["strategy"]["matrix"]["include"]}
    assert systems == {"macos", "windows"}


def test_prometheus_scrapes_the_port_that_the_image_serves():
    services = read_yaml(ROOT / "compose.yaml")["services"]
    (job,) = read_yaml(ROOT / "prometheus.yml")["scrape_configs"]
    (port,) = values("EXPOSE")
    assert job["static_configs"] == [{"targets": [f"reranker:{port}"]}] and "metrics_path" not in job
    assert services["reranker"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert "./prometheus.yml:/etc/prometheus/prometheus.yml:ro" in services["prometheus"]["volumes"]


@pytest.mark.extra
def test_workflows_are_well_formed(tmp_path):
    linter = tool("actionlint")
    done = subprocess.run([linter, *WORKFLOWS], capture_output=True, text=True)
    assert len(WORKFLOWS) == 2 and done.returncode == 0, done.stdout
    broken = tmp_path / "broken.yml"
    broken.write_text(
        WORKFLOWS[-1].read_text(encoding="utf-8").replace("matrix.os", "matrix.system"), encoding="utf-8"
    )
    done = subprocess.run([linter, broken], capture_output=True, text=True)
    assert done.returncode == 1 and '"system" is not defined' in done.stdout


@pytest.mark.extra
def test_the_image_is_described_well(tmp_path):
    linter = tool("hadolint")
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN cd /tmp && pip install torch\n", encoding="utf-8")
    assert subprocess.run([linter, tmp_path / "Dockerfile"], capture_output=True).returncode == 1


@pytest.mark.extra
def test_the_steps_of_the_image_make_a_service_that_its_health_check_finds(tmp_path):
    """The same commands without a container: what is copied, installed, started, asked and stopped."""
    context, environment = tmp_path / "src", tmp_path / "venv"
    context.mkdir()
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if line.startswith("!"):
            source, target = ROOT / line[1:], context / line[1:]
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
    venv.create(environment, with_pip=True)
    # What the tests have need not be installed again.
    (site,) = environment.glob("lib/python*/site-packages")
    installed = [f"{folder}\n" for folder in sys.path if folder.endswith("site-packages")]
    (site / "tests.pth").write_text("".join(installed), encoding="utf-8")
    outside = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    outside |= {"PATH": f"{environment / 'bin'}:{os.environ['PATH']}", "TORCH_INDEX": "https://pypi.org/simple"}
    outside |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    installs = [line for line in values("RUN") if line.startswith("pip install ")]
    assert len(installs) == 2
    for line in installs:
        done = subprocess.run(["bash", "-c", line], cwd=context, env=outside, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (site / "umls_reranker" / "built_in").is_dir()
    shutil.rmtree(context)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
    (exposed,), (entry,), (command,) = map(values, ("EXPOSE", "ENTRYPOINT", "CMD"))
    (check,) = (json.loads(line.partition("CMD")[2].replace(exposed, port)) for line in values("HEALTHCHECK"))
    options = {"cwd": tmp_path, "env": outside}

    def healthy():
        return subprocess.run(check, **options, stderr=subprocess.DEVNULL).returncode == 0

    assert not healthy()
    words = [*json.loads(entry), *json.loads(command), "--port", port]
    service = subprocess.Popen(words, **options, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(300):
            if healthy() or service.poll() is not None:
                break
            time.sleep(0.2)
        assert healthy(), service.stderr.read()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            mention = {"mention": "kidney failure", "candidates": ["Kidney Failure", "Heart Failure"]}
            (ranked,) = client.post("/rank", json={"mentions": [mention]}).raise_for_status().json()
            assert ranked[0]["name"] == "Kidney Failure"
            assert 'umls_reranker_mentions_total{type=""} 1.0' in client.get("/metrics").text
        service.send_signal(signal.SIGTERM)
        assert service.wait(60) == 0
    finally:
        service.kill()
        service.wait(10)
