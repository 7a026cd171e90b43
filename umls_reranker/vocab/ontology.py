"""Files of ontologies in OBO format.

OBO Flat File 1.2 and 1.4 (Day-Richter 2006; owlcollab.github.io/oboformat). Of ``[Term]`` stanzas
these are read: ``id``, ``name``, ``def``, ``synonym``, ``xref``, ``is_a``, ``is_obsolete`` and
``property_value: skos:exactMatch``; of the header ``ontology``, ``data-version`` and the license.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import Malformed, UserError
from ..core.text_files import decode, excerpt, read_lines
from .concepts import Concept
from .cui import CUI
from .types import SemanticType, TypeHierarchy

SCOPES = ("EXACT", "NARROW", "BROAD", "RELATED")
CROSS_REFERENCE = re.compile(r"(?:UMLS|UMLS_CUI):(\S*)")
# The value of an exact match is an id (UMLS:C...) or a URI.
UMLS_ENTITY = re.compile(r"(?:UMLS:|UMLS_CUI:|https?://\S*umls\S*/)([^\s/]+)", re.IGNORECASE)
LINE = re.compile(r"([A-Za-z_][\w-]*):\s*(.*)")
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(\w*)')
PROPERTY = re.compile(r'(\S+)\s+(?:"((?:[^"\\]|\\.)*)"|(\S+))')
COMMENT = re.compile(r"(?<!\\)\s!(?:\s.*)?$")
ESCAPE = re.compile(r"\\(.)")
ESCAPES = {"n": "\n", "t": "\t", "W": " "}


@dataclass(slots=True)
class OntologyTerm:
    """A term of an ontology.

    Attributes:
        id: e.g. ``HP:0000118``.
        name: its label.
        definition: its definition, or "".
        synonyms: ``(text, scope)``, the scope one of SCOPES.
        exact: UMLS references that the ontology calls exact matches (skos:exactMatch), a CUI or
            not.
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
        terms: terms by id, in file order.
        id: id of the ontology as in the file, or "".
        version: its version, or "".
        license: its license, or "".
    """

    path: Path
    terms: dict[str, OntologyTerm] = field(default_factory=dict)
    id: str = ""
    version: str = ""
    license: str = ""


def read_ontology(path: Path) -> Ontology:
    """Read an ontology; all of it is held in memory.

    Args:
        path: the file, plain or gzip.

    Raises:
        UserError: the file is missing, empty, damaged or without terms, or a line is malformed
            (names file and line).
    """
    ontology = Ontology(path)
    for started, lines in _stanzas(path):
        values: defaultdict[str, list[Any]] = defaultdict(list)
        for number, line in lines:
            with _at(path, number):
                _read_line(decode(line), values, is_term=started > 0)
        if not started:
            ontology = _header(path, values)
            continue
        term = _term(values)
        with _at(path, started):
            if not term.id or term.id in ontology.terms or not (term.name or term.obsolete):
                raise Malformed(
                    "[Term] needs a name and an id of its own", f", found {excerpt(term.id)}"
                )
        ontology.terms[term.id] = term
    if not ontology.terms:
        raise UserError(f"{path} contains no [Term]; expected an ontology in OBO format")
    return ontology


@contextmanager
def _at(path: Path, number: int) -> Iterator[None]:
    """Name file and line in what is malformed there."""
    try:
        yield
    except Malformed as problem:
        raise UserError(
            f"{path}:{number}: {problem}; correct the line or download the file again"
        ) from None


def _stanzas(path: Path) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
    """Header and ``[Term]`` stanzas: number of the first line (0: header), and the lines after."""
    started: int | None = 0
    lines: list[tuple[int, bytes]] = []
    for number, line in read_lines(path):
        line = line.strip()
        if line.startswith(b"["):
            if started is not None:
                yield started, lines
            started = number if line == b"[Term]" else None
            lines = []
        elif started is not None and line and not line.startswith(b"!"):
            lines.append((number, line))
    if started is not None:
        yield started, lines


def _read_line(text: str, values: defaultdict[str, list[Any]], *, is_term: bool) -> None:
    """Add the value of a line to those of its tag; of a header, what is no such line is ignored."""
    match = LINE.fullmatch(text)
    if match is not None:
        tag, value = match.groups()
        if tag in READERS:
            value = READERS[tag](tag, value)
        values[tag].append(value)
    elif is_term:
        raise Malformed("expected `tag: value`", f", found {excerpt(text)}")


def _header(path: Path, values: Mapping[str, list[Any]]) -> Ontology:
    """An ontology without terms, from the values of its header by tag."""
    licenses = (
        value
        for predicate, value in values["property_value"]
        # The prefix is the file's own: dcterms:license, terms:license, or the whole URI.
        if value and predicate.lower().endswith("license")
    )
    return Ontology(
        path,
        id=_last(values["ontology"]).strip(),
        version=_last(values["data-version"]).strip(),
        license=next(licenses, ""),
    )


def _term(values: Mapping[str, list[Any]]) -> OntologyTerm:
    """A term, from its values by tag."""
    exact = []
    for predicate, value in values["property_value"]:
        entity = UMLS_ENTITY.fullmatch(value)
        if entity and predicate.endswith("exactMatch"):
            exact.append(entity[1])
    synonyms = []
    for name, given_scope in values["synonym"]:
        # OBO 1.2: a synonym without scope is RELATED.
        scope = given_scope if given_scope in SCOPES else "RELATED"
        synonyms.append((name, scope))
    references = filter(None, map(CROSS_REFERENCE.match, values["xref"]))
    return OntologyTerm(
        id=_last(values["id"]),
        name=_last(values["name"]),
        definition=_last(values["def"]),
        synonyms=synonyms,
        exact=exact,
        references=[reference[1] for reference in references],
        parents=values["is_a"],
        obsolete=_last(values["is_obsolete"]) == "true",
    )


def _last(values: Sequence[str]) -> str:
    return values[-1] if values else ""


def _statement(value: str) -> tuple[str, str]:
    """Predicate and value of a ``property_value``; empty if it has another form."""
    match = PROPERTY.match(value)
    return (match[1], _unescape(match[2] or match[3] or "")) if match else ("", "")


def _first_word(tag: str, value: str) -> str:
    words = value.split(maxsplit=1)
    if not words:
        raise Malformed(f"`{tag}:` without a value")
    return words[0]


def _quoted(tag: str, value: str) -> tuple[str, str]:
    """The text in quotes at the start of a value, and the word after it."""
    match = QUOTED.match(value)
    if match is None or not match[1].strip():
        raise Malformed(f"`{tag}:` without a quoted string", f", found {excerpt(value)}")
    return _unescape(match[1]).strip(), match[2]


def _unescape(text: str) -> str:
    return ESCAPE.sub(lambda match: ESCAPES.get(match[1], match[1]), text) if "\\" in text else text


# Tag -> function of tag and value that reads the value; others are read as they are.
READERS: dict[str, Callable[[str, str], Any]] = {
    "id": _first_word,
    "is_a": _first_word,
    "is_obsolete": _first_word,
    "name": lambda tag, value: _unescape(COMMENT.sub("", value)).strip(),
    "def": lambda tag, value: _quoted(tag, value)[0],
    "synonym": _quoted,
    "property_value": lambda tag, value: _statement(value),
}


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
