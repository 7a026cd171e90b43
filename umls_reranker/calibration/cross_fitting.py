"""Fusions of one set of features, fitted on all documents, without each fold, and without each pair of folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits

from ..core.arrays import best_candidates, list_offsets
from ..core.cores import map_in_order
from ..core.errors import UserError
from ..core.progress import progress
from ..core.settings import CROSS_ENCODER
from ..data.candidate_lists import AnnotatedLists
from .features import FeatureTable
from .fusion import FeatureFusion
from .logistic import log_sums
from .probabilities import InputModel, Part
from .resampling import document_index

# What a threshold on the probability without the cross-encoder may be, and what it has to keep of scoring all: the
# share of mentions with the same top candidate; acc@1 but for this much; and the mean log loss of a list but for these
# nats, which is what one calibrator is better than another.
PRUNING_THRESHOLDS = (0.01, 0.003, 0.001, 0.0003)
LEAST_SAME_TOP, MOST_LOST, MOST_NATS_LOST = 0.995, 0.002, 0.002
# Folds that a fit leaves out, ascending: none for the model that is served, one for the model that decides about that
# fold, two for the utilities that such a model's calibrator is fitted on.
LeftOut: TypeAlias = tuple[int, ...]


class Gain(NamedTuple):
    """How much lower the mean log loss of held-out lists is with the cross-encoder than without, in nats.

    Attributes:
        nats: infinite if there is too little data to hold out; 0 if the fit gives the cross-encoder no weight.
        error: its standard error, by document.
    """

    nats: float
    error: float

    @property
    def is_worth_it(self) -> bool:
        """Whether the gain minus a standard error exceeds what one calibrator gains over another."""
        return self.nats - self.error > MOST_NATS_LOST


class NetworkChoice(NamedTuple):
    """Whether the cross-encoder is worth its time.

    Attributes:
        gains: gain by all documents, key (), for the served model; and by those outside a fold, key (fold,), for the
            model that decides about the fold.
    """

    gains: dict[LeftOut, Gain]

    def to_dict(self) -> dict[str, Any]:
        """The form for ``calibrator.json``."""
        gain, folds = self.gains[()], [left_out for left_out in self.gains if left_out]
        is_known = np.isfinite(gain.nats)
        return {
            "kept": gain.is_worth_it,
            "kept_in_folds": [self.gains[fold].is_worth_it for fold in folds],
            "nats_gained": gain.nats if is_known else None,
            "standard_error": gain.error if is_known else None,
        }


class _Results(NamedTuple):
    """Results of lists with the logits of some of their candidates.

    Attributes:
        top: (n,) index of each list's top candidate.
        correct: number of top candidates that are the gold concept.
        loss: log loss of all lists.
    """

    top: np.ndarray
    correct: float
    loss: float


@dataclass
class CrossFitting:
    """Calibration lists with one set of features, to score and to fit fusions on.

    A fit is a model without calibrator and thresholds: a fusion of all features, a baseline of all features but the
    cross-encoder, and a pruning threshold. Fusions are fitted on lists as they are served, with the logits of retained
    candidates only. The pruning threshold is chosen on a sample of the lists, of which all candidates are scored.

    Attributes:
        lists: the lists, without inputs that no feature reads.
        score: function that returns (m,) logits, at least of the candidates that are true in (m,) bool.
        names: names of the features; empty if the cross-encoder alone decides.
        table: these features except the cross-encoder.
        folds: (n,) fold of each mention.
        usable: (n,) bool, mentions to fit on; other models decide about mentions without types.
        sample: (n,) bool, mentions of which all candidates are scored.
        exhaustive: whether all candidates of all lists are scored, here and in serving.
        has_choice: whether the cross-encoder may be left out, so that all baselines are fitted on all data.
        logits: (m,) logits, NaN for candidates that were not needed.
        models: the fits by the folds left out; None where there is too little data.
        choice: whether the fits weigh the cross-encoder; None: they do.
    """

    lists: AnnotatedLists
    score: Callable[[np.ndarray], np.ndarray]
    names: Sequence[str]
    table: FeatureTable
    folds: np.ndarray
    usable: np.ndarray
    sample: np.ndarray
    exhaustive: bool
    has_choice: bool = False
    logits: np.ndarray = field(init=False)
    models: dict[LeftOut, InputModel | None] = field(init=False, default_factory=dict)
    choice: NetworkChoice | None = field(init=False, default=None)

    @property
    def baseline_names(self) -> list[str]:
        """The features of the baseline."""
        names = [name for name in self.names if name != CROSS_ENCODER]
        return names if len(names) < len(self.names) else []

    def fit(self) -> None:
        """Score the candidates that are needed, and fit all models.

        Raises:
            UserError: there is too little data for the fit on all documents.
        """
        if not self.baseline_names or self.exhaustive or not self.folds.any():
            self._score(np.ones(len(self.lists.owner), bool))
            self.models = self._each(self._fit_whole)
            return
        wanted = self.sample[self.lists.owner]
        self._score(wanted)
        chosen = self._each(self._choose)

        def retained(model: InputModel) -> np.ndarray:
            return Part.of(model, self.table).retained(model.pruning_threshold)

        for rows in map_in_order(retained, filter(None, chosen.values())):
            wanted = wanted | rows
        self._score(wanted)
        self.models = self._each(lambda left_out, start: self._fit_served(left_out, start, chosen[left_out]))

    def inside(self, left_out: LeftOut) -> np.ndarray:
        """The usable mentions outside some folds, (n,) bool."""
        return self.usable & ~np.isin(self.folds, left_out)

    def model(self, left_out: LeftOut) -> InputModel:
        """The fit on the mentions outside at most one fold, with or without the cross-encoder by `choice`.

        Raises:
            UserError: there is too little data, or nothing to weigh.
        """
        model = self.models[left_out]
        if model is None:
            raise UserError("too few documents to hold out a fold")
        return self._chosen(model, left_out)

    def _chosen(self, model: InputModel, left_out: LeftOut) -> InputModel:
        is_kept = self.choice is None or self.choice.gains[left_out].is_worth_it
        return model if is_kept else model.without_network

    def choose_network(self) -> NetworkChoice:
        """Decide whether the cross-encoder stays, for the served model and for each fold.

        The lists of a fold are judged by fits that left out both this fold and the fold that is decided about.
        """
        singles = combinations(range(self.folds.max() + 1), 1)
        return NetworkChoice({left_out: self._gain(left_out) for left_out in [(), *singles]})

    def _gain(self, left_out: LeftOut) -> Gain:
        fitted = self.models[left_out]
        if fitted and fitted.fusion and CROSS_ENCODER not in fitted.fusion.read:
            return Gain(0.0, 0.0)
        rest = [fold for fold in range(self.folds.max() + 1) if fold not in left_out]
        models = [self.models.get(tuple(sorted((*left_out, fold)))) for fold in rest]
        if None in models or len(rest) < 2 or not self.baseline_names:
            return Gain(np.inf, 0.0)
        gains, inside = np.zeros(len(self.lists)), self.inside(left_out)
        for fold, model in zip(rest, models, strict=True):
            assert model is not None
            held_out = inside & (self.folds == fold)
            gains[held_out] = self._losses(model.without_network, held_out) - self._losses(model, held_out)
        index, documents = document_index(self.lists.annotations.documents[inside])
        mean = gains[inside].mean()
        of_documents = np.bincount(index, gains[inside] - mean, documents)
        error = np.sqrt((of_documents**2).sum() * documents / max(documents - 1, 1)) / len(index)
        return Gain(float(mean), float(error))

    def _losses(self, model: InputModel, inside: np.ndarray) -> np.ndarray:
        """Log loss of each of some lists, (n,) bool."""
        part, logits = self._part(model, inside)
        utility, offsets = part.utilities(logits), part.table.offsets
        of_gold = np.bincount(part.table.owner, self.lists.labels[part.rows] * utility, len(offsets) - 1)
        return log_sums(utility, offsets) - of_gold

    def utilities(self, left_out: LeftOut) -> np.ndarray:
        """Log-odds against "none of these" of the candidates of mentions `inside`, to fit a calibrator on.

        The utilities of each fold come from the fusion that also left this fold out, because a fusion separates its
        own lists better than others, the more so the fewer they are. If no fold can be held out, they come from the
        fusion of all.
        """
        inside = self.inside(left_out)
        if not self.names:
            return self.logits[inside[self.lists.owner]]
        rest = [fold for fold in range(self.folds.max() + 1) if fold not in left_out]
        models = [self.models.get(tuple(sorted((*left_out, fold)))) for fold in rest]
        if None in models or len(rest) < 2:
            return self._utilities(self.model(left_out), inside)
        utility = np.empty(len(self.logits))
        for fold, model in zip(rest, models, strict=True):
            assert model is not None
            held_out = inside & (self.folds == fold)
            utility[held_out[self.lists.owner]] = self._utilities(self._chosen(model, left_out), held_out)
        return utility[inside[self.lists.owner]]

    def _score(self, wanted: np.ndarray) -> None:
        """Score some candidates, so that nothing depends on what was scored for another model."""
        self.logits = np.where(wanted, self.score(wanted), np.float32(np.nan))

    def _each(self, fit: Callable[[LeftOut, InputModel | None], InputModel]) -> dict[LeftOut, InputModel | None]:
        """Fit on all mentions, then from this start without each fold and each pair, with one thread per core."""
        folds = range(self.folds.max() + 1)
        left_out = [*combinations(folds, 1), *combinations(folds, 2)] if len(folds) > 1 else []

        def attempt(left_out: LeftOut) -> InputModel | None:
            with suppress(UserError):
                return fit(left_out, start)
            return None

        # Threads of the matrix products next to those of the fits would wait for each other most of the time.
        with (
            threadpool_limits(1, "blas"),
            progress(total=1 + len(left_out), desc="fitting weights", unit=" fits") as bar,
        ):
            start = fit((), None)
            bar.update()
            models: dict[LeftOut, InputModel | None] = {(): start}
            for folds_left_out, model in zip(left_out, map_in_order(attempt, left_out), strict=True):
                models[folds_left_out] = model
                bar.update()
        return models

    def _fit_whole(self, left_out: LeftOut, start: InputModel | None) -> InputModel:
        """Fit on lists of which all candidates are scored."""
        inside = self.inside(left_out)
        return InputModel(
            fusion=self._weights(self.names, inside, start.fusion if start else None),
            baseline=self._weights(self.baseline_names, inside, start.baseline if start else None),
        )

    def _choose(self, left_out: LeftOut, start: InputModel | None) -> InputModel:
        """Fit the baseline, and on the sample a fusion and the pruning threshold.

        The served baseline is fitted on all mentions, since the cross-encoder is also compared with it. So are the
        baselines of folds if the cross-encoder may be left out; otherwise they are fitted on the sample, in a fifth of
        the time, and retain about the same candidates.
        """
        inside = self.inside(left_out)
        whole = inside & self.sample
        fusion = self._weights(self.names, whole, start.fusion if start else None)
        for_baseline = whole if left_out and not self.has_choice else inside
        baseline = self._weights(self.baseline_names, for_baseline, start.baseline if start else None)
        model = InputModel(fusion=fusion, baseline=baseline)
        return replace(model, pruning_threshold=self._pruning_threshold(model, whole))

    def _fit_served(self, left_out: LeftOut, start: InputModel | None, chosen: InputModel | None) -> InputModel:
        """Fit on lists of which the candidates above the pruning threshold are scored."""
        if chosen is None:
            raise UserError("too few documents outside a fold")
        inside = self.inside(left_out)
        part, logits = self._part(chosen, inside)
        scored = ~np.isnan(logits)
        if scored.all() and self.sample[inside].all():
            return chosen
        # Pruned candidates are served with utilities that no weight changes. More than e^50 would overflow and makes
        # no difference.
        sums = log_sums(np.where(scored, -np.inf, part.utilities(logits)), part.table.offsets)
        pruned = np.expm1(np.minimum(sums, 50.0))
        fusion = self._weights(self.names, inside, (start or chosen).fusion, scored, pruned)
        return replace(chosen, fusion=fusion)

    def _weights(
        self,
        names: Sequence[str],
        inside: np.ndarray,
        start: FeatureFusion | None,
        scored: np.ndarray | None = None,
        pruned: np.ndarray | None = None,
    ) -> FeatureFusion | None:
        """Fit the weights of some features on the mentions `inside`; None without features.

        Args:
            names: names of the features.
            inside: (n,) bool, the mentions.
            start: as for `FeatureFusion.fit`.
            scored: their candidates to fit on; None: all.
            pruned: as for `FeatureFusion.fit`.
        """
        if not names:
            return None
        rows, offsets, gold = inside[self.lists.owner], self.lists.offsets, self.lists.annotations.gold
        if scored is not None:
            rows[rows] = scored
        # The position of the gold concept among the candidates used for fitting.
        before = list_offsets(rows)
        at = offsets[:-1] + gold
        gold = np.where((gold >= 0) & np.append(rows, False)[at], before[at] - before[offsets[:-1]], -1)
        columns = {CROSS_ENCODER: self.logits, **self.table.candidates}
        table = replace(self.table, candidates={name: columns[name] for name in names}).take(inside, rows)
        return FeatureFusion.fit(names, table, gold[inside], start, pruned)

    def _pruning_threshold(self, model: InputModel, inside: np.ndarray) -> float:
        """The highest threshold within the limits on these lists, of which all candidates are scored, or 0."""
        part, logits = self._part(model, inside)
        offsets, labels = part.table.offsets, self.lists.labels[part.rows]

        def results(logits: np.ndarray) -> _Results:
            utility = part.utilities(logits)
            top = best_candidates(utility, offsets)
            return _Results(top, labels[top[top >= 0]].sum(), log_sums(utility, offsets).sum() - labels @ utility)

        lists, whole = len(offsets) - 1, results(logits)
        for threshold in PRUNING_THRESHOLDS:
            served = results(np.where(part.retained(threshold), logits, np.float32(np.nan)))
            if (
                (served.top == whole.top).mean() >= LEAST_SAME_TOP
                and (whole.correct - served.correct) / lists <= MOST_LOST
                and (served.loss - whole.loss) / lists <= MOST_NATS_LOST
            ):
                return threshold
        return 0.0

    def _utilities(self, model: InputModel, inside: np.ndarray) -> np.ndarray:
        part, logits = self._part(model, inside)
        return part.utilities(logits)

    def _part(self, model: InputModel, inside: np.ndarray) -> tuple[Part, np.ndarray]:
        """Some mentions, and the logits of the candidates that the network scores."""
        part = Part.of(model, self.table, inside)
        retained = part.retained(model.pruning_threshold)
        return part, np.where(retained, self.logits[part.rows], np.float32(np.nan))
