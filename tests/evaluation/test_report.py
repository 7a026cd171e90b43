"""The report of a model: the content of metrics.json."""

import numpy as np
from list_fixtures import make_lists

from umls_reranker.calibration.probabilities import Calibration, rank
from umls_reranker.evaluation.metrics import Documents
from umls_reranker.evaluation.render import card_charts
from umls_reranker.evaluation.report import System, measure, measure_model
from umls_reranker.models.cross_encoder import Scores
from umls_reranker.models.pairs import PairTemplate


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
