import gzip

import pytest

from umls_reranker.core.errors import UserError
from umls_reranker.data.release import find_release_file, read_release


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def touch(folder, *names):
    for name in names:
        (folder / name).touch()


def found(folder, name="MRREL.RRF"):
    return [path.name for path in find_release_file(folder, name)]


def test_a_file_is_found_whole_gzip_or_in_parts(tmp_path):
    assert found(tmp_path) == []
    touch(tmp_path, "MRREL.RRF.ab.gz", "MRREL.RRF.aa.gz", "MRREL.RRF.ac", "MRREL.RRF.bak", "MRREL.RRF.aa.gz.md5")
    touch(tmp_path, "MRRELX.RRF.ad")
    assert found(tmp_path) == ["MRREL.RRF.aa.gz", "MRREL.RRF.ab.gz", "MRREL.RRF.ac"]
    touch(tmp_path, "MRREL.RRF.ab")
    assert found(tmp_path) == ["MRREL.RRF.aa.gz", "MRREL.RRF.ab", "MRREL.RRF.ac"]
    touch(tmp_path, "MRREL.RRF.gz")
    assert found(tmp_path) == ["MRREL.RRF.gz"]
    touch(tmp_path, "MRREL.RRF")
    assert found(tmp_path) == ["MRREL.RRF"]


def test_parts_go_on_after_z(tmp_path):
    names = [f"MRREL.RRF.{first}{second}" for first in "ab" for second in "abcdefghijklmnopqrstuvwxyz"][:30]
    touch(tmp_path, *names)
    assert found(tmp_path) == names


@pytest.mark.parametrize(("there", "missing"), [("ac ab", "aa"), ("aa ac", "ab")])
def test_a_missing_part_is_named(tmp_path, there, missing):
    touch(tmp_path, *(f"MRREL.RRF.{part}.gz" for part in there.split()))
    with pytest.raises(UserError, match=f"MRREL.RRF is split into files, but MRREL.RRF.{missing} is missing; add it"):
        found(tmp_path)


def source(name, version, *, imeta="2016AB", level=0, language="ENG", current="Y", in_subset="Y"):
    fields = {2: version, 3: name, 9: imeta, 13: level, 19: language, 21: current, 22: in_subset}
    return "".join(f"{fields.get(place, '')}|" for place in range(25))


SOURCES = (
    source("MSH", "MSH2017_2016_08_18", imeta="2017AA"),
    source("SNOMEDCT_US", "SNOMEDCT_US_2016_09_01", level=9),
    source("MSHGER", "MSHGER2017", level=3, language="GER"),
    source("MSH", "MSH2016_2015_08_31", imeta="2016AA", current="N"),
    source("CPT", "CPT2017", level=3, imeta="2019AA", in_subset="N"),
)


def test_the_release_and_its_sources(tmp_path):
    files = {"MRSAB": (write(tmp_path / "MRSAB.RRF", *SOURCES),)}
    release = read_release(files, languages=["ENG"])
    assert release == {
        "name": "2017AA",
        "name_from": "MRSAB",
        "sources": [
            {"source": "MSH", "version": "MSH2017_2016_08_18", "language": "ENG", "restriction_level": 0},
            {"source": "SNOMEDCT_US", "version": "SNOMEDCT_US_2016_09_01", "language": "ENG", "restriction_level": 9},
        ],
        "highest_restriction_level": 9,
        "skipped": 0,
        "reasons": {},
    }
    kept = read_release(files, languages=["ENG", "GER"], sources=["MSH", "MSHGER"])
    assert [kept["highest_restriction_level"], *(one["source"] for one in kept["sources"])] == [3, "MSH", "MSHGER"]


def test_the_release_says_its_own_name(tmp_path):
    files = {"MRSAB": (write(tmp_path / "MRSAB.RRF", *SOURCES),)}
    files["MRDOC"] = (
        write(tmp_path / "MRDOC.RRF", "REL|PAR|expanded_form|parent|", "RELEASE|umls.release.name|x|2020AB|"),
    )
    assert {k: read_release(files)[k] for k in ("name", "name_from")} == {"name": "2020AB", "name_from": "MRDOC"}
    files["release.dat"] = (
        write(tmp_path / "release.dat", "# x", "umls.release.date=20210503", "umls.release.name=2021AA"),
    )
    release = read_release(files)
    assert (release["name"], release["name_from"], release["date"]) == ("2021AA", "release.dat", "20210503")
    assert read_release({}) == {"name": None, "name_from": None, "skipped": 0, "reasons": {}}


def test_a_malformed_line_is_named_or_skipped(tmp_path):
    path = tmp_path / "MRSAB.RRF.gz"
    path.write_bytes(gzip.compress(f"{SOURCES[0]}\n{SOURCES[1]}extra|\n{SOURCES[2]}\n".encode()))
    with pytest.raises(UserError, match="MRSAB.RRF.gz:2: expected 25 fields, found 26"):
        read_release({"MRSAB": (path,)})
    release = read_release({"MRSAB": (path,)}, on_error="skip")
    assert [one["source"] for one in release["sources"]] == ["MSH", "MSHGER"]
    assert (release["skipped"], release["reasons"]) == (1, {"expected 25 fields": 1})
