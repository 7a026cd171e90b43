"""What a reranker warns of: lists that lack what the model reads, or that it was not made for."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence

import numpy as np

from ..calibration.calibration import Calibration
from ..calibration.decisions import Decisions
from ..core.errors import warn_caller
from ..lists.candidate_lists import CandidateLists
from ..lists.columns import SUFFIX, SYNONYM_SCORE

# How a message about lists without tiers begins.
NO_TIERS = "no tiers"
# Number of unknown types, or of other scores, that a warning names.
NAMED_TEXTS = 3
# Maximum number of different warnings about them per instance.
MOST_WARNINGS = 100


class ListWarnings:
    """Warnings about the lists of a caller, at the line that called the package.

    Each method warns once of all lists that it is given, or not at all.

    Args:
        calibration: that of the model.

    Attributes:
        quotes_callers: whether warnings name types and keys of the caller.
    """

    def __init__(self, calibration: Calibration) -> None:
        self.calibration = calibration
        self.quotes_callers = True
        self._quotations: set[str] = set()

    def unknown_types(self, types: Sequence[str]) -> None:
        """Name the types that the model does not know, if there are any."""
        if not types:
            return
        warn_caller(
            f"semantic types unknown to this model: {self._quoted(types)}; treated as missing. "
            "Use names or ids of types from thresholds.json, or None"
        )

    def lists_without_tiers(self, lists: CandidateLists, decisions: Decisions) -> None:
        """Say for which lists the model was calibrated, if some are others and get no tiers."""
        if not (~decisions.has_tiers & _has_candidates(lists)).any():
            return
        hint = ""
        if SYNONYM_SCORE.removesuffix(SUFFIX) in self.calibration.scores:
            hint = f" ({SYNONYM_SCORE}: added by rerank --dictionary)"
        warn_caller(
            f"{NO_TIERS}: this model gives them to {self.calibration.source.in_words}{hint}; "
            "these lists are others, so they get scores alone; label some, then "
            "umls-reranker calibrate MODEL --lists FILE --output my_model"
        )

    def missing_inputs(self, lists: CandidateLists, decisions: Decisions) -> None:
        """Name the inputs that any mention with candidates and tiers lacks, and what decides."""
        is_tiered = _has_candidates(lists) & decisions.has_tiers
        named = []
        for name, is_missing in decisions.missing.items():
            if (is_missing & is_tiered).any():
                named.append(name + self._range_of(name))
        if not named:
            return
        if any(name.endswith(SUFFIX) for name in decisions.missing) and lists.unread_scores:
            named[-1] += f"; other scores of the candidates: {self._quoted([*lists.unread_scores])}"
        lacks_any = is_tiered & np.logical_or.reduce([*decisions.missing.values()])
        deciding = []
        for number in np.unique(decisions.models[lacks_any]).tolist():
            model = self.calibration.models[number]
            # If no fallback model exists, the first model decides, whose certificate needs all.
            is_certified = number and model.thresholds.is_certified
            certificate = "certified" if is_certified else "not certified, never high"
            deciding.append(f"{model.name} ({certificate})")
        warn_caller(
            f"missing inputs: {', '.join(named)}; using the fallback model {'; '.join(deciding)}. "
            "`model_name` of a result says which decided"
        )

    def partial_scores(self, lists: CandidateLists) -> None:
        """Name the scores that some candidates of a list have and others lack."""
        names = []
        for name in lists.partial_scores:
            if name not in self.calibration.lowest:
                names.append(f"{name}{SUFFIX}")
        if names:
            warn_caller(f"{', '.join(names)}: candidates that lack it get the lowest of their list")

    def _range_of(self, name: str) -> str:
        """The range of a score in calibration, as an addition to its key; "" of other inputs."""
        score_range = None
        if name.endswith(SUFFIX):
            score_range = self.calibration.source.score_ranges.get(name.removesuffix(SUFFIX))
        if score_range is None:
            return ""
        lowest, highest = score_range.bounds
        return f" (from {lowest:.3g} to {highest:.3g})"

    def _quoted(self, texts: Sequence[str]) -> str:
        """The first of some texts of the caller, for a warning; else only their number."""
        if not self.quotes_callers:
            return f"{len(texts)}, not named here"
        quotation = ", ".join(map(reprlib.repr, texts[:NAMED_TEXTS]))
        if len(texts) > NAMED_TEXTS:
            quotation += f" and {len(texts) - NAMED_TEXTS} more"
        # Python keeps the text of each warning forever, and requests determine it.
        is_new = quotation not in self._quotations
        if is_new and len(self._quotations) >= MOST_WARNINGS:
            quotation = "more than were named so far"
        self._quotations.add(quotation)
        return quotation


def _has_candidates(lists: CandidateLists) -> np.ndarray:
    """(n,) bool."""
    has_candidates: np.ndarray = np.diff(lists.offsets) > 0
    return has_candidates
