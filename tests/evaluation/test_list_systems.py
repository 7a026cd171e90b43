import numpy as np
import pytest

from umls_reranker.calibration.reliability import ece
from umls_reranker.evaluation.linking import Documents
from umls_reranker.evaluation.list_systems import System, compare_systems, systems_markdown, systems_table, verdict

# Eight mentions of four documents. The order is correct for 0, 1 and 6; the model for 0, 2, 3, 4 and 6.
DOCUMENTS = Documents.of(list("aabbccdd"), 400, 1)
ORDER = np.array([0, 0, 1, 2, 1, -1, 0, 3])
MODEL = np.array([0, 1, 0, 0, 0, -1, 0, 3])
P = np.array([0.9, 0.6, 0.8, 0.7, 0.9, np.nan, 0.8, 0.2])
ACCEPTED = np.array([True, True, True, False, True, False, False, False])
SYSTEMS = {"lists_order": System(ORDER), "reranker": System(MODEL, P, accepted=ACCEPTED)}


def gain(value, low, high):
    return {"gain": {"value": value, "low": low, "high": high}}


def test_figures_by_hand():
    order, model = compare_systems(SYSTEMS, DOCUMENTS)
    assert (order["name"], model["name"]) == ("lists_order", "reranker")
    assert (order["acc@1"]["value"], model["acc@1"]["value"]) == (3 / 8, 5 / 8)
    assert order["gain"] is None and order["top1_ece"] is None
    assert (order["accepted_share"]["value"], order["accepted_precision"]["value"]) == (1.0, 3 / 8)
    assert np.isnan(order["accepted_share"]["low"])
    assert (model["accepted_share"]["value"], model["accepted_precision"]["value"]) == (4 / 8, 3 / 4)
    has = ~np.isnan(P)
    assert model["top1_ece"]["value"] == pytest.approx(ece(P[has], (MODEL == 0)[has]))
    assert model["top1_ece"]["low"] <= model["top1_ece"]["value"] <= model["top1_ece"]["high"]


def test_the_difference_is_paired_and_of_the_same_resamples():
    _, model = compare_systems(SYSTEMS, DOCUMENTS)
    # By document: 0, +2, +1 and 0, minus the mention that only the order has right.
    by_document = np.array([-1, 2, 1, 0])
    draws = np.random.default_rng(1).multinomial(4, np.full(4, 0.25), size=400)
    expected = np.quantile(draws @ by_document / 8, [0.025, 0.975])
    assert model["gain"]["value"] == 2 / 8
    assert [model["gain"]["low"], model["gain"]["high"]] == pytest.approx(expected.tolist())


def test_a_system_that_orders_as_the_lists_do_differs_by_nothing():
    _, same = compare_systems({"lists_order": System(ORDER), "scores": System(ORDER)}, DOCUMENTS)
    assert same["gain"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_nothing_accepted_and_no_candidates():
    nothing = System(np.full(8, -1), np.full(8, np.nan), accepted=np.zeros(8, bool))
    _, row = compare_systems({"lists_order": System(ORDER), "empty": nothing}, DOCUMENTS)
    assert row["accepted_share"]["value"] == 0.0 and np.isnan(row["accepted_precision"]["value"])
    assert row["top1_ece"] is None
    assert "–" in systems_table([row])


@pytest.mark.parametrize(
    "figures, expected",
    [
        ((0.08, 0.046, 0.117), "gain: +8.0 points over your order (4.6 to 11.7)"),
        ((-0.052, -0.081, -0.0201), "loss: -5.2 points against your order (-8.1 to -2.0)"),
        # The lower end is 2 points below 1.2: (2 / 1.2)^2 = 2.78 times as many, 1.78 times 300 more.
        (
            (0.012, -0.008, 0.031),
            "inconclusive: +1.2 points over your order (-0.8 to 3.1); label about 530 more mentions",
        ),
        # The end towards 0 counts, here the upper one: (3.5 / 2)^2.
        (
            (-0.02, -0.04, 0.015),
            "inconclusive: -2.0 points against your order (-4.0 to 1.5); label about 620 more mentions",
        ),
        # An end at 0 needs one document of two mentions more.
        (
            (0.02, 0.0, 0.04),
            "inconclusive: +2.0 points over your order (0.0 to 4.0); label about 2 more mentions",
        ),
        # A skewed interval that just touches 0: half of its width counts, (1.5 / 1.2)^2 = 1.56.
        (
            (-0.012, -0.03, 0.0),
            "inconclusive: -1.2 points against your order (-3.0 to 0.0); label about 170 more mentions",
        ),
        # (2.2 / 0.2)^2 is 121 times as many.
        (
            (0.002, -0.02, 0.024),
            "inconclusive: +0.2 points over your order (-2.0 to 2.4); the two are about equal on lists like these",
        ),
        (
            (0.0, -0.02, 0.02),
            "inconclusive: +0.0 points over your order (-2.0 to 2.0); the two are about equal on lists like these",
        ),
    ],
)
def test_verdicts(figures, expected):
    assert verdict(gain(*figures), 300, 150) == expected


def test_the_interval_of_few_documents_decides_nothing():
    few = "8 documents are too few for a reliable interval, label at least 20"
    assert verdict(gain(0.08, 0.05, 0.11), 300, 8) == f"inconclusive: +8.0 points over your order (5.0 to 11.0); {few}"
    assert verdict(gain(0.08, np.nan, np.nan), 300, 1) == (
        "inconclusive: +8.0 points over your order; 1 document is too few for a reliable interval, label at least 20"
    )


def test_tables_have_the_same_cells():
    names = ("lists_order", "calibrated_scores", "features_without_cross_encoder", "reranker")
    rows = compare_systems(
        {name: SYSTEMS["reranker" if i else "lists_order"] for i, name in enumerate(names)}, DOCUMENTS
    )
    text, markdown = systems_table(rows), systems_markdown(rows)
    assert max(map(len, text.splitlines())) <= 100
    for cell in ("original order", "37.5", "+25.0", "50.0", "75.0", "this model"):
        assert cell in text and cell in markdown
    low, high = (100 * rows[1]["gain"][end] for end in ("low", "high"))
    assert f"+25.0 ({low:.1f} to {high:.1f})" in markdown.splitlines()[3]
    assert f"{low:.1f} to {high:.1f}" in text
