"""What makes rows with gold concepts no labels: each check names the row and the way out."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..vocab.normalization import normalize_name
from .annotated_lists import Annotations
from .answers import Answers, refuse_ids
from .candidate_lists import CandidateLists
from .candidates import keys_found
from .dictionary import Dictionary
from .gold import CUI_LESS, GOLD_KEYS, bare_id, gold_parts
from .rows import RowPosition, Rows
from .sheets import DELIMITERS
from .table import first_values

# What to do about mentions without a document, or each with one of its own.
OWN_DOCUMENTS = (
    "; give mentions of one text one doc_id, "
    "or --each_row_is_a_document if each row is a document, such as a term"
)


def and_more(count: int) -> str:
    """The end of a message about a row."""
    return f"; {count:,} more rows have errors" if count else ""


def require_ids(key: str, values: Sequence[Any], rows: Rows) -> None:
    """Refuse rows without a document, or without a gold concept; `values` are those of the key."""
    if None not in values:
        return
    row = values.index(None)
    position = rows.positions[row]
    gold_key = "gold or gold_cui" if position.path.suffix in DELIMITERS else "cui"
    missing = gold_key
    advice = ""
    if key == "doc_id":
        missing = key
        advice = OWN_DOCUMENTS
    others = and_more(values.count(None) - 1)
    found = keys_found(rows.mappings()[row])
    raise UserError(
        f"{position}: {missing} is missing or no id{others}; give doc_id and {gold_key}: an id, "
        f"{CUI_LESS} for no concept, a list of alternative ids, or a list of lists for several "
        f"concepts{advice}{found}"
    )


def refuse_contradictions(rows: Rows) -> None:
    """Refuse a row whose keys for the gold concept say different things."""
    columns = [map(gold_parts, first_values(rows.content, key)) for key in GOLD_KEYS]
    for position, (first, second) in zip(rows.positions, zip(*columns, strict=True), strict=True):
        if first is None or second is None:
            continue
        if {*map(frozenset, first)} != {*map(frozenset, second)}:
            first_key, second_key = GOLD_KEYS
            raise UserError(
                f"{position}: {first_key} is {_ids_in_words(first)}, but {second_key} is "
                f"{_ids_in_words(second)}; let one of the two stand"
            )


def _ids_in_words(parts: Iterable[Iterable[str]]) -> str:
    """The ids of `gold_parts`."""
    return "|".join(chain.from_iterable(parts)) or CUI_LESS


def refuse_whole_lists(
    lists: CandidateLists, alternatives: np.ndarray, places: Sequence[str]
) -> None:
    """Refuse a gold concept that is every candidate of its list: no model could be wrong there.

    Arguments are those of `refuse_wrong_ids`.
    """
    for number, ids in enumerate(alternatives):
        if len(ids) < 2:
            continue
        codes = lists.cuis.codes[lists.offsets[number] : lists.offsets[number + 1]]
        candidates = {lists.cuis.texts[code] for code in codes.tolist()}
        if len(candidates) > 1 and candidates <= {*ids}:
            raise UserError(
                f"{places[number]}: cui lists all {len(candidates)} candidates, which says nothing "
                "about any of them; give those that are right, or leave the row out"
            )


def refuse_wrong_ids(
    lists: CandidateLists, alternatives: np.ndarray, places: Sequence[str]
) -> None:
    """Refuse gold concepts that are surely no ids: the mistakes of those who fill in a sheet.

    An id that no candidate has may be right all the same, since the list may lack its concept. But
    none is the number of a candidate, its name, the id of one in another case or with another
    prefix, or words, unless ids are of this kind.

    Args:
        lists: n lists.
        alternatives: n times ids of which any is right.
        places: where each mention's were given, for messages.
    """
    known = {*lists.ids}
    unknown = [
        number
        for number, ids in enumerate(alternatives)
        if ids and known.isdisjoint(ids) and CUI_LESS not in ids
    ]
    if not unknown:
        return
    has_numbers = any(cui.isdecimal() for cui in known)
    has_names = not known.isdisjoint(lists.names.texts)
    all_have_digits = all(map(_has_digit, known))
    any_has_blank = any(" " in cui for cui in known)
    other_forms = {cui.lower(): cui for cui in known}
    other_forms |= {bare_id(cui).lower(): cui for cui in known}
    faults = []
    for number in unknown:
        span = slice(lists.offsets[number], lists.offsets[number + 1])
        cuis = lists.cuis[span].to_list()
        names = dict(zip(map(normalize_name, lists.names[span].to_list()), cuis, strict=True))
        for gold in alternatives[number]:
            is_number = gold.isdecimal() and int(gold[:9]) <= len(cuis)
            of_name = names.get(normalize_name(gold))
            of_form = other_forms.get(gold.lower()) or other_forms.get(bare_id(gold).lower())
            fault = ""
            if is_number and not has_numbers:
                fault = "is the number of a candidate"
            elif of_name and not has_names:
                fault = f"is the name of {of_name}"
            elif of_form:
                fault = f"is {of_form} in another form"
            elif all_have_digits and not _has_digit(gold):
                fault = f"has no digit, as {min(known)} has"
            elif " " in gold and not any_has_blank:
                fault = f"has a blank, unlike {min(known)}"
            if fault:
                faults.append(
                    f"{places[number]}: the lists have no concept {gold!r}, which {fault}"
                )
    refuse_ids(faults)


def _has_digit(text: str) -> bool:
    return any(map(str.isdigit, text))


def refuse_unknown_answers(answers: Answers, dictionary: Dictionary, lists: CandidateLists) -> None:
    """Refuse answers of reviewers that neither the dictionary nor any candidate has.

    Targets of OMOP need no concept there. A row's own gold concept that the dictionary lacks is
    counted instead: to leave it out would hide an error.
    """
    known = {*lists.ids, CUI_LESS}
    faults = []
    for answer in answers.given:
        ids = list(chain(*(gold_parts(answer.gold) or ())))
        if not answer.targets and known.isdisjoint(ids) and not dictionary.has(ids).any():
            faults.append(
                f"{answer.position}: neither the dictionary nor a candidate is {'|'.join(ids)!r}, "
                f"the answer to {answer.term.text!r}"
            )
    refuse_ids(faults)


def refuse_repeated_ids(annotations: Annotations) -> None:
    """Refuse a mention_id that is repeated in a document."""
    first_rows: dict[tuple[str, str], RowPosition] = {}
    rows = zip(annotations.doc_ids, annotations.mention_ids, annotations.positions, strict=True)
    for document, mention_id, position in rows:
        first_row = first_rows.setdefault((document, mention_id), position)
        if mention_id is not None and first_row != position:
            raise UserError(
                f"{position}: mention_id {mention_id!r} of document {document} was already used in "
                f"{first_row}; list each mention once, with a unique id or none"
            )
