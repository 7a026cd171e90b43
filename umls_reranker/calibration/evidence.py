"""From logits and all else that is known about candidates to calibrated probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.concepts import normalize_name
from ..data.semantic_types import UNKNOWN_TYPE, TypeHierarchy
from ..errors import UserError
from .calibrator import Types
from .calibrators import Calibrator, ListwiseCalibrator
from .choice import choice_log_odds, list_owner
from .fusion import CANDIDATE_EVIDENCE, EvidenceFusion
from .logistic import sigmoid
from .string_counts import StringCounts

__all__ = [
    "COUNTS_FILE",
    "RETRIEVAL_EVIDENCE",
    "CalibratedScores",
    "Calibration",
    "ScoredLists",
    "fit_fusions",
    "type_fits",
]

COUNTS_FILE = "string_counts.safetensors"
# Evidence that comes with the candidates; the rest follows from texts, CUIs and the training counts.
RETRIEVAL_EVIDENCE = ("retrieval", "context", "lexical")
# Evidence that needs the mention's semantic type, and that which needs the candidate's as well.
TYPE_EVIDENCE, FIT_EVIDENCE = ("type_lift", "type_fit"), ("type_fit",)
# Uses that a concept is credited with for a string, and mentions that the string is credited with.
PRIOR_USES, PRIOR_MENTIONS = 0.1, 1.0


@dataclass(frozen=True)
class ScoredLists:
    """The candidates of n mentions, m in all, and what came with them.

    Attributes:
        logits: (m,) log-odds of the cross-encoder.
        mentions: n texts.
        names, cuis: m texts; a CUI may be None.
        offsets: (n + 1,) where each mention's candidates start.
        retrieval: columns of `RETRIEVAL_EVIDENCE`, (m,) each, NaN where a candidate came without.
        types: n semantic types (ids or names) of the mentions, or None where they are not known.
        fits: (m,) as `type_fits` gives them, or None where no candidate's types are known.
    """

    logits: np.ndarray
    mentions: Sequence[str]
    names: Sequence[str]
    cuis: Sequence[str | None]
    offsets: np.ndarray
    retrieval: Mapping[str, np.ndarray]
    types: Types | None = None
    fits: np.ndarray | None = None

    @property
    def mention_of(self) -> np.ndarray:
        """(m,) the mention that each candidate belongs to."""
        return list_owner(self.offsets)

    def take(self, inside: np.ndarray) -> ScoredLists:
        """The lists of the mentions where `inside` (n,) is true."""
        kept, rows = np.flatnonzero(inside).tolist(), np.flatnonzero(inside[self.mention_of])
        return ScoredLists(
            self.logits[rows],
            [self.mentions[row] for row in kept],
            [self.names[row] for row in rows.tolist()],
            [self.cuis[row] for row in rows.tolist()],
            np.concatenate([[0], np.cumsum(np.diff(self.offsets)[inside])]),
            {name: column[rows] for name, column in self.retrieval.items()},
            None if self.types is None else [self.types[row] for row in kept],
            None if self.fits is None else self.fits[rows],
        )

    @property
    def candidate_types(self) -> Types | None:
        """m semantic types, those of each candidate's mention."""
        return None if self.types is None else [self.types[row] for row in self.mention_of.tolist()]

    @property
    def concepts(self) -> np.ndarray:
        """(m,) int64, equal for candidates of one list with the same CUI, or without any with the same name."""
        numbers: dict[tuple[int, str], int] = {}
        rows = self.mention_of.tolist()
        keys = ((row, cui or name) for row, cui, name in zip(rows, self.cuis, self.names, strict=True))
        return np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), np.int64, len(rows))

    def evidence(self, counts: StringCounts) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Columns by the names of `fusion.CANDIDATE_EVIDENCE` and `fusion.LIST_EVIDENCE`."""
        rows = self.mention_of
        forms = [normalize_name(text) for text in self.mentions]
        named = zip(rows.tolist(), self.names, strict=True)
        exact = np.array([normalize_name(name) == forms[row] for row, name in named], np.float64)
        used, seen = counts.of_uses(self.mentions, self.cuis, rows), counts.of_strings(self.mentions)
        candidates = {
            "cross_encoder": self.logits,
            **self.retrieval,
            "exact_name": exact,
            "string_share": np.log((used + PRIOR_USES) / (seen[rows] + PRIOR_MENTIONS)),
            "concept_count": np.log1p(counts.of_concepts(self.cuis)),
            "type_lift": self._type_lifts(counts),
            "type_fit": np.full(len(rows), np.nan) if self.fits is None else self.fits,
        }
        lists = {
            "string_count": np.log1p(seen),
            "seen_string": np.minimum(seen, 1).astype(np.float64),
        }
        return candidates, lists

    def _type_lifts(self, counts: StringCounts) -> np.ndarray:
        """`StringCounts.type_lifts`, NaN where the mention's types are not known."""
        types = [[]] * len(self.mentions) if self.types is None else [_type_ids(given) for given in self.types]
        lifts = counts.type_lifts(types, self.cuis, self.mention_of)
        lifts[~np.array([bool(given) for given in types], bool)[self.mention_of]] = np.nan
        return lifts


def type_fits(
    hierarchy: TypeHierarchy,
    types: Types,
    candidate_types: Sequence[Sequence[str] | None],
    rows: np.ndarray,
) -> np.ndarray:
    """Whether the types of candidates do not contradict those of their mentions.

    Two types agree where one is a kind of the other, since annotation schemes take broader types than the dictionary.
    A candidate that the dictionary gives no type contradicts nothing.

    Args:
        hierarchy: of the types.
        types: n semantic types (ids or names) of the mentions.
        candidate_types: m lists of type ids; None where a candidate came without.
        rows: (m,) the mention that each candidate belongs to.

    Returns:
        (m,) float64: 1, or 0 where no two types agree; NaN where the mention's or the candidate's are not known.
    """
    known = [[hierarchy.resolve(name) or name for name in _type_ids(given)] for given in types]
    found: dict[tuple, float] = {}
    fits = np.full(len(rows), np.nan)
    for place, (row, others) in enumerate(zip(rows.tolist(), candidate_types, strict=True)):
        if known[row] and others is not None:
            key = (*known[row], None, *others)
            if key not in found:
                found[key] = float(not others or hierarchy.agree(known[row], others))
            fits[place] = found[key]
    return fits


def _type_ids(given: str | Sequence[str] | None) -> list[str]:
    types = [given] if isinstance(given, str) else given or []
    return [name for name in types if name != UNKNOWN_TYPE]


@dataclass(frozen=True)
class CalibratedScores:
    """Scores of m candidates of n mentions.

    Attributes:
        log_odds: (m,) what the candidates of a list are ranked by: the cross-encoder's own log-odds or, where evidence
            is fused, those of each candidate against "none of these".
        probabilities: (m,) float64, calibrated.
        complete: (n,) bool, whether all candidates of a mention came with all evidence that the model weighs.
    """

    log_odds: np.ndarray
    probabilities: np.ndarray
    complete: np.ndarray


class Calibration:
    """The calibrator and, where evidence is fused, what comes before it.

    Args:
        fusions: richest first; the others do without the candidates' types, without the mention's, without what
            retrieval gives, or without all of that, for mentions that come without it. None: the cross-encoder alone
            decides.
        counts: of the training split; needed with fusions.
        calibrator: of log-odds; the identity unless given. With fusions it works inside lists, on the candidates'
            log-odds against "none of these", so that a list's probabilities stay a choice.
        baseline: the fusion of everything but the cross-encoder, which the report sets beside the whole.
    """

    def __init__(
        self,
        fusions: Sequence[EvidenceFusion] = (),
        counts: StringCounts | None = None,
        calibrator: Calibrator | None = None,
        baseline: EvidenceFusion | None = None,
    ) -> None:
        self.calibrator = calibrator or ListwiseCalibrator()
        self.baseline = baseline
        self.fusions = list(fusions)
        self.counts = counts

    def __call__(self, lists: ScoredLists) -> CalibratedScores:
        """Calibrated scores of all candidates; with fusions those of a list's concepts sum to less than one."""
        if not self.fusions:
            everything = np.ones(len(lists.mentions), bool)
            return CalibratedScores(lists.logits, self.calibrator(lists.logits, lists.candidate_types), everything)
        utility, complete = self.utilities(lists)
        calibrated = self.calibrator.log_odds(utility, lists.candidate_types)
        # The poorer fusion is itself a fitted probability; the calibrator belongs to the richer one.
        calibrated = np.where(complete[lists.mention_of], calibrated, utility)
        none = np.zeros(len(lists.mentions))
        log_odds = choice_log_odds(calibrated, none, lists.offsets, lists.concepts)
        return CalibratedScores(utility, sigmoid(log_odds), complete)

    def utilities(self, lists: ScoredLists) -> tuple[np.ndarray, np.ndarray]:
        """Log-odds of candidates against none, (m,), by the richest fusion that a list's evidence allows, else by the
        poorest; and whether that is the first, (n,) bool."""
        candidates, about_lists = lists.evidence(self.counts)
        nothing = np.full(len(lists.names), np.nan)
        columns = {name: candidates.get(name, nothing) for fusion in self.fusions for name in fusion.weights}
        filled = {name: np.nan_to_num(column) for name, column in columns.items()}
        allowed = np.array([_is_whole(fusion.weights, columns, lists.offsets) for fusion in self.fusions])
        allowed[-1] = True
        chosen = allowed.argmax(axis=0)
        owner, utility = lists.mention_of, np.zeros(len(lists.names))
        for number in np.unique(chosen):
            here = chosen[owner] == number
            utility[here] = self.fusions[number].utilities(filled, about_lists, lists.offsets)[here]
        return utility, _is_whole(self.fusions[0].weights, columns, lists.offsets)

    def without_cross_encoder(self, lists: ScoredLists) -> np.ndarray | None:
        """Log-odds of all candidates by the baseline, (m,) float64; None where there is none."""
        if self.baseline is None:
            return None
        candidates, about_lists = lists.evidence(self.counts)
        filled = {name: np.nan_to_num(column) for name, column in candidates.items()}
        return self.baseline(filled, about_lists, lists.offsets, lists.concepts)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``calibrator.json`` that decides scores, and the baseline."""
        state = self.calibrator.to_dict()
        if self.fusions:
            state["fusions"] = [fusion.to_dict() for fusion in self.fusions]
        if self.baseline is not None:
            state["without_cross_encoder"] = self.baseline.to_dict()
        return state

    @classmethod
    def load(cls, state: dict[str, Any], folder: Path) -> Calibration:
        """From the content of ``calibrator.json`` and the counts beside it."""
        fusions = [EvidenceFusion.from_dict(fusion) for fusion in state.get("fusions", [])]
        counts = StringCounts.load(folder / COUNTS_FILE) if fusions else None
        baseline = state.get("without_cross_encoder")
        return cls(fusions, counts, Calibrator.from_dict(state), baseline and EvidenceFusion.from_dict(baseline))


def _is_whole(names: Iterable[str], columns: Mapping[str, np.ndarray], offsets: np.ndarray) -> np.ndarray:
    """(n,) bool, whether all candidates of a list have all of the named evidence."""
    lacking = np.isnan(sum(columns[name] for name in names))
    return np.diff(np.concatenate([[0], np.cumsum(lacking)])[offsets]) == 0


def fit_fusions(
    evidence: Sequence[str], lists: ScoredLists, gold: np.ndarray, counts: StringCounts, *, richest_only: bool = False
) -> Calibration:
    """Fit the fusion of the named evidence, and those that do without the part of it that serving may lack.

    Args:
        richest_only: leave out the others and the baseline, where lists as whole as these are all there is to score.

    Returns:
        The fusions with the baseline and an identity for calibrator.

    Raises:
        UserError: evidence that does not exist, or that the candidate lists do not carry.
    """
    candidates, about_lists = lists.evidence(counts)
    for name in evidence:
        if name not in CANDIDATE_EVIDENCE:
            raise UserError(f"evidence: {name!r} is unknown; choose from {', '.join(CANDIDATE_EVIDENCE)}")
        if name not in candidates:
            raise UserError(
                f"evidence: the candidate lists hold no {name} scores; name that retriever in `retrievers`"
            )

    def fit(names: Sequence[str]) -> EvidenceFusion:
        columns = {name: candidates[name] for name in names}
        # A calibration mention without types speaks for no candidate.
        columns |= {name: np.nan_to_num(columns[name]) for name in TYPE_EVIDENCE if name in columns}
        return EvidenceFusion.fit(columns, about_lists, lists.offsets, gold)

    if richest_only:
        return Calibration([fit(evidence)], counts)
    lacks = [(*types, *scores) for scores in ((), RETRIEVAL_EVIDENCE) for types in ((), FIT_EVIDENCE, TYPE_EVIDENCE)]
    rungs = dict.fromkeys(tuple(name for name in evidence if name not in lacking) for lacking in lacks)
    rungs.pop((), None)
    others = [name for name in evidence if name != "cross_encoder"]
    baseline = fit(others) if others and len(others) < len(evidence) else None
    return Calibration([fit(rung) for rung in rungs], counts, baseline=baseline)
