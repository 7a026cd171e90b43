"""Sheets of several reviewers: how far they agree, and whose answers count."""

import pytest

from umls_reranker.core.errors import UserError
from umls_reranker.linking.mentions import read_answers
from umls_reranker.lists.agreement import agreement
from umls_reranker.lists.answers import Answers


def sheet(path, answers):
    """A sheet of answers by the number of a term."""
    lines = [f"m{number},term {number},{gold}\n" for number, gold in answers.items()]
    path.write_text("".join(["mention_id,mention,gold_cui\n", *lines]))
    return path


def gold_of(answers, number):
    return answers.of({"mention_id": f"m{number}", "mention": f"term {number}"}).gold


def test_two_sheets_agree_on_most_and_all_differences_are_named(tmp_path):
    first = sheet(tmp_path / "a.csv", dict.fromkeys(range(40), "C1"))
    golds = dict.fromkeys(range(40), "C1") | dict.fromkeys((3, 5, 7, 9), "C2") | {50: "C3"}
    second = sheet(tmp_path / "b.csv", golds)
    answers = Answers(read_answers([first, second]))
    said, *differences = answers.agreement()
    assert "36 of 40" in said and str(first) in said and str(second) in said
    assert len(differences) == 4
    for number, line in zip((3, 5, 7, 9), differences, strict=True):
        assert f"b.csv:{number + 2}: " in line and f"a.csv:{number + 2}" in line
        assert gold_of(answers, number) == "C2"
    # Each mention counts once.
    assert answers.count == 41
    assert gold_of(Answers(read_answers([second, first])), 3) == "C1"
    assert not list(Answers(read_answers([first])).agreement())


def test_adjudicated_rows_decide_and_are_compared_with_none(tmp_path):
    first = sheet(tmp_path / "a.csv", {1: "C1", 2: "C1", 3: "C1", 4: ""})
    second = sheet(tmp_path / "b.csv", {1: "C1", 2: "C2", 3: "C3", 4: "C4"})
    third = sheet(tmp_path / "c.csv", {2: "C9", 3: "CUI-less", 4: ""})
    answers = Answers(read_answers([first, second, third]))
    assert [gold_of(answers, number) for number in (1, 2, 3, 4)] == ["C1", "C9", "CUI-less", "C4"]
    said, *differences = answers.agreement()
    assert "1 of 3" in said and "c.csv" not in said
    assert len(differences) == 2 and all("c.csv:" in line for line in differences)


def test_kappa_is_what_chance_leaves():
    golds = [("a", "a")] * 20 + [("b", "b")] * 15 + [("a", "b")] * 5 + [("b", "a")] * 10
    sets = [(frozenset(first), frozenset(second)) for first, second in golds]
    # Of Cohen's example: 0.7 agree, 0.5 by chance.
    assert agreement(("x", "y"), sets).kappa == pytest.approx(0.4)
    assert agreement(("x", "y"), sets[:20]).kappa is None


def test_one_sheet_that_contradicts_itself_is_refused(tmp_path):
    path = sheet(tmp_path / "a.csv", {1: "C1"})
    path.write_text(path.read_text() + "m1,term 1,C2\n")
    with pytest.raises(UserError, match=r"a\.csv:3: .*a\.csv:2"):
        Answers(read_answers([path]))
