"""Looks at labelled lists: what is tested, spent and kept, by the commands that people call."""

import csv
import json

import pytest
from list_fixtures import write_lists
from list_model import run_script, unordered_rows

from umls_reranker import Study, UMLSReranker, UserError, calibrate
from umls_reranker.calibration.study import document_hash


def flawless_rows(documents, prefix="d"):
    """Rows of documents of three mentions whose highest score is always right."""
    rows = unordered_rows(3 * documents, documents, prefix=prefix)
    for number, row in enumerate(rows):
        row["cui"] = max(row["candidates"], key=lambda item: item["bm25_score"])["cui"]
        row["mention_id"] = str(number)
        row["entity"] += f" {number}"
    return rows


ROWS = flawless_rows(150)


@pytest.fixture
def sheet(tmp_path):
    """Lists whose study was drawn before labels; returns them, and the documents in its order."""
    study, order = Study.draw([row["doc_id"] for row in ROWS])
    study.save(tmp_path / "sheet.study.json")
    return tmp_path / "sheet.jsonl", order


def labelled(path, order, count, change=lambda row: row):
    """Write the lists of the first documents of the order."""
    documents = {*order[:count]}
    return write_lists(path, [change(row) for row in ROWS if row["doc_id"] in documents])


def calibrated(capsys, lists, output, *words):
    """The output of the command, and the model's state."""
    run_script("calibrate", "--lists", lists, "--output", output, *words)
    said = capsys.readouterr().out
    return said, UMLSReranker.from_pretrained(output)


def test_nothing_is_spent_before_the_first_look(tmp_path, capsys, sheet):
    path, order = sheet
    for count in (60, 90):
        lists = labelled(path, order, count)
        said, model = calibrated(capsys, lists, tmp_path / f"m{count}")
        assert said.startswith(f"look 1 of 2: {count} of 95 documents, {95 - count} to go")
        assert "nothing spent" in said and not model.thresholds.is_certified
        (study,) = model.calibration.history.studies
        assert study.results == {} and len(study.looks) == 2
    said, model = calibrated(capsys, labelled(path, order, 120), tmp_path / "m120")
    assert said.startswith("look 1 of 2, at 1%") and "25 further documents" in said
    assert model.thresholds.is_certified
    assert len(model.calibration.history.documents) == 95
    assert Study.load(tmp_path / "sheet.study.json").results[0].is_certified


def test_a_spent_look_gives_the_stored_result(tmp_path, capsys, sheet):
    path, order = sheet
    wrong = {*order[:95:3]}

    def spoiled(row):
        is_wrong = row["doc_id"] in wrong
        return row | {"cui": row["candidates"][0]["cui"]} if is_wrong else row

    said, model = calibrated(capsys, labelled(path, order, 95, spoiled), tmp_path / "m1")
    assert "not certified" in said and "spent; next at 135 documents" in said
    # With better labels, from a model made anew, and without the study's file.
    for place in (path, tmp_path / "copy.jsonl"):
        lists = labelled(place, order, 100)
        said, model = calibrated(capsys, lists, tmp_path / f"again_{place.stem}")
        assert said.startswith("look 1 of 2: not certified") and "35 to go" in said
        assert not model.thresholds.is_certified and "at 1%" not in said
    # The next look is free to succeed, also from the model before.
    lists = labelled(path, order, 135)
    run_script("calibrate", tmp_path / "m1", "--lists", lists, "--output", tmp_path / "m2")
    assert "look 2 of 2, at 1%: certified" in capsys.readouterr().out


def test_a_granted_look_is_repeated_as_it_was(tmp_path, capsys, sheet):
    path, order = sheet
    _, first = calibrated(capsys, labelled(path, order, 95), tmp_path / "m1")
    said, again = calibrated(capsys, labelled(path, order, 110), tmp_path / "m2")
    assert said.startswith("look 1 of 2 again")
    assert again.calibration.to_dict()["models"] == first.calibration.to_dict()["models"]
    # A label that was changed since is of another model.
    changed = labelled(path, order, 95, lambda row: row | {"cui": row["candidates"][0]["cui"]})
    said, other = calibrated(capsys, changed, tmp_path / "m3")
    assert "nothing is tested" in said and not other.thresholds.is_certified


def test_a_row_that_is_left_out_holds_the_look_up(tmp_path, capsys, sheet):
    path, order = sheet
    rows = [row for row in ROWS if row["doc_id"] in {*order[:120]}]
    rows.remove(next(row for row in rows if row["doc_id"] == order[50]))
    said, _ = calibrated(capsys, write_lists(path, rows), tmp_path / "m")
    assert said.startswith("look 1 of 2: 50 of 95 documents, 45 to go")


def test_a_changed_system_is_a_new_study(tmp_path, capsys, sheet):
    path, order = sheet
    calibrated(capsys, labelled(path, order, 60), tmp_path / "m1")
    changes = {
        "calibrator": ("--calibrator", "platt"),
        "target_precision": ("--target_precision", "0.9"),
        "seed": ("--seed", "14"),
    }
    for name, words in changes.items():
        said, model = calibrated(capsys, labelled(path, order, 120), tmp_path / name, *words)
        assert f"was for another {name}" in said and "nothing spent" in said
        assert not model.thresholds.is_certified
    with_index = labelled(path, order, 120, lambda row: row | {"index_key": "another"})
    said, _ = calibrated(capsys, with_index, tmp_path / "index")
    assert "was for another index" in said
    # Known documents train, and 30 new ones are too few for a level of 0.25 %.
    words = ("--calibrator", "platt", "--new_study")
    said, model = calibrated(capsys, labelled(path, order, 150), tmp_path / "new", *words)
    assert "30 documents are fewer than 118" in said and not model.thresholds.is_certified
    with pytest.raises(UserError, match="no study knows these documents"):
        lists = write_lists(tmp_path / "other.jsonl", flawless_rows(30, "other"))
        calibrated(capsys, lists, tmp_path / "none", "--new_study")


def test_a_new_study_certifies_with_new_documents_at_a_smaller_level(tmp_path, capsys):
    first = write_lists(tmp_path / "a.jsonl", flawless_rows(60, "a"))
    both = write_lists(tmp_path / "b.jsonl", [*flawless_rows(60, "a"), *flawless_rows(125, "b")])
    calibrated(capsys, first, tmp_path / "m1")
    words = ("--calibrator", "platt")
    said, model = calibrated(capsys, both, tmp_path / "m2", *words)
    assert "nothing is tested" in said and not model.thresholds.is_certified
    said, model = calibrated(capsys, both, tmp_path / "m3", *words, "--new_study")
    assert said.startswith("look 1 of 1, at 0.25%: it tests 125 documents")
    assert model.thresholds.is_certified
    certified_by = json.loads((tmp_path / "m3" / "calibrator.json").read_text())["fitted_on"]
    assert certified_by["certified_by"] == {"share": 0.05, "documents": 125, "mentions": 375}
    assert certified_by["documents"] == 185


def test_lists_without_a_study_have_one_look(tmp_path, capsys):
    few = write_lists(tmp_path / "few.jsonl", flawless_rows(40))
    said, model = calibrated(capsys, few, tmp_path / "m40")
    assert "40 documents are fewer than 59" in said and "nothing spent" in said
    assert model.calibration.history.studies == ()
    # Documents that no look was spent on may still be tested.
    more = write_lists(tmp_path / "more.jsonl", flawless_rows(70))
    said, model = calibrated(capsys, more, tmp_path / "none", "--no_look")
    assert "is due, and not taken" in said and not model.thresholds.is_certified
    run_script("calibrate", tmp_path / "m40", "--lists", more, "--output", tmp_path / "m70")
    said = capsys.readouterr().out
    assert said.startswith("look 1 of 1, at 5%") and "candidates --sample" in said.split("\n")[0]
    assert UMLSReranker.from_pretrained(tmp_path / "m70").thresholds.is_certified
    # With further documents, who begins anew goes on with the look that is spent.
    most = write_lists(tmp_path / "most.jsonl", flawless_rows(100))
    said, _ = calibrated(capsys, most, tmp_path / "m100", "--calibrator", "platt")
    assert "was for another" in said and "nothing is tested" in said


def test_rows_of_a_program_go_the_same_road():
    rows = flawless_rows(70)
    assert calibrate(rows).thresholds.is_certified
    lower = calibrate(rows, target_precision=0.9)
    assert not lower.thresholds.is_certified and lower.thresholds.certificate is None
    assert calibrate(rows).thresholds.is_certified


def test_copies_count_as_one_document(tmp_path, capsys):
    rows = flawless_rows(50)
    copies = [row | {"doc_id": f"copy of {row['doc_id']}"} for row in rows]
    both = write_lists(tmp_path / "own.jsonl", rows + copies)
    said, _ = calibrated(capsys, both, tmp_path / "m")
    assert "50 documents are fewer than 59" in said


def test_two_studies_are_not_mixed(tmp_path):
    for number in (1, 2):
        Study.draw(range(100 * number))[0].save(tmp_path / f"s{number}.study.json")
        write_lists(tmp_path / f"s{number}.lists.jsonl", ROWS)
    words = ("--lists", tmp_path / "s1.lists.jsonl", "--add", tmp_path / "s2.lists.jsonl")
    with pytest.raises(UserError, match=r"s1.study.json and .*s2.study.json"):
        run_script("calibrate", *words, "--output", tmp_path / "m")


def test_a_sample_for_review_has_a_study(tmp_path, capsys):
    rows = [
        row | {"ranked": [{"cui": "C1", "name": "x", "score": 0.97, "margin": 0.5, "tier": "low"}]}
        for row in ROWS
    ]
    predictions = write_lists(tmp_path / "predictions.jsonl", rows)
    sheet = tmp_path / "review.csv"
    run_script("select_for_review", predictions, sheet, "--count", 330, "--random_share", 1)
    assert "look 1 of 2 at 95 documents, then at 135" in capsys.readouterr().out
    study = Study.load(tmp_path / "review.study.json")
    lines = list(csv.DictReader(sheet.open()))
    documents = list(dict.fromkeys(line["doc_id"] for line in lines))
    assert len(lines) == 330 and len(documents) == 110
    assert [document_hash(name) for name in documents] == [*study.documents[:110]]
    assert {*study.mentions} == {3}
