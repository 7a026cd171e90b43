"""The dictionary's ids of gold concepts: other prefixes, retired ids, and what it lacks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, compress, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..lists.gold import trainable
from ..vocab.concept_table import ConceptTable
from ..vocab.concepts import Concept, concept_table
from ..vocab.normalization import normalize_name
from ..vocab.rrf_tables import read_rrf_table
from ..vocab.string_rows import StringRows
from .annotated_text import Mention
from .mention_files import BATCH_ROWS

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
            for block in read_rrf_table("MRCUI", path, ["CUI1", "REL", "CUI2"])
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
