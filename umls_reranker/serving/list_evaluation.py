"""Evaluation of a reranker on labelled lists of a user's pipeline, compared with their own order and scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration.logistic import sigmoid
from ..core.arrays import best_candidates
from ..core.errors import UserError
from ..core.files import write_json, written
from ..core.recipe import portable_locator
from ..core.settings import CalibrationArguments
from ..data.labelled_lists import LabelledLists, best_of_each_concept
from ..evaluation.answers import Answers
from ..evaluation.formats import number, percent
from ..evaluation.inputs import incorrect_type_figures
from ..evaluation.linking import Documents, gold_ranks
from ..evaluation.list_systems import System, compare_systems, systems_table, verdict
from ..evaluation.outcomes import OUTCOMES_FILE, Outcomes
from ..evaluation.page import card_charts, report_page
from ..evaluation.report import measured_report, model_systems
from ..hub.model_folder import METRICS, RELIABILITY, RISK_COVERAGE
from .cross_fits import systems_of_lists
from .reranker import UMLSReranker

# Name of the lists in reports.
SPLIT = "labelled"
PAGE = "report.html"


def evaluate_lists(
    reranker: UMLSReranker, labelled: LabelledLists, name: str, resamples: int, seed: int
) -> tuple[dict[str, Any], Outcomes]:
    """Score the lists and compute the figures of a run's evaluation that need only lists.

    Several candidates of one concept count as one, the top one. The model is not fitted to the lists; their own scores
    are calibrated on all but a fifth of the documents, for each fifth in turn.

    Args:
        reranker: the model.
        labelled: the lists.
        name: name of the model, as the user wrote it.
        resamples: number of resamples of documents, for intervals.
        seed: seed of resamples and fifths.

    Returns:
        The content of ``metrics.json``, and the outcomes of the mentions.
    """
    calibration = reranker.calibration
    answers = Answers.of(reranker.scorer, calibration, labelled.lists, SPLIT, resamples, seed)
    best = best_of_each_concept(answers.lists, answers.exhaustive.log_odds)
    repeated = len(answers.logits) - len(best)
    if repeated:
        answers = answers.with_candidates(best)
    lists, outcomes, documents = answers.lists, answers.outcomes, answers.documents
    compared = _compared(labelled, answers, reranker, seed)
    systems = model_systems(answers)
    del systems["retriever"]
    systems |= {key: compared[key] for key in ("calibrated_scores", "lists_order") if key in compared}
    sections: dict[str, Callable[[], Any]] = {"systems": lambda: compare_systems(compared, documents)}
    if lists.types.is_known.any():
        sections["incorrect_types"] = lambda: incorrect_type_figures(answers, lists.types)
    report = measured_report(answers, systems, sections)
    is_new = calibration.history.is_new(outcomes.document)
    report["lists"] = {
        "model": portable_locator(name),
        "scores": list(lists.scores),
        "not_in_list": labelled.not_in_list,
        "repeated_candidates": repeated,
        "calibrated_documents": len(set(outcomes.document[~is_new])),
        "calibrated_mentions": int((~is_new).sum()),
    }
    report["verdict"] = _verdict(report["systems"], compared, documents, is_new)
    report["notes"] = _notes(answers, report)
    return report, outcomes


def save_evaluation(
    report: dict[str, Any], outcomes: Outcomes, reranker: UMLSReranker, title: str, folder: Path
) -> None:
    """Write ``metrics.json``, the page with its plots, and the outcomes, atomically.

    Raises:
        UserError: the folder exists.
    """
    if folder.exists():
        raise UserError(f"{folder} already exists; choose another folder for the report")
    thresholds = reranker.thresholds
    page = report_page(report, title, thresholds)
    reliability, risk_coverage = card_charts(report, thresholds.target_precision)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with written(folder) as partial:
        partial.mkdir()
        write_json(partial / METRICS, report)
        outcomes.save(partial / OUTCOMES_FILE)
        for file, text in ((PAGE, page), (RELIABILITY, reliability), (RISK_COVERAGE, risk_coverage)):
            (partial / file).write_text(text, encoding="utf-8")


def evaluation_summary(report: dict[str, Any]) -> str:
    """The systems side by side, the verdict, and notes on the figures, as lines of text."""
    return "\n".join(["", systems_table(report["systems"]), "", report["verdict"], *report["notes"], ""])


def _compared(labelled: LabelledLists, answers: Answers, reranker: UMLSReranker, seed: int) -> dict[str, System]:
    """The compared systems, the order of the lists first and the model last."""
    lists, gold = answers.lists, answers.lists.annotations.gold
    systems = systems_of_lists(labelled.lists, reranker, CalibrationArguments(), seed)
    without = answers.plan.without_cross_encoder
    if without is not None:
        top = best_candidates(without, lists.offsets)
        score = np.where(top >= 0, sigmoid(without[top]), np.nan)
        systems["features_without_cross_encoder"] = System(gold_ranks(without, lists.offsets, gold), score)
    return systems | {"reranker": System.of(answers.outcomes)}


def _verdict(rows: list[dict[str, Any]], compared: dict[str, System], documents: Documents, is_new: np.ndarray) -> str:
    """Verdict on mentions whose documents the model was not calibrated on, (n,) bool."""
    if is_new.all():
        return verdict(rows[-1], len(is_new), documents.count)
    if not is_new.any():
        return (
            "inconclusive: the model was calibrated on all of these documents; evaluate on other documents, or see "
            "the verdict of calibrate, which is on held-out documents"
        )
    documents = documents.take(is_new)
    rows = compare_systems({name: system.take(is_new) for name, system in compared.items()}, documents)
    of_new = verdict(rows[-1], int(is_new.sum()), documents.count)
    return f"on the {documents.count:,} documents that the model was not calibrated on: {of_new}"


def _notes(answers: Answers, report: dict[str, Any]) -> list[str]:
    """Sentences about the figures, for the terminal and the page."""
    facts, rows, notes = report["lists"], report["systems"], []
    if calibrated := facts["calibrated_documents"]:
        notes.append(
            f"{calibrated:,} of the {answers.documents.count:,} documents were used to calibrate the model, so "
            "metrics on them are optimistic; remove them from your lists"
        )
    if "calibrated_scores" in [row["name"] for row in rows]:
        scores = ", ".join(f"{name}_score" for name in facts["scores"])
        notes.append(f"the scores of the lists ({scores}) are calibrated on these lists, cross-fitted by document")
    elif facts["scores"]:
        notes.append("too few documents to calibrate the scores of the lists, so they are not compared")
    if rows[-1]["top1_ece"]:
        chance = number(rows[-1]["top1_ece"]["perfect"])
        notes.append(f"ECE of the top candidates: perfectly calibrated probabilities would show {chance} by chance")
    high = report["tiers"]["high"]
    share = f"{percent(high['share'])} of the mentions, {percent(high['precision'])} of them correct"
    is_certified = any(part.model.thresholds.is_certified for part in answers.plan.parts)
    nothing = "no mention" if is_certified else "not certified for the inputs in these lists, so never given"
    notes.append(f"high tier of this model: {share if high['count'] else nothing}")
    return notes + _notes_on_inputs(answers)


def _notes_on_inputs(answers: Answers) -> list[str]:
    """Sentences about the models that decided if inputs of the first one are missing."""
    notes = []
    for number_of_model in np.unique(answers.decided.models).tolist():
        model = answers.calibration.models[number_of_model]
        decided = answers.decided.models == number_of_model
        missing = [name for name, lacks in answers.decided.missing.items() if (lacks & decided).any()]
        if missing:
            notes.append(
                f"missing inputs ({', '.join(missing)}) for {decided.sum():,} mentions, decided by the fallback model "
                f"{model.name}; umls-reranker calibrate MODEL --lists fits a model for your inputs"
            )
    return notes
