"""Calibration and thresholds from the scored candidate lists of the calibration split, for all sets of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from ..core.arrays import best_candidates, list_offsets, list_sizes
from ..core.cores import map_in_order
from ..core.errors import UserError
from ..core.progress import progress
from ..core.settings import CALIBRATORS, CROSS_ENCODER
from .certificate import NO_CERTIFICATES, CertificateHistory
from .cross_fitting import CrossFitting, LeftOut, NetworkChoice
from .cross_validation import document_folds, fit_calibrator, sampled_documents
from .features import FeatureTable, check_features, default_features, feature_table
from .fusion import FeatureFusion, reads_type
from .inputs import (
    ScoreRange,
    absent_inputs,
    fallback_inputs,
    inputs_name,
    inputs_of,
    lacking,
    lists_with_any,
    without,
)
from .network_logits import Score, Unseen, unseen_inputs
from .probabilities import Calibration, DecidingModels, InputModel, Part, ScoringPlan
from .score_maps import Sample
from .string_counts import StringCounts
from .thresholds import ThresholdTable

if TYPE_CHECKING:
    from ..core.settings import CalibrationArguments
    from ..data.candidate_lists import AnnotatedLists, CandidateLists
    from ..data.semantic_types import TypeHierarchy

# Minimum number of gold concepts in a subset of the lists to fit on it alone: lists with types for a model that reads
# types, and fully scored lists to choose the pruning threshold.
FEWEST_GOLD = 100
# The pruning threshold is chosen on fully scored lists of a sample of documents: a share of the mentions, but at least
# this many.
WHOLE_SHARE, FEWEST_WHOLE = 0.2, 2000


def fit_calibration(
    lists: AnnotatedLists,
    score: Score,
    counts: StringCounts,
    settings: CalibrationArguments,
    hierarchy: TypeHierarchy,
    seed: int,
    network_inputs: Sequence[str] = (),
    history: CertificateHistory = NO_CERTIFICATES,
    *,
    may_drop_network: bool = False,
    has_fallbacks: bool = True,
    has_outlook: bool = True,
) -> tuple[Calibration, dict[str, Any]]:
    """Fit the model of all inputs and its fallback models on candidate lists, with the class balance of serving.

    Thresholds and certificates use probabilities of held-out documents: each fold is scored by a fusion and a
    calibrator of the same kind fitted on the other folds. The served model is fitted on all documents. Calibrators are
    fitted on utilities by fusions that have not seen the list (`CrossFitting.utilities`). Each fallback model is
    fitted in the same way, on the lists without the missing inputs, with a calibrator of the same kind.

    Each fold has a pruning threshold of its own, chosen on the other folds; that of the served model is chosen on all.
    To choose it, all candidates of a sample of documents are scored; of all other lists, the candidates above some
    threshold. Everything is fitted on lists as they are served. Each model has one certificate: the best of several
    would guarantee more than holds. Documents of earlier certificates do not certify again.

    An input of the network that no list has is absent, not missing: the first model and its fallback models are fitted
    without it. If the cross-encoder may be left out, the model that decides about a fold is chosen on the other folds,
    and the served model on all (`CrossFitting.choice`), so the certificate covers the choice. All fallback models
    follow the choice of the first model.

    The served model counts calibration mentions as well as training mentions. For a fit, the mentions of a fold are
    not counted in its own features.

    Args:
        lists: the calibration split.
        score: function that returns the network's logits of its candidates (`NetworkLogits`).
        counts: counts of the training split; those of `lists` are added.
        settings: the recipe's section.
        hierarchy: the types' hierarchy, along which thresholds fall back.
        seed: seed of the folds of documents.
        network_inputs: inputs that the network reads (`PairTemplate.reads`).
        history: certificates of the versions that this one was derived from.
        may_drop_network: whether the cross-encoder is left out if it adds nothing.
        has_fallbacks: whether to fit fallback models; measuring the model of all inputs needs none.
        has_outlook: whether the certificate of all inputs has an outlook; measuring needs none.

    Returns:
        The calibration, and what it was fitted on (for ``calibrator.json``).

    Raises:
        UserError: there is too little data for the model of all inputs, or a feature is unknown or missing in the
            lists.
    """
    names = default_features(lists) if settings.features is None else settings.features
    if not names and settings.calibrator != "auto" and not CALIBRATORS[settings.calibrator].fits_logits:
        names = [CROSS_ENCODER]
    check_features(names, lists)
    documents = lists.annotations.documents
    folds = document_folds(documents, seed)
    table, training_counts = FeatureTable.of(lists, {}, {}), counts
    if names:
        table, counts = _counted(lists, counts, folds, names)
    certifies = lists.annotations.certifies & history.is_new(documents)
    now_certified = history.after(documents[certifies].tolist())
    rows = len(lists) if settings.exhaustive else max(FEWEST_WHOLE, round(WHOLE_SHARE * len(lists)))
    sample = sampled_documents(documents, rows, seed)
    absent = absent_inputs(lists, network_inputs)
    fittings = _Fittings(
        lists,
        score,
        names,
        table,
        folds,
        sample,
        settings.exhaustive,
        hierarchy,
        seed,
        network_inputs,
        absent,
        has_choice=may_drop_network and CROSS_ENCODER in names,
    )
    scoring: dict[str, dict[str, Any]] = {}

    def fit(removed: tuple[str, ...], method: str) -> tuple[InputModel, dict[str, float], bool]:
        fitting = fittings.without(removed)
        # As in `CrossFitting`, by one thread per core, none of which has threads for matrix products.
        with threadpool_limits(1, "blas"):
            model, losses = fitting.model((), method)
            plan = fitting.held_out(model)
        logits = fitting.crossed.logits
        scores = plan.scores(np.where(plan.retained, logits, np.nan))
        top = best_candidates(scores.log_odds, lists.offsets)
        thresholds = ThresholdTable.fit(
            scores.probabilities,
            lists.labels,
            lists.owner,
            np.where(top >= 0, scores.probabilities[top], np.nan),
            lists.is_gold(top),
            fitting.lists.types,
            hierarchy,
            groups=lists.annotations.documents,
            complete=plan.deciding.complete & certifies,
            target_precision=settings.target_precision,
            confidence=settings.confidence,
            attempt=len(now_certified.certificates),
            has_outlook=has_outlook and removed == absent,
        )
        missing = [name for name in removed if name not in absent]
        model = replace(model, thresholds=thresholds, name=inputs_name(names, missing))
        is_held_out = len(plan.parts) > 1
        scoring[model.name] = {
            "mentions_scored_whole": int(fitting.crossed.sample.sum()),
            "scored": float(np.isfinite(logits).mean()) if len(logits) else 0.0,
            "pruning_thresholds_of_folds": [part.model.pruning_threshold for part in plan.parts]
            if is_held_out
            else [],
        }
        return model, losses, is_held_out

    present = [name for name in network_inputs if name not in absent]
    # A type that the network never sees is removed already.
    removals = dict.fromkeys(tuple(dict.fromkeys((*absent, *removed))) for removed in fallback_inputs(names, present))
    wanted = list(removals) if has_fallbacks else [absent]
    sets = iter(progress(wanted, desc="fitting the model and its fallback models", unit=" models"))
    first, losses, is_held_out = fit(next(sets), settings.calibrator)
    models = {absent: first}
    for removed in sets:
        # A model that does not read the type also serves mentions without one.
        with_type = models.get(tuple(name for name in removed if name != "entity_type"))
        if "entity_type" in removed and with_type and "entity_type" not in with_type.reads(network_inputs):
            continue
        try:
            models[removed] = fit(removed, first.calibrator.name)[0]
        except UserError:
            # The remaining inputs carry no information, so mentions with only these are never in the high tier.
            continue
    fitted = {
        "split": "calibration",
        "mentions": len(lists),
        "pairs": len(lists.labels),
        "positives": int(lists.labels.sum()),
        "thresholds_on_held_out_documents": is_held_out,
        "scoring": scoring,
        "certified_by": {
            "attempt": len(now_certified.certificates),
            "documents": len(set(documents[certifies])),
            "mentions": int(certifies.sum()),
        },
    }
    if losses:
        fitted["cross_validated_losses"] = losses
    if fittings.choice:
        fitted["cross_encoder"] = fittings.choice.to_dict()
    ranges = _ranges(names, lists)
    calibration = Calibration(
        list(models.values()), counts, ranges, lists.index_keys[0], now_certified, training_counts=training_counts
    )
    return calibration, fitted


def _counted(
    lists: AnnotatedLists, counts: StringCounts, folds: np.ndarray, names: Sequence[str]
) -> tuple[FeatureTable, StringCounts]:
    """Features that count training mentions and the calibration mentions of other folds, and the counts of all."""
    if not folds.any():
        return feature_table(lists, counts, names), counts
    candidates: dict[str, np.ndarray] = {}
    about: dict[str, np.ndarray] = {}
    of_folds = [_counts_of(lists, folds == fold) for fold in range(folds.max() + 1)]
    for fold in progress(range(len(of_folds)), desc="computing features", unit=" folds"):
        inside, others = folds == fold, of_folds[:fold] + of_folds[fold + 1 :]
        table = feature_table(lists.take(inside), reduce(StringCounts.plus, others, counts), names)
        for name, column in table.candidates.items():
            candidates.setdefault(name, np.empty(len(lists.owner)))[inside[lists.owner]] = column
        for name, column in table.lists.items():
            about.setdefault(name, np.empty(len(lists)))[inside] = column
    return FeatureTable.of(lists, candidates, about), reduce(StringCounts.plus, of_folds, counts)


def _counts_of(lists: AnnotatedLists, inside: np.ndarray) -> StringCounts:
    """Counts of some mentions, (n,) bool, all with a gold concept."""
    rows = zip(lists.mentions, lists.annotations.cuis, lists.types, inside, strict=True)
    return StringCounts.fit((text, cui, types) for text, cui, types, is_counted in rows if is_counted and cui)


def fit_fusion(
    names: Sequence[str], lists: CandidateLists, logits: np.ndarray, gold: np.ndarray, counts: StringCounts
) -> Calibration:
    """Fit the weights of some features, without calibrator, thresholds and fallbacks.

    Args:
        names: names of features, or of scores in the lists.
        lists: the lists to fit on.
        logits: (m,) logits of their candidates.
        gold: (n,) position of the gold concept in its list, -1 if missing.
        counts: counts of the training split.

    Raises:
        UserError: a feature is unknown, or the candidate lists lack it.
    """
    check_features(names, lists)
    table = feature_table(lists, counts, names).plus({CROSS_ENCODER: logits})
    models = [InputModel(fusion=FeatureFusion.fit(names, table, gold))]
    return Calibration(models, counts, _ranges(names, lists), lists.index_keys[0])


def _ranges(names: Sequence[str], lists: CandidateLists) -> dict[str, ScoreRange]:
    return {name: ScoreRange.of(lists.scores[name]) for name in names if name in lists.scores}


@dataclass
class _Fittings:
    """The calibration lists, to fit models on without some of their inputs.

    Attributes:
        table: their features.
        absent: inputs of the network that no list has.
        has_choice: whether the first model decides if the cross-encoder is weighed (`choice`).
        crossed: fusions by their features, the network's inputs and concepts; models share them.
    """

    lists: AnnotatedLists
    score: Score
    names: Sequence[str]
    table: FeatureTable
    folds: np.ndarray
    sample: np.ndarray
    exhaustive: bool
    hierarchy: TypeHierarchy
    seed: int
    network_inputs: Sequence[str]
    absent: tuple[str, ...]
    has_choice: bool = False
    choice: NetworkChoice | None = None
    crossed: dict[tuple, CrossFitting] = field(default_factory=dict)

    def without(self, removed: tuple[str, ...]) -> _Fitting:
        """The lists without some inputs."""
        names = [name for name in self.names if not {*removed} & {*inputs_of([name])}]
        lists, unseen = without(self.lists, removed), unseen_inputs(removed, self.network_inputs)
        # Without CUIs other candidates count as one concept.
        key = tuple(names), unseen, "cui" in removed
        if key not in self.crossed:
            self.crossed[key] = self._cross_fit(lists, names, unseen)
        return _Fitting(self, lists, self.crossed[key], removed)

    def _cross_fit(self, lists: AnnotatedLists, names: list[str], unseen: Unseen) -> CrossFitting:
        columns = {name: self.table.candidates[name] for name in names if name != CROSS_ENCODER}
        lacks = np.zeros(len(lists.owner), bool)
        for name in filter(reads_type, names):
            lacks |= np.isnan(columns[name])
        usable, has_gold = ~lists_with_any(lacks, lists.offsets), lists.annotations.gold >= 0
        if np.count_nonzero(has_gold & usable) < FEWEST_GOLD:
            usable[:] = True
        sample = self.sample
        if np.count_nonzero(has_gold & usable & sample) < FEWEST_GOLD:
            sample = np.ones(len(lists), bool)
        table = FeatureTable.of(lists, columns, self.table.lists)
        score = partial(self.score, unseen)
        crossed = CrossFitting(
            lists, score, names, table, self.folds, usable, sample, self.exhaustive, self.has_choice
        )
        crossed.fit()
        if self.has_choice:
            self.choice = self.choice or crossed.choose_network()
            crossed.choice = self.choice
        return crossed


@dataclass(frozen=True)
class _Fitting:
    """The calibration lists without some inputs, to fit one model on.

    Attributes:
        every: the lists with all inputs.
        lists: the lists without the inputs `removed`.
        crossed: fusions of the remaining features.
    """

    every: _Fittings
    lists: AnnotatedLists
    crossed: CrossFitting
    removed: tuple[str, ...]

    def model(self, left_out: LeftOut, method: str) -> tuple[InputModel, dict[str, float]]:
        """Fusion and calibrator fitted outside some folds, and the losses that `fit_calibrator` returns.

        Raises:
            UserError: there is too little data.
        """
        lists, inside, model = self.lists, self.crossed.inside(left_out), self.crossed.model(left_out)
        rows = inside[lists.owner]
        offsets = None if model.fusion is None else list_offsets(list_sizes(lists.offsets)[inside])
        types = lists.types.take(lists.owner[rows])
        sample = Sample(self.crossed.utilities(left_out), lists.labels[rows], offsets, types, self.every.hierarchy)
        documents = lists.annotations.documents[lists.owner[rows]]
        calibrator, losses = fit_calibrator(method, sample, documents, self.every.seed)
        return replace(model, calibrator=calibrator, removed=self.removed), losses

    def held_out(self, model: InputModel) -> ScoringPlan:
        """Yield each fold with a fit like `model` on the others, with one thread per core.

        With a single fold, or too little data outside one, it is all mentions with `model`.
        """
        folds, method, lists = self.crossed.folds, model.calibrator.name, self.lists
        try:
            count = folds.max() + 1 if folds.any() else 0
            fits = map_in_order(lambda fold: self.model((fold,), method)[0], range(count))
            fitted = list(progress(fits, total=count, desc="fitting calibrators", unit=" folds"))
        except UserError:
            fitted = []
        lacks: dict[str, np.ndarray] = {}
        parts, complete = [], np.ones(len(lists), bool)
        for fold, of_fold in enumerate(fitted or [model]):
            inside = folds == fold if fitted else np.ones(len(lists), bool)
            table = self._in_range(self.crossed.inside((fold,) if fitted else ()))
            parts.append(Part.of(of_fold, table, inside))
            for name in self._reads(of_fold):
                # Only scores may be missing in one fold and not in another.
                if name.endswith("_score") or name not in lacks:
                    lacks[name] = lacking(lists, name, table.candidates)
                complete &= ~(inside & lacks[name])
        return ScoringPlan(lists, DecidingModels(np.zeros(len(lists), np.int64), complete, {}), parts)

    def _in_range(self, fitted: np.ndarray) -> FeatureTable:
        """The features, with scores outside the range of the fitted mentions, (n,) bool, as NaN."""
        table, rows = self.crossed.table, fitted[self.lists.owner]
        scores = {}
        for name in {*self.lists.scores} & {*table.candidates}:
            column = table.candidates[name]
            scores[name] = ScoreRange.of(column[rows]).inside(column)
        return table.plus(scores)

    def _reads(self, model: InputModel) -> list[str]:
        # As `InputModel.reads` once there are thresholds.
        is_fallback = self.removed != self.every.absent
        by_type = is_fallback and bool(self.lists.types.is_known.any())
        return [*model.reads(self.every.network_inputs), *(["entity_type"] if by_type else [])]
