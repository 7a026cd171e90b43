"""What tells the candidates of a list apart, for people who choose one of them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from textwrap import shorten
from typing import Any

from ..lists.candidates import concept_id
from ..vocab.codes import ConceptCodes
from ..vocab.concepts import ConceptColumns
from ..vocab.normalization import normalize_name
from ..vocab.types import TypeHierarchy

LONGEST_DEFINITION = 100
Candidate = Mapping[str, Any]
_hierarchy = cache(TypeHierarchy.built_in)


def shown_name(candidate: Candidate) -> str:
    """The name by which people know a candidate: the preferred one, or else the one found."""
    return str(candidate.get("preferred_name") or candidate.get("name") or "")


def about_candidates(
    candidates: Sequence[Candidate],
    concepts: ConceptColumns | None = None,
    codes: ConceptCodes | None = None,
) -> list[str]:
    """What each of n candidates is, besides its name; no two with one name have the same text.

    That is the name that was found, if it is another, the semantic types, and the beginning of the
    definition. Where two have all this in common, it is also a name that the other has not, or
    else a code, or else the id.

    Args:
        candidates: n candidates of different concepts.
        concepts: the concepts of the index, for their other names; None: these are not known.
        codes: codes of the concepts in other vocabularies; None: these are not known.
    """
    texts = ["; ".join(_facts(candidate)) for candidate in candidates]
    alike = defaultdict(list)
    for number, candidate in enumerate(candidates):
        alike[normalize_name(shown_name(candidate)), texts[number]].append(number)
    for numbers in alike.values():
        if len(numbers) > 1:
            group = [candidates[number] for number in numbers]
            for number, fact in zip(numbers, _differences(group, concepts, codes), strict=True):
                texts[number] = "; ".join(filter(None, (texts[number], fact)))
    return texts


def _facts(candidate: Candidate) -> Iterator[str]:
    """What a candidate says of itself."""
    if candidate.get("name") not in (shown_name(candidate), None):
        yield str(candidate["name"])
    types = candidate.get("semantic_types") or ()
    if isinstance(types, str):
        types = [types]
    yield from _hierarchy().names(types)
    if definition := candidate.get("definition"):
        yield shorten(definition, LONGEST_DEFINITION, placeholder=" ...")


def _differences(
    group: Sequence[Candidate], concepts: ConceptColumns | None, codes: ConceptCodes | None
) -> list[str]:
    """Of each of several candidates a name, a code or the id that none of the others has."""
    ids = [concept_id(candidate) or "" for candidate in group]
    kinds = [_other_names(ids, concepts), _codes(ids, codes), [{cui: cui} for cui in ids]]
    facts = []
    for number in range(len(group)):
        own = [_only_of(kind, number) for kind in kinds]
        facts.append(next(filter(None, own), ""))
    return facts


def _other_names(ids: Sequence[str], concepts: ConceptColumns | None) -> list[dict[str, str]]:
    """Of each id the names of its concept: as they are compared, and as they are shown."""
    if concepts is None:
        return [{} for _ in ids]
    names, offsets = concepts.names_of(concepts.rows(ids))
    of_ids = []
    for start, stop in zip(offsets[:-1], offsets[1:], strict=True):
        texts = names[start:stop].to_pylist()
        of_ids.append({normalize_name(text): f"also {text}" for text in texts})
    return of_ids


def _codes(ids: Sequence[str], codes: ConceptCodes | None) -> list[dict[str, str]]:
    """Of each id the codes of its concept, as they are shown."""
    of_ids: list[dict[str, str]] = [{} for _ in ids]
    if codes is not None:
        for texts, cui in zip(of_ids, ids, strict=True):
            for code in codes.of(cui):
                # The code of a concept without any is its id.
                if code.source in codes.sources:
                    texts[code.curie] = f"{code.source} {code.code}"
    return of_ids


def _only_of(values: Sequence[Mapping[str, str]], number: int) -> str:
    """The first value of one of several candidates that no other has, as it is shown; or ""."""
    of_others: set[str] = set()
    for other, keys in enumerate(values):
        if other != number:
            of_others.update(keys)
    for key, shown in values[number].items():
        if key not in of_others:
            return shown
    return ""
