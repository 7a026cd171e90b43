import gzip

import pytest

from umls_reranker.core.errors import UserError
from umls_reranker.core.files import read_lines


def write(path, content):
    path.write_bytes(content)
    return path


def test_lines_are_numbered_plain_and_gzip(tmp_path):
    content = b"\xef\xbb\xbfone\r\ntwo\x0c\n\nlast"
    expected = [(1, b"one"), (2, b"two\x0c"), (3, b""), (4, b"last")]
    assert list(read_lines(write(tmp_path / "plain", content))) == expected
    assert list(read_lines(write(tmp_path / "packed", gzip.compress(content)))) == expected


def test_broken_files_are_named(tmp_path):
    packed = gzip.compress(b"three\n" * 1000)
    for name, content in {
        "cut": packed[:-20],
        "changed": packed[:-8] + b"\0" * 8,
        "empty": b"",
    }.items():
        with pytest.raises(UserError, match=name):
            list(read_lines(write(tmp_path / name, content)))
    with pytest.raises(UserError, match="absent"):
        list(read_lines(tmp_path / "absent"))
