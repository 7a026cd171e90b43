import datasets
import numpy as np
import pyarrow as pa
import pytest

from umls_reranker.data import arrow
from umls_reranker.data.arrow import DatasetWriter, open_table, write_dataset, write_dataset_dict_index

FEATURES = datasets.Features(
    {
        "number": datasets.Value("int32"),
        "words": datasets.List(datasets.Value("string")),
        "score": datasets.Value("float32"),
        "kind": datasets.ClassLabel(names=["odd", "even"]),
    }
)


def rows(start, end):
    numbers = range(start, end)
    return {
        "number": list(numbers),
        "words": [["w"] * (n % 3) for n in numbers],
        "score": [None if n % 5 == 0 else n / 2 for n in numbers],
        "kind": [n % 2 for n in numbers],
    }


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_datasets_reads_what_is_written(tmp_path):
    assert write_dataset([rows(0, 3), rows(3, 5)], FEATURES, tmp_path / "d", "abc") == 5
    dataset = datasets.load_from_disk(str(tmp_path / "d"))
    assert dataset.features == FEATURES
    assert dataset.to_dict() == rows(0, 5)
    write_dataset([rows(0, 5)], FEATURES, tmp_path / "other", "def")
    assert dataset._fingerprint == datasets.load_from_disk(str(tmp_path / "d"))._fingerprint
    assert dataset._fingerprint != datasets.load_from_disk(str(tmp_path / "other"))._fingerprint
    assert dataset.map(lambda row: {"number": row["number"] + 1})["number"][:] == [1, 2, 3, 4, 5]
    assert open_table(tmp_path / "d").to_pydict() == rows(0, 5)


def test_the_layout_is_that_of_save_to_disk(tmp_path):
    write_dataset([rows(0, 5)], FEATURES, tmp_path / "ours", "abc")
    datasets.Dataset.from_dict(rows(0, 5), features=FEATURES).save_to_disk(str(tmp_path / "theirs"))
    assert set(contents(tmp_path / "ours")) == set(contents(tmp_path / "theirs"))
    assert contents(tmp_path / "ours")["dataset_info.json"] == contents(tmp_path / "theirs")["dataset_info.json"]


def test_equal_rows_give_equal_bytes_whatever_the_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow, "ROWS_PER_BATCH", 7)
    for name, sizes in {"whole": [23], "single": [1] * 23, "uneven": [3, 0, 11, 9], "exact": [7, 7, 7, 2]}.items():
        ends = np.cumsum(sizes)
        batches = [rows(end - size, end) for size, end in zip(sizes, ends, strict=True)]
        assert write_dataset(batches, FEATURES, tmp_path / name, "abc") == 23
        assert contents(tmp_path / name) == contents(tmp_path / "whole")
    batches = open_table(tmp_path / "whole")["number"].chunks
    assert [len(batch) for batch in batches] == [7, 7, 7, 2]


def test_columns_may_be_numpy_or_arrow(tmp_path):
    columns = rows(1, 4)
    other = {
        "number": np.array(columns["number"]),
        "words": pa.array(columns["words"], pa.large_list(pa.large_string())),
        "score": np.array(columns["score"], dtype=np.float32),
        "kind": pa.chunked_array([columns["kind"][:1], columns["kind"][1:]]),
    }
    for name, batch in (("lists", columns), ("arrays", other)):
        write_dataset([batch], FEATURES, tmp_path / name, "abc")
    assert contents(tmp_path / "arrays") == contents(tmp_path / "lists")


def test_a_dataset_without_rows(tmp_path):
    assert write_dataset([], FEATURES, tmp_path, "abc") == 0
    assert len(datasets.load_from_disk(str(tmp_path))) == 0


def test_unequal_or_missing_columns_are_refused(tmp_path):
    with pytest.raises(KeyError, match="words"):
        write_dataset([{"number": [1]}], FEATURES, tmp_path, "abc")
    with pytest.raises(pa.ArrowInvalid):
        write_dataset([rows(0, 2) | {"number": [1]}], FEATURES, tmp_path, "abc")


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    write_dataset([rows(0, 2)], FEATURES, tmp_path, "abc")
    (tmp_path / "other").write_text("kept")
    with pytest.raises(ZeroDivisionError), DatasetWriter(FEATURES, tmp_path, "abc") as writer:
        writer.write(rows(0, 1))
        raise ZeroDivisionError
    assert len(datasets.load_from_disk(str(tmp_path))) == 2
    assert not list(tmp_path.glob(".*"))
    assert (tmp_path / "other").read_text() == "kept"


def test_folders_become_one_dataset_dict(tmp_path):
    for split in ("train", "test"):
        write_dataset([rows(0, 2)], FEATURES, tmp_path / split, split)
    write_dataset_dict_index(tmp_path, ["train", "test"])
    splits = datasets.load_from_disk(str(tmp_path))
    assert isinstance(splits, datasets.DatasetDict)
    assert {name: len(dataset) for name, dataset in splits.items()} == {"train": 2, "test": 2}
