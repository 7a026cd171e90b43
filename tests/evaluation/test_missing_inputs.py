"""Test lists with inputs removed: which model decides, what the network scores again, and the figures."""

from dataclasses import replace

import numpy as np
from list_fixtures import make_lists

from umls_reranker.calibration.calibrators import PlattCalibrator
from umls_reranker.calibration.certificate import Certificate
from umls_reranker.calibration.decisions import rank
from umls_reranker.calibration.fusion import FeatureFusion
from umls_reranker.calibration.probabilities import Calibration, InputModel
from umls_reranker.calibration.thresholds import ThresholdTable, TypeThreshold
from umls_reranker.data.semantic_types import SemanticType, TypeHierarchy
from umls_reranker.evaluation.answers import Answers
from umls_reranker.evaluation.inputs import missing_input_figures
from umls_reranker.evaluation.linking import Documents
from umls_reranker.models.cross_encoder import Scores
from umls_reranker.models.template import PairTemplate

HIERARCHY = TypeHierarchy([SemanticType("T047", "Disease")])


def table(high):
    row = TypeThreshold(0.2, high, 0.1, None, None, 0, 0, 0, "default", "default")
    return ThresholdTable({"default": row}, HIERARCHY, certificate=Certificate(high, 60, 59))


class Scorer:
    """Sees that the top candidate correct where it sees a preferred name, the second where it does not."""

    template = PairTemplate(candidate_fields=("preferred_name",), mention_types=True)

    def __init__(self):
        self.asked = []

    def score(self, mentions, names, lefts, rights, desc):
        self.asked.append((desc, mentions[0], names[0]))
        return Scores(np.resize([1.0, -1.0] if " ; " in names[0] else [-1.0, 1.0], len(names)), 0)


def answers_of(scorer, models, lists, logits, documents):
    """Answers whose candidates are scored already."""
    calibration, scores = Calibration(models), Scores(logits, 0)
    exhaustive = rank(lists, scores, calibration, network_inputs=scorer.template.reads, exhaustive=True)
    return Answers(scorer, calibration, lists, "test", Documents.of(documents, 10), exhaustive)


def test_each_set_of_inputs_is_decided_by_its_model_and_scored_as_the_network_sees_it():
    items = [{"name": name, "cui": name.upper(), "preferred_name": "x"} for name in ("a", "b")]
    lists = make_lists(["m"] * 4, [items] * 4, ["T047"] * 4, HIERARCHY, gold=[0, 0, 0, 1])
    models = [
        InputModel(PlattCalibrator(2.0, 0.0), thresholds=table(0.8)),
        InputModel(PlattCalibrator(1.0, 0.0), thresholds=table(None), removed=("entity_type",), name="no type"),
        InputModel(PlattCalibrator(3.0, 0.0), thresholds=table(0.9), removed=("preferred_name",), name="names"),
    ]
    scorer = Scorer()
    logits = scorer.score(["m"] * 8, ["a ; x", "b ; x"] * 4, None, None, "").logits
    found = missing_input_figures(answers_of(scorer, models, lists, logits, list("abcd")))
    assert scorer.asked[1:] == [
        ("scoring without entity_type", "m", "a ; x"),
        ("scoring without preferred_name", "m ; Disease", "a"),
    ]
    figures = {
        name: (
            part["certified"],
            part["acc@1"]["value"],
            part["high_confidence_share"]["value"],
            part["high_confidence_precision"]["value"],
        )
        for name, part in found.items()
    }
    np.testing.assert_equal(
        figures,
        {
            "all": (True, 0.75, 1.0, 0.75),
            "no type": (False, 0.75, 0.0, np.nan),
            "names": (True, 0.25, 1.0, 0.25),
        },
    )


def test_inputs_that_the_network_does_not_see_are_scored_as_far_as_they_are_served_and_once():
    items = [{"name": name, "cui": name.upper(), "preferred_name": "x"} for name in ("a", "b", "c")]
    lists = make_lists(["a"], [items], ["T047"], HIERARCHY, gold=[0])
    sure, baseline = FeatureFusion({"cross_encoder": 1.0}, {}, 0.0), FeatureFusion({"exact_name": 9.0}, {}, 4.0)
    names = InputModel(
        fusion=sure, baseline=baseline, pruning_threshold=0.1, removed=("preferred_name",), name="names"
    )
    whole = InputModel(fusion=sure, thresholds=table(0.9))
    untyped = replace(names, removed=("preferred_name", "semantic_types"), name="names, no type")
    scorer = Scorer()
    missing_input_figures(answers_of(scorer, [whole, names, untyped], lists, np.zeros(3, np.float32), ["a"]))
    assert scorer.asked == [("scoring without preferred_name", "a ; Disease", "a")]
