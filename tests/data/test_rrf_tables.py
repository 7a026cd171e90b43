from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umls_reranker.core.errors import UserError
from umls_reranker.core.lines import Faults
from umls_reranker.data import rrf_tables
from umls_reranker.data.cuis import cui_number, cui_numbers
from umls_reranker.data.rrf_tables import RrfTable, positions_in, read_columns

FIELDS = ("CUI", "LAT", "STR", "CVF")
TABLE = RrfTable(",".join(FIELDS), ("CUI", "STR"))
KNOWN = ("ENG", "", "SNOMEDCT_US", "GER", "ENG")

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="|\n\r\0"), max_size=12)
LANGUAGE = st.sampled_from(["ENG", "GER", "", "SNOMEDCT_US", "ENGLISHES", "EN"])
CUI = st.sampled_from(["C0000001", "C0000002", "C1", "\u00fc", "C12345678", ""])
ROW = st.tuples(CUI, LANGUAGE, TEXT, st.sampled_from(["", "256"]))


def line_of(row):
    return ("|".join(row) + "|").encode()


GOOD = ROW.filter(lambda row: row[0] and row[2] and len(row[0].encode()) <= 8)
MUTATIONS = st.sampled_from(
    [
        lambda line, place: line[:place],
        lambda line, place: line[:place] + b"|" + line[place:],
        lambda line, place: line[:place] + b"\xe9" + line[place:],
        lambda line, place: line[:place] + b"\0" + line[place:],
        lambda line, place: line[:place] + b"\r" + line[place:],
        lambda line, place: line + line,
        lambda line, place: line + b"tail",
        lambda line, place: b"",
        lambda line, place: b" \t ",
        lambda line, place: line + b"\r",
    ]
)
MUTATED = st.builds(lambda row, change, place: change(line_of(row), place), ROW, MUTATIONS, st.integers(0, 30))
LINE = st.one_of(GOOD.map(line_of), GOOD.map(line_of), ROW.map(line_of), MUTATED, st.binary(max_size=12))
CONTENT = st.builds(
    lambda lines, end: b"\n".join(lines) + end, st.lists(LINE, min_size=1, max_size=8), st.sampled_from([b"", b"\n"])
)
ANYWHERE = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def expected_rows(content):
    """The rows that a reader without any tricks keeps, and the number of lines that are not blank."""
    rows, lines = [], 0
    for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        line = line.removesuffix(b"\r")
        lines += bool(line.strip())
        try:
            *row, closing = line.decode().split("|")
        except UnicodeDecodeError:
            continue
        if len(row) != 4 or closing or "\0" in line.decode() or "\r" in line.decode():
            continue
        if row[0] and row[2] and len(row[0].encode()) <= 8:
            rows.append(tuple(row))
    return rows, lines


def read(path, faults):
    batches = read_columns(TABLE, path, FIELDS, faults)
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


@ANYWHERE
@given(content=CONTENT, block_bytes=st.sampled_from([1, 7, 64, 1 << 19]))
def test_every_line_is_kept_skipped_or_blank(tmp_path, content, block_bytes):
    path = tmp_path / "table"
    path.write_bytes(content)
    rows, lines = expected_rows(content)
    faults, strict = Faults(path, "skip"), Faults(path, "stop")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rrf_tables, "BLOCK_BYTES", block_bytes)
        if not content:
            with pytest.raises(UserError, match="is empty"):
                read(path, faults)
            return
        if not content.startswith(b"\x1f\x8b"):
            assert read(path, faults) == rows
            assert len(rows) + faults.reasons.total() == lines
        try:
            assert read(path, strict) == rows
            assert not faults.reasons
        except UserError as error:
            assert "\n" not in str(error)
            assert faults.reasons or content.startswith(b"\x1f\x8b")


@ANYWHERE
@given(content=CONTENT)
def test_what_is_mended_parses_and_what_parses_needs_no_mending(content):
    faults = Faults(Path("x"), "skip")
    mended = TABLE.mended(content, 1, faults)
    again = TABLE.parse(mended, FIELDS)
    assert [tuple(row.values()) for row in (again.to_pylist() if again else [])] == expected_rows(content)[0]
    if content.endswith(b"\n"):
        fast = TABLE.parse(content, FIELDS)
        assert fast is None or (not faults.reasons and fast.equals(again))


@ANYWHERE
@given(rows=st.lists(GOOD, min_size=1))
def test_columns_as_numbers(rows):
    block = TABLE.parse(b"".join(line_of(row) + b"\n" for row in rows), FIELDS)
    cuis, languages, texts, _ = zip(*rows, strict=True)
    assert block["STR"].to_pylist() == list(texts)
    assert cui_numbers(block["CUI"]).tolist() == [cui_number(cui) for cui in cuis]
    places = [KNOWN.index(value) if value in KNOWN else len(KNOWN) for value in languages]
    assert positions_in(block["LAT"], KNOWN).tolist() == places


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"C1|ENG|a\0b||", "NUL inside the line at column 9"),
        (b"C1|ENG|a\rb||", "carriage return inside the line at column 9"),
        (b"C12345678|ENG|x||", "CUI longer than 8 bytes"),
        (b"C1|ENG|x|", "expected 4 fields, found 3"),
        (b"C1|ENG||256|", "empty STR"),
        ("C1|ENG|\u00e9||".encode("latin-1"), "not UTF-8 (byte 0xe9 at column 8)"),
        ("C1|ENG|x|\u00e9|".encode("latin-1"), "not UTF-8 (byte 0xe9 at column 10)"),
    ],
)
def test_the_first_fault_is_named_by_line(tmp_path, line, reason):
    path = tmp_path / "table"
    path.write_bytes(b"C1|ENG|x||\n\n" + line + b"\nC1|ENG|y||\n")
    with pytest.raises(UserError) as error:
        read(path, Faults(path, "stop"))
    assert str(error.value) == f"{path}:3: {reason}; fix it, or skip such lines with --on_error skip"
    assert [row[2] for row in read(path, Faults(path, "skip"))] == ["x", "y"]
