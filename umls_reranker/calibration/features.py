"""Features of candidates other than the cross-encoder's score, as columns over candidate lists."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..core.arrays import distinct_numbers, number_distinct
from ..core.retrievers import SCORES
from ..data.candidate_lists import CandidateLists
from ..data.normalization import normalize_texts
from ..data.semantic_types import TypeHierarchy
from .fusion import CANDIDATE_FEATURES
from .qualifiers import qualifier_fits
from .string_counts import StringCounts
from .trigrams import shared_trigrams

__all__ = ["default_features", "features"]

# Prior uses of a concept for a string, and prior mentions of the string.
PRIOR_USES, PRIOR_MENTIONS = 0.1, 1.0


def default_features(lists: CandidateLists) -> list[str]:
    """Features used by default: all that need no retriever, and the scores of the lists."""
    others = (name for name in CANDIDATE_FEATURES if name not in ("cross_encoder", *SCORES))
    return ["cross_encoder", *lists.scores, *others]


def features(lists: CandidateLists, counts: StringCounts) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Columns by the names of `fusion.CANDIDATE_FEATURES`, (m,) float64, and `fusion.LIST_FEATURES`, (n,).

    NaN if a list lacks the inputs of a feature; scores of retrievers that no candidate has are left out.
    """
    owner, names, concept = lists.owner, lists.names, lists.cuis.codes
    forms, others = normalize_texts(lists.mentions), normalize_texts(names.texts)
    distinct, form = number_distinct(forms)
    numbers = {text: number for number, text in enumerate(distinct)}
    exact = np.array([numbers.get(text, -1) for text in others], np.int64)[names.codes] == form[owner]
    found = counts.of_pairs(forms, lists.types, lists.ids, owner, concept)
    seen = found.strings
    of_mention, of_name = shared_trigrams(forms, others, owner, names.codes)
    candidates = {
        **lists.scores,
        "exact_name": exact.astype(np.float64),
        "mention_in_name": of_mention,
        "name_in_mention": of_name,
        "string_share": np.log((found.uses + PRIOR_USES) / (seen + PRIOR_MENTIONS)[owner]),
        "concept_count": np.log1p(found.concepts)[concept],
        "type_lift": np.where(lists.types.is_known[owner], found.type_lifts, np.nan),
        "type_fit": type_fits(lists),
        "qualifier_fit": qualifier_fits(forms, others, owner, names.codes),
    }
    return candidates, {"string_count": np.log1p(seen), "seen_string": np.minimum(seen, 1).astype(np.float64)}


@lru_cache(maxsize=65_536)
def _agree(hierarchy: TypeHierarchy, types: tuple[str, ...], others: tuple[str, ...]) -> bool:
    return hierarchy.agree(types, others)


def type_fits(lists: CandidateLists) -> np.ndarray:
    """Whether the types of candidates do not contradict those of their mentions.

    Two types agree if one is a kind of the other, because annotation schemes use broader types than the dictionary. A
    candidate without known types contradicts nothing.

    Returns:
        (m,) float64: 1, or 0 if no two types agree; NaN if the mention's or the candidate's types are unknown.
    """
    own, others = lists.types, lists.candidate_types
    # Each pair of sets once; the first index of both means not given.
    width = len(others.sets) + 1
    codes = (own.codes[lists.owner] + 1) * width + others.codes + 1
    pairs, place = distinct_numbers(codes, (len(own.sets) + 1) * width)
    fits = np.full(len(pairs), np.nan)
    for number, pair in enumerate(pairs.tolist()):
        row, other = divmod(pair, width)
        if row and other and (types := own.sets[row - 1]):
            kinds = others.sets[other - 1]
            fits[number] = not kinds or _agree(lists.hierarchy, types, kinds)
    return fits[place]
