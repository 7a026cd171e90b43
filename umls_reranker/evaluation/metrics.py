"""The figures of a model's answers, such as accuracy and coverage.

Each is declared once, in `FIGURES`: ``metrics.json``, targets, tables and card follow.

A mention counts as an error if its gold concept was not retrieved or is not in the dictionary;
figures over in-dictionary mentions are given too. Intervals are by document.

``metrics.json`` has them in one flat dict, ``figures``: ``acc@1`` is of the model over all
mentions, and ``TABLE/ROW/acc@1``, such as ``groups/group:DISO/acc@1`` or
``systems/lists_order/acc@1``, of a row of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration.reliability import ratio
from ..core.json_files import read_json, require_format
from .intervals import Documents, Measure
from .outcomes import Outcomes

# The version of the format of ``metrics.json``.
SCHEMA_VERSION = 4
# With fewer mentions, the result of a target may be inconclusive, and a group is not the worst.
SMALL_SUPPORT = 1_000


def sums_to_f1(sums: np.ndarray) -> np.ndarray:
    """F1 of (..., 3) true positives, predicted and actual positives."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 2 * sums[..., 0] / (sums[..., 1] + sums[..., 2])


@dataclass(frozen=True)
class Figure:
    """A figure of the outcomes of n mentions, as a statistic of sums.

    Attributes:
        name: its name in ``metrics.json`` and in targets of recipes.
        help: its name in tables.
        columns: makes k columns (n,) from outcomes; the last one is 1 for each mention that counts.
        population: mentions that count, such as "with candidates"; "": all.
        statistic: makes the figure from the columns' sums (..., k); by default, the first sum
            divided by the second.
        format: its format in tables: ``percent`` or ``number``.
        in_slices: whether it is also measured on slices of the mentions, such as semantic groups.
        higher_is_better: whether a higher value is better.
        margin: how much worse a version may be and count as as good, as a share of the margin for
            accuracy; 0: it is not compared between versions.
        is_share: whether it is a share (`Documents.interval`).
    """

    name: str
    help: str
    columns: Callable[[Outcomes], Sequence[np.ndarray]]
    population: str = ""
    statistic: Callable[[np.ndarray], np.ndarray] = ratio
    format: str = "percent"
    in_slices: bool = False
    higher_is_better: bool = True
    margin: float = 0.0
    is_share: bool = True


WITH_GOLD_IN_DICTIONARY = "with gold in the dictionary"
WITH_CANDIDATES = "with candidates"
FIGURES = [
    Figure("acc@1", "acc@1", lambda o: (o.correct, o.every), in_slices=True, margin=1.0),
    Figure(
        "acc@1_in_dictionary",
        "acc@1, gold in dictionary",
        lambda o: (o.correct & o.in_dictionary, o.in_dictionary),
        WITH_GOLD_IN_DICTIONARY,
        in_slices=True,
    ),
    Figure(
        "high_confidence_coverage",
        "high-tier coverage",
        lambda o: (o.tier == "high", o.every),
        in_slices=True,
    ),
    Figure(
        "high_confidence_precision",
        "high-tier precision",
        lambda o: ((o.tier == "high") & o.correct, o.tier == "high"),
        "in the high tier",
        in_slices=True,
    ),
    Figure("accepted_coverage", "coverage", lambda o: (o.accepted, o.every), in_slices=True),
    Figure(
        "accepted_precision",
        "precision",
        lambda o: (o.accepted & o.correct, o.accepted),
        "accepted",
        in_slices=True,
    ),
    # End to end, with abstention: precision over answers given, recall over mentions that have one.
    Figure(
        "correct_answers_f1",
        "F1 of correct answers",
        lambda o: (o.accepted & o.correct, o.accepted, o.in_dictionary),
        WITH_GOLD_IN_DICTIONARY,
        sums_to_f1,
        margin=1.0,
        is_share=False,
    ),
    # Where the dictionary lacks the gold concept, no answer is correct; the service should abstain.
    Figure(
        "abstaining_recall",
        "abstentions",
        lambda o: (~o.accepted & ~o.in_dictionary, ~o.in_dictionary),
        "with gold not in the dictionary",
    ),
    Figure(
        "without_candidates_share",
        "share without candidates",
        lambda o: (~o.has_candidates, o.every),
    ),
    # The monitor counts these two likewise.
    Figure(
        "mean_top_score",
        "mean top score",
        lambda o: (o.score_or_0, o.has_candidates),
        WITH_CANDIDATES,
        format="number",
    ),
    Figure(
        "mean_margin",
        "mean margin",
        lambda o: (np.nan_to_num(o.margin), o.has_candidates),
        WITH_CANDIDATES,
        format="number",
    ),
    # The error rate beyond what the scores predict; positive: overconfident.
    Figure(
        "overconfidence",
        "overconfidence",
        lambda o: (o.score_or_0 - o.correct * o.has_candidates, o.has_candidates),
        WITH_CANDIDATES,
        in_slices=True,
    ),
    # The mean squared error of the top scores rises with a worse order or calibration. Where
    # calibrated answers are correct with p = 0.75, it is p (1 - p) and changes by half of what
    # accuracy does.
    Figure(
        "brier_of_top",
        "Brier score of top candidates",
        lambda o: ((o.score_or_0 - o.correct) ** 2, o.every),
        format="number",
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


def read_metrics(path: Path) -> dict[str, Any]:
    """Content of a ``metrics.json``.

    Raises:
        UserError: it is missing, damaged or of another format.
    """
    report = read_json(path)
    require_format(path, report, SCHEMA_VERSION, "evaluate")
    return report


def measure_figures(
    outcomes: Outcomes, documents: Documents, *, in_slices: bool = False
) -> dict[str, Measure]:
    """All figures, or those in slices: ``{"value", "low", "high", "n", "population"}`` by name.

    ``n`` is the number of mentions that count, and ``population`` says which they are.
    """
    figures = {}
    for figure in FIGURES:
        if in_slices and not figure.in_slices:
            continue
        columns = figure.columns(outcomes)
        measured = documents.measure(columns, figure.statistic, is_share=figure.is_share)
        population = f"mentions {figure.population}".rstrip()
        figures[figure.name] = measured | {"population": population}
    return figures
