"""How many rows of a file were ranked, how, and with which answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ..calibration.thresholds import TIERS
from ..core.arrays import values_at
from ..vocab.normalization import normalize_texts

if TYPE_CHECKING:
    from ..calibration.calibration import Calibration
    from ..calibration.decisions import Decisions
    from ..lists.candidate_lists import CandidateLists

# In the metadata of a field: its key in the state of a part, where that is not its name.
KEY = "key"


def _written_as(key: str) -> Any:
    """A count, 0 by default, that has another key in the state of a part."""
    return field(default=0, metadata={KEY: key})


@dataclass(frozen=True)
class RowCounts:
    """Counts of a batch of rows, or of several batches; what a job does not count stays 0.

    Attributes:
        ranked: rows that were ranked.
        errors: rows that have an error instead.
        accepted: ranked rows whose top candidate is accepted.
        high, medium, low, reject: ranked rows whose top candidate has this tier.
        without_tier: ranked rows with candidates, of lists that get no tiers.
        with_gold: ranked rows with a gold concept.
        correct: those of them whose top candidate is a gold concept.
        of_fitted_documents: rows with a gold concept, of documents that the model was fitted on.
        with_counted_words: ranked rows of whose mention the model has counted the string or words.
        candidates: candidates of the ranked rows.
        of_counted_concepts: candidates whose concept the model has counted.
        scores: scores of retrievers that the candidates have.
        scores_outside: those outside the range that calibration saw.
        with_gold_in_index: linked rows with a gold concept that the index has.
        reviewed: linked rows with the answer of a reviewer.
        of_changed_text: linked rows whose mention_id had another text when a reviewer answered it.
        ruled_out: linked rows whose top candidate a reviewer ruled out.
        searched: rows for which the index was searched, to write their candidates.
        with_gold_in_list: those of them with a gold concept among their candidates.
    """

    ranked: int = 0
    errors: int = _written_as("error")
    accepted: int = 0
    high: int = 0
    medium: int = 0
    low: int = 0
    reject: int = 0
    without_tier: int = _written_as("untiered")
    with_gold: int = _written_as("gold")
    correct: int = 0
    of_fitted_documents: int = _written_as("fitted")
    with_counted_words: int = _written_as("seen")
    candidates: int = 0
    of_counted_concepts: int = _written_as("known")
    scores: int = 0
    scores_outside: int = _written_as("outside")
    with_gold_in_index: int = _written_as("gold_in_index")
    reviewed: int = 0
    of_changed_text: int = 0
    ruled_out: int = 0
    searched: int = _written_as("mentions")
    with_gold_in_list: int = _written_as("in_list")

    @property
    def by_tier(self) -> dict[str, int]:
        """Ranked rows by the tier of their top candidate."""
        return {tier: getattr(self, tier) for tier in TIERS}

    def __add__(self, other: RowCounts) -> RowCounts:
        """The counts of the rows of both."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in STATE_KEYS}
        return RowCounts(**sums)

    def as_json(self) -> dict[str, int]:
        """The counts that are not 0, by their keys in the state of a part."""
        counts = {key: getattr(self, name) for name, key in STATE_KEYS.items()}
        return {key: count for key, count in counts.items() if count}

    @classmethod
    def from_json(cls, counts: Mapping[str, int]) -> RowCounts:
        """The counts of which these are `as_json`."""
        return cls(**{name: counts.get(key, 0) for name, key in STATE_KEYS.items()})


# Name of a count -> its key in the state of a part.
STATE_KEYS = {count.name: count.metadata.get(KEY, count.name) for count in fields(RowCounts)}


def count_rows(
    lists: CandidateLists,
    decisions: Decisions,
    golds: Sequence[Collection[str]],
    errors: Sequence[str | None],
    documents: Sequence[Any],
    calibration: Calibration,
) -> RowCounts:
    """Count a batch of rows, of which those without an error are ranked.

    Args:
        lists: lists of the n ranked rows.
        decisions: what was decided about them.
        golds: ids of the gold concepts of all rows.
        errors: of each row, why it was not ranked.
        documents: the document of each row, as the input has it.
        calibration: of the model.
    """
    tops = decisions.tops
    answers = values_at(np.array(lists.ids, object)[lists.cuis.codes], tops.positions, None)
    ranked_golds = [gold for gold, error in zip(golds, errors, strict=True) if error is None]
    with_gold = sum(bool(gold) for gold in ranked_golds)
    correct = sum(answer in gold for answer, gold in zip(answers, ranked_golds, strict=True))
    labelled = [str(document) for document, gold in zip(documents, golds, strict=True) if gold]
    is_fitted = ~calibration.documents.are_new(labelled)
    counted_words = calibration.counts.have_counted_words(normalize_texts(lists.mentions))
    counted_concepts = calibration.counts.have_counted_concepts(lists.ids)[lists.cuis.codes]
    has_candidates = tops.sizes > 0
    tiers = tops.tiers[has_candidates & decisions.has_tiers]
    rows_of_tier = np.bincount(tiers, minlength=len(TIERS)).tolist()
    scores, scores_outside = _count_scores(lists, calibration)
    return RowCounts(
        ranked=len(lists),
        errors=len(errors) - len(lists),
        accepted=int(tops.accepted.sum()),
        without_tier=int(has_candidates.sum()) - len(tiers),
        with_gold=with_gold,
        correct=correct,
        of_fitted_documents=int(is_fitted.sum()),
        with_counted_words=int(counted_words.sum()),
        candidates=len(lists.owner),
        of_counted_concepts=int(counted_concepts.sum()),
        scores=scores,
        scores_outside=scores_outside,
        **dict(zip(TIERS, rows_of_tier, strict=True)),
    )


def _count_scores(lists: CandidateLists, calibration: Calibration) -> tuple[int, int]:
    """How many scores of retrievers there are, and how many of them calibration did not see."""
    scores = 0
    scores_outside = 0
    for name, score_range in calibration.source.score_ranges.items():
        column = lists.scores[name]
        present = column[np.isfinite(column)]
        scores += len(present)
        scores_outside += int(np.isnan(score_range.inside(present)).sum())
    return scores, scores_outside
