import gzip

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umls_reranker.vocab.rrf import (
    INVERSES,
    KINDS,
    RELATIONS,
    RelationTable,
    read_relations,
    write_relations,
)

CUIS = [f"C{number:07d}" for number in range(10, 16)]


def line(one, kind, two, suppress="N"):
    return f"{one}|A1|AUI|{kind}|{two}|A2|AUI||R1||MINI|MINI|||{suppress}||"


def write(path, *lines):
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    return path


def build(folder, *triples, **settings):
    path = write(folder / "MRREL.RRF.gz", *(line(*triple) for triple in triples))
    count = write_relations(read_relations(path, **settings), pa.array(CUIS), folder)
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
    table = build(tmp_path, *triples)
    assert len(table) == 2
    assert np.argwhere(table.related(rows[:, None], rows, "parent")).tolist() == [[0, 1]]
    assert np.argwhere(table.related(rows[:, None], rows, "child")).tolist() == [[1, 0]]


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
    table = build(tmp_path, *triples, pairs=pairs_at_once)
    inside = [triple for triple in triples if triple[0] in CUIS and triple[0] != triple[2]]
    known = {(a, RELATIONS[name], b) for a, name, b in inside if name in RELATIONS}
    known |= {(b, INVERSES[kind], a) for a, kind, b in known}
    ids = [*CUIS, None]
    rows = np.array([*range(len(CUIS)), -1])
    for kind in KINDS:
        expected = [[(a, kind, b) in known for b in ids] for a in ids]
        assert table.related(rows[:, None], rows, kind).tolist() == expected
