"""Looks, studies and the ledger."""

import json
from pathlib import Path

import numpy as np
import pytest

from umls_reranker import Study, UserError, certify
from umls_reranker.calibration.ledger import Ledger
from umls_reranker.calibration.looks import Look, expected_coverage, later_share, planned_looks
from umls_reranker.calibration.study import NO_HISTORY, LookResult, StudyHistory, document_hash

POOL = [f"note {number}" for number in range(400)]
PLACE = Path("x.study.json")


def numbers(looks):
    return [look.documents for look in looks]


def test_a_plan_spends_the_error_probability_once():
    looks = planned_looks()
    assert numbers(looks) == [95, 135, 180, 360]
    assert [look.share for look in looks] == [0.2, 0.2, 0.4, 0.2]
    for target, confidence in ((0.9, 0.95), (0.99, 0.95), (0.95, 0.9)):
        others = planned_looks(target, confidence)
        assert sum(look.share for look in others) == pytest.approx(1.0)
        assert numbers(others) == sorted({*numbers(others)})
    assert numbers(planned_looks(0.9)) < numbers(looks) < numbers(planned_looks(0.99))
    assert numbers(planned_looks(tier_coverage=0.5)) == [190, 270, 360, 720]


def test_sizes_of_the_pool_move_the_looks_and_equal_ones_do_not():
    assert planned_looks(sizes=[7] * 500) == planned_looks()
    mixed = planned_looks(sizes=[10] * 450 + [30] * 50)
    assert all(np.greater(numbers(mixed), numbers(planned_looks())))
    assert numbers(mixed) == sorted({*numbers(mixed)})


def test_later_studies_together_add_a_tenth():
    shares = [later_share(attempt) for attempt in range(1, 60)]
    assert shares[:3] == [1.0, 0.05, 0.025] and sum(shares) == pytest.approx(1.1)
    assert later_share(5_000) > 0


def test_the_coverage_that_scores_expect():
    scores = np.array([0.99, np.nan, 0.93, 0.5])
    assert expected_coverage(scores, 0.95) == pytest.approx(0.5)
    assert expected_coverage(scores, 0.999) == expected_coverage(np.array([]), 0.9) == 0


def test_an_order_is_drawn_by_seed_and_kept_as_hashes(tmp_path):
    study, order = Study.draw([*POOL, "note 7"])
    again, same = Study.draw([*POOL, "note 7"])
    assert (study, order) == (again, same) and sorted(order) == sorted(POOL)
    assert Study.draw(POOL, seed=14)[1] != order
    assert study.documents[:2] == tuple(map(document_hash, order[:2]))
    assert sorted({*study.mentions}) == [1, 2] and len(study.documents) == study.looks[-1].documents
    study.save(tmp_path / "s.json")
    assert Study.load(tmp_path / "s.json") == study
    assert "note" not in (tmp_path / "s.json").read_text()
    assert numbers(Study.draw(POOL[:140])[0].looks) == [95, 135]
    assert Study.draw(POOL, looks=200)[0].looks == (Look(200, 1.0),)
    for looks in (0, 401):
        with pytest.raises(UserError, match="looks"):
            Study.draw(POOL, looks=looks)


def test_a_blank_holds_the_look_up():
    study, order = Study.draw(POOL)
    labelled = dict.fromkeys(map(document_hash, order), 1)
    assert study.answered(labelled) == 360
    del labelled[document_hash(order[100])]
    assert study.answered(labelled) == 100
    assert [study.look_at(count) for count in (94, 95, 134, 135, 360)] == [None, 0, 0, 1, 3]


def test_what_was_found_stays():
    study, _ = Study.draw(POOL)
    refused = study.with_result(0, LookResult(is_certified=False))
    assert refused.with_result(0, LookResult(is_certified=True)) == refused
    assert study.joined(refused).results == refused.results
    with_index = study.with_system({"index": "a"})
    assert with_index.id == study.id and with_index.with_system({"index": "b"}) == with_index
    assert with_index.changes({"index": "b", "seed": 13}) == ["index"]
    assert with_index.changes({"index": "a"}) == study.changes({"index": "a"}) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("looks"),
        lambda state: state.update(mentions=[1]),
        lambda state: state.update(target="high"),
        lambda state: state.update(results={"9": {"is_certified": True}}),
        lambda state: state.update(schema_version=2),
        lambda state: state.update(looks=[{"documents": 3}]),
    ],
)
def test_a_damaged_study_is_refused_with_its_file(tmp_path, change):
    path = tmp_path / "sheet.study.json"
    state = json.loads(json.dumps(Study.draw(POOL)[0].to_dict()))
    change(state)
    path.write_text(json.dumps(state))
    with pytest.raises(UserError, match="sheet.study.json"):
        Study.load(path)


def test_a_history_is_read_as_it_was_written():
    study = Study.draw(POOL)[0].with_result(0, LookResult(True, "c", "certified"))
    history = NO_HISTORY.after(["PMID 26316050", 3]).with_study(study)
    state = json.loads(json.dumps(history.to_dict()))
    assert StudyHistory.from_dict(state, PLACE) == history
    assert history.is_new([3, "4"]).tolist() == [False, True]
    assert len(history.with_study(study.with_system({"seed": 1})).studies) == 1
    for broken in ({}, {"documents": [], "studies": 3}, {"certificates": 3}):
        with pytest.raises(UserError, match="x.study.json"):
            StudyHistory.from_dict(broken, PLACE)


def test_certificates_of_models_before_studies_are_spent_looks():
    state = {"certificates": [["a1", "b2"], ["c3"], []]}
    history = StudyHistory.from_dict(state, PLACE)
    assert history.documents == {"a1", "b2", "c3"}
    assert [study.attempt for study in history.studies] == [1, 2]
    assert all(0 in study.results for study in history.studies)


def test_the_ledger_knows_the_study_of_labelled_mentions(tmp_path):
    ledger = Ledger(tmp_path / "studies")
    study, order = Study.draw(POOL)
    assert not list(ledger.studies_of({"m": "d"}))
    ledger.add(study, {"m1": "d1", "m2": "d2"})
    ledger.add(study.with_result(0, LookResult(is_certified=False)), {"m3": "d3"})
    (known,) = ledger.studies_of({"m1": "d1", "m3": "d3", "m9": "d9"})
    assert known.documents == {"d1", "d3"} and [*known.study.results] == [0]
    (tmp_path / "studies" / "damaged.json").write_text("[")
    assert len(list(ledger.studies_of({"m2": "d2"}))) == 1
    (tmp_path / "file").touch()
    assert Ledger(tmp_path / "file").add(study, {}) and Ledger(None).add(study, {})


def answers(order, count, wrong=0):
    return [0.97] * count, [number >= wrong for number in range(count)], order[:count]


def test_scores_are_tested_when_a_look_is_due():
    study, order = Study.draw(POOL)
    before = certify(*answers(order, 94), study=study)
    assert not before.is_tested and before.study == study and before.threshold is None
    # One error is too much for the first look; the next is at 135.
    refused = certify(*answers(order, 95, wrong=1), study=study)
    assert refused.threshold is None and not refused.study.results[0].is_certified
    between = certify(*answers(order, 134), study=refused.study)
    assert not between.is_tested and between.study == refused.study
    granted = certify(*answers(order, 140, wrong=1), study=refused.study)
    assert granted.threshold is not None and granted.study.results[1].is_certified
    # The first 135 alone, whatever came later.
    later = [0.97] * 140, [number < 138 and number > 0 for number in range(140)], order[:140]
    assert certify(*later, study=refused.study).threshold == granted.threshold


def test_a_spent_look_is_not_tried_with_other_labels():
    study, order = Study.draw(POOL)
    refused = certify(*answers(order, 95, wrong=1), study=study)
    changed = certify(*answers(order, 95), study=refused.study)
    assert not changed.is_tested and changed.study == refused.study
    assert certify(*answers(order, 95, wrong=1), study=refused.study) == refused


def test_another_target_is_another_study():
    study, order = Study.draw(POOL)
    with pytest.raises(UserError, match="target_precision 0.95"):
        certify(*answers(order, 95), 0.9, study=study)
