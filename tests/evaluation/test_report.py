"""Figures of a report that have no module of their own."""

import numpy as np
import pytest
from list_fixtures import make_lists
from outcome_fixtures import make_outcomes

from umls_reranker.calibration.decisions import rank
from umls_reranker.calibration.probabilities import Calibration
from umls_reranker.evaluation.figures import measure_figures
from umls_reranker.evaluation.linking import Documents
from umls_reranker.evaluation.outcomes import Outcomes
from umls_reranker.evaluation.page import card_charts
from umls_reranker.evaluation.report import decided_figures, pair_logits
from umls_reranker.models.cross_encoder import Scores
from umls_reranker.models.template import PairTemplate
from umls_reranker.serving.monitoring.figures import Figures, Top


def test_the_report_and_the_monitor_count_lists_without_candidates_alike():
    score = np.array([0.9, np.nan, 0.7, 0.8, np.nan])
    margin, accepted = score - 0.1, ~np.isnan(score)
    tier = np.where(accepted, "high", "reject")
    outcomes = make_outcomes(5, score=score, margin=margin, tier=tier, accepted=accepted)
    reported, seen = measure_figures("serving", outcomes, Documents.of(outcomes.document, 20), "test"), Figures()
    for place in range(5):
        seen.add(3, Top(score[place], margin[place], "high", True) if accepted[place] else None)
    counted = seen.to_dict()
    for name in ("mean_top_score", "mean_margin", "accepted_share", "high_confidence_share"):
        assert reported[name]["value"] == pytest.approx(counted[name])
    assert reported["mean_top_score"]["value"] == pytest.approx(0.8)
    assert reported["mean_top_score"]["population"] == "3 test mentions with candidates"
    assert reported["without_candidates_share"]["value"] == pytest.approx(0.4)


def test_pairs_that_are_candidates_are_not_scored_again():
    class Scorer:
        template, asked = PairTemplate(), []

        def score(self, *columns):
            self.asked.append(columns)
            return Scores(np.arange(7, 7 + len(columns[0]), dtype=np.float32), 0)

    lists = make_lists(["m", "n"], [["a", "b"], ["a", "c"]])
    logits = np.array([1, 2, 3, np.nan], np.float32)
    pairs = ["n", "m", "n", "n", "m", "n"], ["a", "b", "c", "d", "a", "c"], [""] * 6, ["", "", "", "", "x", ""]
    assert pair_logits(Scorer(), pairs, lists, logits, "title").tolist() == [3, 2, 7, 8, 9, 7]
    assert Scorer.asked == [(["n", "n", "m"], ["c", "d", "a"], ["", "", ""], ["", "", "x"], "title")]
    assert pair_logits(Scorer(), [part[:2] for part in pairs], lists, logits, "title").tolist() == [3, 2]
    assert len(Scorer.asked) == 1


def test_of_a_model_that_uses_no_network_nothing_is_told_of_one():
    lists = make_lists(["m", "n", "o"], [["a", "b"], ["a", "c"], ["d"]], gold=[0, 1, -1])
    logits = np.array([1, -1, 0.5, 2, -3], np.float32)
    decided = rank(lists, Scores(logits, 0), Calibration())
    outcomes, documents = Outcomes.of(lists, decided), Documents.of(lists.annotations.documents, 20)
    without_network, with_network = (
        decided_figures(lists, decided, column, outcomes, documents, "lists")
        for column in (np.full_like(logits, np.nan), logits)
    )
    assert list(without_network["linking"]) == ["reranker", "retriever"]
    of_network = with_network["calibration"].keys() - without_network["calibration"].keys()
    assert of_network == {name for name in with_network["calibration"] if name.endswith("_raw")} | {"ece_reduction"}
    assert with_network["curves"]["reliability"].keys() - without_network["curves"]["reliability"].keys() == {"raw"}
    for report, is_drawn in ((without_network, False), (with_network, True)):
        assert ("before calibration" in card_charts(report, 0.95)[0]) == is_drawn
    with_network["linking"].pop("cross_encoder")
    np.testing.assert_equal(without_network["linking"], with_network["linking"])
