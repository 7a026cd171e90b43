"""Spark and Ray Data themselves, as docs/deployment.md calls them, with a worker that is lost during the work."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from list_model import assert_decided_by_all, list_model, read_lists
from tiny_reranker import tiny_reranker

from umls_reranker import UMLSReranker

pytestmark = pytest.mark.extra

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {"device": "cpu", "dtype": "float32"}
MENTIONS = 200
NAMES = ("common cold", "cough", "flu", "fever", "sore throat", "renal failure")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_reranker(tmp_path_factory.mktemp("engines") / "model"))


@pytest.fixture(scope="module")
def mentions(tmp_path_factory):
    """A file of mentions in four row groups."""
    rows = [
        {
            "id": number,
            "entity": f"{NAMES[number % 6]} {number}",
            "candidates": [{"name": NAMES[(number + k) % 6], "cui": f"C{k}"} for k in range(number % 5)],
        }
        for number in range(MENTIONS)
    ]
    file = tmp_path_factory.mktemp("mentions") / "mentions.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=MENTIONS // 4)
    return file


@pytest.fixture(scope="module")
def expected(model, mentions):
    """The ranking of each mention by its id, as scripts/rerank.py writes it."""
    target = mentions.with_name("expected.parquet")
    options = [word for key, value in OPTIONS.items() for word in (f"--{key}", value)]
    script = ROOT / "scripts" / "rerank.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, script, model, mentions, target, *options], check=True, timeout=240, env=environment
    )
    return {row["id"]: row["ranked"] for row in pq.read_table(target).to_pylist()}


@pytest.fixture(autouse=True)
def search_path(monkeypatch):
    """Workers find the package and tests/serving."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(Path(__file__).parent)]))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture
def marks(tmp_path):
    """Folder of the marks."""
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


def assert_ranked(rows, expected):
    assert sorted(row["id"] for row in rows) == list(range(MENTIONS))
    for row in rows:
        ours, theirs = row["ranked"], expected[row["id"]]
        assert [{**item, "score": 0, "margin": 0, "logit": 0} for item in ours] == [
            {**item, "score": 0, "margin": 0, "logit": 0} for item in theirs
        ]
        for name in ("score", "margin", "logit"):
            # Other batches round differently.
            assert [item[name] for item in ours] == [pytest.approx(item[name], abs=1e-5) for item in theirs]


def loads(marks):
    """Number of models each worker loaded."""
    return Counter(path.name.split(".")[0] for path in marks.glob("*.*"))


def java_version():
    """The first number of its version; 0 where there is none that works."""
    java = shutil.which(
        "java", path=os.path.join(os.environ["JAVA_HOME"], "bin") if "JAVA_HOME" in os.environ else None
    )
    told = subprocess.run([java, "-version"], capture_output=True, text=True).stderr if java else ""
    number = re.search(r'version "(\d+)', told)
    return int(number[1]) if number else 0


@pytest.fixture
def spark(monkeypatch):
    """A session of two cores, which tries a task four times, as a cluster does."""
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    if java_version() < 17:
        pytest.skip("Spark needs Java 17")
    from pyspark.sql import SparkSession

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master("local[2,4]").config("spark.ui.enabled", "false")
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
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    yield ray
    ray.shutdown()


@pytest.mark.timeout(1200)
def test_spark_ranks_each_row_once_and_repeats_what_a_lost_worker_did(spark, model, mentions, expected, marks):
    from marked_workers import MarkedPartitions
    from pyspark.sql.types import StructType

    from umls_reranker.serving.bulk import RANKED_SCHEMA

    frame = spark.read.parquet(str(mentions)).repartition(4)
    ranked_type = StructType.fromDDL(f"ranked {RANKED_SCHEMA}")
    reranked = frame.mapInPandas(
        MarkedPartitions(model, str(marks), **OPTIONS), StructType(frame.schema.fields + ranked_type.fields)
    )
    rows = [row.asDict(recursive=True) for row in reranked.collect()]
    assert_ranked(rows, expected)
    assert (marks / "died").exists() and set(loads(marks).values()) == {1}


@pytest.mark.timeout(1200)
def test_ray_data_ranks_each_row_once_and_repeats_what_a_lost_actor_did(
    ray, model, mentions, expected, marks, tmp_path
):
    from marked_workers import MarkedBatches

    reranked = ray.data.read_parquet(str(mentions), override_num_blocks=4).map_batches(
        MarkedBatches,
        fn_constructor_args=(model, str(marks)),
        fn_constructor_kwargs=OPTIONS,
        batch_format="pyarrow",
        batch_size=25,
        compute=ray.data.ActorPoolStrategy(size=2),
    )
    reranked.write_parquet(str(tmp_path / "reranked"))
    assert_ranked(pq.read_table(tmp_path / "reranked").to_pylist(), expected)
    # Two actors, and the one that replaced the lost one.
    assert (marks / "died").exists() and set(loads(marks).values()) == {1} and len(loads(marks)) in (2, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a user works: with my_lists.jsonl and my_model, which is calibrated on it."""
    folder = tmp_path_factory.mktemp("user")
    list_model(folder)
    return folder


def run_guide(engine, folder, names, changes):
    """Run the guide's code of an engine on my_lists.jsonl and my_model.

    Args:
        names: variables that it has.
        changes: further texts to replace, as on a cluster of one machine.
    """
    guide = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    (code,) = re.findall(rf"<!-- not run: needs {engine}.*\n```python\n([^`]*)```", guide)
    changes = {'"org/umls-reranker"': f'"{folder}/my_model"', '"reranked': f'"{folder}/reranked'} | changes
    for old, new in changes.items():
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    exec(code, names)


def assert_lists_are_ranked(folder, ranked):
    """That the rows of a Parquet dataset are those of my_lists.jsonl with the decisions of the model of all inputs."""
    by_id = {row["mention_id"]: row["ranked"] for row in pq.read_table(ranked).to_pylist()}
    rows = read_lists(folder)
    reranker = UMLSReranker.from_pretrained(folder / "my_model")
    assert_decided_by_all([by_id[row["mention_id"]] for row in rows], reranker, rows)


@pytest.mark.timeout(1200)
def test_spark_ranks_a_users_lists_as_the_guide_says(spark, folder):
    lists = folder / "mentions.jsonl"
    lists.write_text((folder / "my_lists.jsonl").read_text().replace('"entity"', '"mention"'))
    read = {'read.parquet("mentions.parquet")': f'read.json("{lists}")', ', revision="v1.0.0"': ""}
    run_guide("Spark", folder, {"spark": spark}, read)
    assert_lists_are_ranked(folder, folder / "reranked.parquet")


@pytest.mark.timeout(1200)
def test_ray_data_ranks_a_users_lists_as_the_guide_says(ray, folder):
    here = {
        'read_parquet("mentions.parquet")': f'read_json("{folder}/my_lists.jsonl")',
        '{"revision": "v1.0.0"}': "{}",
        "size=8": "size=1",
        "    num_gpus=1,\n": "",
    }
    run_guide("Ray", folder, {}, here)
    assert_lists_are_ranked(folder, folder / "reranked")
