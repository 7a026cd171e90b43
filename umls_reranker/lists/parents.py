"""The parents of concepts, by which answers that are a parent or child of gold are told apart."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..core.errors import UserError
from ..vocab.concepts import ConceptTable
from ..vocab.rrf import RelationTable, read_parents, release_files
from .candidate_lists import AnnotatedLists


def with_parents_of_run(lists: AnnotatedLists, folder: Path) -> AnnotatedLists:
    """The lists with the parents that a concept folder knows; unchanged if it has no relations."""
    relations = RelationTable.load(folder)
    if not len(relations):
        return lists
    concepts = ConceptTable.load(folder)
    rows = np.unique(concepts.rows(_ids(lists)))
    pairs = relations.parents(rows[rows >= 0])
    children = concepts.cuis_of(pairs[:, 0]).to_pylist()
    parents = concepts.cuis_of(pairs[:, 1]).to_pylist()
    return replace(lists, parents=frozenset(zip(children, parents, strict=True)))


def with_parents_of_release(lists: AnnotatedLists, umls_dir: Path | None) -> AnnotatedLists:
    """The lists with the parents in ``MRREL.RRF`` of a release; unchanged if there is none.

    Raises:
        UserError: the file is damaged.
    """
    files = {}
    if umls_dir is not None and umls_dir.is_dir():
        files = release_files(umls_dir, required=())
    if "MRREL" not in files:
        return lists
    wanted = pa.array(sorted(_ids(lists)), pa.string())
    return replace(lists, parents=frozenset(read_parents(files["MRREL"], wanted)))


def require_parents(lists: AnnotatedLists, certify_relation: str) -> None:
    """Refuse to certify a relation where no dictionary has relations."""
    if certify_relation != "none" and lists.parents is None:
        raise UserError(
            f"certify_relation: {certify_relation} needs the relations of concepts: an ontology "
            "(obo), or a UMLS release with MRREL.RRF as umls_dir or --dictionary"
        )


def _ids(lists: AnnotatedLists) -> list[str]:
    """The ids of candidates and gold concepts, each once."""
    return [*{*lists.ids, *chain.from_iterable(lists.annotations.alternatives)}]
