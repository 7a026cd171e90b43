"""The demo on a finished run: its index, a queue of its own, and a recalibration by what was reviewed."""

import json

import pytest
from pipeline_fixtures import contents

from umls_reranker.core.errors import UserError
from umls_reranker.core.files import read_json
from umls_reranker.review.corrections import load_feedback
from umls_reranker.review.demo import Demo, act, make_queue
from umls_reranker.review.demo_recalibration import recalibrate
from umls_reranker.review.questions import Question
from umls_reranker.review.review_sheet import ReviewSheet

pytest_plugins = ["pipeline_fixtures"]
pytestmark = pytest.mark.extra


def test_a_run_is_tried_reviewed_and_recalibrated(finished, tmp_path):
    demo = Demo.open(str(finished.folder), device="cpu")
    shown = demo.answer(Question("She had renal failure.", "renal failure", ["T047"], "not read"))
    assert "<mark>renal failure</mark>" in shown and "not read" not in shown
    assert "Inputs used: mention, names" in shown
    queue = tmp_path / "queue.jsonl"
    make_queue(demo.linker, demo.run, queue)
    row = json.loads(queue.read_text(encoding="utf-8").splitlines()[0])
    expected = {"reason", "entity", "left", "right", "candidates", "entity_type", "doc_id", "mention_id", "ranked"}
    assert {*row} == expected | {"index_key"} and row["index_key"] == demo.linker.retriever.index_key
    sheet = ReviewSheet(queue, tmp_path / "reviewed.jsonl")
    with pytest.raises(UserError, match="nothing has been reviewed yet"):
        recalibrate(demo, sheet)
    while sheet.position is not None:
        act(sheet, sheet.position, "0" if sheet.mentions[sheet.position].row["ranked"] else "none")
    before = contents(finished.folder)
    compared = recalibrate(demo, sheet)
    assert contents(finished.folder) == before
    new = finished.folder.with_name(f"{finished.folder.name}-reviewed") / "model"
    used = read_json(new / "calibrator.json")["fitted_on"]["corrections"]["used"]
    assert f"{used} corrections were used" in compared and used > 0
    # What was chosen is what the model had ranked first.
    count = len(sheet.mentions)
    assert f"<td>{count}</td><td>{count}</td>" in compared
    # What is undone takes no part any more.
    sheet.undo()
    recalibrate(demo, sheet)
    assert len(load_feedback(sheet.reviewed.with_suffix(".corrections"))) == count - 1
