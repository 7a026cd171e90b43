import json
from dataclasses import replace

import numpy as np
import pytest
from list_fixtures import flat_lists, make_lists
from sklearn.metrics import f1_score
from tiny_reranker import HIERARCHY as TINY_HIERARCHY
from tiny_reranker import fit_thresholds as tiny_thresholds

from umls_reranker.calibration import threshold_fitting
from umls_reranker.calibration.arguments import CalibrationArguments
from umls_reranker.calibration.calibrated_model import CalibratedModel
from umls_reranker.calibration.calibration import Calibration
from umls_reranker.calibration.certificate import Certificate, find_certificate
from umls_reranker.calibration.decisions import margins
from umls_reranker.calibration.fusion import FeatureFusion
from umls_reranker.calibration.list_source import ListSource
from umls_reranker.calibration.precision_test import PrecisionTest
from umls_reranker.calibration.ranking import rank, rank_scored
from umls_reranker.calibration.score_range import ScoreRange
from umls_reranker.calibration.threshold_fitting import (
    f1_threshold,
    fit_thresholds,
    precision_threshold,
)
from umls_reranker.calibration.thresholds import (
    ABOVE_ALL,
    TIERS,
    ThresholdTable,
    TypeThreshold,
    high_threshold,
)
from umls_reranker.calibration.thresholds_file import load_thresholds, thresholds_content
from umls_reranker.calibration.type_lineage import DEFAULT, memberships
from umls_reranker.core.errors import UserError
from umls_reranker.models.cross_encoder import Scores
from umls_reranker.vocab.type_sets import TypeSets, type_lists
from umls_reranker.vocab.types import SemanticType, TypeHierarchy

HIERARCHY = TypeHierarchy(
    [
        SemanticType("T051", "Event", None, "ACTI"),
        SemanticType("T046", "Pathologic Function", "T051", "DISO"),
        SemanticType("T047", "Disease or Syndrome", "T046", "DISO"),
        SemanticType("T191", "Neoplastic Process", "T047", "DISO"),
        SemanticType("T121", "Pharmacologic Substance", None, "CHEM"),
    ]
)


ROW = TypeThreshold(low=0.1, accept=0.4, high=0.9)


def drawn(mentions: dict[str, int], seed: int = 0, size: int = 8, documents=None) -> tuple:
    """Lists, calibrated probabilities, and their top candidates: the gold concept near 1, in nine
    lists of ten.
    """
    rng = np.random.default_rng(seed)
    types = [name for name, count in mentions.items() for _ in range(count)]
    n = len(types)
    logits = rng.normal(-5, 1.5, (n, size))
    has_gold = rng.random(n) < 0.9
    logits[has_gold, 0] = rng.normal(4, 1.5, np.count_nonzero(has_gold))
    labels = np.zeros((n, size), int)
    labels[has_gold, 0] = 1
    lists = flat_lists(labels, types, HIERARCHY, documents, size)
    return lists, (1 / (1 + np.exp(-logits))).ravel(), np.arange(n) * size + logits.argmax(axis=1)


def single(
    p, correct, types=None, documents=None, hierarchy=HIERARCHY, **options
) -> ThresholdTable:
    """Of lists with one candidate each."""
    lists = flat_lists(np.asarray(correct, int), types, hierarchy, documents)
    masks = {name: options.pop(name) for name in ("complete", "for_certificate") if name in options}
    return fit_thresholds(
        lists, np.asarray(p, float), np.arange(len(p)), CalibrationArguments(**options), **masks
    )


def test_f1_threshold_accepts_ties_together():
    # A cut inside the tie at 0.5 would promise an F1 of 1, which no threshold reaches.
    assert f1_threshold(np.array([0.5, 0.5, 0.5, 0.1]), np.array([1, 0, 0, 0])) == pytest.approx(
        0.3
    )
    assert f1_threshold(np.array([0.5, 0.5]), np.array([1, 0])) == 0.5


def test_f1_threshold_between_neighboring_floats():
    # The midpoint rounds to the lower one, which would be accepted too.
    lower = 0.5
    upper = np.nextafter(0.5, 1)
    assert lower < f1_threshold(np.array([upper, lower]), np.array([1, 0])) <= upper


def test_f1_threshold_is_the_best_of_all():
    rng = np.random.default_rng(0)
    p = rng.integers(0, 20, 300) / 20
    y = (rng.random(300) < p).astype(int)
    best = max(f1_score(y, p >= t) for t in np.unique(p))
    assert f1_score(y, p >= f1_threshold(p, y)) == pytest.approx(best)


def test_a_precision_sets_one_threshold_for_all_types():
    p = np.array([0.9, 0.8, 0.8, 0.6, 0.5, 0.4])
    correct = np.array([1, 1, 0, 1, 1, 0], bool)
    # 4 of 5 are correct down to 0.5, and of the tie at 0.8 only 2 of 3.
    assert precision_threshold(p, correct, 0.8) == pytest.approx(0.45)
    assert precision_threshold(p, correct, 0.85) == pytest.approx(0.85)
    assert precision_threshold(p[:0], correct[:0], 0.9) == ABOVE_ALL
    # Not even certain answers have the precision.
    assert 1.0 < precision_threshold(np.ones(100), np.arange(100) >= 3, 0.99) == ABOVE_ALL
    table = single(p, correct, ["T047", "T121"] * 3, accept_precision=0.8)
    assert [row.accept for row in table.rows.values()] == pytest.approx([0.45] * 6)
    assert all(row.low <= row.accept for row in table.rows.values())


def test_a_mention_counts_in_each_of_its_types():
    types = TypeSets.of_lists(
        type_lists([["T047", "T121"], "Disease or Syndrome", None, ["nonsense"]])
    )
    members = memberships(types, HIERARCHY)
    counts = {node: inside[types.codes].tolist() for node, inside in members.items()}
    assert counts["default"] == [True] * 4
    assert counts["T047"] == counts["T046"] == counts["group:DISO"] == [True, True, False, False]
    assert counts["T121"] == counts["group:CHEM"] == [True, False, False, False]
    assert set(counts) == {"default", "T047", "T046", "group:DISO", "T121", "group:CHEM"}


def test_fit_default_by_hand(monkeypatch):
    monkeypatch.setattr(threshold_fitting, "MIN_POSITIVES", 2)
    lists = make_lists(
        ["m"] * 4,
        [[{"name": "a"}, {"name": "b"}]] * 2 + [[{"name": "a"}], []],
        ["T047", "T121", None, None],
        HIERARCHY,
        gold=[0, 1, -1, -1],
    )
    probabilities = np.array([0.9, 0.2, 0.8, 0.7, 0.1])
    top = np.array([0, 2, 4, -1])
    table = fit_thresholds(lists, probabilities, top, CalibrationArguments())
    default = table.rows["default"]
    # Accepting 0.9, 0.8 and 0.7 has two correct pairs of three.
    assert default.accept == pytest.approx(0.45)
    # The only correct top candidate has 0.9; low may not pass accept.
    assert default.low == default.accept and default.high is None
    # Its own threshold would be 0.55.
    assert table.rows["T047"].accept == default.accept


def test_own_threshold_is_shrunk_by_support(monkeypatch):
    monkeypatch.setattr(threshold_fitting, "SHRINKAGE", 100.0)
    lists, p, top = drawn({"T047": 400, "T121": 400})
    p = np.where(lists.owner < 400, p, p**3)
    table = fit_thresholds(lists, p, top, CalibrationArguments())
    default = table.rows["default"]
    group = table.rows["group:CHEM"]
    kind = table.rows["T121"]
    of_kind = lists.owner >= 400
    best = f1_threshold(p[of_kind], lists.labels[of_kind])
    weight = lists.labels[of_kind].sum() / (lists.labels[of_kind].sum() + 100.0)
    assert group.accept == pytest.approx(weight * best + (1 - weight) * default.accept)
    assert kind.accept == pytest.approx(weight * best + (1 - weight) * group.accept)
    assert best < kind.accept < default.accept


def test_types_without_support_take_from_above():
    table = fit_thresholds(
        *drawn({"T051": 1000, "T047": 3000, "T191": 12, "T121": 20}), CalibrationArguments()
    )
    default = table.rows["default"]
    assert table.rows["T191"] == table.rows["T047"] != default
    # Its group has no more, so the default is used.
    assert table.rows["T121"] == table.rows["group:CHEM"] == default
    assert default.high == table.certificate.threshold


def test_low_is_what_ninety_nine_percent_of_correct_tops_reach():
    lists, p, top = drawn({"T047": 2000})
    row = fit_thresholds(lists, p, top, CalibrationArguments()).rows["default"]
    right = np.sort(p[top[lists.is_gold(top)]])
    assert row.low == min(right[int(0.01 * (len(right) - 1))], row.accept)


def test_the_certificate_is_of_what_is_served_among_the_mentions_that_may_certify():
    # Incorrect below 0.7, so that is where acceptance begins; a third of the mentions may not
    # certify.
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1.0, 1800)
    documents = rng.integers(0, 200, 1800).astype(str)
    correct = p > 0.7
    for_certificate = np.arange(1800) % 3 > 0
    given = {"target_precision": 0.9, "confidence": 0.99}
    table = single(p, correct, documents=documents, for_certificate=for_certificate, **given)
    served = np.where(p >= table.for_type().accept, p, np.nan)[for_certificate]
    expected = find_certificate(
        served,
        correct[for_certificate],
        documents[for_certificate],
        PrecisionTest(0.9, 0.99),
    )
    assert expected.threshold is not None and expected.documents_needed == 60
    assert table.certificate == expected and (table.target_precision, table.confidence) == (
        0.9,
        0.99,
    )
    # The coverage is of these mentions.
    assert table.certificate.coverage == pytest.approx(np.mean(served >= expected.threshold))


def test_mentions_that_are_never_high_neither_carry_nor_spoil_the_tier():
    p = np.tile(np.linspace(0.7, 1.0, 1000), 2)
    drug = np.repeat([False, True], 1000)
    documents = [str(row // 5) for row in range(2000)]
    types = ["T047"] * 1000 + ["T121"] * 1000
    # The drugs came without something that the model reads, and are incorrect wherever they are
    # sure.
    correct = np.where(drug, p < 0.8, True)
    assert single(p, correct, types, documents).rows["default"].high is None
    kept = single(p, correct, types, documents, complete=~drug)
    assert kept.certificate.threshold is not None
    assert kept.certificate.coverage <= 0.5


def test_high_is_the_certified_threshold_or_accept_where_that_is_higher():
    # All 200 top candidates are correct, so that every threshold is certified; the runners-up
    # (0.71) are not.
    p = np.column_stack([np.linspace(0.75, 0.95, 200), np.full(200, 0.71)])
    top = 2 * np.arange(200)
    lists = flat_lists(np.tile([1, 0], 200), None, HIERARCHY, size=2)
    row = fit_thresholds(lists, p.ravel(), top, CalibrationArguments()).rows["default"]
    assert row.accept == pytest.approx(0.73) and 0.74 < row.high <= 0.75


def test_for_type_falls_back_along_the_lineage():
    rows = {
        "default": ROW,
        "group:DISO": replace(ROW, accept=0.5),
        "T047": replace(ROW, accept=0.6),
    }
    table = ThresholdTable(rows, HIERARCHY)
    levels = {"T047": ("T047", "disease OR syndrome", "T191", ["nonsense", "T191", "T046"])}
    levels |= {"group:DISO": ("T046", "group:DISO"), "default": ("T121", "nonsense", None, [])}
    for level, types in levels.items():
        assert [table.for_type(kind) for kind in types] == [rows[level]] * len(types)
    assert table.for_type() == ROW


def test_json_round_trip():
    settings = CalibrationArguments(target_precision=0.9)
    table = fit_thresholds(*drawn({"T047": 500, "T191": 200, "T121": 40}), settings)
    other = ThresholdTable({"default": replace(ROW, high=None)}, table.hierarchy, 0.9)
    state = thresholds_content({"all": table, "no type": other})
    assert state["schema_version"] == 10 and state["tiers"] == list(TIERS)
    tables = load_thresholds(json.loads(json.dumps(state, allow_nan=False)))
    loaded = tables["all"]
    assert loaded.rows == table.rows and loaded.reads_types and tables["no type"].rows == other.rows
    assert (loaded.target_precision, loaded.confidence) == (0.9, 0.95)
    assert loaded.certificate == table.certificate
    assert loaded.for_type("Neoplastic Process") == table.for_type("T191") == table.rows["T191"]
    assert thresholds_content(tables) == state


@pytest.mark.parametrize(
    ("certified", "high_of_types"), [(None, {None}), (0.9, {0.9}), (0.5, {0.5, 0.6})]
)
def test_the_file_says_high_once_since_it_is_guaranteed_for_all_types_together(
    certified, high_of_types
):
    certificate = Certificate(certified, 100.0, 59, coverage=0.5, precision=0.99)
    rows = {"default": TypeThreshold(0.1, 0.4), "T047": TypeThreshold(0.1, 0.6)}
    rows = {node: replace(row, high=high_threshold(row, certificate)) for node, row in rows.items()}
    state = thresholds_content({"all": ThresholdTable(rows, HIERARCHY, certificate=certificate)})
    (entry,) = state["models"]
    assert entry["certificate"]["threshold"] == certified
    assert entry["default"] == {"low": 0.1, "accept": 0.4}
    assert entry["types"] == {"T047": {"low": 0.1, "accept": 0.6}}
    loaded = load_thresholds(state)["all"].rows
    assert loaded == rows and {row.high for row in loaded.values()} == high_of_types
    # Nobody can make a type's answers high by the file.
    entry["types"]["T047"]["high"] = 0.01
    with pytest.raises(UserError, match="damaged .*T047"):
        load_thresholds(state)


def test_damaged_or_other_state_is_a_user_error():
    table = ThresholdTable({"default": replace(ROW, high=None)}, HIERARCHY)
    state = thresholds_content({"all": table})
    with pytest.raises(UserError, match="schema_version 4"):
        load_thresholds({**state, "schema_version": 4})
    (entry,) = state["models"]
    swapped = {**entry, "default": {**entry["default"], "low": 0.5}}
    without = {k: v for k, v in entry.items() if k != "default"}
    damaged = without, {**entry, "default": {"accept": 1}}, swapped, {**entry, "certificate": {}}
    changes = [{"models": [one]} for one in damaged] + [
        {"models": []},
        {"target_precision": float("nan")},
    ]
    for change in (*changes, {"confidence": 95}):
        with pytest.raises(UserError, match="damaged"):
            load_thresholds(state | change)


# `rank` by hand: order, margins, tiers and acceptance


def decide(probabilities, lists, **options):
    p = np.array(probabilities)
    calibration = Calibration([CalibratedModel(thresholds=tiny_thresholds())])
    return rank(lists, lambda *_: Scores(np.log(p / (1 - p)), 3), calibration, **options)


def test_margins_are_to_the_best_other_concept():
    found = margins(
        np.array([0.9, 0.8, 0.5, 0.7, 0.4, 0.4]),
        np.array([1, 1, 2, 9, 5, 6]),
        np.array([0, 3, 3, 4, 6]),
    )
    np.testing.assert_allclose(found, [0.4, 0.3, -0.4, 0.7, 0.0, 0.0])
    assert margins(np.empty(0), np.empty(0, int), np.zeros(3, int)).shape == (0,)


def test_tiers_go_by_the_types_of_the_mention_and_only_the_first_candidate_is_accepted():
    types = ["T047", "T121", None, "T121"]
    p = 0.45
    lists = make_lists(["m"] * 4, [["a", "b"], ["a"], ["a"], []], types, TINY_HIERARCHY)
    decided = decide([p - 0.01, p, p, p], lists)
    rows = [tiny_thresholds().for_type(kind) for kind in ("T047", "T047", "T121", None)]
    expected = [row.tier(score) for row, score in zip(rows, (p - 0.01, p, p, p), strict=True)]
    assert [TIERS[tier] for tier in decided.tiers] == expected and len(set(expected)) > 1
    assert decided.order.tolist() == [1, 0, 2, 3] and decided.tops.positions.tolist() == [
        1,
        2,
        3,
        -1,
    ]
    assert decided.accepted.tolist() == [
        False,
        p >= rows[1].accept,
        p >= rows[2].accept,
        p >= rows[3].accept,
    ]
    assert decided.truncated == 3


def test_a_mention_without_what_the_model_reads_is_never_high():
    lists = make_lists(
        ["m", "m"], [["a"], ["a"]], ["T047", "T047"], TINY_HIERARCHY, lefts=["text", ""]
    )
    decided = decide([0.99, 0.99], lists, cross_encoder_inputs=["context"])
    assert [TIERS[tier] for tier in decided.tiers] == ["high", "medium"]
    assert decided.missing["context"].tolist() == [False, True] and decided.accepted.all()
    strict = decide([0.99, 0.99], lists, cross_encoder_inputs=["context"], accept_tier="high")
    assert strict.accepted.tolist() == [True, False]
    # What is no higher than medium anyway stays so.
    row = tiny_thresholds().for_type("T047")
    usual = decide([row.accept + 1e-6] * 2, lists, cross_encoder_inputs=["context"])
    assert row.accept + 1e-6 < row.high and [TIERS[tier] for tier in usual.tiers] == [
        "medium",
        "medium",
    ]


@pytest.mark.parametrize(("high", "tier"), [(0.5, "high"), (0.6, "medium"), (None, "medium")])
def test_a_threshold_belongs_to_the_tier_above_and_without_a_certificate_nothing_is_high(
    high, tier
):
    row = replace(tiny_thresholds().for_type(), low=0.25, accept=0.5, high=high)
    calibration = Calibration(
        [CalibratedModel(thresholds=ThresholdTable({DEFAULT: row}, TINY_HIERARCHY))]
    )
    lists = make_lists(["m"], [["a", "b"]], hierarchy=TINY_HIERARCHY)
    decided = rank_scored(lists, Scores(np.array([0.0, -9.0], np.float32), 0), calibration)
    assert [TIERS[place] for place in decided.tiers] == [tier, "reject"]
    sure = rank_scored(lists, Scores(np.array([40.0, 50.0], np.float32), 0), calibration)
    # By log-odds, also where both probabilities are rounded to 1.
    assert sure.probabilities[0] == sure.probabilities[1] and sure.order.tolist() == [1, 0]


RETRIEVED = [("a", 0.9), ("b", 0.1), ("c", 0.5), ("d", 0.5), ("e", 0.0)]


def retrieved():
    """A mention with five candidates, one with two, and one without any."""
    items = [{"name": name, "retrieval_score": score} for name, score in RETRIEVED]
    return make_lists(["m", "n", "o"], [items, items[3:], []], hierarchy=TINY_HIERARCHY)


def with_pruning(has_list_fusion=True):
    fusion = FeatureFusion({"cross_encoder": 1.0, "retrieval": 11.0}, {}, 6.0)
    list_fusion = FeatureFusion({"retrieval": 11.0}, {}, 6.0) if has_list_fusion else None
    model = CalibratedModel(fusion=fusion, list_fusion=list_fusion, thresholds=tiny_thresholds())
    return Calibration([model], source=ListSource(score_ranges={"retrieval": ScoreRange(0.0, 1.0)}))


def logits_of(lists, retained=None):
    return Scores(np.array([ord(name) for name in lists.names], np.float32) / 100, 0)


def assert_same(left, right):
    for name in ("logits", "log_odds", "probabilities"):
        np.testing.assert_array_equal(getattr(left.scores, name), getattr(right.scores, name))
    for name in ("order", "margins", "tiers", "accepted"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


def test_only_candidates_that_can_win_are_scored_and_each_mention_says_how_many():
    asked = []

    def score(lists, retained):
        asked.append(lists.with_candidates(retained).names.to_list())
        return logits_of(lists)

    lists = retrieved()
    # By the list fusion "b" and "e" have less than 0.003 of five candidates, "e" that of two as
    # well.
    decided = rank(lists, score, with_pruning())
    assert asked == [["a", "c", "d", "d"]] and decided.scored.tolist() == [3, 1, 0]
    assert np.isnan(decided.scores.logits).tolist() == [
        False,
        True,
        False,
        False,
        True,
        False,
        True,
    ]
    known = rank_scored(lists, logits_of(lists), with_pruning())
    assert_same(known, decided)


def test_exhaustive_scoring_is_that_without_pruning():
    lists = retrieved()
    exhaustive = rank(lists, logits_of, with_pruning(), exhaustive=True)
    unpruned = rank(lists, logits_of, with_pruning(has_list_fusion=False))
    assert exhaustive.scored.tolist() == [5, 2, 0]
    assert_same(exhaustive, unpruned)


def test_no_lists_and_no_candidates_are_nothing_to_decide():
    for lists in (make_lists([], []), make_lists(["m"], [[]])):
        decided = decide([], lists)
        assert len(decided.order) == 0 and decided.tops.positions.tolist() == [-1] * len(lists)
