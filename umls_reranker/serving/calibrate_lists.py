"""Calibrating on labelled lists: fit everything on them, and measure on held-out documents.

All figures of a calibration are held out: each fifth of the documents is decided by a fit on the
others, with the thresholds that are delivered. The saved model is fitted on all documents.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from ..calibration.arguments import CalibrationArguments
from ..calibration.calibration import Calibration
from ..calibration.features import CROSS_ENCODER, default_features, inputs_of, refuse_feature_names
from ..calibration.fitting import FitOptions, Fitted, fit_calibration
from ..calibration.missing_inputs import is_missing
from ..calibration.precision_test import PrecisionTest
from ..calibration.reliability import document_folds
from ..core.arrays import lists_with_any
from ..core.errors import UserError
from ..core.locators import portable_locator
from ..evaluation.baselines import free_baselines
from ..evaluation.gain_verdict import best_row, verdict_on_gain
from ..evaluation.intervals import Documents
from ..evaluation.report import measure
from ..lists.annotated_lists import AnnotatedLists
from ..lists.candidate_lists import CandidateLists
from ..lists.columns import FOUND
from ..lists.label_checks import OWN_DOCUMENTS
from ..lists.labels import have_own_documents
from ..models.cross_encoder import PairScorer, legible_pairs
from .calibrated import SPLIT, Calibrated
from .calibration_lists import CalibrationLists, calibration_lists, chosen_documents
from .compared_systems import compare_with_free, model_before, systems_of_lists
from .model_source import ModelSource

RESAMPLES = 1000
NOTHING_CERTIFIED = (
    f"each mention has a document of its own, so nothing is certified{OWN_DOCUMENTS}"
)
ROWS_COUNTED = "each row counted as a document, also for the certificate"
NOT_HELD_OUT = (
    "there are too few documents to fit without a part of them, so these figures are of documents "
    "that were fitted on, and nothing is certified"
)


def calibrate_lists(
    source: ModelSource,
    lists: AnnotatedLists,
    settings: CalibrationArguments,
    seed: int = 13,
    *,
    each_row_is_a_document: bool = False,
    one_look: bool = False,
) -> Calibrated:
    """Score the lists, fit everything on them, and measure on held-out documents.

    Documents that a reranker was calibrated on are left out: its counts know their answers. If
    those given are at least half of them, or they of those given, the reranker is calibrated again:
    all are fitted on, with the counts before its own calibration.

    Args:
        source: what is calibrated.
        lists: the labelled lists.
        settings: features, calibrator and certificate; by default all features of the lists.
        seed: seed of the folds of documents.
        each_row_is_a_document: whether documents of one mention each may certify.
        one_look: whether the documents were chosen before any of their labels was known, and are
            tested once, as those of a run.

    Raises:
        UserError: there is too little data.
    """
    refuse_feature_names(lists)
    _require_one_source(lists)
    data = calibration_lists(source, lists)
    may_certify = each_row_is_a_document or not have_own_documents(data.lists)
    features = settings.features
    if features is None:
        has_cross_encoder = _can_be_weighed(source.cross_encoder, data.lists)
        features = usable_features(data.lists, has_cross_encoder=has_cross_encoder)
    fit = fit_calibration(
        data.lists,
        data.cross_encoder,
        data.counts,
        replace(settings, features=features),
        seed,
        data.chosen.documents,
        FitOptions(may_certify=may_certify, is_one_look=one_look),
    )
    is_measured = data.lists.annotations.is_random_sample
    measured = data.lists.take(is_measured)
    logits = _logits_of_measured(data, fit)
    whole = data.whole_lists.take(is_measured)
    free = free_baselines(whole, document_folds(whole.annotations.documents, seed))
    of_lists = systems_of_lists(data.whole_lists, settings, seed)
    systems = of_lists | model_before(source, data) | free
    documents = Documents.of(measured.annotations.documents, RESAMPLES, seed)
    metrics, outcomes = measure(
        measured, fit.decisions.take(is_measured), logits, systems, documents, SPLIT
    )
    metrics |= {"lists": _facts_of_lists(source, data, fit), "notes": []}
    gain = metrics["figures"]["gain"]
    metrics["verdict"] = verdict_on_gain(gain, len(measured), documents.count) + best_row(metrics)
    if have_own_documents(data.lists):
        note = ROWS_COUNTED if each_row_is_a_document else NOTHING_CERTIFIED
        metrics["notes"].append(note)
    compare_with_free(free, metrics, outcomes, documents)
    if not fit.is_held_out:
        metrics["notes"].append(NOT_HELD_OUT)
    calibration = _of_source(fit, lists)
    return Calibrated(settings, seed, calibration, {**calibration.source.facts}, outcomes, metrics)


def about_certificate(
    source: ModelSource,
    lists: AnnotatedLists,
    settings: CalibrationArguments,
    *,
    each_row_is_a_document: bool,
    one_look: bool,
) -> str:
    """What may certify, before anything is scored; arguments are those of `calibrate_lists`."""
    if not each_row_is_a_document and have_own_documents(lists):
        return NOTHING_CERTIFIED
    chosen = chosen_documents(source, lists)
    annotations = chosen.lists.annotations
    certifies = chosen.documents.are_of_new_documents(annotations) & annotations.is_random_sample
    documents = len({*annotations.documents[certifies]})
    test = PrecisionTest(settings.target_precision, settings.confidence, is_one_look=one_look)
    when = "tested this once" if one_look else "tested as often as labels are added"
    return (
        f"{documents:,} documents may certify, {when}; at least {test.needed:,} are needed without "
        f"an error, more with errors; another set of labels is another {1 - test.confidence:.0%}"
    )


def _logits_of_measured(data: CalibrationLists, fit: Fitted) -> np.ndarray:
    """The logits of the measured candidates, all NaN if the model does not read all of them.

    Where the fits needed only some, figures of the cross-encoder alone are left to `evaluate`.
    """
    is_measured = data.lists.annotations.is_random_sample
    no_more = np.zeros(len(data.lists.owner), bool)
    logits = data.cross_encoder(retained=no_more)[is_measured[data.lists.owner]]
    if not fit.calibration.uses_cross_encoder or np.isnan(logits).any():
        return np.full_like(logits, np.nan)
    return logits


def _of_source(fit: Fitted, lists: AnnotatedLists) -> Calibration:
    """The fitted calibration, with what says of which lists it speaks."""
    filled = lists.take(np.diff(lists.offsets) > 0)
    facts = {"dictionary": lists.dictionary and lists.dictionary.name}
    source = replace(
        fit.calibration.source,
        list_scores={name: bool(filled.have_score(name).all()) for name in lists.scores},
        facts={**fit.facts, **facts},
    )
    return replace(fit.calibration, source=source)


def _require_one_source(lists: AnnotatedLists) -> None:
    """Refuse lists of several indexes, for which no one certificate could hold."""
    others = np.flatnonzero(~lists.are_of(lists.index_keys[0]))
    if len(others):
        raise UserError(
            f"{lists.annotations.positions[others[0]]}: index_key is another than that of "
            f"{lists.annotations.positions[0]}; calibrate a model for the lists of each index"
        )


def _can_be_weighed(cross_encoder: PairScorer | None, lists: AnnotatedLists) -> bool:
    """Whether there is a cross-encoder, and it can read any list that has its gold concept."""
    if cross_encoder is None:
        return False
    has_gold = lists.annotations.gold >= 0
    legible = lists_with_any(legible_pairs(cross_encoder, lists), lists.offsets)
    return bool((legible & has_gold).any())


def _facts_of_lists(source: ModelSource, data: CalibrationLists, fit: Fitted) -> dict[str, Any]:
    """Facts about lists and model, for ``metrics.json`` and the card."""
    lists = data.lists
    return {
        "source": source.name and portable_locator(source.name),
        "is_plain": source.cross_encoder is not None and source.reranker is None,
        "mentions": len(lists),
        "documents": len({*lists.annotations.documents}),
        "not_in_list": lists.not_in_list,
        "scores": [name for name in lists.scores if not name.endswith(FOUND)],
        "known_documents": data.chosen.known_documents,
        "calibrated_again": data.chosen.is_again,
        "repeated_candidates": len(data.whole_lists.owner) - len(lists.owner),
    }


def usable_features(lists: CandidateLists, *, has_cross_encoder: bool) -> list[str]:
    """All features except those of which every mention of the lists lacks an input."""
    names = default_features(lists)
    if not has_cross_encoder:
        names = [name for name in names if name != CROSS_ENCODER]
    return [name for name in names if not _is_missing_everywhere(lists, name)]


def _is_missing_everywhere(lists: CandidateLists, feature: str) -> bool:
    """Whether each mention of the lists lacks an input of a feature."""
    lacks_input = [is_missing(lists, name) for name in inputs_of([feature])]
    return bool(np.all(np.any(lacks_input, axis=0)))
