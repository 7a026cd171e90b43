import json
import shutil

import pyarrow as pa
import pytest
from data_fixtures import TYPES

from umls_reranker.core.errors import UserError
from umls_reranker.vocab.codes import CODES_FOLDER, Code, ConceptCodes, code_of, write_codes
from umls_reranker.vocab.concepts import Concept, concept_table, write_concepts
from umls_reranker.vocab.ontology import read_obo_concepts
from umls_reranker.vocab.types import SemanticType, TypeHierarchy

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


@pytest.fixture
def network():
    parents = {
        "T072": "T071",
        "T023": "T072",
        "T121": "T072",
        "T033": "T071",
        "T184": "T033",
        "T061": "T051",
    }
    parents |= {"T070": "T051", "T046": "T070", "T047": "T046"}
    types = (
        SemanticType(id, name, parents.get(id), group) for id, (_, name, group, _) in TYPES.items()
    )
    return TypeHierarchy(types, {group: name for _, _, group, name in TYPES.values()})


def test_chains_end_in_the_group(network):
    assert len(network) == 11
    chains = {
        "T047": ["T047", "T046", "T070", "T051", "group:DISO"],
        "T023": ["T023", "T072", "T071", "group:ANAT"],
        "T071": ["T071", "group:CONC"],
        "group:DISO": [],
        "UnknownType": [],
    }
    assert {kind: network.chain(kind) for kind in chains} == chains


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        ("T047", "T047"),
        ("t047", "T047"),
        (" DISEASE  or syndrome ", "T047"),
        ("group:diso", "group:DISO"),
        ("disorders", "group:DISO"),
        ("UnknownType", None),
    ],
)
def test_resolves_ids_and_names_in_any_case(network, given, resolved):
    assert network.resolve(given) == resolved


def test_descendants(network):
    descendants = {
        "T051": ["T051", "T061", "T070", "T046", "T047"],
        "group:DISO": ["T033", "T184", "T046", "T047"],
        "T999": [],
    }
    assert {kind: network.descendants(kind) for kind in descendants} == descendants


def test_a_type_without_group_takes_its_ancestors():
    network = TypeHierarchy([SemanticType("a", "A", None, "G"), SemanticType("b", "B", "a")])
    assert network.chain("b") == ["b", "a", "group:G"]


def test_ids_win_over_names_and_types_over_groups():
    network = TypeHierarchy(
        [SemanticType("a", "b", None, "G"), SemanticType("b", "Anatomy")], {"G": "Anatomy"}
    )
    assert network.resolve("B") == "b"
    assert network.resolve("anatomy") == "b"


def test_save_and_load(network):
    content = json.loads(json.dumps(network.to_dict()))
    again = TypeHierarchy.from_dict(content)
    assert [again.chain(each) for each in again] == [network.chain(each) for each in network]
    assert (again.name("T184"), again.name("group:ANAT"), again.name("T9")) == (
        "Sign or Symptom",
        "Anatomy",
        "T9",
    )


@pytest.mark.parametrize(
    "types",
    [
        [SemanticType("a", "A"), SemanticType("a", "B")],
        [SemanticType("a", "A", "b")],
        [SemanticType("a", "A", "b"), SemanticType("b", "B", "a")],
    ],
)
def test_impossible_hierarchies_are_refused(types):
    with pytest.raises(UserError, match=r"\ba\b"):
        TypeHierarchy(types)


@pytest.mark.parametrize(
    "content",
    [
        {"schema_version": 2, "types": [], "groups": {}},
        {"schema_version": 1, "types": [{"id": 1, "name": None}], "groups": {}},
        {"types": []},
        [],
    ],
)
def test_what_is_no_hierarchy_is_refused(content):
    with pytest.raises(UserError):
        TypeHierarchy.from_dict(content)


def test_the_network_built_in_is_whole():
    network = TypeHierarchy.built_in()
    groups = {network[type_id].group for type_id in network}
    assert (len(network), len(groups)) == (127, 15)
    assert network.chain("T191") == [
        "T191",
        "T047",
        "T046",
        "T038",
        "T070",
        "T067",
        "T051",
        "group:DISO",
    ]
    assert (
        network.resolve("disease or syndrome") == "T047"
        and network.name("group:CHEM") == "Chemicals & Drugs"
    )
    assert [type_id for type_id in network if network[type_id].parent is None] == ["T071", "T051"]
