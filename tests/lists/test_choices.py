"""Answers by the number of a candidate, in sheets and in what OpenRefine exports of them."""

import pytest

from umls_reranker.core.errors import UserError
from umls_reranker.linking.mentions import read_answers
from umls_reranker.lists.answers import Answers

HEAD = "mention,choice,name_1,name_2,gold_cui,id_1,id_2"


def golds_of(tmp_path, *lines, head=HEAD):
    path = tmp_path / "sheet.csv"
    path.write_text("\n".join([head, *lines]) + "\n")
    return [answer.gold for _, answer in read_answers([path])]


def test_a_choice_takes_a_candidate_and_zero_is_no_concept(tmp_path):
    lines = ["a,1,A,B,,C1,C2", "b,2.0,A,B,,C1,'C2", "c,0,A,B,,C1,C2", "d,,A,B,C9,C1,C2"]
    lines += ["e,,A,B,,C1,C2", "f,1,A,B,C1,C1,C2", "g,0,A,B,CUI-less,C1,C2"]
    expected = ["C1", "C2", "CUI-less", "C9", None, "C1", "CUI-less"]
    assert golds_of(tmp_path, *lines) == expected
    assert golds_of(tmp_path, "a,1,C7", head="mention,choice,id_1") == ["C7"]


@pytest.mark.parametrize("choice", ["3", "-1", "1.5", "one", "1|2", "C1", "2"])
def test_a_choice_of_no_candidate_is_refused_with_its_line(tmp_path, choice):
    with pytest.raises(UserError, match=r"sheet\.csv:2: choice"):
        golds_of(tmp_path, f"a,{choice},A,,,C1,")


@pytest.mark.parametrize("line", ["a,1,A,B,C2,C1,C2", "a,0,A,B,C1,C1,C2", "a,1,A,B,nil,C1,C2"])
def test_a_choice_and_an_id_that_differ_are_refused(tmp_path, line):
    with pytest.raises(UserError, match=r"sheet\.csv:2: choice .*gold_cui"):
        golds_of(tmp_path, line)


def test_choices_in_a_sheet_that_openrefine_exports_count(tmp_path):
    head = f"{HEAD},openrefine"
    lines = ["a,2,A,B,,C1,C2,", "b,,A,B,,C1,C2,matched | single | C1 | b"]
    assert golds_of(tmp_path, *lines, head=head) == ["C2", "C1"]
    with pytest.raises(UserError, match=r"sheet\.csv:2: openrefine"):
        golds_of(tmp_path, "b,2,A,B,,C1,C2,matched | single | C1 | b", head=head)


def test_a_row_gets_the_chosen_concept(tmp_path):
    path = tmp_path / "sheet.csv"
    path.write_text(f"{HEAD}\nflu,2,A,B,,C1,C2\n")
    assert Answers(read_answers([path])).of({"mention": "flu"}).gold == "C2"
