"""What Spark and Ray call, without either."""

import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tiny_reranker import tiny_reranker

from umls_reranker import UMLSReranker
from umls_reranker.serving import bulk as cluster
from umls_reranker.serving.bulk import RerankBatches, RerankPartitions

OPTIONS = {"device": "cpu", "dtype": "float32"}
ROWS = [
    {
        "id": 1,
        "entity": "cold",
        "candidates": [{"name": "common cold", "cui": "C1"}, {"name": "cough", "cui": None}],
    },
    {"id": 2, "entity": "flu", "candidates": []},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_reranker(tmp_path_factory.mktemp("cluster") / "model"))


@pytest.fixture(scope="module")
def expected(model):
    reranker = UMLSReranker.from_pretrained(model, **OPTIONS)
    ranked = [reranker.rerank(row["entity"], row["candidates"]) for row in ROWS]
    return [[item.as_row() for item in items] for items in ranked]


def test_a_batch_of_ray_data_gains_the_ranking(model, expected):
    batch = RerankBatches(model, **OPTIONS)(pa.Table.from_pylist(ROWS))
    assert batch.column_names == ["id", "entity", "candidates", "ranked"]
    assert batch["ranked"].to_pylist() == expected


def test_frames_of_spark_gain_the_ranking_and_the_model_is_loaded_once(model, expected):
    function = pickle.loads(pickle.dumps(RerankPartitions(model, **OPTIONS)))
    cluster._load.cache_clear()
    # Lists come as arrays, an empty one as one of floats; and a further column that Arrow has no
    # type for.
    arrays = [np.array(row["candidates"]) for row in ROWS]
    assert arrays[1].dtype == np.float64
    frame = pd.DataFrame(ROWS).assign(candidates=arrays, note=["a", 1])
    frames = [*function(iter([frame, frame])), *function(iter([frame]))]
    assert len(frames) == 3 and cluster._load.cache_info().misses == 1
    for ranked in frames:
        assert ranked["ranked"].tolist() == expected and ranked["note"].tolist() == ["a", 1]


@pytest.mark.parametrize("column", ["entity", "candidates"])
def test_a_column_that_is_missing_is_named(model, column):
    rows = [{name: value for name, value in row.items() if name != column} for row in ROWS]
    with pytest.raises(ValueError, match=column):
        RerankBatches(model, **OPTIONS)(pa.Table.from_pylist(rows))
