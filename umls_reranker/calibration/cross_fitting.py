"""Fusions of one set of features: fitted on all documents, and on those outside each fold and each pair of folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple, TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits

from ..core.arrays import best_candidates, list_offsets, list_sizes
from ..core.errors import UserError
from ..core.sockets import CROSS_ENCODER, FEATURES
from ..data.candidate_lists import AnnotatedLists
from ..data.parallel import map_in_order
from .choice import log_sums
from .fusion import FeatureFusion
from .probabilities import InputModel, Part

__all__ = ["CrossFitting", "Fusions", "LeftOut", "fit_weights", "reads_type"]

# What a cut on the probability without the cross-encoder may be, and what it has to keep of scoring all: the share of
# mentions with the same first candidate; acc@1 but for this much; and the mean log loss of a list but for these nats,
# which is what one calibrator is better than another.
CUTS = (0.01, 0.003, 0.001, 0.0003)
LEAST_SAME_FIRST, MOST_LOST, MOST_NATS_LOST = 0.995, 0.002, 0.002
# Folds that a fit leaves out, ascending: none for the model that is served, one for the model that decides about that
# fold, two for the utilities that such a model's calibrator is fitted on.
LeftOut: TypeAlias = tuple[int, ...]


class Fusions(NamedTuple):
    """What was fitted on the documents outside some folds.

    Attributes:
        whole: of all features.
        baseline: of all but the cross-encoder; None if there is nothing else, or nothing but these.
        cut: candidates of a lower probability by the baseline are left unscored; 0 scores all.
    """

    whole: FeatureFusion
    baseline: FeatureFusion | None
    cut: float = 0.0


@dataclass
class CrossFitting:
    """Calibration lists with one set of features, to score and to fit fusions on.

    Fusions are fitted on lists as they are served, with the logits of only those candidates that the baseline retains:
    all from a probability on that is chosen on a sample of the lists, which is scored whole.

    Attributes:
        lists: without inputs that no feature reads.
        score: gives (m,) logits, at least of the candidates that are true in (m,) bool.
        names: of the features; none if the cross-encoder alone decides.
        columns, about: these features except the cross-encoder, and those of lists.
        folds: (n,) of the mentions.
        usable: (n,) bool, mentions to fit on: others decide about those that lack types.
        sample: (n,) bool, mentions whose lists are scored whole.
        exhaustive: whether all lists are, and served so.
        logits: (m,), NaN of candidates that nothing needed.
        fusions: by the folds left out; None where there is too little data.
    """

    lists: AnnotatedLists
    score: Callable[[np.ndarray], np.ndarray]
    names: Sequence[str]
    columns: Mapping[str, np.ndarray]
    about: Mapping[str, np.ndarray]
    folds: np.ndarray
    usable: np.ndarray
    sample: np.ndarray
    exhaustive: bool
    logits: np.ndarray = field(init=False)
    fusions: dict[LeftOut, Fusions | None] = field(init=False, default_factory=dict)

    @property
    def others(self) -> list[str]:
        """The features of the baseline."""
        others = [name for name in self.names if name != CROSS_ENCODER]
        return others if len(others) < len(self.names) else []

    def fit(self) -> None:
        """Score candidates as far as they are needed, and fit all fusions.

        Raises:
            UserError: there is too little data for those of all documents.
        """
        if not self.others or self.exhaustive or not self.folds.any():
            self._score(np.ones(len(self.lists.owner), bool))
            self.fusions = self._each(self._fit_whole) if self.names else {}
            return
        wanted = self.sample[self.lists.owner]
        self._score(wanted)
        chosen = self._each(self._choose)

        def retained(fitted: Fusions) -> np.ndarray:
            return self._part(fitted, None).kept(fitted.cut)

        for rows in map_in_order(retained, filter(None, chosen.values())):
            wanted = wanted | rows
        self._score(wanted)
        self.fusions = self._each(lambda left_out, start: self._fit_served(left_out, start, chosen[left_out]))

    def inside(self, left_out: LeftOut) -> np.ndarray:
        """(n,) bool, usable mentions outside some folds."""
        return self.usable & ~np.isin(self.folds, left_out)

    def utilities(self, left_out: LeftOut) -> np.ndarray:
        """Log-odds against "none of these" of the candidates of mentions `inside`: what a calibrator is fitted on.

        The utilities of each fold are those by the fusion that left it out too. A fusion's own lists look better
        separated by it than others do, the more so the fewer they are. If there is nothing to hold out, they are its
        own.
        """
        inside = self.inside(left_out)
        if not self.names:
            return self.logits[inside[self.lists.owner]]
        rest = [fold for fold in range(self.folds.max() + 1) if fold not in left_out]
        fusions = [self.fusions.get(tuple(sorted((*left_out, fold)))) for fold in rest]
        if None in fusions or len(rest) < 2:
            return self._utilities(self.fusions[left_out], inside)
        utility = np.empty(len(self.logits))
        for fold, fitted in zip(rest, fusions, strict=True):
            held_out = inside & (self.folds == fold)
            utility[held_out[self.lists.owner]] = self._utilities(fitted, held_out)
        return utility[inside[self.lists.owner]]

    def _score(self, wanted: np.ndarray) -> None:
        """So that nothing depends on what else was scored, such as for another model."""
        self.logits = np.where(wanted, self.score(wanted), np.float32(np.nan))

    def _each(self, fit: Callable[[LeftOut, Fusions | None], Fusions]) -> dict[LeftOut, Fusions | None]:
        """A fit on all mentions, and from this start those without each fold and each two, by one thread per core."""
        folds = range(self.folds.max() + 1)
        left_out = [*combinations(folds, 1), *combinations(folds, 2)] if len(folds) > 1 else []

        def attempt(left_out: LeftOut) -> Fusions | None:
            with suppress(UserError):
                return fit(left_out, start)
            return None

        # Threads of the matrix products next to those of the fits would wait for each other most of the time.
        with threadpool_limits(1, "blas"):
            start = fit((), None)
            return {(): start} | dict(zip(left_out, map_in_order(attempt, left_out), strict=True))

    def _fit_whole(self, left_out: LeftOut, start: Fusions | None) -> Fusions:
        """On lists scored whole."""
        inside = self.inside(left_out)
        return Fusions(
            self._weights(self.names, inside, start and start.whole),
            self._weights(self.others, inside, start and start.baseline) if self.others else None,
        )

    def _choose(self, left_out: LeftOut, start: Fusions | None) -> Fusions:
        """The baseline, and by lists scored whole a fusion and the cut.

        The served baseline is fitted on all mentions, since the cross-encoder is compared with it too; those of folds
        on the sample, in a fifth of the time, and they retain about the same candidates.
        """
        inside = self.inside(left_out)
        whole = inside & self.sample
        fitted = Fusions(
            self._weights(self.names, whole, start and start.whole),
            self._weights(self.others, whole if left_out else inside, start and start.baseline),
        )
        return fitted._replace(cut=self._cut(fitted, whole))

    def _fit_served(self, left_out: LeftOut, start: Fusions | None, chosen: Fusions | None) -> Fusions:
        """On lists scored as far as the cut goes."""
        if chosen is None:
            raise UserError("too few documents outside a fold")
        inside = self.inside(left_out)
        part = self._part(chosen, inside)
        logits = self._retained(part)
        scored = ~np.isnan(logits)
        if scored.all() and self.sample[inside].all():
            return chosen
        utility, _ = part.utilities(logits)
        # Those that are pruned are served with utilities that no weight changes.
        # More than e^50 would overflow, and weighs no less.
        pruned = np.expm1(np.minimum(log_sums(np.where(scored, -np.inf, utility), part.offsets), 50.0))
        whole = self._weights(self.names, inside, start.whole if start else chosen.whole, scored, pruned)
        return chosen._replace(whole=whole)

    def _weights(
        self,
        names: Sequence[str],
        inside: np.ndarray,
        start: FeatureFusion | None,
        scored: np.ndarray | None = None,
        pruned: np.ndarray | None = None,
    ) -> FeatureFusion:
        """Of some features, on the mentions `inside`.

        Args:
            scored: those of their candidates to fit on; None: all.
            pruned: as of `FeatureFusion.fit`.
        """
        rows, offsets, gold = inside[self.lists.owner], self.lists.offsets, self.lists.annotations.gold
        if scored is not None:
            rows[rows] = scored
        before = list_offsets(rows)
        starts, at = before[offsets], offsets[:-1] + gold
        gold = np.where((gold >= 0) & np.append(rows, False)[at], before[at] - starts[:-1], -1)
        columns = {CROSS_ENCODER: self.logits, **self.columns}
        return fit_weights(
            names,
            {name: columns[name][rows] for name in names},
            {name: column[inside] for name, column in self.about.items()},
            list_offsets(list_sizes(starts)[inside]),
            gold[inside],
            start,
            pruned,
        )

    def _cut(self, fitted: Fusions, inside: np.ndarray) -> float:
        """The highest of `CUTS` that keeps to its limits on these lists, which are scored whole, or 0."""
        part = self._part(fitted, inside)
        logits, labels = self.logits[part.rows], self.lists.labels[part.rows]

        def results(logits: np.ndarray) -> tuple[np.ndarray, float, float]:
            """Each list's first candidate, how many are right, and the log loss of all lists."""
            utility, _ = part.utilities(logits)
            first = best_candidates(utility, part.offsets)
            loss = log_sums(utility, part.offsets).sum() - labels @ utility
            return first, labels[first[first >= 0]].sum(), loss

        lists, whole = len(part.offsets) - 1, results(logits)
        for cut in CUTS:
            cut_off = results(np.where(part.kept(cut), logits, np.float32(np.nan)))
            if (
                (cut_off[0] == whole[0]).mean() >= LEAST_SAME_FIRST
                and (whole[1] - cut_off[1]) / lists <= MOST_LOST
                and (cut_off[2] - whole[2]) / lists <= MOST_NATS_LOST
            ):
                return cut
        return 0.0

    def _utilities(self, fitted: Fusions | None, inside: np.ndarray) -> np.ndarray:
        part = self._part(fitted, inside)
        return part.utilities(self._retained(part))[0]

    def _retained(self, part: Part) -> np.ndarray:
        """Logits of the candidates that the network scores."""
        return np.where(part.kept(part.model.cut), self.logits[part.rows], np.float32(np.nan))

    def _part(self, fitted: Fusions | None, inside: np.ndarray | None) -> Part:
        assert fitted is not None
        model = InputModel(fusion=fitted.whole, baseline=fitted.baseline, cut=fitted.cut)
        return Part.of(model, self.lists, self.columns, self.about, inside)


def reads_type(feature: str) -> bool:
    """Whether a feature needs the mention's semantic type."""
    return feature in FEATURES and "entity_type" in FEATURES[feature].inputs


def fit_weights(
    names: Sequence[str],
    columns: Mapping[str, np.ndarray],
    about: Mapping[str, np.ndarray],
    offsets: np.ndarray,
    gold: np.ndarray,
    start: FeatureFusion | None = None,
    pruned: np.ndarray | None = None,
) -> FeatureFusion:
    """`FeatureFusion.fit` of some of the columns; a calibration mention without types supports no candidate."""
    given = {name: np.nan_to_num(columns[name]) if reads_type(name) else columns[name] for name in names}
    return FeatureFusion.fit(given, about, offsets, gold, start, pruned)
