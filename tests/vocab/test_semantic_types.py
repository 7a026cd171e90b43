import json

import pytest
from data_fixtures import TYPES

from umls_reranker.core.errors import UserError
from umls_reranker.vocab.types import SemanticType, TypeHierarchy


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
