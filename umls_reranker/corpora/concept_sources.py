"""Concepts of a release, an ontology or a file of names, and of several of these joined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from ..core.errors import UserError
from ..vocab.concepts import concept_table, join_concepts, read_name_concepts
from ..vocab.ontology import read_obo_concepts
from ..vocab.rrf import PAIRS, read_relations, read_release, read_rrf_concepts
from ..vocab.types import GROUP_PREFIX, TypeHierarchy
from .arguments import ConceptArguments

Files = Mapping[str, Sequence[Path]]


class ConceptSource(NamedTuple):
    """The content of a dictionary.

    Attributes:
        concepts: concepts for `concepts.write_concepts`.
        hierarchy: hierarchy of their semantic types.
        relations: relations for `rrf.write_relations`; those of MRREL are read lazily.
        report: the reader's counts, and the source: ``release``, or other files' ``vocabularies``.
    """

    concepts: pa.Table
    hierarchy: TypeHierarchy
    relations: Iterable[pa.Table]
    report: dict[str, Any]

    def of_types(self, settings: ConceptArguments) -> ConceptSource:
        """The concepts of the types and groups that the settings name; all if they name none.

        Raises:
            UserError: a type or group is unknown.
        """
        if not settings.concept_types and not settings.semantic_groups:
            return self
        lists = self.concepts["semantic_types"].combine_chunks()
        types = pa.array(_wanted_types(settings, self.hierarchy), pa.string())
        is_wanted = pc.is_in(pc.list_flatten(lists), types)
        rows = pc.list_parent_indices(lists).filter(is_wanted).unique()
        return self._replace(concepts=self.concepts.take(rows))


def read_concepts(settings: ConceptArguments, files: Files) -> ConceptSource:
    """Read concepts, their type hierarchy and their relations from the recipe's source.

    Args:
        settings: the recipe's section.
        files: name -> paths of each file of the dictionary.
    """
    return read_all_concepts(settings, files).of_types(settings)


def read_all_concepts(settings: ConceptArguments, files: Files) -> ConceptSource:
    """`read_concepts` of all types."""
    hierarchy = TypeHierarchy.built_in()
    if settings.concept_source == "obo":
        merged = read_obo_concepts(
            files["obo"],
            type_roots=settings.obo_type_roots,
            synonym_scopes=settings.obo_synonym_scopes,
        )
        children = [child for child, _ in merged.parents]
        parents = [parent for _, parent in merged.parents]
        relations = [pa.table([children, ["PAR"] * len(parents), parents], schema=PAIRS)]
        report = merged.report | {"vocabularies": merged.vocabularies}
        return ConceptSource(concept_table(merged.concepts), merged.hierarchy, relations, report)
    if settings.concept_source == "names":
        (path,) = files["names"]
        table, report = read_name_concepts(path, hierarchy)
        report["vocabularies"] = [{"file": path.name, "id": "", "version": "", "license": ""}]
        return ConceptSource(table, hierarchy, (), report)
    release = {name: paths[0] for name, paths in files.items()}
    table, report = read_rrf_concepts(
        release,
        languages=settings.languages,
        sources=settings.sources,
        identifiers=settings.identifiers,
    )
    report["release"] = read_release(release)
    has_relations = "MRREL" in release and not settings.identifiers
    relations_of_cuis = read_relations(release["MRREL"]) if has_relations else ()
    return ConceptSource(table, hierarchy, relations_of_cuis, report)


def join_sources(sources: Sequence[ConceptSource]) -> ConceptSource:
    """The concepts of several dictionaries, joined by their ids (`join_concepts`).

    Types are those of the dictionary that has most. Relations are left out.
    """
    if len(sources) == 1:
        return sources[0]
    concepts, report = join_concepts([source.concepts for source in sources])
    hierarchy = max((source.hierarchy for source in sources), key=len)
    reports = [source.report for source in sources]
    return ConceptSource(concepts, hierarchy, (), {"dictionaries": reports, **report})


def _wanted_types(settings: ConceptArguments, hierarchy: TypeHierarchy) -> list[str]:
    """Ids of the recipe's types and groups, and of all narrower types."""
    groups = [
        f"{GROUP_PREFIX}{group.removeprefix(GROUP_PREFIX)}" for group in settings.semantic_groups
    ]
    types: list[str] = []
    for name in [*settings.concept_types, *groups]:
        known = hierarchy.resolve(name)
        if known is None:
            names = sorted({*hierarchy, *(f"group:{hierarchy[kind].group}" for kind in hierarchy)})
            raise UserError(
                f"{name} in concept_types or semantic_groups is not known; "
                f"the first are {names[:12]}"
            )
        types += hierarchy.descendants(known)
    return types
