"""Evaluation of a model on labelled lists: the content of ``metrics.json``, and the outcome of each mention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..calibration.decisions import Decisions, rank
from ..calibration.logistic import sigmoid
from ..calibration.reliability import calibration_report, equal_width
from ..calibration.resampling import document_sums
from ..core.arrays import best_candidates
from ..lists.candidate_lists import AnnotatedLists, CandidateLists
from ..lists.labels import best_of_each_concept
from ..models.cross_encoder import PairScorer, Scores, score_lists
from ..models.pairs import PairTemplate
from ..vocab.types import TypeHierarchy
from .linking import Documents, Measure, gold_ranks, roc_auc
from .metrics import SCHEMA_VERSION, measure_figures, measure_slices, mention_slices, slice_figures, worst_groups
from .outcomes import Outcomes
from .page import BINS, histogram, reliability_points, risk_coverage
from .render import title_of
from .systems import MODEL, System, compare_systems

if TYPE_CHECKING:
    from ..calibration.probabilities import Calibration

# Shares of typed mentions that are given an incorrect type.
INCORRECT_TYPES = (0.05, 0.1, 0.2)


def evaluate(
    cross_encoder: PairScorer | None,
    calibration: Calibration,
    lists: AnnotatedLists,
    systems: Mapping[str, System],
    split: str,
    *,
    known: Iterable[tuple[str, str]] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, Any], Outcomes]:
    """Score the lists and measure the answers. Nothing is fitted to them.

    Several candidates of one concept count as one, the top one.

    Args:
        cross_encoder: that of the model; None without one.
        calibration: calibration of the model.
        lists: n labelled lists; gold concepts are not added.
        systems: further systems for the same mentions, the order of the lists first.
        split: their name in reports.
        known: text and gold CUI of the mentions that the model counts, for the subsets seen and unseen.
        resamples: number of resamples of documents, for intervals.
        seed: their seed.

    Returns:
        The content of ``metrics.json``, and the outcomes.
    """
    reads = (PairTemplate() if cross_encoder is None else cross_encoder.template).reads

    def decide(lists: CandidateLists, scores: Scores | Callable[..., Scores], exhaustive: bool = False) -> Decisions:
        return rank(lists, scores, calibration, cross_encoder_inputs=reads, exhaustive=exhaustive)

    def score(lists: CandidateLists, retained: np.ndarray) -> Scores:
        return score_lists(cross_encoder, lists, f"scoring {split} candidates", retained)

    lists = lists.with_whole_scores(calibration.lowest)
    exhaustive = decide(lists, score, exhaustive=True)
    truncated, best = exhaustive.truncated, best_of_each_concept(lists, exhaustive.log_odds)
    repeated = len(lists.owner) - len(best)
    lists, logits = lists.with_candidates(best), exhaustive.logits[best]
    decided = decide(lists, Scores(logits, truncated))
    outcomes, documents = Outcomes.of(lists, decided), Documents.of(lists.annotations.documents, resamples, seed)
    systems = {**systems, **_parts_of_model(lists, logits, decided.list_utilities), MODEL: System.of(outcomes)}
    metrics = measure(lists, decided, logits, systems, documents, split, calibration.thresholds.hierarchy, known)
    figures = metrics["figures"]
    if not np.isnan(logits).any():
        changed = decided.top == decide(lists, Scores(logits, 0), exhaustive=True).top
        figures["scored_share"] = {"value": float((decided.scored.sum()) / max(1, len(logits))), "n": len(lists)}
        figures["same_top_candidate"] = {"value": float(changed.mean()), "n": len(lists)}
    for share, changed_lists in with_incorrect_types(lists, seed).items():
        # A cross-encoder that reads types has to score the lists again.
        scores = score if cross_encoder and cross_encoder.template.mention_types else Scores(logits, 0)
        changed_outcomes = Outcomes.of(changed_lists, decide(changed_lists, scores))
        of_level = slice_figures(changed_outcomes, documents, outcomes.every)
        figures |= {f"incorrect_types/{share:.2f}/{name}": figure for name, figure in of_level.items()}
        metrics["rows"].setdefault("incorrect_types", {})[f"{share:.2f}"] = f"{share:.0%} of the mentions"
    names = Counter(calibration.models[number].name for number in decided.models.tolist())
    return metrics | {"repeated_candidates": repeated, "decided_by": dict(names)}, outcomes


def measure(
    lists: AnnotatedLists,
    decided: Decisions,
    logits: np.ndarray,
    systems: Mapping[str, System],
    documents: Documents,
    split: str,
    hierarchy: TypeHierarchy,
    known: Iterable[tuple[str, str]] = (),
) -> dict[str, Any]:
    """The content of ``metrics.json`` that needs only lists and decisions.

    Args:
        lists: n lists with m candidates.
        decided: decisions about them.
        logits: (m,) logits of the cross-encoder for all candidates; NaN for a model that uses none, so that nothing is
            reported about it.
        systems: name -> answers, the order of the lists first and the model, ``reranker``, last.
        documents: documents of the mentions.
        split: name of the lists.
        hierarchy: the types' hierarchy.
        known: as for `evaluate`.

    Returns:
        Counts; ``figures``; ``rows``, table -> row -> label; and ``curves``.
    """
    outcomes, labels = Outcomes.of(lists, decided), lists.labels
    top, of_pairs = outcomes.select(outcomes.has_candidates), documents.take(lists.owner)
    compared = compare_systems(systems, documents, outcomes.in_dictionary, outcomes.composite)
    own = f"systems/{MODEL}/"
    figures = {key.removeprefix(own): figure for key, figure in compared.items() if key.startswith(own)}
    figures |= measure_figures(outcomes, documents)
    raw = None if np.isnan(logits).any() else sigmoid(logits)
    pairs = {"calibrated": decided.probabilities} if raw is None else {"raw": raw, "calibrated": decided.probabilities}
    over = {"n": len(outcomes), "population": f"mentions with {len(labels):,} candidates"}
    figures["candidate_roc_auc"] = {"value": roc_auc(decided.probabilities, labels)} | over
    figures |= {name: figure | over for name, figure in _calibration(pairs, labels, of_pairs).items()}
    of_top = calibration_report(
        top.score, top.correct, top.document, resamples=documents.resamples, seed=documents.seed
    )
    over_top = {"n": len(top), "population": "mentions with candidates"}
    figures |= {f"top1_{name}": figure | over_top for name, figure in of_top.items()}
    slices = mention_slices(outcomes, lists.mentions, hierarchy, known)
    of_slices, rows = measure_slices(outcomes, documents, slices)
    figures |= worst_groups(of_slices, rows.get("groups", {})) | compared | of_slices
    scored = {name: systems[name] for name in (MODEL, "calibrated_scores") if name in systems}
    return {
        "schema_version": SCHEMA_VERSION,
        "split": split,
        "mentions": len(outcomes),
        "documents": documents.count,
        "candidates": len(labels),
        "out_of_dictionary": int((~outcomes.in_dictionary).sum()),
        "not_in_list": int((lists.annotations.gold < 0).sum()),
        "truncated_pairs": decided.truncated,
        "figures": figures,
        "rows": {"systems": {name: title_of(name) for name in systems}} | rows,
        "curves": {
            "reliability": {
                **{name: reliability_points(p, labels, of_pairs.index) for name, p in pairs.items()},
                "top1": reliability_points(top.score, top.correct, top.document),
            },
            "risk_coverage": {
                name: risk_coverage(system.score, system.ranks == 0)
                for name, system in scored.items()
                if system.score is not None
            },
            "score": histogram(outcomes.score, outcomes.correct),
            "margin": histogram(outcomes.margin, outcomes.correct),
        },
    }


def _parts_of_model(lists: AnnotatedLists, logits: np.ndarray, list_utilities: np.ndarray) -> dict[str, System]:
    """The cross-encoder alone, and the list fusion."""
    if np.isnan(logits).any():
        return {}
    correct, systems = lists.correct, {}
    if not np.isnan(list_utilities).any():
        top = best_candidates(list_utilities, lists.offsets)
        score = np.where(top >= 0, sigmoid(list_utilities[top]), np.nan)
        systems["list_fusion"] = System(gold_ranks(list_utilities, lists.offsets, correct), score)
    return systems | {"cross_encoder": System(gold_ranks(logits, lists.offsets, correct))}


def _calibration(pairs: Mapping[str, np.ndarray], labels: np.ndarray, documents: Documents) -> dict[str, Measure]:
    """Calibration of m pairs after, and if there is a cross-encoder before; the former's names end in ``_raw``."""
    figures: dict[str, Measure] = {}
    options = {"resamples": documents.resamples, "seed": documents.seed}
    for kind, p in pairs.items():
        report = calibration_report(p, labels, documents.index, **options)
        figures |= {f"{name}_raw" if kind == "raw" else name: figure for name, figure in report.items()}
    if "raw" in pairs:
        # 1 - ECE after / ECE before, over 15 equal-width bins, the pairs of a document drawn together.
        gaps = [
            document_sums(documents.index, documents.count, [p - labels], equal_width(p, BINS), BINS)[:, 0]
            for p in pairs.values()
        ]

        def reduction(sums: np.ndarray) -> np.ndarray:
            before, after = np.abs(sums[..., :BINS]).sum(axis=-1), np.abs(sums[..., BINS:]).sum(axis=-1)
            return 1.0 - after / np.where(before > 0, before, np.nan)

        figures["ece_reduction"] = documents.interval(np.concatenate(gaps, axis=1), reduction)
    return figures


def with_incorrect_types(lists: AnnotatedLists, seed: int) -> dict[float, AnnotatedLists]:
    """The lists with incorrect types for a share of the typed mentions, as a pipeline predicts them.

    An incorrect type is one that contradicts the mention's, drawn from the types of its candidates as annotators would
    name them (the nearest broader type that any mention has), or if there is none by frequency.

    Returns:
        Share -> lists; a mention whose type is incorrect at one share has the same one at the next. Empty where no
        mention has a type.
    """
    rng, hierarchy = np.random.default_rng(seed), lists.hierarchy
    annotated = [tuple(filter(None, map(hierarchy.resolve, names))) for names in lists.types]
    frequency = Counter(node for nodes in annotated for node in nodes)

    @cache
    def as_annotated(type_id: str) -> str | None:
        return next((broader for broader in hierarchy.chain(type_id) if broader in frequency), None)

    @cache
    def contradicts(type_id: str, nodes: tuple[str, ...]) -> bool:
        return not hierarchy.agree([type_id], nodes)

    incorrect: dict[int, tuple[str, ...]] = {}
    for row, nodes in enumerate(annotated):
        candidates = range(lists.offsets[row], lists.offsets[row + 1])
        listed = Counter(
            kind for item in candidates for kind in map(as_annotated, lists.candidate_types[item]) if kind
        )
        for counts in (listed, frequency) if nodes else ():
            chances = {kind: count for kind, count in counts.items() if contradicts(kind, nodes)}
            if chances:
                p = np.array(list(chances.values())) / sum(chances.values())
                incorrect[row] = (list(chances)[rng.choice(len(chances), p=p)],)
                break
    order, changed = rng.permutation(list(incorrect)).tolist(), {}
    for share in INCORRECT_TYPES if incorrect else ():
        replaced = set(order[: round(share * len(order))])
        types = [incorrect[row] if row in replaced else tuple(names) for row, names in enumerate(lists.types)]
        changed[share] = lists.with_types(types)
    return changed
