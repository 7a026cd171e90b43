"""The features that are computed from lists: a function each, which returns a column (m,) float64.

The help of each is in `features.OWN_FEATURES`. All count from n lists with m candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.arrays import counted_above, distinct_numbers, number_distinct
from ..lists.candidate_lists import CandidateLists
from ..vocab.cui import CUI
from ..vocab.normal_form import singular_words
from ..vocab.trigrams import shared_trigrams
from . import qualifiers
from .feature_sources import FeatureSources

# The number in a UMLS CUI counts in these units; other ids count as one unit.
CUI_UNIT = 1e6
# Prior uses of a concept for a string, and prior mentions of the string.
PRIOR_USES = 0.1
PRIOR_MENTIONS = 1.0


def exact_name(sources: FeatureSources) -> np.ndarray:
    is_equal = _have_equal_forms(sources.lists, sources.mentions, sources.names)
    return np.maximum(is_equal, sources.are_names(sources.mentions))


def same_words(sources: FeatureSources) -> np.ndarray:
    name_words = singular_words(sources.names)
    is_equal = _have_equal_forms(sources.lists, sources.mention_words, name_words)
    return np.maximum(is_equal, sources.is_other_name)


def _have_equal_forms(
    lists: CandidateLists, mentions: Sequence[str], names: Sequence[str]
) -> np.ndarray:
    """1 where a candidate's name and its mention have the same form, else 0, (m,) float64.

    Args:
        lists: the lists.
        mentions: the form of each mention, n texts.
        names: the forms of the distinct names.
    """
    distinct_forms, form_of_mention = number_distinct(mentions)
    number_of_form = {form: number for number, form in enumerate(distinct_forms)}
    form_of_name = np.array([number_of_form.get(form, -1) for form in names], np.int64)
    is_equal = form_of_name[lists.names.codes] == form_of_mention[lists.owner]
    return is_equal.astype(np.float64)


def list_position(sources: FeatureSources) -> np.ndarray:
    """Minus the log of the position in the list, counted from 1.

    Candidates of the same concept share the position of the first, and so do candidates of the same
    name, because retrievers order these by chance. Each position counts once.
    """
    lists = sources.lists
    distinct_names, number_of_name = number_distinct(sources.names)
    # Equal for candidates of the same list with the same name, (m,).
    name_in_list = lists.owner * len(distinct_names) + number_of_name[lists.names.codes]
    # The index of the first candidate that shares a concept or a name with each one, (m,).
    first = np.arange(len(lists.owner))
    for groups in (lists.concepts, name_in_list, lists.concepts):
        first = _lowest_in_group(first, groups)
    is_first = np.zeros(len(first), bool)
    is_first[first] = True
    return -np.log1p(counted_above(is_first, lists.offsets)[first])


def _lowest_in_group(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The lowest value in the group of each of m values, (m,) int64.

    Args:
        values: (m,) int64, indices below m.
        groups: (m,) int64, equal for values of the same group.
    """
    ascending = np.sort(groups)
    all_differ = not (ascending[1:] == ascending[:-1]).any()
    if all_differ:
        return values
    distinct_groups, group_number = np.unique(groups, return_inverse=True)
    lowest = np.full(len(distinct_groups), len(values))
    np.minimum.at(lowest, group_number, values)
    return lowest[group_number]


def concept_age(sources: FeatureSources) -> np.ndarray:
    lists = sources.lists
    number_of_id = np.array([_cui_number(concept_id) for concept_id in lists.ids], np.float64)
    return -number_of_id[lists.cuis.codes]


def _cui_number(concept_id: str) -> float:
    """The number in a CUI, in `CUI_UNIT`; 1 for any other id."""
    if CUI.fullmatch(concept_id):
        return int(concept_id[1:]) / CUI_UNIT
    return 1.0


def mention_in_name(sources: FeatureSources) -> np.ndarray:
    of_mention, _ = sources.shared_trigrams
    return np.maximum(of_mention, sources.is_other_name)


def name_in_mention(sources: FeatureSources) -> np.ndarray:
    _, of_name = sources.shared_trigrams
    return np.maximum(of_name, sources.is_other_name)


def own_similarity(sources: FeatureSources) -> np.ndarray:
    of_mention, of_name = shared_trigrams(
        sources.mention_forms, sources.name_forms, sources.lists.owner, sources.lists.names.codes
    )
    return np.maximum(np.sqrt(of_mention * of_name), sources.is_other_name)


def own_form(sources: FeatureSources) -> np.ndarray:
    is_equal = _have_equal_forms(sources.lists, sources.mention_forms, sources.name_forms)
    return np.maximum(is_equal, sources.is_other_name)


def qualifier_agreement(sources: FeatureSources) -> np.ndarray:
    agreement = qualifiers.qualifier_agreement(
        sources.mentions, sources.names, sources.lists.owner, sources.lists.names.codes
    )
    return np.maximum(agreement, sources.is_other_name)


def mention_concept_prior(sources: FeatureSources) -> np.ndarray:
    uses = sources.pair_counts.uses + PRIOR_USES
    mentions_of_string = sources.string_counts + PRIOR_MENTIONS
    return np.log(uses / mentions_of_string[sources.lists.owner])


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
    # A number for each pair of sets, so that each is compared once; 0 for a set that is not given.
    candidate_set_count = len(candidate_sets) + 1
    mention_set_of_pair = lists.types.codes[lists.owner] + 1
    pair_codes = mention_set_of_pair * candidate_set_count + lists.candidate_types.codes + 1
    pairs, pair_of_candidate = distinct_numbers(
        pair_codes, (len(mention_sets) + 1) * candidate_set_count
    )
    agrees = np.full(len(pairs), np.nan)
    for number, pair in enumerate(pairs.tolist()):
        mention_set, candidate_set = divmod(pair, candidate_set_count)
        if not mention_set or not candidate_set:
            continue
        mention_types = mention_sets[mention_set - 1]
        candidate_types = candidate_sets[candidate_set - 1]
        if mention_types:
            agrees[number] = not candidate_types or lists.hierarchy.agree(
                mention_types, candidate_types
            )
    return agrees[pair_of_candidate]
