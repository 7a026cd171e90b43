"""Calibrates a reranker, a cross-encoder, or lists alone, on labelled lists of another pipeline: no run, no training.

All reported figures are held out: fits on four fifths of the documents are measured on the last fifth, for each fifth
in turn. The saved model is fitted on all documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ..calibration.certificate import note_on_certificate
from ..calibration.decisions import Decisions
from ..calibration.features import default_features
from ..calibration.inputs import absent_inputs, inputs_of, lacking
from ..calibration.network_logits import NetworkLogits, Score
from ..calibration.probabilities import Calibration
from ..core.errors import UserError
from ..core.files import write_json, written
from ..core.recipe import portable_locator
from ..core.settings import CROSS_ENCODER, CalibrationArguments
from ..data.candidate_lists import AnnotatedLists, CandidateLists
from ..data.labelled_lists import LabelledLists, best_of_each_concept
from ..evaluation.evaluate import measure
from ..evaluation.linking import Documents
from ..evaluation.outcomes import Outcomes
from ..evaluation.page import card_charts
from ..evaluation.render import as_text, percent, systems_table
from ..evaluation.systems import System, verdict
from ..hub.card import folder_card
from ..hub.download import BUILT_IN
from ..hub.model_folder import (
    CARD,
    METRICS,
    REFERENCE,
    RELIABILITY,
    RISK_COVERAGE,
    copy_network,
    write_model_files,
)
from ..models.cross_encoder import score_lists
from .cross_fits import CrossFits, systems_of_lists
from .source_model import SourceModel
from .statistics import Histogram, reference_content

RESAMPLES = 1000
# Name of the lists in reports and calibrator.json.
SPLIT = "labelled"


@dataclass(frozen=True)
class Recalibrated:
    """A new calibration of a model.

    Attributes:
        lists: the measured lists, with the top candidate of each concept: all but corrections that were not drawn at
            random.
        settings: the settings, with the features that are weighed.
        calibration: the calibration fitted on all documents.
        fitted: what it was fitted on, for ``calibrator.json``.
        after: decisions about each fifth of the documents by a fit on the others.
        metrics: their figures, for ``metrics.json``, and under ``systems`` those of the systems compared.
        times_faster: speed-up without the cross-encoder; None if it was not left out.
    """

    lists: AnnotatedLists
    settings: CalibrationArguments
    calibration: Calibration
    fitted: dict[str, Any]
    after: Decisions
    metrics: dict[str, Any]
    times_faster: float | None

    @property
    def uses_network(self) -> bool:
        """Whether the model weighs the cross-encoder."""
        return self.calibration.uses_network


def recalibrate(
    source: SourceModel,
    labelled: LabelledLists,
    settings: CalibrationArguments,
    seed: int = 13,
    *,
    keep_cross_encoder: bool = False,
) -> Recalibrated:
    """Score the lists, fit fusion, calibrator, thresholds and certificate on them, and measure on held-out documents.

    Args:
        source: what is calibrated.
        labelled: the lists.
        settings: calibrator and certificate; all features that the lists allow are used.
        seed: seed of the folds of documents.
        keep_cross_encoder: whether to weigh the cross-encoder even if it adds nothing.

    Raises:
        UserError: there is too little data.
    """
    began = perf_counter()
    lists, logits, score = _scored(source, labelled)
    seconds_of_network = perf_counter() - began
    fits = CrossFits.of(source, lists, score, settings, seed)
    names = usable_features(lists, has_network=source.scorer is not None)
    may_drop = CROSS_ENCODER in names and len(names) > 1 and not keep_cross_encoder
    calibration, fitted = fits.fit(fits.every, names, may_drop_network=may_drop)
    after, has_kept = fits.held_out(names, may_drop_network=may_drop)
    uses_network, times_faster = calibration.uses_network, None
    if not uses_network and source.scorer is not None:
        began = perf_counter()
        fits.decide(calibration, fits.every)
        seconds = perf_counter() - began
        times_faster = (seconds_of_network + seconds) / seconds
    if not uses_network:
        logits = np.full_like(logits, np.nan)
    measured, logits = fits.measured_lists, logits[fits.measured[lists.owner]]
    documents = Documents.of(measured.annotations.documents, RESAMPLES, seed)
    facts = {
        "source": source.name and portable_locator(source.name),
        "is_plain": source.scorer is not None and source.reranker is None,
        "mentions": len(lists),
        "documents": len(set(lists.annotations.documents)),
        "not_in_list": labelled.not_in_list,
        "scores": list(lists.scores),
        "known_documents": fits.known_documents,
        "kept_network": fitted["cross_encoder"]["kept"] if "cross_encoder" in fitted else None,
        "repeated_candidates": len(labelled.lists.owner) - len(lists.owner),
    }
    fitted |= {"split": SPLIT, "lists": facts}
    systems = _systems(labelled, fits, names, after, is_kept={*has_kept, uses_network})
    metrics = measure(measured, after, logits, systems, documents, SPLIT, source.hierarchy)
    metrics |= {
        "lists": facts,
        "verdict": verdict(metrics["figures"]["gain"], len(measured), documents.count),
        "notes": [],
    }
    weighed = [name for name in names if uses_network or name != CROSS_ENCODER]
    settings = replace(settings, features=weighed)
    return Recalibrated(measured, settings, calibration, fitted, after, metrics, times_faster)


def save_recalibrated(source: SourceModel, new: Recalibrated, folder: Path) -> None:
    """Write the new model folder atomically; `UMLSReranker.from_pretrained` loads it.

    Raises:
        UserError: the folder exists.
    """
    if folder.exists():
        raise UserError(f"{folder} already exists; choose another folder for the new model")
    recipe = source.recipe
    recipe = replace(recipe, run=replace(recipe.run, run_name=folder.name), calibration=new.settings)
    dictionary = source.reranker.info.get("dictionary") if source.reranker else None
    outcomes = Outcomes.of(new.lists, new.after)
    target = new.calibration.thresholds.target_precision
    histogram = Histogram.of(outcomes.score, outcomes.decided_by > 0, outcomes.document.tolist())
    reliability, risk_coverage = card_charts(new.metrics, target)
    template = dtype = None
    folder.parent.mkdir(parents=True, exist_ok=True)
    with written(folder) as partial:
        partial.mkdir()
        if new.uses_network and source.folder and source.scorer:
            copy_network(source.folder, partial)
            template, dtype = source.scorer.template, source.scorer.dtype
        write_json(partial / METRICS, new.metrics)
        write_json(partial / REFERENCE, reference_content(new.metrics["figures"], histogram))
        (partial / RELIABILITY).write_text(reliability, encoding="utf-8")
        (partial / RISK_COVERAGE).write_text(risk_coverage, encoding="utf-8")
        write_model_files(partial, recipe, template, dtype, new.calibration, new.fitted, dictionary)
        (partial / CARD).write_text(folder_card(partial), encoding="utf-8")


def results(new: Recalibrated) -> str:
    """The results of the new model as lines of text: comparison and verdict, the tier high, and the weights."""
    facts, metrics, fusion = new.metrics["lists"], new.metrics, new.calibration.models[0].fusion
    assert fusion is not None  # lists always have features
    lines = [
        "",
        "Cross-fitted by document in five folds, with 95 % intervals:",
        as_text(systems_table(metrics["figures"])),
        "",
        metrics["verdict"],
        *_about_network(new),
        "",
        *_about_high(new),
        "",
        "weights: " + ", ".join(f"{name} {weight:.3g}" for name, weight in fusion.weights.items()),
    ]
    for name in new.lists.scores:
        low, high = new.calibration.score_ranges[name]
        ending = "" if name in fusion.read else "; its weight is 0: higher must be better, so negate distances"
        lines.append(f"{name}_score: from {low:.4g} to {high:.4g}{ending}")
    if known := facts["known_documents"]:
        lines.append(f"{known:,} documents were used to calibrate MODEL; its counts from them are left out")
    if facts["source"] is None:
        lines.append(f"for UMLS CUIs, umls-reranker calibrate {BUILT_IN} --lists adds counts from MedMentions")
    if repeated := facts["repeated_candidates"]:
        lines.append(f"{repeated:,} candidates repeat a concept of their list")
    return "\n".join(lines)


def _about_high(new: Recalibrated) -> Iterator[str]:
    """The certificates; that of all inputs with its result on held-out documents."""
    first, *fallbacks = new.calibration.models
    table = first.thresholds
    yield (
        f"High tier (precision of at least {table.target_precision:.0%} with {table.confidence:.0%} confidence), "
        "threshold on all documents:"
    )
    figures = new.metrics["figures"]
    share, precision = figures["high_confidence_share"], figures["high_confidence_precision"]
    held_out = ""
    if table.is_certified and share["value"]:
        held_out = f"; cross-fitted: {percent(share)} of the mentions, {percent(precision)} correct"
    yield f"  all inputs: {table.certificate}{held_out}"
    certified = {model.name: model.thresholds.certificate for model in fallbacks if model.thresholds.is_certified}
    for name, certificate in certified.items():
        yield f"  {name}: {certificate}"
    if rest := [model.name for model in fallbacks if model.name not in certified]:
        yield f"  not certified with fewer inputs: {'; '.join(rest)}"
    if note := note_on_certificate(new.fitted["certified_by"], is_certified=table.is_certified):
        yield note


def _scored(source: SourceModel, labelled: LabelledLists) -> tuple[AnnotatedLists, np.ndarray, Score]:
    """The lists with the top candidate of each concept, their logits (m,), and the function for further logits."""
    lists, title, reads = labelled.lists, "scoring candidates", source.template.reads
    # All NaN without a network, so that the first candidate of each concept is its top candidate.
    logits = score_lists(source.scorer, lists, title).logits
    best = best_of_each_concept(lists, logits)
    lists, logits = lists.with_candidates(best), logits[best]
    # Inputs that no list has make no difference to the network.
    known = {(): logits, absent_inputs(lists, reads): logits}
    return lists, logits, NetworkLogits(source.scorer, lists, title, known)


def usable_features(lists: CandidateLists, *, has_network: bool) -> list[str]:
    """All features except those of which every mention of the lists lacks an input."""

    def is_usable(name: str) -> bool:
        if name == CROSS_ENCODER:
            return has_network
        lacks = [lacking(lists, key, lists.scores) for key in inputs_of([name])]
        return not lacks or not np.logical_or.reduce(lacks).all()

    return [name for name in default_features(lists) if is_usable(name)]


def _systems(
    labelled: LabelledLists, fits: CrossFits, names: Sequence[str], after: Decisions, is_kept: set[bool]
) -> dict[str, System]:
    """The compared systems, of which the new model is the last.

    Args:
        labelled: the original lists.
        fits: fits on the top candidate of each concept.
        names: names of the features.
        after: decisions of the new model.
        is_kept: whether it weighs the cross-encoder, in each fold and by all documents.
    """
    lists, source = fits.measured_lists, fits.source

    def system(decisions: Decisions) -> System:
        return System.of(Outcomes.of(lists, decisions))

    systems = systems_of_lists(labelled.lists, source.reranker, fits.settings, fits.seed)
    # On lists that it was calibrated on, it would look better than it is.
    if source.reranker is not None and not fits.known_documents:
        systems["model_before"] = system(fits.decide(source.reranker.calibration, fits.measured))
    rest = [name for name in names if name != CROSS_ENCODER]
    if CROSS_ENCODER in names:
        if rest and is_kept != {False}:
            systems["features_without_cross_encoder"] = system(fits.held_out(rest, has_fallbacks=False)[0])
        if is_kept != {True}:
            systems["all_features"] = system(fits.held_out(names, has_fallbacks=False)[0])
    return systems | {"reranker": system(after)}


def _about_network(new: Recalibrated) -> Iterator[str]:
    """Whether the cross-encoder stays, and why."""
    choice = new.fitted.get("cross_encoder")
    if choice is None:
        return
    if choice["nats_gained"] is None:
        yield "the cross-encoder is kept: too few documents to tell whether it helps"
        return
    gained = f"{choice['nats_gained']:+.3f} nats per list, standard error {choice['standard_error']:.3f}"
    if choice["kept"]:
        yield f"the cross-encoder is kept: it improves the fit ({gained})"
    else:
        faster = f", {new.times_faster:.0f} times faster" if new.times_faster else ""
        yield (
            f"the cross-encoder is left out{faster}: no significant improvement ({gained}); "
            "--keep_cross_encoder keeps it"
        )
