"""Fusions of one set of features: fitted on all documents, and on those outside each fold and each pair of folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple, TypeAlias

import numpy as np

from ..core.arrays import best_candidates, list_offsets, list_sizes
from ..core.errors import UserError
from ..data.candidate_lists import AnnotatedLists
from ..data.parallel import map_in_order
from .choice import log_sums
from .fusion import FeatureFusion
from .probabilities import InputModel, Part

__all__ = ["CrossFitting", "Fusions", "LeftOut", "fit_weights"]

# Features that need the mention's semantic type.
TYPE_FEATURES = ("type_lift", "type_fit")
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


@dataclass(frozen=True)
class CrossFitting:
    """Calibration lists with one set of features.

    Attributes:
        lists: without inputs that no feature reads.
        logits: (m,).
        names: of the features; none if the cross-encoder alone decides.
        columns, about: these features except the cross-encoder, and those of lists.
        folds: (n,) of the mentions.
        usable: (n,) bool, mentions to fit on: others decide about those that lack types.
        exhaustive: whether all candidates are to be scored.
        fusions: by the folds left out; None where there is too little data.
    """

    lists: AnnotatedLists
    logits: np.ndarray
    names: Sequence[str]
    columns: Mapping[str, np.ndarray]
    about: Mapping[str, np.ndarray]
    folds: np.ndarray
    usable: np.ndarray
    exhaustive: bool
    fusions: dict[LeftOut, Fusions | None] = field(default_factory=dict)

    def fit(self) -> None:
        """Fit all fusions, by one thread per core.

        Raises:
            UserError: there is too little data for those of all documents.
        """
        if not self.names:
            return
        start = self.fusions[()] = self._fit(())
        folds = range(self.folds.max() + 1)
        left_out = [*combinations(folds, 1), *combinations(folds, 2)] if len(folds) > 1 else []

        def attempt(left_out: LeftOut) -> Fusions | None:
            with suppress(UserError):
                return self._fit(left_out, start)
            return None

        self.fusions.update(zip(left_out, map_in_order(attempt, left_out), strict=True))

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
            return self._of(self.fusions[left_out], inside)
        utility = np.empty(len(self.logits))
        for fold, fitted in zip(rest, fusions, strict=True):
            held_out = inside & (self.folds == fold)
            utility[held_out[self.lists.owner]] = self._of(fitted, held_out)
        return utility[inside[self.lists.owner]]

    def _of(self, fitted: Fusions | None, inside: np.ndarray) -> np.ndarray:
        part = self._part(fitted, inside)
        return part.utilities(np.where(part.kept(part.model.cut), self.logits[part.rows], np.nan))[0]

    def _part(self, fitted: Fusions | None, inside: np.ndarray) -> Part:
        assert fitted is not None
        model = InputModel(fusion=fitted.whole, baseline=fitted.baseline, cut=fitted.cut)
        return Part.of(model, self.lists, self.columns, self.about, inside)

    def _cut(self, fitted: Fusions, inside: np.ndarray) -> float:
        """The highest of `CUTS` that keeps to its limits on the lists that the fusions were fitted on, or 0."""
        if fitted.baseline is None or self.exhaustive or not self.folds.any():
            return 0.0
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
            cut_off = results(np.where(part.kept(cut), logits, np.nan))
            if (
                (cut_off[0] == whole[0]).mean() >= LEAST_SAME_FIRST
                and (whole[1] - cut_off[1]) / lists <= MOST_LOST
                and (cut_off[2] - whole[2]) / lists <= MOST_NATS_LOST
            ):
                return cut
        return 0.0

    def _fit(self, left_out: LeftOut, start: Fusions | None = None) -> Fusions:
        inside = self.inside(left_out)
        rows, offsets = inside[self.lists.owner], list_offsets(list_sizes(self.lists.offsets)[inside])
        columns = {"cross_encoder": self.logits[rows]} | {name: column[rows] for name, column in self.columns.items()}
        about, gold = (
            {name: column[inside] for name, column in self.about.items()},
            self.lists.annotations.gold[inside],
        )
        others = [name for name in self.names if name != "cross_encoder"]
        fitted = Fusions(
            fit_weights(self.names, columns, about, offsets, gold, start and start.whole),
            fit_weights(others, columns, about, offsets, gold, start and start.baseline)
            if 0 < len(others) < len(self.names)
            else None,
        )
        return fitted._replace(cut=self._cut(fitted, inside))


def fit_weights(
    names: Sequence[str],
    columns: Mapping[str, np.ndarray],
    about: Mapping[str, np.ndarray],
    offsets: np.ndarray,
    gold: np.ndarray,
    start: FeatureFusion | None = None,
) -> FeatureFusion:
    """`FeatureFusion.fit` of some of the columns; a calibration mention without types supports no candidate."""
    given = {name: np.nan_to_num(columns[name]) if name in TYPE_FEATURES else columns[name] for name in names}
    return FeatureFusion.fit(given, about, offsets, gold, start)
