"""Files of mentions: linking them, and writing the candidate lists of their index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ..corpora.concept_ids import find_ids
from ..lists.answers import Answer, Answers, refuse_ids
from ..lists.gold import CUI_LESS, GOLD_KEYS, gold_parts, id_text
from ..lists.label_checks import OWN_DOCUMENTS
from ..lists.labels import gold_ids, with_document
from ..lists.rows import Rows
from ..lists.table import READING_ERROR, TEXT_KEYS, first_values, table_of_mappings
from ..models.arguments import BUILT_IN
from ..serving.cluster_batches import ranked_frames, spark_schema
from ..serving.file_jobs import FileJob, OneProcess
from ..serving.input_columns import RANKED, REVIEWED_KEYS
from ..serving.rank_batch import first_error, rank_rows, read_valid
from ..serving.review_sheet import LIST_FORMATS
from ..serving.row_counts import RowCounts
from ..serving.row_report import ranking_report
from ..serving.rows import RankedRows
from ..serving.samples import Sample
from .drawn_mentions import DrawnMentions
from .linked_concept import LINKED_TYPE
from .linker import ConceptLinker
from .mentions import (
    MENTION_KEYS,
    UsagiSheets,
    input_files,
    read_answers,
    read_mentions,
    require_ends,
    span_columns,
)
from .ruled_out import without_concepts

if TYPE_CHECKING:
    import pandas as pd
    from accelerate import PartialState


CALIBRATE = (
    "label some mentions (umls-reranker candidates INDEX INPUT sheet.csv), then umls-reranker "
    f"calibrate {BUILT_IN} --lists sheet.lists.jsonl --answers sheet.csv --output my_model, and "
    "link with --model my_model"
)


class LinkJob(FileJob):
    """Linking a file of mentions (`mentions.read_mentions`) to concepts of an index.

    Args:
        source: as for `FileJob`.
        target: as for `FileJob`.
        batch_rows: as for `FileJob`.
        top: number of concepts to write for each mention.
        sheets: reads sheets of Usagi.
        reviewed: sheets with answers of reviewers, which stay.
        options: other arguments of `FileJob`.
    """

    verb = "linking"

    def __init__(
        self,
        source: Path,
        target: Path,
        batch_rows: int = 1024,
        *,
        top: int = 5,
        sheets: UsagiSheets | None = None,
        reviewed: Sequence[Path] = (),
        **options: Any,
    ) -> None:
        self.sheets = sheets or UsagiSheets()
        self.reviewed = reviewed
        super().__init__(source, target, batch_rows, **options)
        self.top = top
        self.answers = Answers(read_answers(reviewed, self.sheets)) if reviewed else None

    def files(self) -> Sequence[Path]:
        return input_files(self.source)

    def further_files(self) -> Sequence[Path]:
        files = [*self.reviewed]
        # The text of annotations in the format of BRAT.
        files += [file.with_suffix(".txt") for file in self.files() if file.suffix == ".ann"]
        vocabulary = self.sheets.vocabulary
        if vocabulary is not None:
            files += [vocabulary.concepts, vocabulary.relationships]
        return files

    def batches(self) -> Iterator[Rows]:
        return read_mentions(self.source, self.batch_rows, self.sheets)

    def run(self, worker: ConceptLinker, processes: PartialState | OneProcess) -> RowCounts:
        self.format.settings = replace(self.format.settings, concepts=worker.concepts)
        return super().run(worker, processes)

    def process(self, worker: ConceptLinker, rows: Rows) -> RankedRows:
        linked = linked_rows(worker, rows, self.top)
        if self.answers is None:
            return linked
        return _with_reviewed(worker, rows, linked, self.answers)

    def report(self, worker: ConceptLinker, counts: RowCounts) -> Iterator[str]:
        yield from ranking_report(counts, worker.reranker.calibration, CALIBRATE)
        if counts.with_gold and not counts.with_gold_in_index:
            yield (
                f"caution: no gold concept of these {counts.with_gold:,} mentions is in the index; "
                "are the ids of another kind, or of another vocabulary?"
            )
        if self.answers is not None:
            yield (
                f"{counts.reviewed:,} mentions have the answer of a reviewer, of "
                f"{self.answers.count:,} answers in the sheets"
            )
            if counts.of_changed_text:
                yield (
                    f"the text of {counts.of_changed_text:,} mentions is no longer the one that a "
                    "reviewer answered; they have the model's answer until it is given again"
                )
            yield from self.answers.agreement()
            if counts.ruled_out:
                yield (
                    f"the answer to {counts.ruled_out:,} mentions was ruled out by a reviewer; "
                    "no other is accepted there"
                )


def linked_rows(linker: ConceptLinker, rows: Rows, top: int) -> RankedRows:
    """Rows of `mentions.read_mentions` with the first concepts of each, as `LINKED_TYPE`."""
    table, errors = _readable_mentions(linker, rows)
    golds, known = _gold_concepts(linker, rows)
    described = partial(linker.described_column, top=top)
    lists = linker.reranker.read_table(linker.with_candidates(table))
    ranked = rank_rows(linker.reranker, rows, lists, errors, golds, described)
    in_index = {*compress(known.values(), linker.concepts.has([*known.values()]))}
    with_gold_in_index = sum(not in_index.isdisjoint(gold) for gold in golds)
    counts = replace(ranked.counts, with_gold_in_index=with_gold_in_index)
    return ranked._replace(counts=counts)


def _with_reviewed(
    linker: ConceptLinker, rows: Rows, linked: RankedRows, answers: Answers
) -> RankedRows:
    """The rows with what reviewers answered, as keys of their own.

    Raises:
        UserError: as `Answers.of`; or the index lacks the id of an answer to a row; names the lines
            of all such answers in the sheets.
    """
    content = rows.mappings()
    reviewed = 0
    ruled_out: dict[int, set[str]] = {}
    changed = 0
    for number, (row, document) in enumerate(zip(content, rows.documents, strict=True)):
        answer = answers.of(row, document)
        changed += answer is None and answers.of_former_text(row) is not None
        if answer is not None and answer.ruled_out:
            known_ids, _ = find_ids(answer.ruled_out, linker.concepts)
            ruled_out[number] = {*filter(None, known_ids)}
        if answer is None or answer.gold is None:
            continue
        if _fault_of(linker, answer):
            refuse_ids(list(filter(None, (_fault_of(linker, each) for each in answers.given))))
        content[number] |= _reviewed(linker, answer)
        reviewed += 1
    counts = linked.counts + RowCounts(reviewed=reviewed, of_changed_text=changed)
    if ruled_out:
        linked, removed = without_concepts(linked, ruled_out)
        counts += removed
    return linked._replace(content=table_of_mappings(content), counts=counts)


def _fault_of(linker: ConceptLinker, answer: Answer) -> str | None:
    """Why an answer cannot stand, with its line; targets of OMOP need no concept of the index."""
    if gold_parts(answer.gold) is None:
        return f"{answer.position}: {answer.gold} has a blank id"
    cui = _id_of(linker, answer)
    if cui == CUI_LESS or answer.targets or linker.concepts.has([cui])[0]:
        return None
    return (
        f"{answer.position}: the index has no concept {cui!r}, the answer to {answer.term.text!r}"
    )


def _id_of(linker: ConceptLinker, answer: Answer) -> str:
    """The first id of an answer that the index has, in its form, or else its first."""
    parts = gold_parts(answer.gold)
    assert parts
    ids = parts[0]
    known_ids, _ = find_ids(ids, linker.concepts)
    return next(filter(None, known_ids), ids[0])


def _reviewed(linker: ConceptLinker, answer: Answer) -> dict[str, Any]:
    cui = _id_of(linker, answer)
    name = linker.concepts.column("name", linker.concepts.rows([cui]))[0].as_py()
    reviewed = (
        cui,
        name,
        answer.reviewer,
        answer.reviewed_on,
        answer.comment,
        [*answer.targets],
    )
    return dict(zip(REVIEWED_KEYS, reviewed, strict=True))


def _readable_mentions(linker: ConceptLinker, rows: Rows) -> tuple[pa.Table, list[str | None]]:
    """The mentions that can be read (`ConceptLinker.read`), and why each of n cannot, or None."""
    columns = span_columns(rows)
    errors: list[str | None] = []
    for reason in first_values(rows.content, READING_ERROR):
        error = str(reason) if reason else None
        errors.append(error)

    def read(numbers: list[int]) -> pa.Table:
        of_numbers = {
            name: [column[number] for number in numbers] for name, column in columns.items()
        }
        return _read(linker, of_numbers)

    return read_valid(read, errors), errors


def _read(linker: ConceptLinker, columns: dict[str, list[Any]]) -> pa.Table:
    """The mentions with their context."""
    table = linker.read(**{name: columns[name] for name in columns if name != "ends"})
    require_ends(columns)
    return table


def _gold_concepts(linker: ConceptLinker, rows: Rows) -> tuple[list[set[str]], dict[str, str]]:
    """The gold concepts of rows by the dictionary's ids, and that id of each id of the rows.

    An id that the dictionary does not know stays.
    """
    golds = gold_ids(rows)
    cuis = [*set().union(*golds)]
    known_ids, _ = find_ids(cuis, linker.concepts)
    known = {cui: known_id or cui for cui, known_id in zip(cuis, known_ids, strict=True)}
    return [{known[cui] for cui in gold} for gold in golds], known


def _with_ids(value: Any, known: Mapping[str, str]) -> Any:
    """A gold concept in any form of `gold_parts`, by the ids of the dictionary."""
    if isinstance(value, list):
        return [_with_ids(item, known) for item in value]
    return known.get(value, value) if isinstance(value, str) else value


class CandidatesJob(LinkJob):
    """Writing the candidates of a file's mentions as lists, and a sheet to label them.

    A row of the lists is one of user-provided lists, whose scores count with its ``index_key``. It
    has the ``entity`` that was searched for and the text around it in place of the document. The
    lists of a sheet lie beside it (`ReviewSheet.beside`).

    Args:
        arguments: as for `LinkJob`.
        each_row_is_a_document: as for `lists.labels.with_document`; a row without ``doc_id`` is
            refused otherwise.
        sample: the documents to draw; None: all, in their order.
        options: as for `LinkJob`.
    """

    verb = "searching"
    formats = LIST_FORMATS

    def __init__(
        self,
        *arguments: Any,
        each_row_is_a_document: bool = False,
        sample: Sample | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.each_row_is_a_document = each_row_is_a_document
        self.drawn = None
        if sample is not None:
            self.drawn = DrawnMentions(self.source, self.sheets, sample, each_row_is_a_document)

    def made_of(self, worker: ConceptLinker) -> dict[str, Any]:
        made_of = super().made_of(worker)
        if self.drawn is not None:
            made_of["the sample"] = vars(self.drawn.sample)
        return made_of

    def batches(self) -> Iterator[Rows]:
        if self.drawn is None:
            return super().batches()
        return self.drawn.batches(self.batch_rows)

    def process(self, worker: ConceptLinker, rows: Rows) -> RankedRows:
        table, errors = _readable_mentions(worker, rows)
        table = worker.with_candidates(table)
        golds, known = _gold_concepts(worker, rows)
        # The rows without an error were searched.
        numbers = [number for number, error in enumerate(errors) if error is None]
        searched = dict(zip(numbers, table.to_pylist(), strict=True))
        types = span_columns(rows)["entity_types"]
        with_gold = 0
        with_gold_in_list = 0
        content = []
        placed = zip(rows.positions, rows.mappings(), golds, strict=True)
        for number, (place, row, gold) in enumerate(placed):
            brought = {key: value for key, value in row.items() if key not in TEXT_KEYS}
            # Answers find their rows by this.
            if id_text(brought.get("mention_id")) is None:
                brought["mention_id"] = Path(str(place)).name
            brought |= {key: _with_ids(row[key], known) for key in GOLD_KEYS if key in row}
            if number in searched:
                mention = searched[number]
                brought |= {key: mention[key] for key in ("entity", "left", "right")}
                brought["entity_type"] = types[number]
                brought["candidates"] = mention["candidates"]
                # Before somebody labels it.
                with_document(brought, place, self.each_row_is_a_document)
                brought["index_key"] = mention["index_key"]
                with_gold += bool(gold)
                with_gold_in_list += any(item["cui"] in gold for item in brought["candidates"])
            content.append(brought)
        counts = RowCounts(
            searched=len(table),
            candidates=sum(len(row["candidates"]) for row in searched.values()),
            errors=len(errors) - len(table),
            with_gold=with_gold,
            with_gold_in_list=with_gold_in_list,
        )
        return RankedRows(
            content=table_of_mappings(content),
            ranked=pa.nulls(len(errors)),
            errors=errors,
            counts=counts,
            first_error=first_error(rows, errors),
        )

    def report(self, worker: ConceptLinker, counts: RowCounts) -> Iterator[str]:
        yield (
            f"lists of {counts.searched:,} mentions with {counts.candidates:,} candidates, "
            f"{counts.errors:,} rows with an error"
        )
        if self.drawn is not None and self.drawn.without_text:
            yield (
                f"{len(self.drawn.without_text):,} rows without text were not drawn from, the "
                f"first is {self.drawn.without_text[0]}"
            )
        if counts.with_gold:
            share_in_list = counts.with_gold_in_list / counts.with_gold
            yield (
                f"the gold concept is in the list of {share_in_list:.1%} "
                f"of {counts.with_gold:,} with one"
            )
        if not self.each_row_is_a_document and (self.format.counts["documents"] == counts.searched):
            yield f"each mention has a document of its own: nothing can be certified{OWN_DOCUMENTS}"
        options = " --each_row_is_a_document" if self.each_row_is_a_document else ""
        if self.beside is not None:
            options = f" --answers {self.target}{options}"
        yield (
            "give each mention its gold concept, then: umls-reranker calibrate "
            f"{BUILT_IN} --lists {self.beside or self.target}{options} --output my_model"
        )


#: Type of the column ``ranked`` of linked rows in Spark's notation.
LINKED_SCHEMA = spark_schema(LINKED_TYPE)


class LinkBatches:
    """Links Arrow batches in ``ray.data.Dataset.map_batches``; each actor loads the index once.

    Args:
        index: index or run folder that every node can reach.
        model: folder or Hub id that every node can reach.
        top: number of concepts of each mention.
        options: other arguments of `ConceptLinker.from_pretrained`, such as ``revision``.
    """

    def __init__(self, index: str, model: str = BUILT_IN, top: int = 5, **options: Any) -> None:
        self.linker = _load_linker(model, index, **options)
        self.top = top

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the rows with the column ``ranked``, null where a mention cannot be linked."""
        rows = Rows(range(len(batch)), batch, first_values(batch, *TEXT_KEYS))
        return batch.append_column(RANKED, linked_rows(self.linker, rows, self.top).ranked)


class LinkPartitions:
    """Links frames in ``pyspark.sql.DataFrame.mapInPandas``; the workers load the index.

    Arguments are those of `LinkBatches`.
    """

    def __init__(self, index: str, model: str = BUILT_IN, top: int = 5, **options: Any) -> None:
        self.arguments = {"index": index, "model": model, "top": top, **options}

    def __call__(self, frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Yield each frame with the column ``ranked``, None where a mention cannot be linked."""
        yield from ranked_frames(LinkBatches(**self.arguments), frames, MENTION_KEYS)


_load_linker = cache(ConceptLinker.from_pretrained)
