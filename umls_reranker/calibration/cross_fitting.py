"""Fusions of one set of features: fitted on all documents, and on those outside each fold and each pair of folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple, TypeAlias

import numpy as np

from ..core.arrays import list_offsets, list_sizes
from ..core.errors import UserError
from ..data.candidate_lists import AnnotatedLists
from ..data.parallel import map_in_order
from .fusion import FeatureFusion
from .probabilities import InputModel, Part

__all__ = ["CrossFitting", "Fusions", "LeftOut", "fit_weights"]

# Features that need the mention's semantic type.
TYPE_FEATURES = ("type_lift", "type_fit")
# Folds that a fit leaves out, ascending: none for the model that is served, one for the model that decides about that
# fold, two for the utilities that such a model's calibrator is fitted on.
LeftOut: TypeAlias = tuple[int, ...]


class Fusions(NamedTuple):
    """What was fitted on the documents outside some folds.

    Attributes:
        whole: of all features.
        baseline: of all but the cross-encoder; None if there is nothing else, or nothing but these.
    """

    whole: FeatureFusion
    baseline: FeatureFusion | None


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
        fusions: by the folds left out; None where there is too little data.
    """

    lists: AnnotatedLists
    logits: np.ndarray
    names: Sequence[str]
    columns: Mapping[str, np.ndarray]
    about: Mapping[str, np.ndarray]
    folds: np.ndarray
    usable: np.ndarray
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
        assert fitted is not None
        part = Part.of(
            InputModel(fusion=fitted.whole, baseline=fitted.baseline), self.lists, self.columns, self.about, inside
        )
        return part.utilities(self.logits[part.rows])[0]

    def _fit(self, left_out: LeftOut, start: Fusions | None = None) -> Fusions:
        inside = self.inside(left_out)
        rows, offsets = inside[self.lists.owner], list_offsets(list_sizes(self.lists.offsets)[inside])
        columns = {"cross_encoder": self.logits[rows]} | {name: column[rows] for name, column in self.columns.items()}
        about, gold = (
            {name: column[inside] for name, column in self.about.items()},
            self.lists.annotations.gold[inside],
        )
        others = [name for name in self.names if name != "cross_encoder"]
        return Fusions(
            fit_weights(self.names, columns, about, offsets, gold, start and start.whole),
            fit_weights(others, columns, about, offsets, gold, start and start.baseline)
            if 0 < len(others) < len(self.names)
            else None,
        )


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
