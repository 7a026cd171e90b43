"""Nested cross-fitting: fits of one set of features, so that every score is by a fit that is new.

    full fit              fitted on all documents
      without a           scores the documents of fold a, for thresholds and certificate
        without a and b   scores those of fold b, for the calibrator of the fit without a

The calibrator of the served model is fitted on the scores of all folds by the fits without them. So
neither a calibrator nor a threshold ever sees what weights make of documents they were fitted on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple, TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits

from ..core.arrays import best_candidates, list_offsets, lists_with_any
from ..core.errors import TooLittleData
from ..core.parallel import map_in_order, progress
from ..lists.annotated_lists import AnnotatedLists
from .calibrated_model import CalibratedModel, with_lowest_logit
from .calibrators import Calibrator
from .candidate_scores import CandidateScores
from .feature_table import FeatureTable
from .features import CROSS_ENCODER
from .fusion import FeatureFusion
from .labelled_scores import LabelledScores
from .logistic import log_sums
from .reliability import document_index

# Lists that the cross-encoder scores whole, to tell what pruning changes.
WHOLE_LISTS = 1000
# Folds that a fit leaves out, ascending: none, one or two.
LeftOut: TypeAlias = tuple[int, ...]
# Fits a model without these folds, from where the fit on all documents ended.
FitModel: TypeAlias = "Callable[[LeftOut, CalibratedModel], CalibratedModel]"


class NestedFit(NamedTuple):
    """A model without calibrator and thresholds, and those fitted without one fold more.

    Attributes:
        model: the model.
        left_out: the folds that it was fitted without.
        without: fold -> the fit without that fold, too; empty at the innermost level, and where
            there is too little data for one of them.
    """

    model: CalibratedModel
    left_out: LeftOut
    without: Mapping[int, NestedFit]

    @classmethod
    def of(
        cls, models: Mapping[LeftOut, CalibratedModel], folds: int, left_out: LeftOut = ()
    ) -> NestedFit:
        """The fit without some folds, by models for all of `folds` that could be fitted."""
        rest = [fold for fold in range(folds) if fold not in left_out]
        further = {fold: tuple(sorted((*left_out, fold))) for fold in rest}
        without = {}
        if len(rest) > 1 and models.keys() >= {*further.values()}:
            without = {fold: cls.of(models, folds, further[fold]) for fold in rest}
        return cls(models[left_out], left_out, without)


class FoldScores(NamedTuple):
    """What a fit makes of the candidates of some mentions, such as those of a fold left out.

    Attributes:
        model: the fit.
        mentions: (n,) bool, the mentions.
        rows: (m,) bool, their candidates among all.
        table: their features.
        logits: their logits, NaN for pruned ones.
        list_utilities: their utilities by the fit's list fusion; None without one.
        is_legible: of the mentions, whether the cross-encoder can read all candidates that it is to
            score.
    """

    model: CalibratedModel
    mentions: np.ndarray
    rows: np.ndarray
    table: FeatureTable
    logits: np.ndarray
    list_utilities: np.ndarray | None
    is_legible: np.ndarray

    @property
    def utilities(self) -> np.ndarray:
        """Log-odds against NIL."""
        return self.model.utilities(self.table, self.logits, self.list_utilities)

    def calibrated(self, calibrator: Calibrator) -> CandidateScores:
        """The scores of the candidates by the fit with a calibrator."""
        model = replace(self.model, calibrator=calibrator)
        return model.scores(self.table, self.logits, self.list_utilities)


@dataclass(frozen=True)
class FoldedLists:
    """Calibration lists with features, in folds of documents: what is fitted on.

    Attributes:
        lists: n lists with m candidates, without inputs that no feature reads.
        table: the features, but the cross-encoder.
        folds: (n,) fold of each mention.
        usable: (n,) bool, mentions to fit on; other models decide about mentions without types.
    """

    lists: AnnotatedLists
    table: FeatureTable
    folds: np.ndarray
    usable: np.ndarray

    @property
    def fold_count(self) -> int:
        return int(self.folds.max()) + 1

    def inside(self, left_out: LeftOut = ()) -> np.ndarray:
        """The usable mentions outside some folds, (n,) bool."""
        return self.usable & ~np.isin(self.folds, left_out)

    def fit(
        self, names: Sequence[str], score_candidates: Callable[[np.ndarray], np.ndarray]
    ) -> CrossFits:
        """Fit on all mentions, then from there without each fold and each two, on all cores.

        The list fusions come first: the cross-encoder scores the candidates that any of them
        retains, and those of the lists that tell what pruning changes.

        Args:
            names: the features; none if the cross-encoder decides alone.
            score_candidates: gives the logits, (m,), of some candidates, (m,) bool.

        Raises:
            TooLittleData: there is too little data for the fit on all documents.
        """
        left_out: list[LeftOut] = [()]
        if self.fold_count > 1:
            for size in (1, 2):
                left_out += combinations(range(self.fold_count), size)
        # Threads of matrix products next to those of the fits would mostly wait for each other.
        with threadpool_limits(1, "blas"):
            models = self._fit_list_fusions(names, left_out)
            logits = score_candidates(self._to_score(names, models.values()))
            if names:
                models = self._fit_fusions(names, models, logits)
        return CrossFits(self, logits, NestedFit.of(models, self.fold_count))

    def _fit_list_fusions(
        self, names: Sequence[str], left_out: Sequence[LeftOut]
    ) -> dict[LeftOut, CalibratedModel]:
        """Models with a list fusion alone; without any, if it would weigh all features or none."""
        list_features = [name for name in names if name != CROSS_ENCODER]
        if len(list_features) in (0, len(names)):
            return dict.fromkeys(left_out, CalibratedModel())

        def fit(folds: LeftOut, full_model: CalibratedModel) -> CalibratedModel:
            inside = self.inside(folds)
            gold = self.lists.annotations.gold[inside]
            start = full_model.list_fusion
            fusion = FeatureFusion.fit(list_features, self.table.take(inside), gold, start)
            return CalibratedModel(list_fusion=fusion)

        return _fit_each(fit, left_out)

    def _fit_fusions(
        self,
        names: Sequence[str],
        list_fits: Mapping[LeftOut, CalibratedModel],
        logits: np.ndarray,
    ) -> dict[LeftOut, CalibratedModel]:
        """The models with weights of all features, fitted on lists that are pruned as served."""
        table = self.table.plus({CROSS_ENCODER: logits})

        def fit(folds: LeftOut, full_model: CalibratedModel) -> CalibratedModel:
            inside = self.inside(folds)
            gold = self.lists.annotations.gold[inside]
            model = list_fits[folds]
            fusion = _fit_as_served(names, table.take(inside), gold, model, full_model.fusion)
            return replace(model, fusion=fusion)

        return _fit_each(fit, [*list_fits])

    def _to_score(self, names: Sequence[str], models: Iterable[CalibratedModel]) -> np.ndarray:
        """The candidates that the cross-encoder scores for models without it, (m,) bool."""
        if names and CROSS_ENCODER not in names:
            return np.zeros(len(self.lists.owner), bool)
        order = np.random.default_rng(0).permutation(len(self.lists))
        to_score: np.ndarray = (order < WHOLE_LISTS)[self.lists.owner]
        for model in models:
            to_score |= model.keep_candidates(self.table, model.list_utilities(self.table))
        return to_score


@dataclass(frozen=True)
class CrossFits:
    """Nested fits of one set of features, and what they make of the lists that they do not know.

    Attributes:
        data: the lists and features that they were fitted on.
        logits: (m,) logits of the candidates, NaN for those that no fit needs.
        full_fit: the fit on all documents, with those without folds.
    """

    data: FoldedLists
    logits: np.ndarray
    full_fit: NestedFit

    def held_out(self, fit: NestedFit) -> list[FoldScores]:
        """The mentions of each fold that a fit has seen, each by the fit without that fold.

        If no fold could be held out, all mentions outside `fit.left_out`, by the fit itself.
        """
        if not fit.without:
            return [self.scores_by(fit, ~np.isin(self.data.folds, fit.left_out))]
        return [
            self.scores_by(without, self.data.folds == fold)
            for fold, without in fit.without.items()
        ]

    def sample(self, fit: NestedFit) -> LabelledScores:
        """Utilities to fit the calibrator of a fit on, by fits that have not seen them.

        A fusion separates its own lists better than others, the more so the fewer they are.
        """
        lists = self.data.lists
        utility = np.empty(len(self.logits))
        for scores in self.held_out(fit):
            utility[scores.rows] = scores.utilities
        inside = self.data.inside(fit.left_out)
        rows = inside[lists.owner]
        offsets = None
        if fit.model.fusion:
            offsets = list_offsets(np.diff(lists.offsets)[inside])
        return LabelledScores(utility[rows], lists.labels[rows], offsets)

    def cross_encoder_gain(self) -> tuple[float, float]:
        """By how many nats the cross-encoder lowers the mean log loss of held-out lists.

        Returns:
            The nats, infinite if there is too little data to hold out, and their standard error, by
            document.
        """
        if not self.full_fit.without:
            return np.inf, 0.0
        lists = self.data.lists
        usable = self.data.usable
        gains = np.zeros(len(lists))
        for scores in self.held_out(self.full_fit):
            assert scores.list_utilities is not None
            labels = lists.labels[scores.rows]
            without = _list_losses(scores.list_utilities, labels, scores.table)
            gains[scores.mentions] = without - _list_losses(scores.utilities, labels, scores.table)
        gains = gains[usable]
        index, documents = document_index(lists.annotations.documents[usable])
        deviations = np.bincount(index, gains - gains.mean(), documents)
        variance = (deviations**2).sum() * documents / max(documents - 1, 1)
        return float(gains.mean()), float(np.sqrt(variance) / len(index))

    def pruning_cost(self) -> dict[str, float]:
        """Shares of the candidates that are scored, and of top candidates that pruning changes.

        The latter is of the lists that were scored whole.
        """
        scored = 0
        changed = 0
        whole_lists = 0
        for scores in self.held_out(self.full_fit):
            logits = self.logits[scores.rows]
            is_whole = ~lists_with_any(np.isnan(logits), scores.table.offsets)
            whole = scores.model.utilities(scores.table, np.nan_to_num(logits), None)
            top = best_candidates(whole, scores.table.offsets)
            served_top = best_candidates(scores.utilities, scores.table.offsets)
            changed += np.count_nonzero((top != served_top) & is_whole)
            whole_lists += np.count_nonzero(is_whole)
            scored += np.count_nonzero(~np.isnan(scores.logits))
        return {
            "scored": scored / max(1, len(self.logits)),
            "changed_top": changed / max(1, whole_lists),
        }

    def scores_by(self, fit: NestedFit, mentions: np.ndarray) -> FoldScores:
        """What a fit makes of some mentions, (n,) bool; of these, logits of what it retains."""
        model = fit.model
        table = self.data.table.take(mentions)
        rows = mentions[self.data.lists.owner]
        list_utilities = model.list_utilities(table)
        retained = model.keep_candidates(table, list_utilities)
        logits = np.where(retained, self.logits[rows], np.float32(np.nan))
        is_legible = ~lists_with_any(retained & np.isnan(logits), table.offsets)
        return FoldScores(model, mentions, rows, table, logits, list_utilities, is_legible)


def _fit_each(fit: FitModel, left_out: Sequence[LeftOut]) -> dict[LeftOut, CalibratedModel]:
    """Fit on all mentions, then from that fit in parallel without each of the folds left out.

    Folds without which there is too little data are missing in what is returned.
    """
    full_model = fit((), CalibratedModel())

    def fit_without(folds: LeftOut) -> CalibratedModel | None:
        with suppress(TooLittleData):
            return fit(folds, full_model)
        return None

    some = [folds for folds in left_out if folds]
    fitted = zip(some, map_in_order(fit_without, some), strict=True)
    models: dict[LeftOut, CalibratedModel] = {(): full_model}
    for folds, model in progress(fitted, total=len(some), desc="fitting weights", unit=" fits"):
        if model is not None:
            models[folds] = model
    return models


def _fit_as_served(
    names: Sequence[str],
    table: FeatureTable,
    gold: np.ndarray,
    model: CalibratedModel,
    start: FeatureFusion | None,
) -> FeatureFusion:
    """Fit the fusion of all features on lists as they are served: pruned by the list fusion.

    Args:
        names: all features.
        table: their values in n lists.
        gold: (n,) position of the gold concept in its list, -1 if missing.
        model: the model with its list fusion, if it has one.
        start: weights of the same features to start from.
    """
    logits = table.candidates[CROSS_ENCODER]
    list_utilities = model.list_utilities(table)
    if list_utilities is None:
        table = table.plus({CROSS_ENCODER: with_lowest_logit(logits)})
        return FeatureFusion.fit(names, table, gold, start)
    retained = model.keep_candidates(table, list_utilities) & ~np.isnan(logits)
    # Lists that the cross-encoder cannot read are decided by the list fusion.
    fitted = lists_with_any(retained, table.offsets) | (np.diff(table.offsets) == 0)
    positions = _positions_among(retained, table.offsets, gold)
    return FeatureFusion.fit(
        names,
        table.take(fitted, retained),
        positions[fitted],
        start,
        _pruned_mass(list_utilities, retained, table.offsets)[fitted],
    )


def _pruned_mass(utility: np.ndarray, retained: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(n,) sum of exp over each list's pruned candidates, which no weight of the fusion changes."""
    # More than e^50 would overflow and makes no difference.
    return np.expm1(np.minimum(log_sums(np.where(retained, -np.inf, utility), offsets), 50.0))


def _positions_among(retained: np.ndarray, offsets: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """(n,) position of the gold concept among the retained candidates of its list, -1 if pruned."""
    before = list_offsets(retained)
    row = offsets[:-1] + gold
    is_there = (gold >= 0) & np.append(retained, False)[row]
    return np.where(is_there, before[row] - before[offsets[:-1]], -1)


def _list_losses(utility: np.ndarray, labels: np.ndarray, table: FeatureTable) -> np.ndarray:
    """Log loss of each list, (n,)."""
    gold = np.bincount(table.owner, labels * utility, len(table.offsets) - 1)
    return log_sums(utility, table.offsets) - gold
