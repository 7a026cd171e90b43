"""Reranking a file of mentions that have their candidates."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..lists.candidate_lists import CandidateLists
from ..lists.dictionary import Dictionary
from ..lists.labels import candidate_cuis, gold_ids
from ..lists.read import STDIN, mention_files, read_rows
from ..lists.rows import Rows
from ..lists.table import mappings_of, rows_at, table_of_mappings
from ..vocab.concept_folder import CONCEPTS_FOLDER, is_index
from ..vocab.release import release_files
from .file_jobs import FileJob
from .rank_batch import rank_rows, read_valid
from .reranker import UMLSReranker
from .row_counts import RowCounts
from .row_report import ranking_report
from .rows import RankedRows


class BulkJob(FileJob):
    """Ranking a file of mentions with their candidates.

    Args:
        source: mentions with their candidates (`lists.read.read_rows`).
        target: as for `FileJob`.
        batch_rows: as for `FileJob`.
        dictionary: index, release or file of names that completes the candidates (`Dictionary`)
            without changing the rows of the output.
        options: other arguments of `FileJob`.
    """

    def __init__(
        self,
        source: Path,
        target: Path,
        batch_rows: int = 1024,
        *,
        dictionary: Path | None = None,
        **options: Any,
    ) -> None:
        self._dictionary_path = dictionary
        super().__init__(source, target, batch_rows, **options)
        self._dictionary = None
        if dictionary is not None:
            cuis = None
            # Stdin cannot be read twice.
            if source != STDIN:
                cuis = set[str]()
                for rows in read_rows(source):
                    cuis |= candidate_cuis(rows.mappings())
            self._dictionary = Dictionary.load(dictionary, cuis)

    def files(self) -> Sequence[Path]:
        return mention_files(self.source)

    def further_files(self) -> Sequence[Path]:
        path = self._dictionary_path
        if path is None or not path.is_dir():
            return () if path is None else (path,)
        if is_index(path):
            return sorted((path / CONCEPTS_FOLDER).iterdir())
        tables = release_files(path, required=())
        return [tables[name] for name in ("MRCONSO", "MRSTY") if name in tables]

    def batches(self) -> Iterator[Rows]:
        return read_rows(self.source, self.batch_rows)

    def process(self, worker: UMLSReranker, rows: Rows) -> RankedRows:
        errors: list[str | None] = [None] * len(rows.positions)
        lists = read_valid(
            lambda numbers: self._lists(worker, rows_at(rows.content, numbers)), errors
        )
        return rank_rows(worker, rows, lists, errors, gold_ids(rows))

    def report(self, worker: UMLSReranker, counts: RowCounts) -> Iterator[str]:
        model = self.format.settings.model
        yield from ranking_report(
            counts, worker.calibration, f"umls-reranker calibrate {model} --lists FILE"
        )

    def _lists(self, reranker: UMLSReranker, rows: pa.Table) -> CandidateLists:
        if self._dictionary is not None:
            rows = table_of_mappings(self._dictionary.add_to(mappings_of(rows)))
        return reranker.read_table(rows)
