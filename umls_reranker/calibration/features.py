"""Features of candidates, as columns over candidate lists, and the inputs that they need.

To add one, write a function and a line in `OWN_FEATURES`. From outside of the package, call
`register_feature`.

Of some mentions inputs are missing. Calibration, evaluation and serving follow these rules:

* ``cui``, ``preferred_name``: a text that is not blank. Ids of a list are missing, too, if none is
  of a vocabulary that was counted: no count of them would say anything.
* ``definition``, ``semantic_types``: present. A concept without any has "" or []; None: missing.
* ``context``: text on at least one side of the mention.
* ``entity_type``: at least one type that the model knows.
* ``scores``: any score of a retriever, read or not, of at least one candidate.
* scores of retrievers, such as ``bm25_score``: a number in the range that calibration saw, extended
  by a tenth on each side. Sentinels (`are_sentinels`) are not in it.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import starmap
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from ..core.arrays import (
    RepeatedTexts,
    distinct_numbers,
    list_offsets,
    list_owner,
    lists_with_any,
    number_distinct,
)
from ..core.errors import UserError
from ..lists.candidate_lists import CandidateLists
from ..lists.columns import FIELDS, FOUND, SUFFIX, encoded_texts
from ..lists.index_scores import INDEX_SCORES, IndexScore
from ..vocab.cui import CUI
from ..vocab.normal_form import normal_forms, singular_words
from ..vocab.normalization import normalize_texts
from ..vocab.trigrams import shared_trigrams
from .qualifiers import qualifier_agreement
from .string_counts import PairCounts, StringCounts

CROSS_ENCODER = "cross_encoder"
# What a feature can be made of, besides scores and the candidate's name.
FEATURE_INPUTS = ("entity_type", "context", "cui", "semantic_types", "scores")
LIST_FEATURES = {
    "string_count": "log(1 + training mentions with this string)",
    "seen_string": "1 if this string was seen in training",
}
LIST_POSITION = "list_position"
# The same of lists with scores. The built-in model weighs it: of lists without any score it cannot
# know whether their order means anything.
SCORED_POSITION = "scored_position"
# The number in a UMLS CUI counts in these units; other ids count as one unit.
CUI_UNIT = 1e6
# Prior uses of a concept for a string, and prior mentions of the string.
PRIOR_USES = 0.1
PRIOR_MENTIONS = 1.0
# Names of the two kinds of model: of all that the lists had, and of names alone. Each has a twin
# without the type.
ALL_INPUTS = "all"
NAMES_ALONE = "names"
NO_TYPE = "no type"
# Share of a score's range by which scores at serving may exceed it on either side.
MARGIN = 0.1
# Interquartile ranges between scores and those that stand for something else, such as -9999.
SENTINEL_RANGES = 50

Lists = TypeVar("Lists", bound=CandidateLists)


@dataclass(frozen=True)
class Feature:
    """A number about each candidate of a list; a higher value never lowers its probability.

    Attributes:
        name: its name in recipes and ``calibrator.json``.
        help: one line about it.
        column: makes the column, (m,) float64, from `FeatureSources`; NaN where an input is
            missing. None: it comes with the lists, as scores of retrievers do, or from the
            cross-encoder.
        inputs: the inputs of `FEATURE_INPUTS`, or ``NAME_score``, that it needs. A fallback model
            decides about requests that lack one of them.
    """

    name: str
    help: str
    column: Callable[[FeatureSources], np.ndarray] | None = None
    inputs: tuple[str, ...] = ()


def register_feature(feature: Feature) -> None:
    """Add a feature to those that recipes can name.

    Raises:
        ValueError: its name is taken, or it has an unknown input.
    """
    unknown = [
        name
        for name in feature.inputs
        if name not in FEATURE_INPUTS and not name.endswith("_score")
    ]
    if unknown:
        raise ValueError(
            f"{feature.name}: unknown inputs {unknown}; "
            f"choose from {', '.join(FEATURE_INPUTS)}, NAME_score"
        )
    if feature.name in FEATURES:
        raise ValueError(f"feature {feature.name!r} is already registered")
    FEATURES[feature.name] = feature


def score_feature(name: str, score: IndexScore) -> Feature:
    """The feature of a score that one of our retrievers gives."""
    context = ("context",) if score.reads_context else ()
    return Feature(name, score.help, inputs=(*context, f"{name}_score"))


class FeatureSources:
    """What columns are made from: n lists with m candidates, and counts of training mentions.

    Attributes:
        lists: the candidate lists.
        counts: counts of training mentions.
        mentions: n normalized texts.
        names: the distinct names of candidates, normalized; those of the m candidates are at
            `lists.names.codes`.
    """

    def __init__(self, lists: CandidateLists, counts: StringCounts) -> None:
        self.lists = lists
        self.counts = counts
        self.mentions = normalize_texts(lists.mentions)
        self.names = normalize_texts(lists.names.texts)

    @cached_property
    def string_counts(self) -> np.ndarray:
        """(n,) number of training mentions with the string of each mention."""
        return self.counts.string_counts(self.mentions)

    @cached_property
    def pair_counts(self) -> PairCounts:
        """Counts of training mentions by concept, with its strings and types."""
        lists = self.lists
        return self.counts.pair_counts(
            self.mentions, lists.types, lists.ids, lists.owner, lists.cuis.codes
        )

    @cached_property
    def mention_words(self) -> list[str]:
        """The sorted words in singular of each mention, n texts."""
        return singular_words(self.mentions)

    @cached_property
    def is_other_name(self) -> np.ndarray:
        """(m,) bool, whether the mention is a further known name, up to plurals and order."""
        return self.are_names(self.mention_words)

    def are_names(self, mentions: Sequence[str]) -> np.ndarray:
        """(m,) bool, whether forms of the mentions are known as names of the concepts."""
        return self.counts.are_names(
            mentions, self.lists.ids, self.lists.owner, self.lists.cuis.codes
        )

    @cached_property
    def mention_forms(self) -> list[str]:
        """The normal form of each mention, n texts."""
        return normal_forms(self.lists.mentions)

    @cached_property
    def name_forms(self) -> list[str]:
        """The normal forms of the distinct names."""
        return normal_forms(self.lists.names.texts)

    @cached_property
    def shared_trigrams(self) -> tuple[np.ndarray, np.ndarray]:
        """(m,) shares of the mention's trigrams in the name, and of the name's in the mention."""
        return shared_trigrams(self.mentions, self.names, self.lists.owner, self.lists.names.codes)


def exact_name(sources: FeatureSources) -> np.ndarray:
    return np.maximum(
        _equal(sources.lists, sources.mentions, sources.names), sources.are_names(sources.mentions)
    )


def same_words(sources: FeatureSources) -> np.ndarray:
    return np.maximum(
        _equal(sources.lists, sources.mention_words, singular_words(sources.names)),
        sources.is_other_name,
    )


def _equal(lists: CandidateLists, mentions: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """1 where a name and its mention have the same form, else 0, (m,) float64."""
    distinct, form = number_distinct(mentions)
    numbers = {text: number for number, text in enumerate(distinct)}
    name_forms = np.array([numbers.get(text, -1) for text in names], np.int64)
    return (name_forms[lists.names.codes] == form[lists.owner]).astype(np.float64)


def list_position(sources: FeatureSources) -> np.ndarray:
    """Minus the log of the position in the list, counted from 1.

    Candidates of the same concept share the position of the first, and so do candidates of the same
    name, because retrievers order these by chance. Each position counts once.
    """
    lists = sources.lists
    distinct, form = number_distinct(sources.names)
    names = lists.owner * len(distinct) + form[lists.names.codes]
    first = np.arange(len(lists.owner))
    for groups in (lists.concepts, names, lists.concepts):
        first = _lowest(first, groups)
    is_first = np.zeros(len(first), np.int64)
    is_first[first] = 1
    before = list_offsets(is_first)
    return -np.log1p(before[first] - before[lists.offsets[:-1]][lists.owner])


def _lowest(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The lowest value in the group of each of m values, (m,) int64."""
    ascending = np.sort(groups)
    if not (ascending[1:] == ascending[:-1]).any():
        return values
    distinct, number = np.unique(groups, return_inverse=True)
    lowest = np.full(len(distinct), len(values))
    np.minimum.at(lowest, number, values)
    return lowest[number]


def concept_age(sources: FeatureSources) -> np.ndarray:
    lists = sources.lists
    numbers = np.array(list(map(_cui_number, lists.ids)), np.float64)
    return -numbers[lists.cuis.codes]


def _cui_number(concept_id: str) -> float:
    """The number in a CUI, in `CUI_UNIT`; that of other ids is one."""
    return int(concept_id[1:]) / CUI_UNIT if CUI.fullmatch(concept_id) else 1.0


def mention_in_name(sources: FeatureSources) -> np.ndarray:
    return np.maximum(sources.shared_trigrams[0], sources.is_other_name)


def name_in_mention(sources: FeatureSources) -> np.ndarray:
    return np.maximum(sources.shared_trigrams[1], sources.is_other_name)


def own_similarity(sources: FeatureSources) -> np.ndarray:
    of_mention, of_name = shared_trigrams(
        sources.mention_forms, sources.name_forms, sources.lists.owner, sources.lists.names.codes
    )
    return np.maximum(np.sqrt(of_mention * of_name), sources.is_other_name)


def own_form(sources: FeatureSources) -> np.ndarray:
    is_equal = _equal(sources.lists, sources.mention_forms, sources.name_forms)
    return np.maximum(is_equal, sources.is_other_name)


def qualifiers(sources: FeatureSources) -> np.ndarray:
    agreement = qualifier_agreement(
        sources.mentions, sources.names, sources.lists.owner, sources.lists.names.codes
    )
    return np.maximum(agreement, sources.is_other_name)


def mention_concept_prior(sources: FeatureSources) -> np.ndarray:
    counts = sources.pair_counts
    return np.log(
        (counts.uses + PRIOR_USES) / (sources.string_counts + PRIOR_MENTIONS)[sources.lists.owner]
    )


def concept_count(sources: FeatureSources) -> np.ndarray:
    return np.log1p(sources.pair_counts.of_concepts)[sources.lists.cuis.codes]


def type_lift(sources: FeatureSources) -> np.ndarray:
    lists = sources.lists
    return np.where(lists.types.is_known[lists.owner], sources.pair_counts.type_lifts, np.nan)


def type_compatibility(sources: FeatureSources) -> np.ndarray:
    """Whether the types of candidates do not contradict those of their mentions.

    Two types agree if one is a kind of the other, because annotation schemes use broader types than
    the dictionary. A candidate without known types contradicts nothing.

    Returns:
        (m,) float64: 1, or 0 if no two types agree; NaN if the types of either are unknown.
    """
    lists = sources.lists
    mention_sets = lists.types.sets
    candidate_sets = lists.candidate_types.sets
    # Each pair of sets once; index 0 of both means not given.
    width = len(candidate_sets) + 1
    codes = (lists.types.codes[lists.owner] + 1) * width + lists.candidate_types.codes + 1
    pairs, pair_of_candidate = distinct_numbers(codes, (len(mention_sets) + 1) * width)
    agrees = np.full(len(pairs), np.nan)
    for number, pair in enumerate(pairs.tolist()):
        mention_set, candidate_set = divmod(pair, width)
        if not mention_set or not candidate_set:
            continue
        types = mention_sets[mention_set - 1]
        if types:
            known = candidate_sets[candidate_set - 1]
            agrees[number] = not known or lists.hierarchy.agree(types, known)
    return agrees[pair_of_candidate]


# Similarities that stand in for the score of a retriever: models that read one do not weigh them.
STAND_INS = {
    feature.name: feature
    for feature in (
        Feature(
            "own_similarity",
            "cosine of mention and name by character trigrams of their normal forms, where no "
            "retriever gives a score",
            own_similarity,
        ),
        Feature(
            "own_form",
            "1 if mention and name have the same normal form, where no retriever gives a score",
            own_form,
        ),
    )
}
OWN_FEATURES = (
    Feature("exact_name", "1 if a normalized name equals the normalized mention", exact_name),
    Feature(
        "same_words",
        "1 if a name and the mention have the same words in the singular, in any order",
        same_words,
    ),
    Feature(
        "mention_in_name",
        "share of the mention's character trigrams that are in the name",
        mention_in_name,
    ),
    Feature(
        "name_in_mention",
        "share of the name's character trigrams that are in the mention",
        name_in_mention,
    ),
    Feature(
        "qualifier_agreement",
        "qualifier agreement: 0 if qualifiers or numbers of the name contradict those of the "
        "mention, such as left and right; else 1",
        qualifiers,
    ),
    Feature(
        "mention_concept_prior",
        "mention-concept prior: log of the smoothed share of this concept among training "
        "mentions with this string",
        mention_concept_prior,
        inputs=("cui",),
    ),
    Feature(
        "concept_count",
        "log(1 + training mentions of this concept)",
        concept_count,
        inputs=("cui",),
    ),
    Feature(
        "type_lift",
        "log lift of the mention's type among training mentions of this concept",
        type_lift,
        inputs=("entity_type", "cui"),
    ),
    Feature(
        "type_compatibility",
        "type compatibility: 0 if the concept's types in the dictionary contradict "
        "the mention's; else 1",
        type_compatibility,
        inputs=("entity_type", "semantic_types"),
    ),
    Feature(
        LIST_POSITION,
        "minus the log of the rank in the list, for user-provided candidate lists",
        list_position,
    ),
    Feature(
        SCORED_POSITION,
        "the same in lists whose candidates have a score of any retriever",
        list_position,
        inputs=("scores",),
    ),
    Feature(
        "concept_age",
        "minus the number in the CUI, in millions: concepts added to the UMLS early are "
        "mentioned more often",
        concept_age,
        inputs=("cui",),
    ),
)
FEATURES = {
    feature.name: feature
    for feature in (
        Feature(CROSS_ENCODER, "log-odds of the cross-encoder, or 20 times an encoder's cosine"),
        *starmap(score_feature, INDEX_SCORES.items()),
        *OWN_FEATURES,
        *STAND_INS.values(),
    )
}


def default_features(lists: CandidateLists) -> list[str]:
    """Features used by default: cross-encoder, scores of the lists, and all made from lists.

    `LIST_POSITION` is a default of user-provided lists only. Our retrievers order candidates by
    their scores, and a model fitted on this order would rely on it where a pipeline has another
    order.
    """
    names = [name for name in FEATURES if FEATURES[name].column and name != SCORED_POSITION]
    if any(lists.index_keys):
        names.remove(LIST_POSITION)
    return [CROSS_ENCODER, *lists.scores, *names]


def refuse_feature_names(lists: CandidateLists) -> None:
    """Refuse user-provided lists with a score that has the name of a feature.

    Raises:
        UserError: there is one; names it.
    """
    for name in lists.scores:
        if name in FEATURES and not (name in INDEX_SCORES and all(lists.index_keys)):
            raise UserError(f"{name}_score names a feature; rename it, as sapbert_score")


def check_features(names: Iterable[str], lists: CandidateLists) -> None:
    """Refuse features that do not exist, and scores that the lists lack.

    Raises:
        UserError: a feature is unknown or missing; names it.
    """
    for name in names:
        if name not in FEATURES and name not in lists.scores:
            known = ", ".join(dict.fromkeys((*FEATURES, *lists.scores)))
            raise UserError(f"features: {name!r} is unknown; choose from {known}")
        if name in INDEX_SCORES and name not in lists.scores:
            raise UserError(
                f"features: the candidate lists have no {name} scores; add that retriever to "
                "`retrievers` (in user-provided candidate lists, NAME_score is the feature NAME)"
            )


@dataclass(frozen=True)
class FeatureTable:
    """Features of n lists with m candidates.

    Attributes:
        candidates: name of a feature -> (m,) float64; NaN where a candidate lacks an input.
        lists: name in `LIST_FEATURES` -> (n,) float64.
        offsets: (n + 1,) where each list's candidates start.
        concepts: (m,) as in `CandidateLists.concepts`.
    """

    candidates: Mapping[str, np.ndarray]
    lists: Mapping[str, np.ndarray]
    offsets: np.ndarray
    concepts: np.ndarray

    @classmethod
    def of(
        cls,
        lists: CandidateLists,
        candidates: Mapping[str, np.ndarray],
        about_lists: Mapping[str, np.ndarray],
    ) -> FeatureTable:
        """Make a table of these columns."""
        return cls(candidates, about_lists, lists.offsets, lists.concepts)

    @cached_property
    def owner(self) -> np.ndarray:
        """The list of each candidate, (m,)."""
        return list_owner(self.offsets)

    def plus(self, columns: Mapping[str, np.ndarray]) -> FeatureTable:
        """The table with columns of candidates added, or replaced if they exist."""
        return replace(self, candidates={**self.candidates, **columns})

    def take(self, mentions: np.ndarray, rows: np.ndarray | None = None) -> FeatureTable:
        """Some of the lists, (n,) bool, and their candidates in `rows`, (m,) bool; None: all."""
        is_chosen = mentions[self.owner]
        if rows is not None:
            is_chosen = is_chosen & rows
        chosen = np.flatnonzero(is_chosen)
        sizes = np.bincount(self.owner[chosen], minlength=len(mentions))[mentions]
        return FeatureTable(
            {name: column[chosen] for name, column in self.candidates.items()},
            {name: column[mentions] for name, column in self.lists.items()},
            list_offsets(sizes),
            self.concepts[chosen],
        )


def feature_table(
    lists: CandidateLists, counts: StringCounts, names: Iterable[str] | None = None
) -> FeatureTable:
    """Compute the features of lists.

    Args:
        lists: the candidate lists.
        counts: counts of training mentions.
        names: features to compute, besides all scores of the lists; None: all of `FEATURES`.
    """
    sources = FeatureSources(lists, counts)
    candidates = dict(lists.scores)
    wanted = FEATURES if names is None else names
    for name in wanted:
        feature = FEATURES.get(name)
        if feature is not None and feature.column is not None:
            candidates[name] = feature.column(sources)
    strings = sources.string_counts
    about_lists = {
        "string_count": np.log1p(strings),
        "seen_string": np.minimum(strings, 1).astype(np.float64),
    }
    return FeatureTable.of(lists, candidates, about_lists)


def inputs_of(features: Iterable[str]) -> list[str]:
    """Inputs that features need; one that is not declared is a score of user-provided lists."""
    inputs: list[str] = []
    for feature in features:
        if feature in FEATURES:
            inputs += FEATURES[feature].inputs
        else:
            inputs.append(feature.removesuffix(FOUND) + SUFFIX)
    return list(dict.fromkeys(inputs))


def missing_by_model(
    features: Sequence[str], cross_encoder_inputs: Sequence[str] = ()
) -> dict[str, tuple[str, ...]]:
    """The inputs that each model does not read, by its name: that of all inputs comes first.

    Args:
        features: all features that are weighed; none if the cross-encoder alone decides.
        cross_encoder_inputs: inputs that the cross-encoder reads (`PairTemplate.reads`).
    """
    read = dict.fromkeys([*cross_encoder_inputs, *inputs_of(features)])
    beyond_names = tuple(name for name in read if name != "entity_type")
    return {
        ALL_INPUTS: (),
        NO_TYPE: ("entity_type",),
        NAMES_ALONE: beyond_names,
        f"{NAMES_ALONE}, {NO_TYPE}": (*beyond_names, "entity_type"),
    }


def without_inputs(lists: Lists, missing: Sequence[str]) -> Lists:
    """The lists without these inputs."""
    if not missing:
        return lists
    count = len(lists)
    size = len(lists.owner)
    blanks: dict[str, dict[str, Any]] = {
        "cui": {"cuis": RepeatedTexts([None], np.zeros(size, np.int64))},
        "context": {"lefts": [""] * count, "rights": [""] * count},
        "entity_type": {"types": replace(lists.types, codes=np.full(count, -1))},
        "semantic_types": {
            "candidate_types": replace(lists.candidate_types, codes=np.full(size, -1))
        },
    }
    blanks |= {name: {f"{name}s": pa.nulls(size, pa.string())} for name in FIELDS}
    scores = dict(lists.scores)
    for name in scores:
        if f"{name}{SUFFIX}" in missing:
            scores[name] = np.full(size, np.nan)
    columns = [blanks[name] for name in missing if name in blanks]
    return lists.with_columns(**ChainMap({"scores": scores}, *columns))


def are_sentinels(scores: np.ndarray) -> np.ndarray:
    """Finite scores so far from all others that they stand for something else, (m,) bool.

    They lie more than `SENTINEL_RANGES` interquartile ranges below or above the quartiles, and as
    far from all other scores: a long tail of scores without a gap is none. Quartiles are those of
    the distinct scores, since a sentinel, or a score of nothing, may be that of most candidates.
    """
    finite = np.unique(scores[np.isfinite(scores)])
    if not len(finite):
        return np.zeros(len(scores), bool)
    lower, upper = np.quantile(finite, [0.25, 0.75])
    # The difference of two finite numbers may be too large.
    with np.errstate(over="ignore"):
        reach = SENTINEL_RANGES * (upper - lower)
    inner = finite[(finite >= lower - reach) & (finite <= upper + reach)]
    if reach == 0 or not len(inner):
        return np.zeros(len(scores), bool)
    below = np.isfinite(scores) & (scores < lower - reach)
    above = np.isfinite(scores) & (scores > upper + reach)
    below &= (scores[below] < inner.min() - reach).all()
    above &= (scores[above] > inner.max() + reach).all()
    return below | above


class ScoreRange(NamedTuple):
    """Lowest and highest score of a retriever among the candidates of the calibration split."""

    low: float
    high: float

    @classmethod
    def of(cls, scores: np.ndarray) -> ScoreRange:
        """The range of the finite scores among (m,) scores that are no sentinels.

        Raises:
            ValueError: no score is finite.
        """
        finite = scores[np.isfinite(scores) & ~are_sentinels(scores)]
        return cls(float(finite.min()), float(finite.max()))

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> ScoreRange:
        """Inverse of `_asdict`; raises an error of any usual kind if the state is not a range."""
        scores = cls(float(state["low"]), float(state["high"]))
        if not -np.inf < scores.low <= scores.high < np.inf:
            raise ValueError(f"{scores.low} to {scores.high} is not a range of finite numbers")
        return scores

    @property
    def bounds(self) -> ScoreRange:
        """The range within which a score counts: this one with its margin."""
        margin = MARGIN * (self.high - self.low)
        return ScoreRange(self.low - margin, self.high + margin)

    def inside(self, scores: np.ndarray) -> np.ndarray:
        """The scores, with NaN where they are out of bounds or not finite, (m,) float64."""
        low, high = self.bounds
        scores = np.asarray(scores, np.float64)
        return np.where((scores >= low) & (scores <= high), scores, np.nan)


def is_missing(lists: CandidateLists, name: str, counts: StringCounts | None = None) -> np.ndarray:
    """Mentions of which an input is missing, or that of one of their candidates, (n,) bool.

    Args:
        lists: n lists.
        name: the input.
        counts: what was counted, if ids of another vocabulary are missing, too.
    """
    match name:
        case "context":
            sides = zip(lists.lefts, lists.rights, strict=True)
            return np.array([not (left + right).strip() for left, right in sides], bool)
        case "entity_type":
            return ~lists.types.is_known
        case "semantic_types":
            # For a mention without types, it is unknown whether its candidates had any.
            missing = (lists.candidate_types.codes < 0) & lists.types.is_known[lists.owner]
        case "scores":
            return ~lists.are_scored
        case "cui":
            missing = _is_blank(lists.cuis)
            if counts is not None:
                is_counted = counts.have_counted_vocabularies(lists.ids)[lists.cuis.codes]
                missing |= ~lists_with_any(is_counted, lists.offsets)[lists.owner]
        case "preferred_name":
            missing = _is_blank(encoded_texts(lists.preferred_names))
        case "definition":
            missing = lists.definitions.is_null().to_numpy(zero_copy_only=False)
        case _:
            never_given = np.full(len(lists.owner), np.nan)
            missing = np.isnan(lists.scores.get(name.removesuffix(SUFFIX), never_given))
    return lists_with_any(missing, lists.offsets)


def always_missing(lists: CandidateLists, inputs: Sequence[str]) -> tuple[str, ...]:
    """Those of some inputs that are missing of every mention, in their order."""
    return tuple(name for name in inputs if is_missing(lists, name).all())


def _is_blank(column: RepeatedTexts) -> np.ndarray:
    return np.array([not (text and text.strip()) for text in column.texts], bool)[column.codes]
