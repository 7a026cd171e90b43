"""OBO ontologies with UMLS cross references, such as the Human Phenotype Ontology: the way in without a licence.

Format: OBO Flat File 1.2 and 1.4 (Day-Richter 2006; owlcollab.github.io/oboformat). Read are, of ``[Term]`` stanzas,
``id``, ``name``, ``def``, ``synonym``, ``xref``, ``is_a`` and ``is_obsolete``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import UserError
from .concepts import Concept
from .lines import Faults, Malformed, decode, read_lines, shown
from .semantic_types import SemanticType, TypeHierarchy

__all__ = ["read_obo_concepts"]

COUNTS = ("obsolete", "without_cui", "merged_terms", "extra_cross_references", "not_a_cui", "dropped_synonyms")
SCOPES = ("EXACT", "NARROW", "BROAD", "RELATED")
LINE = re.compile(r"([A-Za-z_][\w-]*):\s*(.*)")
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(\w*)')
CROSS_REFERENCE = re.compile(r"(?:UMLS|UMLS_CUI):(\S*)")
CUI = re.compile(r"C[0-9]{7}")
COMMENT = re.compile(r"(?<!\\)\s!(?:\s.*)?$")
ESCAPE = re.compile(r"\\(.)")
ESCAPES = {"n": "\n", "t": "\t", "W": " "}


def read_obo_concepts(
    path: str | Path,
    *,
    type_roots: Sequence[str] = (),
    synonym_scopes: Sequence[str] = ("EXACT",),
    on_error: str = "stop",
    report: dict[str, Any] | None = None,
) -> tuple[list[Concept], TypeHierarchy]:
    """Read the terms that name a UMLS CUI (``xref: UMLS:C...`` or ``UMLS_CUI:C...``) as concepts, sorted by CUI.

    A term with several CUIs stands for the first one only: its names are names of one concept. Terms with the same
    first CUI are merged: the name of the one that comes first in the file is preferred, the others' names become
    synonyms. Obsolete terms and terms without a CUI are left out. Names of a concept that are spelled the same are
    given once.

    Args:
        path: the ontology, plain or gzip.
        type_roots: ids of terms whose children (by ``is_a``) serve as semantic types, e.g. ``HP:0000118`` for the
            organ systems of the Human Phenotype Ontology; a concept has every type that its terms are or descend
            from. Empty: concepts have no types.
        synonym_scopes: scopes of the synonyms kept.
        on_error: ``"stop"`` at the first malformed line, or ``"skip"`` and count it in `report`; a stanza without id
            or name is skipped whole.
        report: filled with counts: ``terms``, ``obsolete``, ``without_cui``, ``merged_terms``,
            ``extra_cross_references`` (second and later CUIs), ``not_a_cui`` (UMLS references of another form),
            ``dropped_synonyms`` (other scopes), ``concepts``, ``typed``, ``skipped`` and ``reasons``.

    Returns:
        the concepts, and the hierarchy of their types (without parents).

    Raises:
        UserError: the file is missing, empty or broken; a line is malformed (names file and line); a type root or a
            scope is unknown; or no term names a CUI.
    """
    path = Path(path)
    for scope in synonym_scopes:
        if scope not in SCOPES:
            raise UserError(f"obo_synonym_scopes: {scope!r} is not one of {', '.join(SCOPES)}")
    reasons: Counter[str] = Counter()
    counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
    terms = {term.id: term for term in _read_terms(path, Faults(path, on_error, reasons))}
    if not terms:
        raise UserError(f"{path} holds no [Term]; expected an ontology in OBO format")
    hierarchy = _make_hierarchy(path, terms, type_roots)
    concepts = _merge(terms.values(), _types_of(terms, hierarchy), set(synonym_scopes), counts)
    if not concepts:
        raise UserError(f"{path}: none of {len(terms)} terms has a cross reference UMLS:C...; take another ontology")
    if report is not None:
        report |= {
            "terms": len(terms),
            **counts,
            "concepts": len(concepts),
            "typed": sum(bool(concept.semantic_types) for concept in concepts),
            "skipped": reasons.total(),
            "reasons": dict(reasons),
        }
    return concepts, hierarchy


@dataclass(slots=True)
class _Term:
    id: str = ""
    name: str = ""
    definition: str = ""
    synonyms: list[tuple[str, str]] = field(default_factory=list)
    """(text, scope)"""
    references: list[str] = field(default_factory=list)
    """what follows the prefix UMLS, a CUI or not"""
    parents: list[str] = field(default_factory=list)
    obsolete: bool = False


def _read_terms(path: Path, faults: Faults) -> Iterator[_Term]:
    """The file's terms; ids are unique."""
    seen: set[str] = set()
    for started, lines in _stanzas(path):
        term = _Term()
        for number, line in lines:
            try:
                _parse_line(decode(line), term)
            except Malformed as problem:
                faults.add(number, problem)
        try:
            _check(term, seen)
        except Malformed as problem:
            faults.add(started, problem)
        else:
            seen.add(term.id)
            yield term


def _stanzas(path: Path) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
    """The ``[Term]`` stanzas: number of the first line, and the numbered lines after it."""
    started, lines = 0, []
    for number, line in read_lines(path):
        line = line.strip()
        if line.startswith(b"["):
            if started:
                yield started, lines
            started, lines = (number if line == b"[Term]" else 0), []
        elif started and line and not line.startswith(b"!"):
            lines.append((number, line))
    if started:
        yield started, lines


def _check(term: _Term, seen: set[str]) -> None:
    if not term.id:
        raise Malformed("[Term] without id")
    if term.id in seen:
        raise Malformed("[Term] given twice", f": {term.id}")
    if not term.name and not term.obsolete:
        raise Malformed("[Term] without name", f": {term.id}")


def _parse_line(text: str, term: _Term) -> None:
    match = LINE.fullmatch(text)
    if match is None:
        raise Malformed("expected `tag: value`", f", found {shown(text)}")
    tag, value = match.groups()
    if tag == "id":
        term.id = _first_word(tag, value)
    elif tag == "name":
        term.name = _unescape(COMMENT.sub("", value)).strip()
    elif tag == "def":
        term.definition = _quoted(tag, value)[0]
    elif tag == "synonym":
        name, scope = _quoted(tag, value)
        # OBO 1.2: a synonym without scope is RELATED.
        term.synonyms.append((name, scope if scope in SCOPES else "RELATED"))
    elif tag == "xref":
        reference = CROSS_REFERENCE.match(value)
        if reference:
            term.references.append(reference[1])
    elif tag == "is_a":
        term.parents.append(_first_word(tag, value))
    elif tag == "is_obsolete":
        term.obsolete = _first_word(tag, value) == "true"


def _first_word(tag: str, value: str) -> str:
    words = value.split(maxsplit=1)
    if not words:
        raise Malformed(f"`{tag}:` without a value")
    return words[0]


def _quoted(tag: str, value: str) -> tuple[str, str]:
    """The text in quotes at the start of a value, and the word after it."""
    match = QUOTED.match(value)
    if match is None or not match[1].strip():
        raise Malformed(f"`{tag}:` without a text in quotes", f", found {shown(value)}")
    return _unescape(match[1]).strip(), match[2]


def _unescape(text: str) -> str:
    return ESCAPE.sub(lambda match: ESCAPES.get(match[1], match[1]), text) if "\\" in text else text


def _make_hierarchy(path: Path, terms: Mapping[str, _Term], type_roots: Sequence[str]) -> TypeHierarchy:
    for root in type_roots:
        if root not in terms:
            near = get_close_matches(root, terms, n=1)
            hint = f"did you mean {near[0]}?" if near else "give the id of a term"
            raise UserError(f"obo_type_roots: {root} is not a term of {path}; {hint}")
    roots = set(type_roots)
    return TypeHierarchy.from_edges(
        SemanticType(term.id, term.name)
        for term in terms.values()
        if not term.obsolete and roots.intersection(term.parents)
    )


def _types_of(terms: Mapping[str, _Term], hierarchy: TypeHierarchy) -> dict[str, list[str]]:
    """Term -> the types that it is or descends from, in the hierarchy's order."""
    children: dict[str, list[str]] = {}
    for term in terms.values():
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


def _merge(
    terms: Iterable[_Term], types: Mapping[str, list[str]], scopes: set[str], counts: Counter[str]
) -> list[Concept]:
    by_cui: dict[str, list[_Term]] = {}
    for term in terms:
        if term.obsolete:
            counts["obsolete"] += 1
            continue
        cuis = [reference for reference in term.references if CUI.fullmatch(reference)]
        counts["not_a_cui"] += len(term.references) - len(cuis)
        if not cuis:
            counts["without_cui"] += 1
            continue
        counts["extra_cross_references"] += len(cuis) - 1
        by_cui.setdefault(cuis[0], []).append(term)
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
