"""Fusions of one set of features, fitted on all documents, without each fold, and without each pair of folds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple, TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits

from ..core.arrays import best_candidates, list_offsets, list_sizes, map_in_order
from ..core.errors import UserError
from ..core.progress import progress
from ..lists.candidate_lists import AnnotatedLists
from .calibrators import Sample
from .features import CROSS_ENCODER, FeatureTable
from .fusion import FeatureFusion
from .logistic import log_sums
from .probabilities import CalibratedModel
from .resampling import document_index

# The cross-encoder is worth its time if it lowers the mean log loss of held-out lists by more than these nats, which
# is what one calibrator is better than another.
MOST_NATS_LOST = 0.002
# Folds that a fit leaves out, ascending: none for the model that is served, one for the scores of held-out documents,
# two for the utilities that such a fold's calibrator is fitted on.
LeftOut: TypeAlias = tuple[int, ...]


class Gain(NamedTuple):
    """How much lower the mean log loss of held-out lists is with the cross-encoder than without, in nats.

    Attributes:
        nats: infinite if there is too little data to hold out.
        error: its standard error, by document.
    """

    nats: float
    error: float

    @property
    def is_worth_it(self) -> bool:
        """Whether the gain minus a standard error exceeds `MOST_NATS_LOST`."""
        return self.nats - self.error > MOST_NATS_LOST


class Part(NamedTuple):
    """Scores of the candidates of some mentions by a fit that may not have seen them.

    Attributes:
        model: the fit.
        mentions: (n,) bool, the mentions.
        rows: (m,) bool, their candidates among all.
        table: their features.
        logits: their logits, NaN for pruned ones.
        list_utilities: their utilities by the fit's list fusion; None without one.
    """

    model: CalibratedModel
    mentions: np.ndarray
    rows: np.ndarray
    table: FeatureTable
    logits: np.ndarray
    list_utilities: np.ndarray | None

    @property
    def utilities(self) -> np.ndarray:
        """Log-odds against NIL."""
        return self.model.utilities(self.table, self.logits, self.list_utilities)


@dataclass(frozen=True)
class CrossFits:
    """Calibration lists with one set of features, and fusions of these features.

    Attributes:
        lists: n lists, without inputs that no feature reads.
        logits: (m,) logits of all candidates; NaN without a cross-encoder.
        table: their other features.
        folds: (n,) fold of each mention.
        usable: (n,) bool, mentions to fit on; other models decide about mentions without types.
        models: the fits by the folds left out, without calibrator and thresholds; None where there is too little data.
    """

    lists: AnnotatedLists
    logits: np.ndarray
    table: FeatureTable
    folds: np.ndarray
    usable: np.ndarray
    models: dict[LeftOut, CalibratedModel | None]

    @classmethod
    def fit(
        cls,
        lists: AnnotatedLists,
        logits: np.ndarray,
        table: FeatureTable,
        folds: np.ndarray,
        usable: np.ndarray,
        names: Sequence[str],
    ) -> CrossFits:
        """Fit on all mentions, then from this start without each fold and each pair, with one thread per core.

        Arguments are as for the attributes; `names` are the features, none if the cross-encoder decides alone.

        Raises:
            UserError: there is too little data for the fit on all documents.
        """
        fits = cls(lists, logits, table, folds, usable, {})
        every = range(folds.max() + 1)
        left_out = [*combinations(every, 1), *combinations(every, 2)] if len(every) > 1 else []

        def attempt(left_out: LeftOut) -> CalibratedModel | None:
            with suppress(UserError):
                return fits._weighed(names, left_out, start)
            return None

        # Threads of the matrix products next to those of the fits would wait for each other most of the time.
        with threadpool_limits(1, "blas"):
            start = fits._weighed(names, (), CalibratedModel())
            fitted = map_in_order(attempt, left_out)
            bar = progress(
                zip(left_out, fitted, strict=True), total=len(left_out), desc="fitting weights", unit=" fits"
            )
            return replace(fits, models={(): start, **dict(bar)})

    def _weighed(self, names: Sequence[str], left_out: LeftOut, start: CalibratedModel) -> CalibratedModel:
        """Fit the fusion and the list fusion on mentions as they are served: without logits of pruned candidates.

        Args:
            names: as for `fit`.
            left_out: the folds left out.
            start: a fit of the same features to start from.
        """
        list_names = [name for name in names if name != CROSS_ENCODER]
        if not names:
            return CalibratedModel()
        inside = self.inside(left_out)
        table, gold = self.table.take(inside), self.lists.annotations.gold[inside]
        if list_names == list(names):
            return CalibratedModel(fusion=FeatureFusion.fit(names, table, gold, start.fusion))
        table = table.plus({CROSS_ENCODER: self.logits[inside[self.lists.owner]]})
        if not list_names:
            return CalibratedModel(fusion=FeatureFusion.fit(names, table, gold, start.fusion))
        list_fusion = FeatureFusion.fit(list_names, table, gold, start.list_fusion)
        model = CalibratedModel(list_fusion=list_fusion)
        list_utilities = list_fusion.utilities(table)
        retained = model.keep_candidates(table, list_utilities)
        # Pruned candidates are served with utilities that no weight changes. More than e^50 would overflow and makes
        # no difference.
        sums = log_sums(np.where(retained, -np.inf, list_utilities), table.offsets)
        pruned = np.expm1(np.minimum(sums, 50.0))
        before = list_offsets(retained)
        at = table.offsets[:-1] + gold
        gold = np.where((gold >= 0) & np.append(retained, False)[at], before[at] - before[table.offsets[:-1]], -1)
        served = table.take(np.ones(len(gold), bool), retained)
        return replace(model, fusion=FeatureFusion.fit(names, served, gold, start.fusion, pruned))

    @property
    def served(self) -> CalibratedModel:
        """The fit on all documents."""
        assert self.models[()] is not None  # or `fit` has failed
        return self.models[()]

    @property
    def list_fusion_alone(self) -> CrossFits:
        """The fits of the list fusion alone."""
        models = {left_out: model and model.list_fusion_alone for left_out, model in self.models.items()}
        return replace(self, models=models)

    def inside(self, left_out: LeftOut) -> np.ndarray:
        """The usable mentions outside some folds, (n,) bool."""
        return self.usable & ~np.isin(self.folds, left_out)

    def held_out(self, left_out: LeftOut = ()) -> list[Part]:
        """The mentions of each fold that is not left out, each by the fit without this fold and those left out.

        If no fold can be held out, all mentions by the fit on all.
        """
        rest = [fold for fold in range(self.folds.max() + 1) if fold not in left_out]
        models = [self.models.get(tuple(sorted((*left_out, fold)))) for fold in rest]
        if None in models or len(rest) < 2:
            return [self.part(self.models[left_out], ~np.isin(self.folds, left_out))]
        return [self.part(model, self.folds == fold) for model, fold in zip(models, rest, strict=True)]

    def sample(self, left_out: LeftOut = ()) -> Sample:
        """Utilities of the mentions outside some folds to fit a calibrator on, by fusions that have not seen them.

        A fusion separates its own lists better than others, the more so the fewer they are.
        """
        utility, inside = np.empty(len(self.logits)), self.inside(left_out)
        for part in self.held_out(left_out):
            utility[part.rows] = part.utilities
        rows = inside[self.lists.owner]
        offsets = list_offsets(list_sizes(self.lists.offsets)[inside]) if self.served.fusion else None
        return Sample(utility[rows], self.lists.labels[rows], offsets)

    def cross_encoder_gain(self) -> Gain:
        """By how much the cross-encoder lowers the log loss of held-out lists."""
        if len(parts := self.held_out()) < 2:
            return Gain(np.inf, 0.0)
        gains = np.zeros(len(self.lists))
        for part in parts:
            assert part.list_utilities is not None
            labels = self.lists.labels[part.rows]
            losses = (_losses(utility, labels, part.table) for utility in (part.list_utilities, part.utilities))
            gains[part.mentions] = np.subtract(*losses)
        gains = gains[self.usable]
        index, documents = document_index(self.lists.annotations.documents[self.usable])
        of_documents = np.bincount(index, gains - gains.mean(), documents)
        error = np.sqrt((of_documents**2).sum() * documents / max(documents - 1, 1)) / len(index)
        return Gain(float(gains.mean()), float(error))

    def pruning_cost(self) -> dict[str, float]:
        """Shares of the candidates that the cross-encoder scores, and of top candidates that pruning changes."""
        scored, changed = 0, 0
        for part in self.held_out():
            whole = part.model.utilities(part.table, self.logits[part.rows], None)
            tops = (best_candidates(utility, part.table.offsets) for utility in (whole, part.utilities))
            changed += np.count_nonzero(np.not_equal(*tops))
            scored += np.count_nonzero(~np.isnan(part.logits))
        return {"scored": scored / max(1, len(self.logits)), "changed_top": changed / len(self.lists)}

    def part(self, model: CalibratedModel | None, mentions: np.ndarray) -> Part:
        """Some mentions, (n,) bool, and the logits of the candidates that the cross-encoder scores."""
        if model is None:
            raise UserError("too few documents to hold out a fold")
        table, rows = self.table.take(mentions), mentions[self.lists.owner]
        list_utilities = model.list_fusion.utilities(table) if model.list_fusion else None
        logits = np.where(model.keep_candidates(table, list_utilities), self.logits[rows], np.float32(np.nan))
        return Part(model, mentions, rows, table, logits, list_utilities)


def _losses(utility: np.ndarray, labels: np.ndarray, table: FeatureTable) -> np.ndarray:
    """Log loss of each list, (n,)."""
    return log_sums(utility, table.offsets) - np.bincount(table.owner, labels * utility, len(table.offsets) - 1)
