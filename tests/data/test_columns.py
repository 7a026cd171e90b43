import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from umls_reranker.core.arrays import expand_ranges
from umls_reranker.data.columns import Lists, first_of_each, ordered

SMALL, HUGE = st.integers(0, 3), st.integers(0, 2**40)
KEYS = st.one_of(st.lists(st.tuples(SMALL, SMALL)), st.lists(st.tuples(HUGE, HUGE)))


@given(KEYS)
def test_rows_in_order_of_their_keys(rows):
    keys = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    assert ordered(*keys).tolist() == sorted(range(len(rows)), key=lambda place: rows[place])
    expected = [row not in rows[:place] for place, row in enumerate(rows)]
    assert first_of_each(*keys).tolist() == expected


def test_ranges():
    owners, places = expand_ranges(np.array([5, 2, 9]), np.array([7, 2, 10]))
    assert owners.tolist() == [0, 0, 2]
    assert places.tolist() == [5, 6, 9]


def test_lists_of_concepts():
    lists = Lists.grouped(pa.array(["a", "b", "c"]), np.array([2, 0, 1, 1]), np.array([0, 0, 2, 3]), 5)
    assert lists.sizes().tolist() == [2, 0, 1, 1, 0]
    assert lists.any_of(["b", "x"]).tolist() == [False, False, True, True, False]
    kept = lists.kept(np.array([True, True, False, True, False]))
    assert kept.starts.tolist() == [0, 2, 2, 3]
    places, starts = kept.slice(1, 3)
    assert kept.values.take(pa.array(places)).to_pylist() == ["b"]
    assert starts.tolist() == [0, 0, 1]
    assert Lists.empty(2).sizes().tolist() == [0, 0]
