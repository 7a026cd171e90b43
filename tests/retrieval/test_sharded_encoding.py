"""Names encoded by several processes, and by processes that were killed, give the bytes of an
undisturbed run.
"""

import numpy as np
import pytest
from pipeline_fixtures import contents
from trigram_encoder import TrigramEncoder, encode_names, make_concepts

from umls_reranker.retrieval.name_index import NameVectors

pytest_plugins = ["pipeline_fixtures"]

SHARD = 16


class Died(Exception):
    pass


class DyingEncoder(TrigramEncoder):
    """Dies before the shard of some number."""

    def __init__(self, shards: int) -> None:
        super().__init__()
        self.left = shards

    def encode(self, texts, **settings):
        if self.left == 0:
            raise Died
        self.left -= 1
        return super().encode(texts, **settings)


@pytest.fixture
def concepts(tmp_path):
    names = {
        f"C{number:07}": ("", [f"name {number}", f"{number} again", "shared"])
        for number in range(50)
    }
    return make_concepts(tmp_path / "concepts", names)


def build(path, concepts, encoder=None, shard=SHARD):
    return encode_names(concepts, encoder or TrigramEncoder(), path, shard)


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_names_and_give_the_same_bytes(tmp_path, concepts, processes):
    build(tmp_path / "whole", concepts)
    folder = tmp_path / "shared"
    encoders = [TrigramEncoder() for _ in range(processes)]
    vectors = NameVectors.prepare(concepts, encoders[0], folder, SHARD)
    for process, encoder in enumerate(encoders):
        vectors.encode_share(encoder, process, processes)
    # 101 distinct names are seven shards, the last of five names.
    expected = {2: [3 * 16 + 5, 3 * 16], 3: [2 * 16 + 5, 2 * 16, 2 * 16]}[processes]
    assert [encoder.asked.total() for encoder in encoders] == expected
    rest = TrigramEncoder()
    build(folder, concepts, rest)
    assert not rest.asked
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_killed_encoding_resumes_with_the_missing_shards(tmp_path, concepts):
    build(tmp_path / "whole", concepts)
    folder = tmp_path / "killed"
    with pytest.raises(Died):
        build(folder, concepts, DyingEncoder(3))
    done = sorted(path.name for path in folder.glob("*.npy"))
    assert done == [f"{number:05}-of-00007.npy" for number in range(3)]
    (folder / ".00003-of-00007.npy.partial").write_bytes(b"cut short")
    encoder = TrigramEncoder()
    build(folder, concepts, encoder)
    assert encoder.asked.total() == 101 - 3 * SHARD and set(encoder.asked.values()) == {1}
    assert contents(folder) == contents(tmp_path / "whole")


def test_vectors_are_taken_across_shards(tmp_path):
    texts = [f"name {number}" for number in range(10)]
    concepts = make_concepts(tmp_path / "concepts", {"C0000001": ("", texts)})
    vectors = build(tmp_path / "v", concepts, shard=4)
    assert (len(vectors), vectors.dimension, vectors.concepts) == (10, 64, 1)
    expected = TrigramEncoder().encode(texts)
    np.testing.assert_array_equal(vectors.take(np.array([0, 3, 4, 9])), expected[[0, 3, 4, 9]])
    assert [start for start, _ in vectors.shards()] == [0, 4, 8]
    assert vectors.sample(20).tolist() == list(range(10))
    sample = vectors.sample(6)
    assert (
        len(sample) == 6
        and (np.diff(sample) > 0).all()
        and sample.tolist() == vectors.sample(6).tolist()
    )
