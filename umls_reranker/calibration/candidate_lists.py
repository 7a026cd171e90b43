"""Candidate lists of a split, flattened for scoring, with everything the figures need beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.arrays import list_offsets, top_two
from ..models.cross_encoder import PairScorer, Scores
from .evidence import RETRIEVAL_EVIDENCE, ScoredLists, type_fits
from .inputs import given_inputs

if TYPE_CHECKING:
    from datasets import Dataset

    from ..data.concepts import ConceptTable
    from ..data.semantic_types import TypeHierarchy
    from ..models.template import PairTemplate

__all__ = ["CandidateLists", "as_serving_input"]


@dataclass
class TopCandidates:
    """The candidate ranked first for each of n mentions.

    Attributes:
        score: (n,) float64 calibrated probability, NaN without candidates.
        margin: (n,) float64, score less that of the second; the score itself when there is no second.
        correct: (n,) bool, whether it is the gold concept.
        place: (n,) int64, its place among all candidates, -1 without candidates.
    """

    score: np.ndarray
    margin: np.ndarray
    correct: np.ndarray
    place: np.ndarray


def as_serving_input(candidates: Mapping[str, Sequence[Any]], concepts: ConceptTable) -> list[dict[str, Any]]:
    """A row of the candidates as `UMLSReranker.rerank` takes it: one mapping per candidate, with all it may read."""
    columns = {"cui": candidates["cuis"], "name": candidates["names"]}
    for name in RETRIEVAL_EVIDENCE:
        if f"{name}_scores" in candidates:
            columns[f"{name}_score"] = candidates[f"{name}_scores"]
    rows = concepts.rows(candidates["cuis"])
    columns["preferred_name"] = concepts.preferred_names(rows).to_pylist()
    columns["definition"] = [concepts.definition(row) for row in rows.tolist()]
    columns["semantic_types"] = [concepts.semantic_types(row) for row in rows.tolist()]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@dataclass
class CandidateLists:
    """Lists of n mentions with m candidates in all.

    Attributes:
        mentions: the split's mentions, n rows.
        cuis, names: m texts, mention by mention in retrieval order.
        texts, mention_texts: m and n texts, what the cross-encoder reads of each candidate and mention.
        retrieval: (m,) float32 scores by the names of `RETRIEVAL_EVIDENCE`, those that the lists hold.
        offsets: (n + 1,) int64, where each mention's candidates start.
        gold: (n,) int64, position of the gold concept in its list, or -1.
        in_dictionary: (n,) bool, whether the gold concept is in the dictionary at all.
        fits: (m,) float64, as `calibration.evidence.type_fits` gives them.
        reads, given: as in `ScoredLists`.
        given_types: n lists of semantic types in place of the mentions' own; see `with_types`.
    """

    mentions: Dataset
    cuis: list[str]
    names: list[str]
    texts: list[str]
    mention_texts: list[str]
    retrieval: dict[str, np.ndarray]
    offsets: np.ndarray
    gold: np.ndarray
    in_dictionary: np.ndarray
    fits: np.ndarray | None = None
    reads: tuple[str, ...] = ()
    given: dict[str, np.ndarray] = field(default_factory=dict)
    given_types: Sequence[Sequence[str]] | None = None

    @classmethod
    def load(
        cls, candidates: Dataset, mentions: Dataset, concepts: ConceptTable, template: PairTemplate
    ) -> CandidateLists:
        """Join the lists with their mentions, which are in the same order."""
        table = candidates.with_format("arrow")[:]
        lists = table["cuis"].combine_chunks()
        cuis = lists.flatten().to_pylist()
        names = table["names"].combine_chunks().flatten().to_pylist()
        rows, offsets = concepts.rows(cuis), list_offsets(lists.value_lengths().to_numpy())
        loaded = cls(
            mentions=mentions,
            cuis=cuis,
            names=names,
            texts=template.candidate_texts(names, concepts, rows),
            mention_texts=[],
            retrieval={
                name: table[f"{name}_scores"].combine_chunks().flatten().to_numpy()
                for name in RETRIEVAL_EVIDENCE
                if f"{name}_scores" in table.column_names
            },
            offsets=offsets,
            gold=table["gold"].to_numpy().astype(np.int64),
            in_dictionary=concepts.rows(list(mentions["cui"])) >= 0,
            reads=template.reads,
            given=given_inputs(rows >= 0, rows >= 0, list(mentions["left"]), list(mentions["right"]), offsets),
        )
        return loaded.with_types(loaded.types, loaded.candidate_types(concepts), concepts.hierarchy, template)

    def candidate_types(self, concepts: ConceptTable) -> list[list[str]]:
        """m lists of type ids, those of each candidate's concept; empty where the dictionary gives none."""
        rows = concepts.rows(self.cuis)
        kinds = {row: concepts.semantic_types(row) if row >= 0 else [] for row in np.unique(rows).tolist()}
        return [kinds[row] for row in rows.tolist()]

    def with_types(
        self,
        types: Sequence[Sequence[str]],
        candidate_types: Sequence[Sequence[str]],
        hierarchy: TypeHierarchy,
        template: PairTemplate,
    ) -> CandidateLists:
        """The same lists, with these semantic types of the mentions in place of their own.

        Args:
            types: n lists of ids or names.
            candidate_types: m lists of ids, as `candidate_types` gives them.
            hierarchy: of the types.
            template: what the cross-encoder reads.
        """
        return replace(
            self,
            given_types=types,
            mention_texts=[
                template.mention_text(text, kinds, hierarchy)
                for text, kinds in zip(self.mentions["mention"], types, strict=True)
            ],
            fits=type_fits(hierarchy, types, candidate_types, self.mention_of),
        )

    @property
    def types(self) -> Sequence[Sequence[str]]:
        """n lists of semantic types (ids or names) of the mentions."""
        return list(self.mentions["semantic_types"]) if self.given_types is None else self.given_types

    @property
    def documents(self) -> list[str]:
        """(n,) document of each mention."""
        return list(self.mentions["doc_id"])

    @property
    def mention_of(self) -> np.ndarray:
        """(m,) the mention each candidate belongs to."""
        return np.repeat(np.arange(len(self.gold)), np.diff(self.offsets))

    @property
    def labels(self) -> np.ndarray:
        """(m,) int64, 1 for gold concepts."""
        labels = np.zeros(len(self.names), np.int64)
        found = self.gold >= 0
        labels[self.offsets[:-1][found] + self.gold[found]] = 1
        return labels

    def lists_of_cuis(self) -> list[list[str]]:
        """The CUIs list by list."""
        return [self.cuis[start:end] for start, end in zip(self.offsets[:-1], self.offsets[1:], strict=True)]

    def score(self, scorer: PairScorer, desc: str, inside: np.ndarray | None = None) -> Scores:
        """Logits of all m candidates, in order; or of those of the mentions where `inside` (n,) is true."""
        rows = self.mention_of
        places = np.arange(len(rows)) if inside is None else np.flatnonzero(inside[rows])
        columns = (self.mention_texts, list(self.mentions["left"]), list(self.mentions["right"]))
        mentions, lefts, rights = ([column[row] for row in rows[places].tolist()] for column in columns)
        return scorer.score(mentions, [self.texts[place] for place in places.tolist()], lefts, rights, desc=desc)

    def scored(self, logits: np.ndarray) -> ScoredLists:
        """The lists with their logits, as calibration takes them."""
        texts = list(self.mentions["mention"])
        columns = (texts, self.names, self.cuis, self.offsets, self.retrieval, self.types, self.fits)
        return ScoredLists(logits, *columns, self.reads, self.given)

    def retrieved_first(self) -> TopCandidates:
        """The first candidate of each list with its cosine."""
        places = np.arange(len(self.names)) - self.offsets[self.mention_of]
        return self.top(-places, self.retrieval["retrieval"].astype(np.float64))

    def top(self, log_odds: np.ndarray, probabilities: np.ndarray) -> TopCandidates:
        """The best candidate of each mention by log-odds; retrieval order breaks ties."""
        best, second = top_two(log_odds, self.offsets)
        score = np.where(best >= 0, probabilities[best], np.nan)
        rival = np.where(second >= 0, probabilities[second], 0.0)
        correct = (self.gold >= 0) & (best == self.offsets[:-1] + self.gold)
        return TopCandidates(score, score - rival, correct, best)
