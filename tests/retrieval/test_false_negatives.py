import numpy as np
import pytest
from mining_fixtures import Relations, Setup, make_mentions

from umls_reranker.retrieval.false_negatives import FILTERS, ConceptFilters, SharedNames
from umls_reranker.retrieval.negatives import MiningConfig

COLDS = {
    "C0000001": ("T3", ["common cold", "cold"]),
    "C0000002": ("T1", ["cold temperature"]),
    "C0000003": ("T1", ["cold sensation", "COLD"]),
    "C0000004": ("T3", ["cold sore"]),
    "C0000005": ("T4", ["cold storage"]),
    "C0000006": ("T4", ["coldness"]),
    "C0000007": ("T3", ["old age"]),
}
NEAREST_ONLY = {"same_type_negatives": 0, "random_negatives": 0}


@pytest.fixture(scope="module")
def colds(tmp_path_factory):
    return Setup(tmp_path_factory.mktemp("colds"), COLDS)


def negatives(pairs):
    return set(pairs["cui"][1:])


def test_the_first_filter_that_drops_a_concept_is_the_reason(colds):
    relations = Relations({(0, 2): "PAR", (0, 3): "PAR"})
    filters = ConceptFilters(SharedNames(colds.concepts, np.array([0])), relations)
    reasons = filters.reasons(np.array([[0]]), np.array([[0, 1, 2, 3, 4, -1]]))
    assert [FILTERS[reason] if reason >= 0 else None for reason in reasons[0]] == [
        "gold_concept",
        None,
        "shared_name",
        "related",
        None,
        None,
    ]


def test_related_concepts_are_dropped_from_all_kinds_of_negatives(colds):
    relations = Relations({(0, 1): "PAR", (0, 3): "CHD"})
    config = MiningConfig(nearest_negatives=6, same_type_negatives=2, random_negatives=8)
    pairs, report, _ = colds.mine(make_mentions([("cold", "C0000001", [])]), config, relations=relations)
    assert negatives(pairs) == {"C0000005", "C0000006", "C0000007"}
    assert report["relations"] == 2
    assert report["dropped"]["related"]["nearest"] == 2
    assert report["dropped"]["related"]["type"] > 0 and report["dropped"]["related"]["random"] > 0


def test_without_relations_the_filter_has_nothing_to_do(colds):
    mentions = make_mentions([("cold", "C0000001", [])])
    _, expected_report, expected = colds.mine(mentions, MiningConfig())
    _, report, files = colds.mine(mentions, MiningConfig(), relations=Relations({}))
    assert (files, report) == (expected, expected_report)


def test_where_filters_leave_too_few_more_concepts_are_searched(tmp_path):
    concepts = {f"C{number:07}": ("T2", [f"{number} {'x' * (number % 7)}"]) for number in range(60)}
    many = Setup(tmp_path, concepts)
    mentions = make_mentions([("17 xxx", "C0000017", []), ("40 xxxxx", "C0000040", []), ("3", "C0000003", [])])
    # The first one is related to the 15 concepts nearest to it, the second to its 5, the third to none.
    rows = many.index.search(many.encoder.encode(mentions["mention"]), 60).rows
    near = {(17, row): "SY" for row in rows[0, :16] if row != 17} | {
        (40, row): "SY" for row in rows[1, :6] if row != 40
    }
    config = MiningConfig(nearest_negatives=3, neighbors=8, **NEAREST_ONLY)
    pairs, report, files = many.mine(mentions, config, relations=Relations(near))
    assert report["searched_deeper"] == {"16": 2, "32": 1}
    assert report["nearest_missing"] == 0
    expected = [row for row in rows[0] if row != 17 and (17, row) not in near][:3]
    assert pairs["cui"][1:4] == [f"C{row:07}" for row in expected]
    for chunk in (1, 2):
        _, again, same = many.mine(mentions, config, relations=Relations(near), chunk=chunk)
        assert (again, same) == (report, files)


def test_no_deeper_search_brings_up_what_is_not_there(tmp_path):
    many = Setup(tmp_path, {f"C{number:07}": ("T2", [f"heart {number}"]) for number in range(40)})
    relations = Relations({(0, row): "SY" for row in range(1, 40)})
    pairs, report, _ = many.mine(
        make_mentions([("heart 0", "C0000000", [])]),
        MiningConfig(nearest_negatives=3, neighbors=4, **NEAREST_ONLY),
        relations=relations,
    )
    assert len(pairs) == 1
    assert report["searched_deeper"] == {"8": 1, "16": 1}
    assert (report["nearest_missing"], report["dropped"]["related"]["nearest"]) == (3, 15)
