"""Formats of other tools, on rows whose answers are made up: which codes are written for what."""

import csv
import json

import pytest
from format_fixtures import ROWS, top, write

from umls_reranker.core.errors import UserError
from umls_reranker.linking.mentions import UsagiSheets, read_mentions
from umls_reranker.serving.formats import OmopVocabulary
from umls_reranker.serving.outputs import format_of
from umls_reranker.serving.rows import FormatSettings

pytest_plugins = ["format_fixtures"]


def table(text, delimiter=","):
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines, delimiter=delimiter))


def test_sssom_maps_each_string_once_to_all_codes_of_its_most_frequent_answer(tmp_path, settings):
    text, counts = write("sssom", tmp_path / "out.tsv", settings)
    rows = table(text, "\t")
    assert [(row["subject_label"], row["object_id"]) for row in rows] == [
        ("cold", "SNOMEDCT:100001"),
        ("cold", "SNOMEDCT:100002"),
        ("cold", "MESH:D000001"),
        ('a "b"\tc', "HP:0000002"),
    ]
    # The lowest tier of the string's mentions, and their mean probability.
    assert (rows[0]["predicate_id"], rows[0]["confidence"]) == ("skos:closeMatch", "0.8")
    assert rows[0]["comment"] == "2 of 3 mentions; others: C0000002 (1)"
    assert rows[3]["predicate_id"] == "skos:exactMatch"
    assert {row["subject_type"] for row in rows} == {"rdfs literal"} and "subject_id" not in rows[0]
    assert counts == {"strings": 4, "without an answer": 2, "with conflicting answers": 1}


def test_scores_that_are_not_calibrated_are_no_confidence(tmp_path):
    rows = [("cold", top("C0000001", 0.6, None, None))] * 2
    row, *_ = table(write("sssom", tmp_path / "out.tsv", FormatSettings(), rows)[0], "\t")
    assert (row["object_id"], row["predicate_id"]) == ("UMLS:C0000001", "skos:mappingRelation")
    assert (row["confidence"], row["similarity_score"]) == ("", "0.6")
    text, _ = write("fhir", tmp_path / "out.ndjson", FormatSettings(), rows)
    urls = [item["url"] for item in json.loads(text.splitlines()[0])["extension"]]
    assert urls == ["urn:umls-reranker:doc-id", "urn:umls-reranker:uncalibrated-score"]


def test_omop_has_the_standard_concept_of_the_first_code_that_maps_and_0_else(tmp_path, settings):
    text, counts = write("omop", tmp_path / "out.csv", settings)
    rows = [
        (row["source_code"], row["target_concept_id"]) for row in csv.DictReader(text.splitlines())
    ]
    assert rows == [("cold", "12"), ('a "b"\tc', "0"), ("heat", "0"), ("none", "0")]
    assert counts["unmapped"] == 3 and "C000" not in text


def test_a_usagi_sheet_suggests_what_was_not_accepted_too(tmp_path, settings):
    rows = [("x" * 60, top("C0000001", 0.4, "low", accepted=False))] * 2
    (row,) = table(write("usagi", tmp_path / "out.csv", settings, rows)[0])
    assert (row["sourceName"], row["sourceFrequency"]) == ("x" * 60, "2")
    assert len(row["sourceCode"]) == 50
    assert (row["conceptId"], row["conceptName"]) == ("12", 'One "quoted')
    assert (row["ADD_INFO:cui"], row["mappingStatus"]) == ("C0000001", "UNCHECKED")


def test_omop_needs_its_vocabulary_and_names_a_file_without_its_columns(tmp_path, settings):
    with pytest.raises(UserError, match="omop_concepts"):
        format_of(tmp_path, "omop")(FormatSettings())
    settings.omop_concepts[0].write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="CONCEPT.csv"):
        write("omop", tmp_path / "out.csv", settings)


def test_fhir_has_a_coding_for_each_code_and_the_id_only_where_accepted(tmp_path, settings):
    text, _ = write("fhir", tmp_path / "out.ndjson", settings)
    first, _, third, _, heat, none = map(json.loads, text.splitlines())
    snomed = "http://snomed.info/sct"
    assert [(coding["system"], coding["code"]) for coding in first["coding"]] == [
        (snomed, "100001"),
        (snomed, "100002"),
        ("https://www.nlm.nih.gov/mesh", "D000001"),
        ("http://terminology.hl7.org/CodeSystem/umls", "C0000001"),
    ]
    assert first["extension"][1] == {"url": "urn:umls-reranker:score", "valueDecimal": 0.9}
    assert third["coding"][0]["code"] == "HP:0000002"
    assert "coding" not in heat and heat["text"] == "heat" and len(heat["extension"]) == 3
    assert none["text"] == "none" and len(none["extension"]) == 1


def test_rows_and_tables_have_the_codes_asked_for(tmp_path, settings):
    text, _ = write("jsonl", tmp_path / "out.jsonl", settings, ROWS[:1])
    assert json.loads(text.splitlines()[0])["codes"] == {
        "SNOMEDCT_US": ["100001", "100002"],
        "MSH": ["D000001"],
        "HPO": [],
    }


SHEET = """\
sourceCode,sourceName,sourceAutoAssignedConceptIds,ADD_INFO:cui,mappingStatus,conceptId
a,kept,12,C0000003,APPROVED,12
b,changed,14,C0000003,APPROVED,12
c,by what maps,,,APPROVED,14
d,several,,,APPROVED,12
d,several,,,APPROVED,99
e,nothing,,,APPROVED,0
f,open,12,C0000003,UNCHECKED,12
"""


def test_a_usagi_sheet_gives_mentions_with_the_concepts_that_were_approved(tmp_path, settings):
    (tmp_path / "sheet.csv").write_text(SHEET)
    vocabulary = OmopVocabulary(*settings.omop_concepts)
    sheet = tmp_path / "sheet.csv"
    (rows,) = read_mentions(sheet, 9, UsagiSheets(settings.codes, vocabulary))
    mentions = rows.mappings()
    assert [(mention["mention_id"], mention.get("cui")) for mention in mentions] == [
        ("a", "C0000003"),
        ("b", ["C0000001"]),
        ("c", ["C0000001"]),
        ("d", [["C0000001"], ["OMOP:99"]]),
        ("e", "CUI-less"),
        ("f", None),
    ]
    assert mentions[1]["mention"] == "changed"
    with pytest.raises(UserError, match="--omop_concepts"):
        list(read_mentions(sheet, 9, UsagiSheets(settings.codes)))
