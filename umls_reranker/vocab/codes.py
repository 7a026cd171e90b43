"""The codes of concepts: read from a release or from ontologies, and written into an index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrow_files import arrow_writer
from ..core.errors import UserError
from .code_systems import LOCAL, SYSTEMS, UMLS, Code, code_of
from .distinct_lists import distinct_lists
from .obo_files import read_ontology
from .ontology import cuis_of
from .rrf import CODE_PREFERENCES
from .rrf_lines import filtered_lines, values_by_cui

# In an index folder.
CODES_FOLDER = "codes"
CODES_FILE = "codes.arrow"
# Between vocabulary and code.
CODE_SEPARATOR = ":"
# A list for each concept.
CODE_LISTS = pa.list_(pa.string())
# Atoms that have no code in their vocabulary have this one.
NO_CODE = "NOCODE"
# The vocabularies whose codes are kept where none are named.
USUAL_SOURCES = tuple(source for source in SYSTEMS if source not in (UMLS, LOCAL))


def read_codes(
    path: Path, sources: Sequence[str], cuis: pa.Array | None = None
) -> tuple[pa.Array, pa.ListArray]:
    """CUIs, by default those of the file, and the codes of each, those of preferred atoms first.

    Codes of suppressed atoms are left out; names in all languages count. Memory holds the atoms of
    `sources`.

    Args:
        path: MRCONSO.
        sources: vocabularies (SAB) whose codes are read.
        cuis: the concepts.

    Raises:
        UserError: as `rrf_tables.read_rrf_table`.
    """
    filters = {"SAB": sources, "SUPPRESS": ["N"]}
    fields = ["CUI", "SAB", "CODE"]
    atoms, _ = filtered_lines("MRCONSO", path, fields, filters, CODE_PREFERENCES)
    atoms = atoms.filter(pc.not_equal(atoms["CODE"], NO_CODE))
    codes = pc.binary_join_element_wise(atoms["SAB"], atoms["CODE"], CODE_SEPARATOR)
    return values_by_cui(atoms.append_column("code", codes), "code", cuis)


def read_obo_codes(paths: Sequence[Path]) -> dict[str, list[Code]]:
    """CUI -> what a concept of an ontology is elsewhere: the ids of its terms, and its CUI.

    The further CUIs of its terms, none of which has their names, follow the CUI.

    Raises:
        UserError: as `obo_files.read_ontology`.
    """
    ids: dict[str, list[Code]] = {}
    cuis: dict[str, list[Code]] = {}
    for path in paths:
        for term in read_ontology(path).terms.values():
            of_term = cuis_of(term)
            if of_term:
                cui = of_term[0]
                ids.setdefault(cui, []).append(code_of(term.id))
                cuis.setdefault(cui, []).extend(Code(UMLS, each) for each in of_term)
    return {cui: list(dict.fromkeys([*terms, *cuis[cui]])) for cui, terms in ids.items()}


def write_codes(
    folder: Path,
    cuis: pa.Array,
    dictionaries: Iterable[Mapping[str, Sequence[Path]]],
    sources: Sequence[str] = (),
) -> dict[str, int]:
    """Write the codes of concepts whose ids are CUIs.

    Args:
        folder: folder to write into.
        cuis: the concepts of the index, in their order.
        dictionaries: the files that they were read from, by name: ``MRCONSO`` or ``obo``.
        sources: vocabularies (SAB) of a release whose codes are kept; by default `USUAL_SOURCES`.

    Returns:
        The number of codes of each vocabulary.

    Raises:
        UserError: the releases have no code of a vocabulary of `sources`.
    """
    rows = []
    texts = []
    for files in dictionaries:
        if "obo" in files:
            codes_of = read_obo_codes(files["obo"])
            texts_of_concepts = []
            for cui in cuis.to_pylist():
                codes = codes_of.get(cui, ())
                texts_of_concepts.append([CODE_SEPARATOR.join(code) for code in codes])
            lists = pa.array(texts_of_concepts, CODE_LISTS)
        else:
            _, lists = read_codes(files["MRCONSO"][0], sources or USUAL_SOURCES, cuis)
        rows.append(pc.list_parent_indices(lists).to_numpy())
        texts.append(pc.list_flatten(lists))
    lists = distinct_lists(np.concatenate(rows), pa.chunked_array(texts), len(cuis))
    source_and_code = pc.split_pattern(pc.list_flatten(lists), CODE_SEPARATOR, max_splits=1)
    counted = pc.value_counts(pc.list_element(source_and_code, 0)).to_pylist()
    # Vocabulary -> number of its codes.
    counts = {item["values"]: item["counts"] for item in counted}
    missing = [source for source in sources if source not in counts]
    if missing:
        raise UserError(
            f"no concept has a code of {missing[0]}; there are {', '.join(counts) or 'none'}"
        )
    schema = pa.schema({"codes": CODE_LISTS}, metadata={"sources": " ".join(counts)})
    with arrow_writer(folder / CODES_FILE, schema) as writer:
        writer.write_table(pa.table([lists], schema=schema))
    return counts
