"""Figures of a model's answers. Each is declared once, and metrics.json, targets, tables, page and card follow.

Figures of the table `serving` are measured over all mentions of a split: `serving` in ``metrics.json``,
``reference.json``, the card and the terminal have them, and targets of recipes can name them. Those of `slices` are
measured over parts of the mentions: semantic groups and types, subsets seen and unseen in training, and lists whose
inputs are missing or incorrect. Those of `comparison` decide whether a version is worse than another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration.reliability import calibration_report
from ..calibration.resampling import ratio
from ..core.files import read_json, require_format
from ..core.progress import progress
from ..data.semantic_types import TypeHierarchy
from .linking import Documents, sums_to_f1
from .outcomes import Outcomes

# Of ``metrics.json``.
SCHEMA_VERSION = 2
# With fewer mentions, a type is not listed and no calibration metric is given.
SMALLEST_SLICE = 50
WITHOUT_TYPE = "without type"
SERVING, SLICES, COMPARISON = "serving", "slices", "comparison"


@dataclass(frozen=True)
class Figure:
    """A figure of the outcomes of n mentions, as a statistic of sums.

    Attributes:
        name: its name in ``metrics.json`` and in targets of recipes.
        help: its name in tables.
        tables: tables that have it: `serving`, `slices`, `comparison`.
        columns: makes k columns (n,) from outcomes; the last one is 1 for each mention that counts.
        population: mentions that count, such as "with candidates".
        statistic: makes the figure from the columns' sums (..., k).
        higher_is_better: whether a higher value is better.
        margin: how much worse a version may be and count as as good, as a share of the margin for accuracy.
    """

    name: str
    help: str
    tables: tuple[str, ...]
    columns: Callable[[Outcomes], Sequence[np.ndarray]]
    population: str = ""
    statistic: Callable[[np.ndarray], np.ndarray] = ratio
    higher_is_better: bool = True
    margin: float = 1.0


FIGURES = [
    Figure("acc@1", "acc@1", (SLICES, COMPARISON), lambda o: (o.correct, o.every)),
    Figure(
        "acc@1_in_dictionary",
        "acc@1, gold in dictionary",
        (SLICES,),
        lambda o: (o.correct & o.in_dictionary, o.in_dictionary),
        population="with gold in the dictionary",
    ),
    Figure("high_confidence_share", "high-tier coverage", (SERVING, SLICES), lambda o: (o.high, o.every)),
    Figure(
        "high_confidence_precision",
        "high-tier precision",
        (SERVING, SLICES),
        lambda o: (o.high & o.correct, o.high),
        population="in the high tier",
    ),
    Figure("accepted_share", "coverage", (SERVING, SLICES), lambda o: (o.accepted, o.every)),
    Figure(
        "accepted_precision",
        "precision",
        (SERVING, SLICES),
        lambda o: (o.accepted & o.correct, o.accepted),
        population="accepted",
    ),
    Figure("without_candidates_share", "share without candidates", (SERVING,), lambda o: (~o.has_candidates, o.every)),
    # The monitor counts these two likewise.
    Figure(
        "mean_top_score",
        "mean top score",
        (SERVING,),
        lambda o: (o.score_or_0, o.has_candidates),
        population="with candidates",
    ),
    Figure(
        "mean_margin",
        "mean margin",
        (SERVING,),
        lambda o: (np.nan_to_num(o.margin), o.has_candidates),
        population="with candidates",
    ),
    # The error rate beyond what the scores predict; positive: overconfident.
    Figure(
        "excess_error",
        "excess error",
        (SLICES,),
        lambda o: (o.score_or_0 - o.correct * o.has_candidates, o.has_candidates),
        population="with candidates",
        higher_is_better=False,
    ),
    # End to end, with abstention: precision over the answers given, recall over the mentions that have one.
    Figure(
        "correct_answers_f1",
        "F1 of correct answers",
        (COMPARISON,),
        lambda o: (o.accepted & o.correct, o.accepted, o.in_dictionary),
        population="with gold in the dictionary",
        statistic=sums_to_f1,
    ),
    # The mean squared error of the top scores rises with a worse order or calibration. Where calibrated answers are
    # correct with p = 0.75, it is p (1 - p) and changes by half of what accuracy does.
    Figure(
        "brier_of_top",
        "Brier score of top candidates",
        (COMPARISON,),
        lambda o: ((o.score_or_0 - o.correct) ** 2, o.every),
        higher_is_better=False,
        margin=0.5,
    ),
]


def register(figure: Figure) -> None:
    """Add a figure from outside the package, before anything is measured.

    Raises:
        ValueError: the name is taken.
    """
    if figure.name in [declared.name for declared in FIGURES]:
        raise ValueError(f"figure {figure.name} is already registered")
    FIGURES.append(figure)


def figures_of(table: str) -> list[Figure]:
    """The figures of a table, in its order."""
    return [figure for figure in FIGURES if table in figure.tables]


def read_metrics(path: Path) -> dict[str, Any]:
    """Content of a ``metrics.json``.

    Raises:
        UserError: it is missing, damaged or of another format.
    """
    report = read_json(path)
    is_of_lists = isinstance(report, dict) and "lists" in report
    require_format(path, report, SCHEMA_VERSION, "calibrate" if is_of_lists else "evaluate")
    return report


def measure_figures(table: str, outcomes: Outcomes, documents: Documents, split: str) -> dict[str, dict[str, Any]]:
    """Name -> ``{"value", "low", "high", "population", "support"}`` of each figure; support: mentions that count."""
    measured: dict[str, dict[str, Any]] = {}
    for figure in figures_of(table):
        columns = figure.columns(outcomes)
        support = int(columns[-1].sum())
        population = f"{support:,} {split} mentions {figure.population}".rstrip()
        measures = documents.measure(columns, figure.statistic)
        measured[figure.name] = {**measures, "population": population, "support": support}
    return measured


def slice_figures(outcomes: Outcomes, documents: Documents, split: str) -> dict[str, Any]:
    """The figures of the table `slices` of some mentions, and their number.

    Returns:
        ``mentions``, the figures as for `measure_figures`, and with at least `SMALLEST_SLICE` mentions with
        candidates, ``debiased_ece`` of the top scores.
    """
    figures: dict[str, Any] = {"mentions": len(outcomes)} | measure_figures(SLICES, outcomes, documents, split)
    top = outcomes.select(outcomes.has_candidates)
    if len(top) >= SMALLEST_SLICE:
        options = {"resamples": documents.resamples, "seed": documents.seed}
        figures["debiased_ece"] = calibration_report(top.score, top.correct, top.document, **options)["debiased_ece"]
    return figures


def group_slices(
    outcomes: Outcomes, documents: Documents, hierarchy: TypeHierarchy, split: str
) -> dict[str, dict[str, Any]]:
    """Figures of every semantic group, the largest first; a mention counts in the group of each of its types.

    In a hierarchy without groups, the broadest ancestors take their role. Mentions with unknown types form their own
    group.

    Returns:
        Group id -> `slice_figures` with its ``name``.
    """
    groups = []
    for types in outcomes.types:
        chains = [hierarchy.chain(known) or [known] for known in map(hierarchy.resolve, types) if known]
        groups.append({chain[-1] for chain in chains} or {WITHOUT_TYPE})
    return _slices(outcomes, documents, groups, hierarchy, 1, split)


def type_slices(
    outcomes: Outcomes, documents: Documents, hierarchy: TypeHierarchy, split: str
) -> dict[str, dict[str, Any]]:
    """Figures of semantic types with at least `SMALLEST_SLICE` mentions, the most certain excess of errors first.

    Returns:
        Type id -> `slice_figures` with its ``name``, ordered by the lower end of the interval of ``excess_error``.
    """
    types = [set(filter(None, map(hierarchy.resolve, names))) for names in outcomes.types]
    slices = _slices(outcomes, documents, types, hierarchy, SMALLEST_SLICE, split)
    # A type whose mentions all lack candidates has no excess error and comes last.
    return dict(sorted(slices.items(), key=lambda item: -np.nan_to_num(item[1]["excess_error"]["low"], nan=-1.0)))


def _slices(
    outcomes: Outcomes,
    documents: Documents,
    keys: list[set[str]],
    hierarchy: TypeHierarchy,
    smallest: int,
    split: str,
) -> dict[str, dict[str, Any]]:
    rows: dict[str, list[int]] = {}
    for row, keys_of_row in enumerate(keys):
        for key in sorted(keys_of_row):
            rows.setdefault(key, []).append(row)
    slices = {}
    large = {key: np.array(inside) for key, inside in rows.items() if len(inside) >= smallest}
    by_size = sorted(large.items(), key=lambda item: (-len(item[1]), item[0]))
    for key, inside in progress(by_size, desc="measuring groups and types", unit=" slices"):
        name = key if key == WITHOUT_TYPE else hierarchy.name(key)
        slices[key] = {"name": name} | slice_figures(outcomes.select(inside), documents.take(inside), split)
    return slices


def answering_metrics(outcomes: Outcomes, documents: Documents) -> dict[str, dict]:
    """Answering or abstaining: does a mention get an answer if, and only if, the dictionary holds one?

    A mention whose gold concept the dictionary lacks has no correct answer; the service should abstain. Three views,
    each ``{"precision", "recall", "f1"}`` of ``{"value", "low", "high"}`` and its counts ``true_positives``,
    ``predicted`` and ``actual``:

    * ``answering``: answered mentions, correct or not, against those that the dictionary can answer;
    * ``abstaining``: abstentions against mentions out of the dictionary (NIL detection);
    * ``correct_answers``: correct answers among all answers, and among the mentions that have one: end to end.

    A ratio without a denominator is NaN.
    """
    accepted, known = outcomes.accepted, outcomes.in_dictionary
    views = {
        "answering": (accepted & known, accepted, known),
        "abstaining": (~accepted & ~known, ~accepted, ~known),
        "correct_answers": (accepted & outcomes.correct, accepted, known),
    }
    report: dict[str, dict[str, Any]] = {}
    for name, (true_positives, predicted, actual) in views.items():
        report[name] = {
            **documents.precision_recall_f1(true_positives, predicted, actual),
            "true_positives": int(true_positives.sum()),
            "predicted": int(predicted.sum()),
            "actual": int(actual.sum()),
        }
    return report
