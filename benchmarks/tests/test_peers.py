"""What other systems read and write, and the table that is made of it; none of them is
installed.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "peers"))

import ours
from peer import Candidate, Concept, Export, Mention, answers, read_rows, write_rows
from table import answers as judged
from table import quality, threshold_at


def mention(number=0, document="d", cui="C0000001", in_dictionary=True):
    return Mention(
        number, document, 0, 4, "cold", "cold", "", " is bad", ["T047"], cui, in_dictionary
    )


def row(cuis, scores, number=0, **more):
    return {
        "mention_id": number,
        "cuis": cuis,
        "scores": scores,
        "names": [None] * len(cuis),
        **more,
    }


def of_mentions(rows, gold):
    """The judged answers to mentions, two a document, of which these are the gold concepts."""
    mentions = {
        n: mention(n, f"d{n // 2}", cui, cui is not None)._asdict() for n, cui in enumerate(gold)
    }
    return judged([row(*one, n) for n, one in enumerate(rows)], mentions)


def test_a_system_sees_no_gold_concept_and_each_of_its_candidates_counts_once():
    batches = []

    def link(mentions):
        batches.append([(one.cui, one.in_dictionary) for one in mentions])
        return [
            [Candidate("C1", 0.5, "a"), Candidate("C2", 0.7), Candidate("C1", 0.9, "b")]
            for _ in mentions
        ]

    rows = [*answers(link, [mention(number) for number in range(3)], batch=2)]
    assert batches == [[(None, None)] * 2, [(None, None)]]
    assert [one.pop("seconds") > 0 for one in rows] == [True] * 3
    assert rows[2] == {
        "mention_id": 2,
        "cuis": ["C1", "C2"],
        "scores": [0.9, 0.7],
        "names": ["b", None],
    }


def test_ties_count_against_the_system():
    lists = [
        (["C1", "C2"], [0.9, 0.9]),
        (["C2", "C1", "C3"], [0.9, 0.8, 0.8]),
        (["C1", "C2"], [0.9, 0.8]),
        ([], []),
    ]
    result = of_mentions(lists, ["C1"] * 3 + [None])
    assert result.ranks.tolist() == [1, 2, 0, -1]
    assert result.listed.tolist() == [True, False, True, False]
    assert result.score.tolist() == [0.9, 0.9, 0.9, -np.inf]


def test_the_threshold_answers_the_most_at_a_precision_and_equal_scores_together():
    score = np.array([0.9, 0.8, 0.8, 0.7, -np.inf])
    correct = np.array([True, True, False, True, False])
    assert [threshold_at(score, correct, precision) for precision in (1.0, 0.75)] == [0.9, 0.7]
    assert threshold_at(score, ~correct, 1.0) == np.inf


def test_thresholds_are_chosen_on_calibration_and_measured_on_test():
    calibration = of_mentions(
        [(["C1"], [score]) for score in (0.9, 0.8, 0.5, 0.4)], ["C1", "C1", "C2", "C2"]
    )
    test = of_mentions(
        [(["C1"], [score]) for score in (0.9, 0.85, 0.8, 0.3)], ["C1", "C1", "C2", "C1"]
    )
    cells = quality("toy", test, calibration, test, None, [])
    assert cells[:2] == ["toy", "nothing"]
    assert cells[2].startswith("0.750 ")
    # Everything from 0.8 on, of which a third is incorrect.
    assert [(cell[:5], cell[-7:]) for cell in cells[10:]] == [("0.750", "(0.667)")] * 2


def test_what_a_model_made_of_lists_accepts_needs_no_other_answers():
    test = of_mentions([(["C1"], [score]) for score in (0.9, 0.8, 0.7)], ["C1", "C2", "C1"])
    cells = quality(
        "toy", test._replace(accepted=np.array([True, True, False])), None, test, None, []
    )
    assert cells[10] == "" and (cells[11][:5], cells[11][-7:]) == ("0.667", "(0.500)")


@pytest.mark.parametrize(("way", "types"), [("lists", ["T047"]), ("lists_no_types", None)])
def test_a_model_is_made_of_the_first_lists_with_types_or_without(
    tmp_path, monkeypatch, way, types
):
    concept = Concept("C1", "cold", ["cold"], ["T047"])
    write_rows(tmp_path / "concepts.jsonl", [concept._asdict()])
    for split in ("calibration", "test"):
        write_rows(
            tmp_path / f"{split}.jsonl",
            (mention(number, cui="C1")._asdict() for number in range(4)),
        )
        write_rows(
            tmp_path / "rows" / "toy" / f"{split}.jsonl",
            (row(["C1"], [0.9], number) for number in range(4)),
        )
    write_rows(tmp_path / "rows" / "toy" / "facts.json", [{"inputs": ["context"]}])
    sizes = []

    def command(name, *words):
        given = [*read_rows(words[1])]
        sizes.append(len(given))
        assert all(
            row["entity_type"] == types and row["candidates"][0]["semantic_types"] for row in given
        )
        if name == "rerank":
            decided = [{"cui": "C1", "score": 0.7, "accepted": True}]
            write_rows(
                words[2], (row | {"ranked": decided * (row["mention_id"] > 0)} for row in given)
            )

    monkeypatch.setattr(ours, "umls_reranker", command)
    ours.rank_lists("toy", way, tmp_path / "no model", Export(tmp_path), 3)
    assert sizes == [3, 4]
    decided = [*read_rows(tmp_path / "rows" / f"toy+{way}" / "test.jsonl")]
    assert [(one["scores"], one["accepted"]) for one in decided] == [
        ([], False),
        *[([0.7], True)] * 3,
    ]
