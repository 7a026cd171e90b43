"""Calibrate a reranker, or any cross-encoder, on labelled lists of another pipeline: no run, no training.

All reported figures are held out. "Before" is the original model. "After" is the same procedure fitted on four fifths
of the documents and measured on the last fifth, for each fifth in turn. The saved model is fitted on all documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration.certificate import note_on_certificate
from ..calibration.cross_validation import document_folds
from ..calibration.decisions import Decisions
from ..calibration.fitting import fit_calibration
from ..calibration.inputs import inputs_of, lacking
from ..calibration.network_logits import NetworkLogits, Score, Unseen
from ..calibration.probabilities import Calibration
from ..core.arguments import CalibrationArguments
from ..core.arrays import ranking
from ..core.errors import UserError
from ..core.files import write_json, written
from ..core.recipe import portable_locator
from ..core.retrievers import SCORES
from ..core.sockets import FEATURES
from ..data.candidate_lists import AnnotatedLists, CandidateLists
from ..data.labelled_lists import LabelledLists, best_of_each_concept
from ..evaluation.formats import number
from ..evaluation.linking import Documents
from ..evaluation.outcomes import Outcomes
from ..evaluation.page import card_charts
from ..evaluation.report import decided_figures
from ..hub.card import folder_card
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
from .monitoring.reference import Reference
from .source_model import SourceModel, decide

RESAMPLES = 1000
# Name of the lists in reports and calibrator.json.
SPLIT = "own lists"
# Keys of figures in ``metrics.json``, by what they are called on the terminal.
FIGURES = {
    "ECE of candidates": ("calibration", "ece"),
    "ECE of first candidates": ("calibration", "top1_ece"),
    "right first candidates (acc@1)": ("linking", "reranker", "acc@1"),
    "share in the tier high": ("tiers", "high", "share"),
    "precision of the tier high": ("tiers", "high", "precision"),
}


@dataclass(frozen=True)
class Recalibrated:
    """A new calibration of a model.

    Attributes:
        lists: the fitted lists, with the best candidate of each concept.
        settings: with the features that were used.
        calibration, fitted: of all documents; the last for ``calibrator.json``.
        after: decisions about each fifth of the documents by a fit on the others.
        metrics: their figures, for ``metrics.json``, and under ``before`` those of the original model.
    """

    lists: AnnotatedLists
    settings: CalibrationArguments
    calibration: Calibration
    fitted: dict[str, Any]
    after: Decisions
    metrics: dict[str, Any]


def recalibrate(
    source: SourceModel, labelled: LabelledLists, settings: CalibrationArguments, seed: int = 13
) -> Recalibrated:
    """Score the lists, fit fusion, calibrator, thresholds and certificate on them, and measure before and after.

    Args:
        settings: calibrator and what is to be certified; features are what the model weighs, as far as the lists carry
            it, and all their scores.
        seed: of the folds of documents.

    Raises:
        UserError: there is too little data.
    """
    title, network_inputs = "scoring candidates", source.scorer.template.reads
    logits = score_lists(source.scorer, labelled.lists, title).logits
    is_best = best_of_each_concept(labelled.lists, logits)
    lists, logits = labelled.lists.with_candidates(is_best), logits[is_best]
    settings = replace(settings, features=_features(source, lists))
    network = NetworkLogits(source.scorer, lists, title, {(): logits})
    folds = document_folds(lists.annotations.documents, seed)

    def logits_of(inside: np.ndarray) -> Score:
        rows = np.flatnonzero(inside[lists.owner])

        def score(unseen: Unseen, wanted: np.ndarray) -> np.ndarray:
            everywhere = np.zeros(len(lists.owner), bool)
            everywhere[rows] = wanted
            return network(unseen, everywhere)[rows]

        return score

    def fit(inside: np.ndarray) -> tuple[Calibration, dict[str, Any]]:
        options = settings, source.hierarchy, seed, network_inputs, source.history
        has_outlook = bool(inside.all())
        return fit_calibration(lists.take(inside), logits_of(inside), source.counts, *options, has_outlook=has_outlook)

    calibration, fitted = fit(np.ones(len(lists), bool))
    held_out: dict[int, Decisions] = {}
    for fold in range(folds.max() + 1):
        inside = folds == fold
        held_out[fold] = decide(lists.take(inside), logits_of(inside), fit(~inside)[0], network_inputs)
    after = _joined(lists, folds, held_out)
    facts = {
        "source": portable_locator(source.name),
        "is_plain": source.reranker is None,
        "mentions": len(lists),
        "documents": len(set(lists.annotations.documents)),
        "not_in_list": labelled.not_in_list,
        "scores": list(lists.scores),
        "repeated_candidates": int((~is_best).sum()),
    }
    fitted |= {"split": SPLIT, "lists": facts}
    documents = Documents.of(lists.annotations.documents, RESAMPLES, seed)
    figures_after, figures_before = (
        decided_figures(lists, decided, logits, Outcomes.of(lists, decided), documents, SPLIT)
        for decided in (after, source.decide(lists, network))
    )
    metrics = figures_after | {"lists": facts, "before": figures_before, "inputs": _certified(calibration)}
    return Recalibrated(lists, settings, calibration, fitted, after, metrics)


def save_recalibrated(source: SourceModel, new: Recalibrated, folder: Path) -> None:
    """Write the new model folder atomically; `UMLSReranker.from_pretrained` loads it.

    Raises:
        UserError: the folder exists.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already; choose another folder for the new model")
    recipe = source.recipe
    recipe = replace(recipe, run=replace(recipe.run, run_name=folder.name), calibration=new.settings)
    dictionary = source.reranker.info.get("dictionary") if source.reranker else None
    outcomes = Outcomes.of(new.lists, new.after)
    target = new.calibration.thresholds.target_precision
    documents = outcomes.document.tolist()
    reference = Reference.fit(outcomes.score, outcomes.types, documents, new.metrics["serving"], target)
    reliability, risk_coverage = card_charts(new.metrics, target)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with written(folder) as partial:
        partial.mkdir()
        copy_network(source.folder, partial)
        write_json(partial / METRICS, new.metrics)
        write_json(partial / REFERENCE, reference.to_dict())
        (partial / RELIABILITY).write_text(reliability, encoding="utf-8")
        (partial / RISK_COVERAGE).write_text(risk_coverage, encoding="utf-8")
        scorer = source.scorer
        fit = new.calibration, new.fitted
        write_model_files(partial, recipe, scorer.template, scorer.dtype, *fit, dictionary)
        (partial / CARD).write_text(folder_card(partial), encoding="utf-8")


def before_and_after(new: Recalibrated) -> str:
    """The results for the new model, as lines of text."""
    lines = []
    if repeated := new.metrics["lists"]["repeated_candidates"]:
        lines.append(f"{repeated:,} candidates name a concept of their list once more")
    fusion = new.calibration.models[0].fusion
    assert fusion is not None  # features are never empty here
    lines.append("weights: " + ", ".join(f"{name} {weight:.3g}" for name, weight in fusion.weights.items()))
    for name in new.lists.scores:
        low, high = new.calibration.score_ranges[name]
        ending = "" if name in fusion.read else "; it has no weight: is higher better? Give a distance negated"
        lines.append(f"{name}_score: from {low:.4g} to {high:.4g}{ending}")
    logits = new.after.logits
    lines.append(f"scored by the cross-encoder: {np.isfinite(logits).mean():.1%} of {len(logits):,} candidates")
    lines.append(f"{'':<34}{'before':<10}after, on documents held out")
    for label, keys in FIGURES.items():
        before, after = reduce(getitem, keys, new.metrics["before"]), reduce(getitem, keys, new.metrics)
        lines.append(f"{label:<34}{number(before, 4):<10}{number(after, 4)}")
    for index, model in enumerate(new.calibration.models):
        of_inputs = f" with {model.name}" if index else ""
        lines.append(f"high{of_inputs} from, by all documents: {model.thresholds.certificate}")
    if note := note_on_certificate(new.fitted["certified_by"]):
        lines.append(note)
    return "\n".join(lines)


def _features(source: SourceModel, lists: CandidateLists) -> list[str]:
    """What is weighed: features that the model knows and that no mention of the lists is without the means for."""
    fusion = source.reranker.calibration.models[0].fusion if source.reranker else None
    if fusion:
        # Scores of retrievers come with the lists, or not at all.
        names = [name for name in fusion.weights if name in FEATURES and name not in SCORES]
    else:
        names = [name for name, feature in FEATURES.items() if feature.is_of_any_model]

    def is_usable(name: str) -> bool:
        return not any(lacking(lists, key, lists.scores).all() for key in inputs_of([name]))

    return [*filter(is_usable, names), *lists.scores]


def _joined(lists: CandidateLists, folds: np.ndarray, held_out: Mapping[int, Decisions]) -> Decisions:
    """The decisions about all lists from those about each fold, (n,)."""
    by_mention, by_candidate = np.argsort(folds, kind="stable"), np.argsort(folds[lists.owner], kind="stable")

    def column(name: str) -> np.ndarray:
        in_folds = np.concatenate([getattr(decisions, name) for decisions in held_out.values()])
        joined = np.empty_like(in_folds)
        joined[by_mention if name == "models" else by_candidate] = in_folds
        return joined

    log_odds = column("log_odds")
    columns: dict[str, Any] = {
        name: column(name) for name in ("logits", "probabilities", "margins", "tiers", "accepted", "models")
    }
    return Decisions(lists.offsets, log_odds=log_odds, order=ranking(log_odds, lists.offsets), **columns)


def _certified(calibration: Calibration) -> dict[str, dict[str, Any]]:
    """Of each set of inputs, whether its tier high is certified, and share and precision on held-out documents."""
    certified = {}
    for model in calibration.models:
        if certificate := model.thresholds.certificate:
            precision = float("nan") if certificate.precision is None else certificate.precision
            certified[model.name] = {
                "certified": certificate.threshold is not None,
                "high_confidence_share": {"value": certificate.share},
                "high_confidence_precision": {"value": precision},
            }
    return certified
