"""Fit a calibration to the candidate lists of the calibration split, and decide about these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .calibrated_documents import NO_DOCUMENTS, CalibratedDocuments
from .calibration import Calibration
from .calibration_data import CalibrationData
from .calibrator_choice import choose_calibrator
from .calibrators import CALIBRATORS
from .candidate_scores import CandidateScores
from .cross_counting import cross_counted_features
from .cross_encoder_logits import CrossEncoderLogits
from .cross_fitting import CrossFits
from .decisions import Decisions
from .features import CROSS_ENCODER, check_features, default_features
from .list_source import ListSource
from .missing_inputs import always_missing
from .model_fitting import FittedModel, fit_models
from .reliability import document_folds
from .score_range import ScoreRange, are_sentinels
from .string_counts import StringCounts
from .thresholds import TIERS

if TYPE_CHECKING:
    from ..lists.annotated_lists import AnnotatedLists
    from ..lists.candidate_lists import CandidateLists
    from .arguments import CalibrationArguments


@dataclass(frozen=True)
class FitOptions:
    """What `fit_calibration` may do.

    Attributes:
        may_certify: whether anything is tested.
        is_one_look: whether the documents were chosen before any label and are tested once.
        has_fallbacks: whether to fit more than the model of all inputs.
    """

    may_certify: bool = True
    is_one_look: bool = False
    has_fallbacks: bool = True


@dataclass(frozen=True)
class Fitted:
    """A calibration, and its decisions about the lists that it was fitted on.

    Attributes:
        calibration: the calibration, fitted on all documents.
        decisions: each mention as it is served, with the delivered thresholds, but by scores of a
            fit without the fold of its document. Figures of these decisions are held out if
            `is_held_out`.
        facts: what it was fitted on, for ``calibrator.json``.
        is_held_out: False if there was too little data to fit without each fold, so that decisions
            of some model are by a fit that has seen the document. Such a model has no certificate.
    """

    calibration: Calibration
    decisions: Decisions
    facts: dict[str, Any]
    is_held_out: bool


def fit_calibration(
    lists: AnnotatedLists,
    cross_encoder: CrossEncoderLogits,
    counts: StringCounts,
    settings: CalibrationArguments,
    seed: int,
    documents: CalibratedDocuments = NO_DOCUMENTS,
    options: FitOptions = FitOptions(),
) -> Fitted:
    """Fit the at most four models of a calibration on candidate lists, balanced as in serving.

    Thresholds and certificates use probabilities of held-out documents: each fold is scored by a
    fusion and a calibrator of the same kind fitted on the other folds (`cross_fitting`). The served
    model is fitted on all documents. Each fallback model is fitted in the same way, on the lists
    without the inputs that it does not read, with a calibrator of the same kind. Each has one
    certificate: the best of several would guarantee more than holds. Documents that an earlier
    version was calibrated on do not certify.

    Args:
        lists: the calibration split.
        cross_encoder: logits of its candidates.
        counts: counts of the training split; those of `lists` are added.
        settings: the recipe's section.
        seed: seed of the folds of documents.
        documents: those that earlier versions were fitted on, which do not certify.
        options: what to leave out, and what to add.

    Raises:
        TooLittleData: there is too little data for the model of all inputs.
        UserError: a feature is unknown, missing in the lists, or not finite.
    """
    annotations = lists.annotations
    is_new = documents.are_of_new_documents(annotations)
    for_certificate = annotations.is_random_sample & is_new & options.may_certify
    certified = annotations.documents[for_certificate].tolist()
    names = _features_to_weigh(lists, settings)
    folds = document_folds(annotations.documents, seed)
    table, all_counts = cross_counted_features(lists, counts, folds, names)
    data = CalibrationData(
        lists=lists,
        cross_encoder=cross_encoder,
        settings=settings,
        seed=seed,
        names=names,
        table=table.plus(_scores_without_sentinels(lists)),
        unfitted=Calibration(
            counts=all_counts,
            source=ListSource(lists.index_keys[0]),
            documents=documents.with_latest(annotations.doc_ids),
            training_counts=counts,
        ),
        folds=folds,
        for_certificate=for_certificate,
        is_one_look=options.is_one_look,
        always_missing=always_missing(lists, cross_encoder.reads),
    )
    fits = data.cross_fits()
    cross_encoder_facts = _cross_encoder_facts(data, fits)
    fitted = _fit_and_decide(data, fits, has_fallbacks=options.has_fallbacks)
    facts = {
        "split": "calibration",
        "mentions": len(lists),
        "documents": len({*annotations.documents}),
        "pairs": len(lists.owner),
        "positives": int(lists.labels.sum()),
        "example": lists.example(),
        "certified_by": {
            "documents": len({*certified}),
            "mentions": len(certified),
        },
    }
    return replace(fitted, facts=facts | cross_encoder_facts | fitted.facts)


def _features_to_weigh(lists: AnnotatedLists, settings: CalibrationArguments) -> Sequence[str]:
    """The features to weigh; none if the cross-encoder alone decides.

    Without features, a calibrator that works inside lists needs a fusion, of the cross-encoder.
    """
    names = default_features(lists) if settings.features is None else settings.features
    kind = CALIBRATORS.get(settings.calibrator)
    if not names and kind is not None and not kind.fits_logits:
        names = [CROSS_ENCODER]
    check_features(names, lists)
    return names


def _cross_encoder_facts(data: CalibrationData, fits: CrossFits) -> dict[str, Any]:
    """What the cross-encoder gains, and what pruning costs; {} if it is not weighed with others."""
    if CROSS_ENCODER not in data.names or len(data.names) == 1:
        return {}
    nats, error = fits.cross_encoder_gain()
    gain: dict[str, Any] = {"nats_gained": None, "standard_error": None}
    if np.isfinite(nats):
        gain = {"nats_gained": nats, "standard_error": error}
    return {"cross_encoder": gain, "pruning": fits.pruning_cost()}


def _fit_and_decide(data: CalibrationData, fits: CrossFits, *, has_fallbacks: bool) -> Fitted:
    """Fit calibrators and thresholds of the models, and decide about the lists.

    Args:
        data: the lists.
        fits: fits of all features.
        has_fallbacks: whether to fit more than the model of all inputs.
    """
    lists = data.lists
    is_used = fits.data.inside()[lists.owner]
    documents = lists.annotations.documents[lists.owner[is_used]]
    method, losses = choose_calibrator(
        data.settings.calibrator, fits.sample(fits.full_fit), documents, data.seed
    )
    models = fit_models(data, fits, method, has_fallbacks=has_fallbacks)
    calibration = replace(
        data.unfitted,
        models=[fitted.model for fitted in models],
        source=replace(data.unfitted.source, score_ranges=data.score_ranges()),
    )
    facts = {"cross_validated_losses": losses} if losses else {}
    return Fitted(
        calibration,
        _decide(data, calibration, models),
        facts=facts,
        is_held_out=all(fitted.is_held_out for fitted in models),
    )


def _decide(
    data: CalibrationData, calibration: Calibration, models: Sequence[FittedModel]
) -> Decisions:
    """The decisions about the lists, each by the model that would decide about the mention."""
    lists = data.lists
    usable_lists = calibration.source.with_usable_scores(lists)
    choice = calibration.model_for(usable_lists, data.cross_encoder.reads)
    # The lowest probability of each tier but the last, by mention.
    edges = np.empty((len(lists), len(TIERS) - 1))
    scores_by_candidates = []
    for number, fitted in enumerate(models):
        mentions = choice.models == number
        candidates = mentions[lists.owner]
        scores_by_candidates.append((candidates, fitted.scores.take(candidates)))
        edges[mentions] = fitted.model.thresholds.edges(lists.types)[mentions]
    return Decisions(
        offsets=lists.offsets,
        concepts=lists.concepts,
        scores=CandidateScores.joined(scores_by_candidates, len(lists.owner)),
        **choice._asdict(),
        edges=edges,
        has_tiers=np.ones(len(lists), bool),
    )


def _scores_without_sentinels(lists: CandidateLists) -> dict[str, np.ndarray]:
    """Scores that have sentinels, (m,), with the nearest other score in place of each."""
    replaced = {}
    for name, column in lists.scores.items():
        is_sentinel = are_sentinels(column)
        if is_sentinel.any():
            nearest = np.clip(column, *ScoreRange.of(column))
            replaced[name] = np.where(is_sentinel, nearest, column)
    return replaced
