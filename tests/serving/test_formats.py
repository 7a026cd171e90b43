"""Formats of ranked files, on rows whose answers are made up."""

import csv
import io
import json
import re
from dataclasses import replace
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from umls_reranker.core.errors import UserError
from umls_reranker.linking.mentions import UsagiSheets, read_answers, read_mentions
from umls_reranker.lists.table import LINE, row_table
from umls_reranker.serving.input_columns import RANKED
from umls_reranker.serving.omop_vocabulary import OmopVocabulary
from umls_reranker.serving.output_format import FormatSettings, LinesFormat
from umls_reranker.serving.outputs import OUTPUT_FORMATS, brought, format_of
from umls_reranker.serving.ranked_candidate import RANKED_TYPE
from umls_reranker.serving.row_counts import RowCounts
from umls_reranker.serving.rows import RankedRows
from umls_reranker.vocab.concept_codes import ConceptCodes
from umls_reranker.vocab.concept_columns import ConceptColumns
from umls_reranker.vocab.concepts import Concept, concept_table

BEST = {"cui": "C1", "name": "colds", "score": 0.9, "tier": "high", "accepted": True}
SAME = {"cui": "C1", "name": "cold", "score": 0.9}
NEXT = {"cui": "C2", "name": "chill, a", "score": 0.1}
ROWS = [
    {
        "mention": "cold",
        "start": 3,
        "entity_type": ["T047", "T184"],
        "negated": True,
        "x": {"a": 1},
    },
    {"mention": "é\ud800", "start": None, "tier": "former", "candidates": ["cold"]},
]


def part(rows, ranked, errors):
    return RankedRows(row_table(rows), pa.array(ranked, pa.list_(RANKED_TYPE)), errors)


PARTS = [part(ROWS[:1], [[BEST, SAME, NEXT]], [None]), part(ROWS[1:], [None], ["no list"])]


def write(path, parts=PARTS):
    format_of(path)().write(path, parts)
    return path


def test_a_table_of_text_has_what_the_input_brought_and_the_answer(tmp_path):
    path = write(tmp_path / "out.csv")
    assert path.read_text().splitlines() == [
        "mention,start,entity_type,negated,x,input_tier,answer,answer_name,answer_score,tier,"
        "accepted,second,second_name,second_score,error",
        'cold,3,T047|T184,true,"{""a"": 1}",,C1,colds,0.9,high,true,C2,"chill, a",0.1,',
        "é\\ud800,,,,,former,,,,,,,,,no list",
    ]
    tabs = write(tmp_path / "out.tsv").read_text().splitlines()
    assert tabs[2].count("\t") == 14


def test_a_table_of_mappings_keeps_the_types_of_plain_values(tmp_path):
    table = pq.read_table(write(tmp_path / "out.parquet"))
    kinds = dict(zip(table.column_names, map(str, table.schema.types), strict=True))
    kept = {"start": "int64", "negated": "bool", "entity_type": "list<element: string>"}
    assert kinds.items() >= (kept | {"x": "string", "accepted": "bool"}).items()
    first, second = table.to_pylist()
    assert (first["start"], first["x"], first["answer"]) == (3, '{"a": 1}', "C1")
    assert [item["name"] for item in first["ranked"]] == ["colds", "cold", "chill, a"]
    assert (second["ranked"], second["answer"], second["tier"]) == (None, None, None)
    assert (second["mention"], second["error"]) == ("é\\ud800", "no list")


def test_a_table_has_the_columns_of_all_parts_and_values_of_several_types_become_text():
    day = date(2026, 1, 2)
    rows = [
        [{"n": 1, "m": True, "big": 2**70, "none": None, "day": "x"}],
        [{"n": 0.5, "m": 1, "late": ["a"]}],
        pa.table({"n": [3], "day": [day], "only": [day]}),
    ]
    parts = [part(content, [[]], [None]) for content in rows]
    kinds = dict(zip(brought(parts).names, map(str, brought(parts).types), strict=True))
    assert kinds == {
        "n": "double",
        "m": "string",
        "big": "string",
        "none": "null",
        "day": "string",
        "late": "list<item: string>",
        "only": "date32[day]",
    }


def test_a_part_is_read_as_it_was_saved(tmp_path):
    """JSON repeats its values; a table keeps its types, and what says pandas about them."""
    line = '{"a": 1, "b": [1, "x", {"c": null}], "\\ud800": 12345678901234567890123, "d": NaN}'
    row = json.loads(line)
    table = pa.table({"a": pa.array([7], pa.uint8()), LINE: ["x"]}).replace_schema_metadata(
        {"pandas": "{}"}
    )
    for content in ([row | {RANKED: 7, "error": ""}], table):
        saved = part(content, [[BEST]], [None])._replace(counts=RowCounts(ranked=1))
        saved.save(tmp_path / "0.arrow")
        loaded = RankedRows.load(tmp_path / "0.arrow")
        assert loaded.ranked.equals(saved.ranked) and loaded.counts == RowCounts(ranked=1)
        if content is table:
            assert loaded.content.schema.equals(table.schema, check_metadata=True)
            assert loaded.content.equals(table)
        else:
            assert repr(loaded.mappings()) == repr([row])


def test_a_format_is_a_class_and_a_line(tmp_path, monkeypatch):
    class Answers(LinesFormat):
        name = "answers"
        help = "the answers alone"

        def lines(self, rows):
            return [f"{row['answer']}\n".encode() for row in rows.answers()]

    monkeypatch.setitem(OUTPUT_FORMATS, Answers.name, Answers)
    format_of(tmp_path / "out.txt", "answers")().write(tmp_path / "out.txt", PARTS)
    assert (tmp_path / "out.txt").read_text() == "C1\nNone\n"
    for name in (None, "answer"):
        with pytest.raises(UserError, match="answer|out.txt"):
            format_of(tmp_path / "out.txt", name)


def test_json_lines_repeat_the_row_with_its_ranking(tmp_path):
    lines = write(tmp_path / "out.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert first["x"] == {"a": 1} and first["ranked"][0]["cui"] == "C1"
    assert second["error"] == "no list" and "ranked" not in second


# Formats of other tools: which codes are written for what


# Codes of the concepts, best first: the first of C0000001 maps to nothing.
CODES_OF_CONCEPTS = {
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


ANSWERED = [
    ("cold", top("C0000001", 0.9)),
    ("cold", top("C0000001", 0.7, "medium")),
    ("cold", top("C0000002", 0.95)),
    ('a "b"\tc', top("C0000002", 0.8)),
    ("heat", top("C0000003", 0.4, "low", accepted=False)),
    ("none", None),
]


@pytest.fixture
def settings(tmp_path):
    concepts = ConceptColumns(concept_table(Concept(cui, "a name") for cui in CODES_OF_CONCEPTS))
    codes = ConceptCodes(
        SOURCES, concepts, pa.array(CODES_OF_CONCEPTS.values(), pa.list_(pa.string()))
    )
    files = (tmp_path / "CONCEPT.csv", tmp_path / "CONCEPT_RELATIONSHIP.csv")
    for path, text in zip(files, (CONCEPT, RELATIONSHIP), strict=True):
        path.write_text(text)
    return FormatSettings(codes, "org/model", files)


def write_format(name, path, settings, rows=ANSWERED, beside=None):
    """Write rows of two parts; returns the text of the file and the format's counts."""
    parts = []
    for batch in (rows[:2], rows[2:]):
        content = [
            {"mention": text, "left": SECRET, "right": SECRET, "document": SECRET, "doc_id": 7}
            | dict(*about)
            for text, _, *about in batch
        ]
        items = [item for _, item, *_ in batch]
        ranked = [item if isinstance(item, list) else [item] if item else [] for item in items]
        parts.append(part(content, ranked, [None] * len(batch)))
    output = format_of(path, name)(settings)
    output.write(path, parts)
    if beside is not None:
        output.write_beside(beside, parts)
    text = path.read_text()
    assert name in ("jsonl", "csv") or SECRET not in text
    return text, output.counts


def table(text, delimiter=","):
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines, delimiter=delimiter))


def test_sssom_maps_each_string_once_to_all_codes_of_its_most_frequent_answer(tmp_path, settings):
    text, counts = write_format("sssom", tmp_path / "out.tsv", settings)
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
    assert {row["subject_type"] for row in rows} == {"rdfs literal"} and rows[0]["subject_id"] == ""
    assert counts == {"strings": 4, "without an answer": 2, "with conflicting answers": 1}


def test_scores_that_are_not_calibrated_are_no_confidence(tmp_path):
    rows = [("cold", top("C0000001", 0.6, None, None))] * 2
    settings = FormatSettings(only_accepted=False)
    row, *_ = table(write_format("sssom", tmp_path / "out.tsv", settings, rows)[0], "\t")
    assert (row["object_id"], row["predicate_id"]) == ("UMLS:C0000001", "skos:mappingRelation")
    assert (row["confidence"], row["similarity_score"]) == ("", "0.6")
    text, _ = write_format("fhir", tmp_path / "out.ndjson", FormatSettings(), rows)
    urls = [item["url"] for item in json.loads(text.splitlines()[0])["extension"]]
    assert urls == ["urn:umls-reranker:doc-id", "urn:umls-reranker:uncalibrated-score"]


def test_omop_has_the_standard_concept_of_the_first_code_that_maps_and_0_else(tmp_path, settings):
    text, counts = write_format("omop", tmp_path / "out.csv", settings)
    rows = [
        (row["source_code"], row["target_concept_id"]) for row in csv.DictReader(text.splitlines())
    ]
    assert rows == [("cold", "12"), ('a "b"\tc', "0"), ("heat", "0"), ("none", "0")]
    assert counts["unmapped"] == 3 and "C000" not in text


@pytest.mark.parametrize("wrong", ["1e5", "", "-5", "9" * 25])
def test_a_concept_id_that_is_no_integer_of_omop_is_refused(tmp_path, settings, wrong):
    concepts, _ = settings.omop_concepts
    content = concepts.read_text().replace("12\t", f"{wrong}\t")
    assert content != concepts.read_text()
    relationships = settings.omop_concepts[1]
    relationships.write_text(relationships.read_text().replace("12\t", f"{wrong}\t"))
    concepts.write_text(content)
    with pytest.raises(UserError, match=re.escape(f"CONCEPT.csv: the concept_id {wrong!r}")):
        write_format("omop", tmp_path / "out.csv", settings)


def test_a_long_name_of_a_vocabulary_fits_the_column_of_omop(tmp_path, settings):
    names = [f"laboratory of the hospital {number}" for number in range(2)]
    rows = [("cold", top("C0000001", 0.9), {"source_vocabulary": name}) for name in names]
    written = table(write_format("omop", tmp_path / "out.csv", settings, rows)[0], ",")
    assert [len(row["source_vocabulary_id"]) for row in written] == [20, 20]
    assert len({row["source_vocabulary_id"] for row in written}) == 2


def test_a_usagi_sheet_suggests_what_was_not_accepted_too(tmp_path, settings):
    rows = [("x" * 60, top("C0000001", 0.4, "low", accepted=False))] * 2
    (row,) = table(write_format("usagi", tmp_path / "out.csv", settings, rows)[0])
    assert (row["sourceName"], row["sourceFrequency"]) == ("x" * 60, "2")
    assert len(row["sourceCode"]) == 50
    assert (row["conceptId"], row["conceptName"]) == ("12", 'One "quoted')
    assert (row["ADD_INFO:cui"], row["mappingStatus"]) == ("C0000001", "UNCHECKED")


def test_omop_needs_its_vocabulary_and_names_a_file_without_its_columns(tmp_path, settings):
    with pytest.raises(UserError, match="omop_concepts"):
        format_of(tmp_path, "omop")(FormatSettings())
    settings.omop_concepts[0].write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="CONCEPT.csv"):
        write_format("omop", tmp_path / "out.csv", settings)


def test_fhir_has_a_coding_for_each_code_and_the_id_only_where_accepted(tmp_path, settings):
    text, _ = write_format("fhir", tmp_path / "out.ndjson", settings)
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


REVIEWED = {
    "reviewed_id": "C0000002",
    "reviewed_name": "Two",
    "reviewer": "ann",
    "reviewed_on": "2026-11-30",
    "review_comment": "seen",
}
TERMS = [
    ("cold", top("C0000001", 0.9), {"source_code": "L1", "frequency": "19"}),
    ("cold", top("C0000001", 0.9), {"sourceCode": "7", "source_vocabulary": "SNOMED"}),
    ("=hot", top("C0000003", 0.9), {"source_code": "L3"} | REVIEWED | {"reviewed_targets": ["14"]}),
    ("none", top("C0000001", 0.9), REVIEWED | {"reviewed_id": "CUI-less", "reviewed_name": None}),
    ("warm", top("C0000001", 0.4, "low", accepted=False), {"source_code": "L5"}),
]


def test_an_approved_target_may_be_no_concept_of_the_dictionary(tmp_path, settings):
    far = REVIEWED | {"reviewed_id": "OMOP:9", "reviewed_name": None}
    text, _ = write_format(
        "fhir", tmp_path / "far.ndjson", settings, [("far", top("C1", 0.9), far)]
    )
    assert json.loads(text)["coding"][0].keys() == {"system", "code"}


def test_source_codes_and_answers_of_reviewers_live_in_every_format(tmp_path, settings):
    rows = table(write_format("sssom", tmp_path / "out.tsv", settings, TERMS)[0], "\t")
    assert [(row["subject_id"], row["subject_type"], row["object_id"]) for row in rows[::3]] == [
        ("local:L1", "", "SNOMEDCT:100001"),
        ("SNOMEDCT:7", "", "SNOMEDCT:100001"),
        ("local:L3", "", "HP:0000002"),
    ]
    assert rows[6]["mapping_justification"] == "semapv:ManualMappingCuration"
    about = ("confidence", "mapping_tool", "author_label", "mapping_date", "comment")
    assert [rows[6][name] for name in about] == ["", "", "ann", "2026-11-30", "seen"]
    rows = table(write_format("omop", tmp_path / "out.csv", settings, TERMS)[0])
    keys = ("source_code", "source_vocabulary_id", "target_concept_id")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        ("L1", "umls_reranker", "12"),
        ("7", "SNOMED", "12"),
        ("L3", "umls_reranker", "14"),
        ("none", "umls_reranker", "0"),
        ("L5", "umls_reranker", "0"),
    ]
    text, _ = write_format("usagi", tmp_path / "sheet.csv", settings, TERMS)
    keys = ("sourceCode", "sourceFrequency", "mappingStatus", "statusSetBy", "conceptId")
    assert [tuple(row[key] for key in keys) for row in table(text)] == [
        ("L1", "19", "UNCHECKED", "", "12"),
        ("7", "1", "UNCHECKED", "", "12"),
        ("L3", "1", "APPROVED", "ann", "14"),
        ("none", "1", "APPROVED", "ann", "0"),
        ("L5", "1", "UNCHECKED", "", "12"),
    ]
    # As what was approved, with the reviewer and the day, it is read again.
    read = [answer for _, answer in read_answers([tmp_path / "sheet.csv"])]
    answers = {answer.term.code: answer for answer in read}
    assert answers["L3"][2:7] == ("C0000002", "ann", "2026-11-30", "seen", ("14",))
    assert (answers["none"].gold, answers["L1"].gold) == ("CUI-less", None)
    text, _ = write_format("fhir", tmp_path / "out.ndjson", settings, TERMS)
    concepts = [json.loads(line) for line in text.splitlines()]
    assert [concept.get("coding", [{}])[-1].get("code") for concept in concepts] == [
        *("L1", "7", "L3"),
        None,
        "L5",
    ]
    assert concepts[1]["coding"][-1]["system"] == "http://snomed.info/sct"
    assert concepts[2]["coding"][0] == {
        "system": "http://human-phenotype-ontology.org",
        "code": "HP:0000002",
    }
    assert [len(concept["coding"]) for concept in concepts[4:]] == [1]


def test_what_is_not_accepted_goes_to_a_sheet_and_formulas_get_an_apostrophe(tmp_path, settings):
    settings = replace(settings, for_spreadsheet=True)
    rows = [*TERMS, ("-hot", top("C0000003", 0.4, "low", accepted=False, name="=1+1"))]
    text, _ = write_format(
        "sssom", tmp_path / "out.tsv", settings, rows, beside=tmp_path / "rest.csv"
    )
    rest = table((tmp_path / "rest.csv").read_text())
    assert [(row["mention"], row["source_code"], row["id_1"]) for row in rest] == [
        ("warm", "L5", "C0000001"),
        ("'-hot", "", "C0000003"),
    ]
    assert rest[1]["name_1"] == "'=1+1" and "hot" not in text.replace("=hot", "")


def test_further_candidates_are_rows_of_sssom_and_columns_of_csv(tmp_path):
    items = [top(f"C000000{n}", 1 / (1 + n), "low", accepted=False) for n in (1, 2, 3)]
    settings = FormatSettings(only_accepted=False, top=3)
    rows = table(
        write_format("sssom", tmp_path / "o.tsv", settings, [("a", items), ("b", items)])[0], "\t"
    )
    assert [row["object_id"][-1] + row["confidence"] for row in rows[:3]] == [
        "10.5",
        "20.333333",
        "30.25",
    ]
    assert len(rows) == 6
    rows = table(
        write_format("csv", tmp_path / "o.csv", settings, [("a", items), ("b", items[:1])])[0]
    )
    assert [(row["second"], row["cui_3"]) for row in rows] == [("C0000002", "C0000003"), ("", "")]


def test_further_candidates_are_no_conflict(tmp_path):
    items = [top(f"C000000{n}", 1 / (1 + n), "low", accepted=False) for n in (1, 2, 3)]
    settings = FormatSettings(only_accepted=False, top=3)
    answered = [("a", items), ("b", items), ("b", items[::-1])]
    text, counts = write_format("sssom", tmp_path / "o.tsv", settings, answered)
    assert counts["with conflicting answers"] == 1
    comments = {
        (row["subject_label"], row["object_id"][-1]): row["comment"] for row in table(text, "\t")
    }
    assert comments["a", "1"] == "1 of 1 mentions"
    assert comments["a", "2"] == "0 of 1 mentions; others: C0000001 (1)"
    assert comments["b", "3"] == "1 of 2 mentions; others: C0000001 (1)"


def test_a_prefix_that_nobody_registered_is_this_packages(tmp_path):
    ids = ("LOCAL:A1", "MESH:D1", "UBERON:0004416", "ORDO:725")
    rows = [(cui.lower(), top(cui, 0.9)) for cui in ids]
    text, _ = write_format("sssom", tmp_path / "o.tsv", FormatSettings(), rows)
    header = [line.removeprefix("#") for line in text.splitlines() if line.startswith("#")]
    prefixes = yaml.safe_load("\n".join(header))["curie_map"]
    assert prefixes["LOCAL"] == "urn:umls-reranker:LOCAL:"
    assert prefixes["MESH"] == "http://id.nlm.nih.gov/mesh/"
    assert prefixes["UBERON"] == "http://purl.obolibrary.org/obo/UBERON_"
    assert prefixes["ORDO"] == "http://www.orpha.net/ORDO/Orphanet_"


def test_odd_ids_and_texts_are_escaped(tmp_path):
    rows = [
        ("a\0\nb", top(cui, 0.9), {"source_code": code, "source_vocabulary": "My: #x"})
        for cui, code in (("X\nY:9", "a\tb"), ("#c:1", " x"), ("=1+1:7", "\x01"), ("&a:1", "1:2"))
    ]
    text, _ = write_format("sssom", tmp_path / "out.tsv", FormatSettings(), rows)
    header = [line.removeprefix("#") for line in text.splitlines() if line.startswith("#")]
    prefixes = yaml.safe_load("\n".join(header))["curie_map"]
    assert {*prefixes} >= {"X_Y", "_c", "_a", "My___x"}
    for row in csv.DictReader(io.StringIO(text.split("\n", len(header))[-1]), delimiter="\t"):
        for key in ("subject_id", "object_id"):
            prefix, _, code = row[key].partition(":")
            assert prefix in prefixes and re.fullmatch(r"[\w%.:/+-]+", code)
    text, _ = write_format("fhir", tmp_path / "out.ndjson", FormatSettings(), rows)
    for line in text.splitlines():
        concept = json.loads(line)
        assert re.fullmatch(r"[ \r\n\t\S]+", concept["text"]) and "\0" not in concept["text"]
        for coding in concept["coding"]:
            assert re.fullmatch(r"\S+", coding["system"])
            assert re.fullmatch(r"\S+( \S+)*", coding.get("code", "x"))


def test_rows_and_tables_have_the_codes_asked_for(tmp_path, settings):
    text, _ = write_format("jsonl", tmp_path / "out.jsonl", settings, ANSWERED[:1])
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


# Read by packages that others wrote


COLD = {"SNOMEDCT:100001", "SNOMEDCT:100002", "MESH:D000001"}
# What the accepted answers of `ROWS` are, by mention and by string.
CODES = [COLD, COLD, {"HP:0000002"}, {"HP:0000002"}, set(), set()]
CODES_OF_STRINGS = {"cold": COLD, 'a "b"\tc': {"HP:0000002"}}
SYSTEMS = {
    "http://snomed.info/sct": "SNOMEDCT:",
    "https://www.nlm.nih.gov/mesh": "MESH:",
    "http://human-phenotype-ontology.org": "",
    "http://terminology.hl7.org/CodeSystem/umls": "UMLS:",
}


@pytest.mark.extra
def test_sssom_reads_literal_mappings_with_these_codes(tmp_path, settings):
    parsers = pytest.importorskip("sssom.parsers", reason="needs the extra readers")
    write_format("sssom", tmp_path / "out.sssom.tsv", settings)
    mappings = parsers.parse_sssom_table(str(tmp_path / "out.sssom.tsv"))
    codes = {}
    for mapping in parsers.to_mapping_set_document(mappings).mapping_set.mappings:
        assert mapping.subject_id is None and mapping.subject_type.code.text == "rdfs literal"
        assert mapping.mapping_justification == "semapv:CompositeMatching"
        assert mapping.mapping_tool == "umls_reranker" and mapping.mapping_tool_version
        mappings.converter.expand(mapping.object_id, strict=True)
        codes.setdefault(mapping.subject_label, set()).add(mapping.object_id)
    assert codes == CODES_OF_STRINGS


@pytest.mark.extra
def test_fhir_resources_reads_concepts_with_these_codes(tmp_path, settings):
    module = pytest.importorskip("fhir.resources.codeableconcept", reason="needs the extra readers")
    text, _ = write_format("fhir", tmp_path / "out.ndjson", settings)
    for line, codes, (mention, top) in zip(text.splitlines(), CODES, ANSWERED, strict=True):
        concept = module.CodeableConcept.model_validate_json(line)
        values = {extension.url: extension for extension in concept.extension}
        assert concept.text == mention
        assert top is None or float(values["urn:umls-reranker:score"].valueDecimal) == top["score"]
        read = {SYSTEMS[coding.system] + coding.code for coding in concept.coding or ()}
        assert read == (codes | {f"UMLS:{top['cui']}"} if codes else set())


HEADER = b"sourceCode,sourceName,mappingStatus,conceptId,note\n"


@pytest.mark.parametrize("row", [b"a,g\xe8ne,UNCHECKED,0,\n", b'a,"cold,UNCHECKED,0,\n'])
def test_a_usagi_sheet_that_cannot_be_read_is_named(tmp_path, row):
    (tmp_path / "sheet.csv").write_bytes(HEADER + row)
    with pytest.raises(UserError, match="sheet.csv"):
        list(read_mentions(tmp_path / "sheet.csv", 9))


def test_sheets_with_carriage_returns_and_long_cells_are_read(tmp_path):
    row = b"a,cold,UNCHECKED,0," + b"x" * 200_000 + b"\n"
    (tmp_path / "sheet.csv").write_bytes((HEADER + row).replace(b"\n", b"\r"))
    (rows,) = read_mentions(tmp_path / "sheet.csv", 9)
    ids = dict.fromkeys(("doc_id", "mention_id", "source_code"), "a")
    assert rows.mappings() == [ids | {"mention": "cold"}]
