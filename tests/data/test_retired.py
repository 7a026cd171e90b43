import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umls_reranker.core.errors import UserError
from umls_reranker.data.columns import Concept
from umls_reranker.data.concepts import ConceptTable, write_concepts
from umls_reranker.data.corpus import Mention
from umls_reranker.data.retired import RetiredCuis, map_retired
from umls_reranker.data.semantic_types import TypeHierarchy


def cui(number):
    return f"C{number:07d}"


def line(one, kind, two=None, release="2018AA"):
    return f"{cui(one)}|{release}|{kind}|||{cui(two) if two else ''}|{'Y' if two else ''}|"


def write(path, *lines):
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


@pytest.fixture(scope="module")
def concepts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("concepts")
    write_concepts((Concept(cui(number), "name") for number in (1, 2, 3)), TypeHierarchy([]), folder)
    return ConceptTable.load(folder)


LINES = [
    line(50, "SY", 51),  # over two releases, the later one first in the file
    line(11, "SY", 1),
    line(12, "SY", 50),
    line(51, "SY", 2),
    line(13, "SY", 14),  # a circle
    line(14, "SY", 13),
    line(15, "DEL"),
    line(16, "RB", 1),
    line(16, "RO", 2),
    line(17, "SUBX"),
    line(18, "SY", 99),
    line(19, "SY", 98),  # split: the one in the dictionary is taken, then the first
    line(19, "SY", 3),
    line(19, "SY", 2),
    line(20, "SY"),  # no successor given
    line(21, "SY", 21),
    line(22, "XYZ", 1),
    line(23, "SY", 97),
    line(23, "RB", 1),
]
ENDS = {
    11: (1, "mapped"),
    12: (2, "mapped"),
    13: (None, "successor_not_in_dictionary"),
    15: (None, "deleted"),
    16: (None, "related_only"),
    17: (None, "not_in_subset"),
    18: (None, "successor_not_in_dictionary"),
    19: (3, "mapped"),
    20: (None, "not_retired"),
    21: (None, "not_retired"),
    22: (None, "not_retired"),
    23: (None, "successor_not_in_dictionary"),
    96: (None, "not_retired"),
}


def test_mergers_are_followed_to_the_dictionary(tmp_path, concepts):
    retired, report = RetiredCuis.read(write(tmp_path / "MRCUI.RRF", *LINES))
    assert report == {"lines": 19, "skipped": 0, "reasons": {}}
    for number, (successor, end) in ENDS.items():
        assert retired.successor(cui(number), concepts) == (cui(successor) if successor else None, end), number


def mention(number, place=0):
    return Mention("1", place, place + 1, "x", "", "", cui(number), ("T047",))


def test_gold_cuis_are_replaced_and_counted(tmp_path, concepts):
    retired, _ = RetiredCuis.read(write(tmp_path / "MRCUI.RRF", *LINES, line(1, "SY", 2)))
    given = [
        ("train", 1),
        ("train", 11),
        ("dev", 12),
        ("dev", 15),
        ("test", 11),
        ("test", 16),
        ("test", 96),
        ("test", 15),
    ]
    reading = map_retired([(split, mention(number)) for split, number in given], retired, concepts)
    mapped = list(reading)
    # A CUI of the dictionary stays, whatever MRCUI says about it.
    assert mapped == [(split, mention({11: 1, 12: 2}.get(number, number))) for split, number in given]
    assert reading.report == {
        "mentions": {"mapped": 3, "deleted": 2, "related_only": 1, "not_retired": 1},
        "cuis": {"mapped": 2, "deleted": 1, "related_only": 1, "not_retired": 1},
    }


def test_a_malformed_line_is_named_or_skipped(tmp_path, concepts):
    path = write(tmp_path / "MRCUI.RRF", line(11, "SY", 1), line(12, "SY", 2)[:-1], line(13, "SY", 3))
    with pytest.raises(UserError, match="MRCUI.RRF:2: expected 7 fields, found 7 without a closing |"):
        RetiredCuis.read(path)
    retired, report = RetiredCuis.read(path, on_error="skip")
    assert report == {"lines": 2, "skipped": 1, "reasons": {"expected 7 fields": 1}}
    assert retired.successor(cui(13), concepts) == (cui(3), "mapped")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    mergers=st.lists(st.tuples(st.integers(4, 12), st.integers(1, 12)), min_size=1, max_size=20),
    start=st.integers(4, 12),
)
def test_a_successor_is_reached_by_mergers_and_no_circle_hangs(tmp_path, concepts, mergers, start):
    path = write(tmp_path / "MRCUI.RRF", *(line(one, "SY", two) for one, two in mergers))
    successor, end = RetiredCuis.read(path)[0].successor(cui(start), concepts)
    reached, size = {start}, 0
    while len(reached) > size:
        size = len(reached)
        reached |= {two for one, two in mergers if one in reached}
    ends = {cui(number) for number in reached if number <= 3}
    assert (successor in ends) if ends else (successor is None)
    assert end == ("mapped" if ends else "successor_not_in_dictionary" if len(reached) > 1 else "not_retired")


PIECES = st.sampled_from([line(11, "SY", 1) + "\n", line(12, "DEL") + "\n", "C0000011", "|", "\n", "SY", "\x1f\x8b"])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.one_of(PIECES.map(str.encode), st.binary(max_size=4)), max_size=20), skip=st.booleans())
def test_whatever_the_input_it_is_read_or_a_user_error(tmp_path, concepts, pieces, skip):
    path = tmp_path / "MRCUI.RRF"
    path.write_bytes(b"".join(pieces))
    try:
        retired, _ = RetiredCuis.read(path, on_error="skip" if skip else "stop")
    except UserError as error:
        assert "\n" not in str(error)
        return
    for number in (1, 11, 12):
        successor, end = retired.successor(cui(number), concepts)
        assert (successor is not None) == (end == "mapped")


def test_nothing_retired_maps_nothing(concepts):
    empty = RetiredCuis(np.empty((0, 3), np.uint64))
    assert empty.successor(cui(11), concepts) == (None, "not_retired")
