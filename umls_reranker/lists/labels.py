"""Labelled candidate lists, of a user or a run: rows with gold concept and document."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, compress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..core.arrays import RepeatedTexts, number_distinct
from ..core.errors import UserError
from ..vocab.concept_table import ConceptTable
from ..vocab.types import TypeHierarchy
from .annotated_lists import AnnotatedLists, Annotations
from .answers import Answers, answered
from .candidate_lists import CandidateLists
from .candidates import concept_id, keys_found
from .columns import InvalidRow
from .dictionary import Dictionary
from .duplicates import with_joined_documents
from .foreign_candidates import standard_candidate
from .gold import CUI_LESS, GOLD_KEYS, gold_parts, id_text
from .index_scores import TEACHER
from .label_checks import (
    OWN_DOCUMENTS,
    and_more,
    refuse_contradictions,
    refuse_repeated_ids,
    refuse_unknown_answers,
    refuse_whole_lists,
    refuse_wrong_ids,
    require_ids,
)
from .read import read_rows
from .row_errors import row_errors
from .rows import Rows
from .table import first_values, has_lines, mappings_of, table_of_mappings

# With fewer documents, too little is left to fit on when a fifth is held out.
FEWEST_DOCUMENTS = 10


def read_labelled_lists(  # noqa: PLR0913 (the options of a command)
    path: Path,
    hierarchy: TypeHierarchy,
    dictionary: Path | None = None,
    *,
    concepts: ConceptTable | None = None,
    add: Path | None = None,
    answers: Answers | None = None,
    fitted_on: bool = True,
    each_row_is_a_document: bool = False,
) -> AnnotatedLists:
    """Read a file or folder of rows (`read.read_rows`), which also have ``doc_id`` and ``cui``.

    ``NAME_score`` of a candidate is the score of retriever NAME, which must not be the name of a
    feature; those of our own retrievers need the ``index_key`` of their index. ``teacher_score`` is
    read from lists of a run alone.

    Args:
        path: the file or folder, such as ``lists/test.arrow`` of a run.
        hierarchy: the types that the model knows.
        dictionary: index, release or file of names that completes the candidates (`Dictionary`).
        concepts: dictionary of a run, which completes the candidates and knows which gold concepts
            are in it.
        add: file or folder of further rows, such as corrected ones; one with the ``doc_id`` and
            ``mention_id`` of a row replaces it, and one with ``"is_random_sample": false`` may not
            count for a certificate.
        answers: those of reviewers, which the rows get as gold concepts; rows with none are left
            out.
        fitted_on: whether a model is to be fitted, which needs documents to fit on and others to
            measure on.
        each_row_is_a_document: whether a row without ``doc_id`` is a document, such as a term; rows
            with the same text are one.

    Raises:
        UserError: a file cannot be read, a row is invalid (it is named), a mention_id is repeated
            in a document, there are too few documents, or no list contains its gold concept.
    """
    batches = list(read_rows(path))
    added = [] if add is None else list(read_rows(add))
    rows = _with_added(path, batches, added)
    gold_places = None
    if answers is not None:
        rows, gold_places = answered(rows, answers)
    completing = None
    if dictionary is not None:
        completing = Dictionary.load(dictionary, _wanted_ids(rows, answers))
    lists = usable_lists(
        rows,
        path,
        hierarchy,
        completing,
        concepts=concepts,
        fitted_on=fitted_on,
        each_row_is_a_document=each_row_is_a_document,
        gold_places=gold_places,
    )
    if answers is not None and completing is not None:
        refuse_unknown_answers(answers, completing, lists)
    return lists


def usable_lists(  # noqa: PLR0913 (the options of a command)
    rows: Rows,
    source: Path,
    hierarchy: TypeHierarchy,
    dictionary: Dictionary | None = None,
    *,
    concepts: ConceptTable | None = None,
    fitted_on: bool = True,
    each_row_is_a_document: bool = False,
    gold_places: Sequence[str] | None = None,
) -> AnnotatedLists:
    """Check and complete rows with gold concepts; errors are those of `read_labelled_lists`.

    Args:
        rows: the rows.
        source: where they are from, for messages.
        hierarchy: as for `read_labelled_lists`.
        dictionary: completes the candidates.
        concepts: as for `read_labelled_lists`.
        fitted_on: as for `read_labelled_lists`.
        each_row_is_a_document: as for `read_labelled_lists`.
        gold_places: as for `labelled_lists`.
    """
    if dictionary is not None:
        completed = table_of_mappings(dictionary.add_to(rows.mappings()))
        rows = Rows(rows.positions, completed)
    lists = labelled_lists(
        rows, hierarchy, each_row_is_a_document=each_row_is_a_document, gold_places=gold_places
    )
    lists = replace(lists, dictionary=dictionary)
    if concepts is not None:
        lists = lists.completed(concepts)
    else:
        scores = {name: column for name, column in lists.scores.items() if name != TEACHER}
        lists = with_joined_documents(replace(lists, scores=scores))
    vocabulary = dictionary if concepts is None else concepts
    if vocabulary is not None:
        lists = _looked_up(lists, vocabulary)
    refuse_repeated_ids(lists.annotations)
    documents = len(set(lists.annotations.documents))
    if fitted_on and documents < FEWEST_DOCUMENTS:
        raise UserError(
            f"{source}: a model is fitted on some documents and measured on others: give at least "
            f"{FEWEST_DOCUMENTS}, not {documents}, and each mention the doc_id of its document"
        )
    if lists.not_in_list == len(lists):
        first = next(iter(lists.owner.tolist()), 0)
        top_cui = next(iter(lists.cuis.to_list()), None)
        raise UserError(
            f"{source}: no list contains its gold concept "
            f"(first: {lists.annotations.cuis[first]} of {lists.annotations.positions[first]}, "
            f"whose top candidate is {top_cui}); "
            "use one vocabulary for the ids of candidates and cui"
        )
    return lists


def _looked_up(lists: AnnotatedLists, vocabulary: Dictionary | ConceptTable) -> AnnotatedLists:
    """The lists with ``in_dictionary`` of the annotations as a dictionary says."""
    alternatives = lists.annotations.alternatives
    ids = list(chain.from_iterable(alternatives))
    ids_in_dictionary = set(compress(ids, vocabulary.has(ids)))
    in_dictionary = [not ids_in_dictionary.isdisjoint(each) for each in alternatives]
    annotations = replace(lists.annotations, in_dictionary=np.array(in_dictionary, bool))
    return replace(lists, annotations=annotations)


def labelled_lists(
    rows: Rows,
    hierarchy: TypeHierarchy,
    *,
    each_row_is_a_document: bool = False,
    gold_places: Sequence[str] | None = None,
) -> AnnotatedLists:
    """The lists of rows with gold concepts; ids have no outer blanks, and each score any candidate.

    Args:
        rows: the rows.
        hierarchy: as for `read_labelled_lists`.
        each_row_is_a_document: as for `read_labelled_lists`.
        gold_places: where the gold concept of each row was given, for messages; None: in the row.

    Raises:
        UserError: a row cannot be ranked, lacks doc_id or cui, or one of its candidates a cui; or
            its gold concepts contradict each other, are all of its candidates, or are surely no
            ids; names it.
    """
    content = rows.content
    lists = _readable(rows, hierarchy)
    documents = list(map(id_text, first_values(content, "doc_id")))
    if each_row_is_a_document:
        documents = [
            document or text for document, text in zip(documents, lists.mentions, strict=True)
        ]
    golds = list(map(gold_parts, first_values(content, *GOLD_KEYS, "id")))
    require_ids("doc_id", documents, rows)
    require_ids("cui", golds, rows)
    refuse_contradictions(rows)
    lists = _with_ids(lists, rows)
    # Of each mention, the ids of which any is correct.
    alternatives = np.empty(len(lists), object)
    alternatives[:] = [tuple(dict.fromkeys(chain(*(parts or ())))) for parts in golds]
    places = list(map(str, rows.positions)) if gold_places is None else gold_places
    refuse_wrong_ids(lists, alternatives, places)
    refuse_whole_lists(lists, alternatives, places)
    numbers = {text: code for code, text in enumerate(lists.cuis.texts)}
    first_ids = [next(iter(ids), None) for ids in alternatives]
    gold_codes = np.array([numbers.get(first, -1) for first in first_ids], np.int64)
    is_gold = lists.cuis.codes == gold_codes[lists.owner]
    starts, ends = _spans(content)
    annotations = Annotations(
        cuis=np.array(list(map("|".join, alternatives)), object),
        alternatives=alternatives,
        composite=np.array([len(parts or ()) > 1 for parts in golds], bool),
        documents=np.array(documents, object),
        doc_ids=np.array(documents, object),
        starts=np.array(starts),
        ends=np.array(ends),
        gold=lists.first_positions(is_gold | lists.among(alternatives)),
        in_dictionary=np.array([bool({*ids} - {CUI_LESS}) for ids in alternatives], bool),
        is_random_sample=np.array(
            [value is not False for value in first_values(content, "is_random_sample")], bool
        ),
        mention_ids=np.array(list(map(id_text, first_values(content, "mention_id"))), object),
        splits=np.array(first_values(content, "split"), object),
        positions=np.fromiter(rows.positions, object, len(rows.positions)),
    )
    return AnnotatedLists.of(lists, annotations)


def _spans(content: Any) -> tuple[list[int], list[int]]:
    """Where the n mentions start and end; a row without numbers gets its own, and one character."""
    starts = []
    for row, given in enumerate(first_values(content, "start")):
        start = given if isinstance(given, int) else row
        starts.append(start)
    ends = []
    for start, given in zip(starts, first_values(content, "end"), strict=True):
        end = given if isinstance(given, int) else start + 1
        ends.append(end)
    return starts, ends


def _readable(rows: Rows, hierarchy: TypeHierarchy) -> CandidateLists:
    """The lists of rows; an error names the first row that is none, and how many more there are."""
    try:
        return CandidateLists.from_table(hierarchy, rows.content, scores=None)
    except InvalidRow as fault:
        read = partial(CandidateLists.from_table, hierarchy, scores=None)
        errors = row_errors(read, rows.content)
        raise UserError(
            f"{rows.positions[fault.row]}: {fault.reason}"
            f"{and_more(len(errors) - errors.count(None) - 1)}"
        ) from None


def have_own_documents(lists: AnnotatedLists) -> bool:
    """Whether each mention has a document of its own; then it may be only a part of one."""
    return len({*lists.annotations.doc_ids}) == len(lists)


def with_document(row: dict[str, Any], name: object, each_row_is_a_document: bool) -> None:
    """Give a row that is to be labelled its ``doc_id``, if each row is a document: its text.

    Raises:
        UserError: it has none, and rows are no documents; it is called by `name`.
    """
    if id_text(row.get("doc_id")) is not None:
        return
    if not each_row_is_a_document:
        raise UserError(f"{name}: doc_id is missing{OWN_DOCUMENTS}")
    row["doc_id"] = row.get("entity") or row.get("mention")


def best_of_each_concept(lists: CandidateLists, scores: np.ndarray | None = None) -> np.ndarray:
    """The candidate of each concept in a list with the highest score (m,), (k,) int64.

    Without scores it is the first. So several names of one concept do not compete for probability
    or margin. Each takes the position of the first candidate of its concept, so the concepts of a
    list keep their order.
    """
    order = np.arange(len(lists.names))
    if scores is not None:
        order = np.argsort(-scores, kind="stable")
    best = order[np.unique(lists.concepts[order], return_index=True)[1]]
    return best[np.argsort(np.unique(lists.concepts, return_index=True)[1])]


def are_repeated(concepts: np.ndarray) -> np.ndarray:
    """Whether the concept of each candidate occurs more than once in its list, (m,) bool."""
    _, index, counts = np.unique(concepts, return_inverse=True, return_counts=True)
    return counts[index] > 1


def candidate_cuis(rows: Sequence[dict[str, Any]]) -> set[str]:
    """The ids of all candidates, except of malformed rows."""
    lists = (row.get("candidates") for row in rows)
    items = chain.from_iterable(items for items in lists if isinstance(items, list))
    cuis = (concept_id(item) for item in map(standard_candidate, items) if isinstance(item, dict))
    return {cui for cui in cuis if isinstance(cui, str)}


def _wanted_ids(rows: Rows, answers: Answers | None) -> set[str]:
    """The ids of all candidates and gold concepts, and those of answers to no row."""
    wanted = candidate_cuis(rows.mappings()).union(*gold_ids(rows))
    if answers is not None:
        for answer in answers.given:
            wanted.update(*(gold_parts(answer.gold) or ()))
    return wanted


def gold_ids(rows: Rows) -> list[set[str]]:
    """The ids under ``cui`` or ``gold_cui`` of each row, of which any is correct; {} for none."""
    return [
        set(chain.from_iterable(gold_parts(value) or ())) - {CUI_LESS}
        for value in first_values(rows.content, *GOLD_KEYS)
    ]


def _with_added(path: Path, batches: Sequence[Rows], added: Sequence[Rows]) -> Rows:
    """All rows; those added replace rows with the same document and mention_id."""
    if not any(batch.positions for batch in batches):
        raise UserError(f"{path} holds no mentions")
    positions = [position for batch in (*batches, *added) for position in batch.positions]
    if not added:
        return Rows(positions, _joined_tables(path, [batch.content for batch in batches]))
    rows = [row for batch in batches for row in batch.mappings()]
    further = [row for batch in added for row in batch.mappings()]
    replaced = {_identity(row) for row in further} - {None}
    retained = [at for at, row in enumerate(rows) if _identity(row) not in replaced]
    return Rows(
        [*(positions[at] for at in retained), *positions[len(rows) :]],
        table_of_mappings([*(rows[at] for at in retained), *further]),
    )


def _joined_tables(path: Path, tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of all tables.

    Raises:
        UserError: the tables of files have columns of different types.
    """
    are_mappings = {has_lines(table) for table in tables}
    if len(are_mappings) == 1:
        try:
            return pa.concat_tables(tables, promote_options="permissive")
        except pa.ArrowException as error:
            if are_mappings == {False}:
                raise UserError(
                    f"{path}: the files have columns of different types ({error})"
                ) from None
    # Values of one key may have one type in each of several batches, and none in all.
    return table_of_mappings([row for table in tables for row in mappings_of(table)])


def _identity(row: dict[str, Any]) -> tuple[str | None, str] | None:
    mention_id = id_text(row.get("mention_id"))
    return None if mention_id is None else (id_text(row.get("doc_id")), mention_id)


def _with_ids(lists: CandidateLists, rows: Rows) -> CandidateLists:
    """The lists with ids that all candidates have, stripped, and with scores that any has."""
    is_blank = np.array([not cui for cui in lists.ids], bool)[lists.cuis.codes]
    if is_blank.any():
        row = int(lists.owner[is_blank.argmax()])
        position = int(is_blank.argmax() - lists.offsets[row])
        keys = keys_found(standard_candidate(rows.mappings()[row]["candidates"][position]))
        raise UserError(
            f"{rows.positions[row]}: candidate {position} has no cui; give each candidate one{keys}"
        )
    cuis, codes = number_distinct(lists.ids)
    scores = {name: column for name, column in lists.scores.items() if not np.isnan(column).all()}
    return replace(lists, cuis=RepeatedTexts(cuis, codes[lists.cuis.codes]), scores=scores)
