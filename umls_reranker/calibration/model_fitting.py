"""Fit the models of a calibration: weights, calibrator and thresholds of each."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from ..core.arrays import best_candidates
from ..core.errors import TooLittleData
from ..core.parallel import map_in_order, progress
from .calibrated_model import CalibratedModel
from .calibration_data import CalibrationData
from .calibrators import CALIBRATORS, Calibrator
from .candidate_scores import CandidateScores
from .cross_fitting import CrossFits, NestedFit
from .fallback_models import ALL_INPUTS, missing_by_model
from .missing_inputs import is_missing, without_inputs
from .threshold_fitting import fit_thresholds

if TYPE_CHECKING:
    from ..lists.annotated_lists import AnnotatedLists


class FittedModel(NamedTuple):
    """A fitted model, and its scores of the lists that it was fitted on.

    Attributes:
        model: the model, fitted on all documents.
        scores: its scores of all candidates.
        is_held_out: whether each score is by a fit without the fold of its document.
    """

    model: CalibratedModel
    scores: CandidateScores
    is_held_out: bool


def fit_models(
    data: CalibrationData, fits: CrossFits, method: str, *, has_fallbacks: bool
) -> list[FittedModel]:
    """Fit the model of all inputs, then the fallback models that serve further mentions.

    Args:
        data: the calibration lists.
        fits: fits of all features.
        method: name of the calibrator.
        has_fallbacks: whether to fit more than the model of all inputs.

    Raises:
        TooLittleData: there is too little data for the model of all inputs.
    """
    reads = data.cross_encoder.reads
    inputs = missing_by_model(data.names, reads) if has_fallbacks else {ALL_INPUTS: ()}
    models: list[FittedModel] = []
    # Models that weigh the same share the fits.
    fits_of = {data.weighed_without(()): fits}
    for name, missing in progress(inputs.items(), desc="fitting models", unit=" models"):
        # A model that does not read these inputs also serves mentions without them.
        serves_these = (
            {*missing}.isdisjoint(fitted.model.required_inputs(reads)) for fitted in models
        )
        if any(serves_these):
            continue
        try:
            weighed = data.weighed_without(missing)
            if weighed not in fits_of:
                fits_of[weighed] = data.cross_fits(missing)
            models.append(_fit_model(name, missing, fits_of[weighed], data, method))
        except TooLittleData:
            # The inputs left carry no information, so mentions with only these are never high tier.
            if not models:
                raise
    return models


def _fit_model(
    name: str, missing: Sequence[str], fits: CrossFits, data: CalibrationData, method: str
) -> FittedModel:
    """Fit the calibrator and the thresholds of a model; each fold is scored by a fit on the others.

    Args:
        name: name of the model.
        missing: the inputs that it does not read.
        fits: fits of its weights.
        data: settings, and what the certificate rests on.
        method: name of the calibrator.
    """
    missing = data.all_missing(missing)
    lists = without_inputs(data.lists, missing)
    full_fit = fits.full_fit
    calibrators = _calibrators(fits, method, [full_fit])
    model = replace(full_fit.model, name=name, missing=missing, calibrator=calibrators[0])
    folds = fits.held_out(full_fit)
    is_held_out = False
    if full_fit.without:
        with suppress(TooLittleData):
            calibrators = _calibrators(fits, method, [*full_fit.without.values()])
            is_held_out = True
    if not is_held_out:
        folds = [fits.scores_by(full_fit, np.ones(len(lists), bool))]
    parts = [
        (fold.rows, fold.calibrated(calibrator))
        for fold, calibrator in zip(folds, calibrators, strict=True)
    ]
    scores = CandidateScores.joined(parts, len(lists.owner))
    complete = _has_all_inputs(lists, model, data)
    for fold in folds:
        complete[fold.mentions] &= fold.is_legible
    thresholds = fit_thresholds(
        lists,
        scores.probabilities,
        best_candidates(scores.log_odds, lists.offsets),
        data.settings,
        complete=complete,
        for_certificate=data.for_certificate & is_held_out,
        is_one_look=data.is_one_look,
    )
    return FittedModel(replace(model, thresholds=thresholds), scores, is_held_out)


def _calibrators(fits: CrossFits, method: str, of_fits: Sequence[NestedFit]) -> list[Calibrator]:
    """The calibrators of some fits, each by one thread as in `FoldedLists.fit`."""

    def fit(one: NestedFit) -> Calibrator:
        return CALIBRATORS[method]().fit(fits.sample(one))

    with threadpool_limits(1, "blas"):
        return list(map_in_order(fit, of_fits))


def _has_all_inputs(
    lists: AnnotatedLists, model: CalibratedModel, data: CalibrationData
) -> np.ndarray:
    """Mentions that have all that a model without thresholds reads, (n,) bool."""
    names = {*model.required_inputs(data.cross_encoder.reads)}
    if model.name != ALL_INPUTS and lists.types.is_known.any():
        names.add("entity_type")
    usable_scores = dict(lists.scores)
    for name, score_range in data.score_ranges().items():
        if name in usable_scores:
            usable_scores[name] = score_range.inside(usable_scores[name])
    usable_lists = replace(lists, scores=usable_scores)
    lacks_any = np.zeros(len(lists), bool)
    for name in names:
        lacks_any |= is_missing(usable_lists, name, data.unfitted.counts)
    return ~lacks_any
