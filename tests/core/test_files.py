"""Files and folders that appear whole or not at all; JSON; fingerprints."""

import gzip
import io
import itertools
import json
import os
import platform
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from filelock import FileLock
from safetensors import SafetensorError

from umls_reranker.core import hashes
from umls_reranker.core import parallel as shown
from umls_reranker.core.arrow_files import arrow_writer, open_arrow
from umls_reranker.core.errors import UserError
from umls_reranker.core.files import hold, require_writable, written
from umls_reranker.core.hashes import file_sha256, fingerprint_path, remembered
from umls_reranker.core.json_files import read_json, write_json
from umls_reranker.core.parallel import progress
from umls_reranker.core.text_files import LONGEST_LINE, bounded_lines, read_lines, read_whole
from umls_reranker.vocab.name_rows import read_name_rows


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_appears_when_it_is_whole(tmp_path, shared):
    path = tmp_path / "names.txt"
    path.write_text("former")
    with written(path, shared=shared) as partial:
        partial.write_text("cold")
        own = f".names.txt.{platform.node()}.{os.getpid()}.partial"
        hidden = own if shared else ".names.txt.partial"
        assert (listing(tmp_path), path.read_text()) == ([hidden, "names.txt"], "former")
    assert (listing(tmp_path), path.read_text()) == (["names.txt"], "cold")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_leaves_nothing_and_the_former_stays(tmp_path, error):
    (tmp_path / "names.txt").write_text("former")
    with pytest.raises(error), written(tmp_path / "names.txt") as partial:
        partial.write_text("half")
        raise error
    with pytest.raises(error), written(tmp_path / "folder") as partial:
        partial.mkdir()
        (partial / "a.txt").write_text("half")
        raise error
    assert listing(tmp_path) == ["names.txt"] and (tmp_path / "names.txt").read_text() == "former"


def test_a_full_disk_is_said_of_the_file_to_write(tmp_path):
    path = tmp_path / "counts.safetensors"
    with pytest.raises(UserError, match=rf"{re.escape(str(path))} .*disk is full"), written(path):
        raise SafetensorError("Error while serializing: No space left on device (os error 28)")
    assert not listing(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_what_is_no_file_or_folder_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path in (tmp_path / "pipe", tmp_path / "link", Path("."), Path("/")):
        with (
            pytest.raises(UserError, match=f"^{path} "),
            written(path),
        ):
            pass
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_fifo()


def test_a_folder_that_is_missing_or_read_only_is_named(tmp_path, monkeypatch):
    deep = tmp_path / "new" / "deep"
    require_writable(deep, makes_folders=True)
    with pytest.raises(UserError, match=str(tmp_path / "new")):
        require_writable(deep)
    # Root may write anywhere.
    monkeypatch.setattr(os, "access", lambda folder, mode: False)
    with pytest.raises(UserError, match=str(tmp_path)):
        require_writable(deep, makes_folders=True)
    assert listing(tmp_path) == []


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path):
    (tmp_path / "link").symlink_to("file")
    for text in ("first", "second"):
        with written(tmp_path / "link") as partial:
            partial.write_text(text)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == text


def test_what_a_killed_process_left_is_dropped(tmp_path):
    (tmp_path / ".names.partial").mkdir()
    (tmp_path / ".names.partial" / "half.txt").write_text("half")
    with written(tmp_path / "names") as partial:
        assert not partial.exists()
        partial.write_text("cold")
    assert listing(tmp_path) == ["names"]


@pytest.mark.skipif(os.name != "posix", reason="asks with a signal")
def test_of_processes_that_share_a_name_only_those_that_ended_lose_what_they_wrote(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = [f".names.{platform.node()}.{pid}.partial" for pid in (ended.pid, 1)]
    for name in (*left, f".names.other.{ended.pid}.partial"):
        (tmp_path / name).touch()
    with written(tmp_path / "names", shared=True) as partial:
        partial.write_text("cold")
    assert listing(tmp_path) == sorted([left[1], f".names.other.{ended.pid}.partial", "names"])


def test_fingerprints_follow_names_and_bytes(tmp_path):
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.txt").write_text("b")
    (folder / "sub" / "a.txt").write_text("a")
    first = fingerprint_path(folder)
    assert first == fingerprint_path(folder) and len(first) == 64
    os.utime(folder / "b.txt", (1, 1))
    assert fingerprint_path(folder) == first
    (folder / "b.txt").write_text("c")
    changed = fingerprint_path(folder)
    (folder / "b.txt").write_text("b")
    (folder / "b.txt").rename(folder / "c.txt")
    assert len({first, changed, fingerprint_path(folder)}) == 3
    with pytest.raises(UserError, match="gone does not exist"):
        fingerprint_path(tmp_path / "gone")
    (folder / "sub" / "b.txt").write_text("b")
    assert fingerprint_path(folder / "c.txt") == fingerprint_path(folder / "sub" / "b.txt")


def counted(monkeypatch):
    """Paths that were hashed."""
    read = []
    monkeypatch.setattr(
        hashes,
        "_add_bytes",
        lambda digest, path: read.append(path) or digest.update(path.read_bytes()),
    )
    return read


def test_what_did_not_change_is_not_hashed_again(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    cache = tmp_path / "cache"
    read = counted(monkeypatch)
    folder.mkdir()
    (folder / "a").write_text("old")
    os.utime(folder / "a", (1, 1))
    first = remembered(fingerprint_path, folder, cache)
    assert first == fingerprint_path(folder) and len(read) == 2
    assert remembered(fingerprint_path, folder, cache) == first and len(read) == 2
    (folder / "a").write_text("new")
    os.utime(folder / "a", (1, 1))
    changed = remembered(fingerprint_path, folder, cache)
    assert changed == fingerprint_path(folder) != first
    (folder / "a").rename(folder / "b")
    assert remembered(fingerprint_path, folder, cache) not in (first, changed)


def test_a_hash_is_not_remembered_of_a_file_that_changed_just_now(tmp_path, monkeypatch):
    read = counted(monkeypatch)
    (tmp_path / "a").write_text("a")
    for _ in range(2):
        remembered(file_sha256, tmp_path / "a", tmp_path / "cache")
    assert len(read) == 2


def test_broken_memory_of_a_hash_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("a")
    os.utime(tmp_path / "a", (1, 1))
    found = remembered(file_sha256, tmp_path / "a", tmp_path / "cache")
    (memory,) = (tmp_path / "cache" / "fingerprints").iterdir()
    for content in ("[]", "{", "null"):
        memory.write_text(content)
        assert remembered(file_sha256, tmp_path / "a", tmp_path / "cache") == found


def test_json_is_readable_text_and_strict(tmp_path):
    content = {
        "name": "Ménétrier",
        "values": [1, 0.5, None],
        "nested": {"nan": float("nan")},
        "pair": (1, 2),
    }
    write_json(tmp_path / "a.json", content)
    assert "Ménétrier" in (tmp_path / "a.json").read_text(encoding="utf-8")
    expected = content | {"nested": {"nan": None}, "pair": [1, 2]}
    assert (
        read_json(tmp_path / "a.json") == json.loads((tmp_path / "a.json").read_text()) == expected
    )
    assert listing(tmp_path) == ["a.json"]
    with pytest.raises(UserError, match="is a folder, not a file"):
        read_json(tmp_path)


# Locks


def test_what_the_workers_of_a_killed_process_hold_for_a_moment_is_waited_for(tmp_path):
    former = FileLock(tmp_path / "lock", thread_local=False).acquire()
    timer = threading.Timer(0.2, former.lock.release)
    timer.start()
    with hold(tmp_path / "lock", "refused"):
        assert not former.lock.is_locked
    timer.join()


def write(path, content):
    path.write_bytes(content)
    return path


def test_lines_are_numbered_plain_and_gzip(tmp_path):
    content = b"\xef\xbb\xbfone\r\ntwo\x0c\n\nlast"
    expected = [(1, b"one"), (2, b"two\x0c"), (3, b""), (4, b"last")]
    assert list(read_lines(write(tmp_path / "plain", content))) == expected
    assert list(read_lines(write(tmp_path / "packed", gzip.compress(content)))) == expected


def test_a_broken_file_of_lines_is_named(tmp_path):
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


# Progress bars: few states in a log, and none of short work


def test_a_bar_in_a_log_is_only_of_long_work(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with progress(total=3, desc="short", unit=" names") as bar:
        bar.update(3)
    assert log.getvalue() == ""
    monkeypatch.setattr(shown, "SECONDS_BETWEEN_LINES", 0.0)
    with progress(total=2, desc="long", unit=" names") as bar:
        bar.update(2)
    assert "long: 100%" in log.getvalue()
    monkeypatch.setenv("UMLS_RERANKER_PROGRESS", "0")
    before = log.getvalue()
    assert list(progress(range(2), desc="work")) == [0, 1] and log.getvalue() == before


def test_a_file_that_unpacks_to_more_than_any_table_is_refused_with_its_line(tmp_path):
    path = tmp_path / "names.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(b"id,name\n1,")
        for _ in range(LONGEST_LINE >> 20):
            stream.write(b"a" * (1 << 20))
    with pytest.raises(UserError, match="names.csv.gz:2: "):
        list(read_lines(path))
    with pytest.raises(UserError, match="names.csv.gz:2: "):
        read_name_rows(path)
    with path.open("rb") as stream, pytest.raises(UserError, match="names.csv.gz has more than"):
        read_whole(path, most=1 << 20)
    lines = bounded_lines(path, io.BytesIO(b"1\n2\n3\n4"), most=3)
    assert list(itertools.islice(lines, 3)) == [b"1\n", b"2\n", b"3\n"]
    with pytest.raises(UserError, match="names.csv.gz:4: "):
        next(lines)
    assert [*bounded_lines(path, io.StringIO("12\n345"), longest=3)] == ["12\n", "345"]


def test_texts_beyond_the_end_of_a_file_are_refused(tmp_path):
    file = tmp_path / "names.arrow"
    names = pa.table({"name": ["cold", "fever"]})
    with arrow_writer(file, names.schema) as writer:
        writer.write(names)
    offsets = np.array([0, 4, 9], np.int32)
    assert open_arrow(file) == names
    damaged = file.read_bytes().replace(offsets.tobytes(), (offsets * 10**8).tobytes())
    file.unlink()
    file.write_bytes(damaged)
    with pytest.raises(pa.ArrowInvalid):
        open_arrow(file)
