import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from umls_reranker.data import normalization
from umls_reranker.data.normalization import hash_names, normalize_name, normalize_names

PIECES = st.sampled_from(
    ["a", "B", "7", " ", "-", "_", "(", "\t", "\0", "\u00e9", "e\u0301", "\u00b5", "\uff24", "\u00df"]
)
NAMES = st.lists(st.one_of(st.lists(PIECES, max_size=20).map("".join), st.text(max_size=8)), max_size=30)


@settings(deadline=None)
@given(names=NAMES, start=st.integers(0, 5))
def test_names_at_once_are_as_names_one_by_one(names, start):
    column = pa.array(names, pa.string())
    forms = normalize_names(column)
    assert forms.type == pa.string()
    assert forms.to_pylist() == [normalize_name(name) for name in names]
    assert normalize_names(column.slice(start)).to_pylist() == forms.to_pylist()[start:]


def test_many_names_are_normalized_in_pieces(monkeypatch):
    monkeypatch.setattr(normalization, "NAMES_AT_ONCE", 3)
    names = ["A-b", "", " c ", "\u00c9", "7.", "Z"] * 2 + ["x"]
    assert normalize_names(pa.array(names)).to_pylist() == [normalize_name(name) for name in names]


@settings(deadline=None)
@given(names=NAMES, start=st.integers(0, 5))
def test_a_hash_depends_on_the_name_alone(names, start):
    column = pa.array(names, pa.string())
    hashes = hash_names(column)
    assert hashes.dtype == np.uint64
    assert hash_names(column.slice(start)).tolist() == hashes[start:].tolist()
    by_name = dict(zip(names, hashes.tolist(), strict=True))
    assert [by_name[name] for name in names] == hashes.tolist()


HASHES = [
    "0000000000000000",
    "7e0e3ab86382382e",
    "ef24723afbb29b18",
    "cf1b45d7b407d523",
    "95ef2ef0fde30137",
    "429d00f3ca68d947",
]


def test_hashes_are_those_of_every_machine():
    names = ["", "a", "12345678", "123456789", "caf\u00e9", "diabetes mellitus type ii"]
    assert [f"{value:016x}" for value in hash_names(pa.array(names))] == HASHES


def test_names_that_differ_in_the_last_bytes_of_words_hash_apart():
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = pa.array([f"aorta {a}{b}stenosis{c}" for a in letters for b in letters for c in letters])
    assert len(np.unique(hash_names(names))) == len(names)


def test_hashes_spread_over_both_halves():
    names = pa.array([f"{word} {number}" for word in ("a", "name number", "\u00e9") for number in range(20_000)])
    hashes = hash_names(names)
    assert len(np.unique(hashes)) == len(names)
    # 60,000 of 2**32 values: 0.4 pairs alike are expected by chance.
    assert min(len(np.unique(hashes >> np.uint64(32))), len(np.unique(hashes & np.uint64(2**32 - 1)))) > len(names) - 6
