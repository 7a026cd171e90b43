"""The concepts of ontologies: their terms with a CUI, and types from their own tree."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import UserError
from .concepts import Concept
from .cui import CUI
from .obo_files import SCOPES, OntologyTerm, read_ontology
from .types import SemanticType, TypeHierarchy


class OntologyConcepts(NamedTuple):
    """Concepts and types of ontologies.

    Attributes:
        concepts: concepts sorted by CUI.
        hierarchy: hierarchy of their types, without parents.
        vocabularies: file, id, version and license of each ontology, and its number of terms.
        report: number of ``terms``, ``obsolete`` ones, those with ``several_cuis`` (the others
            are in `codes.read_obo_codes`) and ``without_cui``, ``merged_terms`` and
            ``dropped_synonyms`` (other scopes).
    """

    concepts: list[Concept]
    hierarchy: TypeHierarchy
    vocabularies: list[dict[str, Any]]
    report: dict[str, Any]


def read_obo_concepts(
    paths: Sequence[Path],
    *,
    type_roots: Sequence[str] = (),
    synonym_scopes: Sequence[str] = ("EXACT",),
) -> OntologyConcepts:
    """Read the terms with a CUI (``xref: UMLS:C...`` or ``UMLS_CUI:C...``) as sorted concepts.

    A term with several CUIs counts for only one of them, because its names are names of one
    concept. It is the first exact match (``skos:exactMatch``), or else the first cross reference.
    Terms with the same CUI are merged: the name of the first is preferred, the names of the others
    become synonyms. Obsolete terms and terms without a CUI are left out. Equal names of a concept
    are kept once.

    Args:
        paths: the ontologies, plain or gzip; names and definitions of the first are preferred.
        type_roots: ids of terms whose children (by ``is_a``) serve as semantic types, e.g.
            ``HP:0000118`` for the organ systems of the Human Phenotype Ontology; a concept has
            every type that its terms are or descend from. Empty: concepts have no types.
        synonym_scopes: scopes of the synonyms kept.

    Returns:
        The concepts, their types, and a report.

    Raises:
        UserError: a file is missing, empty or broken; a line is malformed (names file and line); a
            type root or a scope is unknown; or no term names a CUI.
    """
    for scope in synonym_scopes:
        if scope not in SCOPES:
            raise UserError(f"obo_synonym_scopes: {scope!r} is not one of {', '.join(SCOPES)}")
    ontologies = list(map(read_ontology, paths))
    files = ", ".join(map(str, paths))
    terms = [term for ontology in ontologies for term in ontology.terms.values()]
    hierarchy = _make_hierarchy(files, terms, type_roots)
    cuis_of_terms = list(map(cuis_of, terms))
    cuis = [next(iter(of_term), "") for of_term in cuis_of_terms]
    counts = Counter(obsolete=sum(term.obsolete for term in terms))
    counts["several_cuis"] = sum(len(of_term) > 1 for of_term in cuis_of_terms)
    counts["without_cui"] = cuis.count("") - counts["obsolete"]
    concepts = _merge(terms, cuis, _types_of(terms, hierarchy), synonym_scopes, counts)
    if not concepts:
        raise UserError(
            f"{files}: none of {len(terms)} terms has a cross-reference UMLS:C...; "
            "use another ontology"
        )
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
    report = {"terms": len(terms), **counts}
    return OntologyConcepts(concepts, hierarchy, vocabularies, report)


def _make_hierarchy(
    files: str, terms: Sequence[OntologyTerm], type_roots: Sequence[str]
) -> TypeHierarchy:
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


def _reachable(start: str, links: Mapping[str, Iterable[str]]) -> list[str]:
    """`start`, and the terms reached from it along links."""
    reached: dict[str, None] = {start: None}
    waiting = [start]
    while waiting:
        for linked in links.get(waiting.pop(), ()):
            if linked not in reached:
                reached[linked] = None
                waiting.append(linked)
    return list(reached)


def _types_of(terms: Sequence[OntologyTerm], hierarchy: TypeHierarchy) -> dict[str, list[str]]:
    """Term -> the types that it is or descends from, in the hierarchy's order."""
    children: dict[str, list[str]] = {}
    for term in terms:
        for parent in term.parents:
            children.setdefault(parent, []).append(term.id)
    types: dict[str, list[str]] = {}
    for type_id in hierarchy:
        for term_id in _reachable(type_id, children):
            types.setdefault(term_id, []).append(type_id)
    return types


def cuis_of(term: OntologyTerm) -> list[str]:
    """The CUIs of a term, that which counts first; an obsolete term has none."""
    references = [] if term.obsolete else [*term.exact, *term.references]
    cuis = [reference.upper() for reference in references if CUI.fullmatch(reference)]
    return list(dict.fromkeys(cuis))


def _merge(
    terms: Sequence[OntologyTerm],
    cuis: Sequence[str],
    types: Mapping[str, list[str]],
    scopes: Sequence[str],
    counts: Counter[str],
) -> list[Concept]:
    by_cui: dict[str, list[OntologyTerm]] = {}
    for term, cui in zip(terms, cuis, strict=True):
        if cui:
            by_cui.setdefault(cui, []).append(term)
    concepts = []
    for cui, merged in sorted(by_cui.items()):
        counts["merged_terms"] += len(merged) - 1
        synonyms = [synonym for term in merged for synonym in term.synonyms]
        texts = [text for text, scope in synonyms if scope in scopes]
        counts["dropped_synonyms"] += len(synonyms) - len(texts)
        name, *other_names = dict.fromkeys([*(term.name for term in merged), *texts])
        type_ids = dict.fromkeys(type_id for term in merged for type_id in types.get(term.id, ()))
        definition = next((term.definition for term in merged if term.definition), "")
        concepts.append(Concept(cui, name, tuple(other_names), tuple(type_ids), definition))
    return concepts
