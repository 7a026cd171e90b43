"""Mentions of documents that are drawn at random from a file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import UserError
from ..lists.answers import SAMPLE_POSITION, term_of
from ..lists.gold import id_text
from ..lists.labels import with_document
from ..lists.read import STDIN
from ..lists.rows import Rows
from ..lists.table import READING_ERROR, table_of_mappings
from ..serving.samples import Sample, drawn_order
from .mentions import UsagiSheets, read_mentions

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

    Attributes:
        without_text: places of rows without text, which are no mentions and are not drawn.

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
        self.without_text: list[Any] = []

    @cached_property
    def pool(self) -> dict[str, list[_Mention]]:
        """The mentions of each document; those with an error, or without text, are left out."""
        pool = defaultdict(list)
        for rows in read_mentions(self.source, READ_ROWS, self.sheets):
            mentions = zip(rows.positions, rows.mappings(), rows.documents, strict=True)
            for mention in map(_Mention._make, mentions):
                if _is_without_text(mention.row):
                    self.without_text.append(mention.place)
                elif not mention.row.get(READING_ERROR):
                    labelled = dict(mention.row)
                    with_document(labelled, mention.place, self.each_row_is_a_document)
                    pool[str(id_text(labelled["doc_id"]))].append(mention)
        return dict(pool)

    def batches(self, batch_rows: int) -> Iterator[Rows]:
        """The mentions of the sample, document by document in the drawn order."""
        order = drawn_order(self.pool, self.sample.seed)
        drawn = iter(self._mentions_of(self.sample.of(order), order))
        while batch := list(islice(drawn, batch_rows)):
            yield _rows(batch)

    def _mentions_of(self, sample: Sequence[str], order: Sequence[str]) -> Iterator[_Mention]:
        """The mentions of a sample of an order, each with its number in this order."""
        position = 0
        drawn = {*sample}
        for name in order:
            for mention in self.pool[name]:
                position += 1
                if name in drawn:
                    yield mention._replace(row=mention.row | {SAMPLE_POSITION: position})


def _is_without_text(row: Mapping[str, Any]) -> bool:
    """Whether a row has a cell for its text, and that is blank; of others the text is a span."""
    has_cell = "mention" in row or "entity" in row
    return has_cell and not term_of(row).text.strip()


def _rows(mentions: list[_Mention]) -> Rows:
    return Rows(
        [mention.place for mention in mentions],
        table_of_mappings([mention.row for mention in mentions]),
        [mention.text for mention in mentions],
    )
