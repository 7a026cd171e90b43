"""`candidates --sample`: the sheet's name says what was drawn, and what is no sample is refused."""

import csv

import pytest
from list_model import run_script

from umls_reranker import UMLSReranker
from umls_reranker.core.errors import UserError

TERMS = 6
KINDS = ("fracture", "tumour", "infection", "pain", "burn", "abscess", "injury", "swelling")
PLACES = ("hand", "foot", "skull", "liver", "lung", "knee", "hip", "spine", "jaw", "wrist", "eye")


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


def test_a_sheet_with_blank_cells_certifies(tmp_path, monkeypatch):
    """One blank term of the hospital's file, and one line that the reviewer left open."""
    monkeypatch.chdir(tmp_path)
    words = [f"{kind} of the {place}" for kind in KINDS for place in PLACES]
    names = [f"X:{number},{name}" for number, name in enumerate(words)]
    (tmp_path / "names.csv").write_text("\n".join(["id,name", *names]))
    golds = {name: f"X:{number}" for number, name in enumerate(words)}
    unknown = [f"see note {number}" for number in range(30)]
    terms = ["", *words, *unknown]
    lines = [f"L{number},{term}" for number, term in enumerate(terms)]
    (tmp_path / "terms.csv").write_text("\n".join(["source_code,mention", *lines]))
    own = "--each_row_is_a_document"
    run_script("index", "names.csv", "made")
    run_script("candidates", "made", "terms.csv", "sheet.csv", own, "--sample", len(terms) - 1)
    (sheet,) = tmp_path.glob("sheet.*.csv")
    with sheet.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row["gold_cui"] = golds.get(row["mention"], "CUI-less")
    left_open = next(row for row in rows if row["mention"] in golds)
    left_open["gold_cui"] = ""
    with sheet.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    lists = sheet.with_suffix(".lists.jsonl")
    given = ["--lists", lists, "--answers", sheet, own, "--target_precision", "0.9"]
    with pytest.warns(UserWarning, match="1 drawn rows before the last"):
        run_script("calibrate", "built-in-fast", *given, "--output", "model")
    certificate = UMLSReranker.from_pretrained(tmp_path / "model").thresholds.certificate
    assert certificate.threshold is not None and certificate.labelled == len(rows)
