"""Concepts of dictionaries (a release, an ontology, a file of names), and mentions of a run.

Mentions have a split, gold concepts by ids of the dictionary, and counts of them.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, compress, islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features, List, Value
from pyarrow.csv import write_csv
from rich.table import Table

from ..core.arrays import arrow_writer, open_arrow
from ..core.errors import UserError
from ..core.files import excerpt
from ..lists.columns import trainable
from ..vocab.concepts import (
    Concept,
    ConceptColumns,
    ConceptTable,
    StringRows,
    concept_table,
    count_typed,
    join_concepts,
    read_name_concepts,
    read_name_rows,
    rows_by_name,
    write_concepts,
)
from ..vocab.ontology import read_obo_concepts
from ..vocab.rrf import read_relations, read_release, read_rrf_concepts, read_table
from ..vocab.text import normal_forms, normalize_name, normalize_names, visible
from ..vocab.types import GROUP_PREFIX, TypeHierarchy
from .arguments import ConceptArguments
from .corpus import Mention

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
        concepts: concepts for `concepts.write_concepts`.
        hierarchy: hierarchy of their semantic types.
        relations: relations for `rrf.write_relations`; those of MRREL are read lazily.
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


SPLITS = ("train", "dev", "calibration", "test")
BATCH_ROWS = 1_000

MENTION_FEATURES = Features(
    {
        "mention_id": Value("int64"),
        "doc_id": Value("string"),
        "start": Value("int32"),
        "end": Value("int32"),
        "mention": Value("string"),
        "left": Value("string"),
        "right": Value("string"),
        "cui": List(List(Value("string"))),
        "semantic_types": List(Value("string")),
    }
)


def assign_split(doc_id: str, shares: Mapping[str, float], seed: int) -> str:
    """The split of a document by a hash of seed and id, independent of the rest of the corpus.

    Args:
        doc_id: id of the document.
        shares: split -> share; they are divided by their sum.
        seed: seed of the splits.

    Raises:
        UserError: a share is negative, or all are zero.

    >>> assign_split("26316050", {"dev": 0.2, "calibration": 0.4, "test": 0.4}, seed=13)
    'calibration'
    """
    total = sum(shares.values())
    if total <= 0 or min(shares.values()) < 0:
        raise UserError(f"split shares must not be negative or all zero: {dict(shares)}")
    point = _draw(seed, doc_id) * total
    chosen = ""
    for split, share in shares.items():
        if share:
            chosen = split
            point -= share
            if point < 0:
                break
    return chosen


def write_mentions(
    mentions: Iterable[tuple[str, Mention]], path: Path, *, batch_rows: int = BATCH_ROWS
) -> dict[str, int]:
    """Write ``(split, mention)`` pairs into one file for each split, in the order they come.

    ``mention_id`` is the row number within the split; `batch_rows` are written together.

    Returns:
        Split -> number of mentions.

    Raises:
        UserError: a split is empty.
    """
    waiting: dict[str, list[Mention]] = {split: [] for split in SPLITS}
    counts = dict.fromkeys(SPLITS, 0)
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(
                arrow_writer(path / f"{split}.arrow", MENTION_FEATURES.arrow_schema)
            )
            for split in SPLITS
        }
        for split, mention in mentions:
            waiting[split].append(mention)
            counts[split] += 1
            if len(waiting[split]) == batch_rows:
                writers[split].write(_rows(waiting[split], counts[split]))
                waiting[split] = []
        for split, rest in waiting.items():
            writers[split].write(_rows(rest, counts[split]))
        empty = [split for split, count in counts.items() if not count]
        if empty:
            raise UserError(
                f"the split {empty[0]!r} is empty (mentions by split: {counts}); "
                "check the document lists, increase its share, or use another seed"
            )
    return counts


def hold_out_synonyms(
    concepts: Sequence[Concept], *, shares: Mapping[str, float], seed: int
) -> tuple[list[Concept], list[tuple[str, Mention]]]:
    """Take one synonym out of each concept as a mention, if there is no annotated text.

    A synonym qualifies if no other name of its concept has the same normalized form, so the mention
    cannot be looked up under its concept. Other concepts keep their names. The CUI serves as
    document id, so splits are by concept.

    Args:
        concepts: the dictionary.
        shares: split -> share of the concepts, as for `assign_split`.
        seed: seed of synonyms and splits.

    Returns:
        The concepts without the held-out synonyms, in order, and ``(split, mention)`` likewise.
    """
    remaining = []
    mentions = []
    for concept in concepts:
        forms = [normalize_name(name) for name in (concept.name, *concept.synonyms)]
        synonyms = zip(concept.synonyms, forms[1:], strict=True)
        names = [name for name, form in synonyms if forms.count(form) == 1]
        if not names:
            remaining.append(concept)
            continue
        text = names[int(_draw(seed, "synonym", concept.cui) * len(names))]
        remaining.append(
            replace(concept, synonyms=tuple(name for name in concept.synonyms if name != text))
        )
        mention = Mention(
            doc_id=concept.cui,
            start=0,
            end=len(text),
            text=text,
            left="",
            right="",
            cuis=((concept.cui,),),
            semantic_types=concept.semantic_types,
        )
        mentions.append((assign_split(concept.cui, shares, seed), mention))
    return remaining, mentions


def _draw(seed: int, *parts: str) -> float:
    """A number in [0, 1) that depends only on the arguments."""
    digest = hashlib.sha256(":".join((str(seed), *parts)).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def _rows(mentions: Sequence[Mention], end: int) -> pa.Table:
    """The last mentions before row `end` of their split."""
    fields = {"mention": "text", "cui": "cuis"}
    columns = {
        name: [getattr(mention, fields.get(name, name)) for mention in mentions]
        for name in MENTION_FEATURES
        if name != "mention_id"
    }
    return pa.table(
        {"mention_id": range(end - len(mentions), end)} | columns, MENTION_FEATURES.arrow_schema
    )


# What some corpora and dictionaries write before ids, and others do not.
PREFIXES = ("MESH:", "OMIM:", "UMLS:")
SCHEMA = pa.schema({"CUI1": pa.string(), "CUI2": pa.string()})


class RetiredCuis:
    """CUIs that were merged into others, as `RetiredCuis.read` finds them.

    Args:
        mergers: columns ``CUI1`` (the retired CUI) and ``CUI2``, in any order.
    """

    def __init__(self, mergers: pa.Table) -> None:
        self._retired = StringRows.of(mergers["CUI1"].combine_chunks())
        self._successors = mergers["CUI2"].combine_chunks()

    @classmethod
    def read(cls, path: Path) -> RetiredCuis:
        """Read the mergers of ``MRCUI.RRF``, plain or gzip.

        Raises:
            UserError: the file is missing, empty or damaged, or a line is malformed (names file and
                line).
        """
        mergers = [
            block.filter(pc.equal(block["REL"], "SY")).select(SCHEMA.names)
            for block in read_table("MRCUI", path, ["CUI1", "REL", "CUI2"])
        ]
        return cls(pa.Table.from_batches(mergers, SCHEMA))

    def successor(self, cui: str, concepts: ConceptTable) -> str | None:
        """The concept of the dictionary that `cui` was merged into, perhaps over several releases.

        If a CUI was merged into several, the nearest one in the dictionary is used, then the first
        in the file.
        """
        reached = {cui}
        waiting = [cui]
        while waiting:
            rows, _ = self._retired.find(pa.array(waiting, pa.string()))
            merged_into = self._successors.take(pa.array(rows)).to_pylist()
            waiting = [target for target in dict.fromkeys(merged_into) if target not in reached]
            reached.update(waiting)
            for successor, row in zip(waiting, concepts.rows(waiting), strict=True):
                if row >= 0:
                    return successor
        return None


def map_ids(
    mentions: Iterable[tuple[str, Mention]],
    concepts: ConceptTable,
    retired: RetiredCuis | None = None,
    report: dict[str, Any] | None = None,
) -> Iterator[tuple[str, Mention]]:
    """Yield ``(split, mention)`` with the ids that the dictionary has for the gold concepts.

    An id that it lacks is looked up without its prefix, or with one of `PREFIXES`, and is then
    replaced by the successor of a retired CUI. `report` gets the number of mentions found
    ``with_or_without_prefix``.
    """
    current: dict[str, str] = {}
    report = {} if report is None else report
    by_prefix: set[str] = set()
    report["with_or_without_prefix"] = 0
    mentions = iter(mentions)
    # Each search costs as much as hundreds of ids in it.
    while batch := list(islice(mentions, BATCH_ROWS)):
        gold_ids = [set(chain.from_iterable(mention.cuis)) for _, mention in batch]
        new = [*set().union(*gold_ids).difference(current)]
        known_ids, form = find_ids(new, concepts)
        for cui, known in zip(new, known_ids, strict=True):
            successor = retired.successor(cui, concepts) if retired and known is None else None
            current[cui] = known or successor or cui
        by_prefix.update(compress(new, form))
        for (split, mention), ids in zip(batch, gold_ids, strict=True):
            if not ids.isdisjoint(by_prefix):
                report["with_or_without_prefix"] += 1
            parts = (tuple(dict.fromkeys(map(current.__getitem__, part))) for part in mention.cuis)
            yield split, replace(mention, cuis=tuple(dict.fromkeys(parts)))


def find_ids(cuis: Sequence[str], concepts: ConceptTable) -> tuple[list[str | None], np.ndarray]:
    """The dictionary's ids of the concepts with n ids, perhaps without or with another prefix.

    Returns:
        The n ids, None for unknown ones; and whether the prefix differs, (n,) int.
    """
    forms = [form for cui in cuis for form in _id_forms(cui)]
    rows = concepts.rows(forms).reshape(-1, len(_id_forms("")))
    form = (rows >= 0).argmax(axis=1)
    return concepts.column("cui", rows[np.arange(len(cuis)), form]).to_pylist(), form


def _id_forms(cui: str) -> list[str]:
    """An id, and what other corpora or dictionaries may write for it."""
    return [cui, cui.partition(":")[2], *(prefix + cui for prefix in PREFIXES)]


def with_concepts_of_mentions(
    concepts: pa.Table, mentions: Iterable[tuple[str, Mention]]
) -> pa.Table:
    """The dictionary with further concepts, under the texts that two documents use for them.

    Documents of test do not count. A text of one document would be a name that is known for the
    mentions of that document alone.

    Args:
        concepts: the dictionary, of `CONCEPT_SCHEMA`.
        mentions: ``(split, mention)`` of the corpus.
    """
    known = {*concepts["cui"].to_pylist(), *pc.list_flatten(concepts["alternates"]).to_pylist()}
    documents: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for split, mention in mentions:
        (cui,) = trainable([mention.cuis])
        if cui and split != "test" and known.isdisjoint(_id_forms(cui)):
            documents[cui, normalize_name(mention.text)].add(mention.doc_id)
    names: defaultdict[str, list[str]] = defaultdict(list)
    for (cui, text), with_text in documents.items():
        if len(with_text) > 1:
            names[cui].append(text)
    further = (Concept(cui, name, tuple(synonyms)) for cui, (name, *synonyms) in names.items())
    return pa.concat_tables([concepts, concept_table(further)])


def known_mentions(folder: Path, concepts: ConceptTable) -> dict[str, int]:
    """Split -> number of mentions of which the dictionary has a gold concept.

    Args:
        folder: folder that `concepts_and_mentions.write_mentions` wrote.
        concepts: the dictionary.
    """
    counts = {}
    for split in SPLITS:
        gold = open_arrow(folder / f"{split}.arrow")["cui"].combine_chunks()
        ids = pc.list_flatten(gold, recursive=True)
        mention = pc.list_parent_indices(gold).take(pc.list_parent_indices(pc.list_flatten(gold)))
        counts[split] = len(mention.filter(pa.array(concepts.has(ids))).unique())
    return counts


def reading_table(*reports: Mapping[str, Any]) -> Table:
    """A table of all counts above 0, and of all texts, in ``read_report.json`` of some stages."""
    table = Table(title="Concepts and mentions", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("how many", justify="right", overflow="fold")
    for report in reports:
        for name, value in _flat(report):
            shown = f"{value:,}" if isinstance(value, int) else str(value)
            table.add_row(name.replace("_", " "), shown)
        table.add_section()
    return table


def _flat(report: Mapping[str, Any] | list[Any], *path: str) -> Iterator[tuple[str, Any]]:
    """Names and values that are neither 0 nor empty."""
    if not isinstance(report, Mapping):
        report = {str(number): value for number, value in enumerate(report, start=1)}
    for key, value in report.items():
        if isinstance(value, Mapping | list):
            yield from _flat(value, *path, key)
        elif value:
            yield ": ".join([*path, key]), value
