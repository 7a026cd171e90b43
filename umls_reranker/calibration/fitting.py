"""Calibration and thresholds from the scored candidate lists of the calibration split, for all sets of inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from ..core.arrays import best_candidates, list_offsets, list_sizes
from ..core.errors import UserError
from ..core.progress import progress
from ..core.sockets import CALIBRATORS, CROSS_ENCODER
from ..data.parallel import map_in_order
from .cross_fitting import CrossFitting, LeftOut, fit_weights, reads_type
from .cross_validation import document_folds, fit_calibrator, sampled_documents
from .features import check_features, default_features, features
from .history import NO_CERTIFICATES, CertificateHistory
from .inputs import ScoreRange, fallback_inputs, inputs_name, inputs_of, lacking, lists_with_any, without
from .network_logits import Unseen, unseen_inputs
from .probabilities import Calibration, InputModel, Part, calibrated_scores, kept
from .string_counts import StringCounts
from .thresholds import ThresholdTable

if TYPE_CHECKING:
    from datasets import Dataset

    from ..core.arguments import CalibrationArguments
    from ..data.candidate_lists import AnnotatedLists, CandidateLists
    from ..data.semantic_types import TypeHierarchy

__all__ = [
    "Score",
    "fit_fusion",
    "fit_parts",
    "fit_with_counts",
    "logits_as_decided",
]

# Gold concepts that some of the lists must hold to be fitted on without the others: those with types for a model that
# reads types, and those that are scored whole to choose the cut.
FEWEST_GOLD = 100
# To choose cuts, lists of a sample of documents are scored whole: a share of the mentions, but no fewer than these.
WHOLE_SHARE, FEWEST_WHOLE = 0.2, 2000
# Gives the logits of candidates, (m,), at least of those in (m,) bool, as the network sees them without some inputs.
Score = Callable[[Unseen, np.ndarray], np.ndarray]


def logits_as_decided(
    score: Score, calibration: Calibration, lists: CandidateLists, shown: Sequence[str]
) -> np.ndarray:
    """(m,) logits of what the network sees of each list where `calibration` decides (`Calibration.as_read`)."""
    models, logits = calibration.choose(lists, shown).models, np.empty(len(lists.owner), np.float32)
    for number in np.unique(models).tolist():
        rows = (models == number)[lists.owner]
        logits[rows] = score(unseen_inputs(calibration.models[number].removed, shown), rows)[rows]
    return logits


def fit_parts(
    lists: AnnotatedLists, score: Score, train_mentions: Dataset, *options: Any
) -> tuple[Calibration, dict[str, Any]]:
    """`fit_with_counts` of the strings and concepts of the training split."""
    columns = (train_mentions[name][:] for name in ("mention", "cui", "semantic_types"))
    return fit_with_counts(lists, score, StringCounts.fit(zip(*columns, strict=True)), *options)


def fit_with_counts(
    lists: AnnotatedLists,
    score: Score,
    counts: StringCounts,
    settings: CalibrationArguments,
    hierarchy: TypeHierarchy,
    seed: int,
    shown: Sequence[str] = (),
    history: CertificateHistory = NO_CERTIFICATES,
    *,
    has_outlook: bool = True,
) -> tuple[Calibration, dict[str, Any]]:
    """Fit the model of all inputs and its fallbacks on candidate lists, with the class balance of serving.

    Thresholds and certificates use probabilities of held-out documents: each fold is scored by a fusion and a
    calibrator of the same kind fitted on the other folds. The served model is fitted on all. Calibrators are fitted on
    utilities by fusions that have not seen the list (`CrossFitting.utilities`). Each fallback is fitted in the same
    way, on the lists without the missing inputs, with a calibrator of the same kind.

    Each fold has a cut of its own below which candidates are left unscored, chosen on the other folds; that of the
    served model is chosen on all. Lists of a sample of documents are scored whole to choose it, all others as far as
    some cut goes. Everything is fitted on lists as they are served. One certificate is computed of each model: the
    best of several would promise more than it keeps. Documents of former certificates do not certify again.

    The served model counts calibration mentions as well as training mentions. For a fit, the mentions of a fold are
    not counted in its own features.

    Args:
        lists: the calibration split.
        score: asks the network about its candidates (`NetworkLogits`).
        counts: of the training split; those of `lists` are added.
        settings: the recipe's section.
        hierarchy: of the types, along which thresholds fall back.
        seed: of the folds of documents.
        shown: what the network reads (`PairTemplate.reads`).
        history: the certificates of the versions that this one comes from.
        has_outlook: whether the certificate of all inputs has one (`outlook`); a fit that only measures needs none.

    Returns:
        calibration, and what it was fitted on (for ``calibrator.json``).

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
    columns, about, counts = _counted(lists, counts, folds, names) if names else ({}, {}, counts)
    certifies = lists.annotations.certifies & history.is_new(documents)
    now_certified = history.after(documents[certifies].tolist())
    rows = len(lists) if settings.exhaustive else max(FEWEST_WHOLE, round(WHOLE_SHARE * len(lists)))
    sample = sampled_documents(documents, rows, seed)
    shared: dict[tuple, CrossFitting] = {}

    def given(removed: tuple[str, ...]) -> _Fitting:
        left = [name for name in names if not {*removed} & {*inputs_of([name])}]
        own = {name: columns[name] for name in left if name != CROSS_ENCODER}
        part, unseen = without(lists, removed), unseen_inputs(removed, shown)
        # Without CUIs other candidates count as one concept.
        key = tuple(left), unseen, "cui" in removed
        if key in shared:
            return _Fitting(part, shared[key], hierarchy, seed, removed)
        lacks = np.isnan(sum((own[name] for name in own if reads_type(name)), np.zeros(len(lists.owner))))
        usable, has_gold = ~lists_with_any(lacks, lists.offsets), lists.annotations.gold >= 0
        if np.count_nonzero(has_gold & usable) < FEWEST_GOLD:
            usable[:] = True
        whole = sample if np.count_nonzero(has_gold & usable & sample) >= FEWEST_GOLD else np.ones(len(lists), bool)
        options = whole, settings.exhaustive
        fusions = CrossFitting(part, partial(score, unseen), left, own, about, folds, usable, *options)
        fusions.fit()
        shared[key] = fusions
        return _Fitting(part, shared[key], hierarchy, seed, removed)

    chosen: dict[str, dict[str, Any]] = {}

    def fit(removed: tuple[str, ...], method: str) -> tuple[InputModel, dict[str, float], bool]:
        fitting = given(removed)
        # As in `CrossFitting`, by one thread per core, none of which has threads for matrix products.
        with threadpool_limits(1, "blas"):
            model, losses = fitting.model((), method)
            held_out = fitting.parts(model, shown)
        complete, parts = np.empty(len(lists), bool), [part for part, _, _ in held_out]
        for _, inside, has_all in held_out:
            complete[inside] = has_all

        scores = calibrated_scores(parts, np.where(kept(parts), fitting.fusions.logits, np.nan))
        first = best_candidates(scores.log_odds, lists.offsets)
        thresholds = ThresholdTable.fit(
            scores.probabilities,
            lists.labels,
            lists.owner,
            np.where(first >= 0, scores.probabilities[first], np.nan),
            lists.is_right(first),
            fitting.lists.types,
            hierarchy,
            groups=lists.annotations.documents,
            complete=complete & certifies,
            target_precision=settings.target_precision,
            confidence=settings.confidence,
            attempt=len(now_certified.certificates),
            has_outlook=has_outlook and not removed,
        )
        model = replace(model, thresholds=thresholds, name=inputs_name(names, removed))
        chosen[model.name] = {
            "mentions_scored_whole": int(fitting.fusions.sample.sum()),
            "scored": float(np.isfinite(fitting.fusions.logits).mean()) if len(lists.owner) else 0.0,
            "cuts_of_folds": [part.model.cut for part in parts] if len(parts) > 1 else [],
        }
        return model, losses, len(parts) > 1

    sets = iter(progress(fallback_inputs(names, shown), desc="fitting all sets of inputs", unit=" models"))
    first, losses, held_out = fit(next(sets), settings.calibrator)
    models = {(): first}
    for removed in sets:
        # A model with the type that does not read it also serves mentions without one.
        with_type = models.get(tuple(name for name in removed if name != "entity_type"))
        if "entity_type" in removed and with_type and "entity_type" not in with_type.reads(shown):
            continue
        try:
            models[removed] = fit(removed, first.calibrator.name)[0]
        except UserError:
            # The remaining inputs say nothing, so mentions with only these are never in the tier high.
            continue
    ranges = _ranges({name: columns[name] for name in names if name in lists.scores})
    fitted = {
        "split": "calibration",
        "mentions": len(lists),
        "pairs": len(lists.labels),
        "positives": int(lists.labels.sum()),
        "thresholds_on_held_out_documents": held_out,
        "scoring": chosen,
        "certified_by": {
            "attempt": len(now_certified.certificates),
            "documents": len(set(documents[certifies])),
            "mentions": int(certifies.sum()),
        },
    }
    if losses:
        fitted["cross_validated_losses"] = losses
    return Calibration(list(models.values()), counts, ranges, lists.index_keys[0], now_certified), fitted


def _counted(
    lists: AnnotatedLists, counts: StringCounts, folds: np.ndarray, names: Sequence[str]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], StringCounts]:
    """`features` by counts of training mentions and of calibration mentions of other folds, and the counts of all."""
    if not folds.any():
        return *features(lists, counts, names), counts
    columns: dict[str, np.ndarray] = {}
    about: dict[str, np.ndarray] = {}
    of_folds = [_counts_of(lists, folds == fold) for fold in range(folds.max() + 1)]
    for fold in range(len(of_folds)):
        inside, others = folds == fold, of_folds[:fold] + of_folds[fold + 1 :]
        found = features(lists.take(inside), reduce(StringCounts.plus, others, counts), names)
        for joined, own, rows in zip((columns, about), found, (inside[lists.owner], inside), strict=True):
            for name, column in own.items():
                joined.setdefault(name, np.empty(len(rows)))[rows] = column
    return columns, about, reduce(StringCounts.plus, of_folds, counts)


def _counts_of(lists: AnnotatedLists, inside: np.ndarray) -> StringCounts:
    """Of mentions, (n,) bool, that have a gold concept."""
    rows = zip(lists.mentions, lists.annotations.cuis, lists.types, inside, strict=True)
    return StringCounts.fit((text, cui, types) for text, cui, types, is_counted in rows if is_counted and cui)


def fit_fusion(
    names: Sequence[str], lists: CandidateLists, logits: np.ndarray, gold: np.ndarray, counts: StringCounts
) -> Calibration:
    """Fit the weights of some features, without calibrator, thresholds and fallbacks.

    Args:
        names: of features, or of scores in the lists.
        lists: to fit on.
        logits: (m,) of their candidates.
        gold: (n,) position of the right concept in its list, -1 if missing.
        counts: of the training split.

    Raises:
        UserError: a feature is unknown, or the candidate lists lack it.
    """
    check_features(names, lists)
    columns, about = features(lists, counts, names)
    columns[CROSS_ENCODER] = logits
    ranges = _ranges({name: columns[name] for name in lists.scores if name in names})
    models = [InputModel(fusion=fit_weights(names, columns, about, lists.offsets, gold))]
    return Calibration(models, counts, ranges, lists.index_keys[0])


def _ranges(scores: Mapping[str, np.ndarray]) -> dict[str, ScoreRange]:
    return {name: ScoreRange.of(column) for name, column in scores.items()}


class _HeldOut(NamedTuple):
    """Mentions to decide about by a model that was fitted on others.

    Attributes:
        part: they, with that model.
        inside: (n,) bool, which of all mentions they are.
        complete: whether each of them has all inputs of the model.
    """

    part: Part
    inside: np.ndarray
    complete: np.ndarray


@dataclass(frozen=True)
class _Fitting:
    """The calibration lists without some inputs, to fit one model on.

    Attributes:
        lists: without `removed`.
        fusions: of the features that are left; several models share them.
    """

    lists: AnnotatedLists
    fusions: CrossFitting
    hierarchy: TypeHierarchy
    seed: int
    removed: tuple[str, ...]

    def model(self, left_out: LeftOut, method: str) -> tuple[InputModel, dict[str, float]]:
        """Fusion and calibrator of the mentions outside some folds, and what `fit_calibrator` returns with it.

        Raises:
            UserError: there is too little data.
        """
        lists, inside, fusions = self.lists, self.fusions.inside(left_out), None
        if self.fusions.names:
            fusions = self.fusions.fusions[left_out]
            if fusions is None:
                raise UserError("too few documents to hold a fold out")
        rows = inside[lists.owner]
        calibrator, losses = fit_calibrator(
            method,
            self.fusions.utilities(left_out),
            lists.labels[rows],
            lists.annotations.documents[lists.owner[rows]],
            offsets=fusions and list_offsets(list_sizes(lists.offsets)[inside]),
            types=lists.types.take(lists.owner[rows]),
            hierarchy=self.hierarchy,
            seed=self.seed,
        )
        fusion, baseline, cut = fusions or (None, None, 0.0)
        return InputModel(calibrator, fusion, removed=self.removed, baseline=baseline, cut=cut), losses

    def parts(self, model: InputModel, shown: Sequence[str]) -> list[_HeldOut]:
        """Each fold with a fit like `model` on the others, by one thread per core.

        If there is one fold, or one has too little data: all mentions with `model`.
        """
        last, method = self.fusions.folds.max(), model.calibrator.name
        try:
            fitted = list(map_in_order(lambda fold: self.model((fold,), method)[0], range(last + 1 if last else 0)))
        except UserError:
            fitted = []

        @cache
        def lacks(name: str) -> np.ndarray:
            return lacking(self.lists, name, {})

        if not fitted:
            return [self._held_out(None, model, shown, lacks)]
        return [self._held_out(fold, own, shown, lacks) for fold, own in enumerate(fitted)]

    def _held_out(
        self, fold: int | None, model: InputModel, shown: Sequence[str], lacks: Callable[[str], np.ndarray]
    ) -> _HeldOut:
        """A part of `parts`; `lacks` gives (n,) bool of mentions without an input that is no score."""
        lists, columns = self.lists, dict(self.fusions.columns)
        fitted = self.fusions.inside(() if fold is None else (fold,))[lists.owner]
        inside = np.ones(len(lists), bool) if fold is None else self.fusions.folds == fold
        for name in {*lists.scores} & {*columns}:
            columns[name] = ScoreRange.of(columns[name][fitted]).inside(columns[name])
        complete = inside
        for name in self._reads(model, shown):
            # Only scores may be missing in one fold and not in another.
            complete = complete & ~(lacking(lists, name, columns) if name.endswith("_score") else lacks(name))
        return _HeldOut(Part.of(model, lists, columns, self.fusions.about, inside), inside, complete[inside])

    def _reads(self, model: InputModel, shown: Sequence[str]) -> list[str]:
        # As `InputModel.reads` once there are thresholds.
        by_type = bool(self.removed) and bool(self.lists.types.is_known.any())
        return [*model.reads(shown), *(["entity_type"] if by_type else [])]
