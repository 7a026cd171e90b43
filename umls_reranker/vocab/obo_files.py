"""Files of ontologies in OBO format.

OBO Flat File 1.2 and 1.4 (Day-Richter 2006; owlcollab.github.io/oboformat). Of ``[Term]`` stanzas
these are read: ``id``, ``name``, ``def``, ``synonym``, ``xref``, ``is_a``, ``is_obsolete`` and
``property_value: skos:exactMatch``; of the header ``ontology``, ``data-version`` and the license.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import Malformed, UserError
from ..core.text_files import decode, excerpt, read_lines

SCOPES = ("EXACT", "NARROW", "BROAD", "RELATED")
CROSS_REFERENCE = re.compile(r"(?:UMLS|UMLS_CUI):(\S*)")
# The value of an exact match is an id (UMLS:C...) or a URI.
UMLS_ENTITY = re.compile(r"(?:UMLS:|UMLS_CUI:|https?://\S*umls\S*/)([^\s/]+)", re.IGNORECASE)
TAG_AND_VALUE = re.compile(r"([A-Za-z_][\w-]*):\s*(.*)")
QUOTED_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(\w*)')
PROPERTY_VALUE = re.compile(r'(\S+)\s+(?:"((?:[^"\\]|\\.)*)"|(\S+))')
TRAILING_COMMENT = re.compile(r"(?<!\\)\s!(?:\s.*)?$")
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
    match = TAG_AND_VALUE.fullmatch(text)
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
    match = PROPERTY_VALUE.match(value)
    return (match[1], _unescape(match[2] or match[3] or "")) if match else ("", "")


def _first_word(tag: str, value: str) -> str:
    words = value.split(maxsplit=1)
    if not words:
        raise Malformed(f"`{tag}:` without a value")
    return words[0]


def _quoted(tag: str, value: str) -> tuple[str, str]:
    """The text in quotes at the start of a value, and the word after it."""
    match = QUOTED_TEXT.match(value)
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
    "name": lambda tag, value: _unescape(TRAILING_COMMENT.sub("", value)).strip(),
    "def": lambda tag, value: _quoted(tag, value)[0],
    "synonym": _quoted,
    "property_value": lambda tag, value: _statement(value),
}
