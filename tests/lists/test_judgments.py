"""Answers of reviewers in files of OpenRefine and in SSSOM."""

import re

import pytest

from umls_reranker.core.errors import UserError
from umls_reranker.linking.mentions import read_answers
from umls_reranker.lists.answers import Answers, answered
from umls_reranker.lists.rows import Rows

TERMS = ("seizures", "heart block", "a | b", "big head", "xyzzy", "none yet")
# As OpenRefine 3.8.7 exports it: matched cells have the name of their concept, and commas quotes.
EXPORTED = """\
mention_id,source_code,mention,openrefine,reviewer,reviewed_on
1,A1,Seizure,matched | single | C0014544 | seizures,Ann,2026-03-01
2,A2,Heart block,matched | auto | C0018794 | heart block,Ann,
3,A3,"Alpha, beta",matched | mass | C1|C2 | a | b,,
4,A4,Macrocephaly,matched | similar | C4083076 | big head,Bob,
5,A5,xyzzy,new | single | xyzzy,Bob,
6,A6,none yet,none | unknown | none yet,,
"""


def answers_of(tmp_path, *texts, name="answers.csv"):
    """The answers in files with these contents."""
    paths = []
    for number, text in enumerate(texts):
        paths.append(tmp_path / f"{number}.{name}")
        paths[-1].write_text(text, encoding="utf-8")
    return Answers(read_answers(paths))


def row_of(number, text, **further):
    return {"mention_id": str(number), "source_code": f"A{number}", "mention": text} | further


def test_what_openrefine_exports_is_an_answer_of_whoever_judged(tmp_path):
    answers = answers_of(tmp_path, EXPORTED)
    found = [answers.of(row_of(number, text)) for number, text in enumerate(TERMS, start=1)]
    golds = [answer.gold for answer in found]
    # What the service matched by itself, nobody answered.
    assert golds == ["C0014544", None, ["C1", "C2"], "C4083076", "CUI-less", None]
    assert answers.count == 4
    assert (found[0].reviewer, found[0].reviewed_on) == ("Ann", "2026-03-01")
    assert found[4].reviewer == "Bob" and found[0].term.code == "A1"


def test_terms_without_ids_are_found_by_their_own_text(tmp_path):
    exported = "mention,openrefine\nSeizure,matched | single | C1 | seizures\nflu,\n"
    answers = answers_of(tmp_path, exported)
    assert answers.of({"mention": "seizures"}).gold == "C1"
    assert answers.of({"mention": "flu"}).gold is None
    assert answers.of({"mention": "Seizure"}) is None


def test_a_sheet_that_was_imported_keeps_its_answers(tmp_path):
    exported = "mention,gold_cui,openrefine\nflu,C1,none | unknown | flu\nb,C2,new | single | b\n"
    with pytest.raises(UserError, match=r"csv:3: "):
        answers_of(tmp_path, exported)
    assert answers_of(tmp_path, exported[:-23]).of({"mention": "flu"}).gold == "C1"


@pytest.mark.parametrize("cell", ["matched", "C0014544", "matched | single |  | flu"])
def test_another_column_of_openrefine_is_refused_with_its_line(tmp_path, cell):
    with pytest.raises(UserError, match=r"csv:2: .*openrefine"):
        answers_of(tmp_path, f"mention,openrefine\nflu,{cell}\n")


# As sssom-curator 0.6 and biomappings 0.6 write it.
HEAD = (
    "#curie_map:\n#  mesh: http://id.nlm.nih.gov/mesh/\n"
    "#mapping_set_id: https://example.org/positive\n"
)
COLUMNS = "subject_id subject_label predicate_id predicate_modifier object_id object_label"
COLUMNS = f"{COLUMNS} mapping_justification author_id mapping_date".replace(" ", "\t")
MANUAL = "semapv:ManualMappingCuration"


def sssom(*rows):
    """A file with rows of subject, label, predicate, modifier, object and justification."""
    lines = [COLUMNS]
    for subject, label, predicate, modifier, target, justification in rows:
        cells = (subject, label, predicate, modifier, target, "x", justification)
        lines.append("\t".join([*cells, "orcid:0000-0003-4423-4370", "2026-04-12"]))
    return HEAD + "\n".join(lines) + "\n"


def exact(subject, label, target, modifier="", predicate="skos:exactMatch", why=MANUAL):
    return (subject, label, predicate, modifier, target, why)


def sssom_answers(tmp_path, *files):
    return answers_of(tmp_path, *(sssom(*rows) for rows in files), name="sssom.tsv")


def test_decisions_of_curators_are_answers(tmp_path):
    answers = sssom_answers(
        tmp_path,
        [
            exact("local:LAB%201", "flu", "umls:C0021400"),
            exact("ICD10CM:I10", "hypertension", "hp:0000822"),
            exact("ICD10CM:I11", "predicted", "hp:0000822", why="semapv:LexicalMatching"),
            exact("ICD10CM:I12", "broader", "hp:0000822", predicate="skos:broadMatch"),
            exact("ICD10CM:I13", "nothing", "sssom:NoTermFound"),
        ],
    )
    flu = answers.of({"mention": "flu", "source_code": "LAB 1"})
    assert flu.gold == ["umls:C0021400", "UMLS:C0021400", "C0021400"]
    assert (flu.reviewer, flu.reviewed_on) == ("orcid:0000-0003-4423-4370", "2026-04-12")
    for code in ("I10", "ICD10CM:I10"):
        answer = answers.of({"mention": "hypertension", "source_code": code})
        assert "HP:0000822" in answer.gold and "0000822" not in answer.gold
    assert answers.of({"mention": "nothing", "source_code": "I13"}).gold == ["CUI-less"]
    for text, code in (("predicted", "I11"), ("broader", "I12")):
        assert answers.of({"mention": text, "source_code": code}) is None
    assert answers.count == 3


def test_exact_matches_in_several_vocabularies_are_alternatives(tmp_path):
    rows = [exact("a:1", "flu", target) for target in ("umls:C1", "mesh:D1")]
    answer = sssom_answers(tmp_path, rows).of({"mention": "flu", "source_code": "a:1"})
    assert {"C1", "MESH:D1", "D1"} <= {*answer.gold}


def test_not_rules_a_candidate_out(tmp_path):
    first = [exact("a:1", "flu", "umls:C1", "Not"), exact("a:1", "flu", "umls:C2", "Not")]
    answers = sssom_answers(tmp_path, first, [exact("a:1", "flu", "umls:C3")])
    answer = answers.of({"mention": "flu", "source_code": "a:1"})
    assert "C3" in answer.gold and {"C1", "C2"} <= {*answer.ruled_out} and answers.count == 1
    both = sssom_answers(tmp_path, first, [exact("a:1", "flu", "umls:C2")])
    with pytest.raises(UserError, match=re.escape("0.sssom.tsv:6")):
        both.of({"mention": "flu", "source_code": "a:1"})


def candidates_row(text, *cuis):
    return {"mention": text, "candidates": [{"cui": cui, "name": cui} for cui in cuis]}


def test_where_a_candidate_is_only_wrong_no_candidate_counts_as_correct(tmp_path):
    rows = [exact("", "flu", "umls:C1", "Not"), exact("", "cold", "umls:C2")]
    rows += [exact("", "pain", "umls:C9", "Not")]
    lists = [candidates_row("flu", "C1", "C2"), candidates_row("cold", "C2", "C3")]
    lists += [candidates_row("pain", "C1", "C2")]
    with pytest.warns(UserWarning) as caught:
        joined, _ = answered(Rows.of(lists), sssom_answers(tmp_path, rows))
    # Of the last, the list lacks the candidate: nothing is known about what it has.
    assert [row["mention"] for row in joined.mappings()] == ["flu", "cold"]
    assert joined.mappings()[0]["cui"] == "CUI-less" and "C2" in joined.mappings()[1]["cui"]
    said = "\n".join(str(warning.message) for warning in caught)
    assert "1 rows" in said and "1 of 3 rows" in said


def test_a_drawn_row_that_was_passed_over_counts_as_incorrect(tmp_path):
    texts = ["flu", "cold", "pain", "rash"]
    lists = [
        candidates_row(text, "C1", "C2") | {"sample_position": position}
        for position, text in enumerate(texts, start=1)
    ]
    # The third is the last with an answer: the fourth was not reached. Files are in any order.
    answers = sssom_answers(tmp_path, [exact("", text, "umls:C1") for text in ("flu", "pain")])
    with pytest.warns(UserWarning) as caught:
        joined, _ = answered(Rows.of(lists[::-1]), answers)
    golds = {row["mention"]: row["cui"] for row in joined.mappings()}
    assert golds.keys() == {"flu", "cold", "pain"} and golds["cold"] == "CUI-less"
    assert any("rows:3" in str(warning.message) for warning in caught)


def sheet_answers(tmp_path, *lines):
    """Answers of a sheet with ids and the words around each mention."""
    path = tmp_path / "sheet.csv"
    path.write_text("\n".join(["mention_id,mention,gold_cui,left,right", *lines]))
    return Answers(read_answers([path]))


def test_answers_outlive_that_a_file_is_cleaned_sorted_or_widened(tmp_path):
    answers = sheet_answers(tmp_path, "1,flu,C1,,", "2,cold,C2,,", "3,cold,C3,,", "4,CP,C4,of, x")

    def gold_of(text, number=None, document=None, **further):
        answer = answers.of({"mention": text, "mention_id": number} | further, document)
        return answer and answer.gold

    # By id and text; by a text that is there once; and not by one that has several answers.
    assert [gold_of("flu", "1"), gold_of("flu", "7"), gold_of("flu")] == ["C1"] * 3
    assert [gold_of("cold", "2"), gold_of("cold", "3")] == ["C2", "C3"]
    assert gold_of("cold", "8") is None
    # With its context, in either form.
    assert (
        gold_of("CP", "9", left="of", right="x ") == gold_of("CP", document="All of CP x") == "C4"
    )
    assert gold_of("CP", "9") is gold_of("CP", left="of") is gold_of("CP", document="CP x") is None
    assert gold_of("flu", left="no") is gold_of("flu", document="no flu") is None


def test_the_same_id_with_another_text_is_used_by_nobody(tmp_path):
    answers = sheet_answers(tmp_path, "1,flu,C1,,", "2,cold,C2,,", "3,rash,C3,,")
    lists = [
        candidates_row(text, "C1", "C2") | {"mention_id": mention_id}
        for text, mention_id in [("swine flu", "1"), ("cold", "2"), ("flu", "3")]
    ]
    with pytest.warns(UserWarning) as caught:
        joined, _ = answered(Rows.of(lists), answers)
    # The third row's text is there once, whatever its id was before.
    assert {row["mention"]: row["cui"] for row in joined.mappings()} == {"cold": "C2", "flu": "C1"}
    (said,) = [text for text in map(str, (each.message for each in caught)) if "swine flu" in text]
    assert "rows:1" in said and "sheet.csv:2" in said and "rows:3" not in said


@pytest.mark.parametrize(
    ("row", "key"),
    [
        (exact("a:1", "flu", "umls:C1", "not"), "predicate_modifier"),
        (exact("a:1", "", "umls:C1"), "subject_label"),
        (exact("a:1", "flu", ""), "object_id"),
    ],
)
def test_a_malformed_decision_is_refused_with_its_line(tmp_path, row, key):
    with pytest.raises(UserError, match=rf"sssom\.tsv:6: .*{key}"):
        sssom_answers(tmp_path, [exact("a:0", "cold", "umls:C0"), row])
