"""The content of ``metrics.json``: pairs, linking with baselines, calibration, tiers, slices, and losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..calibration.decisions import Decisions
from ..calibration.logistic import sigmoid
from ..calibration.reliability import calibration_report, equal_width
from ..calibration.resampling import document_sums
from ..core.progress import progress
from ..data.candidate_lists import AnnotatedLists, CandidateLists
from ..data.normalization import normalize_name
from ..models.cross_encoder import PairScorer
from .answers import Answers
from .baselines import answer_ranks, baseline_answers
from .charts import BINS, histogram, reliability_points, risk_coverage
from .figures import (
    SCHEMA_VERSION,
    answering_metrics,
    group_slices,
    measure_figures,
    slice_figures,
    type_slices,
)
from .inputs import incorrect_type_figures
from .linking import Documents, coverage_at_precision, gold_ranks, linking_metrics, tier_metrics
from .list_systems import System
from .outcomes import Outcomes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset

    from ..data.concepts import ConceptTable

COVERAGE_PRECISIONS = (0.95, 0.90)


def build_report(
    answers: Answers,
    pairs: Dataset,
    known_mentions: Dataset,
    calibration_mentions: Dataset,
    concepts: ConceptTable,
) -> dict[str, Any]:
    """All figures of a run's split.

    Args:
        answers: answers of the model, which has a network.
        pairs: mined pairs of the split, for the pair metrics that training also reports.
        known_mentions: mentions of the training and calibration splits, which the model counts; for the
            string-frequency baseline and the subsets seen and unseen.
        calibration_mentions: mentions from whose types incorrect types are drawn.
        concepts: dictionary for the exact-match baseline.

    Returns:
        The content of ``metrics.json``.
    """
    assert answers.scorer is not None  # a run trains a network
    lists, outcomes, documents, split = answers.lists, answers.outcomes, answers.documents, answers.split
    scorer, logits, seen_types = answers.scorer, answers.logits, calibration_mentions["semantic_types"][:]
    systems = model_systems(answers) | _baselines(lists, known_mentions, concepts)
    sections: dict[str, Callable[[], Any]] = {
        "pair": lambda: _mined_pairs(scorer, pairs, lists, logits, documents, split),
        "subsets": lambda: _subsets(outcomes, lists, systems, known_mentions, documents, split),
        "answering": lambda: answering_metrics(outcomes, documents),
        "incorrect_types": lambda: incorrect_type_figures(answers, seen_types),
    }
    return measured_report(answers, systems, sections) | {
        "in_dictionary": int(outcomes.in_dictionary.sum()),
        "losses": {
            "out_of_dictionary": int((~outcomes.in_dictionary).sum()),
            "not_retrieved": int((outcomes.in_dictionary & (lists.annotations.gold < 0)).sum()),
            "truncated_pairs": answers.decided.truncated,
        },
    }


def model_systems(answers: Answers) -> dict[str, System]:
    """The model, its parts, and the original order of the candidates, in the order of tables."""
    lists, outcomes = answers.lists, answers.outcomes
    gold = lists.annotations.gold
    systems = {"reranker": System(outcomes.rank, outcomes.score)}
    without = answers.plan.without_cross_encoder
    if without is not None:
        systems["features_without_cross_encoder"] = System(gold_ranks(without, lists.offsets, gold))
    systems |= _base_systems(lists, answers.logits, outcomes)
    return systems | {"retriever": System(gold, _retriever_score(lists))}


def measured_report(
    answers: Answers, systems: Mapping[str, System], sections: Mapping[str, Callable[[], Any]]
) -> dict[str, Any]:
    """Figures of any annotated lists, and further sections by name, with a progress bar."""
    # Its libraries import torch, which an evaluation of lists alone does not need.
    from .pair_metrics import pair_report

    lists, outcomes, documents, split = answers.lists, answers.outcomes, answers.documents, answers.split
    thresholds = answers.calibration.thresholds
    of_any_lists: dict[str, Callable[[], Any]] = {
        "candidate_pair": lambda: pair_report(
            answers.decided.probabilities,
            lists.labels,
            documents.take(lists.owner),
            thresholds.for_type().accept,
            f"{len(lists.labels):,} candidates of {split} mentions, default threshold",
        ),
        "gain_over_retriever": lambda: _gain(outcomes, lists.annotations.gold == 0, documents),
        "coverage": lambda: {
            name: {f"{p:.2f}": coverage_at_precision(*scored, p, documents) for p in COVERAGE_PRECISIONS}
            for name, scored in _scored_answers(systems).items()
        },
        "groups": lambda: group_slices(outcomes, documents, thresholds.hierarchy, split),
        "types": lambda: type_slices(outcomes, documents, thresholds.hierarchy, split),
        **({"scored": lambda: _scored(answers)} if answers.has_network else {}),
    }
    parts = of_any_lists | dict(sections)
    with progress(total=1 + len(parts), desc="measuring", unit=" parts") as bar:
        report = decided_figures(lists, answers.decided, answers.logits, outcomes, documents, split, systems)
        bar.update()
        for name, measured in parts.items():
            report[name] = measured()
            bar.update()
    return report


def decided_figures(
    lists: AnnotatedLists,
    decided: Decisions,
    logits: np.ndarray,
    outcomes: Outcomes,
    documents: Documents,
    split: str,
    systems: Mapping[str, System] | None = None,
) -> dict[str, Any]:
    """The figures of a report that need only lists and decisions.

    Args:
        lists: the lists.
        decided: decisions about them.
        logits: (m,) logits of the cross-encoder for all candidates; NaN for a model that uses none, so that nothing is
            reported about it.
        outcomes: outcomes of the decisions.
        documents: documents of the mentions.
        split: name of the lists.
        systems: name -> answers; None: reranker, cross-encoder, and the original order of the candidates.
    """
    systems = systems or _base_systems(lists, logits, outcomes)
    calibrated, labels = decided.probabilities, lists.labels
    raw = None if np.isnan(logits).any() else sigmoid(logits)
    of_pairs = documents.take(lists.owner)
    pairs = {"calibrated": calibrated} if raw is None else {"raw": raw, "calibrated": calibrated}
    top = outcomes.select(outcomes.has_candidates)
    ks = sorted({5, int(np.diff(lists.offsets).max(initial=1))})
    return {
        "schema_version": SCHEMA_VERSION,
        "split": split,
        "mentions": len(outcomes),
        "documents": documents.count,
        "candidates": len(labels),
        "linking": {
            name: linking_metrics(system.ranks, outcomes.in_dictionary, documents, ks=ks, answered=system.answered)
            for name, system in systems.items()
        },
        "calibration": _calibration(raw, calibrated, labels, of_pairs, top),
        "tiers": tier_metrics(outcomes.tier, outcomes.correct, documents),
        "serving": measure_figures("serving", outcomes, documents, split),
        "curves": {
            "reliability": {
                **{name: reliability_points(p, labels, of_pairs.index) for name, p in pairs.items()},
                "top1": reliability_points(top.score, top.correct, top.document),
            },
            "risk_coverage": {name: risk_coverage(*answers) for name, answers in _scored_answers(systems).items()},
            "score": histogram(outcomes.score, outcomes.correct),
            "margin": histogram(outcomes.margin, outcomes.correct),
        },
    }


def _scored_answers(systems: Mapping[str, System]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Score and correctness, (n,) each, of the answers of systems with scores."""
    return {name: (system.score, system.ranks == 0) for name, system in systems.items() if system.score is not None}


def _base_systems(lists: AnnotatedLists, logits: np.ndarray, outcomes: Outcomes) -> dict[str, System]:
    gold = lists.annotations.gold
    systems = {"reranker": System(outcomes.rank, outcomes.score)}
    if not np.isnan(logits).any():
        systems["cross_encoder"] = System(gold_ranks(logits, lists.offsets, gold))
    return systems | {"retriever": System(gold)}


def _retriever_score(lists: AnnotatedLists) -> np.ndarray | None:
    """The first retriever's score of each mention's first candidate, (n,); None if the lists have no scores."""
    if not lists.scores:
        return None
    has_candidates = np.diff(lists.offsets) > 0
    score = np.full(len(lists), np.nan)
    score[has_candidates] = next(iter(lists.scores.values()))[lists.offsets[:-1][has_candidates]]
    return score


def _baselines(lists: AnnotatedLists, known_mentions: Dataset, concepts: ConceptTable) -> dict[str, System]:
    """Systems with one answer or none."""
    cuis = [cui for cui in lists.cuis.texts if cui]
    rows = dict(zip(cuis, concepts.rows(cuis).tolist(), strict=True))
    known = zip(known_mentions["mention"][:], known_mentions["cui"][:], strict=True)
    systems = {}
    for name, answers in baseline_answers(lists, lambda cui: concepts.names(rows.get(cui, -1)), known).items():
        ranks, answered = answer_ranks(answers, lists.annotations.cuis)
        systems[name] = System(ranks, answered=answered)
    return systems


def _scored(answers: Answers) -> dict[str, Any]:
    """Number of candidates that the cross-encoder scores, and what pruning changes compared with scoring all."""
    pruned, exhaustive = answers.decided, answers.exhaustive
    outcomes = {"pruned": answers.outcomes, "exhaustive": Outcomes.of(answers.lists, exhaustive)}
    return {
        "candidates": int(pruned.scored.sum()),
        "share": float(pruned.scored.sum() / max(1, len(pruned.logits))),
        "same_top_candidate": float((pruned.top == exhaustive.top).mean()),
        "acc@1": {name: float(of_all.correct.mean()) for name, of_all in outcomes.items()},
        "high_share": {name: float((of_all.tier == "high").mean()) for name, of_all in outcomes.items()},
    }


def _mined_pairs(
    scorer: PairScorer,
    pairs: Dataset,
    lists: CandidateLists,
    logits: np.ndarray,
    documents: Documents,
    split: str,
) -> dict[str, dict[str, Any]]:
    from .pair_metrics import pair_report

    columns = [pairs[name][:] for name in ("mention", "name", "left", "right")]
    mined = pair_logits(scorer, columns, lists, logits, f"scoring mined {split} pairs")
    numbers = pairs.with_format("numpy")
    labels = numbers["label"][:].astype(np.int64)
    population = f"{len(labels):,} mined {split} pairs, raw probability >= 0.5"
    return pair_report(sigmoid(mined), labels, documents.take(numbers["mention_id"][:]), 0.5, population)


def pair_logits(
    scorer: PairScorer, pairs: Sequence[Sequence[str]], lists: CandidateLists, logits: np.ndarray, title: str
) -> np.ndarray:
    """Logits of p pairs, (p,); only those that are not candidates of the lists are scored.

    Args:
        scorer: the scorer.
        pairs: mentions, names, lefts and rights of the pairs, p each, as the scorer reads them.
        lists: the lists.
        logits: (m,) logits of the lists' candidates, NaN if not scored.
        title: title of a progress bar.
    """
    texts, names = scorer.template.mention_texts(lists), scorer.template.candidate_texts(lists)
    known = {
        (texts[row], name, lists.lefts[row], lists.rights[row]): logit
        for row, name, logit in zip(lists.owner.tolist(), names, logits.tolist(), strict=True)
        if logit == logit
    }
    keys = list(zip(*pairs, strict=True))
    new = [key for key in dict.fromkeys(keys) if key not in known]
    if new:
        mentions, candidates, lefts, rights = map(list, zip(*new, strict=True))
        known |= zip(new, scorer.score(mentions, candidates, lefts, rights, title).logits.tolist(), strict=True)
    return np.array([known[key] for key in keys], np.float32)


def _subsets(
    outcomes: Outcomes,
    lists: AnnotatedLists,
    systems: Mapping[str, System],
    known_mentions: Dataset,
    documents: Documents,
    split: str,
) -> dict[str, dict[str, Any]]:
    """acc@1 of every system over in-dictionary mentions, by whether string and concept are known.

    Under ``figures``, those of the reranker over all mentions of the subset (`slice_figures`).
    """
    strings = {normalize_name(text) for text in known_mentions["mention"][:]}
    cuis = set(known_mentions["cui"][:])
    seen_string = np.array([normalize_name(text) in strings for text in lists.mentions])
    seen_cui = np.array([cui in cuis for cui in outcomes.gold])
    subsets = {
        "seen_string": seen_string,
        "unseen_string": ~seen_string,
        "seen_cui": seen_cui,
        "unseen_cui": ~seen_cui,
    }
    report = {}
    for name, subset in subsets.items():
        known = subset & outcomes.in_dictionary
        accuracy = {
            system: float((answers.ranks[known] == 0).mean()) if known.any() else None
            for system, answers in systems.items()
        }
        report[name] = {
            "mentions": int(known.sum()),
            "acc@1": accuracy,
            "figures": slice_figures(outcomes.select(subset), documents.take(subset), split) if subset.any() else None,
        }
    return report


def _calibration(
    raw: np.ndarray | None, calibrated: np.ndarray, labels: np.ndarray, documents: Documents, top: Outcomes
) -> dict[str, dict[str, float]]:
    """Calibration of m pairs before (if there is a cross-encoder) and after, and of top candidates."""
    options = {"resamples": documents.resamples, "seed": documents.seed}
    report = {}
    if raw is not None:
        before = calibration_report(raw, labels, documents.index, **options)
        report = {f"{name}_raw": figure for name, figure in before.items()}
    report |= calibration_report(calibrated, labels, documents.index, **options)
    of_top = calibration_report(top.score, top.correct, top.document, **options)
    report |= {f"top1_{name}": figure for name, figure in of_top.items()}
    if raw is not None:
        report["ece_reduction"] = _ece_reduction(raw, calibrated, labels, documents)
    return report


def _ece_reduction(
    raw: np.ndarray, calibrated: np.ndarray, labels: np.ndarray, documents: Documents
) -> dict[str, float]:
    """1 - ECE after / ECE before, over 15 equal-width bins, the pairs of a document drawn together."""
    gaps = []
    for p in (raw, calibrated):
        cell = equal_width(p, BINS)
        gaps.append(document_sums(documents.index, documents.count, [p - labels], cell, BINS)[:, 0])

    def reduction(sums: np.ndarray) -> np.ndarray:
        before, after = np.abs(sums[..., :BINS]).sum(axis=-1), np.abs(sums[..., BINS:]).sum(axis=-1)
        return 1.0 - after / np.where(before > 0, before, np.nan)

    return documents.interval(np.concatenate(gaps, axis=1), reduction)


def _gain(outcomes: Outcomes, is_retrieved_first: np.ndarray, documents: Documents) -> dict[str, float]:
    """acc@1 minus that of the retriever, over in-dictionary mentions."""
    known = outcomes.in_dictionary
    gain = (outcomes.correct.astype(np.int64) - is_retrieved_first) * known
    return documents.measure([gain, known])
