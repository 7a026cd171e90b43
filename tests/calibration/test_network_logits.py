"""Logits of candidates: each is scored once for each input of the network."""

import numpy as np
from list_fixtures import make_lists

from umls_reranker.calibration.network_logits import NetworkLogits, unseen_inputs
from umls_reranker.data.semantic_types import SemanticType, TypeHierarchy
from umls_reranker.models.cross_encoder import Scores
from umls_reranker.models.pairs import PairTemplate

HIERARCHY = TypeHierarchy([SemanticType("T121", "Drug")])


class CountingScorer:
    """Logits that tell what the network saw; remembers what it was asked."""

    template = PairTemplate(candidate_fields=("preferred_name",), mention_types=True)

    def __init__(self):
        self.asked = []

    def score(self, mentions, names, lefts, rights, desc):
        self.asked.append((desc, list(zip(mentions, names, strict=True))))
        return Scores(np.array([len(mention + name) for mention, name in zip(mentions, names, strict=True)]), 1)


def test_each_candidate_is_scored_once_for_each_input_of_the_network():
    items = [[{"name": name, "cui": name, "preferred_name": "x"} for name in ("a", "bb")], [{"name": "ccc"}]]
    scorer = CountingScorer()
    network = NetworkLogits(scorer, make_lists(["m", "n"], items, ["Drug", None], HIERARCHY), "scoring")
    none, first, last = np.eye(4, dtype=bool)[3, :3], np.array([True, False, False]), np.array([True, False, True])
    assert np.isnan(network((), none)).all() and not scorer.asked
    np.testing.assert_array_equal(network((), first), [len("m ; Drug" + "a ; x"), np.nan, np.nan])
    np.testing.assert_array_equal(network((), last), [len("m ; Drug" + "a ; x"), np.nan, len("n" + "ccc")])
    np.testing.assert_array_equal(network(("entity_type",), last), [len("m" + "a ; x"), np.nan, len("n" + "ccc")])
    assert scorer.asked == [
        ("scoring", [("m ; Drug", "a ; x")]),
        ("scoring", [("n", "ccc")]),
        ("scoring without entity_type", [("m", "a ; x"), ("n", "ccc")]),
    ]
    assert network.truncated == 3
    known = NetworkLogits(scorer, network.lists, "", {(): np.array([1.0, 2.0, 3.0], np.float32)})
    assert known((), last).tolist() == [1.0, 2.0, 3.0] and len(scorer.asked) == 3


def test_what_the_network_does_not_see_is_what_it_reads_and_is_removed():
    assert unseen_inputs(("retrieval_score", "entity_type"), ("preferred_name", "entity_type")) == ("entity_type",)
