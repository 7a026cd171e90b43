"""Scores with labels: what calibrators are fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..core.arrays import list_offsets
from ..core.errors import TooLittleData, UserError
from .logistic import fit_logistic


@dataclass(frozen=True)
class LabelledScores:
    """Scores with labels, to fit on.

    Attributes:
        scores: (n,) raw log-odds in the number format that serves; inside lists, against NIL.
        labels: (n,) 0 or 1; inside lists at most one 1 in each.
        offsets: (lists + 1,) where each list's rows start, or None for independent rows.
    """

    scores: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray | None = None

    def checked(self) -> LabelledScores:
        """The same rows as float64.

        Raises:
            TooLittleData: fewer than two rows, scores that are all equal, or a single class.
            UserError: a score is not finite.
        """
        scores = np.asarray(self.scores, dtype=np.float64)
        labels = np.asarray(self.labels, dtype=np.float64)
        if len(scores) < 2:
            raise TooLittleData(
                f"calibration needs at least 2 scored pairs, found {len(scores)}; enlarge the split"
            )
        not_finite = np.count_nonzero(~np.isfinite(scores))
        if not_finite:
            raise UserError(
                f"{not_finite} of {len(scores)} logits are not finite; "
                "score in float32 or check the checkpoint"
            )
        if scores.min() == scores.max():
            raise TooLittleData(
                "all logits of the calibration split are equal; the checkpoint has learned nothing"
            )
        for label, what in ((1, "correct"), (0, "incorrect")):
            if not np.any(labels == label):
                raise TooLittleData(
                    f"the calibration pairs contain no {what} candidate; "
                    "enlarge the calibration split"
                )
        return replace(self, scores=scores, labels=labels)

    def take(self, inside: np.ndarray) -> LabelledScores:
        """The rows where `inside` (n,) is true; whole lists only."""
        offsets = self.offsets
        if offsets is not None:
            # Without lists that are left out, and empty lists, whose likelihood is 1 for any map.
            # These begin where the next list does, so their offsets are equal.
            rows_ahead = list_offsets(inside)
            offsets = np.unique(rows_ahead[offsets])
        return LabelledScores(self.scores[inside], self.labels[inside], offsets)

    def maximize(
        self,
        features: np.ndarray,
        lower: Sequence[float],
        upper: Sequence[float],
        start: np.ndarray | None = None,
    ) -> np.ndarray:
        """Fit the coefficients of features by maximum likelihood, inside bounds.

        Args:
            features: (n, k) float64, of unit scale.
            lower: k lower bounds, infinite where there are none.
            upper: k upper bounds, infinite where there are none.
            start: (k,) coefficients to start from; by default 0.

        Returns:
            (k,) coefficients.
        """
        return fit_logistic(
            features,
            self.labels,
            np.array(lower),
            np.array(upper),
            offsets=self.offsets,
            start=start,
        )
