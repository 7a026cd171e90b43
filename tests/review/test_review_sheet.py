"""A queue under review: order, undo, and what is on disk after each click."""

import json

import pytest
from datasets import load_from_disk

from umls_reranker.core.errors import UserError
from umls_reranker.review.corrections import add_feedback
from umls_reranker.review.review_sheet import ReviewSheet


def line(entity):
    ranked = {"name": "A", "cui": "C0000001", "score": 0.4, "margin": 0.1, "logit": 0.0, "tier": "low"}
    candidates = [{"name": "A", "cui": "C0000001"}, {"name": "B", "cui": "C0000002"}]
    return {
        "reason": "random draw",
        "entity": entity,
        "candidates": candidates,
        "ranked": [ranked | {"accepted": False}],
    }


@pytest.fixture
def queue(tmp_path):
    path = tmp_path / "to_review.jsonl"
    path.write_text("".join(json.dumps(line(entity)) + "\n" for entity in ("a", "b", "c")), encoding="utf-8")
    return path


@pytest.fixture
def reviewed(tmp_path):
    return tmp_path / "reviewed.jsonl"


def choices(reviewed):
    rows = map(json.loads, reviewed.read_text(encoding="utf-8").splitlines())
    return [(row["entity"], row["chosen"]) for row in rows]


def test_every_choice_is_a_line_that_add_feedback_takes(queue, reviewed, tmp_path):
    sheet = ReviewSheet(queue, reviewed)
    sheet.choose(0, "C0000002")
    assert choices(reviewed) == [("a", "C0000002")]
    sheet.choose(1, None)
    sheet.choose(2, " C0000009 ")
    assert sheet.position is None and sheet.chosen == {0: "C0000002", 1: None, 2: "C0000009"}
    assert json.loads(reviewed.read_text().splitlines()[0]) == line("a") | {"chosen": "C0000002"}
    assert add_feedback(tmp_path / "corrections", [reviewed])["added"] == 3
    assert load_from_disk(str(tmp_path / "corrections"))["chosen"][:] == ["C0000002", None, "C0000009"]


@pytest.mark.parametrize("choice", ["\ud800", " C1\udfff"])
def test_a_choice_that_is_no_text_is_refused(queue, reviewed, choice):
    sheet = ReviewSheet(queue, reviewed)
    with pytest.raises(ValueError, match="chosen must be a candidate or a CUI"):
        sheet.choose(0, choice)
    assert sheet.position == 0 and not reviewed.exists()


def test_a_choice_that_add_feedback_would_refuse_is_refused(queue, reviewed):
    sheet = ReviewSheet(queue, reviewed)
    with pytest.raises(ValueError, match="chosen must be a candidate or a CUI"):
        sheet.choose(0, "none")
    assert sheet.position == 0 and not reviewed.exists()


def test_skipped_mentions_come_last(queue, reviewed):
    sheet = ReviewSheet(queue, reviewed)
    sheet.skip(0)
    assert (sheet.position, sheet.skipped) == (1, 1)
    sheet.choose(1, None)
    sheet.choose(2, None)
    assert (sheet.position, sheet.skipped) == (0, 1)
    sheet.choose(0, None)
    assert (sheet.position, sheet.skipped) == (None, 0)


def test_undo_takes_back_choices_and_skips_in_turn(queue, reviewed):
    sheet = ReviewSheet(queue, reviewed)
    sheet.choose(0, "C0000001")
    sheet.skip(1)
    sheet.choose(2, None)
    sheet.undo()
    assert (sheet.position, choices(reviewed)) == (2, [("a", "C0000001")])
    sheet.undo()
    assert (sheet.position, sheet.skipped) == (1, 0)
    sheet.undo()
    assert (sheet.position, choices(reviewed), sheet.can_undo) == (0, [], False)
    sheet.undo()
    assert sheet.position == 0
    sheet.choose(0, None)
    assert choices(reviewed) == [("a", None)]


def test_a_click_for_what_is_no_longer_shown_does_nothing(queue, reviewed):
    sheet = ReviewSheet(queue, reviewed)
    sheet.choose(0, "C0000001")
    sheet.choose(0, "C0000002")
    sheet.skip(0)
    assert (sheet.position, choices(reviewed)) == (1, [("a", "C0000001")])


def test_a_blank_choice_is_refused(queue, reviewed):
    sheet = ReviewSheet(queue, reviewed)
    with pytest.raises(ValueError, match="type a CUI"):
        sheet.choose(0, " ")
    assert sheet.position == 0 and not reviewed.exists()


def test_a_sheet_resumes_and_drops_half_a_line(queue, reviewed):
    sheet = ReviewSheet(queue, reviewed)
    sheet.choose(0, "C0000001")
    sheet.skip(1)
    sheet.choose(2, None)
    with reviewed.open("a") as file:
        file.write('{"entity": "b", "can')
    again = ReviewSheet(queue, reviewed)
    assert (again.position, again.chosen) == (1, {0: "C0000001", 2: None})
    again.undo()
    assert (again.position, choices(reviewed)) == (2, [("a", "C0000001")])
    again.choose(2, "C0000002")
    assert choices(reviewed) == [("a", "C0000001"), ("c", "C0000002")]


def test_lines_of_another_queue_stay(queue, reviewed):
    other = json.dumps(line("elsewhere") | {"chosen": None}) + "\n"
    reviewed.write_text(json.dumps(line("a") | {"chosen": "C0000001"}) + "\n" + other)
    sheet = ReviewSheet(queue, reviewed)
    assert (sheet.position, sheet.can_undo) == (1, False)
    sheet.choose(1, None)
    sheet.undo()
    assert choices(reviewed) == [("a", "C0000001"), ("elsewhere", None)]


def test_an_empty_queue_is_refused(tmp_path, reviewed):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="contains no mentions to review; umls-reranker select_for_review"):
        ReviewSheet(tmp_path / "empty.jsonl", reviewed)


def test_a_last_line_without_its_end_is_kept(queue, reviewed):
    reviewed.write_text(json.dumps(line("a") | {"chosen": "C0000001"}), encoding="utf-8")
    sheet = ReviewSheet(queue, reviewed)
    assert (sheet.position, sheet.chosen) == (1, {0: "C0000001"})
    sheet.choose(1, None)
    assert choices(reviewed) == [("a", "C0000001"), ("b", None)]


@pytest.mark.parametrize("blank", ["\n", " \n\n"])
def test_undo_takes_back_its_own_line_where_there_are_blank_ones(queue, reviewed, blank):
    rows = [json.dumps(line(entity) | {"chosen": None}) + "\n" for entity in "abc"]
    reviewed.write_text(blank + blank.join(rows), encoding="utf-8")
    sheet = ReviewSheet(queue, reviewed)
    sheet.undo()
    assert sheet.chosen == ReviewSheet(queue, reviewed).chosen == {0: None, 1: None}
