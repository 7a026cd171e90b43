"""A reviewer's corrections: from logged lines to a dataset, into calibration and into training."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset, Features, List, Value
from tiny_reranker import HIERARCHY

from umls_reranker.calibration.certify import certify
from umls_reranker.core.errors import UserError
from umls_reranker.core.files import hold
from umls_reranker.data.corpus import Mention
from umls_reranker.data.mentions import FEEDBACK_PREFIX, MENTION_FEATURES
from umls_reranker.retrieval.candidates import CANDIDATE_FEATURES
from umls_reranker.review.corrections import (
    FEEDBACK_FEATURES,
    RandomSample,
    add_feedback,
    calibration_rows,
    is_correct,
    load_feedback,
    training_mentions,
)
from umls_reranker.review.review_queue import RANDOM, reasons_of, select_for_review, write_queue
from umls_reranker.serving.prediction_log import read_predictions

# What calibration asks of a dictionary; it holds the first candidate alone.
CONCEPTS = SimpleNamespace(
    hierarchy=HIERARCHY, rows=lambda cuis: np.array([0 if cui == "C0009443" else -1 for cui in cuis])
)
CANDIDATES = [
    {"name": "Common Cold", "cui": "C0009443", "retrieval_score": 0.9},
    {"name": "Cold Temperature", "cui": "C0009264", "retrieval_score": 0.8},
]


def line(entity="cold", **more):
    best = {"name": "Common Cold", "cui": "C0009443", "score": 0.6, "margin": 0.3, "logit": 1.0}
    ranked = [best | {"tier": "medium", "accepted": True}]
    return {"entity": entity, "candidates": CANDIDATES, "entity_type": "T047", "ranked": ranked} | more


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def add(tmp_path, *rows):
    return add_feedback(tmp_path / "corrections", [write(tmp_path / "reviewed.jsonl", *rows)])


# The log


def test_predictions_are_read_as_they_were_written(tmp_path):
    path = write(
        tmp_path / "log.jsonl", line(mention_id=7, doc_id="d1"), line("x", candidates=[], ranked=[], entity_type=None)
    )
    path.write_text(path.read_text() + "\n\n")
    first, second = read_predictions(path)
    assert (first.types, first.document, first.mention_id) == (["T047"], "d1", "7")
    assert first.top == (0.6, 0.3, "medium", True)
    assert (second.types, second.top, second.document) == ([], None, None)


@pytest.mark.parametrize(
    "bad",
    [
        "cold",
        "[]",
        '{"entity": "cold"}',
        '{"entity": 7, "candidates": [], "ranked": []}',
        '{"entity": "cold", "candidates": [{"cui": "C1"}], "ranked": []}',
        '{"entity": "cold", "candidates": [{"name": "Cold", "cui": 1}], "ranked": []}',
        '{"entity": "cold", "candidates": [7], "ranked": []}',
        b'{"entity": "cold\xff", "candidates": [], "ranked": []}',
        "[" * 100_000,
        "1" * 5_000,
        line("\ud800"),
        line(note={"deep": ["\udfff"]}),
        line(candidates="cold"),
        line(candidates=[{"name": 7, "cui": "C1"}]),
        line(ranked={}),
        line(ranked=["cold"]),
        line(entity_type=7),
        line(entity_type=["T047", 7]),
        line(entity_type={"T047": 1}),
        line(left=7),
        line(note=["a"]),
        line(reason=7),
        *(
            line(ranked=[line()["ranked"][0] | change])
            for change in (
                {"score": 10**400},
                {"score": float("nan")},
                {"score": "0.5"},
                {"score": 2},
                {"margin": None},
                {"logit": "high"},
                {"tier": "highest"},
                {"tier": ["high"]},
                {"accepted": "yes"},
                {"inputs": ["all"]},
            )
        ),
    ],
)
def test_a_line_that_is_no_prediction_is_named(tmp_path, bad):
    path = tmp_path / "log.jsonl"
    bad = json.dumps(bad) if isinstance(bad, dict) else bad
    path.write_bytes(b"%s\n%s\n" % (json.dumps(line()).encode(), bad.encode() if isinstance(bad, str) else bad))
    with pytest.raises(UserError, match=r"log\.jsonl:2: not a complete output line of umls-reranker rerank"):
        list(read_predictions(path))


def test_the_former_name_of_the_score_is_refused_with_the_new_one(tmp_path):
    ranked = dict(line()["ranked"][0])
    ranked["cross_encoder_score"] = ranked.pop("score")
    with pytest.raises(UserError, match=r"log\.jsonl:1: cross_encoder_score is now named score; rename the key"):
        list(read_predictions(write(tmp_path / "log.jsonl", line(ranked=[ranked]))))


def test_a_candidate_that_a_dictionary_named_has_the_name_of_the_answer(tmp_path):
    log = write(tmp_path / "log.jsonl", line(candidates=[{"cui": "C0009443"}]))
    (logged,) = read_predictions(log)
    assert logged.row["candidates"] == [{"cui": "C0009443", "name": "Common Cold"}]


@pytest.mark.parametrize("ending", ["parquet", "arrow", "feather"])
def test_predictions_in_a_table_are_refused_with_the_way_out(tmp_path, ending):
    path = tmp_path / f"log.{ending}"
    path.write_bytes(b"a table")
    with pytest.raises(UserError, match=rf"log\.{ending} is a table.*rerank into a \.jsonl"):
        list(read_predictions(path))


# The dataset


def test_a_correction_keeps_what_was_shown_and_what_was_chosen(tmp_path):
    row = line(
        candidates=[CANDIDATES[0], CANDIDATES[1] | {"semantic_types": []}],
        doc_id="d1",
        mention_id=3,
        left="a ",
        right=" b",
        chosen="C0009264",
        note="weather",
        reason="random draw",
        index_key="key",
    )
    assert add(tmp_path, row, line("unreviewed"), line("left out", reason=RANDOM)) == {
        "added": 1,
        "replaced": 0,
        "changed": 0,
        "differing": 1,
        "unreviewed": 2,
        "unreviewed_of_sample": 1,
        "corrections": 1,
    }
    feedback = load_feedback(tmp_path / "corrections")
    assert feedback.features == FEEDBACK_FEATURES
    (kept,) = feedback
    assert len(kept.pop("key")) == 16
    nothing = {"preferred_name": None, "definition": None}
    assert kept == {
        "doc_id": "d1",
        "mention_id": "3",
        "mention": "cold",
        "left": "a ",
        "right": " b",
        "semantic_types": ["T047"],
        "candidates": [
            {"name": "Common Cold", "cui": "C0009443", **nothing, "semantic_types": None},
            {"name": "Cold Temperature", "cui": "C0009264", **nothing, "semantic_types": []},
        ],
        "score_names": ["retrieval"],
        "scores": [[0.9, 0.8]],
        "index_key": "key",
        "chosen": "C0009264",
        "note": "weather",
        "reason": "random draw",
        "drawn": True,
        "answer": "C0009443",
        "score": 0.6,
        "tier": "medium",
    }


def test_the_latest_review_of_a_mention_counts(tmp_path):
    add(tmp_path, line(doc_id="d1", mention_id=3, chosen="C0009264"), line("flu", chosen=None))
    counts = add(
        tmp_path,
        line("cold!", doc_id="d1", mention_id=3, chosen=None),
        line("flu", chosen=None),
        line("flu", left="another ", chosen="C0021400"),
    )
    assert [counts[name] for name in ("added", "replaced", "changed", "corrections")] == [1, 2, 1, 3]
    assert sorted(load_feedback(tmp_path / "corrections")["chosen"], key=str) == ["C0021400", None, None]


def test_an_id_without_a_document_is_that_of_its_text_only(tmp_path):
    add(tmp_path, line("cold", mention_id=0, chosen="C0009443"))
    others = line("cold", mention_id=1, chosen=None), line("cold", mention_id=0, entity_type="T121", chosen=None)
    counts = add(tmp_path, line("flu", mention_id=0, chosen=None), line("cold", mention_id=0, chosen=None), *others)
    assert [counts[name] for name in ("added", "replaced", "changed", "corrections")] == [3, 1, 1, 4]


def test_choices_that_differ_from_the_top_candidate_are_counted(tmp_path):
    same = line("flu", chosen="c0009443")
    no_answer = line("fever", candidates=[], ranked=[], chosen=None)
    counts = add(tmp_path, same, no_answer, line(chosen="C0009264"), line("chill", chosen=None), line("unreviewed"))
    assert (counts["added"], counts["changed"], counts["differing"]) == (4, 0, 2)
    counts = add(tmp_path, line(chosen="C0009443"), line("flu", chosen=None))
    assert (counts["replaced"], counts["changed"], counts["differing"]) == (2, 2, 1)


def test_one_text_in_two_documents_is_two_mentions(tmp_path):
    row = line(reason=RANDOM, chosen=None)
    counts = add(tmp_path, row | {"doc_id": "d1"}, row | {"doc_id": "d2"}, row | {"doc_id": "d1"})
    assert (counts["added"], counts["replaced"]) == (2, 1)


def test_equal_reviews_give_equal_bytes(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        add(tmp_path / name, line(chosen=None), line("flu", chosen="C0021400"))
    files = [sorted(path for path in (tmp_path / name / "corrections").iterdir()) for name in "ab"]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


@pytest.mark.parametrize("chosen", ["C0009443", " C0009443", "c0009443\n"])
@pytest.mark.parametrize("given", ["C0009443", "c0009443 "])
def test_cuis_are_compared_and_stored_in_one_form(tmp_path, chosen, given):
    best = {"name": "Common Cold", "cui": given, "score": 0.6, "margin": 0.3, "tier": "medium", "accepted": True}
    add(tmp_path, line(candidates=[{"name": "Common Cold", "cui": given}], ranked=[best], chosen=chosen))
    (row,) = load_feedback(tmp_path / "corrections")
    assert (row["chosen"], row["answer"]) == ("C0009443", "C0009443")
    assert is_correct(row)


@pytest.mark.parametrize(("chosen", "right"), [(None, False), ("C0009443", False), ("Common Cold", True)])
def test_an_answer_without_a_cui_is_correct_only_if_its_name_was_chosen(tmp_path, chosen, right):
    best = {"name": "Common Cold", "cui": None, "score": 0.6, "margin": 0.3, "tier": "high", "accepted": True}
    add(tmp_path, line(candidates=["Common Cold"], ranked=[best], chosen=chosen))
    (row,) = load_feedback(tmp_path / "corrections")
    assert (row["answer"], is_correct(row)) == ("Common Cold", right)


def test_no_answer_is_never_right(tmp_path):
    add(tmp_path, line(candidates=[], ranked=[], chosen=None))
    (row,) = load_feedback(tmp_path / "corrections")
    assert row["answer"] is None and not is_correct(row)


@pytest.mark.parametrize("chosen", [7, "", " ", ["C0009443"]])
def test_a_choice_that_is_no_cui(tmp_path, chosen):
    with pytest.raises(UserError, match=r"reviewed\.jsonl:2: chosen must be a CUI, or null if no concept is correct"):
        add(tmp_path, line(chosen=None), line(chosen=chosen))
    assert not (tmp_path / "corrections").exists()


@pytest.mark.parametrize("chosen", ["Cold", "cold "])
def test_a_choice_by_the_name_of_a_candidate_with_a_cui(tmp_path, chosen):
    with pytest.raises(UserError, match=r"reviewed\.jsonl:1: chosen is the name of a candidate; use C0009264$"):
        add(tmp_path, line(candidates=[{"name": "Cold", "cui": "C0009264"}], chosen=chosen))
    assert not (tmp_path / "corrections").exists()


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        (CANDIDATES, "none"),
        (CANDIDATES, "C00094433"),
        (CANDIDATES, "9443"),
        (["Cold"], "none"),
        ([], "flu, influenza"),
    ],
)
def test_a_choice_that_is_no_concept(tmp_path, candidates, chosen):
    with pytest.raises(
        UserError, match=rf"reviewed\.jsonl:1: chosen must be a candidate or a CUI .*; found '{chosen}'$"
    ):
        add(tmp_path, line(candidates=candidates, ranked=[], chosen=chosen))


@pytest.mark.parametrize("others", [[], [{"name": "Cold", "cui": "HP:0000001"}], [*CANDIDATES, "Cold"]])
def test_a_choice_outside_the_list_may_be_of_another_vocabulary(tmp_path, others):
    add(tmp_path, line(candidates=others, ranked=[], chosen="HP:0000002"))
    assert load_feedback(tmp_path / "corrections")["chosen"] == ["HP:0000002"]


@pytest.mark.parametrize("number", [7.0, "7", " 7 "])
def test_ids_that_a_table_program_has_rewritten_are_the_same(tmp_path, number):
    add(tmp_path, line(doc_id=7, mention_id=7, chosen=None))
    counts = add(tmp_path, line(doc_id=number, mention_id=number, chosen="C0009443"))
    assert (counts["replaced"], load_feedback(tmp_path / "corrections")["doc_id"]) == (1, ["7"])


def test_ids_that_are_no_number_are_none(tmp_path):
    nothing = {"doc_id": float("nan"), "mention_id": float("nan")}
    assert add(tmp_path, line(**nothing, chosen=None), line("flu", **nothing, chosen=None))["corrections"] == 2


def test_blank_lines_count_in_the_place_of_a_line(tmp_path):
    path = write(tmp_path / "reviewed.jsonl", line(chosen=None))
    path.write_text(path.read_text() + "\n" + json.dumps(line(chosen="")))
    with pytest.raises(UserError, match=r"reviewed\.jsonl:3: chosen must be"):
        add_feedback(tmp_path / "corrections", [path])


def test_a_folder_without_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="^. cannot hold corrections; use a separate folder$"):
        add_feedback(Path("."), [write(tmp_path / "reviewed.jsonl", line(chosen=None))])


def test_a_score_that_no_number_can_hold_is_none(tmp_path):
    scores = [10**400, float("inf"), float("nan"), "high", 1]
    given = ["plain", *({"name": "a", "x_score": score} for score in scores)]
    add(tmp_path, line(candidates=given, chosen=None))
    assert load_feedback(tmp_path / "corrections")[0]["scores"] == [[None, None, None, None, None, 1.0]]


def test_corrections_survive_a_failure_of_the_next(tmp_path, monkeypatch):
    add(tmp_path, line(chosen="C0009443"))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.ipc.RecordBatchStreamWriter.write_table", full)
    with pytest.raises(OSError, match="No space"):
        add(tmp_path, line("flu", chosen=None))
    assert load_feedback(tmp_path / "corrections")["mention"] == ["cold"]


def test_corrections_are_added_by_one_process_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("umls_reranker.core.files.PATIENCE_SECONDS", 0.1)
    add(tmp_path, line(chosen=None))
    with hold(tmp_path / ".corrections.lock", "held"), pytest.raises(UserError, match="corrections is being written"):
        add(tmp_path, line("flu", chosen=None))
    assert add(tmp_path, line("flu", chosen=None))["corrections"] == 2


def test_a_folder_that_holds_something_else(tmp_path):
    with pytest.raises(UserError, match=r"contains no corrections .*; umls-reranker add_feedback writes them"):
        load_feedback(tmp_path / "nowhere")
    Dataset.from_dict({"cui": ["C0009443"]}).save_to_disk(str(tmp_path / "other"))
    with pytest.raises(UserError, match="add the reviewed lines again, to a new folder"):
        load_feedback(tmp_path / "other")


# Training


def test_corrections_follow_the_corpus_as_training_mentions(tmp_path):
    add(
        tmp_path,
        line(doc_id="d9", chosen="C0009264", entity_type=["disease or syndrome", "unheard of"]),
        line("out", doc_id="d9", chosen=None),
        *(line(f"in {document}", doc_id=document, chosen="C0009264") for document in ("d2", "d3", "d4")),
        *(line(f"no document {number}", chosen="C0009264") for number in range(2)),
    )
    corpus = [
        (split, Mention(f"d{number}", 0, 3, "flu", "", "", "C0021400", ("T047",)))
        for number, split in enumerate(("train", "test", "dev", "calibration"), start=1)
    ]
    feedback = load_feedback(tmp_path / "corrections")
    reading = training_mentions(corpus, feedback, HIERARCHY)
    found = list(reading)
    assert found[:4] == corpus
    assert found[4] == ("train", Mention(f"{FEEDBACK_PREFIX}d9", 0, 4, "cold", "", "", "C0009264", ("T047",)))
    # A correction without a document is one of its own.
    assert [mention.doc_id for _, mention in found[5:]] == [FEEDBACK_PREFIX + key for key in feedback["key"][-2:]]
    assert reading.report == {"mentions": 3, "without_concept": 1, "in_held_out_documents": 3}


# Calibration


def split_of(rows):
    mentions = {
        "mention_id": list(range(rows)),
        "doc_id": ["d1"] * rows,
        "start": [0] * rows,
        "end": [3] * rows,
        "mention": ["flu"] * rows,
        "left": [""] * rows,
        "right": [""] * rows,
        "cui": ["C0021400"] * rows,
        "semantic_types": [["T047"]] * rows,
    }
    lists = {
        "mention_id": list(range(rows)),
        "cuis": [["C0021400"]] * rows,
        "names": [["Influenza"]] * rows,
        "retrieval_scores": [[0.9 - 0.2 * row] for row in range(rows)],
        "gold": [0] * rows,
    }
    return Dataset.from_dict(lists, features=CANDIDATE_FEATURES), Dataset.from_dict(
        mentions, features=MENTION_FEATURES
    )


def test_corrections_follow_the_calibration_split_with_their_lists(tmp_path):
    bare = [{"name": "Common Cold", "cui": "C0009443"}, "Cold"]
    strange = [[CANDIDATES[0] | {"retrieval_score": score}] for score in (25.1, float("inf"))]
    add(
        tmp_path,
        line(doc_id="d9", mention_id=1, chosen="C0009264"),
        line(doc_id="d9", mention_id=2, chosen="C0000001"),
        line(doc_id="d9", mention_id=3, chosen=None),
        line("in test", doc_id="d5", chosen=None),
        line("in train", doc_id="d6", chosen=None),
        line("trained on", doc_id="d7", chosen="C0009264"),
        line("no scores", candidates=bare, chosen=None),
        *(line(f"score {number}", candidates=given, chosen=None) for number, given in enumerate(strange)),
        line("no candidates", candidates=[], ranked=[], chosen=None),
    )
    lists, mentions, lost = calibration_rows(
        load_feedback(tmp_path / "corrections"),
        *split_of(2),
        ["d5"],
        ["d6", f"{FEEDBACK_PREFIX}d7"],
        CONCEPTS,
    )
    assert lost == {
        "in_test_documents": 1,
        "trained_on": 2,
        "without_candidates": 1,
        "without_scores": 3,
        "unknown_candidates": 0,
    }
    assert lists.features == CANDIDATE_FEATURES
    assert mentions.features == MENTION_FEATURES | {"certifies": Value("bool")}
    assert lists["gold"][:] == [0, 0, 1, -1, -1] and lists["mention_id"][:] == mentions["mention_id"][:] == [*range(5)]
    assert mentions["cui"][2:] == ["C0009264", "C0000001", ""] and mentions["doc_id"][4] == f"{FEEDBACK_PREFIX}d9"
    assert lists["names"][2] == ["Common Cold", "Cold Temperature"]


def test_scores_of_retrievers_that_the_split_lacks_are_not_asked_for(tmp_path):
    add(tmp_path, line(candidates=["Common Cold"], chosen=None))
    lists, mentions = split_of(1)
    features = Features({name: kind for name, kind in CANDIDATE_FEATURES.items() if name != "retrieval_scores"})
    assert isinstance(features["cuis"], List) and features["gold"] == Value("int32")
    joined, _, lost = calibration_rows(
        load_feedback(tmp_path / "corrections"),
        lists.remove_columns("retrieval_scores"),
        mentions,
        [],
        [],
        CONCEPTS,
    )
    assert len(joined) == 2 and sum(lost.values()) == 0
    assert joined["cuis"][1] == ["Common Cold"]


def test_scores_of_our_retrievers_go_along_from_the_same_index_only(tmp_path):
    lines = [line(text, chosen=None, index_key=key) for text, key in (("a", "here"), ("b", "there"), ("c", None))]
    add(tmp_path, *lines)
    joined, mentions, lost = calibration_rows(
        load_feedback(tmp_path / "corrections"), *split_of(2), [], [], CONCEPTS, "here"
    )
    assert mentions["mention"][2:] == ["a"] and lost["without_scores"] == 2
    assert joined["retrieval_scores"][2] == pytest.approx([0.9, 0.8])


def test_scores_of_ones_own_retrievers_go_along(tmp_path):
    given = [item | {"bm25_score": 7 + place} for place, item in enumerate(CANDIDATES)]
    add(
        tmp_path,
        line(candidates=given, chosen="C0009264"),
        line("too high", candidates=[given[0] | {"bm25_score": 99}], chosen=None),
        line("none is correct", candidates=given, chosen=None),
    )
    lists, mentions = split_of(2)
    columns = {**lists.to_dict(), "bm25_scores": [[5.0], [9.0]], "in_dictionary": [True, True]}
    del columns["retrieval_scores"]
    joined, _, lost = calibration_rows(
        load_feedback(tmp_path / "corrections"), Dataset.from_dict(columns), mentions, [], [], CONCEPTS
    )
    assert joined["bm25_scores"][2:] == [[7.0, 8.0]] * 2 and lost["without_scores"] == 1
    assert joined["in_dictionary"][2:] == [True, False]


def test_a_model_that_reads_concepts_needs_candidates_of_the_dictionary(tmp_path):
    add(tmp_path, line(chosen=None), line("flu", candidates=CANDIDATES[:1], chosen=None))
    joined, _, lost = calibration_rows(
        load_feedback(tmp_path / "corrections"), *split_of(2), [], [], CONCEPTS, reads_concepts=True
    )
    assert lost["unknown_candidates"] == 1 and len(joined) == 3


def test_a_document_of_the_calibration_split_stays_one_document(tmp_path):
    add(
        tmp_path,
        line(doc_id="d1", mention_id=1, chosen=None),
        line("no document", chosen=None),
        line("nor this", chosen=None),
    )
    lists, mentions = split_of(2)
    assert set(mentions["doc_id"]) == {"d1"}
    _, joined, _ = calibration_rows(load_feedback(tmp_path / "corrections"), lists, mentions, [], [], CONCEPTS)
    assert joined["doc_id"][2:] == ["d1", FEEDBACK_PREFIX, FEEDBACK_PREFIX]


def test_only_what_was_drawn_at_random_and_is_identified_takes_part_in_a_certificate(tmp_path):
    known = {"doc_id": "d9", "chosen": None}
    add(
        tmp_path,
        line("drawn", mention_id=1, reason=RANDOM, **known),
        line("doubtful", mention_id=2, reason="near the threshold", **known),
        # Equal mentions of its document would be one.
        line("without an id", reason=RANDOM, **known),
        # All of these may be of one document.
        line("without a document", mention_id=3, reason=RANDOM, chosen=None),
        line("drawn", doc_id="d1", mention_id=1, reason=RANDOM, chosen=None),
        line("doubtful", doc_id="d1", mention_id=2, reason="rare type", chosen=None),
    )
    _, joined, _ = calibration_rows(load_feedback(tmp_path / "corrections"), *split_of(2), [], [], CONCEPTS)
    assert joined["certifies"][:] == [True, True, True, False, False, False, True, False]


def test_a_mention_that_was_drawn_once_takes_part_whatever_later_models_answer(tmp_path):
    later = [line()["ranked"][0] | {"score": 0.3, "tier": "low"}]
    mention = {"doc_id": "d9", "mention_id": 1, "chosen": None}
    add(tmp_path, line(reason=RANDOM, **mention))
    add(tmp_path, line(reason="near the threshold", ranked=later, **mention))
    feedback = load_feedback(tmp_path / "corrections")
    assert (feedback["reason"][:], feedback["drawn"][:]) == (["near the threshold"], [True])


def test_where_errors_recur_a_queue_is_more_often_right_than_the_service_and_its_random_sample_is_not(tmp_path):
    """1,500 predictions, one in ten wrong; right ones are of many strings, wrong ones of ten."""
    wrong = np.arange(1500) % 10 == 0
    texts = np.where(wrong, [f"error {row // 10 % 10}" for row in range(1500)], [f"text {row}" for row in range(1500)])
    rows = [
        line(text, doc_id=f"n{row // 6}", mention_id=row, gold=None if is_wrong else "C0009443")
        for row, (text, is_wrong) in enumerate(zip(texts.tolist(), wrong.tolist(), strict=True))
    ]
    logged = list(read_predictions(write(tmp_path / "log.jsonl", *rows)))
    picked = select_for_review(logged, 800, lambda mention: reasons_of(mention, 0.5, 1.0), random_share=0.4)
    write_queue(picked, tmp_path / "queue.jsonl")
    queue = [json.loads(text) for text in (tmp_path / "queue.jsonl").read_text().splitlines()]
    counts = add(tmp_path, *(row | {"chosen": row["gold"]} for row in queue))
    assert counts["corrections"] == len(queue) == 800
    _, mentions, _ = calibration_rows(load_feedback(tmp_path / "corrections"), *split_of(2), [], [], CONCEPTS)
    right, certifies = np.array(mentions["cui"][2:]) != "", np.array(mentions["certifies"][2:])
    assert right.mean() > 0.95 and certifies.sum() == 320
    # One standard error is 0.015.
    assert abs(right[certifies].mean() - 0.9) < 0.03
    documents = np.array(mentions["doc_id"][2:])

    def certificate(rows):
        return certify(np.full(rows.sum(), 0.97), right[rows], documents[rows], target_precision=0.93).threshold

    assert certificate(np.ones(len(right), bool)) is not None and certificate(certifies) is None


def test_what_was_drawn_at_random_stays_so_when_it_is_selected_again(tmp_path):
    add(tmp_path, line(reason=RANDOM, chosen=None), line("flu", reason="rare type", chosen=None))
    add(tmp_path, line(reason="near the threshold", chosen=None), line("flu", reason=RANDOM, chosen=None))
    assert load_feedback(tmp_path / "corrections")["reason"][:] == [RANDOM, RANDOM]


def test_a_doubtful_answer_of_a_later_model_is_no_random_draw(tmp_path):
    later = [line()["ranked"][0] | {"score": 0.3, "tier": "low"}]
    add(tmp_path, line(reason=RANDOM, chosen=None))
    add(tmp_path, line(reason="near the threshold", ranked=later, chosen=None))
    assert load_feedback(tmp_path / "corrections")["reason"][:] == ["near the threshold"]


def test_the_random_sample_judges_only_the_answers_of_a_log(tmp_path):
    best = line()["ranked"][0]
    add(
        tmp_path,
        line(reason=RANDOM, chosen="C0009443"),
        line("flu", reason=RANDOM, chosen=None),
        line("doubtful", reason="rare type", chosen=None),
        line("of a former model", reason=RANDOM, chosen=None),
        line("no answer", candidates=[], ranked=[], reason=RANDOM, chosen=None),
    )
    sample = RandomSample(load_feedback(tmp_path / "corrections"))
    now = line("of a former model", ranked=[best | {"score": 0.97, "tier": "high"}])
    log = write(tmp_path / "log.jsonl", line(), line("flu"), line("flu"), line("doubtful"), now)
    assert [sample.find(logged) for logged in read_predictions(log)] == [True, False, None, None, None]
    assert [row["mention"] for row in sample.waiting.values()] == ["of a former model"]
