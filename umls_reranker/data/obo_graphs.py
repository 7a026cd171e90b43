"""OBO Graphs: ontologies as JSON (github.com/geneontology/obographs), such as ``hp.json`` and ``mondo.json``.

Read are, of the nodes of every graph, ``id``, ``lbl`` and of their ``meta`` ``definition``, ``synonyms``, ``xrefs``,
``basicPropertyValues`` (skos:exactMatch) and ``deprecated``; of the edges ``is_a``; and the graph's own ``meta``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.lines import Faults, Malformed, read_lines, shown
from .json_values import as_list, as_object, as_text
from .ontology import CROSS_REFERENCE, Ontology, Term, check_term, matched_cui

__all__ = ["read_obo_graphs"]

PURL = "http://purl.obolibrary.org/obo/"
SCOPE_OF = {
    "hasExactSynonym": "EXACT",
    "hasNarrowSynonym": "NARROW",
    "hasBroadSynonym": "BROAD",
    "hasRelatedSynonym": "RELATED",
}


def read_obo_graphs(path: Path, faults: Faults) -> Ontology:
    """Read an ontology; the whole document is held in memory.

    Ids are given as in flat files, ``HP:0000118`` for ``http://purl.obolibrary.org/obo/HP_0000118``. Nodes are skipped
    if they are not classes, have no label (terms of other ontologies that are only referenced), or occur in an earlier
    graph of the file.

    Args:
        path: plain or gzip.
        faults: takes malformed graphs, nodes and edges; their position, counted from 0, is reported as
            ``graphs[0].nodes[12]``.

    Raises:
        UserError: the file is missing, empty, broken, not JSON (names the line) or without nodes; or a part of it is
            malformed.
    """
    ontology = Ontology(path)
    graphs = _load(path).get("graphs")
    if not isinstance(graphs, list):
        raise UserError(f"{path} holds no list of graphs; expected an ontology as OBO Graphs JSON or in OBO format")
    for place, graph in enumerate(graphs):
        where = f"graphs[{place}]"
        try:
            graph = as_object(graph, "graph")
            _read_header(graph, ontology)
            nodes, edges = as_list(graph, "nodes"), as_list(graph, "edges")
        except Malformed as problem:
            faults.add(where, problem)
            continue
        for term in _read_nodes(nodes, where, faults):
            ontology.terms.setdefault(term.id, term)
        for child, parent in _read_edges(edges, where, faults):
            if child in ontology.terms:
                ontology.terms[child].parents.append(parent)
    if not ontology.terms:
        raise UserError(f"{path} holds no labeled node; expected an ontology as OBO Graphs JSON or in OBO format")
    return ontology


def _load(path: Path) -> dict[str, Any]:
    content = b"\n".join(line for _, line in read_lines(path))
    remedy = "get the file again"
    try:
        return json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8 (byte 0x{content[error.start]:02x}); {remedy}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg} at column {error.colno}); {remedy}") from None
    except (RecursionError, ValueError) as error:
        raise UserError(f"{path}: not JSON that can be read ({error}); {remedy}") from None


def _read_header(graph: dict[str, Any], ontology: Ontology) -> None:
    """Fill in the first graph's statements about itself."""
    meta = as_object(graph.get("meta"), "meta", optional=True)
    ontology.id = ontology.id or as_text(graph.get("id", ""), "id")
    ontology.version = ontology.version or as_text(meta.get("version", ""), "version")
    for predicate, value in _statements(meta, "basicPropertyValues"):
        if predicate.lower().endswith("license"):
            ontology.license = ontology.license or value


def _read_nodes(nodes: list[Any], where: str, faults: Faults) -> Iterator[Term]:
    """The terms of one graph; ids are unique."""
    seen: set[str] = set()
    for place, node in enumerate(nodes):
        try:
            term = _parse_node(as_object(node, "node"))
            if term is None:
                continue
            check_term(term, seen, "node")
        except Malformed as problem:
            faults.add(f"{where}.nodes[{place}]", problem)
            continue
        seen.add(term.id)
        yield term


def _read_edges(edges: list[Any], where: str, faults: Faults) -> Iterator[tuple[str, str]]:
    """Child and parent of every is_a."""
    for place, edge in enumerate(edges):
        try:
            edge = as_object(edge, "edge")
            child, kind, parent = (as_text(edge.get(key), key) for key in ("sub", "pred", "obj"))
        except Malformed as problem:
            faults.add(f"{where}.edges[{place}]", problem)
            continue
        if kind == "is_a":
            yield _short(child), _short(parent)


def _parse_node(node: dict[str, Any]) -> Term | None:
    """The term of a node, or None."""
    if node.get("type", "CLASS") != "CLASS":
        return None
    meta = as_object(node.get("meta"), "meta", optional=True)
    uri = as_text(node.get("id") or "", "id")
    if len(uri.split()) > 1:
        raise Malformed("id is more than a word", f": {shown(uri)}")
    definition = as_object(meta.get("definition"), "definition", optional=True)
    term = Term(
        id=_short(uri.strip()),
        name=as_text(node.get("lbl") or "", "lbl").strip(),
        definition=as_text(definition.get("val") or "", "definition").strip(),
        obsolete=meta.get("deprecated") is True,
    )
    for kind, text in _statements(meta, "synonyms"):
        if not text.strip():
            raise Malformed("synonym without a text")
        term.synonyms.append((text.strip(), SCOPE_OF.get(kind, "RELATED")))
    for reference in as_list(meta, "xrefs"):
        match = CROSS_REFERENCE.match(as_text(as_object(reference, "xref").get("val"), "xref"))
        if match:
            term.references.append(match[1])
    for predicate, value in _statements(meta, "basicPropertyValues"):
        if cui := matched_cui(predicate, value):
            term.exact.append(cui)
    is_reference_only = term.id and not (term.name or term.references or term.exact)
    return None if is_reference_only else term


def _statements(meta: dict[str, Any], key: str) -> Iterator[tuple[str, str]]:
    """``pred`` and ``val`` of each item of a list."""
    for item in as_list(meta, key):
        item = as_object(item, key)
        yield as_text(item.get("pred", ""), f"{key}.pred"), as_text(item.get("val", ""), f"{key}.val")


def _short(uri: str) -> str:
    """The id for the URI of an OBO term; other URIs are unchanged."""
    return uri.removeprefix(PURL).replace("_", ":", 1) if uri.startswith(PURL) else uri
