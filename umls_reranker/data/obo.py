"""Files of ontologies in OBO format.

OBO Flat File 1.2 and 1.4 (Day-Richter 2006; owlcollab.github.io/oboformat). Of ``[Term]`` stanzas these are read:
``id``, ``name``, ``def``, ``synonym``, ``xref``, ``is_a``, ``is_obsolete`` and ``property_value: skos:exactMatch``; of
the header ``ontology``, ``data-version`` and the license.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import UserError
from ..core.lines import Malformed, decode, excerpt, read_lines

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
class Term:
    """A term of an ontology.

    Attributes:
        id: e.g. ``HP:0000118``.
        name: its label.
        definition: its definition, or "".
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
        terms: terms by id, in file order.
        id: id of the ontology as in the file, or "".
        version: its version, or "".
        license: its license, or "".
    """

    path: Path
    terms: dict[str, Term] = field(default_factory=dict)
    id: str = ""
    version: str = ""
    license: str = ""


def read_ontology(path: Path) -> Ontology:
    """Read an ontology; all of it is held in memory.

    Args:
        path: the file, plain or gzip.

    Raises:
        UserError: the file is missing, empty, damaged or without terms, or a line is malformed (names file and line).
    """
    ontology = Ontology(path)
    for started, lines in _stanzas(path):
        term = Term()
        for number, line in lines:
            with _at(path, number):
                _parse_line(decode(line), term) if started else _parse_header(decode(line), ontology)
        if started:
            with _at(path, started):
                if not term.id or term.id in ontology.terms or not (term.name or term.obsolete):
                    raise Malformed("[Term] needs a name and an id of its own", f", found {excerpt(term.id)}")
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
        raise UserError(f"{path}:{number}: {problem}; correct the line or download the file again") from None


def _stanzas(path: Path) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
    """The header and the ``[Term]`` stanzas: number of the first line (0: header), and the numbered lines after it."""
    started: int | None = 0
    lines: list[tuple[int, bytes]] = []
    for number, line in read_lines(path):
        line = line.strip()
        if line.startswith(b"["):
            if started is not None:
                yield started, lines
            started, lines = (number if line == b"[Term]" else None), []
        elif started is not None and line and not line.startswith(b"!"):
            lines.append((number, line))
    if started is not None:
        yield started, lines


def _parse_header(text: str, ontology: Ontology) -> None:
    match = LINE.fullmatch(text)
    tag, value = match.groups() if match else ("", "")
    if tag == "ontology":
        ontology.id = value.strip()
    elif tag == "data-version":
        ontology.version = value.strip()
    elif tag == "property_value":
        predicate, value = _statement(value)
        # The prefix is the file's own: dcterms:license, terms:license, or the whole URI.
        if predicate.lower().endswith("license"):
            ontology.license = ontology.license or value


def _parse_line(text: str, term: Term) -> None:
    match = LINE.fullmatch(text)
    if match is None:
        raise Malformed("expected `tag: value`", f", found {excerpt(text)}")
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
        if match := CROSS_REFERENCE.match(value):
            term.references.append(match[1])
    elif tag == "property_value":
        predicate, value = _statement(value)
        if predicate.endswith("exactMatch") and (match := UMLS_ENTITY.fullmatch(value)):
            term.exact.append(match[1])
    elif tag == "is_a":
        term.parents.append(_first_word(tag, value))
    elif tag == "is_obsolete":
        term.obsolete = _first_word(tag, value) == "true"


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
