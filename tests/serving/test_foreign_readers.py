"""Files in the formats of other tools, read by packages that others wrote."""

import pytest
from format_fixtures import ROWS, write

pytest_plugins = ["format_fixtures"]
pytestmark = pytest.mark.extra

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


def test_sssom_reads_literal_mappings_with_these_codes(tmp_path, settings):
    parsers = pytest.importorskip("sssom.parsers", reason="needs the extra readers")
    write("sssom", tmp_path / "out.sssom.tsv", settings)
    mappings = parsers.parse_sssom_table(str(tmp_path / "out.sssom.tsv"))
    codes = {}
    for mapping in parsers.to_mapping_set_document(mappings).mapping_set.mappings:
        assert mapping.subject_id is None and mapping.subject_type.code.text == "rdfs literal"
        assert mapping.mapping_justification == "semapv:CompositeMatching"
        assert mapping.mapping_tool == "umls_reranker" and mapping.mapping_tool_version
        mappings.converter.expand(mapping.object_id, strict=True)
        codes.setdefault(mapping.subject_label, set()).add(mapping.object_id)
    assert codes == CODES_OF_STRINGS


def test_fhir_resources_reads_concepts_with_these_codes(tmp_path, settings):
    module = pytest.importorskip("fhir.resources.codeableconcept", reason="needs the extra readers")
    text, _ = write("fhir", tmp_path / "out.ndjson", settings)
    for line, codes, (mention, top) in zip(text.splitlines(), CODES, ROWS, strict=True):
        concept = module.CodeableConcept.model_validate_json(line)
        values = {extension.url: extension for extension in concept.extension}
        assert concept.text == mention
        assert top is None or float(values["urn:umls-reranker:score"].valueDecimal) == top["score"]
        read = {SYSTEMS[coding.system] + coding.code for coding in concept.coding or ()}
        assert read == (codes | {f"UMLS:{top['cui']}"} if codes else set())
