"""`candidates --sample`: the sheet's name says what was drawn, and what is no sample is refused."""

import pytest
from list_model import run_script

from umls_reranker.core.errors import UserError

TERMS = 6


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs `candidates` in a folder with the index ``made`` and ``terms.csv``."""
    monkeypatch.chdir(tmp_path)
    names = [f"X:{number},finding {number}" for number in range(TERMS)]
    (tmp_path / "names.csv").write_text("\n".join(["id,name", *names]))
    terms = [f"L{number},finding {number}" for number in range(TERMS)]
    (tmp_path / "terms.csv").write_text("\n".join(["source_code,mention", *terms]))
    run_script("index", "names.csv", "made")
    words = ("candidates", "made", "terms.csv", "sheet.csv", "--each_row_is_a_document")
    return lambda *options: run_script(*words, *options)


def drawn(path):
    lines = path.read_text().splitlines()
    place = lines[0].split(",").index("source_code")
    return [line.split(",")[place] for line in lines[1:]]


def test_the_rest_is_drawn_later_without_the_first(command, tmp_path):
    assert command("--sample", "2", "--seed", "5") == 0
    assert command("--sample", "3-6", "--seed", "5") == 0
    first, rest = (
        drawn(tmp_path / f"sheet.sample_{numbers}_seed_5.csv") for numbers in ("1-2", "3-6")
    )
    assert (len(first), len(rest)) == (2, 4)
    assert sorted(first + rest) == [f"L{number}" for number in range(TERMS)]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--sample", "some"), "--sample"),
        (("--sample", "0"), "--sample"),
    ],
)
def test_what_is_no_sample_is_refused(command, options, named):
    with pytest.raises(UserError, match=named):
        command(*options)


def test_a_folder_that_is_no_index_is_named_as_one(command, tmp_path):
    (tmp_path / "made" / "index.json").unlink()
    (tmp_path / "made" / "concepts" / "concepts.arrow").unlink()
    with pytest.raises(UserError, match=r"made.*index\.json"):
        command()
