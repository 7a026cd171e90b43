"""Rows to review: a random sample, then the most doubtful."""

import csv
import json

import pytest

from umls_reranker.core.errors import UserError
from umls_reranker.lists.read import read_rows
from umls_reranker.serving.review_queue import select_for_review, write_queue
from umls_reranker.serving.statistics import read_ranked


def ranked_row(entity="cold", margin=0.5, document="d1", number="m1", **fields):
    """A row with two candidates, of which the second is ranked first."""
    row = {
        "doc_id": document,
        "mention_id": number,
        "entity": entity,
        "entity_type": ["T047", "T046"],
    }
    row["candidates"] = [
        {"name": "A", "cui": "C1", "own_score": 0.9},
        {"name": "B", "cui": "C2", "own_score": 0.8},
    ]
    about = {"margin": margin, "tier": "medium", "accepted": True}
    row["ranked"] = [{"name": "B", "cui": "C2", "rank": 1, "score": 0.7, **about}]
    row["ranked"] += [
        {"name": "A", "cui": "C1", "rank": 2, "score": 0.2, **about, "margin": -margin}
    ]
    return row | fields


# One id, as users and as runs write it, and a composite.
GOLD = ["C1", [["D1"]], [["D1", "D2"], ["D3"]]]


def entities(rows):
    return [row["entity"] for row in rows]


def test_the_most_doubtful_come_first_and_each_string_once():
    rows = [ranked_row("a", 0.9), ranked_row("b", 0.1), ranked_row("B ", 0.2), ranked_row("c", 0.3)]
    rows.append({"entity": "x", "candidates": [], "ranked": []})
    assert entities(select_for_review(rows, 3, random_share=0.0)) == ["b", "c", "a"]
    assert entities(select_for_review(rows, 9, random_share=0.0)) == ["b", "c", "a", "x"]


def test_a_share_is_drawn_at_random_and_nothing_thins_it():
    rows = [ranked_row("same", 0.99) for _ in range(30)] + [
        ranked_row(f"b{n}", 0.01) for n in range(30)
    ]
    selected = select_for_review(rows, 60, random_share=1 / 3, seed=1)
    drawn = [row for row in selected if row["is_random_sample"]]
    assert selected[:20] == drawn and 4 <= entities(drawn).count("same") <= 16
    assert len(selected) == 20 + len({row["entity"] for row in rows} - set(entities(drawn)))
    assert entities(selected) == entities(select_for_review(rows, 60, random_share=1 / 3, seed=1))
    assert entities(selected) != entities(select_for_review(rows, 60, random_share=1 / 3, seed=2))


def test_a_queue_holds_rows_of_lists(tmp_path):
    selected = select_for_review([ranked_row()], 1, random_share=1.0)
    write_queue(selected, tmp_path / "queue.jsonl")
    (row,) = map(json.loads, (tmp_path / "queue.jsonl").read_text(encoding="utf-8").splitlines())
    expected = ranked_row(is_random_sample=True)
    del expected["ranked"]
    assert row == expected


def test_a_reviewed_sheet_is_read_as_lists(tmp_path):
    second = ranked_row("naïve", number="m2", candidates=["A", "B"], mention_id=None)
    further = [ranked_row(str(gold), cui=gold, number=str(gold)) for gold in GOLD]
    write_queue(
        select_for_review([ranked_row(), second, *further], 9, random_share=0.0),
        tmp_path / "sheet.csv",
    )
    with (tmp_path / "sheet.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["name"], line["rank"], line["probability"]) for line in lines[:2]] == [
        ("A", "2", "0.2"),
        ("B", "1", "0.7"),
    ]
    lines[0]["gold_cui"] = lines[1]["gold_cui"] = "C1"
    with (tmp_path / "sheet.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, lines[0].keys())
        writer.writeheader()
        writer.writerows(lines)
    with pytest.warns(UserWarning, match="blank gold_cui"):
        (batch,) = read_rows(tmp_path / "sheet.csv")
    first, other, *rest = batch.mappings()
    assert [row["cui"] for row in rest] == ["C1", "D1", [["D1", "D2"], ["D3"]]]
    assert (first["cui"], first["entity_type"]) == ("C1", ["T047", "T046"])
    assert [item["own_score"] for item in first["candidates"]] == [0.9, 0.8]
    assert (other["entity"], other["mention_id"]) == ("naïve", "review-2")


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[" * 100_000,
        json.dumps(ranked_row(entity="")),
        json.dumps(
            ranked_row(
                ranked=[
                    {"name": "A", "score": 0.5, "margin": 0.5, "tier": "sure", "accepted": True}
                ]
            )
        ),
        json.dumps(
            ranked_row(
                ranked=[{"name": "A", "score": 7, "margin": 0.5, "tier": "high", "accepted": True}]
            )
        ),
        json.dumps(
            ranked_row(ranked=[{"name": "A", "score": 0.5, "tier": "high", "accepted": True}])
        ),
    ],
)
def test_a_line_that_is_no_ranked_row_is_named(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(ranked_row()) + "\n" + line + "\n")
    with pytest.raises(UserError, match=r"log\.jsonl:2: "):
        list(read_ranked(path))


def test_rows_with_an_error_are_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(
        json.dumps({"entity": "", "error": "is blank"}) + "\n" + json.dumps(ranked_row()) + "\n"
    )
    assert list(read_ranked(path)) == [ranked_row()]


def test_a_row_without_a_document_is_refused_before_it_is_labelled(tmp_path):
    row = {**ranked_row(), "doc_id": None}
    for name in ("queue.jsonl", "sheet.csv"):
        with pytest.raises(UserError, match="'cold'.*--each_row_is_a_document"):
            write_queue([row], tmp_path / name)
        write_queue([row], tmp_path / name, each_row_is_a_document=True)
        (batch,) = read_rows(tmp_path / name)
        assert [one["doc_id"] for one in batch.mappings()] == ["cold"]
