"""What is certified and right where requests bring less than the model reads: test lists with inputs removed."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..calibration.decisions import rank
from ..calibration.inputs import without
from ..calibration.network_logits import NetworkLogits, Unseen, unseen_inputs
from ..calibration.probabilities import Calibration
from ..data.candidate_lists import AnnotatedLists, CandidateLists
from ..models.cross_encoder import PairScorer, Scores
from .outcomes import Outcomes
from .slices import key_figures

__all__ = ["missing_input_figures"]


def missing_input_figures(
    lists: AnnotatedLists,
    logits: np.ndarray,
    scorer: PairScorer,
    calibration: Calibration,
    *,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """What a model answers with all inputs, and with those of each of its fallback models.

    Args:
        lists: of the split.
        logits: (m,) of its candidates.
        scorer: of the model; scores candidates that can win again where the network sees less.

    Returns:
        name of the inputs -> ``certified``, whether the tier high is for the model that decided, and `key_figures`
        over all mentions.
    """
    shown, report = scorer.template.reads, {}
    network = NetworkLogits(scorer, lists, "scoring", {(): logits})
    for model in calibration.models:
        given, unseen = without(lists, model.removed), unseen_inputs(model.removed, shown)

        def score(_: CandidateLists, retained: np.ndarray, unseen: Unseen = unseen) -> Scores:
            return Scores(network(unseen, retained), 0)

        decided = rank(given, score, calibration, network_inputs=shown)
        figures = key_figures(Outcomes.of(given, decided), resamples=resamples, seed=seed)
        report[model.name] = {"certified": model.thresholds.is_certified} | figures
    return report
