"""Systems on the same lists, and whether one is better than the order of the lists."""

import numpy as np
import pytest
from list_fixtures import make_lists

from umls_reranker.calibration.probabilities import Calibration, rank
from umls_reranker.calibration.reliability import ece
from umls_reranker.evaluation.metrics import Documents
from umls_reranker.evaluation.render import as_text, card_charts, systems_table
from umls_reranker.evaluation.report import (
    System,
    baselines,
    best_row,
    compare_systems,
    measure,
    measure_model,
    verdict,
)
from umls_reranker.models.cross_encoder import Scores
from umls_reranker.models.pairs import PairTemplate

# Eight mentions of four documents. The order is correct for 0, 1 and 6; the model for 0, 2, 3, 4
# and 6.
DOCUMENTS = Documents.of(list("aabbccdd"), 400, 1)
ORDER = np.array([0, 0, 1, 2, 1, -1, 0, 3])
MODEL = np.array([0, 1, 0, 0, 0, -1, 0, 3])
P = np.array([0.9, 0.6, 0.8, 0.7, 0.9, np.nan, 0.8, 0.2])
ACCEPTED = np.array([True, True, True, False, True, False, False, False])
SYSTEMS = {"lists_order": System(ORDER), "reranker": System(MODEL, P, ACCEPTED)}


def values(figures, system):
    prefix = f"systems/{system}/"
    return {
        key.removeprefix(prefix): entry["value"]
        for key, entry in figures.items()
        if key.startswith(prefix)
    }


def test_figures_by_hand():
    known = np.arange(8) != 5
    figures = compare_systems(SYSTEMS, DOCUMENTS, known)
    has = ~np.isnan(P)
    assert values(figures, "lists_order") == pytest.approx(
        {
            "acc@1": 3 / 8,
            "acc@1_in_dictionary": 3 / 7,
            "mrr": (3 + 1 / 2 + 1 / 3 + 1 / 2 + 1 / 4) / 8,
            "recall@5": 7 / 8,
            "recall": 7 / 8,
        }
    )
    model = values(figures, "reranker")
    assert (model["acc@1"], model["gain"], model["accepted_coverage"]) == (5 / 8, 2 / 8, 4 / 8)
    assert model["accepted_precision"] == 3 / 4 and model["coverage_at_0.95"] == 5 / 8
    assert model["top1_ece"] == pytest.approx(ece(P[has], (MODEL == 0)[has]))
    assert figures["systems/reranker/accepted_precision"]["n"] == 4


def test_the_difference_is_paired_and_of_the_same_resamples():
    gain = compare_systems(SYSTEMS, DOCUMENTS)["systems/reranker/gain"]
    # By document: 0, +2, +1 and 0, minus the mention that only the order has right.
    draws = np.random.default_rng(1).multinomial(4, np.full(4, 0.25), size=400)
    expected = np.quantile(draws @ np.array([-1, 2, 1, 0]) / 8, [0.025, 0.975])
    assert [gain["low"], gain["high"]] == pytest.approx(expected.tolist())


def test_nothing_accepted_and_no_candidates():
    nothing = System(np.full(8, -1), np.full(8, np.nan), np.zeros(8, bool))
    figures = compare_systems({"lists_order": System(ORDER), "empty": nothing}, DOCUMENTS)
    empty = values(figures, "empty")
    assert (
        empty["accepted_coverage"] == 0.0
        and np.isnan(empty["accepted_precision"])
        and "top1_ece" not in empty
    )
    assert "–" in as_text(systems_table(figures))


def test_a_system_with_one_answer_or_none_has_no_ranking():
    system = System.answering(["C1", None, "C2"], [("C0", "C1"), ("C1",), ("C1",)])
    composite = np.array([True, False, False])
    figures = compare_systems(
        {"lists_order": system}, Documents.of(list("abc"), 50), None, composite
    )
    assert "acc@1 (strict)" in systems_table(figures).header
    assert values(figures, "lists_order") == pytest.approx(
        {
            "acc@1": 1 / 3,
            "accepted_coverage": 2 / 3,
            "accepted_precision": 1 / 2,
            "acc@1_in_dictionary": 1 / 3,
        }
        | {"acc@1_strict": 0.0}
    )


def test_baselines_by_hand():
    names = {"C1": "common cold", "C2": "COLD", "C3": "FEVER", "C4": "ague"}
    items = [
        [{"name": names[cui], "cui": cui} for cui in cuis]
        for cuis in (("C1", "C2"), ("C3",), (), ("C4", "C3"))
    ]
    gold = ["C2", "C3", "C5", "C4"]
    lists = make_lists(["Cold", "fever", "ague", "chill"], items, gold=[1, 0, -1, 0], cuis=gold)
    # Of equally frequent concepts the smaller.
    known = [("cold", "C2"), ("COLD", "C2"), ("cold", "C9"), ("fever", "C8"), ("fever", "C7")]
    systems = baselines(lists, known)
    answered = {
        name: (system.accepted.tolist(), system.ranks.tolist()) for name, system in systems.items()
    }
    assert answered == {
        "exact_match": ([True, True, False, False], [0, 0, -1, -1]),
        "most_frequent_cui": ([True, True, False, False], [0, -1, -1, -1]),
        "most_frequent_cui_else_order": ([True, True, False, True], [0, -1, -1, 0]),
    }
    assert list(baselines(lists, [])) == ["exact_match"]


@pytest.mark.parametrize(
    ("figures", "word", "rest"),
    [
        ((0.08, 0.046, 0.117), "gain", "+8.0 points over your order (4.6 to 11.7)"),
        ((-0.052, -0.081, -0.0201), "loss", "-5.2 points against your order (-8.1 to -2.0)"),
        # The lower end is 2 points below 1.2: (2 / 1.2)^2 = 2.78 times as many, 1.78 times 300
        # more.
        ((0.012, -0.008, 0.031), "inconclusive", "label about 530 more"),
        # The end towards 0 counts, here the upper one: (3.5 / 2)^2.
        ((-0.02, -0.04, 0.015), "inconclusive", "label about 620 more"),
        # A skewed interval that just touches 0: half of its width counts, (1.5 / 1.2)^2 = 1.56.
        ((-0.012, -0.03, 0.0), "inconclusive", "label about 170 more"),
        # (2.2 / 0.2)^2 is 121 times as many.
        ((0.002, -0.02, 0.024), "inconclusive", "about equal"),
    ],
)
def test_verdicts(figures, word, rest):
    found = verdict(dict(zip(("value", "low", "high"), figures, strict=True)), 300, 150)
    assert found.startswith(f"{word}: ") and rest in found


@pytest.mark.parametrize("documents", [8, 1])
def test_the_interval_of_few_documents_decides_nothing(documents):
    ends = (0.05, 0.11) if documents > 1 else (np.nan, np.nan)
    found = verdict({"value": 0.08, "low": ends[0], "high": ends[1]}, 300, documents)
    assert (
        found.startswith("inconclusive: +8.0 points over your order")
        and "label at least 20" in found
    )


def test_the_row_that_is_better_than_this_model_is_named():
    names = {"lists_order": "original order", "model_before": "model before", "reranker": "this"}
    values = {"lists_order": 0.5, "model_before": 0.54, "reranker": 0.528}
    figures = {f"systems/{name}/acc@1": {"value": value} for name, value in values.items()}
    metrics = {"figures": figures, "rows": {"systems": names}}
    assert best_row(metrics) == "; the highest acc@1 is that of model before: 54.0%, here 52.8%"
    figures["systems/reranker/acc@1"]["value"] = 0.54
    assert best_row(metrics) == ""


# The report of a model: the content of metrics.json


def test_of_a_model_that_uses_no_cross_encoder_nothing_is_told_of_one():
    lists = make_lists(["m", "n", "o"], [["a", "b"], ["a", "c"], ["d"]], gold=[0, 1, -1])
    logits = np.array([1, -1, 0.5, 2, -3], np.float32)
    decided = rank(lists, Scores(logits, 0), Calibration())
    documents = Documents.of(lists.annotations.documents, 20)
    systems = {"lists_order": System(lists.annotations.gold)}
    rest = (systems, documents, "lists")
    with_cross_encoder, _ = measure(lists, decided, logits, *rest)
    without, _ = measure(lists, decided, np.full_like(logits, np.nan), *rest)
    of_cross_encoder = with_cross_encoder["figures"].keys() - without["figures"].keys()
    assert of_cross_encoder == {
        name for name in with_cross_encoder["figures"] if name.endswith("_raw")
    } | {"ece_reduction"}
    for metrics, is_drawn in ((without, False), (with_cross_encoder, True)):
        assert ("raw" in metrics["curves"]["reliability"]) == is_drawn
        assert ("before calibration" in card_charts(metrics, 0.95)[0]) == is_drawn
    assert (without["not_in_list"], without["candidates"]) == (1, 5)


def test_every_list_is_scored_once_and_what_pruning_changes_is_told():
    class Scorer:
        template = PairTemplate()
        scored = 0

        def score(self, mentions, *rest):
            self.scored += len(mentions)
            return Scores(np.ones(len(mentions), np.float32), 0)

    lists = make_lists(["m", "n"], [["a", "b"], ["c"]], gold=[0, 0])
    systems = {"lists_order": System(lists.annotations.gold)}
    documents = Documents.of(lists.annotations.documents, 20)
    scorer = Scorer()
    metrics, outcomes = measure_model(scorer, Calibration(), lists, systems, documents, "test")
    assert scorer.scored == 3 and len(outcomes) == 2
    assert list(metrics["rows"]["systems"]) == ["lists_order", "cross_encoder", "reranker"]
    for name in ("scored_share", "same_top_candidate"):
        assert metrics["figures"][name]["value"] == 1.0
