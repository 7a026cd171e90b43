"""Evaluating a reranker on labelled lists: figures, baselines, notes, and the report."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..calibration.arguments import CalibrationArguments
from ..calibration.features import refuse_feature_names
from ..evaluation.baselines import baselines
from ..evaluation.formatting import percent
from ..evaluation.gain_verdict import best_row, verdict_on_gain
from ..evaluation.intervals import Documents
from ..evaluation.model_report import measure_model
from ..evaluation.outcomes import OUTCOMES_FILE, Outcomes
from ..evaluation.render import report_page
from ..evaluation.tables import systems_text
from ..lists.annotated_lists import AnnotatedLists
from ..lists.dictionary import Dictionary
from ..lists.labels import usable_lists
from ..lists.rows import Rows
from .calibrated import SPLIT, write_figures
from .compared_systems import systems_of_lists
from .reranker import UMLSReranker

REPORT_PAGE = "report.html"


def evaluate(
    reranker: UMLSReranker,
    rows: Iterable[Mapping[str, Any]],
    *,
    dictionary: Dictionary | None = None,
    resamples: int = 1000,
    seed: int = 13,
    each_row_is_a_document: bool = False,
) -> dict[str, Any]:
    """Evaluate a model on rows with gold concepts, as ``umls-reranker evaluate --lists`` does.

    Documents that the model was calibrated on are left out.

    Args:
        reranker: the model.
        rows: as for `calibrate`.
        dictionary: as for `calibrate`.
        resamples: number of resamples of documents, for 95 % intervals.
        seed: seed of the resamples.
        each_row_is_a_document: as for `calibrate`.

    Returns:
        The content of ``metrics.json``: counts, ``verdict``, ``notes``, and ``figures``, of which
        each has ``value``, ``low`` and ``high``.

    Raises:
        UserError: a row is invalid (it is named).
    """
    lists = usable_lists(
        Rows.of(rows),
        Path("rows"),
        reranker.thresholds.hierarchy,
        dictionary,
        fitted_on=False,
        each_row_is_a_document=each_row_is_a_document,
    )
    return evaluate_lists(reranker, lists, SPLIT, resamples=resamples, seed=seed)[0]


def evaluate_lists(
    reranker: UMLSReranker,
    lists: AnnotatedLists,
    split: str,
    *,
    counted: Iterable[tuple[str, str]] = (),
    resamples: int = 1000,
    seed: int = 13,
) -> tuple[dict[str, Any], Outcomes]:
    """Compare the model with the order and the calibrated scores of lists, and simple baselines.

    Documents that the model was calibrated on are left out. It is not fitted to the lists; their
    own scores are calibrated on all but a fifth of the documents, for each fifth in turn.

    Args:
        reranker: the model.
        lists: the lists.
        split: their name in reports.
        counted: text and gold CUI of the mentions that the model counts (`baselines`); none if they
            are unknown.
        resamples: number of resamples of documents, for intervals.
        seed: seed of resamples and fifths.

    Returns:
        The content of ``metrics.json``, and the outcomes of the mentions.
    """
    refuse_feature_names(lists)
    counted = list(counted)
    is_new = reranker.calibration.documents.are_of_new_documents(lists.annotations)
    notes = []
    if not is_new.all():
        fitted = len({*lists.annotations.documents[~is_new]})
        outcome = "all of these documents, so figures on them are optimistic"
        if is_new.any():
            lists = lists.take(is_new)
            outcome = "left out"
        notes.append(f"the model was calibrated on {fitted:,} of these documents: {outcome}")
    systems = systems_of_lists(lists, CalibrationArguments(), seed) | baselines(lists, counted)
    documents = Documents.of(lists.annotations.documents, resamples, seed)
    metrics, outcomes = measure_model(
        reranker.cross_encoder, reranker.calibration, lists, systems, documents, split, counted
    )
    if "calibrated_scores" in systems:
        scores = ", ".join(f"{name}_score" for name in lists.scores)
        notes.append(
            f"the scores of the lists ({scores}) are calibrated on these lists, "
            "cross-fitted by document"
        )
    notes += _notes_on_answers(metrics, reranker.model_names[0])
    alone = metrics["figures"].get("systems/cross_encoder/acc@1")
    if alone is not None and alone["n"] < len(outcomes):
        notes.append(
            f"the cross-encoder alone is measured on {alone['n']:,} lists drawn at random, all of "
            "whose candidates it scored"
        )
    if untiered := metrics["untiered"]:
        notes.append(
            f"{untiered:,} mentions get no tier, and none of their answers is accepted: this model "
            f"gives tiers to {reranker.calibrated_on}; calibrate it on lists like these"
        )
    decided = "inconclusive: the model was calibrated on all of these documents; evaluate on others"
    if is_new.any():
        gain = metrics["figures"]["gain"]
        decided = verdict_on_gain(gain, len(outcomes), documents.count) + best_row(metrics)
    return metrics | {"verdict": decided, "notes": notes}, outcomes


def _notes_on_answers(metrics: Mapping[str, Any], first_model: str) -> list[str]:
    """The tier high in a sentence, and the models that decided, if not only the first."""
    coverage = metrics["figures"]["high_confidence_coverage"]
    precision = metrics["figures"]["high_confidence_precision"]
    correct = f", {percent(precision)} of them correct" if coverage["value"] else ""
    notes = [f"high tier of this model: {percent(coverage)} of the mentions{correct}"]
    decided_by = metrics["decided_by"]
    if [*decided_by] != [first_model]:
        counts = ", ".join(f"{name} ({count:,} mentions)" for name, count in decided_by.items())
        notes.append(f"some mentions lack inputs, so these models decided: {counts}")
    return notes


def save_report(
    metrics: dict[str, Any], outcomes: Outcomes, reranker: UMLSReranker, title: str, folder: Path
) -> None:
    """Write ``metrics.json``, the page with its plots, and the outcomes into a folder."""
    write_figures(metrics, reranker.thresholds.target_precision, folder)
    outcomes.save(folder / OUTCOMES_FILE)
    (folder / REPORT_PAGE).write_text(
        report_page(metrics, title, reranker.thresholds), encoding="utf-8"
    )


def evaluation_summary(metrics: dict[str, Any]) -> str:
    """The systems side by side, the verdict, and notes on the figures, as lines of text."""
    return "\n".join(
        ["", systems_text(metrics["figures"]), "", metrics["verdict"], *metrics["notes"], ""]
    )
