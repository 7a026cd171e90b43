"""The systems that a model is compared with on labelled lists, and the comparison in words."""

import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ..calibration.arguments import CalibrationArguments
from ..calibration.cross_encoder_logits import CrossEncoderLogits
from ..calibration.fitting import FitOptions, fit_calibration
from ..calibration.string_counts import StringCounts
from ..core.errors import TooLittleData, warn_caller
from ..evaluation.formatting import cell, percent
from ..evaluation.intervals import Documents
from ..evaluation.outcomes import Outcomes
from ..evaluation.systems import System, at_same_coverage
from ..evaluation.tables import title_of
from ..lists.annotated_lists import AnnotatedLists
from ..lists.labels import best_of_each_concept
from .calibration_lists import CalibrationLists
from .model_source import ModelSource


def systems_of_lists(
    lists: AnnotatedLists, settings: CalibrationArguments, seed: int
) -> dict[str, System]:
    """Systems of n lists without a model: their order, and their calibrated scores.

    Of several candidates of a concept the first counts. The scores of each fold are calibrated on
    the others. Of corrections, only those drawn at random are measured.

    Args:
        lists: the lists with all their candidates.
        settings: as for `calibrate_lists`.
        seed: as for `calibrate_lists`.

    Returns:
        ``lists_order`` and ``calibrated_scores``, to which other systems are compared.
    """
    lists = lists.with_whole_scores(lists.partial_scores)
    lists = lists.with_candidates(best_of_each_concept(lists))
    measured = lists.annotations.is_random_sample
    systems = {"lists_order": System(lists.annotations.gold[measured])}
    if lists.scores and len({*lists.annotations.documents}) > 1:
        with suppress(TooLittleData):
            fit = fit_calibration(
                lists,
                CrossEncoderLogits(None, lists),
                StringCounts.fit([]),
                # The model's calibrator may be one that cannot weigh features.
                replace(settings, features=[*lists.scores], calibrator="auto"),
                seed,
                options=FitOptions(has_fallbacks=False),
            )
            systems["calibrated_scores"] = System.of(
                Outcomes.of(lists.take(measured), fit.decisions.take(measured))
            )
    return systems


def model_before(source: ModelSource, data: CalibrationLists) -> dict[str, System]:
    """The model before, unless it was calibrated on these lists."""
    is_measured = data.lists.annotations.is_random_sample
    measured = data.lists.take(is_measured)
    systems = {}
    # On lists that it was calibrated on, it would look better than it is.
    if source.reranker is not None and not data.chosen.is_again:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            before = source.reranker.decide(measured)
        for warning in caught:
            warn_caller(f"the model before, {source.name}: {warning.message}")
        former = System.of(Outcomes.of(measured, before))
        # About lists of another source it decides nothing.
        accepted = former.accepted if before.has_tiers.any() else None
        systems["model_before"] = former._replace(accepted=accepted)
    return systems


def compare_with_free(
    free: Mapping[str, System], metrics: dict[str, Any], outcomes: Outcomes, documents: Documents
) -> None:
    """Add to figures, notes and verdict how precise the model is where a free baseline answers."""
    for name, system in free.items():
        difference = at_same_coverage(outcomes, system, documents)
        metrics["figures"][f"systems/{name}/model_at_same_coverage"] = difference
        metrics["notes"].append(_precision_beside(title_of(name), difference))
        if difference["value"] <= 0:
            metrics["verdict"] = (
                f"no more precise than {title_of(name)}, which costs nothing, where that answers; "
                + metrics["verdict"]
            )


def _precision_beside(name: str, difference: Mapping[str, Any]) -> str:
    """A baseline and the model, as by `at_same_coverage`, in a sentence."""
    gain, ends = cell(difference, "points")
    with_interval = f"{gain} points, {ends}" if ends else f"{gain} points"
    return (
        f"{name}: answers {percent(difference['coverage'])}, {percent(difference['system'])} of "
        f"them correct; of as many answers of this model, the surest, "
        f"{percent(difference['model'])} ({with_interval})"
    )
