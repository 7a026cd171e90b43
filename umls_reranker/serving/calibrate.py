"""Calibrates a run's cross-encoder, a reranker, any cross-encoder, or lists alone, on labelled lists.

All reported figures are held out: each fifth of the documents is decided by a fit on the others, with the thresholds
that are delivered. The saved model is fitted on all documents.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml

from ..calibration.arguments import CalibrationArguments
from ..calibration.certificate import note_on_certificate
from ..calibration.decisions import Decisions
from ..calibration.features import CROSS_ENCODER, default_features, refuse_feature_names
from ..calibration.fitting import CrossEncoderLogits, FitOptions, fit_calibration
from ..calibration.inputs import inputs_of, is_missing
from ..calibration.probabilities import Calibration
from ..calibration.string_counts import StringCounts
from ..core.errors import TooLittleData, UserError
from ..core.files import portable_locator, write_json, written
from ..evaluation.linking import Documents
from ..evaluation.outcomes import Outcomes
from ..evaluation.page import card_charts
from ..evaluation.render import percent, systems_text
from ..evaluation.report import measure
from ..evaluation.systems import System, verdict
from ..hub.card import folder_card
from ..hub.download import BUILT_IN
from ..hub.model_folder import (
    CARD,
    METRICS,
    REFERENCE,
    RELIABILITY,
    RISK_COVERAGE,
    copy_cross_encoder,
    write_model_files,
)
from ..lists.candidate_lists import AnnotatedLists, CandidateLists
from ..lists.columns import FOUND
from ..lists.dictionary import Dictionary
from ..lists.labels import best_of_each_concept, parts_of_documents, usable_lists
from ..lists.read import Rows
from .model_source import ModelSource
from .reranker import UMLSReranker
from .statistics import Histogram, reference_content

RESAMPLES = 1000
# Name of the lists in reports and calibrator.json.
SPLIT = "labelled"
NOT_HELD_OUT = (
    "there are too few documents to fit without a part of them, so these figures are of documents "
    "that were fitted on, and nothing is certified"
)


@dataclass(frozen=True)
class Calibrated:
    """A new calibration.

    Attributes:
        lists: the measured lists, with the top candidate of each concept: all but corrections that were not drawn at
            random.
        settings: the settings.
        calibration: the calibration fitted on all documents.
        fitted: what it was fitted on, for ``calibrator.json``.
        after: decisions about the measured lists, each fifth of the documents by a fit on the others.
        metrics: their figures, for ``metrics.json``, and under ``systems`` those of the systems compared.
        seed: seed of the folds of documents.
    """

    lists: AnnotatedLists
    settings: CalibrationArguments
    calibration: Calibration
    fitted: dict[str, Any]
    after: Decisions
    metrics: dict[str, Any]
    seed: int


def calibrate(
    rows: Iterable[Mapping[str, Any]],
    model: str | Path | None = None,
    *,
    target_precision: float = 0.95,
    dictionary: Dictionary | None = None,
    seed: int = 13,
) -> UMLSReranker:
    """Calibrate a model on rows with gold concepts, as ``umls-reranker calibrate MODEL --lists`` does.

    Args:
        rows: as in files: ``doc_id``, ``entity``, ``cui`` (the gold concept), ``candidates``, and
            optionally others.
        model: folder or Hub id of a reranker, or of a sequence classifier with one logit; None: only
            the lists count.
        target_precision: precision that the certificate of the high tier guarantees.
        dictionary: completes the candidates (`Dictionary.add_to`); give it candidates likewise later.
        seed: seed of the folds of documents.

    Returns:
        The new model; its folder, with the held-out figures in ``metrics.json``, is temporary until
        `UMLSReranker.save_pretrained` writes another.

    Raises:
        UserError: a row is invalid (it is named), there is too little data, or the model cannot be
            loaded.
    """
    source = ModelSource.load(None if model is None else str(model))
    lists = usable_lists(Rows.of_mappings(rows), Path("rows"), source.hierarchy, dictionary)
    settings = CalibrationArguments(target_precision=target_precision)
    temporary = TemporaryDirectory(prefix="umls_reranker-")
    folder = Path(temporary.name) / "calibrated"
    save_calibrated(source, calibrate_lists(source, lists, settings, seed), folder)
    reranker = UMLSReranker.from_pretrained(folder)
    weakref.finalize(reranker, temporary.cleanup)
    return reranker


def calibrate_lists(
    source: ModelSource,
    lists: AnnotatedLists,
    settings: CalibrationArguments,
    seed: int = 13,
    *,
    keep_cross_encoder: bool = False,
) -> Calibrated:
    """Score the lists, fit fusion, calibrator, thresholds and certificate on them, and measure on held-out documents.

    Documents that a reranker was calibrated on are left out: its counts know their answers. If they are at least half
    of all documents, the reranker is calibrated again on them: all are fitted on, with the counts before its own
    calibration, and only new documents certify.

    Args:
        source: what is calibrated.
        lists: the labelled lists.
        settings: features, calibrator and certificate; by default all features that the lists allow.
        seed: seed of the folds of documents.
        keep_cross_encoder: whether to weigh the cross-encoder even if it adds nothing.

    Raises:
        UserError: there is too little data.
    """
    refuse_feature_names(lists)
    is_known, all_documents = source.is_known(lists), lists.annotations.documents
    known = len({*all_documents[is_known]})
    is_again = 2 * known >= len({*all_documents})
    counts, history = source.again() if is_again else (source.counts, source.history)
    if not is_again:
        lists = lists.take(~is_known)
    note, is_parted = parts_of_documents(lists)
    lists = lists.with_whole_scores(lists.partial_scores)
    whole, cross_encoder = lists, CrossEncoderLogits(source.cross_encoder, lists)
    # All NaN without a cross-encoder, so that the first candidate of each concept is its top candidate.
    best = best_of_each_concept(lists, cross_encoder())
    lists, cross_encoder = lists.with_candidates(best), cross_encoder.with_candidates(best)

    chosen = settings
    if settings.features is None:
        names = usable_features(lists, has_cross_encoder=source.cross_encoder is not None)
        chosen = replace(settings, features=names)
    options = FitOptions(
        may_certify=not is_parted, may_drop_cross_encoder=not keep_cross_encoder, compares=True
    )
    fit = fit_calibration(lists, cross_encoder, counts, chosen, seed, history, options)
    calibration = fit.calibration
    measured = lists.annotations.is_random_sample
    after = fit.decisions.take(measured)
    of_measured = lists.take(measured)
    systems = systems_of_lists(whole, settings, seed)
    # On lists that it was calibrated on, it would look better than it is.
    if source.reranker is not None and not is_again:
        before = source.reranker.decide(of_measured)
        systems["model_before"] = System.of(Outcomes.of(of_measured, before))
    kept = fit.facts["cross_encoder"]["kept"] if "cross_encoder" in fit.facts else None
    if fit.compared is not None:
        outcomes = Outcomes.of(of_measured, fit.compared.take(measured))
        systems["list_fusion" if kept else "all_features"] = System.of(outcomes)
    logits = cross_encoder()[measured[lists.owner]]
    if not calibration.uses_cross_encoder:
        logits = np.full_like(logits, np.nan)
    documents = Documents.of(of_measured.annotations.documents, RESAMPLES, seed)
    facts = {
        "source": source.name and portable_locator(source.name),
        "is_plain": source.cross_encoder is not None and source.reranker is None,
        "mentions": len(lists),
        "documents": len({*lists.annotations.documents}),
        "not_in_list": lists.not_in_list,
        "scores": [name for name in lists.scores if not name.endswith(FOUND)],
        "known_documents": known,
        "calibrated_again": is_again,
        "kept_cross_encoder": kept,
        "repeated_candidates": len(whole.owner) - len(lists.owner),
    }
    metrics, _ = measure(of_measured, after, logits, systems, documents, SPLIT)
    decided = verdict(metrics["figures"]["gain"], len(of_measured), documents.count)
    notes = [note] if note else []
    if not fit.is_held_out:
        notes.append(NOT_HELD_OUT)
    metrics |= {"lists": facts, "verdict": decided, "notes": notes}
    return Calibrated(of_measured, settings, calibration, fit.facts, after, metrics, seed)


def systems_of_lists(lists: AnnotatedLists, settings: CalibrationArguments, seed: int) -> dict[str, System]:
    """Systems of n lists without a model: their order, and their calibrated scores if there are enough documents.

    Of several candidates of a concept the first counts. The scores of each fold are calibrated on the others. Of
    corrections, only those drawn at random are measured.

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
            scores = replace(settings, features=[*lists.scores])
            no_counts = StringCounts.fit([])
            options = FitOptions(has_fallbacks=False)
            fit = fit_calibration(
                lists, CrossEncoderLogits(None, lists), no_counts, scores, seed, options=options
            )
            outcomes = Outcomes.of(lists.take(measured), fit.decisions.take(measured))
            systems["calibrated_scores"] = System.of(outcomes)
    return systems


def usable_features(lists: CandidateLists, *, has_cross_encoder: bool) -> list[str]:
    """All features except those of which every mention of the lists lacks an input."""
    names = [name for name in default_features(lists) if has_cross_encoder or name != CROSS_ENCODER]
    lacks = {name: is_missing(lists, name, lists.scores) for name in inputs_of(names)}
    nowhere = np.zeros(len(lists), bool)
    lacks_any = {name: sum((lacks[key] for key in inputs_of([name])), nowhere) for name in names}
    return [name for name in names if not lacks_any[name].all()]


def write_calibrated(source: ModelSource, new: Calibrated, folder: Path) -> None:
    """Write cross-encoder, calibration and recipe into an existing folder."""
    template = None
    dtype = None
    if new.calibration.uses_cross_encoder and source.folder and source.cross_encoder:
        copy_cross_encoder(source.folder, folder)
        template = source.cross_encoder.template
        dtype = source.cross_encoder.dtype
    write_model_files(folder, source.origin, template, dtype, new.calibration, new.fitted)


def save_calibrated(source: ModelSource, new: Calibrated, folder: Path) -> None:
    """Write a new model folder with figures and card atomically; `UMLSReranker.from_pretrained` loads it.

    Raises:
        UserError: the folder exists.
    """
    if folder.exists():
        raise UserError(f"{folder} already exists; choose another folder for the new model")
    recipe = {"run_name": folder.name, "seed": new.seed}
    if new.calibration.uses_cross_encoder:
        recipe |= yaml.safe_load(source.origin.recipe)
    recipe |= {"run_name": folder.name, **asdict(new.settings)}
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    source = replace(source, origin=replace(source.origin, recipe=text))
    new.fitted.update(split=SPLIT, lists=new.metrics["lists"])
    outcomes = Outcomes.of(new.lists, new.after)
    target = new.calibration.thresholds.target_precision
    histogram = Histogram.of(outcomes.score, outcomes.decided_by > 0, outcomes.document.tolist())
    reliability, risk_coverage = card_charts(new.metrics, target)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with written(folder) as partial:
        partial.mkdir()
        write_json(partial / METRICS, new.metrics)
        write_json(partial / REFERENCE, reference_content(new.metrics["figures"], histogram))
        (partial / RELIABILITY).write_text(reliability, encoding="utf-8")
        (partial / RISK_COVERAGE).write_text(risk_coverage, encoding="utf-8")
        write_calibrated(source, new, partial)
        (partial / CARD).write_text(folder_card(partial), encoding="utf-8")


def calibration_summary(new: Calibrated) -> str:
    """The results as lines of text: comparison and verdict, the tier high, and the weights."""
    facts, metrics, fusion = new.metrics["lists"], new.metrics, new.calibration.models[0].fusion
    lines = [
        "",
        "Cross-fitted by document in five folds, with 95 % intervals:",
        systems_text(metrics["figures"]),
        "",
        metrics["verdict"],
        _about_acceptance(new),
        *metrics["notes"],
        *_about_cross_encoder(new.fitted),
        "",
        *_about_high(new),
        "",
    ]
    if fusion:
        lines.append("weights: " + ", ".join(f"{name} {weight:.3g}" for name, weight in fusion.weights.items()))
    for name, (low, high) in new.calibration.score_ranges.items():
        ending = "" if fusion and name in fusion.read else "; its weight is 0: higher must be better: negate distances"
        lines.append(f"{name}_score: from {low:.4g} to {high:.4g}{ending}")
    if known := facts["known_documents"]:
        how = "they are left out here, its counts of them stay"
        if facts["calibrated_again"]:
            how = "they are fitted on again without its counts of them, and do not certify again"
        lines.append(f"{known:,} documents were used to calibrate MODEL: {how}")
    if facts["source"] is None and not new.calibration.uses_cross_encoder:
        lines.append(f"for UMLS CUIs, umls-reranker calibrate {BUILT_IN} --lists adds counts from MedMentions")
    if repeated := facts["repeated_candidates"]:
        lines.append(f"{repeated:,} candidates repeat a concept of their list")
    return "\n".join(lines)


def _about_acceptance(new: Calibrated) -> str:
    """The delivered threshold of acceptance, by which the figures above are."""
    accepts = sorted({f"{row.accept:.3f}" for row in new.calibration.thresholds.rows.values()})
    ends, precision = " to ".join(dict.fromkeys((accepts[0], accepts[-1]))), new.settings.accept_precision
    how = f"precision {precision}" if precision else "the highest F1; --accept_precision 0.9 chooses a precision"
    return f"accepted from a score of {ends} on, as the model is delivered ({how})"


def _about_high(new: Calibrated) -> Iterator[str]:
    """The certificates; that of all inputs with its result on held-out documents."""
    table, figures = new.calibration.thresholds, new.metrics["figures"]
    coverage, precision = figures["high_confidence_coverage"], figures["high_confidence_precision"]
    yield (
        f"High tier (precision of at least {table.target_precision:.0%} with {table.confidence:.0%} confidence), "
        "threshold on all documents:"
    )
    for model in new.calibration.models:
        yield f"  {model.name}: {model.thresholds.certificate}"
    if table.is_certified and coverage["value"]:
        yield f"  cross-fitted: {percent(coverage)} of the mentions, {percent(precision)} correct"
    if note := note_on_certificate(new.fitted["certified_by"], is_certified=table.is_certified):
        yield note


def _about_cross_encoder(fitted: dict[str, Any]) -> Iterator[str]:
    """Whether the cross-encoder stays, and what pruning costs."""
    choice, pruning = fitted.get("cross_encoder"), fitted.get("pruning")
    if choice is None:
        return
    nats, error = choice["nats_gained"], choice["standard_error"]
    gained = "too few documents to tell" if nats is None else f"{nats:+.3f} nats per list, standard error {error:.3f}"
    if choice["kept"]:
        yield f"the cross-encoder is kept ({gained})"
    else:
        yield (f"the cross-encoder is left out: no significant improvement ({gained}); --keep_cross_encoder keeps it")
    if pruning:
        yield (
            f"it scores {pruning['scored']:.1%} of the candidates; pruning the others changes "
            f"{pruning['changed_top']:.2%} of the top candidates"
        )
