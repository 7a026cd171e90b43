"""Formats of other tools, on rows whose answers are made up: which codes are written for what."""

import csv
import json

import pyarrow as pa
import pytest

from umls_reranker.core.errors import UserError
from umls_reranker.serving.output_formats import format_of
from umls_reranker.serving.outputs import FormatSettings, RankedRows
from umls_reranker.serving.rows import RANKED_TYPE
from umls_reranker.vocab.codes import ConceptCodes
from umls_reranker.vocab.concepts import Concept, ConceptColumns, concept_table

# Codes of the concepts, best first: the first of C0000001 maps to nothing.
CODES = {
    "C0000001": ["SNOMEDCT_US:100001", "SNOMEDCT_US:100002", "MSH:D000001"],
    "C0000002": ["HPO:HP:0000002"],
    "C0000003": ["SNOMEDCT_US:100001"],
}
SOURCES = ["SNOMEDCT_US", "MSH", "HPO"]
SECRET = "text around the mention"
CONCEPT = """\
concept_id\tconcept_name\tdomain_id\tvocabulary_id\tconcept_class_id\tstandard_concept\t\
concept_code\tvalid_start_date\tvalid_end_date\tinvalid_reason
11\tOld\tCondition\tSNOMED\tx\t\t100001\t19700101\t20990131\tD
12\tOne "quoted\tCondition\tSNOMED\tx\tS\t100002\t19700101\t20991231\t
13\tOne of MeSH\tCondition\tMeSH\tx\t\tD000001\t19700101\t20991231\t
14\tTwo\tCondition\tICD10CM\tx\tS\t100002\t19700101\t20991231\t
"""
RELATIONSHIP = """\
concept_id_1\tconcept_id_2\trelationship_id\tvalid_start_date\tvalid_end_date\tinvalid_reason
11\t12\tMaps to\t19700101\t20991231\tD
12\t12\tMaps to\t19700101\t20991231\t
12\t14\tIs a\t19700101\t20991231\t
13\t14\tMaps to\t19700101\t20991231\t
"""


def top(cui, score, tier="high", accepted=True, name="a name"):
    return {"cui": cui, "name": name, "score": score, "tier": tier, "accepted": accepted}


ROWS = [
    ("cold", top("C0000001", 0.9)),
    ("cold", top("C0000001", 0.7, "medium")),
    ("cold", top("C0000002", 0.95)),
    ('a "b"\tc', top("C0000002", 0.8)),
    ("heat", top("C0000003", 0.4, "low", accepted=False)),
    ("none", None),
]


@pytest.fixture
def settings(tmp_path):
    concepts = ConceptColumns(concept_table(Concept(cui, "a name") for cui in CODES))
    codes = ConceptCodes(SOURCES, concepts, pa.array(CODES.values(), pa.list_(pa.string())))
    files = (tmp_path / "CONCEPT.csv", tmp_path / "CONCEPT_RELATIONSHIP.csv")
    for path, text in zip(files, (CONCEPT, RELATIONSHIP), strict=True):
        path.write_text(text)
    return FormatSettings(codes, "org/model", files)


def write(name, path, settings, rows=ROWS):
    """Write rows in two batches; returns the text of the file and the format's counts."""
    output = format_of(path, name)({}, settings)
    with output.writing(path) as write_content:
        for batch in (rows[:2], rows[2:]):
            content = [
                {"mention": text, "left": SECRET, "right": SECRET, "document": SECRET, "doc_id": 7}
                for text, _ in batch
            ]
            ranked = pa.array([[item] if item else [] for _, item in batch], pa.list_(RANKED_TYPE))
            write_content(output.content(RankedRows(content, ranked, [None] * len(batch))))
    text = path.read_text()
    assert name == "jsonl" or SECRET not in text
    return text, output.counts


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
        format_of(tmp_path, "omop")({}, FormatSettings())
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
