import shutil

import pyarrow as pa
import pytest

from umls_reranker.core.errors import UserError
from umls_reranker.vocab.codes import CODES_FOLDER, Code, ConceptCodes, code_of, write_codes
from umls_reranker.vocab.concepts import Concept, concept_table, write_concepts
from umls_reranker.vocab.ontology import read_obo_concepts
from umls_reranker.vocab.types import TypeHierarchy

CUIS = pa.array(["C0000001", "C0000002", "C0000003"])


def atom(cui, sab, code, tty="SY", ts="S", suppress="N"):
    return f"{cui}|ENG|{ts}|L1|PF|S1|N|A1||||{sab}|{tty}|{code}|a name|0|{suppress}||\n"


def write(path, concepts, files, sources=()):
    """Write concepts and their codes into the folders of an index."""
    for name in ("concepts", CODES_FOLDER):
        (path / name).mkdir()
    write_concepts(concepts, TypeHierarchy.built_in(), path / "concepts")
    return write_codes(path / CODES_FOLDER, concepts["cui"].combine_chunks(), [files], sources)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An index with the codes of two of its three concepts, and its release."""
    path = tmp_path_factory.mktemp("index")
    lines = [
        atom("C0000002", "MSH", "D000002"),
        atom("C0000001", "SNOMEDCT_US", "111", "SY"),
        atom("C0000001", "SNOMEDCT_US", "222", "PT"),
        atom("C0000001", "SNOMEDCT_US", "222", "SY"),
        atom("C0000001", "SNOMEDCT_US", "333", "PT", ts="P"),
        atom("C0000001", "SNOMEDCT_US", "444", "PT", suppress="O"),
        atom("C0000001", "HPO", "HP:0000001"),
        atom("C0000001", "MTH", "NOCODE"),
        atom("C0000001", "UNASKED", "1"),
        atom("C0000009", "MSH", "D000009"),
    ]
    (path / "MRCONSO.RRF").write_text("".join(lines))
    concepts = concept_table(Concept(cui, "a name") for cui in CUIS.to_pylist())
    files = {"MRCONSO": [path / "MRCONSO.RRF"]}
    counts = write(path, concepts, files, ["SNOMEDCT_US", "MSH", "HPO"])
    assert counts == {"SNOMEDCT_US": 3, "MSH": 1, "HPO": 1}
    return path


def test_codes_of_preferred_atoms_come_first_each_once(folder):
    codes = ConceptCodes.load(folder, ["HPO", "SNOMEDCT_US"])
    assert [code.curie for code in codes.of("C0000001")] == [
        "HP:0000001",
        "SNOMEDCT:333",
        "SNOMEDCT:222",
        "SNOMEDCT:111",
    ]


def test_a_concept_without_such_a_code_keeps_its_id(folder):
    codes = ConceptCodes.load(folder, ["SNOMEDCT_US"])
    for cui in ("C0000002", "C0000003", "C0000099"):
        assert codes.of(cui) == (Code("UMLS", cui),)


def test_codes_that_a_folder_lacks_are_named(folder, tmp_path):
    with pytest.raises(UserError, match="RXNORM"):
        ConceptCodes.load(folder, ["MSH", "RXNORM"])
    with pytest.raises(UserError, match="RXNORM"):
        write_codes(folder, CUIS, [{"MRCONSO": [folder / "MRCONSO.RRF"]}], ["MSH", "RXNORM"])
    shutil.copytree(folder / "concepts", tmp_path / "concepts")
    with pytest.raises(UserError, match=tmp_path.name):
        ConceptCodes.load(tmp_path, ["MSH"])


@pytest.mark.parametrize(
    ("concept_id", "sources", "code"),
    [
        ("C0011860", ["MSH"], Code("UMLS", "C0011860")),
        ("MESH:D003924", [], Code("MSH", "D003924")),
        ("C565588", ["MSH", "OMIM"], Code("MSH", "C565588")),
        ("613097", ["MSH", "OMIM"], Code("OMIM", "613097")),
        ("613097", [], Code("", "613097")),
        ("HP:0000118", [], Code("HPO", "HP:0000118")),
        ("DOID:4", [], Code("DOID", "DOID:4")),
        ("my id", ["MSH"], Code("", "my id")),
    ],
)
def test_an_id_is_a_code_by_its_prefix_or_by_the_form_asked_for(concept_id, sources, code):
    assert code_of(concept_id, sources) == code


def test_ids_of_a_file_of_names_are_codes_as_its_alternates_are(tmp_path):
    path = tmp_path / "medic.txt"
    path.write_text("C567755|613097||Tooth Agenesis|STHAG6\n")
    codes = ConceptCodes.read(path, ["OMIM", "MSH"])
    assert codes.of("C567755") == (Code("OMIM", "613097"), Code("MSH", "C567755"))


def test_codes_of_a_release_are_read_for_all_its_concepts(folder):
    codes = ConceptCodes.read(folder, ["SNOMEDCT_US", "MSH"])
    assert [codes.of(cui)[0].code for cui in ("C0000001", "C0000009")] == ["333", "D000009"]


def test_a_term_with_several_cuis_says_which_was_taken_and_the_others(tmp_path):
    lines = ["[Term]", "id: HP:0000001", "name: one", "xref: UMLS:C0000002", "xref: UMLS:C0000007"]
    lines += ["property_value: skos:exactMatch UMLS:C0000001", ""]
    lines += ["[Term]", "id: HP:0000002", "name: other", "xref: UMLS:C0000001"]
    path = tmp_path / "x.obo"
    path.write_text("\n".join(lines) + "\n")
    ontology = read_obo_concepts([path])
    assert ontology.report["several_cuis"] == 1
    counts = write(tmp_path, concept_table(ontology.concepts), {"obo": [path]})
    assert counts == {"HPO": 2, "UMLS": 3}
    codes = ConceptCodes.load(tmp_path, ["HPO", "UMLS"]).of("C0000001")
    assert [code.code for code in codes] == [
        "HP:0000001",
        "HP:0000002",
        "C0000001",
        "C0000002",
        "C0000007",
    ]
