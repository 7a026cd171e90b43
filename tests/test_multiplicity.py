"""Which certificates are tested, and at what confidence each."""

import numpy as np
import pytest

from umls_reranker.calibration.lineage import memberships
from umls_reranker.calibration.multiplicity import confidence_levels
from umls_reranker.data.semantic_types import SemanticType, TypeHierarchy

HIERARCHY = TypeHierarchy.from_edges(
    [
        SemanticType("T047", "Disease or Syndrome", None, "DISO"),
        SemanticType("T184", "Sign or Symptom", None, "DISO"),
        SemanticType("T121", "Pharmacologic Substance", None, "CHEM"),
    ]
)


def levels(sizes: dict[str, int], p: dict[str, float], documents=None) -> dict[str, float]:
    types = [[name] for name, size in sizes.items() for _ in range(size)]
    code, members = memberships(types, HIERARCHY)
    top_p = np.array([p[name] for (name,) in types])
    return confidence_levels(members, code, top_p, documents, 100, 0.95, 0.95)


def test_half_is_for_all_mentions_and_half_for_the_rest():
    found = levels({"T047": 400, "T184": 400, "T121": 400}, {"T047": 0.99, "T184": 0.99, "T121": 0.99})
    # The group of drugs holds the very mentions of its type, and is tested in its place.
    assert set(found) == {"default", "group:DISO", "group:CHEM", "T047", "T184"}
    assert found.pop("default") == pytest.approx(0.975)
    assert list(found.values()) == pytest.approx([1 - 0.025 / 4] * 4)


def test_what_could_not_pass_is_not_tested_and_costs_nothing():
    found = levels({"T047": 400, "T184": 400, "T121": 400}, {"T047": 0.99, "T184": 0.8, "T121": 0.9})
    assert set(found) == {"default", "T047"} | ({"group:DISO"} & set(found))
    alone = levels({"T047": 400, "T121": 400}, {"T047": 0.9, "T121": 0.9})
    assert alone == {"default": pytest.approx(0.95)}


def test_few_plausible_mentions_are_not_tested():
    assert "group:CHEM" not in levels({"T047": 400, "T121": 99}, {"T047": 0.99, "T121": 0.999})
    assert "group:CHEM" not in levels({"T047": 400, "T121": 900}, {"T047": 0.99, "T121": 0.4})


def test_one_node_that_holds_everything_is_all_mentions():
    assert levels({"T121": 500}, {"T121": 0.99}) == {"default": pytest.approx(0.95)}


def test_documents_count_in_what_could_pass():
    sizes, p = {"T047": 400, "T121": 400}, {"T047": 0.99, "T121": 0.99}
    assert len(levels(sizes, p, np.arange(800))) == 3
    assert levels(sizes, p, np.arange(800) // 100) == {"default": pytest.approx(0.95)}
