"""Mentions of documents that are drawn at random from a file, and the study of their looks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..core.arrays import values_at
from ..core.errors import UserError
from ..lists.gold import id_text
from ..lists.labels import with_document
from ..lists.read import STDIN
from ..lists.rows import Rows
from ..lists.table import READING_ERROR, table_of_mappings
from ..serving.study_files import Sample, StudySettings, expected_tier_coverage, write_study
from .linker import ConceptLinker
from .mentions import UsagiSheets, read_mentions, span_columns

# Mentions of the pool by which the share of terms in the tier is estimated.
FOR_COVERAGE = 300
READ_ROWS = 4_096


class _Mention(NamedTuple):
    """A row of `read_mentions`: its place, its content, and the text of its document."""

    place: Any
    row: dict[str, Any]
    text: str | None


class DrawnMentions:
    """The mentions of a sample of documents.

    Args:
        source: the file or folder of the mentions.
        sheets: reads sheets of Usagi.
        sample: the documents to draw.
        each_row_is_a_document: as for `lists.labels.with_document`.

    Raises:
        UserError: the source is stdin.
    """

    def __init__(
        self, source: Path, sheets: UsagiSheets, sample: Sample, each_row_is_a_document: bool
    ) -> None:
        if source == STDIN:
            raise UserError("stdin cannot be drawn from; give --sample a file")
        self.source = source
        self.sheets = sheets
        self.sample = sample
        self.each_row_is_a_document = each_row_is_a_document

    @cached_property
    def pool(self) -> dict[str, list[_Mention]]:
        """The mentions of each document; those with an error are left out."""
        pool = defaultdict(list)
        for rows in read_mentions(self.source, READ_ROWS, self.sheets):
            mentions = zip(rows.positions, rows.mappings(), rows.documents, strict=True)
            for mention in map(_Mention._make, mentions):
                if not mention.row.get(READING_ERROR):
                    labelled = dict(mention.row)
                    with_document(labelled, mention.place, self.each_row_is_a_document)
                    pool[str(id_text(labelled["doc_id"]))].append(mention)
        return dict(pool)

    def documents(self) -> list[str]:
        """The document of each mention of the pool."""
        return [name for name, mentions in self.pool.items() for _ in mentions]

    def batches(self, batch_rows: int) -> Iterator[Rows]:
        """The mentions of the sample, document by document in the drawn order."""
        _, order = StudySettings(looks=1).draw(self.documents(), self.sample.seed)
        drawn = iter([mention for name in self.sample.of(order) for mention in self.pool[name]])
        while batch := list(islice(drawn, batch_rows)):
            yield _rows(batch)

    def write_study(self, linker: ConceptLinker, settings: StudySettings, sheet: Path) -> str:
        """Write the study of the sample beside its sheet.

        Returns:
            A line about it; "" if nothing can be certified, since each mention has a document of
            its own that is not said to be a whole one.
        """
        are_terms = all(len(mentions) == 1 for mentions in self.pool.values())
        if are_terms and not self.each_row_is_a_document:
            return ""
        coverage = 1.0
        if are_terms and settings.looks is None:
            coverage = self._tier_coverage(linker, settings.target_precision)
        study, _ = settings.draw(self.documents(), self.sample.seed, coverage)
        return write_study(study, sheet, {"index": linker.retriever.index_key}, coverage)

    def _tier_coverage(self, linker: ConceptLinker, target: float) -> float:
        """The share of terms whose scores, by the model before labels, expect the target."""
        names = list(self.pool)
        rng = np.random.default_rng([self.sample.seed, FOR_COVERAGE])
        numbers = rng.permutation(len(names))[:FOR_COVERAGE].tolist()
        rows = _rows([self.pool[names[number]][0] for number in numbers])
        columns = span_columns(rows)
        columns.pop("ends")
        try:
            table = linker.with_candidates(linker.read(**columns))
            lists = linker.reranker.read_table(table)
        except ValueError:
            # A row that cannot be read is said where it is searched.
            return 1.0
        decisions = linker.reranker.decide(lists)
        scores = values_at(decisions.probabilities, decisions.tops.positions, np.nan)
        return expected_tier_coverage(scores, target)


def _rows(mentions: list[_Mention]) -> Rows:
    return Rows(
        [mention.place for mention in mentions],
        table_of_mappings([mention.row for mention in mentions]),
        [mention.text for mention in mentions],
    )
