"""Which mentions are most worth a person's minute."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_reranker import fit_thresholds

from umls_reranker.calibration.thresholds import DEFAULT, ThresholdTable, thresholds_content
from umls_reranker.review import review_queue
from umls_reranker.review.review_queue import (
    RANDOM,
    Reasons,
    judge_of,
    reasons_of,
    select_for_review,
    write_queue,
)
from umls_reranker.serving.monitoring.figures import Top
from umls_reranker.serving.monitoring.reference import Reference
from umls_reranker.serving.prediction_log import LoggedMention

NEAR, DISAGREE, RARE = "near the threshold", "rankings disagree", "rare type"


def logged(entity="cold", score=0.5, logits=(2.0, 1.0), retrieval=(0.9, 0.8), types=("T047",), document=None):
    """Two candidates, A ranked first."""
    candidates = [{"name": "A", "cui": "C1", "retrieval_score": retrieval[0]}]
    candidates += [{"name": "B", "cui": "C2", "retrieval_score": retrieval[1]}]
    ranked = [{"name": n, "cui": c, "logit": logit} for n, c, logit in zip("AB", ("C1", "C2"), logits, strict=True)]
    row = {"entity": entity, "candidates": candidates, "ranked": ranked, "doc_id": document}
    return LoggedMention(row, list(types), Top(score, score, "medium", True))


def test_a_score_at_the_threshold_is_worth_most():
    values = [reasons_of(logged(score=score), 0.5, 1.0).values[NEAR] for score in (0.5, 0.6, 0.4, 0.9, 1.0)]
    assert values[0] == 1.0 and values[1] == pytest.approx(values[2]) and values[1] > values[3] > values[4] >= 0


def test_disagreement_of_cross_encoder_and_retrieval():
    def disagreement(**fields):
        return reasons_of(logged(**fields), 0.5, 1.0).values[DISAGREE]

    assert disagreement() == 0.0
    assert disagreement(retrieval=(0.8, 0.9)) == 1.0
    # Both would have B; the features put A first.
    assert disagreement(logits=(1.0, 2.0), retrieval=(0.8, 0.9)) == 0.5


def test_answers_without_logits_are_compared_by_their_scores():
    row = logged().row
    ranked = [{"name": "A", "cui": "C1", "score": 0.6}, {"name": "B", "cui": "C2", "score": 0.2}]
    mention = LoggedMention(row | {"ranked": ranked}, [], Top(0.6, 0.4, "medium", True))
    assert reasons_of(mention, 0.5, 1.0).values[DISAGREE] == 0.0


def test_the_cross_encoder_prefers_none_of_what_it_has_not_seen():
    assert reasons_of(logged(logits=(-2.0, None)), 0.5, 1.0).values[DISAGREE] == 0.0


def test_without_scores_the_order_of_the_list_is_that_of_retrieval():
    mention = logged(logits=(1.0, 2.0), retrieval=(None, None))
    assert reasons_of(mention, 0.5, 1.0).values[DISAGREE] == 1.0
    # The score of some candidates does not say which was first.
    assert reasons_of(logged(retrieval=(None, 0.8)), 0.5, 1.0).values[DISAGREE] == 0.0
    plain = LoggedMention({**mention.row, "candidates": ["B", "A"]}, [], mention.top)
    assert reasons_of(plain, 0.5, 1.0).values[DISAGREE] == 1.0  # "B" is no CUI that was ranked


def test_a_mention_without_candidates_is_neither_near_nor_in_dispute():
    mention = LoggedMention({"entity": "x", "candidates": [], "ranked": []}, [], None)
    assert reasons_of(mention, 0.5, 0.0).values == {NEAR: 0.0, DISAGREE: 0.0, RARE: 1.0}


def test_rare_types_by_their_share_of_the_test_split():
    shares = [0.0, 0.025, 0.05, 0.4]
    assert [reasons_of(logged(), 0.5, share).values[RARE] for share in shares] == pytest.approx([1.0, 0.5, 0.0, 0.0])


def test_reasons_are_named_by_weight():
    assert Reasons({NEAR: 0.3, DISAGREE: 1.0, RARE: 0.0}).words == "rankings disagree, near the threshold"
    assert Reasons({NEAR: 0.1, DISAGREE: 0.0, RARE: 0.0}).words == NEAR
    assert Reasons({NEAR: 0.1, DISAGREE: 1.0, RARE: 0.5}).words == "rankings disagree, rare type"
    assert Reasons({NEAR: 0.1, DISAGREE: 1.0, RARE: 0.5}).worth == pytest.approx(0.1 + 0.6 + 0.2)


def test_a_model_judges_by_the_thresholds_that_decided_and_the_rarest_type(tmp_path, monkeypatch):
    checked = []
    monkeypatch.setattr(review_queue, "verify_files", lambda folder, names: checked.extend((folder, *names)))
    usual = fit_thresholds()
    lower = replace(usual.rows[DEFAULT], low=0.1, accept=0.2, high=None)
    content = thresholds_content({"all": usual, "no type": ThresholdTable({DEFAULT: lower}, usual.hierarchy)})
    types = [["T047"]] * 96 + [["T121"]] * 4
    reference = Reference.fit(np.linspace(0, 1, 100), types, range(100), {}, 0.95).to_dict()
    for name, state in (("thresholds.json", content), ("reference.json", reference)):
        (tmp_path / name).write_text(json.dumps(state))
    judge = judge_of(tmp_path)
    assert checked == [tmp_path, "reference.json", "thresholds.json"]

    given = [["T047"], ["T047", "Pharmacologic Substance"], ["T047", "unheard of"], []]
    assert [judge(logged(types=types)).values[RARE] for types in given] == pytest.approx([0.0, 0.2, 1.0, 0.0])
    drug = logged(score=usual.rows["T121"].accept, types=["T121"])
    assert judge(drug).values[NEAR] == pytest.approx(1.0)
    drug.row["ranked"][0]["inputs"] = "no type"
    assert judge(drug).values[NEAR] < 0.5
    assert judge(LoggedMention(drug.row, ["T121"], Top(0.2, 0.2, "medium", True))).values[NEAR] == pytest.approx(1.0)


def judge(mention):
    return reasons_of(mention, 0.5, 1.0)


def entities(picked):
    return [mention.row["entity"] for mention, _ in picked]


def test_the_worthiest_come_first_and_each_string_once():
    mentions = [logged("a", 0.9), logged("b", 0.5), logged("B ", 0.5), logged("c", 0.6)]
    picked = select_for_review(mentions, 10, judge, random_share=0.0)
    assert entities(picked) == ["b", "c", "a"]
    # What was drawn at random is not selected once more.
    assert len(select_for_review([logged("a"), logged("A")], 2, judge, random_share=0.5)) == 1


def test_picks_are_spread_over_documents():
    mentions = [logged(f"a{n}", 0.5 + n / 1000, document="one") for n in range(5)]
    mentions += [logged("b", 0.55, document="two"), logged("c", 0.6, document="three")]
    assert entities(select_for_review(mentions, 3, judge, random_share=0.0)) == ["a0", "b", "a1"]
    alone = [logged(f"a{n}", 0.5 + n / 1000) for n in range(5)]
    assert entities(select_for_review(alone, 5, judge, random_share=0.0)) == [f"a{n}" for n in range(5)]


@pytest.mark.parametrize("types", [["T047"], []])
def test_picks_are_spread_over_types(types):
    mentions = [logged(f"a{n}", 0.5, types=types) for n in range(30)] + [logged("b", 0.505, types=["T121"])]
    assert entities(select_for_review(mentions, 3, judge, random_share=0.0))[1:2] == ["b"]


def test_a_share_is_drawn_at_random_whatever_it_is_worth():
    mentions = [logged(f"m{n}", 0.5 if n < 50 else 0.999) for n in range(300)]
    picked = select_for_review(mentions, 100, judge, random_share=0.4, seed=1)
    drawn = [mention for mention, reason in picked if reason == RANDOM]
    assert len(picked) == len(set(entities(picked))) == 100
    assert picked[:40] == [(mention, RANDOM) for mention in drawn] and len(drawn) == 40
    assert sum(mention.top.score > 0.9 for mention in drawn) > 25
    assert entities(picked) == entities(select_for_review(mentions, 100, judge, random_share=0.4, seed=1))
    assert entities(picked) != entities(select_for_review(mentions, 100, judge, random_share=0.4, seed=2))


def test_nothing_thins_the_random_sample():
    mentions = [logged("a", document="one") for _ in range(30)] + [logged(f"b{n}") for n in range(10)]
    drawn = [
        mention for mention, reason in select_for_review(mentions, 40, judge, random_share=0.5) if reason == RANDOM
    ]
    assert len(drawn) == 20 and 12 <= sum(mention.row["entity"] == "a" for mention in drawn) <= 18


def test_no_more_than_there_are():
    assert len(select_for_review([logged("a")], 10, judge, random_share=1.0)) == 1
    assert select_for_review([], 10, judge) == []


def test_a_row_that_was_selected_before_gets_the_new_reason_and_no_choice_or_note(tmp_path):
    mention = logged()
    mention = LoggedMention(mention.row | {"reason": RANDOM, "chosen": "C1", "note": "old"}, [], mention.top)
    write_queue([(mention, NEAR)], tmp_path / "queue.jsonl")
    (row,) = [json.loads(line) for line in (tmp_path / "queue.jsonl").read_text().splitlines()]
    assert row == {"reason": NEAR} | logged().row and next(iter(row)) == "reason"
