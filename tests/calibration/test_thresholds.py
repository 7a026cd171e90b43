import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from umls_reranker.calibration.certificate import find_certificate
from umls_reranker.calibration.lineage import lineage, memberships
from umls_reranker.calibration.thresholds import (
    ThresholdTable,
    TypeThreshold,
    f1_threshold,
    load_thresholds,
    thresholds_content,
)
from umls_reranker.core.errors import UserError
from umls_reranker.data.semantic_types import SemanticType, TypeHierarchy

HIERARCHY = TypeHierarchy(
    [
        SemanticType("T051", "Event", None, "ACTI"),
        SemanticType("T046", "Pathologic Function", "T051", "DISO"),
        SemanticType("T047", "Disease or Syndrome", "T046", "DISO"),
        SemanticType("T191", "Neoplastic Process", "T047", "DISO"),
        SemanticType("T121", "Pharmacologic Substance", None, "CHEM"),
    ]
)


def row(accept: float = 0.4, high: float | None = 0.9, low: float = 0.1, level: str = "default") -> TypeThreshold:
    return TypeThreshold(accept, high, low, accept, 0.8, 100, 10, 10, level, level)


def make_lists(mentions: dict[str, int], seed: int = 0, candidates: int = 8, temperature: float = 1.0) -> dict:
    """Candidate lists of calibrated probabilities: the right one near 1, in nine lists of ten."""
    rng = np.random.default_rng(seed)
    types = [[name] for name, count in mentions.items() for _ in range(count)]
    n = len(types)
    logits = rng.normal(-5, 1.5, (n, candidates))
    gold = np.where(rng.random(n) < 0.9, 0, -1)
    logits[gold == 0, 0] = rng.normal(4, 1.5, np.count_nonzero(gold == 0))
    p = 1 / (1 + np.exp(-logits / temperature))
    labels = np.zeros((n, candidates), dtype=int)
    labels[gold == 0, 0] = 1
    top = logits.argmax(axis=1)
    return {
        "pair_p": p.ravel(),
        "pair_y": labels.ravel(),
        "pair_mention": np.repeat(np.arange(n), candidates),
        "top1_p": p[np.arange(n), top],
        "top1_correct": (top == gold).astype(int),
        "mention_types": types,
        "hierarchy": HIERARCHY,
    }


def test_f1_threshold_by_hand():
    # Accepting the first three: 2 of 3 right, 2 of 2 found, F1 0.8; the threshold lies halfway to 0.2.
    threshold, f1 = f1_threshold([0.1, 0.9, 0.8, 0.4, 0.2], [0, 1, 0, 1, 0])
    assert (threshold, f1) == (pytest.approx(0.3), pytest.approx(0.8))


def test_f1_threshold_accepts_ties_together():
    # A cut inside the tie at 0.5 would promise an F1 of 1, which no threshold reaches.
    threshold, f1 = f1_threshold([0.5, 0.5, 0.5, 0.1], [1, 0, 0, 0])
    assert threshold == pytest.approx(0.3) and f1 == pytest.approx(0.5)
    threshold, f1 = f1_threshold([0.5, 0.5], [1, 0])
    assert threshold == 0.5 and f1 == pytest.approx(2 / 3)


def test_f1_threshold_between_neighboring_floats():
    # The midpoint rounds to the lower one, which would be accepted too.
    lower, upper = 0.5, np.nextafter(0.5, 1)
    threshold, _ = f1_threshold([upper, lower], [1, 0])
    assert lower < threshold <= upper


def test_f1_threshold_is_the_best_of_all():
    rng = np.random.default_rng(0)
    p = rng.integers(0, 20, 300) / 20
    y = (rng.random(300) < p).astype(int)
    threshold, f1 = f1_threshold(p, y)
    assert f1 == pytest.approx(f1_score(y, p >= threshold))
    assert f1 == pytest.approx(max(f1_score(y, p >= t) for t in np.unique(p)))


def test_f1_threshold_needs_a_positive():
    with pytest.raises(ValueError, match="positive"):
        f1_threshold([0.5], [0])


def test_lineage_stays_in_the_group():
    assert lineage("T191", HIERARCHY) == ["T191", "T047", "T046", "group:DISO", "default"]
    assert lineage("T051", HIERARCHY) == ["T051", "group:ACTI", "default"]
    assert lineage("group:DISO", HIERARCHY) == ["group:DISO", "default"]
    assert lineage("default", HIERARCHY) == ["default"]
    plain = TypeHierarchy([SemanticType("HP:1", "a"), SemanticType("HP:2", "b", "HP:1")])
    assert lineage("HP:2", plain) == ["HP:2", "HP:1", "default"]


def test_a_mention_counts_in_each_of_its_types():
    code, members = memberships([["T047", "T121"], "Disease or Syndrome", None, ["nonsense"]], HIERARCHY)
    counts = {node: inside[code].tolist() for node, inside in members.items()}
    assert counts["default"] == [True] * 4
    assert counts["T047"] == counts["T046"] == counts["group:DISO"] == [True, True, False, False]
    assert counts["T121"] == counts["group:CHEM"] == [True, False, False, False]
    assert set(counts) == {"default", "T047", "T046", "group:DISO", "T121", "group:CHEM"}


def test_fit_default_by_hand():
    table = ThresholdTable.fit(
        pair_p=[0.9, 0.2, 0.8, 0.7, 0.1],
        pair_y=[1, 0, 0, 1, 0],
        pair_mention=[0, 0, 1, 1, 2],
        top1_p=[0.9, 0.8, 0.1, np.nan],
        top1_correct=[1, 0, 0, 0],
        mention_types=[["T047"], ["T121"], None, None],
        hierarchy=HIERARCHY,
        min_positives=2,
    )
    default = table.rows["default"]
    assert default.accept == pytest.approx(0.45) and default.own_f1 == pytest.approx(0.8)
    assert (default.support_pairs, default.support_positives, default.support_mentions) == (5, 2, 3)
    # The only correct top candidate has 0.9; low may not pass accept.
    assert default.low == default.accept and default.high is None
    disease = table.rows["T047"]
    assert (disease.accept, disease.accept_level, disease.own_accept) == (
        default.accept,
        "default",
        pytest.approx(0.55),
    )
    assert (disease.support_pairs, disease.support_positives, disease.support_mentions) == (2, 1, 1)


def test_own_threshold_is_shrunk_by_support():
    lists = make_lists({"T047": 400, "T121": 400})
    lists["pair_p"] = np.where(np.repeat(np.arange(800) < 400, 8), lists["pair_p"], lists["pair_p"] ** 3)
    table = ThresholdTable.fit(**lists, shrinkage=100.0)
    default, group, kind = (table.rows[node] for node in ("default", "group:CHEM", "T121"))
    weight = group.support_positives / (group.support_positives + 100.0)
    assert group.accept == pytest.approx(weight * group.own_accept + (1 - weight) * default.accept)
    assert kind.accept == pytest.approx(weight * kind.own_accept + (1 - weight) * group.accept)
    assert kind.accept_level == "T121"
    assert kind.own_accept < kind.accept < default.accept


def test_types_without_support_take_from_above():
    table = ThresholdTable.fit(**make_lists({"T047": 3000, "T191": 12, "T121": 20}))
    disease, rare, drug = table.rows["T047"], table.rows["T191"], table.rows["T121"]
    assert (disease.accept_level, disease.low_level) == ("T047", "T047")
    assert (rare.accept_level, rare.low_level) == ("T047", "T047")
    assert (rare.accept, rare.high, rare.low) == (disease.accept, disease.high, disease.low)
    # Its group has no more, so the default is used.
    assert (drug.accept_level, drug.low_level) == ("default", "default")
    assert drug.high == table.rows["default"].high == table.certificate.threshold
    assert rare.support_mentions == 12 and disease.support_mentions == 3012


def test_support_is_of_gold_pairs_and_of_correct_top_candidates():
    lists = make_lists({"T047": 400, "T121": 400})
    positives, right = lists["pair_y"][400 * 8 :].sum(), lists["top1_correct"][400:].sum()
    for more, level in ((0, "T121"), (1, "default")):
        support = {"min_positives": positives + more, "min_mentions": right + more}
        drug = ThresholdTable.fit(**lists, **support).rows["T121"]
        assert (drug.accept_level, drug.low_level) == (level, level)


def test_low_is_what_ninety_nine_percent_of_correct_tops_reach():
    lists = make_lists({"T047": 2000}, temperature=0.5)
    row = ThresholdTable.fit(**lists).rows["default"]
    right = lists["top1_p"][lists["top1_correct"] == 1]
    assert row.low == min(np.sort(right)[int(0.01 * (len(right) - 1))], row.accept)


def test_high_tier_keeps_its_promise_and_follows_accept():
    lists = make_lists({"T047": 4000, "T121": 4000})
    table = ThresholdTable.fit(**lists, groups=np.arange(8000) // 20)
    for node, row in table.rows.items():
        assert row.low <= row.accept <= row.high <= 1, node
        accepted = lists["top1_p"] >= row.high
        assert lists["top1_correct"][accepted].mean() >= 0.95
    assert all(row.high == max(table.certificate.threshold, row.accept) for row in table.rows.values())


def test_the_certificate_is_of_what_is_served_under_the_promise_asked_for():
    # Wrong below 0.7, so that is where acceptance begins; one mention in six has no candidates.
    rng = np.random.default_rng(0)
    p, groups = rng.uniform(0.5, 1.0, 1200), rng.integers(0, 200, 1200)
    right = p > 0.7
    table = ThresholdTable.fit(
        pair_p=p,
        pair_y=right,
        pair_mention=np.arange(1200),
        top1_p=np.where(np.arange(1200) % 6, p, np.nan),
        top1_correct=right,
        mention_types=[None] * 1200,
        hierarchy=HIERARCHY,
        groups=groups,
        target_precision=0.9,
        confidence=0.99,
        has_outlook=True,
    )
    scored = np.flatnonzero(np.arange(1200) % 6)
    served = np.where(p >= table.for_type().accept, p, np.nan)[scored]
    expected = find_certificate(served, right[scored], groups[scored], 0.9, 0.99)
    assert expected.threshold is not None and expected.documents_needed == 44
    assert replace(table.certificate, outlook={}) == expected
    assert list(table.certificate.outlook) == ["confidence 0.90", "200 documents", "400 documents", "800 documents"]
    assert (table.target_precision, table.confidence) == (0.9, 0.99)


def test_mentions_that_are_never_high_neither_carry_nor_spoil_the_tier():
    lists = make_lists({"T047": 4000, "T121": 4000})
    groups, drug = np.arange(8000) // 20, np.array([types == ["T121"] for types in lists["mention_types"]])
    alone = ThresholdTable.fit(**lists, groups=groups, complete=np.ones(8000, bool))
    assert alone.to_dict() == ThresholdTable.fit(**lists, groups=groups).to_dict()
    # The drugs came without something that the model reads, and are wrong wherever they are sure.
    lists["top1_correct"] = np.where(drug, lists["top1_p"] < 0.5, lists["top1_correct"])
    spoiled = ThresholdTable.fit(**lists, groups=groups)
    kept = ThresholdTable.fit(**lists, groups=groups, complete=~drug)
    assert spoiled.rows["default"].high is None
    assert kept.certificate.threshold is not None
    assert kept.rows["default"].high == kept.rows["T121"].high == kept.certificate.threshold
    none = ThresholdTable.fit(**lists, groups=groups, complete=np.zeros(8000, bool))
    assert none.rows["default"].high is None and none.rows["default"].accept == kept.rows["default"].accept


def test_high_is_the_certified_threshold_or_accept_where_that_is_higher():
    # All 200 top candidates are right, so that every threshold is certified; the runners-up (0.71) are wrong.
    top_p = np.linspace(0.75, 0.95, 200)
    table = ThresholdTable.fit(
        pair_p=np.column_stack([top_p, np.full(200, 0.71)]).ravel(),
        pair_y=np.tile([1, 0], 200),
        pair_mention=np.repeat(np.arange(200), 2),
        top1_p=top_p,
        top1_correct=np.ones(200),
        mention_types=[None] * 200,
        hierarchy=HIERARCHY,
    )
    assert table.rows["default"].accept == pytest.approx(0.73) and 0.74 < table.rows["default"].high <= 0.75
    stricter = ThresholdTable.fit(
        pair_p=np.column_stack([top_p, np.full(200, 0.71)]).ravel(),
        pair_y=np.column_stack([top_p > 0.8, top_p <= 0.8]).astype(int).ravel(),
        pair_mention=np.repeat(np.arange(200), 2),
        top1_p=top_p,
        top1_correct=np.ones(200),
        mention_types=[None] * 200,
        hierarchy=HIERARCHY,
    ).rows["default"]
    assert stricter.accept > 0.79 and stricter.accept <= stricter.high < stricter.accept + 0.01


def test_types_that_contradict_the_certificate_stay_in_the_tier_and_are_named():
    lists = make_lists({"T047": 4000, "T121": 120})
    lists["top1_correct"][np.arange(4120) >= 4000] = np.arange(120) % 2
    table = ThresholdTable.fit(**lists)
    # The tier that is served is the one that was certified.
    assert all(row.high == max(table.certificate.threshold, row.accept) for row in table.rows.values())
    assert table.contradicted == ("T121", "group:CHEM")
    assert ThresholdTable.fit(**make_lists({"T047": 4000})).contradicted == ()


def test_the_tier_as_served_keeps_the_promise_where_small_types_fall_back():
    # A large type, right with probability 1 - 0.28 (1 - p), and 160 of ten mentions each, right in 88 % at any p: too
    # few to contradict anything. Alone the large type could go down to 0.64; all together must stop above 0.75.
    small = [f"T{number}" for number in range(100, 260)]
    hierarchy = TypeHierarchy(SemanticType(name, f"type {name}") for name in ("T047", *small))
    types = ["T047"] * 8000 + [name for name in small for _ in range(10)]
    is_large = np.arange(len(types)) < 8000
    rng = np.random.default_rng(0)
    precisions, tables = [], 16
    for _ in range(tables):
        p = rng.uniform(0.5, 1.0, len(types))
        chance = np.where(is_large, 1 - 0.28 * (1 - p), 0.88)
        right = rng.random(len(types)) < chance
        table = ThresholdTable.fit(
            pair_p=p,
            pair_y=right,
            pair_mention=np.arange(len(p)),
            top1_p=p,
            top1_correct=right,
            mention_types=types,
            hierarchy=hierarchy,
        )
        high = {name: table.for_type(name).high for name in ("T047", *small)}
        served = p >= np.array([2.0 if high[name] is None else high[name] for name in types])
        precisions.append(chance[served].mean() if served.any() else 1.0)
    # Were 5 % of tables broken, four or more of 16 would have probability 0.7 %.
    assert np.count_nonzero(np.array(precisions) < 0.95) < 4
    assert np.mean(np.array(precisions) < 1.0) > 0.8


def test_no_gold_candidate_is_a_user_error():
    lists = make_lists({"T047": 20})
    lists["pair_y"][:] = 0
    with pytest.raises(UserError, match="no candidate list .* contains its gold concept"):
        ThresholdTable.fit(**lists)


def test_for_type_falls_back_along_the_lineage():
    rows = {"default": row(), "group:DISO": row(level="group:DISO"), "T047": row(level="T047")}
    table = ThresholdTable(rows, HIERARCHY)
    assert table.for_type("T047").accept_level == "T047"
    assert table.for_type("disease OR syndrome").accept_level == "T047"
    assert table.for_type("T191").accept_level == "T047"
    assert table.for_type("T046").accept_level == "group:DISO"
    assert table.for_type("group:DISO").accept_level == "group:DISO"
    assert table.for_type("T121").accept_level == "default"
    assert table.for_type("nonsense").accept_level == "default"
    for nothing in (None, []):
        assert table.for_type(nothing).accept_level == table.for_type().accept_level == "default"
    assert table.for_type(["nonsense", "T191", "T046"]).accept_level == "T047"


def test_tiers():
    thresholds = row(accept=0.4, high=0.9, low=0.1)
    tiers = [thresholds.tier(p) for p in (0.95, 0.9, 0.89, 0.4, 0.39, 0.1, 0.09)]
    assert tiers == ["high", "high", "medium", "medium", "low", "low", "reject"]
    assert row(high=None).tier(1.0) == "medium"


def test_json_round_trip():
    table = ThresholdTable.fit(**make_lists({"T047": 500, "T191": 200, "T121": 40}), target_precision=0.9)
    other = ThresholdTable({"default": row()}, table.hierarchy, 0.9)
    state = thresholds_content({"all": table, "no type": other})
    assert state["schema_version"] == 4 and state["tiers"] == ["high", "medium", "low", "reject"]
    tables = load_thresholds(json.loads(json.dumps(state, allow_nan=False)))
    loaded = tables["all"]
    assert loaded.rows == table.rows and loaded.reads_types and tables["no type"].rows == other.rows
    assert (loaded.target_precision, loaded.confidence) == (0.9, 0.95)
    assert loaded.certificate == table.certificate
    assert loaded.for_type("Neoplastic Process") == table.for_type("T191") == table.rows["T191"]
    assert thresholds_content(tables) == state


def test_damaged_or_other_state_is_a_user_error():
    state = thresholds_content({"all": ThresholdTable({"default": row()}, HIERARCHY)})
    with pytest.raises(UserError, match="schema_version 3, .* run the calibrate stage again"):
        load_thresholds({**state, "schema_version": 3})
    (entry,) = state["inputs"]
    swapped = {**entry, "default": {**entry["default"], "low": 0.5}}
    without = {k: v for k, v in entry.items() if k != "default"}
    for damaged in (without, {**entry, "default": {"accept": 1}}, swapped, {**entry, "certificate": {}}):
        with pytest.raises(UserError, match="damaged"):
            load_thresholds({**state, "inputs": [damaged]})
    with pytest.raises(UserError, match="damaged"):
        load_thresholds({**state, "inputs": []})
    for promise in ({"target_precision": "high"}, {"target_precision": float("nan")}, {"confidence": 95}):
        with pytest.raises(UserError, match="damaged"):
            load_thresholds(state | promise)


def served_tier(types, right, groups=None, **options):
    """All top candidates at 0.97, in lists of one candidate."""
    n = len(right)
    return ThresholdTable.fit(
        pair_p=np.full(n, 0.97),
        pair_y=np.asarray(right, int),
        pair_mention=np.arange(n),
        top1_p=np.full(n, 0.97),
        top1_correct=np.asarray(right, int),
        mention_types=types,
        hierarchy=HIERARCHY,
        groups=groups,
        **options,
    )


def test_a_type_is_judged_by_the_target_asked_for():
    types, right = [["T121"]] * 4000 + [["T047"]] * 400, np.r_[np.ones(4000), np.arange(400) % 5 > 0]
    assert served_tier(types, right).contradicted == ("T046", "T047", "group:DISO")
    assert served_tier(types, right, target_precision=0.7).contradicted == ()


def test_one_document_does_not_contradict():
    # Nine equal errors of one document, among 70 documents without one.
    types = [["T047"]] * 4000 + [["T121"]] * 79
    documents = np.r_[np.arange(4070), np.full(9, 4070)]
    table = served_tier(types, np.r_[np.ones(4070), np.zeros(9)], documents)
    assert table.certificate.threshold is not None and table.contradicted == ()
    # As many errors in nine documents count.
    assert "T121" in served_tier(types, np.r_[np.ones(4070), np.zeros(9)]).contradicted
