"""OBO ontologies with UMLS cross references, such as the Human Phenotype Ontology, which need no UMLS licence.

Format: OBO Flat File 1.2 and 1.4 (Day-Richter 2006; owlcollab.github.io/oboformat), or OBO Graphs JSON
(`obo_graphs`), told apart by content. Read are, of ``[Term]`` stanzas, ``id``, ``name``, ``def``, ``synonym``,
``xref``, ``is_a``, ``is_obsolete`` and ``property_value: skos:exactMatch``; of the header ``ontology``,
``data-version`` and the license.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..core.errors import UserError
from ..core.lines import (
    BYTE_ORDER_MARK,
    GZIP_ERRORS,
    Faults,
    Malformed,
    decode,
    open_binary,
    read_lines,
    shown,
    skipped_lines,
)
from .obo_graphs import read_obo_graphs
from .ontology import (
    CROSS_REFERENCE,
    SCOPES,
    Ontology,
    OntologyConcepts,
    Term,
    check_term,
    matched_cui,
    merge_ontologies,
)

__all__ = ["check_ontology", "read_obo_concepts"]

LINE = re.compile(r"([A-Za-z_][\w-]*):\s*(.*)")
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(\w*)')
PROPERTY = re.compile(r'(\S+)\s+(?:"((?:[^"\\]|\\.)*)"|(\S+))')
COMMENT = re.compile(r"(?<!\\)\s!(?:\s.*)?$")
ESCAPE = re.compile(r"\\(.)")
ESCAPES = {"n": "\n", "t": "\t", "W": " "}


def read_obo_concepts(
    paths: str | Path | Sequence[Path],
    *,
    type_roots: Sequence[str] = (),
    synonym_scopes: Sequence[str] = ("EXACT",),
    on_error: str = "stop",
) -> OntologyConcepts:
    """Read the terms that name a UMLS CUI (``xref: UMLS:C...`` or ``UMLS_CUI:C...``) as concepts, sorted by CUI.

    A term with several CUIs counts for only one of them, because its names are names of one concept. It is the first
    exact match (``skos:exactMatch``), or else the first cross reference. Terms with the same CUI are merged: the name
    of the one that comes first is preferred, the others' names become synonyms. Obsolete terms and terms without a CUI
    are left out. Equal names of a concept are given once.

    Args:
        paths: the ontology, plain or gzip, or several; names and definitions of the first are preferred.
        type_roots: ids of terms whose children (by ``is_a``) serve as semantic types, e.g. ``HP:0000118`` for the
            organ systems of the Human Phenotype Ontology; a concept has every type that its terms are or descend
            from. Empty: concepts have no types.
        synonym_scopes: scopes of the synonyms kept.
        on_error: ``"stop"`` at the first malformed line, or ``"skip"`` and count it; a stanza without id or name is
            skipped whole.

    Returns:
        what `merge_ontologies` gives, with ``skipped`` and ``reasons`` in its report.

    Raises:
        UserError: a file is missing, empty or broken; a line is malformed (names file and line); a type root or a
            scope is unknown; or no term names a CUI.
    """
    for scope in synonym_scopes:
        if scope not in SCOPES:
            raise UserError(f"obo_synonym_scopes: {scope!r} is not one of {', '.join(SCOPES)}")
    files = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    faults = [Faults(path, on_error) for path in files]
    ontologies = list(map(_read, files, faults))
    merged = merge_ontologies(ontologies, type_roots=type_roots, synonym_scopes=synonym_scopes)
    return merged._replace(report=merged.report | skipped_lines(*faults))


def check_ontology(path: Path) -> None:
    """Refuse a file that is not an ontology; malformed terms pass.

    Raises:
        UserError: the file is broken or holds no terms.
    """
    _read(path, Faults(path, "skip"))


def _read(path: Path, faults: Faults) -> Ontology:
    return (read_obo_graphs if _is_json(path) else _read_flat_file)(path, faults)


def _is_json(path: Path) -> bool:
    """Whether the first character is the opening brace of a JSON object."""
    with open_binary(path) as stream:
        try:
            start = stream.read(1024)
        except GZIP_ERRORS:
            # The reader of flat files reports it with the line.
            return False
    return start.removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"{")


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
            check_term(term, ontology.terms, "[Term]")
        except Malformed as problem:
            faults.add(started, problem)
        else:
            ontology.terms[term.id] = term
    if not ontology.terms:
        raise UserError(f"{path} holds no [Term]; expected an ontology in OBO format")
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
        statement = PROPERTY.match(value)
        # The prefix is the file's own: dcterms:license, terms:license, or the whole URI.
        if statement and statement[1].lower().endswith("license"):
            ontology.license = _unescape(statement[2] or statement[3] or "")


def _parse_line(text: str, term: Term) -> None:
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
    elif tag == "property_value":
        statement = PROPERTY.match(value)
        if statement and (cui := matched_cui(statement[1], statement[2] or statement[3] or "")):
            term.exact.append(cui)
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
