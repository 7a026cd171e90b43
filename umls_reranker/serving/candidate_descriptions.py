"""Descriptions of the candidates of a list, by which people who choose one tell them apart."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from textwrap import shorten
from typing import Any

from ..lists.candidates import concept_id
from ..vocab.concept_codes import ConceptCodes
from ..vocab.concept_columns import ConceptColumns
from ..vocab.normalization import normalize_name
from ..vocab.types import TypeHierarchy

# Longer definitions are shortened to this number of characters.
LONGEST_DEFINITION = 100
CandidateMapping = Mapping[str, Any]
_hierarchy = cache(TypeHierarchy.built_in)


def display_name(candidate: CandidateMapping) -> str:
    """The name under which a candidate is shown: the preferred one, or else the one found."""
    return str(candidate.get("preferred_name") or candidate.get("name") or "")


def describe_candidates(
    candidates: Sequence[CandidateMapping],
    concepts: ConceptColumns | None = None,
    codes: ConceptCodes | None = None,
) -> list[str]:
    """Describe each of n candidates; no two with one name have the same description.

    A description has the name that was found, if it is not the one shown, the semantic types, and
    the beginning of the definition. Where two candidates have all this in common, it also has a
    name that the other lacks, or else a code, or else the id.

    Args:
        candidates: n candidates of different concepts.
        concepts: the concepts of the index, for their other names; None: there are none.
        codes: codes of the concepts in other vocabularies; None: there are none.
    """
    descriptions = ["; ".join(_candidate_facts(candidate)) for candidate in candidates]
    numbers_by_look = defaultdict(list)
    for number, candidate in enumerate(candidates):
        look = normalize_name(display_name(candidate)), descriptions[number]
        numbers_by_look[look].append(number)
    for numbers in numbers_by_look.values():
        if len(numbers) > 1:
            equal_candidates = [candidates[number] for number in numbers]
            differences = _differences(equal_candidates, concepts, codes)
            for number, difference in zip(numbers, differences, strict=True):
                parts = filter(None, (descriptions[number], difference))
                descriptions[number] = "; ".join(parts)
    return descriptions


def _candidate_facts(candidate: CandidateMapping) -> Iterator[str]:
    """The parts of a description that need no other candidate."""
    if candidate.get("name") not in (display_name(candidate), None):
        yield str(candidate["name"])
    types = candidate.get("semantic_types") or ()
    if isinstance(types, str):
        types = [types]
    yield from _hierarchy().names(types)
    if definition := candidate.get("definition"):
        yield shorten(definition, LONGEST_DEFINITION, placeholder=" ...")


def _differences(
    group: Sequence[CandidateMapping], concepts: ConceptColumns | None, codes: ConceptCodes | None
) -> list[str]:
    """Of each of several candidates a name, a code or the id that none of the others has."""
    ids = [concept_id(candidate) or "" for candidate in group]
    # The kinds of facts, in order of preference. A fact is a key, by which facts are compared,
    # and a text, which is displayed.
    kinds = [_other_names(ids, concepts), _codes(ids, codes), [{cui: cui} for cui in ids]]
    differences = []
    for number in range(len(group)):
        unique_facts = (_unique_fact(facts_of_ids, number) for facts_of_ids in kinds)
        differences.append(next(filter(None, unique_facts), ""))
    return differences


def _other_names(ids: Sequence[str], concepts: ConceptColumns | None) -> list[dict[str, str]]:
    """For each id the names of its concept: normalized name -> displayed text."""
    if concepts is None:
        return [{} for _ in ids]
    names, offsets = concepts.names_of(concepts.rows(ids))
    names_of_ids = []
    for start, stop in zip(offsets[:-1], offsets[1:], strict=True):
        texts = names[start:stop].to_pylist()
        names_of_ids.append({normalize_name(text): f"also {text}" for text in texts})
    return names_of_ids


def _codes(ids: Sequence[str], codes: ConceptCodes | None) -> list[dict[str, str]]:
    """For each id the codes of its concept: CURIE -> displayed text."""
    codes_of_ids = []
    for cui in ids:
        texts = {}
        if codes is not None:
            for code in codes.of(cui):
                # The code of a concept without any is its id, whose source is no vocabulary.
                if code.source in codes.sources:
                    texts[code.curie] = f"{code.source} {code.code}"
        codes_of_ids.append(texts)
    return codes_of_ids


def _unique_fact(facts: Sequence[Mapping[str, str]], number: int) -> str:
    """The displayed text of a candidate's first fact that no other candidate has; or "".

    Args:
        facts: key -> displayed text, of each of several candidates.
        number: the candidate.
    """
    keys_of_others: set[str] = set()
    for other, facts_of_other in enumerate(facts):
        if other != number:
            keys_of_others.update(facts_of_other)
    for key, text in facts[number].items():
        if key not in keys_of_others:
            return text
    return ""
