"""The report of a model on labelled lists: ``metrics.json``, and the outcome of each mention.

Systems stand side by side on the same lists: is one better than the original order of the lists?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..calibration.calibrated_model import with_lowest_logit
from ..calibration.calibration import Calibration
from ..calibration.decisions import Decisions
from ..calibration.logistic import sigmoid
from ..calibration.ranking import rank, rank_scored
from ..calibration.reliability import document_sums, equal_width, ratio
from ..core.arrays import best_candidates, lists_with_any
from ..lists.candidate_lists import AnnotatedLists
from ..lists.labels import are_repeated, best_of_each_concept
from ..models.cross_encoder import PairScorer, Scores, score_lists
from ..models.pairs import PairTemplate
from .comparison import FEWEST_DOCUMENTS
from .metrics import (
    COVERAGE_PRECISIONS,
    SCHEMA_VERSION,
    Documents,
    Measure,
    Outcomes,
    coverage_at_precision,
    gold_ranks,
    measure_figures,
    measure_slices,
    mention_slices,
    roc_auc,
    top_calibration,
    worst_groups,
)
from .render import (
    BINS,
    histogram,
    interval,
    reliability_points,
    risk_coverage,
    title_of,
    with_ends,
)

MODEL = "reranker"
# Most lists of which the cross-encoder scores all candidates, to tell what it is without the fusion
# and what pruning changes; with more of them the figures would be hardly more exact.
WHOLE_LISTS = 2_000
# Two systems are about equal if telling them apart takes over this many times the mentions.
MOST_TIMES_MENTIONS = 20
# Of names of the model's figures among those of all systems.
PREFIX = f"systems/{MODEL}/"


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


def measure_model(  # noqa: PLR0913 (a model, its lists, and what stands beside it)
    cross_encoder: PairScorer | None,
    calibration: Calibration,
    lists: AnnotatedLists,
    systems: Mapping[str, System],
    documents: Documents,
    split: str,
    counted: Iterable[tuple[str, str]] = (),
    *,
    whole_lists: int = WHOLE_LISTS,
) -> tuple[dict[str, Any], Outcomes]:
    """Score the lists and measure the answers. Nothing is fitted to them.

    Lists are pruned as they are served. What only whole lists tell, the cross-encoder alone, its
    raw calibration and what pruning changes, is measured on lists drawn at random.

    Several candidates of one concept count as one, the top one.

    Args:
        cross_encoder: that of the model; None without one.
        calibration: calibration of the model.
        lists: n labelled lists; gold concepts are not added.
        systems: further systems for the same mentions, the order of the lists first.
        documents: documents of the mentions.
        split: name of the lists in reports.
        counted: text and gold CUI of the mentions that the model counts, for the subsets seen and
            unseen.
        whole_lists: the most lists of which the cross-encoder scores all candidates.

    Returns:
        The content of ``metrics.json``, and the outcomes.
    """
    template = cross_encoder.template if cross_encoder else PairTemplate()
    score = partial(score_lists, cross_encoder, desc=f"scoring {split} candidates")
    score_and_decide = partial(
        rank, score=score, calibration=calibration, cross_encoder_inputs=template.reads
    )
    lists = lists.with_whole_scores(calibration.lowest)
    candidates = len(lists.owner)
    drawn = np.random.default_rng(0).permutation(len(lists)) < whole_lists
    # Which candidate of a concept counts is known only when all of them have a score.
    whole = drawn | lists_with_any(are_repeated(lists.concepts), lists.offsets)
    first_pass = _decide_in_parts(lists, whole, score_and_decide)
    best = best_of_each_concept(lists, first_pass.log_odds)
    lists = lists.with_candidates(best)
    scores = Scores(first_pass.logits[best], first_pass.truncated)
    decide = partial(
        rank_scored,
        lists,
        scores,
        calibration,
        cross_encoder_inputs=template.reads,
    )
    decisions = decide()
    in_drawn = np.full(len(best), np.nan, np.float32)
    uses_cross_encoder = np.array([model.uses_cross_encoder for model in calibration.models], bool)
    if uses_cross_encoder[first_pass.models[drawn]].all():
        rows = drawn[lists.owner]
        # Alone, the cross-encoder ranks those that it cannot read last.
        in_drawn[rows] = with_lowest_logit(scores.logits[rows])
        systems = {**systems, **_parts_of_model(lists, in_drawn, decisions, drawn)}
    metrics, outcomes = measure(lists, decisions, in_drawn, systems, documents, split, counted)
    if "systems/cross_encoder/acc@1" in metrics["figures"]:
        unpruned = decide(exhaustive=True)
        metrics["figures"] |= _pruning_figures(decisions, unpruned, drawn)
    decided_by = Counter(calibration.models[number].name for number in decisions.models.tolist())
    has_candidates = np.diff(lists.offsets) > 0
    counts = {
        "repeated_candidates": candidates - len(best),
        "decided_by": dict(decided_by),
        "untiered": int((~decisions.has_tiers & has_candidates).sum()),
    }
    return metrics | counts, outcomes


class _FirstPass(NamedTuple):
    """Scores of the m candidates of n lists, before those of one concept count as one.

    Attributes:
        logits: (m,) logits of the cross-encoder, NaN where it was not asked.
        log_odds: (m,) calibrated log odds.
        models: (n,) index of the model that decided.
        truncated: number of truncated pairs.
    """

    logits: np.ndarray
    log_odds: np.ndarray
    models: np.ndarray
    truncated: int


def _decide_in_parts(
    lists: AnnotatedLists, whole: np.ndarray, decide: Callable[..., Decisions]
) -> _FirstPass:
    """Decide about n lists, of which those in `whole`, (n,) bool, are not pruned."""
    logits = np.full(len(lists.owner), np.nan, np.float32)
    log_odds = np.full(len(lists.owner), np.nan)
    models = np.zeros(len(lists), np.int64)
    truncated = 0
    for mentions, exhaustive in ((whole, True), (~whole, False)):
        part = decide(lists.take(mentions), exhaustive=exhaustive)
        rows = mentions[lists.owner]
        logits[rows] = part.scores.logits
        log_odds[rows] = part.scores.log_odds
        models[mentions] = part.models
        truncated += part.truncated
    return _FirstPass(logits, log_odds, models, truncated)


def _pruning_figures(
    decisions: Decisions, unpruned: Decisions, drawn: np.ndarray
) -> dict[str, Measure]:
    """What pruning saves, and how often it leaves the answer of the drawn lists, (n,) bool."""
    scored_share = float(decisions.scored.sum() / max(1, len(decisions.probabilities)))
    is_same = decisions.tops.positions == unpruned.tops.positions
    return {
        "scored_share": {"value": scored_share, "n": len(drawn)},
        "same_top_candidate": {"value": float(is_same[drawn].mean()), "n": int(drawn.sum())},
    }


def measure(
    lists: AnnotatedLists,
    decisions: Decisions,
    logits: np.ndarray,
    systems: Mapping[str, System],
    documents: Documents,
    split: str,
    counted: Iterable[tuple[str, str]] = (),
) -> tuple[dict[str, Any], Outcomes]:
    """Measure what needs only lists and decisions.

    Args:
        lists: n lists with m candidates.
        decisions: decisions about them.
        logits: (m,) logits of the cross-encoder; lists with any NaN tell nothing about it.
        systems: name -> answers of other systems, the order of the lists first.
        documents: documents of the mentions.
        split: name of the lists.
        counted: as for `measure_model`.

    Returns:
        The content of ``metrics.json``: counts; ``figures``; ``rows``, table -> row -> label; and
        ``curves``. And the outcomes.
    """
    outcomes = Outcomes.of(lists, decisions)
    systems = {**systems, MODEL: System.of(outcomes)}
    compared = compare_systems(systems, documents, outcomes.in_dictionary, outcomes.composite)
    slices = mention_slices(outcomes, lists.mentions, lists.hierarchy, counted)
    sliced, rows = measure_slices(outcomes, documents, slices)
    figures = {
        key.removeprefix(PREFIX): figure
        for key, figure in compared.items()
        if key.startswith(PREFIX)
    }
    figures |= measure_figures(outcomes, documents)
    probabilities = decisions.probabilities
    figures |= _pair_figures(probabilities, lists, documents)
    whole = _whole_lists(lists, logits)
    points = {"calibrated": reliability_points(probabilities, lists.labels)}
    if whole.any():
        whole_lists = lists.take(whole)
        pairs = whole[lists.owner]
        raw = sigmoid(logits[pairs])
        of_whole = documents.take(whole)
        figures |= _raw_figures(raw, probabilities[pairs], whole_lists, of_whole)
        points = {"raw": reliability_points(raw, whole_lists.labels)} | points
    figures |= {
        f"top1_{name}": figure for name, figure in top_calibration(outcomes, documents).items()
    }
    figures |= worst_groups(sliced, rows.get("groups", {})) | compared | sliced
    metrics = {
        "schema_version": SCHEMA_VERSION,
        "split": split,
        "mentions": len(outcomes),
        "documents": documents.count,
        "candidates": len(lists.labels),
        "out_of_dictionary": int((~outcomes.in_dictionary).sum()),
        "not_in_list": lists.not_in_list,
        "truncated_pairs": decisions.truncated,
        "figures": figures,
        "rows": {"systems": {name: title_of(name) for name in systems}} | rows,
        "curves": _curves(outcomes, points, systems),
    }
    return metrics, outcomes


def _whole_lists(lists: AnnotatedLists, logits: np.ndarray) -> np.ndarray:
    """The lists of which all candidates have a logit, (n,) bool; none if there is no candidate."""
    has_all: np.ndarray = ~lists_with_any(np.isnan(logits), lists.offsets)
    return has_all & bool((~np.isnan(logits)).any())


def _parts_of_model(
    lists: AnnotatedLists, logits: np.ndarray, decisions: Decisions, whole: np.ndarray
) -> dict[str, System]:
    """The list fusion, and the cross-encoder alone on the lists that it scored whole, (n,) bool."""
    ranks = gold_ranks(np.nan_to_num(logits), lists.offsets, lists.correct)
    measured = None if whole.all() else whole
    alone = {"cross_encoder": System(ranks, measured=measured)}
    list_utilities = decisions.scores.list_utilities
    if np.isnan(list_utilities).any():
        return alone
    top = best_candidates(list_utilities, lists.offsets)
    score = np.where(top >= 0, sigmoid(list_utilities[top]), np.nan)
    ranks = gold_ranks(list_utilities, lists.offsets, lists.correct)
    return {"list_fusion": System(ranks, score), **alone}


def _pair_figures(
    probabilities: np.ndarray, lists: AnnotatedLists, documents: Documents
) -> dict[str, Measure]:
    """ROC-AUC and calibration of the m pairs of n lists, by calibrated probabilities, (m,)."""
    figures: dict[str, Measure] = {
        "candidate_roc_auc": {"value": roc_auc(probabilities, lists.labels)}
    }
    figures |= documents.take(lists.owner).calibration(probabilities, lists.labels)
    return _over_pairs(figures, lists)


def _raw_figures(
    raw: np.ndarray, calibrated: np.ndarray, lists: AnnotatedLists, documents: Documents
) -> dict[str, Measure]:
    """Calibration of the m pairs of n lists before calibration, in names that end in ``_raw``.

    Args:
        raw: (m,) probabilities by the cross-encoder alone.
        calibrated: (m,) those of the model, which ``ece_reduction`` compares them with.
        lists: the lists.
        documents: documents of the mentions.
    """
    labels = lists.labels
    of_pairs = documents.take(lists.owner)
    figures = {f"{name}_raw": each for name, each in of_pairs.calibration(raw, labels).items()}
    gaps = []
    for p in (raw, calibrated):
        bins = equal_width(p, BINS)
        gaps.append(document_sums(of_pairs.index, of_pairs.count, [p - labels], bins, BINS)[:, 0])
    figures["ece_reduction"] = of_pairs.interval(
        np.concatenate(gaps, axis=1), _ece_reduction, is_share=False
    )
    return _over_pairs(figures, lists)


def _over_pairs(figures: Mapping[str, Measure], lists: AnnotatedLists) -> dict[str, Measure]:
    """The figures with the pairs that they are over."""
    over = {"n": len(lists), "population": f"mentions with {len(lists.labels):,} candidates"}
    return {name: figure | over for name, figure in figures.items()}


def _ece_reduction(gaps: np.ndarray) -> np.ndarray:
    """1 - ECE after / ECE before of (..., 2 * BINS), the pairs of a document drawn together."""
    before = np.abs(gaps[..., :BINS]).sum(axis=-1)
    return 1.0 - np.abs(gaps[..., BINS:]).sum(axis=-1) / np.where(before > 0, before, np.nan)


def _curves(
    outcomes: Outcomes, points: Mapping[str, Any], systems: Mapping[str, System]
) -> dict[str, Any]:
    """The points of all charts; `points` are those of pairs."""
    top = outcomes.select(outcomes.has_candidates)
    risk_curves = {}
    for name in (MODEL, "calibrated_scores"):
        system = systems.get(name)
        if system is not None and system.score is not None:
            risk_curves[name] = risk_coverage(system.score, system.ranks == 0)
    return {
        "reliability": {
            **points,
            "top1": reliability_points(top.score, top.correct),
        },
        "risk_coverage": risk_curves,
        "score": histogram(outcomes.score, outcomes.correct),
        "margin": histogram(outcomes.margin, outcomes.correct),
    }


def at_same_coverage(outcomes: Outcomes, system: System, documents: Documents) -> Measure:
    """How much more precise the model's surest answers are than as many answers of a system.

    Returns:
        The difference; and the precision of both, ``model`` and ``system``, and ``coverage``.
    """
    assert system.accepted is not None
    surest = np.zeros(len(outcomes), bool)
    surest[np.argsort(-outcomes.score_or_0, kind="stable")[: system.accepted.sum()]] = True
    right = (system.ranks == 0) & system.accepted
    columns = [surest & outcomes.correct, surest, right, system.accepted]
    difference = documents.measure(columns, _difference_of_ratios, is_share=False)
    return difference | {
        "model": float(outcomes.correct[surest].mean()),
        "system": float(right[system.accepted].mean()),
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
    several = ~every if composite is None else composite
    figures: dict[str, Measure] = {}
    for name, system in systems.items():
        rows = every if system.measured is None else system.measured
        compared_with = None if name == first else first_correct[rows]
        system_figures = _system_figures(
            system.take(rows),
            documents.take(rows),
            in_dictionary[rows],
            several[rows],
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


def verdict_on_gain(gain: Measure, mentions: int, documents: int) -> str:
    """In one line, whether a system is better than the order of the lists.

    Args:
        gain: its ``gain`` of `compare_systems`.
        mentions: number of mentions that it was measured on.
        documents: number of their documents.

    Returns:
        "gain" or "loss" if the interval of the difference excludes 0 and there are at least
        `FEWEST_DOCUMENTS`; else "inconclusive", with about how many mentions more would make the
        interval around this difference exclude 0.
    """
    value = gain["value"]
    ends = interval(gain, separator=" to ")
    direction = "over" if value >= 0 else "against"
    points = f"{100 * value:+.1f} points {direction} the original order"
    difference = with_ends(points, ends)
    if documents < FEWEST_DOCUMENTS:
        return (
            f"inconclusive: {difference}; {documents} documents are too few, "
            f"label at least {FEWEST_DOCUMENTS}"
        )
    if gain["low"] > 0 or gain["high"] < 0:
        outcome = "gain" if value > 0 else "loss"
        return f"{outcome}: {difference}"
    # The interval shrinks with the square root of the mentions; one that just touches 0 may do so
    # because it is skewed.
    toward_0 = value - gain["low"] if value > 0 else gain["high"] - value
    reach = max(toward_0, (gain["high"] - gain["low"]) / 2)
    times_more = (reach / value) ** 2 - 1.0 if value else np.inf
    if times_more > MOST_TIMES_MENTIONS:
        return f"inconclusive: {difference}; the two are about equal on lists like these"
    more = float(f"{max(times_more * mentions, mentions / documents, 1.0):.2g}")
    return f"inconclusive: {difference}; label about {more:,.0f} more mentions"


def best_row(metrics: Mapping[str, Any]) -> str:
    """Which system has a higher acc@1 than this model, as the end of a verdict; "" if none has."""
    accuracy = {
        name: metrics["figures"][f"systems/{name}/acc@1"]["value"]
        for name in metrics["rows"]["systems"]
    }
    best = max(accuracy, key=lambda name: accuracy[name])
    if accuracy[best] <= accuracy[MODEL]:
        return ""
    values = f"{accuracy[best]:.1%}, here {accuracy[MODEL]:.1%}"
    return f"; the highest acc@1 is that of {metrics['rows']['systems'][best]}: {values}"


def _top_ece(score: np.ndarray, correct: np.ndarray, documents: Documents) -> Measure:
    """ECE of top candidates, NaN in `score` without candidates; one document has no interval."""
    has_score = ~np.isnan(score)
    report = documents.take(has_score).calibration(score[has_score], correct[has_score])
    figure = report["ece"] | {"n": int(has_score.sum())}
    if documents.count < 2:
        figure |= {"low": np.nan, "high": np.nan}
    return figure
