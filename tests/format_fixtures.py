"""Answers that are made up, a vocabulary of codes, and one of OMOP.

PYTEST_DONT_REWRITE: test modules import from here before pytest takes it as a plugin.
"""

import pyarrow as pa
import pytest

from umls_reranker.serving.outputs import format_of
from umls_reranker.serving.rows import RANKED_TYPE, FormatSettings, RankedRows
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
    """Write rows of two parts; returns the text of the file and the format's counts."""
    parts = []
    for batch in (rows[:2], rows[2:]):
        content = [
            {"mention": text, "left": SECRET, "right": SECRET, "document": SECRET, "doc_id": 7}
            for text, _ in batch
        ]
        ranked = pa.array([[item] if item else [] for _, item in batch], pa.list_(RANKED_TYPE))
        parts.append(RankedRows(content, ranked, [None] * len(batch)))
    output = format_of(path, name)(settings)
    output.write(path, parts)
    text = path.read_text()
    assert name == "jsonl" or SECRET not in text
    return text, output.counts
