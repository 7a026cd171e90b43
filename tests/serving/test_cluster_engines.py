"""Spark and Ray Data themselves, as docs/deployment.md calls them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from list_model import assert_decided_by_all, list_model, read_lists

from umls_reranker import UMLSReranker

pytestmark = pytest.mark.extra

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a user works: with my_lists.jsonl and my_model, which is calibrated on it."""
    folder = tmp_path_factory.mktemp("user")
    list_model(folder)
    return folder


@pytest.fixture(autouse=True)
def search_path(monkeypatch):
    """Workers find the package."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def assert_lists_are_ranked(folder, ranked):
    """That ranked rows are those of my_lists.jsonl, each once, decided by all inputs."""
    by_id = {row["mention_id"]: row["ranked"] for row in ranked}
    rows = read_lists(folder)
    assert len(by_id) == len(ranked) == len(rows)
    reranker = UMLSReranker.from_pretrained(folder / "my_model")
    assert_decided_by_all([by_id[row["mention_id"]] for row in rows], reranker, rows)


def java_version():
    """The first number of its version; 0 where there is none that works."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=home and os.path.join(home, "bin"))
    told = subprocess.run([java, "-version"], capture_output=True, text=True).stderr if java else ""
    number = re.search(r'version "(\d+)', told)
    return int(number[1]) if number else 0


@pytest.fixture
def spark(monkeypatch):
    """A session of two cores."""
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    if java_version() < 17:
        pytest.skip("Spark needs Java 17")
    from pyspark.sql import SparkSession

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    for name in ("spark.driver.bindAddress", "spark.driver.host"):
        builder = builder.config(name, "127.0.0.1")
    session = builder.getOrCreate()
    yield session
    session.stop()


@pytest.fixture
def ray():
    """Ray with three cores."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    pytest.importorskip("ray.data", reason="ray[data] is not installed")
    ray.init(
        num_cpus=3, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20
    )
    yield ray
    ray.shutdown()


def run_guide(engine, folder, names, changes):
    """Run the guide's code of an engine on my_lists.jsonl and my_model.

    Args:
        names: variables that it has.
        changes: further texts to replace, as on a cluster of one machine.
    """
    guide = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    (code,) = re.findall(rf"<!-- not run: needs {engine}.*\n```python\n([^`]*)```", guide)
    changes = {
        '"org/umls-reranker"': f'"{folder}/my_model"',
        '"reranked': f'"{folder}/reranked',
    } | changes
    for old, new in changes.items():
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    exec(code, names)


@pytest.mark.timeout(1200)
def test_spark_ranks_a_users_lists_as_the_guide_says(spark, folder):
    lists = folder / "mentions.jsonl"
    lists.write_text((folder / "my_lists.jsonl").read_text().replace('"entity"', '"mention"'))
    read = {'read.parquet("mentions.parquet")': f'read.json("{lists}")', ', revision="v1.0.0"': ""}
    run_guide("Spark", folder, {"spark": spark}, read)
    assert_lists_are_ranked(folder, pq.read_table(folder / "reranked.parquet").to_pylist())


@pytest.mark.timeout(1200)
def test_ray_data_ranks_a_users_lists_as_the_guide_says(ray, folder):
    here = {
        'read_parquet("mentions.parquet")': f'read_json("{folder}/my_lists.jsonl")',
        '{"revision": "v1.0.0"}': "{}",
        "size=8": "size=1",
        "    num_gpus=1,\n": "",
    }
    run_guide("Ray", folder, {}, here)
    assert_lists_are_ranked(folder, pq.read_table(folder / "reranked").to_pylist())
