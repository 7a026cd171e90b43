import gzip

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umls_reranker.vocab import rrf as relations_module
from umls_reranker.vocab.rrf import RELATIONS, RelationTable, read_relations, write_relations

CUIS = [f"C{number:07d}" for number in range(10, 16)]


def line(one, kind, two, suppress="N"):
    return f"{one}|A1|AUI|{kind}|{two}|A2|AUI||R1||MINI|MINI|||{suppress}||"


def write(path, *lines):
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    return path


def build(folder, *triples):
    path = write(folder / "MRREL.RRF.gz", *(line(*triple) for triple in triples))
    count = write_relations(read_relations(path), pa.array(CUIS), folder)
    table = RelationTable.load(folder)
    assert len(table) == count
    return table


def test_siblings_suppressed_lines_and_concepts_outside_are_left_out(tmp_path):
    triples = [
        (CUIS[0], "PAR", CUIS[1]),
        (CUIS[0], "SIB", CUIS[2]),
        (CUIS[0], "PAR", CUIS[3], "O"),
        (CUIS[0], "SY", CUIS[0]),
        (CUIS[0], "PAR", "C9999999"),
        ("CL1", "PAR", CUIS[4]),
    ]
    rows = np.arange(6)
    assert np.argwhere(build(tmp_path, *triples).related(rows[:, None], rows)).tolist() == [
        [0, 1],
        [1, 0],
    ]


TRIPLES = st.tuples(
    st.sampled_from([*CUIS, "C9999999", "X"]),
    st.sampled_from([*RELATIONS, "SIB", "RO"]),
    st.sampled_from(CUIS),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    triples=st.lists(TRIPLES, min_size=1, max_size=12),
    pairs_at_once=st.sampled_from([2, 4_000_000]),
)
def test_the_table_says_what_the_file_says(tmp_path, triples, pairs_at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relations_module, "PAIRS_AT_ONCE", pairs_at_once)
        table = build(tmp_path, *triples)
    known = {(a, b) for a, kind, b in triples if a in CUIS and a != b and kind in RELATIONS}
    rows = np.arange(-1, len(CUIS))
    expected = [
        [a >= 0 and b >= 0 and bool({(CUIS[a], CUIS[b]), (CUIS[b], CUIS[a])} & known) for b in rows]
        for a in rows
    ]
    assert table.related(rows[:, None], rows).tolist() == expected
