"""Candidate lists of another pipeline instead of index and retrieval: concepts, mentions, candidates.

The files are read twice, piece by piece. `OwnLists.read` checks every row, finds the split of every document and
collects the concepts. `OwnLists.write` writes the same datasets as a corpus and retrieval would.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Features, List, Value

from ..core.arrays import RepeatedTexts
from ..core.errors import UserError
from .arrow import DatasetWriter, write_dataset_dict_index
from .candidate_lists import AnnotatedLists
from .columns import Concept
from .cuis import CUI_BYTES
from .labelled_lists import LabelledLists, best_of_each_concept, labelled_pieces, require_documents
from .list_columns import FIELDS, as_arrow
from .mentions import MENTION_FEATURES, SPLITS

if TYPE_CHECKING:
    from .semantic_types import TypeHierarchy

__all__ = ["OwnLists", "SplitOf"]

# The split of a document, or None if no list of documents has it.
SplitOf = Callable[[str], str | None]
NAMED = ("cui", "name", "preferred_name", "definition", "semantic_types")
# Distinct rows of names are told apart again when so many have come together.
NAMES_AT_ONCE = 1_000_000
BETWEEN_TYPES = "|"


@dataclass(frozen=True)
class OwnLists:
    """The checked content of a recipe's ``candidate_lists``.

    Attributes:
        path, hierarchy, reserved: as for `labelled_lists.labelled_pieces`.
        splits: document -> its split; other documents are left out.
        scores: retrievers whose scores all candidates have.
        concepts: CUI -> its names, the types of all its candidates, and the first definition in the lists.
        fields: which of ``preferred_name`` and ``definition`` candidates have.
        report: counts of what was read.
    """

    path: Path
    hierarchy: TypeHierarchy
    reserved: Collection[str]
    splits: Mapping[str, str]
    scores: tuple[str, ...]
    concepts: Mapping[str, Concept]
    fields: tuple[str, ...]
    report: dict[str, Any]

    @classmethod
    def read(
        cls,
        path: Path,
        hierarchy: TypeHierarchy,
        reserved: Collection[str],
        split_of: SplitOf,
        listed: bool,
    ) -> OwnLists:
        """Read and check all rows.

        Args:
            split_of: the split of a document if the lists have no column ``split``.
            listed: whether it uses lists of documents, which exclude such a column.

        Raises:
            UserError: as `labelled_lists.labelled_pieces`; a split is unknown, missing or empty, a document is in
                two, a mention comes twice, or there are too few documents.
        """
        splits: dict[str, tuple[str | None, str]] = {}
        ids: set[tuple[str, str]] = set()
        tables: list[pa.Table] = []
        scores: tuple[str, ...] = ()
        unknown_types: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        found: Counter[str | None] = Counter()
        limit = NAMES_AT_ONCE
        unread: dict[str, None] = {}
        has_column = None
        for piece in labelled_pieces(path, hierarchy, reserved, ("split", "mention_id")):
            if has_column is None:
                has_column = any(value is not None for value in piece.further["split"])
                if has_column and listed:
                    raise UserError(
                        f"{path} has a column split, and the recipe names lists of documents; keep one of the two"
                    )
            _add_splits(piece, splits, split_of, has_column)
            _refuse_repeated(piece, ids)
            _refuse_long_ids(piece)
            unknown_types.update(piece.lists.unknown_types)
            unread |= dict.fromkeys(piece.unread)
            scores = scores or tuple(piece.lists.scores)
            counts["mentions"] += len(piece.lists)
            found.update(splits[document][0] for document in piece.lists.annotations.documents)
            counts["candidates"] += len(piece.lists.names)
            counts["not_in_list"] += piece.not_in_list
            tables.append(_named(piece.lists))
            if sum(map(len, tables)) > limit:
                tables = [_distinct(tables)]
                limit = max(NAMES_AT_ONCE, 2 * len(tables[0]))
        require_documents(path, splits)
        by_split = {split: found[split] for split in SPLITS}
        empty = next((split for split, count in by_split.items() if not count), None)
        if empty:
            raise UserError(
                f"{path}: no mention fell into the split {empty!r} (mentions by split: {by_split}); check the column "
                "split or the document lists, give more documents, or take another seed"
            )
        if counts["not_in_list"] == counts["mentions"]:
            raise UserError(f"{path}: no list holds its mention's cui; give candidates and cui ids of one vocabulary")
        named = _distinct(tables)
        return cls(
            path,
            hierarchy,
            reserved,
            {document: split for document, (split, _) in splits.items() if split is not None},
            scores,
            _concepts(named),
            tuple(name for name in FIELDS if named[name].null_count < len(named)),
            {
                "documents": len(splits),
                **counts,
                "mentions_in_no_list": found[None],
                "scores": list(scores),
                "unread_keys": list(unread),
                "unknown_types": sorted(unknown_types),
            },
        )

    def joined(self, dictionary: Iterable[Concept] = ()) -> Iterator[Concept]:
        """The concepts of a dictionary, with added names from the lists, and then those it lacks."""
        rest = dict(self.concepts)
        for concept in dictionary:
            own = rest.pop(concept.cui, None)
            if own is not None:
                known = {concept.name, *concept.synonyms}
                more = tuple(name for name in (own.name, *own.synonyms) if name not in known)
                concept = replace(
                    concept,
                    synonyms=(*concept.synonyms, *more),
                    semantic_types=concept.semantic_types or own.semantic_types,
                    definition=concept.definition or own.definition,
                )
            yield concept
        yield from rest.values()

    def write(
        self, mentions: Path, candidates: Path, fingerprint: str, *, context_chars: int, has_dictionary: bool
    ) -> dict[str, Any]:
        """Write the datasets of mentions and of candidates, all four splits, in the order of the lists.

        Of several candidates of one concept in a list, the first is kept. The gold concept is never added to a list.

        Args:
            mentions, candidates: folders to make.
            fingerprint: of everything they depend on.
            context_chars: characters of text kept on each side of a mention.
            has_dictionary: whether a dictionary decides which gold concepts are known; without one, all are.

        Returns:
            Counts: ``mentions`` and, of these, ``in_list``, by split; ``repeated_candidates``.
        """
        features = {mentions: MENTION_FEATURES, candidates: _candidate_features(self.scores, has_dictionary)}
        counts = {name: dict.fromkeys(SPLITS, 0) for name in ("mentions", "in_list")}
        repeated, seen = 0, Counter[str]()
        with ExitStack() as stack:
            writers = {
                (folder, split): stack.enter_context(
                    DatasetWriter(columns, folder / split, _identity(fingerprint, folder.name, split))
                )
                for folder, columns in features.items()
                for split in SPLITS
            }
            for piece in labelled_pieces(self.path, self.hierarchy, self.reserved):
                given = piece.lists
                lists = given.with_candidates(best_of_each_concept(given))
                repeated += len(given.names) - len(lists.names)
                places = _places_in_documents(lists.annotations.documents, seen)
                splits = np.array([self.splits.get(document, "") for document in lists.annotations.documents])
                for split in SPLITS:
                    inside = splits == split
                    part = lists.take(inside)
                    ids = counts["mentions"][split] + np.arange(len(part))
                    columns = _mention_columns(part, ids, places[inside], context_chars)
                    writers[mentions, split].write(columns)
                    writers[candidates, split].write(_candidate_columns(part, ids, self.scores))
                    counts["mentions"][split] += len(part)
                    counts["in_list"][split] += int((part.annotations.gold >= 0).sum())
        for folder in features:
            write_dataset_dict_index(folder, SPLITS)
        return counts | {"repeated_candidates": repeated}


def _candidate_features(scores: Iterable[str], has_dictionary: bool) -> Features:
    """Columns of candidates, as written by retrieval; scores keep their precision, as in serving."""
    columns: dict[str, Any] = {
        "mention_id": Value("int64"),
        "cuis": List(Value("string")),
        "names": List(Value("string")),
        **{f"{name}_scores": List(Value("float64")) for name in scores},
        "gold": Value("int32"),
    }
    return Features(columns if has_dictionary else columns | {"in_dictionary": Value("bool")})


def _identity(*parts: str) -> str:
    return hashlib.sha256(":".join(parts).encode()).hexdigest()


def _add_splits(
    piece: LabelledLists, splits: dict[str, tuple[str | None, str]], split_of: SplitOf, has_column: bool
) -> None:
    """Record the split of each document, and its first row."""
    documents = piece.lists.annotations.documents
    for row, (document, given) in enumerate(zip(documents, piece.further["split"], strict=True)):
        if not has_column and given is None:
            if document not in splits:
                splits[document] = split_of(document), ""
            continue
        if not has_column or given not in SPLITS:
            found = "is missing, though others have one" if given is None else f"is {given!r}"
            found += "" if has_column else ", and rows before have none"
            raise UserError(f"{piece.place(row)}: split {found}; write one of {', '.join(SPLITS)} in every row")
        split, place = splits.setdefault(document, (given, piece.place(row)))
        if split != given:
            raise UserError(
                f"{piece.place(row)}: document {document} is in the split {given}, and at {place or 'the beginning'} "
                f"in {split}; splits must not share documents"
            )


def _refuse_repeated(piece: LabelledLists, ids: set[tuple[str, str]]) -> None:
    documents = piece.lists.annotations.documents
    for row, (document, given) in enumerate(zip(documents, piece.further["mention_id"], strict=True)):
        # Also where a table of floats has no id.
        if given is None or given != given:
            continue
        key = document, str(given)
        if key in ids:
            raise UserError(
                f"{piece.place(row)}: mention_id {given!r} of document {document} was there before; give each mention "
                "once, and an id of its own or none"
            )
        ids.add(key)


def _refuse_long_ids(piece: LabelledLists) -> None:
    encoded = piece.lists.cuis
    is_long = np.array([len(text.encode()) > CUI_BYTES for text in encoded.texts], bool)
    if is_long.any():
        code = int(is_long.argmax())
        row = int(piece.lists.owner[int((encoded.codes == code).argmax())])
        raise UserError(
            f"{piece.place(row)}: a candidate has the id {encoded.texts[code]!r}, and a run takes ids of at most "
            f"{CUI_BYTES} bytes; give the CUI of its concept"
        )


def _named(lists: AnnotatedLists) -> pa.Table:
    """The distinct rows of what the lists say about concepts."""
    types = lists.candidate_types
    kinds = RepeatedTexts([BETWEEN_TYPES.join(names) for names in types.sets], types.codes)
    columns = (as_arrow(lists.cuis), as_arrow(lists.names), lists.preferred_names, lists.definitions, as_arrow(kinds))
    return _distinct([pa.table(dict(zip(NAMED, columns, strict=True)))])


def _distinct(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).group_by(list(NAMED), use_threads=False).aggregate([])


def _concepts(named: pa.Table) -> dict[str, Concept]:
    names: dict[str, dict[str, None]] = {}
    preferred: dict[str, str] = {}
    definitions: dict[str, str] = {}
    types: dict[str, dict[str, None]] = {}
    for cui, name, main, definition, kinds in zip(*(named[key].to_pylist() for key in NAMED), strict=True):
        own = names.setdefault(cui, {})
        if main and main.strip():
            preferred.setdefault(cui, main)
        if name.strip():
            own.setdefault(name)
        if definition:
            definitions.setdefault(cui, definition)
        types.setdefault(cui, {}).update(dict.fromkeys(filter(None, (kinds or "").split(BETWEEN_TYPES))))
    found = {}
    for cui, own in names.items():
        first = preferred.get(cui) or next(iter(own), cui)
        others = tuple(name for name in own if name != first)
        found[cui] = Concept(cui, first, others, tuple(types[cui]), definitions.get(cui, ""))
    return found


def _places_in_documents(documents: np.ndarray, seen: Counter[str]) -> np.ndarray:
    """(n,) int64, the number of each mention in its document."""
    places = []
    for document in documents:
        places.append(seen[document])
        seen[document] += 1
    return np.array(places, np.int64)


def _mention_columns(lists: AnnotatedLists, ids: np.ndarray, places: np.ndarray, context_chars: int) -> dict[str, Any]:
    annotations = lists.annotations
    # The offset of a mention only distinguishes it from others in its document.
    return {
        "mention_id": ids,
        "doc_id": annotations.documents.tolist(),
        "start": places,
        "end": places + 1,
        "mention": lists.mentions,
        "left": [text[max(0, len(text) - context_chars) :] for text in lists.lefts],
        "right": [text[:context_chars] for text in lists.rights],
        "cui": annotations.cuis.tolist(),
        "semantic_types": list(map(list, lists.types)),
    }


def _candidate_columns(lists: AnnotatedLists, ids: np.ndarray, scores: Iterable[str]) -> dict[str, Any]:
    offsets = pa.array(lists.offsets, pa.int32())
    columns = {"cuis": as_arrow(lists.cuis), "names": as_arrow(lists.names)}
    columns |= {f"{name}_scores": pa.array(lists.scores.get(name, np.empty(0))) for name in scores}
    return {
        "mention_id": ids,
        **{name: pa.ListArray.from_arrays(offsets, values) for name, values in columns.items()},
        "gold": lists.annotations.gold,
        "in_dictionary": lists.annotations.in_dictionary,
    }
