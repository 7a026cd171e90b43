"""Systems side by side on the same lists: is one better than the original order of the lists?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..calibration.reliability import ratio
from .intervals import Documents, Measure
from .outcomes import Outcomes
from .score_figures import COVERAGE_PRECISIONS, coverage_at_precision

# The name of the model itself among the systems.
MODEL = "reranker"


class System(NamedTuple):
    """The answers of one system for n mentions.

    Attributes:
        ranks: (n,) rank of the gold concept, 0 is the top, -1 if missing.
        score: (n,) confidence of its top candidate, NaN without candidates; None if the system has
            no scores. For the calibration error it is a calibrated probability.
        accepted: (n,) bool, for a system with a threshold, or which answers some mentions only;
            None: it answers all.
        is_ranking: whether it ranks all candidates, not only one.
        measured: (n,) bool, the mentions that it is measured on; None: all.
    """

    ranks: np.ndarray
    score: np.ndarray | None = None
    accepted: np.ndarray | None = None
    is_ranking: bool = True
    measured: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> System:
        """Its answers for some mentions, (n,) bool, which are all measured."""
        score = None if self.score is None else self.score[rows]
        accepted = None if self.accepted is None else self.accepted[rows]
        return System(self.ranks[rows], score, accepted, self.is_ranking)

    @classmethod
    def of(cls, outcomes: Outcomes) -> System:
        """The answers of a model with calibrated scores and thresholds."""
        return cls(outcomes.rank, outcomes.score, outcomes.accepted)

    @classmethod
    def answering(
        cls, answers: Sequence[str | None], gold: Sequence[Sequence[str]] | np.ndarray
    ) -> System:
        """A system that answers each mention with one id or None; any `gold` id is correct."""
        is_correct = np.array(
            [answer in ids for answer, ids in zip(answers, gold, strict=True)], dtype=bool
        )
        accepted = np.array([answer is not None for answer in answers], dtype=bool)
        return cls(np.where(is_correct, 0, -1), accepted=accepted, is_ranking=False)


def at_same_coverage(outcomes: Outcomes, system: System, documents: Documents) -> Measure:
    """How much more precise the model's surest answers are than as many answers of a system.

    Returns:
        The difference; and the precision of both, ``model`` and ``system``, and ``coverage``.
    """
    assert system.accepted is not None
    by_score = np.argsort(-outcomes.score_or_0, kind="stable")
    surest = np.zeros(len(outcomes), bool)
    surest[by_score[: system.accepted.sum()]] = True
    correct_of_system = (system.ranks == 0) & system.accepted
    columns = [surest & outcomes.correct, surest, correct_of_system, system.accepted]
    difference = documents.measure(columns, _difference_of_ratios, is_share=False)
    return difference | {
        "model": float(outcomes.correct[surest].mean()),
        "system": float(correct_of_system[system.accepted].mean()),
        "coverage": float(system.accepted.mean()),
    }


def _difference_of_ratios(sums: np.ndarray) -> np.ndarray:
    """The difference of two ratios, of sums (..., 4)."""
    return ratio(sums[..., :2]) - ratio(sums[..., 2:])


def compare_systems(
    systems: Mapping[str, System],
    documents: Documents,
    in_dictionary: np.ndarray | None = None,
    composite: np.ndarray | None = None,
) -> dict[str, Measure]:
    """Figures of each system, and the paired difference of its acc@1 to that of the first one.

    Args:
        systems: name -> answers, the order of the lists first.
        documents: documents of the n mentions; all intervals, also of differences, use the same
            resamples.
        in_dictionary: (n,) whether the gold concept is in the dictionary; None: all are.
        composite: (n,) whether the mention names several concepts; None: none does.

    Returns:
        ``systems/NAME/FIGURE`` -> ``{"value", "low", "high", "n"}``: ``acc@1``; ``acc@1_strict``
        with composites as errors, if there are any; ``gain`` (not of the first);
        ``accepted_coverage`` and ``accepted_precision`` (NaN if nothing is accepted); ``top1_ece``,
        ``coverage_at_0.95`` and so on if there are scores; ``mrr``, ``recall@5`` and ``recall`` of
        whole lists if it ranks all candidates; ``acc@1_in_dictionary``.
    """
    first = next(iter(systems))
    first_correct = systems[first].ranks == 0
    every = np.ones(len(first_correct), bool)
    if in_dictionary is None:
        in_dictionary = every
    if composite is None:
        composite = ~every
    figures: dict[str, Measure] = {}
    for name, system in systems.items():
        rows = every if system.measured is None else system.measured
        compared_with = None if name == first else first_correct[rows]
        system_figures = _system_figures(
            system.take(rows),
            documents.take(rows),
            in_dictionary[rows],
            composite[rows],
            compared_with,
        )
        figures |= {f"systems/{name}/{key}": figure for key, figure in system_figures.items()}
    return figures


def _system_figures(
    system: System,
    documents: Documents,
    in_dictionary: np.ndarray,
    composite: np.ndarray,
    first_correct: np.ndarray | None,
) -> dict[str, Measure]:
    """Figures of a system on n mentions, as `compare_systems` names them.

    Args:
        system: its answers.
        documents: documents of the mentions.
        in_dictionary: (n,) bool, whether the gold concept is in the dictionary.
        composite: (n,) bool, whether the mention names several concepts.
        first_correct: (n,) bool, whether the first system is correct; None: it is this one.
    """
    correct = system.ranks == 0
    every = np.ones(len(correct), bool)
    figures = {"acc@1": documents.measure([correct, every])}
    if composite.any():
        figures["acc@1_strict"] = documents.measure([correct & ~composite, every])
    if first_correct is not None:
        columns = [correct.astype(np.int64) - first_correct, every]
        figures["gain"] = documents.measure(columns, is_share=False)
    if system.accepted is not None:
        answered = system.accepted
        figures |= {
            "accepted_coverage": documents.measure([answered, every]),
            "accepted_precision": documents.measure([answered & correct, answered]),
        }
    if system.score is not None and not np.isnan(system.score).all():
        figures["top1_ece"] = _top_ece(system.score, correct, documents)
        figures |= {
            f"coverage_at_{p:.2f}": coverage_at_precision(system.score, correct, p, documents)
            for p in COVERAGE_PRECISIONS
        }
    if system.is_ranking:
        has_gold = system.ranks >= 0
        reciprocal = np.where(has_gold, 1.0 / (np.maximum(system.ranks, 0) + 1.0), 0.0)
        figures |= {
            "mrr": documents.measure([reciprocal, every]),
            "recall@5": documents.measure([has_gold & (system.ranks < 5), every]),
            "recall": documents.measure([has_gold, every]),
        }
    figures["acc@1_in_dictionary"] = documents.measure([correct & in_dictionary, in_dictionary])
    return figures


def _top_ece(score: np.ndarray, correct: np.ndarray, documents: Documents) -> Measure:
    """ECE of top candidates, NaN in `score` without candidates; one document has no interval."""
    has_score = ~np.isnan(score)
    report = documents.take(has_score).calibration(score[has_score], correct[has_score])
    figure = report["ece"] | {"n": int(has_score.sum())}
    if documents.count < 2:
        figure |= {"low": np.nan, "high": np.nan}
    return figure
