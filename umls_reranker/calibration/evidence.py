"""From logits and all else that is known about candidates to calibrated probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..data.normalization import normalize_name
from ..data.semantic_types import UNKNOWN_TYPE, TypeHierarchy
from .calibrators import ListwiseCalibrator
from .choice import choice_log_odds, list_owner
from .fusion import CANDIDATE_EVIDENCE, EvidenceFusion
from .inputs import INPUTS_OF_EVIDENCE, ScoreRange, lists_with_any
from .logistic import sigmoid
from .score_maps import Calibrator, Types
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
        reads: inputs that the cross-encoder's template reads beside mention and name (`PairTemplate.reads`).
        given: as `inputs.given_inputs` gives it, of `reads` at least.
    """

    logits: np.ndarray
    mentions: Sequence[str]
    names: Sequence[str]
    cuis: Sequence[str | None]
    offsets: np.ndarray
    retrieval: Mapping[str, np.ndarray]
    types: Types | None = None
    fits: np.ndarray | None = None
    reads: Sequence[str] = ()
    given: Mapping[str, np.ndarray] = field(default_factory=dict)

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
            self.reads,
            {name: given[inside] for name, given in self.given.items()},
        )

    def lacks(self, name: str) -> np.ndarray:
        """(n,) bool, mentions that came without an input, or with a candidate without it; its rule is in `inputs`."""
        if name in self.given:
            return ~self.given[name]
        if name == "cui":
            return lists_with_any(np.array([not (cui and cui.strip()) for cui in self.cuis], bool), self.offsets)
        if name == "entity_type":
            return ~self._typed
        if name == "semantic_types":
            # Of a mention without types it is not known whether its candidates had any.
            return self._typed & lists_with_any(np.isnan(self._fits), self.offsets)
        column = self.retrieval.get(name.removesuffix("_score"))
        lacking = np.ones(len(self.names), bool) if column is None else np.isnan(column)
        return lists_with_any(lacking, self.offsets)

    @property
    def _typed(self) -> np.ndarray:
        """(n,) bool, whether a mention's types are known."""
        if self.types is None:
            return np.zeros(len(self.mentions), bool)
        return np.array([bool(_type_ids(given)) for given in self.types], bool)

    @property
    def _fits(self) -> np.ndarray:
        return np.full(len(self.names), np.nan) if self.fits is None else self.fits

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
            "type_fit": self._fits,
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
        lifts[~self._typed[self.mention_of]] = np.nan
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
        complete: (n,) bool, whether a mention and all its candidates came with all that the model reads.
        missing: inputs that the model reads -> (n,) bool, which mentions came without.
    """

    log_odds: np.ndarray
    probabilities: np.ndarray
    complete: np.ndarray
    missing: Mapping[str, np.ndarray] = field(default_factory=dict)


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
        score_ranges: of the scores of retrievers that the fusions weigh, by the names of `RETRIEVAL_EVIDENCE`; scores
            beyond count as missing.
    """

    def __init__(
        self,
        fusions: Sequence[EvidenceFusion] = (),
        counts: StringCounts | None = None,
        calibrator: Calibrator | None = None,
        baseline: EvidenceFusion | None = None,
        score_ranges: Mapping[str, ScoreRange] | None = None,
    ) -> None:
        self.calibrator = calibrator or ListwiseCalibrator()
        self.baseline = baseline
        self.fusions = list(fusions)
        self.counts = counts
        self.score_ranges = dict(score_ranges or {})

    def __call__(self, lists: ScoredLists) -> CalibratedScores:
        """Calibrated scores of all candidates; with fusions those of a list's concepts sum to less than one."""
        missing = self.missing_inputs(lists)
        complete = ~np.any([*missing.values(), np.zeros(len(lists.mentions), bool)], axis=0)
        if not self.fusions:
            probabilities = self.calibrator(lists.logits, lists.candidate_types)
            return CalibratedScores(lists.logits, probabilities, complete, missing)
        utility, richest = self.utilities(lists)
        calibrated = self.calibrator.log_odds(utility, lists.candidate_types)
        # The poorer fusion is itself a fitted probability; the calibrator belongs to the richer one.
        calibrated = np.where(richest[lists.mention_of], calibrated, utility)
        none = np.zeros(len(lists.mentions))
        log_odds = choice_log_odds(calibrated, none, lists.offsets, lists.concepts)
        return CalibratedScores(utility, sigmoid(log_odds), complete, missing)

    def missing_inputs(self, lists: ScoredLists) -> dict[str, np.ndarray]:
        """Inputs that template, fusion or calibrator read -> (n,) bool, mentions that came without.

        What certifies the high tier was measured on mentions that came with all of them.
        """
        lists = self._in_range(lists)
        names = list(lists.reads)
        for evidence in self.fusions[0].read if self.fusions else ():
            names += INPUTS_OF_EVIDENCE.get(evidence, ())
        names += ["entity_type"] if self.calibrator.reads_types else []
        return {name: lists.lacks(name) for name in dict.fromkeys(names)}

    def _in_range(self, lists: ScoredLists) -> ScoredLists:
        ranges = self.score_ranges
        columns = {
            name: ranges[name].inside(column) if name in ranges else column for name, column in lists.retrieval.items()
        }
        return replace(lists, retrieval=columns)

    def utilities(self, lists: ScoredLists) -> tuple[np.ndarray, np.ndarray]:
        """Log-odds of candidates against none, (m,), by the richest fusion that a list's evidence allows, else by the
        poorest; and whether that is the first, (n,) bool."""
        candidates, about_lists = self._in_range(lists).evidence(self.counts)
        nothing = np.full(len(lists.names), np.nan)
        columns = {name: candidates.get(name, nothing) for fusion in self.fusions for name in fusion.weights}
        filled = {name: np.nan_to_num(column) for name, column in columns.items()}
        allowed = np.array([_is_whole(fusion.read, columns, lists.offsets) for fusion in self.fusions])
        richest = allowed[0].copy()
        allowed[-1] = True
        chosen = allowed.argmax(axis=0)
        owner, utility = lists.mention_of, np.zeros(len(lists.names))
        for number in np.unique(chosen):
            here = chosen[owner] == number
            utility[here] = self.fusions[number].utilities(filled, about_lists, lists.offsets)[here]
        return utility, richest

    def without_cross_encoder(self, lists: ScoredLists) -> np.ndarray | None:
        """Log-odds of all candidates by the baseline, (m,) float64; None where there is none."""
        if self.baseline is None:
            return None
        candidates, about_lists = self._in_range(lists).evidence(self.counts)
        filled = {name: np.nan_to_num(column) for name, column in candidates.items()}
        return self.baseline(filled, about_lists, lists.offsets, lists.concepts)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``calibrator.json`` that decides scores, and the baseline."""
        state = self.calibrator.to_dict()
        if self.fusions:
            state["fusions"] = [fusion.to_dict() for fusion in self.fusions]
            state["score_ranges"] = {name: found._asdict() for name, found in self.score_ranges.items()}
        if self.baseline is not None:
            state["without_cross_encoder"] = self.baseline.to_dict()
        return state

    @classmethod
    def load(cls, state: dict[str, Any], folder: Path) -> Calibration:
        """From the content of ``calibrator.json`` and the counts beside it.

        Raises:
            UserError: a part of it is missing or damaged.
        """
        fusions = [EvidenceFusion.from_dict(fusion) for fusion in state.get("fusions", [])]
        counts = StringCounts.load(folder / COUNTS_FILE) if fusions else None
        baseline = state.get("without_cross_encoder")
        return cls(
            fusions,
            counts,
            Calibrator.from_dict(state),
            baseline and EvidenceFusion.from_dict(baseline),
            _ranges(state.get("score_ranges"), fusions[0].weights) if fusions else None,
        )


def _ranges(state: Any, weighed: Iterable[str]) -> dict[str, ScoreRange]:
    """The ranges in ``calibrator.json`` of the scores among what is weighed."""
    names = [name for name in RETRIEVAL_EVIDENCE if name in weighed]
    try:
        ranges = {name: ScoreRange(float(state[name]["low"]), float(state[name]["high"])) for name in names}
        if not all(np.isfinite(found).all() and found.low <= found.high for found in ranges.values()):
            raise ValueError("no range of finite numbers")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"calibrator.json: score_ranges, the range of each retriever's scores, is missing or damaged ({error!r}); "
            "run umls-reranker calibrate again"
        ) from None
    return ranges


def _is_whole(names: Iterable[str], columns: Mapping[str, np.ndarray], offsets: np.ndarray) -> np.ndarray:
    """(n,) bool, whether all candidates of a list have all of the named evidence."""
    lacking = np.isnan(sum((columns[name] for name in names), np.zeros(offsets[-1])))
    return ~lists_with_any(lacking, offsets)


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

    ranges = {name: ScoreRange.of(candidates[name]) for name in RETRIEVAL_EVIDENCE if name in evidence}
    if richest_only:
        return Calibration([fit(evidence)], counts, score_ranges=ranges)
    lacks = [(*types, *scores) for scores in ((), RETRIEVAL_EVIDENCE) for types in ((), FIT_EVIDENCE, TYPE_EVIDENCE)]
    rungs = dict.fromkeys(tuple(name for name in evidence if name not in lacking) for lacking in lacks)
    rungs.pop((), None)
    others = [name for name in evidence if name != "cross_encoder"]
    baseline = fit(others) if others and len(others) < len(evidence) else None
    return Calibration([fit(rung) for rung in rungs], counts, baseline=baseline, score_ranges=ranges)
