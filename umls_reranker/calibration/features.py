"""The features that a model can weigh: name, help and inputs of each.

To add one, write a function in `feature_columns` and a line in `OWN_FEATURES`. From outside of the
package, call `register_feature`. When an input counts as missing is said in `missing_inputs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import starmap

import numpy as np

from ..core.errors import UserError
from ..lists.candidate_lists import CandidateLists
from ..lists.columns import FOUND, SUFFIX
from ..lists.index_scores import INDEX_SCORES, IndexScore
from . import feature_columns
from .feature_sources import FeatureSources

CROSS_ENCODER = "cross_encoder"
# What a feature can be made of, besides scores and the candidate's name.
FEATURE_INPUTS = ("entity_type", "context", "cui", "semantic_types", "scores")
LIST_POSITION = "list_position"
# The same of lists with scores. The built-in model weighs it: of lists without any score it cannot
# know whether their order means anything.
SCORED_POSITION = "scored_position"


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
        name for name in feature.inputs if name not in FEATURE_INPUTS and not name.endswith(SUFFIX)
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
    return Feature(name, score.help, inputs=(*context, f"{name}{SUFFIX}"))


# Similarities that stand in for the score of a retriever: models that read one do not weigh them.
STAND_INS = {
    feature.name: feature
    for feature in (
        Feature(
            "own_similarity",
            "cosine of mention and name by character trigrams of their normal forms, where no "
            "retriever gives a score",
            feature_columns.own_similarity,
        ),
        Feature(
            "own_form",
            "1 if mention and name have the same normal form, where no retriever gives a score",
            feature_columns.own_form,
        ),
    )
}
OWN_FEATURES = (
    Feature(
        "exact_name",
        "1 if a normalized name equals the normalized mention",
        feature_columns.exact_name,
    ),
    Feature(
        "same_words",
        "1 if a name and the mention have the same words in the singular, in any order",
        feature_columns.same_words,
    ),
    Feature(
        "mention_in_name",
        "share of the mention's character trigrams that are in the name",
        feature_columns.mention_in_name,
    ),
    Feature(
        "name_in_mention",
        "share of the name's character trigrams that are in the mention",
        feature_columns.name_in_mention,
    ),
    Feature(
        "qualifier_agreement",
        "qualifier agreement: 0 if qualifiers or numbers of the name contradict those of the "
        "mention, such as left and right; else 1",
        feature_columns.qualifier_agreement,
    ),
    Feature(
        "mention_concept_prior",
        "mention-concept prior: log of the smoothed share of this concept among training "
        "mentions with this string",
        feature_columns.mention_concept_prior,
        inputs=("cui",),
    ),
    Feature(
        "concept_count",
        "log(1 + training mentions of this concept)",
        feature_columns.concept_count,
        inputs=("cui",),
    ),
    Feature(
        "type_lift",
        "log lift of the mention's type among training mentions of this concept",
        feature_columns.type_lift,
        inputs=("entity_type", "cui"),
    ),
    Feature(
        "type_compatibility",
        "type compatibility: 0 if the concept's types in the dictionary contradict "
        "the mention's; else 1",
        feature_columns.type_compatibility,
        inputs=("entity_type", "semantic_types"),
    ),
    Feature(
        LIST_POSITION,
        "minus the log of the rank in the list, for user-provided candidate lists",
        feature_columns.list_position,
    ),
    Feature(
        SCORED_POSITION,
        "the same in lists whose candidates have a score of any retriever",
        feature_columns.list_position,
        inputs=("scores",),
    ),
    Feature(
        "concept_age",
        "minus the number in the CUI, in millions: concepts added to the UMLS early are "
        "mentioned more often",
        feature_columns.concept_age,
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
    names = [
        name
        for name, feature in FEATURES.items()
        if feature.column is not None and name != SCORED_POSITION
    ]
    if any(lists.index_keys):
        names.remove(LIST_POSITION)
    return [CROSS_ENCODER, *lists.scores, *names]


def refuse_feature_names(lists: CandidateLists) -> None:
    """Refuse user-provided lists with a score that has the name of a feature.

    Raises:
        UserError: there is one; names it.
    """
    for name in lists.scores:
        is_of_index = name in INDEX_SCORES and all(lists.index_keys)
        if name in FEATURES and not is_of_index:
            raise UserError(f"{name}_score names a feature; rename it, as sapbert_score")


def check_features(names: Iterable[str], lists: CandidateLists) -> None:
    """Refuse features that do not exist, and scores that the lists lack.

    Raises:
        UserError: a feature is unknown or missing; names it.
    """
    for name in names:
        if name not in FEATURES and name not in lists.scores:
            choices = dict.fromkeys((*FEATURES, *lists.scores))
            raise UserError(f"features: {name!r} is unknown; choose from {', '.join(choices)}")
        if name in INDEX_SCORES and name not in lists.scores:
            raise UserError(
                f"features: the candidate lists have no {name} scores; add that retriever to "
                "`retrievers` (in user-provided candidate lists, NAME_score is the feature NAME)"
            )


def inputs_of(features: Iterable[str]) -> list[str]:
    """Inputs that features need; one that is not declared is a score of user-provided lists."""
    inputs: list[str] = []
    for feature in features:
        if feature in FEATURES:
            inputs += FEATURES[feature].inputs
        else:
            inputs.append(feature.removesuffix(FOUND) + SUFFIX)
    return list(dict.fromkeys(inputs))
