"""Ontologies whose terms name UMLS concepts: the common form of the file formats, and merging of several."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import UserError
from ..core.lines import Malformed
from .columns import Concept
from .semantic_types import SemanticType, TypeHierarchy

__all__ = [
    "CROSS_REFERENCE",
    "SCOPES",
    "Ontology",
    "OntologyConcepts",
    "Term",
    "check_term",
    "matched_cui",
    "merge_ontologies",
]

SCOPES = ("EXACT", "NARROW", "BROAD", "RELATED")
COUNTS = ("obsolete", "without_cui", "merged_terms", "extra_cross_references", "not_a_cui", "dropped_synonyms")
CROSS_REFERENCE = re.compile(r"(?:UMLS|UMLS_CUI):(\S*)")
UMLS_ENTITY = re.compile(r"(?:UMLS|UMLS_CUI):(\S+)|https?://\S*umls\S*/(C[0-9]{7})", re.IGNORECASE)
CUI = re.compile(r"C[0-9]{7}")


@dataclass(slots=True)
class Term:
    """A term of an ontology.

    Attributes:
        id: e.g. ``HP:0000118``.
        name: its label.
        definition: or "".
        synonyms: ``(text, scope)``, the scope one of SCOPES.
        exact: UMLS references that the ontology calls exact matches (skos:exactMatch), a CUI or not.
        references: UMLS cross references, a CUI or not.
        parents: ids of the terms it is a kind of (is_a).
        obsolete: whether it is no longer to be used.
    """

    id: str = ""
    name: str = ""
    definition: str = ""
    synonyms: list[tuple[str, str]] = field(default_factory=list)
    exact: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)
    obsolete: bool = False


@dataclass(slots=True)
class Ontology:
    """Content of one file.

    Attributes:
        path: the file.
        terms: by id, in order of file.
        id, version, license: as the file states them, or "".
    """

    path: Path
    terms: dict[str, Term] = field(default_factory=dict)
    id: str = ""
    version: str = ""
    license: str = ""


class OntologyConcepts(NamedTuple):
    """The ontologies' part of the dictionary.

    Attributes:
        concepts: sorted by CUI.
        hierarchy: of their types, without parents.
        parents: pairs of CUIs ``(child, parent)``, by is_a.
        vocabularies: file, id, version and license of each ontology, and its number of terms.
        report: number of ``terms``, ``obsolete`` ones, those ``without_cui``, ``merged_terms``,
            ``extra_cross_references`` (second and later CUIs), ``not_a_cui`` (UMLS references of another form),
            ``dropped_synonyms`` (other scopes), ``concepts`` and ``typed``.
    """

    concepts: list[Concept]
    hierarchy: TypeHierarchy
    parents: list[tuple[str, str]]
    vocabularies: list[dict[str, Any]]
    report: dict[str, Any]


def check_term(term: Term, known: Container[str], noun: str) -> None:
    """Raise `Malformed` for a term without id or name, or whose id is `known`; `noun` is what its file calls it."""
    if not term.id:
        raise Malformed(f"{noun} without id")
    if term.id in known:
        raise Malformed(f"{noun} given twice", f": {term.id}")
    if not term.name and not term.obsolete:
        raise Malformed(f"{noun} without name", f": {term.id}")


def matched_cui(predicate: str, value: str) -> str:
    """The UMLS id in a statement skos:exactMatch, whose value is an id (UMLS:C...) or a URI; "" in any other one.

    >>> matched_cui("skos:exactMatch", "http://linkedlifedata.com/resource/umls/id/C0000744")
    'C0000744'
    """
    match = UMLS_ENTITY.fullmatch(value) if predicate.endswith("exactMatch") else None
    return (match[1] or match[2]) if match else ""


def merge_ontologies(
    ontologies: Sequence[Ontology], *, type_roots: Sequence[str], synonym_scopes: Sequence[str]
) -> OntologyConcepts:
    """Turn terms with a UMLS CUI into concepts; terms with the same CUI become one, within and across ontologies.

    A term with several CUIs counts for one of them: the first exact match, else the first cross reference. The name
    and the definition are those of the first term that has them, in the order of ontologies and of their files; the
    other names become synonyms. Obsolete terms and terms without a CUI are left out; is_a passes through them.

    Args:
        type_roots: ids of terms whose children serve as semantic types.
        synonym_scopes: scopes of the synonyms kept.

    Raises:
        UserError: a type root is no term, or no term names a CUI.
    """
    files = ", ".join(str(ontology.path) for ontology in ontologies)
    terms = [term for ontology in ontologies for term in ontology.terms.values()]
    hierarchy = _make_hierarchy(files, terms, type_roots)
    counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
    cuis = _choose_cuis(terms, counts)
    concepts = _merge(terms, cuis, _types_of(terms, hierarchy), set(synonym_scopes), counts)
    if not concepts:
        raise UserError(f"{files}: none of {len(terms)} terms has a cross reference UMLS:C...; take another ontology")
    report = {
        "terms": len(terms),
        **counts,
        "concepts": len(concepts),
        "typed": sum(bool(concept.semantic_types) for concept in concepts),
    }
    vocabularies = [
        {
            "file": ontology.path.name,
            "id": ontology.id,
            "version": ontology.version,
            "license": ontology.license,
            "terms": len(ontology.terms),
        }
        for ontology in ontologies
    ]
    return OntologyConcepts(concepts, hierarchy, _parents(terms, cuis), vocabularies, report)


def _make_hierarchy(files: str, terms: Sequence[Term], type_roots: Sequence[str]) -> TypeHierarchy:
    ids = {term.id for term in terms}
    for root in type_roots:
        if root not in ids:
            near = get_close_matches(root, ids, n=1)
            hint = f"did you mean {near[0]}?" if near else "give the id of a term"
            raise UserError(f"obo_type_roots: {root} is not a term of {files}; {hint}")
    roots = set(type_roots)
    types: dict[str, SemanticType] = {}
    for term in terms:
        if not term.obsolete and roots.intersection(term.parents):
            types.setdefault(term.id, SemanticType(term.id, term.name))
    return TypeHierarchy(types.values())


def _types_of(terms: Sequence[Term], hierarchy: TypeHierarchy) -> dict[str, list[str]]:
    """Term -> the types that it is or descends from, in the hierarchy's order."""
    children: dict[str, list[str]] = {}
    for term in terms:
        for parent in term.parents:
            children.setdefault(parent, []).append(term.id)
    types: dict[str, list[str]] = {}
    for type_id in hierarchy:
        reached, waiting = {type_id}, [type_id]
        while waiting:
            fresh = [child for child in children.get(waiting.pop(), ()) if child not in reached]
            reached.update(fresh)
            waiting += fresh
        for term_id in reached:
            types.setdefault(term_id, []).append(type_id)
    return types


def _choose_cuis(terms: Sequence[Term], counts: Counter[str]) -> list[str]:
    """The CUI of each term, or "" for an obsolete term and one without."""
    chosen = []
    for term in terms:
        counts["obsolete"] += term.obsolete
        references = [] if term.obsolete else [*term.exact, *(r for r in term.references if r not in term.exact)]
        cuis = [reference for reference in references if CUI.fullmatch(reference)]
        counts["not_a_cui"] += len(references) - len(cuis)
        counts["extra_cross_references"] += max(0, len(cuis) - 1)
        counts["without_cui"] += not (cuis or term.obsolete)
        chosen.append(cuis[0] if cuis else "")
    return chosen


def _merge(
    terms: Sequence[Term],
    cuis: Sequence[str],
    types: Mapping[str, list[str]],
    scopes: set[str],
    counts: Counter[str],
) -> list[Concept]:
    by_cui: dict[str, list[Term]] = {}
    for term, cui in zip(terms, cuis, strict=True):
        if cui:
            by_cui.setdefault(cui, []).append(term)
    concepts = []
    for cui, merged in sorted(by_cui.items()):
        counts["merged_terms"] += len(merged) - 1
        synonyms = [synonym for term in merged for synonym in term.synonyms]
        kept = [text for text, scope in synonyms if scope in scopes]
        counts["dropped_synonyms"] += len(synonyms) - len(kept)
        name, *others = dict.fromkeys([*(term.name for term in merged), *kept])
        type_ids = dict.fromkeys(type_id for term in merged for type_id in types.get(term.id, ()))
        definition = next((term.definition for term in merged if term.definition), "")
        concepts.append(Concept(cui, name, tuple(others), tuple(type_ids), definition))
    return concepts


def _parents(terms: Iterable[Term], cuis: Iterable[str]) -> list[tuple[str, str]]:
    """A concept and its nearest ancestors: a term without a CUI is replaced by its parents."""
    cui_of: dict[str, str] = {}
    parents: dict[str, list[str]] = {}
    for term, cui in zip(terms, cuis, strict=True):
        cui_of[term.id] = cui_of.get(term.id) or cui
        parents.setdefault(term.id, []).extend(term.parents)
    pairs: dict[tuple[str, str], None] = {}
    for term_id, cui in cui_of.items():
        reached, waiting = {term_id}, [term_id] if cui else []
        while waiting:
            for parent in parents.get(waiting.pop(), ()):
                if parent not in reached:
                    reached.add(parent)
                    if cui_of.get(parent):
                        pairs[cui, cui_of[parent]] = None
                    else:
                        waiting.append(parent)
    return list(pairs)
