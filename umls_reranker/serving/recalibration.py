"""Calibrate a reranker, or any cross-encoder, on labelled lists of another pipeline: no run, no training.

All reported figures are held out. "Before" is the original model. "After" is the same procedure fitted on four fifths
of the documents and measured on the last fifth, for each fifth in turn. The saved model is fitted on all documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration.certificate import NO_CERTIFICATES, CertificateHistory, note_on_certificate
from ..calibration.cross_validation import document_folds
from ..calibration.decisions import Decisions, rank
from ..calibration.fitting import fit_calibration
from ..calibration.inputs import inputs_of, lacking
from ..calibration.network_logits import NetworkLogits, Score, Unseen, logits_as_decided
from ..calibration.probabilities import Calibration
from ..calibration.string_counts import StringCounts
from ..core.arguments import CalibrationArguments
from ..core.arrays import ranking
from ..core.errors import UserError
from ..core.files import MODEL_PATTERNS, read_json, write_json, written
from ..core.recipe import Recipe, load_recipe, portable_locator
from ..core.retrievers import SCORES
from ..core.sockets import FEATURES
from ..data.candidate_lists import AnnotatedLists, CandidateLists
from ..data.labelled_lists import LabelledLists, best_of_each_concept
from ..data.semantic_types import TypeHierarchy
from ..evaluation.outcomes import Outcomes
from ..evaluation.page import card_charts
from ..evaluation.report import decided_figures
from ..hub.card import folder_card
from ..hub.download import download
from ..hub.model_folder import (
    CALIBRATOR,
    CARD,
    MANIFEST,
    METRICS,
    RECIPE,
    REFERENCE,
    RELIABILITY,
    RISK_COVERAGE,
    WEIGHTS,
    copy_network,
    loaded_parts,
    write_parts,
)
from ..models.cross_encoder import PairScorer, Scores, score_lists
from ..models.template import PairTemplate
from .monitoring.reference import Reference
from .reranker import UMLSReranker

__all__ = ["Recalibrated", "SourceModel", "before_and_after", "described", "recalibrate", "save_recalibrated"]

RESAMPLES = 1000
FIGURES: dict[str, Callable[[dict[str, Any]], float]] = {
    "ECE of candidates": lambda figures: figures["calibration"]["ece"]["value"],
    "ECE of first candidates": lambda figures: figures["calibration"]["top1_ece"]["value"],
    "right first candidates (acc@1)": lambda figures: figures["linking"]["reranker"]["acc@1"]["value"],
    "share in the tier high": lambda figures: figures["tiers"]["high"]["share"]["value"],
    "precision of the tier high": lambda figures: figures["tiers"]["high"]["precision"]["value"],
}


@dataclass(frozen=True)
class SourceModel:
    """What is calibrated.

    Attributes:
        name: folder or Hub id, as given.
        recipe: of its training; of a plain cross-encoder only the name is known.
        reranker: None for a plain cross-encoder.
    """

    name: str
    folder: Path
    scorer: PairScorer
    recipe: Recipe
    reranker: UMLSReranker | None

    @classmethod
    def load(
        cls, name: str, revision: str | None = None, device: str | None = None, precision: str | None = None
    ) -> SourceModel:
        """A reranker, or a sequence classifier of one logit, from a folder or the Hub.

        Raises:
            UserError: it is not found or cannot be loaded, has no safetensors weights, or is not a network of one
                logit.
        """
        files = (MANIFEST, *loaded_parts("torch"), *MODEL_PATTERNS)
        folder = download(name, revision, files=files, is_plain=True)
        if (folder / MANIFEST).is_file():
            recipe = load_recipe(folder / RECIPE)
            reranker = UMLSReranker.from_pretrained(folder, device=device, dtype=precision)
            return cls(name, folder, reranker.scorer, recipe, reranker)
        if not (folder / "config.json").is_file():
            raise UserError(f"{name} holds no config.json, so it is no model")
        config = read_json(folder / "config.json")
        kinds = config.get("architectures") if isinstance(config, dict) else None
        kind = str(kinds[0]) if isinstance(kinds, list) and kinds else "model of an unknown kind"
        if not kind.endswith("ForSequenceClassification"):
            raise UserError(f"{name} is a {kind}, no sequence classifier, so it does not score pairs of texts")
        if not (folder / WEIGHTS).is_file():
            raise UserError(
                f"{name} has no {WEIGHTS}; weights of other formats, such as pytorch_model.bin, can run code and are "
                "never loaded; where you trust them, load the model with transformers and save it by save_pretrained"
            )
        if not (folder / "tokenizer.json").is_file():
            raise UserError(f"{name} has no tokenizer.json; load its tokenizer by AutoTokenizer and save it there")
        scorer = PairScorer.from_folder(folder, PairTemplate(), device, precision)
        return cls(name, folder, scorer, Recipe.from_values({"model": name}), None)

    @property
    def hierarchy(self) -> TypeHierarchy:
        """Its semantic types; for a plain cross-encoder those of the UMLS."""
        return TypeHierarchy.built_in() if self.reranker is None else self.reranker.thresholds.hierarchy

    @property
    def counts(self) -> StringCounts:
        """Its counts of training mentions."""
        return (self.reranker and self.reranker.calibration.counts) or StringCounts.fit([])

    @property
    def history(self) -> CertificateHistory:
        """Certificates on lists like these; those of the training run's own lists are of another tier."""
        if self.reranker is None or "lists" not in read_json(self.folder / CALIBRATOR)["fitted_on"]:
            return NO_CERTIFICATES
        return self.reranker.calibration.history

    def decide(self, lists: CandidateLists, score: Score) -> Decisions:
        """As it is; a plain cross-encoder by the sigmoid of its logits, with nothing certified or accepted."""
        if self.reranker is not None:
            return _decide(lists, score, self.reranker.calibration, self.scorer.template.reads)
        return _decide(lists, score, Calibration(), (), accept_tier="high")


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
    source: SourceModel, given: LabelledLists, settings: CalibrationArguments, seed: int = 13
) -> Recalibrated:
    """Score the lists, fit fusion, calibrator, thresholds and certificate on them, and measure before and after.

    Args:
        settings: calibrator and what is to be certified; features are what the model weighs, as far as the lists carry
            it, and all their scores.
        seed: of the folds of documents.

    Raises:
        UserError: there is too little data.
    """
    title, shown = "scoring candidates", source.scorer.template.reads
    scores = score_lists(source.scorer, given.lists, title)
    kept = best_of_each_concept(given.lists, scores.logits)
    lists, scores = given.lists.with_candidates(kept), replace(scores, logits=scores.logits[kept])
    settings = replace(settings, features=_features(source, lists))
    network = NetworkLogits(source.scorer, lists, title, {(): scores.logits})

    def fit(inside: np.ndarray) -> tuple[Calibration, dict[str, Any]]:
        options = settings, source.hierarchy, seed, shown, source.history
        return fit_calibration(
            lists.take(inside), within(inside), source.counts, *options, has_outlook=bool(inside.all())
        )

    def within(inside: np.ndarray) -> Score:
        rows = np.flatnonzero(inside[lists.owner])

        def score(unseen: Unseen, wanted: np.ndarray) -> np.ndarray:
            everywhere = np.zeros(len(lists.owner), bool)
            everywhere[rows] = wanted
            return network(unseen, everywhere)[rows]

        return score

    def held_out() -> Iterator[tuple[np.ndarray, Decisions]]:
        fold = document_folds(lists.annotations.documents, seed)
        for number in range(fold.max() + 1):
            inside = fold == number
            yield inside, _decide(lists.take(inside), within(inside), fit(~inside)[0], shown)

    calibration, fitted = fit(np.ones(len(lists), bool))
    after = _joined(lists, scores, held_out())
    facts = {
        "source": portable_locator(source.name),
        "is_plain": source.reranker is None,
        "mentions": len(lists),
        "documents": len(set(lists.annotations.documents)),
        "not_in_list": given.not_in_list,
        "scores": list(lists.scores),
        "repeated_candidates": int((~kept).sum()),
    }
    fitted |= {"split": "own lists", "lists": facts}
    options = {"resamples": RESAMPLES, "seed": seed}
    figures = [
        decided_figures(lists, decided, scores.logits, Outcomes.of(lists, decided), None, None, "own lists", options)
        for decided in (after, source.decide(lists, network))
    ]
    metrics = figures[0] | {"lists": facts, "before": figures[1], "inputs": _certified(calibration)}
    return Recalibrated(lists, settings, calibration, fitted, after, metrics)


def save_recalibrated(source: SourceModel, found: Recalibrated, folder: Path) -> None:
    """Write the new model folder atomically; `UMLSReranker.from_pretrained` loads it.

    Raises:
        UserError: the folder exists.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already; choose another folder for the new model")
    recipe = source.recipe
    recipe = replace(recipe, run=replace(recipe.run, run_name=folder.name), calibration=found.settings)
    dictionary = source.reranker.info.get("dictionary") if source.reranker else None
    outcomes = Outcomes.of(found.lists, found.after)
    target = found.calibration.thresholds.target_precision
    documents = outcomes.document.tolist()
    reference = Reference.fit(outcomes.score, outcomes.types, documents, found.metrics["serving"], target)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with written(folder) as new:
        new.mkdir()
        copy_network(source.folder, new)
        write_json(new / METRICS, found.metrics)
        write_json(new / REFERENCE, reference.to_dict())
        for name, chart in zip((RELIABILITY, RISK_COVERAGE), card_charts(found.metrics, target), strict=True):
            (new / name).write_text(chart, encoding="utf-8")
        parts = found.calibration, found.fitted
        write_parts(new, recipe, source.scorer.template, source.scorer.precision, *parts, dictionary)
        (new / CARD).write_text(folder_card(new), encoding="utf-8")


def described(given: LabelledLists) -> str:
    """What was read, as lines of text."""
    scores = ", ".join(f"{name}_score" for name in given.lists.scores)
    lines = [
        f"{len(given.lists):,} mentions of {len(set(given.lists.annotations.documents)):,} documents; "
        f"{given.not_in_list:,} without their right concept among the candidates, which counts as wrong",
        f"scores of candidates: {scores or 'none'}",
    ]
    if given.unread:
        lines.append(f"not read of candidates: {', '.join(given.unread)}; a score has to be called NAME_score")
    return "\n".join(lines)


def before_and_after(found: Recalibrated) -> str:
    """The results for the new model, as lines of text."""
    facts, full = found.metrics["lists"], found.calibration.models[0]
    lines = []
    if facts["repeated_candidates"]:
        lines.append(f"{facts['repeated_candidates']:,} candidates name a concept of their list once more")
    fusion = full.fusion
    assert fusion is not None  # features are never empty here
    lines.append("weights: " + ", ".join(f"{name} {weight:.3g}" for name, weight in fusion.weights.items()))
    for name in found.lists.scores:
        low, high = found.calibration.score_ranges[name]
        ending = "" if name in fusion.read else "; it has no weight: is higher better? Give a distance negated"
        lines.append(f"{name}_score: from {low:.4g} to {high:.4g}{ending}")
    logits = found.after.logits
    lines.append(f"scored by the cross-encoder: {np.isfinite(logits).mean():.1%} of {len(logits):,} candidates")
    lines.append(f"{'':<34}{'before':<10}after, on documents held out")
    for label, read in FIGURES.items():
        before, after = (_shown(read(figures)) for figures in (found.metrics["before"], found.metrics))
        lines.append(f"{label:<34}{before:<10}{after}")
    for model in found.calibration.models:
        of_inputs = "" if model is full else f" with {model.name}"
        lines.append(f"high{of_inputs} from, by all documents: {model.thresholds.certificate}")
    if note := note_on_certificate(found.fitted["certified_by"]):
        lines.append(note)
    return "\n".join(lines)


def _shown(value: float) -> str:
    return "-" if value != value else f"{value:.4f}"


def _features(source: SourceModel, lists: CandidateLists) -> list[str]:
    """What is weighed: features that the model knows and that no mention of the lists is without the means for."""
    fusion = source.reranker.calibration.models[0].fusion if source.reranker else None
    names = [*fusion.weights] if fusion else [n for n, feature in FEATURES.items() if feature.is_of_any_model]
    usable = [
        name
        for name in names
        if name in FEATURES
        and name not in SCORES
        and not any(lacking(lists, key, lists.scores).all() for key in inputs_of([name]))
    ]
    return [*usable, *lists.scores]


def _joined(lists: CandidateLists, scores: Scores, parts: Iterator[tuple[np.ndarray, Decisions]]) -> Decisions:
    """Join decisions about parts of the mentions."""

    def column(kind: type) -> np.ndarray:
        return np.empty(len(scores.logits), kind)

    joined = Decisions(
        lists.offsets,
        logits=column(np.float32),
        log_odds=column(float),
        probabilities=column(float),
        order=column(int),
        margins=column(float),
        tiers=column(int),
        accepted=column(bool),
        models=np.empty(len(lists), int),
        truncated=scores.truncated,
    )
    for inside, decided in parts:
        joined.models[inside] = decided.models
        for name in ("logits", "log_odds", "probabilities", "margins", "tiers", "accepted"):
            getattr(joined, name)[inside[lists.owner]] = getattr(decided, name)
    return replace(joined, order=ranking(joined.log_odds, lists.offsets))


def _decide(
    lists: CandidateLists,
    score: Score,
    calibration: Calibration,
    shown: Sequence[str],
    accept_tier: str = "medium",
) -> Decisions:
    """Decide with existing scores as far as there are any."""
    scores = Scores(logits_as_decided(score, calibration, lists, shown), 0)
    return rank(lists, scores, calibration, network_inputs=shown, accept_tier=accept_tier)


def _certified(calibration: Calibration) -> dict[str, dict[str, Any]]:
    """Of each set of inputs, whether its tier high is certified, and share and precision on held-out documents."""
    certificates = {model.name: model.thresholds.certificate for model in calibration.models}
    return {
        name: {
            "certified": found.threshold is not None,
            "high_share": {"value": found.share},
            "high_precision": {"value": float("nan") if found.precision is None else found.precision},
        }
        for name, found in certificates.items()
        if found is not None
    }
