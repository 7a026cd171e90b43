"""The concepts of dictionaries: a release, an ontology, a file of names, and several joined."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.csv import write_csv

from ..core.errors import UserError
from ..core.text_files import excerpt
from ..vocab.concept_columns import ConceptColumns
from ..vocab.concept_folder import rows_by_name, write_concepts
from ..vocab.concepts import Concept, concept_table, count_typed
from ..vocab.joined_concepts import join_concepts
from ..vocab.name_files import read_name_concepts
from ..vocab.name_rows import read_name_rows
from ..vocab.normal_form import normal_forms
from ..vocab.normalization import normalize_names, visible
from ..vocab.ontology import read_obo_concepts
from ..vocab.relations import read_relations
from ..vocab.release import read_release
from ..vocab.rrf import read_rrf_concepts
from ..vocab.string_rows import StringRows
from ..vocab.types import GROUP_PREFIX, TypeHierarchy
from .arguments import ConceptArguments

Files = Mapping[str, Sequence[Path]]
LEFT_OUT_FILE = "left_out_names.csv"
LEFT_OUT_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "name": pa.string(),
        "file": pa.string(),
        "line": pa.int64(),
        "reason": pa.string(),
        "ids_of_others": pa.string(),
    }
)


class ConceptSource(NamedTuple):
    """The content of a dictionary.

    Attributes:
        concepts: concepts for `vocab.concept_folder.write_concepts`.
        hierarchy: hierarchy of their semantic types.
        relations: relations for `vocab.relations.write_relations`; those of MRREL are read lazily.
        report: the reader's counts, and the source: ``release``, or other files' ``vocabularies``.
        left_out: what `with_names` could not add, of `LEFT_OUT_SCHEMA`; None: nothing was to be.
    """

    concepts: pa.Table
    hierarchy: TypeHierarchy
    relations: Iterable[pa.Table]
    report: dict[str, Any]
    left_out: pa.Table | None = None

    def with_names(self, paths: Sequence[Path]) -> ConceptSource:
        """The concepts with further names, but none that another has in any form.

        A name is left out if another concept has its normalized form, or if another has its normal
        form, by which retrievers find it, and its own has not.

        The report gets the numbers of ``added_names``, and of ``left_out_names`` by reason. Names
        that their concept has already count as neither.

        Args:
            paths: files of names (`read_name_rows`); of the ids of a row the first counts. Without
                any, nothing changes.

        Raises:
            UserError: a file cannot be read, or the dictionary lacks an id (names the line).
        """
        if not paths:
            return self
        columns = ConceptColumns(self.concepts)
        names = [name for path in paths for name in _names_of(path, columns)]
        forms = normalize_names(pa.array([name["name"] for name in names], pa.string()))
        having_name = _ids_by_form(self.concepts, columns, forms, normalize_names)
        visible_forms = _visible_forms(pa.array([name["name"] for name in names], pa.string()))
        having_form = _ids_by_form(self.concepts, columns, visible_forms, _visible_forms)
        in_files: defaultdict[str, set[str]] = defaultdict(set)
        for name, form in zip(names, forms.to_pylist(), strict=True):
            in_files[form].add(name["id"])
        added: defaultdict[str, dict[str, None]] = defaultdict(dict)
        left_out = []
        for number, (name, form) in enumerate(zip(names, forms.to_pylist(), strict=True)):
            with_name = having_name[number]
            if name["id"] in with_name:
                continue
            with_form = having_form[number]
            if name["id"] in with_form:
                with_form = []
            in_files_alone = sorted(in_files[form] - {name["id"]})
            if others := with_name or with_form or in_files_alone:
                reason = "the files have it for another concept"
                if with_name:
                    reason = "the dictionary has it for another concept"
                elif with_form:
                    reason = "the dictionary has a form of it for another concept"
                left_out.append(name | {"reason": reason, "ids_of_others": "|".join(others)})
            else:
                added[name["id"]][name["name"]] = None
        further = [Concept(cui, name, (*rest,)) for cui, (name, *rest) in added.items()]
        joined, _ = join_concepts([self.concepts, concept_table(further)])
        report = {
            "added_names": sum(map(len, added.values())),
            "left_out_names": dict(Counter(name["reason"] for name in left_out)),
        }
        return self._replace(
            concepts=joined,
            left_out=pa.Table.from_pylist(left_out, LEFT_OUT_SCHEMA),
            report=self.report | report,
        )

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the folder of the concepts (`write_concepts`); returns the report with counts."""
        count = write_concepts(self.concepts, self.hierarchy, folder)
        if self.left_out is not None:
            write_csv(self.left_out, folder / LEFT_OUT_FILE)
        return self.report | {"concepts": count, "typed": count_typed(self.concepts)}

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
    source = read_all_concepts(settings, files).with_names(files.get("add_names", ()))
    return source.of_types(settings)


def read_all_concepts(settings: ConceptArguments, files: Files) -> ConceptSource:
    """`read_concepts` of all types."""
    hierarchy = TypeHierarchy.built_in()
    if settings.concept_source == "obo":
        merged = read_obo_concepts(
            files["obo"],
            type_roots=settings.obo_type_roots,
            synonym_scopes=settings.obo_synonym_scopes,
        )
        report = merged.report | {"vocabularies": merged.vocabularies}
        return ConceptSource(concept_table(merged.concepts), merged.hierarchy, (), report)
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
    if "MRREL" in release and not settings.identifiers:
        return ConceptSource(table, hierarchy, read_relations(release["MRREL"]), report)
    return ConceptSource(table, hierarchy, (), report)


def join_sources(sources: Sequence[ConceptSource]) -> ConceptSource:
    """The concepts of several dictionaries, joined by their ids (`join_concepts`).

    Types are those of the dictionary that has most. Relations are left out.
    """
    if len(sources) == 1:
        return sources[0]
    concepts, report = join_concepts([source.concepts for source in sources])
    hierarchy = max((source.hierarchy for source in sources), key=len)
    return ConceptSource(
        concepts,
        hierarchy,
        (),
        {"dictionaries": [source.report for source in sources], **report},
    )


def _visible_forms(names: pa.StringArray) -> pa.StringArray:
    """The normal form of each name without its invisible characters."""
    return pa.array(normal_forms([visible(name) for name in names.to_pylist()]), pa.string())


def _ids_by_form(
    concepts: pa.Table,
    columns: ConceptColumns,
    forms: pa.StringArray,
    make_forms: Callable[[pa.StringArray], pa.StringArray],
) -> list[list[str]]:
    """The ids of the concepts with a name of each form, for n forms of this kind."""
    rows, offsets = StringRows(rows_by_name(concepts, make_forms)).find(forms)
    ids = columns.column("cui", rows).to_pylist()
    return [ids[start:end] for start, end in pairwise(offsets.tolist())]


def _names_of(path: Path, columns: ConceptColumns) -> Iterator[dict[str, Any]]:
    """The first columns of `LEFT_OUT_SCHEMA` for each name of a file."""
    table = read_name_rows(path)
    cuis = columns.column("cui", columns.rows(table.ids)).to_pylist()
    cells = table.columns["name"].to_pylist()
    for cui, cell, line in zip(cuis, cells, table.lines.tolist(), strict=True):
        if cui is None:
            raise UserError(
                f"{path}:{line}: the dictionary has no concept with the id of {excerpt(cell)}; "
                "correct it or remove the line"
            )
        for name in cell.split(table.separator):
            if name := name.strip():
                yield {"id": cui, "name": name, "file": path.name, "line": line}


def _wanted_types(settings: ConceptArguments, hierarchy: TypeHierarchy) -> list[str]:
    """Ids of the recipe's types and groups, and of all narrower types."""
    types: list[str] = []
    for name in [*settings.concept_types, *settings.semantic_groups]:
        known = hierarchy.resolve(name) or hierarchy.resolve(f"{GROUP_PREFIX}{name}")
        if known is None:
            names = sorted({*hierarchy, *(f"group:{hierarchy[kind].group}" for kind in hierarchy)})
            raise UserError(f"concept_types: {name} is not known; the first are {names[:12]}")
        types += hierarchy.descendants(known)
    return types
