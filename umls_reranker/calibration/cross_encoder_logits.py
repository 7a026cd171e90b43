"""Logits of the calibration lists: the cross-encoder reads each pair once for all models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ..core.arrays import hash_texts
from ..models.cross_encoder import PairScorer, score_lists
from .missing_inputs import always_missing, without_inputs

if TYPE_CHECKING:
    from ..lists.candidate_lists import CandidateLists


@dataclass(eq=False)
class CrossEncoderLogits:
    """Logits of candidates of n lists, each scored once for each set of inputs that are missing.

    Attributes:
        cross_encoder: scores pairs; None without one.
        lists: n lists with m candidates.
        by_missing_inputs: (m,) logits by the inputs that are missing.
    """

    cross_encoder: PairScorer | None
    lists: CandidateLists
    by_missing_inputs: dict[tuple[str, ...], np.ndarray] = field(default_factory=dict)

    @property
    def reads(self) -> tuple[str, ...]:
        """Inputs that the cross-encoder reads besides mention and name."""
        return () if self.cross_encoder is None else self.cross_encoder.template.reads

    def __call__(
        self, missing: Sequence[str] = (), retained: np.ndarray | None = None
    ) -> np.ndarray:
        """Logits of lists without some inputs, (m,) float32; NaN without a cross-encoder.

        Args:
            missing: the inputs.
            retained: (m,) bool, the candidates to score; others may be NaN. None: all.
        """
        # Inputs that no list has make no difference to it.
        never_read = always_missing(self.lists, self.reads)
        unread = tuple(name for name in self.reads if name in missing and name not in never_read)
        logits = self.by_missing_inputs.setdefault(
            unread, np.full(len(self.lists.owner), np.nan, np.float32)
        )
        pending = np.isnan(logits)
        if retained is not None:
            pending &= retained
        if self.cross_encoder is not None and pending.any():
            lists = without_inputs(self.lists, unread)
            self._copy_logits_of_equal_pairs(logits, unread, lists)
            pending &= np.isnan(logits)
            desc = "scoring candidates"
            if unread:
                desc += f" without {' and '.join(unread)}"
            scores = score_lists(self.cross_encoder, lists, pending, desc=desc)
            logits[pending] = scores.logits[pending]
        return logits

    def _copy_logits_of_equal_pairs(
        self, logits: np.ndarray, unread: tuple[str, ...], lists: CandidateLists
    ) -> None:
        """Fill in the logits, (m,), of pairs that read the same without other inputs.

        A mention without a type, or a candidate whose name is the preferred one, makes the same
        pair with that input and without it.
        """
        scored_without = [
            other_unread
            for other_unread, other_logits in self.by_missing_inputs.items()
            if other_unread != unread and not np.isnan(other_logits).all()
        ]
        if not scored_without:
            return
        hashes = self._text_hashes(lists)
        for other_unread in scored_without:
            other_logits = self.by_missing_inputs[other_unread]
            other_hashes = self._text_hashes(without_inputs(self.lists, other_unread))
            reads_the_same = (hashes == other_hashes).all(axis=0)
            to_fill = np.isnan(logits) & reads_the_same
            logits[to_fill] = other_logits[to_fill]

    def _text_hashes(self, lists: CandidateLists) -> np.ndarray:
        """What the cross-encoder reads of each pair, (2, m) hashes of mention and candidate."""
        assert self.cross_encoder is not None  # only then there is something to score
        template = self.cross_encoder.template
        in_context = zip(lists.lefts, template.mention_texts(lists), lists.rights, strict=True)
        mention_hashes = hash_texts(["\0".join(texts) for texts in in_context])
        candidate_hashes = hash_texts(template.candidate_texts(lists))
        return np.stack([mention_hashes[lists.owner], candidate_hashes])

    def with_candidates(self, retained: np.ndarray) -> CrossEncoderLogits:
        """The same for some of the candidates, as for `CandidateLists.with_candidates`."""
        return replace(
            self,
            lists=self.lists.with_candidates(retained),
            by_missing_inputs={
                unread: logits[retained] for unread, logits in self.by_missing_inputs.items()
            },
        )
