"""`rank` by hand: order, margins, tiers and acceptance."""

import numpy as np
from list_fixtures import make_lists
from tiny_reranker import HIERARCHY, fit_thresholds

from umls_reranker.calibration.decisions import margins, rank
from umls_reranker.calibration.probabilities import Calibration, InputModel
from umls_reranker.calibration.thresholds import TIERS
from umls_reranker.models.cross_encoder import Scores


def decide(probabilities, lists, **options):
    p = np.array(probabilities)
    calibration = Calibration([InputModel(thresholds=fit_thresholds())])
    return rank(lists, lambda _: Scores(np.log(p / (1 - p)), 3), calibration, **options)


def test_margins_are_to_the_best_other_concept():
    found = margins(np.array([0.9, 0.8, 0.5, 0.7, 0.4, 0.4]), np.array([1, 1, 2, 9, 5, 6]), np.array([0, 3, 3, 4, 6]))
    np.testing.assert_allclose(found, [0.4, 0.3, -0.4, 0.7, 0.0, 0.0])
    assert margins(np.empty(0), np.empty(0, int), np.zeros(3, int)).shape == (0,)


def test_tiers_go_by_the_types_of_the_mention_and_only_the_first_candidate_is_accepted():
    types, p = ["T047", "T121", None, "T121"], 0.5
    lists = make_lists(["m"] * 4, [["a", "b"], ["a"], ["a"], []], types, HIERARCHY)
    decided = decide([p - 0.01, p, p, p], lists)
    rows = [fit_thresholds().for_type(kind) for kind in ("T047", "T047", "T121", None)]
    expected = [row.tier(score) for row, score in zip(rows, (p - 0.01, p, p, p), strict=True)]
    assert [TIERS[tier] for tier in decided.tiers] == expected and len(set(expected)) > 1
    assert decided.order.tolist() == [1, 0, 2, 3] and decided.first.tolist() == [1, 2, 3, -1]
    assert decided.accepted.tolist() == [False, p >= rows[1].accept, p >= rows[2].accept, p >= rows[3].accept]
    assert decided.truncated == 3


def test_a_mention_without_what_the_model_reads_is_never_high():
    lists = make_lists(["m", "m"], [["a"], ["a"]], ["T047", "T047"], HIERARCHY, lefts=["text", ""])
    decided = decide([0.99, 0.99], lists, shown=["context"])
    assert [TIERS[tier] for tier in decided.tiers] == ["high", "medium"]
    assert decided.missing["context"].tolist() == [False, True] and decided.accepted.all()
    strict = decide([0.99, 0.99], lists, shown=["context"], accept_tier="high")
    assert strict.accepted.tolist() == [True, False]


def test_no_lists_and_no_candidates_are_nothing_to_decide():
    for lists in (make_lists([], []), make_lists(["m"], [[]])):
        decided = decide([], lists)
        assert len(decided.order) == 0 and decided.first.tolist() == [-1] * len(lists)
