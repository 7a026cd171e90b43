"""Files of ontologies: OBO format, and OBO Graphs (JSON); recognized by content.

OBO Flat File 1.2 and 1.4 (Day-Richter 2006; owlcollab.github.io/oboformat). Of ``[Term]`` stanzas these are read:
``id``, ``name``, ``def``, ``synonym``, ``xref``, ``is_a``, ``is_obsolete`` and ``property_value: skos:exactMatch``; of
the header ``ontology``, ``data-version`` and the license.

OBO Graphs (github.com/geneontology/obographs), such as ``hp.json`` and ``mondo.json``. Of the nodes of every graph
these are read: ``id``, ``lbl`` and of their ``meta`` ``definition``, ``synonyms``, ``xrefs``, ``basicPropertyValues``
(skos:exactMatch) and ``deprecated``; of the edges ``is_a``; and the graph's own ``meta``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.lines import Faults, Malformed, decode, each_parsed, excerpt, read_lines, start_of
from .json_stream import as_list, as_object, as_text

SCOPES = ("EXACT", "NARROW", "BROAD", "RELATED")
CROSS_REFERENCE = re.compile(r"(?:UMLS|UMLS_CUI):(\S*)")
UMLS_ENTITY = re.compile(r"(?:UMLS|UMLS_CUI):(\S+)|https?://\S*umls\S*/(C[0-9]{7})", re.IGNORECASE)
LINE = re.compile(r"([A-Za-z_][\w-]*):\s*(.*)")
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(\w*)')
PROPERTY = re.compile(r'(\S+)\s+(?:"((?:[^"\\]|\\.)*)"|(\S+))')
COMMENT = re.compile(r"(?<!\\)\s!(?:\s.*)?$")
ESCAPE = re.compile(r"\\(.)")
ESCAPES = {"n": "\n", "t": "\t", "W": " "}

PURL = "http://purl.obolibrary.org/obo/"
SCOPE_OF = {
    "hasExactSynonym": "EXACT",
    "hasNarrowSynonym": "NARROW",
    "hasBroadSynonym": "BROAD",
    "hasRelatedSynonym": "RELATED",
}


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

    def add_reference(self, text: str) -> None:
        """Add a cross reference if it is one to UMLS."""
        if match := CROSS_REFERENCE.match(text):
            self.references.append(match[1])

    def add_statement(self, predicate: str, value: str) -> None:
        """Add the UMLS id of a statement skos:exactMatch, whose value is an id (UMLS:C...) or a URI."""
        if predicate.endswith("exactMatch") and (match := UMLS_ENTITY.fullmatch(value)):
            self.exact.append(match[1] or match[2])

    def check(self, noun: str, known: Container[str]) -> Term:
        """Return the term; raise `Malformed` without id or name, or if its id is `known`; `noun` is its kind."""
        if not self.id:
            raise Malformed(f"{noun} without id")
        if self.id in known:
            raise Malformed(f"duplicate {noun}", f": {self.id}")
        if not self.name and not self.obsolete:
            raise Malformed(f"{noun} without name", f": {self.id}")
        return self


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

    def add_statement(self, predicate: str, value: str) -> None:
        """Take the license. The prefix is the file's own: dcterms:license, terms:license, or the whole URI."""
        if predicate.lower().endswith("license"):
            self.license = self.license or value


def read_ontology(path: Path, faults: Faults) -> Ontology:
    """Read an ontology; all of it is held in memory.

    Ids are given as in flat files, ``HP:0000118`` for ``http://purl.obolibrary.org/obo/HP_0000118``. Nodes of OBO
    Graphs are skipped if they are not classes, have no label (terms of other ontologies that are only referenced), or
    occur in an earlier graph of the file.

    Args:
        path: the file, plain or gzip.
        faults: takes malformed lines, stanzas, graphs, nodes and edges; in OBO Graphs their position, counted from 0,
            is reported as ``graphs[0].nodes[12]``.

    Raises:
        UserError: the file is missing, empty, damaged, not JSON (names the line) or without terms; or something in it
            is malformed.
    """
    is_json = start_of(path).lstrip().startswith(b"{")
    return (_read_graphs if is_json else _read_flat_file)(path, faults)


def _read_flat_file(path: Path, faults: Faults) -> Ontology:
    ontology = Ontology(path)
    for started, lines in _stanzas(path):
        if not started:
            for _, line in lines:
                _parse_header(line.decode("utf-8", errors="replace"), ontology)
            continue
        term = Term()
        for number, line in lines:
            try:
                _parse_line(decode(line), term)
            except Malformed as problem:
                faults.add(number, problem)
        try:
            ontology.terms[term.id] = term.check("[Term]", ontology.terms)
        except Malformed as problem:
            faults.add(started, problem)
    if not ontology.terms:
        raise UserError(f"{path} contains no [Term]; expected an ontology in OBO format")
    return ontology


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
        ontology.add_statement(*_statement(value))


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
        term.add_reference(value)
    elif tag == "property_value":
        term.add_statement(*_statement(value))
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


def _read_graphs(path: Path, faults: Faults) -> Ontology:
    ontology = Ontology(path)
    graphs = _load(path).get("graphs")
    if not isinstance(graphs, list):
        raise UserError(f"{path} contains no list of graphs; expected an ontology as OBO Graphs JSON or in OBO format")
    for where, graph in _numbered("graphs", graphs):
        try:
            graph = as_object(graph, "graph")
            _parse_meta(graph, ontology)
            nodes, edges = as_list(graph, "nodes"), as_list(graph, "edges")
        except Malformed as problem:
            faults.add(where, problem)
            continue
        terms: dict[str, Term] = {}
        parse_node = partial(_parse_node, known=terms)
        for _, term in each_parsed(_numbered(f"{where}.nodes", nodes), parse_node, faults):
            if term is not None:
                terms[term.id] = term
                ontology.terms.setdefault(term.id, term)
        for _, (child, kind, parent) in each_parsed(_numbered(f"{where}.edges", edges), _parse_edge, faults):
            if kind == "is_a" and child in ontology.terms:
                ontology.terms[child].parents.append(parent)
    if not ontology.terms:
        raise UserError(f"{path} contains no labelled nodes; expected an ontology as OBO Graphs JSON or in OBO format")
    return ontology


def _numbered(list_name: str, items: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"{list_name}[{position}]", item) for position, item in enumerate(items))


def _load(path: Path) -> dict[str, Any]:
    content = b"\n".join(line for _, line in read_lines(path))
    remedy = "download the file again"
    try:
        return json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8 (byte 0x{content[error.start]:02x}); {remedy}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg} at column {error.colno}); {remedy}") from None
    except (RecursionError, ValueError) as error:
        raise UserError(f"{path}: unreadable JSON ({error}); {remedy}") from None


def _parse_meta(graph: dict[str, Any], ontology: Ontology) -> None:
    """Fill in the first graph's statements about itself."""
    meta = as_object(graph.get("meta"), "meta", optional=True)
    ontology.id = ontology.id or as_text(graph.get("id", ""), "id")
    ontology.version = ontology.version or as_text(meta.get("version", ""), "version")
    for predicate, value in _statements(meta, "basicPropertyValues"):
        ontology.add_statement(predicate, value)


def _parse_edge(edge: Any) -> tuple[str, str, str]:
    edge = as_object(edge, "edge")
    child, kind, parent = (as_text(edge.get(key), key) for key in ("sub", "pred", "obj"))
    return _short(child), kind, _short(parent)


def _parse_node(node: Any, known: Container[str]) -> Term | None:
    """The term of a node, or None; `known` has the ids of earlier nodes."""
    node = as_object(node, "node")
    if node.get("type", "CLASS") != "CLASS":
        return None
    meta = as_object(node.get("meta"), "meta", optional=True)
    uri = as_text(node.get("id") or "", "id")
    if len(uri.split()) > 1:
        raise Malformed("id contains whitespace", f": {excerpt(uri)}")
    definition = as_object(meta.get("definition"), "definition", optional=True)
    term = Term(
        id=_short(uri.strip()),
        name=as_text(node.get("lbl") or "", "lbl").strip(),
        definition=as_text(definition.get("val") or "", "definition").strip(),
        obsolete=meta.get("deprecated") is True,
    )
    for kind, text in _statements(meta, "synonyms"):
        if not text.strip():
            raise Malformed("synonym without text")
        term.synonyms.append((text.strip(), SCOPE_OF.get(kind, "RELATED")))
    for reference in as_list(meta, "xrefs"):
        term.add_reference(as_text(as_object(reference, "xref").get("val"), "xref"))
    for predicate, value in _statements(meta, "basicPropertyValues"):
        term.add_statement(predicate, value)
    is_reference_only = term.id and not (term.name or term.references or term.exact)
    return None if is_reference_only else term.check("node", known)


def _statements(meta: dict[str, Any], key: str) -> Iterator[tuple[str, str]]:
    """``pred`` and ``val`` of each item of a list."""
    for item in as_list(meta, key):
        item = as_object(item, key)
        yield as_text(item.get("pred", ""), f"{key}.pred"), as_text(item.get("val", ""), f"{key}.val")


def _short(uri: str) -> str:
    """The id for the URI of an OBO term; other URIs are unchanged."""
    return uri.removeprefix(PURL).replace("_", ":", 1) if uri.startswith(PURL) else uri
