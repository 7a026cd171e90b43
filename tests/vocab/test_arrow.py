import datasets
import numpy as np
import pyarrow as pa
import pytest

from umls_reranker.core.arrays import arrow_writer, open_arrow

FEATURES = datasets.Features(
    {
        "number": datasets.Value("int32"),
        "words": datasets.List(datasets.Value("string")),
        "kind": datasets.ClassLabel(names=["odd", "even"]),
    }
)
ROWS = {"number": [0, 1, 2], "words": [[], ["w"], ["w", "v"]], "kind": [0, 1, 0]}


def write(path, *batches):
    with arrow_writer(path, FEATURES.arrow_schema) as writer:
        for batch in batches:
            writer.write(pa.Table.from_pydict(batch, FEATURES.arrow_schema))
    return path


def test_what_is_written_is_mapped_and_read_by_datasets(tmp_path):
    arrays = {
        "number": np.arange(3),
        "words": pa.array(ROWS["words"]),
        "kind": pa.chunked_array([[0], [1, 0]]),
    }
    path = write(tmp_path / "new" / "train.arrow", ROWS, arrays)
    twice = {name: values * 2 for name, values in ROWS.items()}
    assert open_arrow(path).to_pydict() == twice
    dataset = datasets.Dataset.from_file(str(path))
    assert dataset.features == FEATURES and dataset.to_dict() == twice
    assert len(datasets.Dataset.from_file(str(write(tmp_path / "empty.arrow")))) == 0


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    path = write(tmp_path / "train.arrow", ROWS)
    with pytest.raises(ZeroDivisionError), arrow_writer(path, FEATURES.arrow_schema) as writer:
        writer.write(pa.Table.from_pydict(ROWS, FEATURES.arrow_schema))
        raise ZeroDivisionError
    assert open_arrow(path).to_pydict() == ROWS
    assert [file.name for file in tmp_path.iterdir()] == ["train.arrow"]
