"""Lines by semantic type: shrinkage, fallback, and sparse data."""

import json

import numpy as np
import pytest

from umls_reranker.calibration.calibrators import BetaCalibrator, HierarchicalBetaCalibrator, PlattCalibrator
from umls_reranker.calibration.cross_validation import fit_calibrator
from umls_reranker.calibration.score_maps import Calibrator, Sample
from umls_reranker.core.errors import UserError
from umls_reranker.data.semantic_types import SemanticType, TypeHierarchy

HIERARCHY = TypeHierarchy(
    [
        SemanticType("T047", "Disease or Syndrome", None, "DISO"),
        SemanticType("T191", "Neoplastic Process", "T047", "DISO"),
        SemanticType("T184", "Sign or Symptom", None, "DISO"),
        SemanticType("T121", "Pharmacologic Substance", None, "CHEM"),
    ]
)
LINES = {"T047": (0.5, 0.0), "T121": (1.5, -1.5)}


def typed(sizes: dict[str, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[list[str]]]:
    rng = np.random.default_rng(seed)
    types = [[name] for name, size in sizes.items() for _ in range(size)]
    scores = rng.normal(0, 2, len(types))
    slope, intercept = np.array([LINES.get(name, (1.0, 0.0)) for (name,) in types]).T
    return scores, (rng.random(len(types)) < 1 / (1 + np.exp(-(slope * scores + intercept)))).astype(int), types


def fit(scores, labels, types, shrinkage=100.0, **kwargs) -> HierarchicalBetaCalibrator:
    return HierarchicalBetaCalibrator(shrinkage).fit(
        Sample(scores, labels, types=types, hierarchy=HIERARCHY, **kwargs)
    )


def composed(calibrator: HierarchicalBetaCalibrator, name: str) -> tuple[float, float]:
    """Slope and intercept of a type in terms of the score."""
    low, high = calibrator.log_odds(np.array([0.0, 1.0]), [[name]] * 2)
    return float(high - low), float(low)


def test_types_with_support_get_their_own_lines():
    fitted = fit(*typed({"T047": 8000, "T121": 8000}))
    for name, line in LINES.items():
        assert composed(fitted, name) == pytest.approx(line, abs=0.15)
    assert fitted.lines["T047"].support > 3000


def test_without_shrinkage_a_type_is_platt_of_its_own_rows_and_with_much_its_parent():
    scores, labels, types = typed({"T047": 3000, "T121": 500})
    own = np.array([name == "T121" for (name,) in types])
    root = BetaCalibrator().fit(Sample(scores, labels))
    alone = PlattCalibrator().fit(Sample(root.log_odds(scores[own]), labels[own]))

    def line(shrinkage: float) -> tuple[float, float]:
        found = fit(scores, labels, types, shrinkage).line("T121")
        return found.slope, found.intercept

    assert line(1e-6) == pytest.approx((alone.slope, alone.intercept), abs=1e-3)
    assert line(1e9) == pytest.approx((1.0, 0.0), abs=1e-3)
    assert 1.0 < line(labels[own].sum())[0] < alone.slope


def test_a_type_leans_on_its_parent_before_the_root():
    fitted = fit(*typed({"T047": 8000, "T121": 8000, "T191": 3}))
    parent, child = (fitted.line(name) for name in ("T047", "T191"))
    assert (child.slope, child.intercept) == pytest.approx((parent.slope, parent.intercept), abs=0.1)
    assert abs(child.slope - parent.slope) < 0.5 * abs(1.0 - parent.slope)


def test_types_never_seen_take_the_line_above_and_unknown_ones_the_root():
    fitted = fit(*typed({"T047": 4000, "T121": 4000}))
    assert fitted.line("T184") == fitted.lines["group:DISO"]
    assert fitted.line("pharmacologic substance") == fitted.line(["nonsense", "T121"]) == fitted.lines["T121"]
    scores = np.array([-2.0, 0.0, 3.0])
    np.testing.assert_array_equal(fitted(scores, [None, [], ["nonsense"]]), fitted(scores))
    np.testing.assert_allclose(fitted(scores), fitted.root(scores))


@pytest.mark.parametrize("label", [0, 1])
def test_a_type_of_one_class_or_equal_scores_stays_finite_and_near_its_parent(label):
    scores, labels, types = typed({"T047": 4000, "T121": 5})
    labels[-5:], scores[-5:] = label, 1.0
    fitted = fit(scores, labels, types)
    parent, child = (fitted.line(name) for name in ("T047", "T121"))
    assert np.isfinite([child.slope, child.intercept]).all() and child.slope > 0
    assert abs(child.intercept - fitted.lines["default"].intercept) < 1.0
    assert child.support == 5 * label and parent.support > 1000


def test_a_type_that_ranks_backwards_keeps_a_rising_map():
    scores, labels, types = typed({"T047": 4000, "T121": 900})
    labels[4000:] = scores[4000:] < 0
    fitted = fit(scores, labels, types)
    assert fitted.line("T121").slope == 0.05
    p = fitted(np.linspace(-5, 5, 50), [["T121"]] * 50)
    assert np.all(np.diff(p) > 0)


def test_without_types_it_is_beta():
    scores, labels, _ = typed({"T047": 500})
    np.testing.assert_array_equal(
        HierarchicalBetaCalibrator().fit(Sample(scores, labels))(scores),
        BetaCalibrator().fit(Sample(scores, labels))(scores),
    )


def test_inside_lists_types_differ_in_how_often_nothing_is_right():
    rng = np.random.default_rng(0)
    n, size = 4000, 3
    drug = np.arange(n) % 2 == 1
    utility = rng.normal(0, 2, (n, size))
    # The dictionary lacks drugs: two more for "none" of them.
    none = np.where(drug, 2.0, 0.0)
    choice = np.argmax(np.column_stack([none, utility]) + rng.gumbel(size=(n, size + 1)), axis=1) - 1
    labels = (np.arange(size) == choice[:, None]).astype(int).ravel()
    types = [["T121" if is_drug else "T047"] for is_drug in np.repeat(drug, size)]
    fitted = fit(utility.ravel(), labels, types, offsets=np.arange(n + 1) * size)
    assert composed(fitted, "T121") == pytest.approx((1.0, -2.0), abs=0.2)
    assert composed(fitted, "T047") == pytest.approx((1.0, 0.0), abs=0.2)


def test_json_round_trip_gives_equal_outputs_of_every_type():
    scores, labels, types = typed({"T047": 400, "T191": 50, "T121": 300})
    fitted = fit(scores, labels, types)
    state = json.loads(json.dumps(fitted.to_dict(), allow_nan=False))
    loaded = Calibrator.from_dict(state)
    assert loaded.to_dict() == fitted.to_dict()
    np.testing.assert_array_equal(loaded(scores, types), fitted(scores, types))


def test_damaged_states_are_refused():
    state = fit(*typed({"T047": 400})).to_dict()

    def changed(**parameters):
        return {"method": state["method"], "parameters": state["parameters"] | parameters}

    lines = state["parameters"]["lines"]
    for damaged in (
        changed(lines={}),
        changed(lines={**lines, "T047": {"slope": 1.0}}),
        changed(lines={**lines, "T047": {"slope": None, "intercept": 0.0, "support": 3}}),
        {"method": state["method"]},
    ):
        with pytest.raises(UserError, match="calibrator.json: parameters"):
            Calibrator.from_dict(damaged)
    with pytest.raises(UserError, match="semantic types are malformed"):
        Calibrator.from_dict(changed(hierarchy=None))
    with pytest.raises(UserError, match="increasing map"):
        Calibrator.from_dict(changed(lines={**lines, "T047": {"slope": -1.0, "intercept": 0.0, "support": 3}}))


def test_auto_finds_that_types_differ():
    scores, labels, types = typed({"T047": 1500, "T121": 1500})
    documents = np.random.default_rng(0).integers(0, 30, 3000)
    chosen, _ = fit_calibrator("auto", Sample(scores, labels, None, types, HIERARCHY), documents)
    assert chosen.name.startswith("hierarchical")
