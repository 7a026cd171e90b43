"""Calibrating on labelled lists: a model, or the lists alone.

All figures of a calibration are held out: each fifth of the documents is decided by a fit on the
others, with the thresholds that are delivered. The saved model is fitted on all documents.
"""

import warnings
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
from ..calibration.calibration import Calibration
from ..calibration.cross_encoder_logits import CrossEncoderLogits
from ..calibration.features import CROSS_ENCODER, default_features, inputs_of, refuse_feature_names
from ..calibration.fitting import FitOptions, Fitted, fit_calibration
from ..calibration.ledger import Ledger
from ..calibration.missing_inputs import is_missing
from ..calibration.reliability import document_folds
from ..calibration.string_counts import StringCounts
from ..calibration.study import Study, StudyHistory
from ..core.arrays import lists_with_any
from ..core.errors import TooLittleData, UserError, warn_caller
from ..core.files import written
from ..core.json_files import write_json
from ..core.locators import portable_locator
from ..evaluation.baselines import free_baselines
from ..evaluation.formatting import cell, percent
from ..evaluation.gain_verdict import best_row, verdict_on_gain
from ..evaluation.intervals import Documents
from ..evaluation.outcomes import Outcomes
from ..evaluation.render import card_charts
from ..evaluation.report import measure
from ..evaluation.systems import System, at_same_coverage
from ..evaluation.tables import systems_text, title_of
from ..hub.card import folder_card
from ..hub.file_names import CARD, METRICS_FILE, REFERENCE, RELIABILITY, RISK_COVERAGE
from ..hub.new_model import copy_cross_encoder, write_model_files
from ..lists.annotated_lists import AnnotatedLists
from ..lists.candidate_lists import CandidateLists
from ..lists.columns import FOUND
from ..lists.dictionary import Dictionary
from ..lists.label_checks import OWN_DOCUMENTS
from ..lists.labels import are_repeated, best_of_each_concept, have_own_documents, usable_lists
from ..lists.rows import Rows
from ..models.arguments import BUILT_IN
from ..models.cross_encoder import PairScorer, legible_pairs
from .drift import Histogram, reference_content
from .look_plan import LookOptions, LookPlan, mention_hashes, plan_look, system_of
from .model_source import ModelSource
from .reranker import UMLSReranker

RESAMPLES = 1000
# The cross-encoder is worth its time if it lowers the mean log loss of held-out lists by more than
# these nats, which is what one calibrator is better than another, even at the lower end of the 95 %
# interval.
FEWEST_NATS = 0.002
STANDARD_ERRORS = 1.96
# Name of the lists in reports and calibrator.json.
SPLIT = "labelled"
ROWS_COUNTED = "each row counted as a document, also for the certificate"
NOTHING_CERTIFIED = (
    f"each mention has a document of its own, so nothing is certified{OWN_DOCUMENTS}"
)
NOT_HELD_OUT = (
    "there are too few documents to fit without a part of them, so these figures are of documents "
    "that were fitted on, and nothing is certified"
)


@dataclass(frozen=True)
class Calibrated:
    """A new calibration.

    Attributes:
        settings: the settings.
        seed: seed of the folds of documents.
        calibration: the calibration fitted on all documents.
        fitted: what it was fitted on, for ``calibrator.json``.
        outcomes: the answers for all measured mentions, those of each fifth of the documents by a
            fit on the others; corrections that were not drawn at random are not measured.
        metrics: their figures, for ``metrics.json``, and under ``systems`` those of other systems.
        study: the study of the documents, with the look that was taken; None without one.
        looked: what came of the look, in words; "" if nothing was tested.
    """

    settings: CalibrationArguments
    seed: int
    calibration: Calibration
    fitted: dict[str, Any]
    outcomes: Outcomes
    metrics: dict[str, Any]
    study: Study | None = None
    looked: str = ""


@dataclass(frozen=True)
class LabelledLists:
    """What a model is calibrated on.

    Attributes:
        whole_lists: the lists with all candidates.
        lists: the same with the top candidate of each concept.
        cross_encoder: logits of their candidates.
        counts: counts of training mentions.
        history: documents that do not certify, and the studies of the versions that the model is
            derived from.
        known_documents: number of documents that it was calibrated on before.
        is_again: whether it is calibrated again on these, which else are left out.
        share: the share of the error probability that the certificate may use.
    """

    whole_lists: AnnotatedLists
    lists: AnnotatedLists
    cross_encoder: CrossEncoderLogits
    counts: StringCounts
    history: StudyHistory
    known_documents: int
    is_again: bool
    share: float


def calibrate(
    rows: Iterable[Mapping[str, Any]],
    model: str | Path | None = None,
    *,
    target_precision: float = 0.95,
    dictionary: Dictionary | None = None,
    seed: int = 13,
    each_row_is_a_document: bool = False,
) -> UMLSReranker:
    """Calibrate a model on rows with gold concepts, as ``umls-reranker calibrate --lists`` does.

    Args:
        rows: as in files: ``doc_id``, ``entity``, ``cui`` (the gold concept), ``candidates``, and
            optionally others.
        model: folder or Hub id of a reranker, or of a sequence classifier with one logit; None:
            only the lists count.
        target_precision: precision that the certificate of the high tier guarantees.
        dictionary: completes the candidates (`Dictionary.add_to`); use it later, too.
        seed: seed of the folds of documents.
        each_row_is_a_document: whether a row without ``doc_id`` is a document, such as a term, and
            documents of one row each may certify.

    Returns:
        The new model; its folder, with the held-out figures in ``metrics.json``, is temporary until
        `UMLSReranker.save_pretrained` writes another.

    Raises:
        UserError: a row is invalid (it is named), there are too few, or the model cannot be loaded.
    """
    folder_or_repo = None if model is None else str(model)
    source = ModelSource.load(folder_or_repo)
    lists = usable_lists(
        Rows.of(rows),
        Path("rows"),
        source.hierarchy,
        dictionary,
        each_row_is_a_document=each_row_is_a_document,
    )
    settings = CalibrationArguments(target_precision=target_precision)
    temporary = TemporaryDirectory(prefix="umls_reranker-")
    folder = Path(temporary.name) / "calibrated"
    ledger = Ledger.of_user()
    options = CalibrateOptions(seed=seed, each_row_is_a_document=each_row_is_a_document)
    lists, plan = lists_of_look(source, lists, settings, options, ledger)
    new = calibrate_lists(
        source, lists, settings, seed, each_row_is_a_document=each_row_is_a_document, plan=plan
    )
    save_calibrated(source, new, folder)
    note_look(new, lists, ledger)
    reranker = UMLSReranker.from_pretrained(folder)
    weakref.finalize(reranker, temporary.cleanup)
    return reranker


@dataclass(frozen=True)
class CalibrateOptions:
    """Options of a calibration besides `CalibrationArguments`.

    Attributes:
        seed: seed of the folds of documents.
        each_row_is_a_document: whether documents of one mention each may certify.
        look: what the user says about looks.
    """

    seed: int = 13
    each_row_is_a_document: bool = False
    look: LookOptions = LookOptions()


def lists_of_look(
    source: ModelSource,
    lists: AnnotatedLists,
    settings: CalibrationArguments,
    options: CalibrateOptions,
    ledger: Ledger,
) -> tuple[AnnotatedLists, LookPlan]:
    """The look that is due, and the lists to calibrate on.

    Unless a study goes on, documents that the source was calibrated on are left out if they are
    less than half: its counts know their answers.

    Args:
        source: what is calibrated.
        lists: all labelled lists.
        settings: features, calibrator and certificate.
        options: further options.
        ledger: the studies of this machine.
    """
    if not options.each_row_is_a_document and have_own_documents(lists):
        every = np.ones(len(lists), bool)
        return lists, LookPlan(None, None, every, line=NOTHING_CERTIFIED)

    def plan_of(lists: AnnotatedLists) -> LookPlan:
        system = system_of(
            lists,
            settings,
            source.model_hash,
            seed=options.seed,
        )
        return plan_look(
            lists,
            settings.target_precision,
            settings.confidence,
            system,
            source.history,
            ledger,
            options.look,
        )

    plan = plan_of(lists)
    is_known = source.is_known(lists)
    if not plan.is_continued and is_known.any() and not _is_again(lists, is_known):
        lists = lists.take(~is_known)
        plan = plan_of(lists)
    return lists.take(plan.is_fitted), plan


def note_look(
    new: Calibrated, lists: AnnotatedLists, ledger: Ledger, path: Path | None = None
) -> None:
    """Note the study of a calibration, and whose labels were seen, in ledger and file.

    Args:
        new: the calibration.
        lists: all lists whose labels were seen.
        ledger: the studies of this machine.
        path: the file of the study; None without one.
    """
    if new.study is None:
        return
    documents = {*new.study.documents}
    labelled = {
        mention: document
        for mention, document in mention_hashes(lists).items()
        if document in documents
    }
    problem = ledger.add(new.study, labelled)
    if problem:
        warn_caller(
            f"the study of these documents could not be noted ({problem}); a model made anew from "
            "them will not know it"
        )
    if path is not None:
        new.study.save(path)


def _is_again(lists: AnnotatedLists, is_known: np.ndarray) -> bool:
    """Whether at least half of the documents are known, by mentions (n,) bool."""
    documents = lists.annotations.documents
    return 2 * len({*documents[is_known]}) >= len({*documents})


def calibrate_lists(
    source: ModelSource,
    lists: AnnotatedLists,
    settings: CalibrationArguments,
    seed: int = 13,
    *,
    each_row_is_a_document: bool = False,
    plan: LookPlan | None = None,
) -> Calibrated:
    """Score the lists, fit everything on them, and measure on held-out documents.

    Documents that a reranker was calibrated on are left out: its counts know their answers. If they
    are at least half of all documents, or a study goes on, the reranker is calibrated again on
    them: all are fitted on, with the counts before its own calibration.

    Args:
        source: what is calibrated.
        lists: the labelled lists.
        settings: features, calibrator and certificate; by default all features of the lists.
        seed: seed of the folds of documents.
        each_row_is_a_document: whether documents of one mention each may certify.
        plan: the look that these lists are of (`lists_of_look`); None: one look at all documents,
            which no study keeps, as for a run.

    Raises:
        UserError: there is too little data.
    """
    refuse_feature_names(lists)
    _require_one_source(lists)
    data = _labelled_lists(source, lists, each_row_is_a_document, plan)
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
        data.history,
        FitOptions(share=data.share),
    )
    is_measured = data.lists.annotations.is_random_sample
    measured = data.lists.take(is_measured)
    logits = _logits_of_measured(data, fit)
    whole = data.whole_lists.take(is_measured)
    free = free_baselines(whole, document_folds(whole.annotations.documents, seed))
    of_lists = systems_of_lists(data.whole_lists, settings, seed)
    systems = of_lists | _model_before(source, data) | free
    documents = Documents.of(measured.annotations.documents, RESAMPLES, seed)
    metrics, outcomes = measure(
        measured, fit.decisions.take(is_measured), logits, systems, documents, SPLIT
    )
    metrics |= {"lists": _facts(source, data, fit), "notes": []}
    gain = metrics["figures"]["gain"]
    metrics["verdict"] = verdict_on_gain(gain, len(measured), documents.count) + best_row(metrics)
    if have_own_documents(data.lists):
        note = ROWS_COUNTED if each_row_is_a_document else NOTHING_CERTIFIED
        metrics["notes"].append(note)
    _compare_with_free(free, metrics, outcomes, documents)
    if not fit.is_held_out:
        metrics["notes"].append(NOT_HELD_OUT)
    calibration = _of_source(fit, lists)
    new = Calibrated(settings, seed, calibration, {**calibration.source.facts}, outcomes, metrics)
    return _after_look(new, source, plan)


def _after_look(new: Calibrated, source: ModelSource, plan: LookPlan | None) -> Calibrated:
    """The calibration with the study that its history and `note_look` keep."""
    if plan is None:
        return new
    study, looked = plan.looked(new.calibration.thresholds.certificate)
    history = new.calibration.history
    if source.reranker is not None:
        known = source.reranker.calibration.history.documents
        history = replace(history, documents=history.documents | known)
    if study is not None:
        history = history.with_study(study)
    calibration = replace(new.calibration, history=history)
    return replace(new, calibration=calibration, study=study, looked=looked)


def _logits_of_measured(data: LabelledLists, fit: Fitted) -> np.ndarray:
    """The logits of the measured candidates, all NaN if the model does not read all of them.

    Where the fits needed only some, figures of the cross-encoder alone are left to `evaluate`.
    """
    is_measured = data.lists.annotations.is_random_sample
    no_more = np.zeros(len(data.lists.owner), bool)
    logits = data.cross_encoder(retained=no_more)[is_measured[data.lists.owner]]
    if not fit.calibration.uses_cross_encoder or np.isnan(logits).any():
        return np.full_like(logits, np.nan)
    return logits


def _compare_with_free(
    free: Mapping[str, Any], metrics: dict[str, Any], outcomes: Outcomes, documents: Documents
) -> None:
    """Add to figures, notes and verdict how precise the model is where a free baseline answers."""
    for name, system in free.items():
        difference = at_same_coverage(outcomes, system, documents)
        metrics["figures"][f"systems/{name}/model_at_same_coverage"] = difference
        metrics["notes"].append(_beside(title_of(name), difference))
        if difference["value"] <= 0:
            metrics["verdict"] = (
                f"no more precise than {title_of(name)}, which costs nothing, where that answers; "
                + metrics["verdict"]
            )


def _of_source(fit: Fitted, lists: AnnotatedLists) -> Calibration:
    """The fitted calibration, with what says of which lists it speaks."""
    filled = lists.take(np.diff(lists.offsets) > 0)
    facts = {
        "dictionary": lists.dictionary and lists.dictionary.name,
        "ids": [*dict.fromkeys(filter(None, lists.ids))][:2],
    }
    source = replace(
        fit.calibration.source,
        list_scores={name: bool(filled.have_score(name).all()) for name in lists.scores},
        facts={**fit.facts, **facts},
    )
    return replace(fit.calibration, source=source)


def _labelled_lists(
    source: ModelSource,
    lists: AnnotatedLists,
    each_row_is_a_document: bool,
    plan: LookPlan | None,
) -> LabelledLists:
    """Leave out known documents, or forget them, complete the scores and score the candidates."""
    is_known = source.is_known(lists)
    known_documents = len({*lists.annotations.documents[is_known]})
    is_continued = plan is not None and plan.is_continued
    is_again = bool(is_known.any()) and (is_continued or _is_again(lists, is_known))
    history = source.history
    if not history.documents and is_again:
        # What a run or the package was calibrated on does not certify.
        history = history.after(lists.annotations.doc_ids[is_known])
    elif plan is not None:
        # The plan knows which of its documents were used.
        history = replace(history, documents=frozenset())
    if not is_again:
        lists = lists.take(~is_known)
    counts = source.first_counts() if is_again else source.counts
    may_certify = each_row_is_a_document or not have_own_documents(lists)
    share = 1.0 if may_certify else 0.0
    if plan is not None:
        share = plan.share
        history = replace(history, documents=history.documents | plan.trains_only)
    lists = lists.with_whole_scores(lists.partial_scores)
    cross_encoder = CrossEncoderLogits(source.cross_encoder, lists)
    # Without logits, the first candidate of each concept is its top one.
    top = best_of_each_concept(lists, cross_encoder(retained=are_repeated(lists.concepts)))
    return LabelledLists(
        whole_lists=lists,
        lists=lists.with_candidates(top),
        cross_encoder=cross_encoder.with_candidates(top),
        counts=counts,
        history=history,
        known_documents=known_documents,
        is_again=is_again,
        share=share,
    )


def _beside(name: str, difference: Mapping[str, Any]) -> str:
    """A baseline and the model, as by `at_same_coverage`, in a sentence."""
    gain, ends = cell(difference, "points")
    with_interval = f"{gain} points, {ends}" if ends else f"{gain} points"
    return (
        f"{name}: answers {percent(difference['coverage'])}, {percent(difference['system'])} of "
        f"them correct; of as many answers of this model, the surest, "
        f"{percent(difference['model'])} ({with_interval})"
    )


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


def _model_before(source: ModelSource, data: LabelledLists) -> dict[str, System]:
    """The model before, unless it was calibrated on these lists."""
    is_measured = data.lists.annotations.is_random_sample
    measured = data.lists.take(is_measured)
    systems = {}
    # On lists that it was calibrated on, it would look better than it is.
    if source.reranker is not None and not data.is_again:
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


def _facts(source: ModelSource, data: LabelledLists, fit: Fitted) -> dict[str, Any]:
    """Facts about lists and model, for ``metrics.json`` and the card."""
    lists = data.lists
    return {
        "source": source.name and portable_locator(source.name),
        "is_plain": source.cross_encoder is not None and source.reranker is None,
        "mentions": len(lists),
        "documents": len({*lists.annotations.documents}),
        "not_in_list": lists.not_in_list,
        "scores": [name for name in lists.scores if not name.endswith(FOUND)],
        "known_documents": data.known_documents,
        "calibrated_again": data.is_again,
        "repeated_candidates": len(data.whole_lists.owner) - len(lists.owner),
    }


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
    """Write a new model folder with figures and card atomically.

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
    folder.parent.mkdir(parents=True, exist_ok=True)
    with written(folder) as partial:
        partial.mkdir()
        write_figures(new.metrics, new.calibration.thresholds.target_precision, partial)
        histogram = Histogram.of_outcomes(new.outcomes)
        write_json(partial / REFERENCE, reference_content(new.metrics["figures"], histogram))
        write_calibrated(source, new, partial)
        (partial / CARD).write_text(folder_card(partial).text(), encoding="utf-8")


def write_figures(metrics: Mapping[str, Any], target_precision: float, folder: Path) -> None:
    """Write ``metrics.json`` and its charts into a folder."""
    reliability, risk_coverage = card_charts(metrics, target_precision)
    write_json(folder / METRICS_FILE, metrics)
    (folder / RELIABILITY).write_text(reliability, encoding="utf-8")
    (folder / RISK_COVERAGE).write_text(risk_coverage, encoding="utf-8")


def calibration_summary(new: Calibrated) -> str:
    """The results as lines of text: comparison and verdict, the tier high, and the weights."""
    facts = new.metrics["lists"]
    fusion = new.calibration.models[0].fusion
    lines = [
        "",
        "Cross-fitted by document in five folds, with 95 % intervals:",
        systems_text(new.metrics["figures"]),
        "",
        new.metrics["verdict"],
        _about_acceptance(new),
        *new.metrics["notes"],
        *_about_cross_encoder(new.fitted),
        "",
        *_about_high(new),
        "",
    ]
    if fusion:
        weights = ", ".join(f"{name} {weight:.3g}" for name, weight in fusion.weights.items())
        lines.append(f"weights: {weights}")
    for name, (low, high) in new.calibration.source.score_ranges.items():
        lines.append(f"{name}_score: from {low:.4g} to {high:.4g}")
        if not fusion or name not in fusion.weighted_features:
            lines[-1] += "; its weight is 0: higher must be better: negate distances"
    if known := facts["known_documents"]:
        how = "they are left out here, its counts of them stay"
        if facts["calibrated_again"]:
            how = "they are fitted on again without its counts of them"
        lines.append(f"{known:,} documents were used to calibrate {facts['source']}: {how}")
    if facts["source"] is None and not new.calibration.uses_cross_encoder:
        lines.append(
            f"for UMLS CUIs, umls-reranker calibrate {BUILT_IN} --lists adds counts from "
            "MedMentions"
        )
    if repeated := facts["repeated_candidates"]:
        lines.append(f"{repeated:,} candidates repeat a concept of their list")
    return "\n".join(lines)


def _about_acceptance(new: Calibrated) -> str:
    """The delivered threshold of acceptance, by which the figures above are."""
    accepts = sorted({f"{row.accept:.3f}" for row in new.calibration.thresholds.rows.values()})
    ends = " to ".join(dict.fromkeys((accepts[0], accepts[-1])))
    how = "the highest F1; --accept_precision 0.9 chooses a precision"
    if new.settings.accept_precision:
        how = f"precision {new.settings.accept_precision}"
    return f"accepted from a score of {ends} on, as the model is delivered ({how})"


def _about_high(new: Calibrated) -> Iterator[str]:
    """The certificates; that of all inputs with its result on held-out documents."""
    table = new.calibration.thresholds
    yield f"Tiers and decisions are for {new.calibration.source.in_words}"
    yield (
        f"High tier (precision of at least {table.target_precision:.0%} "
        f"with {table.confidence:.0%} confidence), threshold on all documents:"
    )
    for model in new.calibration.models:
        yield f"  {model.name}: {model.thresholds.certificate or 'nothing was tested'}"
    coverage = new.metrics["figures"]["high_confidence_coverage"]
    precision = new.metrics["figures"]["high_confidence_precision"]
    if table.is_certified and coverage["value"]:
        yield (f"  cross-fitted: {percent(coverage)} of the mentions, {percent(precision)} correct")
    if new.looked:
        yield new.looked


def _about_cross_encoder(fitted: dict[str, Any]) -> Iterator[str]:
    """What the cross-encoder gains, and what pruning costs; nothing if it is not weighed."""
    gain = fitted.get("cross_encoder")
    if gain is None:
        return
    if gain["nats_gained"] is not None:
        reach = STANDARD_ERRORS * gain["standard_error"]
        line = (
            f"the cross-encoder saves {gain['nats_gained']:.4f} nats of log loss on held-out "
            f"lists, +/- {reach:.4f}"
        )
        if gain["nats_gained"] - reach <= FEWEST_NATS:
            line += "; that may be nothing: without MODEL, or of built-in-fast, there is none"
        yield line
    if pruning := fitted.get("pruning"):
        yield (
            f"it scores {pruning['scored']:.1%} of the candidates; pruning the others changes "
            f"{pruning['changed_top']:.2%} of the top candidates"
        )
