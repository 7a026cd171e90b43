import gzip

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umls_reranker.core.errors import UserError
from umls_reranker.core.lines import Faults, Malformed, name_source, open_binary, read_lines, reading, skipped_lines


def write(path, content):
    path.write_bytes(content)
    return path


def test_parts_are_one_stream_and_a_line_may_cross_them(tmp_path):
    parts = (
        write(tmp_path / "M.RRF.aa.gz", gzip.compress(b"\xef\xbb\xbfone\ntw")),
        write(tmp_path / "M.RRF.ab", b"o\r\nthr"),
        write(tmp_path / "M.RRF.ac.gz", gzip.compress(b"ee")),
    )
    assert list(read_lines(parts)) == [(1, b"one"), (2, b"two"), (3, b"three")]
    with open_binary(parts) as stream:
        assert (stream.read(5), stream.read(100), stream.read(1)) == (b"\xef\xbb\xbfon", b"e\ntwo\r\nthree", b"")
    assert name_source(parts) == f"{tmp_path / 'M.RRF'} (3 parts joined)"
    assert name_source(parts[:1]) == name_source(parts[0]) == str(parts[0])


def test_a_broken_part_is_named(tmp_path):
    packed = gzip.compress(b"three\n" * 1000)
    good = write(tmp_path / "M.RRF.aa.gz", gzip.compress(b"one\ntwo\n"))
    for broken in (packed[:-20], packed[:-8] + b"\0" * 8):
        parts = (good, write(tmp_path / "M.RRF.ab.gz", broken))
        with pytest.raises(UserError, match=r"M.RRF.ab.gz: the gzip stream is truncated or corrupt") as error:
            list(read_lines(parts))
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="M.RRF.ab is empty; download it again"):
        list(read_lines((good, write(tmp_path / "M.RRF.ab", b""))))
    with pytest.raises(UserError, match="M.RRF.ac does not exist"):
        list(read_lines((good, tmp_path / "M.RRF.ac")))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.tuples(st.binary(min_size=1, max_size=9), st.booleans()), min_size=1, max_size=5))
def test_parts_give_the_lines_of_the_whole(tmp_path, pieces):
    parts = []
    for place, (content, packed) in enumerate(pieces):
        # A plain part that starts like a gzip stream is taken for one.
        packed = packed or content.startswith(b"\x1f\x8b")
        parts.append(write(tmp_path / f"M.{place}", gzip.compress(content) if packed else content))
    whole = write(tmp_path / "M.gz", gzip.compress(b"".join(content for content, _ in pieces)))
    assert list(read_lines(parts)) == list(read_lines(whole))


def test_a_reading_has_its_report_once_all_is_read():
    @reading
    def numbers(size):
        yield from range(size)
        return {"numbers": size}

    read = numbers(2)
    assert next(read) == 0
    assert not hasattr(read, "report")
    assert list(read) == [1] and list(read) == []
    assert read.report == {"numbers": 2}


def test_skipped_lines_of_several_files_are_told_together(tmp_path):
    files = [Faults(tmp_path / name, "skip") for name in "ab"]
    files[0].add(1, Malformed("short"))
    files[1].add(1, Malformed("long"), lines=2)
    files[1].add(9, Malformed("short"))
    assert skipped_lines(*files) == {"skipped": 4, "reasons": {"long": 2, "short": 2}}
    assert skipped_lines() == {"skipped": 0, "reasons": {}}
