"""The calibration lists, from which each model is fitted without the inputs it does not read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..core.arrays import lists_with_any
from ..core.errors import TooLittleData
from ..lists.columns import FOUND, SUFFIX
from .calibration import Calibration
from .cross_encoder_logits import CrossEncoderLogits
from .cross_fitting import CrossFits, FoldedLists
from .feature_table import FeatureTable, feature_table
from .features import CROSS_ENCODER, STAND_INS, inputs_of
from .fusion import reads_type
from .missing_inputs import without_inputs
from .score_range import ScoreRange

if TYPE_CHECKING:
    from ..lists.annotated_lists import AnnotatedLists
    from .arguments import CalibrationArguments


# Minimum of gold concepts in the lists with types to fit a model that reads types on them alone.
FEWEST_GOLD = 100


@dataclass(frozen=True)
class CalibrationData:
    """The calibration lists, to fit models on without some of their inputs.

    Attributes:
        lists: the lists.
        cross_encoder: logits of their candidates.
        settings: the recipe's section.
        seed: seed of the folds.
        names: features to weigh.
        table: these features, but the cross-encoder.
        unfitted: the calibration without models: counts, the index of the lists, and their
            documents.
        folds: (n,) folds of the documents.
        for_certificate: (n,) bool, mentions that count for the certificates.
        is_one_look: as in `FitOptions`.
        always_missing: inputs of the cross-encoder that no list has.
    """

    lists: AnnotatedLists
    cross_encoder: CrossEncoderLogits
    settings: CalibrationArguments
    seed: int
    names: Sequence[str]
    table: FeatureTable
    unfitted: Calibration
    folds: np.ndarray
    for_certificate: np.ndarray
    is_one_look: bool
    always_missing: tuple[str, ...]

    def all_missing(self, missing: Sequence[str]) -> tuple[str, ...]:
        """Inputs that a model without some inputs was fitted without."""
        return tuple(dict.fromkeys((*self.always_missing, *missing)))

    def weighed_without(self, missing: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """All that fits without some inputs depend on.

        Returns:
            The features that are left; inputs that the cross-encoder reads and lacks; and the id,
            if it is missing: without ids, other candidates count as one concept.
        """
        missing = self.all_missing(missing)
        unread = tuple(name for name in self.cross_encoder.reads if name in missing)
        missing_id = tuple(name for name in missing if name == "cui")
        return tuple(self._names_without(missing)), unread, missing_id

    def cross_fits(self, missing: Sequence[str] = ()) -> CrossFits:
        """Fits of the features that are left without some inputs.

        Raises:
            TooLittleData: no features are left, or there is too little data.
        """
        missing = self.all_missing(missing)
        lists = without_inputs(self.lists, missing)
        names = self._names_without(missing)
        if self.names and not names:
            raise TooLittleData(f"no features are left without {', '.join(missing)}")
        columns = {name: self.table.candidates[name] for name in names if name != CROSS_ENCODER}
        if "cui" in missing:
            # Without its concept, a candidate has only the name in the list.
            name_features = [name for name in columns if not inputs_of([name])]
            columns |= feature_table(lists, self.unfitted.counts, name_features).candidates
        table = FeatureTable.of(lists, columns, self.table.lists)
        usable = _usable_mentions(lists, table, names)
        folded = FoldedLists(lists, table, self.folds, usable)
        return folded.fit(names, partial(self.cross_encoder, missing))

    def _names_without(self, missing: Sequence[str]) -> list[str]:
        """The features that are left without some inputs; no `STAND_INS` next to a score."""
        names = [name for name in self.names if {*missing}.isdisjoint(inputs_of([name]))]
        has_score = any(key.endswith(SUFFIX) for key in inputs_of(names))
        return [name for name in names if not (has_score and name in STAND_INS)]

    def score_ranges(self) -> dict[str, ScoreRange]:
        """The range of each score of the lists that is weighed."""
        scores = self.lists.scores
        return {
            name: ScoreRange.of(scores[name])
            for name in self.names
            if name in scores and not name.endswith(FOUND)
        }


def _usable_mentions(
    lists: AnnotatedLists, table: FeatureTable, names: Sequence[str]
) -> np.ndarray:
    """Mentions to fit on, (n,) bool: with types where a feature reads them, if enough have any."""
    lacks_type = np.zeros(len(lists.owner), bool)
    for name in filter(reads_type, names):
        lacks_type |= np.isnan(table.candidates[name])
    have_types = ~lists_with_any(lacks_type, lists.offsets)
    has_gold_concept = lists.annotations.gold >= 0
    if np.count_nonzero(have_types & has_gold_concept) < FEWEST_GOLD:
        return np.ones(len(lists), bool)
    return have_types
