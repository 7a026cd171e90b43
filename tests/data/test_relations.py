import gzip

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umls_reranker.core.errors import UserError
from umls_reranker.data import relations as relations_module
from umls_reranker.data.cuis import cui_number
from umls_reranker.data.relations import RELATION_KINDS, Relations, RelationTable, read_relations, write_relations

CUIS = [f"C{number:07d}" for number in range(10, 16)]
NUMBERS = np.array([cui_number(cui) for cui in CUIS], np.uint64)
INVERSE = {"SY": "SY", "PAR": "CHD", "CHD": "PAR", "RB": "RN", "RN": "RB", "SIB": "SIB"}


def line(one, kind, two, suppress="N"):
    return f"{one}|A1|AUI|{kind}|{two}|A2|AUI||R1||MINI|MINI|||{suppress}||"


def write(path, *lines):
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


def build(folder, *triples, **options):
    folder.mkdir(exist_ok=True)
    path = write(folder / "MRREL.RRF", *(line(*triple) for triple in triples))
    options = {"kinds": RELATION_KINDS} | options
    mrrel = read_relations(path, **options)
    counts = write_relations(mrrel, NUMBERS, folder)
    return RelationTable.load(folder), counts, mrrel.report


def test_relations_hold_in_both_directions(tmp_path):
    table, counts, _ = build(tmp_path, (CUIS[0], "PAR", CUIS[1]), (CUIS[2], "RN", CUIS[3]), (CUIS[4], "SY", CUIS[5]))
    # MRREL's REL says what the second concept is to the first: CUIS[1] is a parent of CUIS[0].
    gold, rows = np.array([0, 1, 2, 3, 4, 5, 0, 2]), np.array([1, 0, 3, 2, 5, 4, 2, 2])
    kinds = ["PAR", "CHD", "RN", "RB", "SY", "SY", None, None]
    for kind in RELATION_KINDS:
        assert table.related(gold, rows, [kind]).tolist() == [kind == known for known in kinds]
    assert [RELATION_KINDS[code] if code >= 0 else None for code in table.kind_between(gold, rows)] == kinds
    assert counts == {
        "outside_dictionary": 0,
        "within_concept": 0,
        "pairs": 6,
        "pairs_by_kind": {"SY": 2, "PAR": 1, "CHD": 1, "RB": 1, "RN": 1, "SIB": 0},
    }
    assert len(table) == 6


def test_rows_broadcast_and_nothing_is_related_to_a_missing_row(tmp_path):
    table, *_ = build(tmp_path, (CUIS[0], "PAR", CUIS[1]), (CUIS[5], "SIB", CUIS[0]))
    gold = np.array([[0], [5], [-1]], np.int32)
    rows = np.array([1, 0, -1, 5], np.int64)
    expected = [[True, False, False, True], [False, True, False, False], [False] * 4]
    assert table.related(gold, rows).tolist() == expected
    assert table.related(gold, rows, ["PAR"]).tolist() == [[True, False, False, False], [False] * 4, [False] * 4]
    assert table.related(gold, rows, []).sum() == 0
    assert table.kind_between(gold, rows).dtype == np.int8
    assert table.kind_between(gold, rows).tolist() == [[1, -1, -1, 5], [-1, 5, -1, -1], [-1] * 4]
    assert table.related(np.int64(0), np.int64(1)).shape == ()


def test_a_pair_may_be_of_several_kinds_and_the_closest_is_told(tmp_path):
    table, counts, _ = build(tmp_path, *[(CUIS[0], kind, CUIS[1]) for kind in ("SIB", "RB", "PAR", "PAR")])
    assert counts["pairs"] == 2
    assert [kind for kind in RELATION_KINDS if table.related(0, 1, [kind])] == ["PAR", "RB", "SIB"]
    assert RELATION_KINDS[table.kind_between(0, 1)] == "PAR"
    assert RELATION_KINDS[table.kind_between(1, 0)] == "CHD"


def test_what_is_left_out_is_counted(tmp_path):
    triples = [
        (CUIS[0], "PAR", CUIS[1]),
        (CUIS[0], "RO", CUIS[2]),
        (CUIS[0], "PAR", CUIS[3], "O"),
        (CUIS[0], "SY", CUIS[0]),
        (CUIS[0], "PAR", "C9999999"),
        ("C0000001", "PAR", CUIS[0]),
        ("C0000001", "PAR", "C0000001"),
        ("CL1", "PAR", CUIS[4]),
        (CUIS[0], "SIB", CUIS[5]),
    ]
    table, counts, report = build(tmp_path, *triples, kinds=["PAR", "SY"])
    assert report == {"lines": 9, "dropped": {"relations": 2, "suppressed": 1}, "skipped": 0, "reasons": {}}
    assert counts == {
        "outside_dictionary": 4,
        "within_concept": 1,
        "pairs": 2,
        "pairs_by_kind": {"SY": 0, "PAR": 1, "CHD": 1, "RB": 0, "RN": 0, "SIB": 0},
    }
    assert not table.related(0, 3)


def test_no_relations_relate_nothing(tmp_path):
    for table in (RelationTable.load(tmp_path), build(tmp_path / "empty", (CUIS[0], "RO", CUIS[1]))[0]):
        assert len(table) == 0
        assert table.related(np.array([[0], [1]]), np.array([0, 1, 2])).tolist() == [[False] * 3] * 2
        assert table.kind_between(np.array([0, -1]), np.array([1, 1])).tolist() == [-1, -1]


def test_a_broken_table_is_named(tmp_path):
    for content in (b"", b"text", b"\x93NUMPY\x01"):
        (tmp_path / "relations.npy").write_bytes(content)
        with pytest.raises(UserError, match="relations.npy cannot be read .* run umls-reranker prepare_data again"):
            RelationTable.load(tmp_path)
    np.save(tmp_path / "relations.npy", np.zeros(3))
    with pytest.raises(UserError, match="relations.npy does not contain 64-bit numbers"):
        RelationTable.load(tmp_path)


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (line(CUIS[0], "PAR", CUIS[1])[:-10], "expected 16 fields"),
        (line(CUIS[0], "PAR", CUIS[1]) + "more|", "expected 16 fields, found 17"),
        (line("", "PAR", CUIS[1]), "empty CUI1"),
        (line(CUIS[0], "", CUIS[1]), "empty REL"),
        (line(CUIS[0], "PAR", ""), "empty CUI2"),
        (line("CL12345678", "PAR", CUIS[1]), "CUI1 longer than 8 bytes"),
    ],
)
def test_a_malformed_line_is_named_or_skipped(tmp_path, bad, what):
    good = line(CUIS[0], "PAR", CUIS[1])
    path = write(tmp_path / "MRREL.RRF", good, bad, line(CUIS[2], "PAR", CUIS[3]))
    with pytest.raises(UserError) as error:
        list(read_relations(path, kinds=["PAR"]))
    assert str(error.value).startswith(f"{path}:2: {what}")
    mrrel = read_relations(path, kinds=["PAR"], on_error="skip")
    assert write_relations(mrrel, NUMBERS, tmp_path)["pairs"] == 4
    assert mrrel.report["lines"] == 2 and mrrel.report["skipped"] == 1


def test_runs_and_parts_give_the_same_table(tmp_path, monkeypatch):
    random = np.random.default_rng(7)
    lines = [line(CUIS[a], RELATION_KINDS[k], CUIS[b]) for a, b, k in random.integers(0, 6, (400, 3))]
    content = "".join(f"{text}\n" for text in lines).encode()
    parts = (tmp_path / "MRREL.RRF.aa.gz", tmp_path / "MRREL.RRF.ab")
    parts[0].write_bytes(gzip.compress(content[:5001]))
    parts[1].write_bytes(content[5001:])
    whole = write(tmp_path / "MRREL.RRF", *lines)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = write_relations(read_relations(whole, kinds=RELATION_KINDS), NUMBERS, tmp_path / "one")
    monkeypatch.setattr(relations_module, "ENTRIES_AT_ONCE", 3)
    whole_block = next(read_relations(parts, kinds=RELATION_KINDS))
    pieces = [Relations(*(column[start : start + 7] for column in whole_block)) for start in range(0, 400, 7)]
    two = write_relations(pieces, NUMBERS, tmp_path / "two")
    assert one == two
    assert (tmp_path / "one/relations.npy").read_bytes() == (tmp_path / "two/relations.npy").read_bytes()


TRIPLES = st.tuples(
    st.sampled_from([*CUIS, "C9999999", "X"]), st.sampled_from([*RELATION_KINDS, "RO"]), st.sampled_from(CUIS)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(triples=st.lists(TRIPLES, min_size=1, max_size=12), kinds=st.sets(st.sampled_from(RELATION_KINDS)))
def test_the_table_says_what_the_file_says(tmp_path, triples, kinds):
    table, *_ = build(tmp_path, *triples)
    known = {(a, kind, b) for a, kind, b in triples if a in CUIS and a != b and kind in INVERSE}
    known |= {(b, INVERSE[kind], a) for a, kind, b in known}
    rows = np.arange(-1, len(CUIS))
    expected = [
        [a >= 0 and b >= 0 and any((CUIS[a], kind, CUIS[b]) in known for kind in kinds) for b in rows] for a in rows
    ]
    assert table.related(rows[:, None], rows, sorted(kinds)).tolist() == expected


PIECES = st.sampled_from([line(CUIS[0], "PAR", CUIS[1]) + "\n", CUIS[0], "|", "\n", "PAR", "\r", "\x1f\x8b", "\xef"])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.one_of(PIECES.map(str.encode), st.binary(max_size=4)), max_size=20), skip=st.booleans())
def test_whatever_the_input_it_is_relations_or_a_user_error(tmp_path, pieces, skip):
    path = tmp_path / "MRREL.RRF"
    path.write_bytes(b"".join(pieces))
    mrrel = read_relations(path, kinds=["PAR"], on_error="skip" if skip else "stop")
    try:
        batches = list(mrrel)
    except UserError as error:
        assert "\n" not in str(error)
        return
    report = mrrel.report
    assert sum(len(block.first) for block in batches) == report["lines"] - sum(report["dropped"].values())
    if not path.read_bytes().startswith(b"\x1f\x8b"):
        content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
        lines = [text for text in content.split(b"\n") if text.removesuffix(b"\r").strip()]
        assert report["lines"] + report["skipped"] == len(lines)
