"""Counts of strings, concepts and types in training mentions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..core.arrays import expand_ranges, hash_texts, list_offsets
from ..core.errors import UserError
from ..lists.gold import trainable
from ..vocab.cui import CUI
from ..vocab.normal_form import singular_words
from ..vocab.normalization import normalize_name, normalize_texts
from ..vocab.types import UNKNOWN_TYPE, TypeSets

if TYPE_CHECKING:
    from datasets import Dataset


# The file of the counts in a model folder.
COUNTS_FILE = "string_counts.safetensors"
# The table of the concepts' vocabularies (`_vocabulary`), which files of earlier versions lack.
VOCABULARIES = "vocabularies"
TABLES = ("strings", "concepts", "uses", "types", "typed_concepts", "typed_uses", VOCABULARIES)
DIGIT = re.compile("[0-9]")
# A short text with two capital letters, as also "HbSC" and "T-ALL".
ACRONYM = re.compile(r"(?=\S*[A-Z]\S*[A-Z])\S{1,7}")
# Before the names of tables that leave the mentions of calibration out.
TRAINING = "training."
# Hashes of names of concepts, in the file.
NAMES = "names"
# Prior mentions of a concept, distributed over types as in all of training.
PRIOR_TYPED = 2.0


def counted_mentions(mentions: Dataset) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Text, gold concept and semantic types of the mentions with one gold concept (`trainable`)."""
    cuis = trainable(mentions["cui"][:])
    rows = zip(mentions["mention"][:], cuis, mentions["semantic_types"][:], strict=True)
    yield from (row for row in rows if row[1])


class PairCounts(NamedTuple):
    """Training counts for m pairs of n mentions and k concepts.

    Attributes:
        concepts: (k,) number of training mentions of each concept.
        uses: (m,) number of training mentions with the string and of the concept of each pair.
        type_lifts: (m,) float64, how much more often than others training mentions of the concept
            have the mention's semantic types, as a log. With n(t) training mentions of type t and
            p(t) its share of all, ``log((n(c, t) + k p) / ((n(c) + k) p))`` for concept c, k being
            `PRIOR_TYPED`; 0 for a concept or a type not seen in training, and for a mention without
            types.
    """

    concepts: np.ndarray
    uses: np.ndarray
    type_lifts: np.ndarray


class StringCounts:
    """Counts of strings, compared by `normalize_name`, concepts and types in the training split.

    Made by `fit`, stored as one safetensors file. Two of a million strings share a hash with
    probability 3e-8. The built-in model also knows names of concepts that its lists need not show,
    as hashes too (`with_names`).
    """

    def __init__(
        self, tables: dict[str, tuple[np.ndarray, np.ndarray]], names: np.ndarray | None = None
    ) -> None:
        self._tables = tables
        self._names = np.empty(0, np.uint64) if names is None else names

    @classmethod
    def fit(cls, mentions: Iterable[tuple[str, str, Sequence[str]]]) -> StringCounts:
        """Count texts, gold CUIs and semantic types; `UNKNOWN_TYPE` counts as no type."""
        counts: dict[str, Counter[str]] = {name: Counter() for name in TABLES}
        distinct = Counter(
            (normalize_name(text), cui, tuple(types)) for text, cui, types in mentions
        )
        for (text, cui, types), times in distinct.items():
            string = _key(text)
            concept = _key(cui)
            counts["strings"][string] += times
            counts["concepts"][concept] += times
            counts["uses"][string + concept] += times
            for kind in map(_key, set(types) - {UNKNOWN_TYPE}):
                counts["types"][kind] += times
                counts["typed_concepts"][concept] += times
                counts["typed_uses"][kind + concept] += times
            counts[VOCABULARIES][_vocabulary(cui)] += times
        tables = {}
        for name, count_of_key in counts.items():
            hashes = hash_texts(list(count_of_key))
            order = np.argsort(hashes)
            numbers = np.array(list(count_of_key.values()), dtype=np.int64)
            tables[name] = hashes[order], numbers[order]
        return cls(tables)

    def plus(self, other: StringCounts) -> StringCounts:
        """The counts of both together."""
        tables = {}
        for name, (hashes, counts) in self._tables.items():
            more_hashes, more_counts = other._tables[name]
            distinct, number = np.unique(np.concatenate([hashes, more_hashes]), return_inverse=True)
            sums = np.bincount(number, np.concatenate([counts, more_counts]), len(distinct))
            tables[name] = distinct, sums.astype(np.int64)
        return StringCounts(tables, np.union1d(self._names, other._names))

    def with_names(self, cuis: Sequence[str], names: Sequence[str]) -> StringCounts:
        """The counts with names of concepts, (n,) each, that lists need not show; no acronyms."""
        named = [
            (cui, name)
            for cui, name in zip(cuis, names, strict=True)
            if not ACRONYM.fullmatch(name)
        ]
        forms = normalize_texts([name for _, name in named])
        concepts = hash_texts([cui for cui, _ in named])
        hashes = [hash_texts(texts) ^ concepts for texts in (forms, singular_words(forms))]
        return StringCounts(self._tables, np.unique(np.concatenate([self._names, *hashes])))

    def are_names(
        self, forms: Sequence[str], cuis: Sequence[str], rows: np.ndarray, concepts: np.ndarray
    ) -> np.ndarray:
        """Whether a text is known as a name of a concept, (m,) bool.

        Arguments are those of `pair_counts`; a text is normalized, or its `singular_words`.
        """
        if not len(self._names):
            return np.zeros(len(rows), bool)
        wanted = hash_texts(forms)[rows] ^ hash_texts(cuis)[concepts]
        return self._names.take(self._names.searchsorted(wanted), mode="clip") == wanted

    def __len__(self) -> int:
        """Number of distinct strings."""
        return len(self._tables["strings"][0])

    def known(self, cuis: Sequence[str]) -> np.ndarray:
        """Whether each of k concepts was counted, (k,) bool."""
        return self._counts("concepts", hash_texts(list(map(_key, cuis)))) > 0

    def of_counted_vocabulary(self, cuis: Sequence[str]) -> np.ndarray:
        """Whether each of k concepts is of a vocabulary that was counted, (k,) bool.

        If the vocabularies are unknown, as of files of earlier versions, all are.
        """
        if not len(self._tables[VOCABULARIES][0]):
            return np.ones(len(cuis), bool)
        return self._counts(VOCABULARIES, hash_texts(list(map(_vocabulary, cuis)))) > 0

    @property
    def share_once(self) -> float:
        """Share of the mentions whose string was counted once.

        In further text, at least so many strings are new: documents repeat theirs.
        """
        numbers = self._tables["strings"][1]
        return float((numbers == 1).sum() / max(1, numbers.sum()))

    def have_seen(self, forms: Sequence[str]) -> np.ndarray:
        """Whether n normalized mentions, or any of their words, were counted as strings, (n,)."""
        texts = [[form, *form.split()] for form in forms]
        keys = [_key(text) for of_mention in texts for text in of_mention]
        is_known = self._counts("strings", hash_texts(keys)) > 0
        return np.logical_or.reduceat(is_known, list_offsets(list(map(len, texts)))[:-1])

    def string_counts(self, forms: Sequence[str]) -> np.ndarray:
        """Number of training mentions with each of n normalized strings, (n,) int64."""
        return self._counts("strings", hash_texts(list(map(_key, forms))))

    def pair_counts(
        self,
        forms: Sequence[str],
        types: TypeSets,
        cuis: Sequence[str],
        rows: np.ndarray,
        concepts: np.ndarray,
    ) -> PairCounts:
        """Counts of concepts, with a string and with semantic types.

        Args:
            forms: n normalized mentions.
            types: semantic types of the mentions.
            cuis: k concepts, "" for none.
            rows: (m,) mention of each pair.
            concepts: (m,) concept of each pair.
        """
        mention_keys = list(map(_key, forms))
        concept_keys = list(map(_key, cuis))
        concept_hashes = hash_texts(concept_keys)
        string_counts = self.string_counts(forms)
        concept_counts = self._counts("concepts", concept_hashes)
        # A pair whose members were not seen was not seen either.
        seen = np.flatnonzero((string_counts > 0)[rows] & (concept_counts > 0)[concepts])
        uses = np.zeros(len(rows), np.int64)
        pairs = _joined_keys(mention_keys, rows[seen], concept_keys, concepts[seen])
        uses[seen] = self._counts("uses", hash_texts(pairs))
        typed = self._counts("typed_concepts", concept_hashes)
        lifts = self._type_lifts(types.sets, types.codes[rows], concept_keys, concepts, typed)
        return PairCounts(concept_counts, uses, lifts)

    def _type_lifts(
        self,
        sets: Sequence[tuple[str, ...]],
        codes: np.ndarray,
        concept_keys: Sequence[str],
        concepts: np.ndarray,
        typed: np.ndarray,
    ) -> np.ndarray:
        """Type lift of each pair of a set of types, -1 for none, and a concept, (m,) float64.

        `typed` are the training mentions with a type of each of k concepts, (k,).
        """
        lifts = np.zeros(len(codes))
        seen = np.flatnonzero((typed > 0)[concepts] & (codes >= 0))
        if not len(seen):
            return lifts
        starts = list_offsets(list(map(len, sets)))
        type_keys = [_key(name) for names in sets for name in names]
        # Each type of each pair.
        owner, kinds = expand_ranges(starts[codes[seen]], starts[codes[seen] + 1])
        pairs = _joined_keys(type_keys, kinds, concept_keys, concepts[seen][owner])
        uses = np.bincount(owner, self._counts("typed_uses", hash_texts(pairs)), len(seen))
        type_counts = self._counts("types", hash_texts(type_keys))[kinds]
        total = max(1, self._tables["types"][1].sum())
        share = np.bincount(owner, type_counts, len(seen)) / total
        expected = (typed[concepts[seen]] + PRIOR_TYPED) * share
        known = expected > 0
        lifts[seen[known]] = np.log((uses + PRIOR_TYPED * share)[known] / expected[known])
        return lifts

    def save(self, path: Path, training_counts: StringCounts | None = None) -> None:
        """Write a safetensors file.

        Args:
            path: the file.
            training_counts: counts without the mentions of calibration, to calibrate again; None
                stores none.
        """
        from safetensors.numpy import save_file

        arrays: dict[str, np.ndarray] = {}
        stored = {"": self}
        if training_counts is not None:
            stored[TRAINING] = training_counts
        for prefix, counts in stored.items():
            for name, (hashes, numbers) in counts._tables.items():
                arrays |= {f"{prefix}{name}.hash": hashes, f"{prefix}{name}.count": numbers}
        if len(self._names):
            arrays[NAMES] = self._names
        save_file(arrays, path, metadata={"schema_version": "1"})

    @classmethod
    def load(cls, path: Path, *, is_training: bool = False) -> StringCounts:
        """Inverse of `save`.

        Args:
            path: the file.
            is_training: load the counts without the mentions of calibration.

        Raises:
            UserError: the file is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            prefix = TRAINING if is_training else ""
            arrays = {
                f"{prefix}{VOCABULARIES}.hash": np.empty(0, np.uint64),
                f"{prefix}{VOCABULARIES}.count": np.empty(0, np.int64),
            } | load_file(path)
            tables = {
                name: (arrays[f"{prefix}{name}.hash"], arrays[f"{prefix}{name}.count"])
                for name in TABLES
            }
            return cls(tables, arrays.get(NAMES))
        except (OSError, SafetensorError, KeyError) as error:
            raise UserError(
                f"{path} is missing or damaged ({error}); run umls-reranker calibrate again"
            ) from None

    def _counts(self, table: str, wanted: np.ndarray) -> np.ndarray:
        """Counts of n keys with these hashes, (n,) int64."""
        hashes, counts = self._tables[table]
        if not (len(hashes) and len(wanted)):
            return np.zeros(len(wanted), np.int64)
        positions = hashes.searchsorted(wanted)
        is_known = hashes.take(positions, mode="clip") == wanted
        return np.where(is_known, counts.take(positions, mode="clip"), 0)


def _vocabulary(cui: str) -> str:
    """What tells ids of one vocabulary from those of others: a CUI, or what is before its number.

    >>> [_vocabulary(cui) for cui in ("C0011849", "HP:0000083", "D003920", "kidney")]
    ['CUI', 'HP:', 'D', '']
    """
    if CUI.fullmatch(cui):
        return "CUI"
    digit = DIGIT.search(cui)
    return cui[: digit.start()] if digit else ""


def _key(text: str) -> str:
    """Key to hash; a length before each text keeps ("a", "bc") apart from ("ab", "c")."""
    return f"{len(text)}:{text}"


def _joined_keys(
    keys: Sequence[str], rows: np.ndarray, other_keys: Sequence[str], other_rows: np.ndarray
) -> list[str]:
    """Keys of pairs, from the keys of their two members."""
    pairs = zip(rows.tolist(), other_rows.tolist(), strict=True)
    return [keys[row] + other_keys[other] for row, other in pairs]
