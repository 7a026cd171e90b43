"""Counts of strings, concepts and types in training mentions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..core.arrays import expand_ranges, hash_texts, list_offsets
from ..core.errors import UserError
from ..lists.gold import trainable
from ..vocab.cui import CUI
from ..vocab.normal_form import singular_words
from ..vocab.normalization import normalize_name, normalize_texts
from ..vocab.type_sets import TypeSets
from ..vocab.types import UNKNOWN_TYPE

if TYPE_CHECKING:
    from datasets import Dataset


# The file of the counts in a model folder.
COUNTS_FILE = "string_counts.safetensors"
# The table of the concepts' vocabularies (`_vocabulary`), which files of earlier versions lack.
VOCABULARIES = "vocabularies"
# The names of the tables are those in the file. A use is a mention with a certain string and of a
# certain concept; a typed use is a mention with a certain type and of a certain concept.
TABLES = ("strings", "concepts", "uses", "types", "typed_concepts", "typed_uses", VOCABULARIES)
DIGIT = re.compile("[0-9]")
# A short text with two capital letters, as also "HbSC" and "T-ALL".
ACRONYM = re.compile(r"(?=\S*[A-Z]\S*[A-Z])\S{1,7}")
# In the file, this precedes the names of tables without the mentions of calibration.
TRAINING = "training."
# In the file, these are the hashes of names of concepts.
NAMES = "names"
# Each concept counts as having this many further mentions, whose types are those of all training.
PRIOR_TYPED = 2.0


def counted_mentions(mentions: Dataset) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Text, gold concept and semantic types of the mentions with one gold concept (`trainable`)."""
    cuis = trainable(mentions["cui"][:])
    rows = zip(mentions["mention"][:], cuis, mentions["semantic_types"][:], strict=True)
    yield from (row for row in rows if row[1])


class HashCounts(NamedTuple):
    """How often keys were counted; of the keys themselves only hashes are kept.

    Attributes:
        hashes: (k,) uint64, hashes of the distinct keys, ascending.
        counts: (k,) int64, the count of each.
    """

    hashes: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, count_of_key: Mapping[str, int]) -> HashCounts:
        """Hash the keys of counts."""
        hashes = hash_texts(list(count_of_key))
        counts = np.array(list(count_of_key.values()), dtype=np.int64)
        order = np.argsort(hashes)
        return cls(hashes[order], counts[order])

    @classmethod
    def empty(cls) -> HashCounts:
        """The counts of no key."""
        return cls(np.empty(0, np.uint64), np.empty(0, np.int64))

    def plus(self, other: HashCounts) -> HashCounts:
        """The counts of both together."""
        hashes = np.concatenate([self.hashes, other.hashes])
        counts = np.concatenate([self.counts, other.counts])
        distinct, number = np.unique(hashes, return_inverse=True)
        sums = np.bincount(number, counts, len(distinct))
        return HashCounts(distinct, sums.astype(np.int64))

    def of_keys(self, keys: Sequence[str]) -> np.ndarray:
        """The count of each of n keys, (n,) int64; 0 if it was not counted."""
        return self.of_hashes(hash_texts(keys))

    def of_hashes(self, hashes: np.ndarray) -> np.ndarray:
        """The count of each of n keys by its hash, (n,) int64."""
        if not (len(self.hashes) and len(hashes)):
            return np.zeros(len(hashes), np.int64)
        positions = self.hashes.searchsorted(hashes)
        is_counted = self.hashes.take(positions, mode="clip") == hashes
        return np.where(is_counted, self.counts.take(positions, mode="clip"), 0)


class PairCounts(NamedTuple):
    """Training counts for m pairs of n mentions and k concepts.

    Attributes:
        of_concepts: (k,) number of training mentions of each concept.
        uses: (m,) number of training mentions with the string and of the concept of each pair.
        type_lifts: (m,) float64, how much more often than others training mentions of the concept
            have the mention's semantic types, as a log. With n(t) training mentions of type t and
            p(t) its share of all, ``log((n(c, t) + k p) / ((n(c) + k) p))`` for concept c, k being
            `PRIOR_TYPED`; 0 for a concept or a type not seen in training, and for a mention without
            types.
    """

    of_concepts: np.ndarray
    uses: np.ndarray
    type_lifts: np.ndarray


class StringCounts:
    """Counts of strings, compared by `normalize_name`, concepts and types in the training split.

    Made by `fit`, stored as one safetensors file. Two of a million strings share a hash with
    probability 3e-8. The built-in model also holds hashes of names of concepts that its lists need
    not show (`with_names`).
    """

    def __init__(self, tables: dict[str, HashCounts], names: np.ndarray | None = None) -> None:
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
        return cls(
            {name: HashCounts.of(counts_of_table) for name, counts_of_table in counts.items()}
        )

    def plus(self, other: StringCounts) -> StringCounts:
        """The counts of both together."""
        tables = {name: table.plus(other._tables[name]) for name, table in self._tables.items()}
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
        self,
        forms: Sequence[str],
        cuis: Sequence[str],
        pair_mentions: np.ndarray,
        pair_concepts: np.ndarray,
    ) -> np.ndarray:
        """Whether a text is one of the names of a concept (`with_names`), (m,) bool.

        Arguments are those of `pair_counts`; a text is normalized, or its `singular_words`.
        """
        if not len(self._names):
            return np.zeros(len(pair_mentions), bool)
        hashes = hash_texts(forms)[pair_mentions] ^ hash_texts(cuis)[pair_concepts]
        return self._names.take(self._names.searchsorted(hashes), mode="clip") == hashes

    def __len__(self) -> int:
        """Number of distinct strings."""
        return len(self._tables["strings"].hashes)

    def have_counted_concepts(self, cuis: Sequence[str]) -> np.ndarray:
        """Whether each of k concepts was counted, (k,) bool."""
        return self._tables["concepts"].of_keys(list(map(_key, cuis))) > 0

    def have_counted_vocabularies(self, cuis: Sequence[str]) -> np.ndarray:
        """Whether each of k concepts is of a vocabulary that was counted, (k,) bool.

        If the vocabularies are unknown, as of files of earlier versions, all are.
        """
        table = self._tables[VOCABULARIES]
        if not len(table.hashes):
            return np.ones(len(cuis), bool)
        return table.of_keys(list(map(_vocabulary, cuis))) > 0

    @property
    def share_once(self) -> float:
        """Share of the mentions whose string was counted once.

        In further text, at least so many strings are new: documents repeat theirs.
        """
        counts = self._tables["strings"].counts
        return float((counts == 1).sum() / max(1, counts.sum()))

    def have_counted_words(self, forms: Sequence[str]) -> np.ndarray:
        """Whether n normalized mentions, or any of their words, were counted as strings, (n,)."""
        texts_of_mentions = [[form, *form.split()] for form in forms]
        keys = [_key(text) for texts in texts_of_mentions for text in texts]
        is_counted = self._tables["strings"].of_keys(keys) > 0
        offsets = list_offsets(list(map(len, texts_of_mentions)))
        return np.logical_or.reduceat(is_counted, offsets[:-1])

    def string_counts(self, forms: Sequence[str]) -> np.ndarray:
        """Number of training mentions with each of n normalized strings, (n,) int64."""
        return self._tables["strings"].of_keys(list(map(_key, forms)))

    def pair_counts(
        self,
        forms: Sequence[str],
        types: TypeSets,
        cuis: Sequence[str],
        pair_mentions: np.ndarray,
        pair_concepts: np.ndarray,
    ) -> PairCounts:
        """Counts of concepts, with a string and with semantic types.

        Args:
            forms: n normalized mentions.
            types: semantic types of the mentions.
            cuis: k concepts, "" for none.
            pair_mentions: (m,) mention of each pair.
            pair_concepts: (m,) concept of each pair.
        """
        mention_keys = list(map(_key, forms))
        concept_keys = list(map(_key, cuis))
        concept_hashes = hash_texts(concept_keys)
        string_counts = self.string_counts(forms)
        concept_counts = self._tables["concepts"].of_hashes(concept_hashes)
        # A pair was not counted if its string or its concept was not.
        possible = np.flatnonzero(
            (string_counts > 0)[pair_mentions] & (concept_counts > 0)[pair_concepts]
        )
        uses = np.zeros(len(pair_mentions), np.int64)
        pairs = _joined_keys(
            mention_keys, pair_mentions[possible], concept_keys, pair_concepts[possible]
        )
        uses[possible] = self._tables["uses"].of_keys(pairs)
        typed_counts = self._tables["typed_concepts"].of_hashes(concept_hashes)
        lifts = self._type_lifts(
            types.sets, types.codes[pair_mentions], concept_keys, pair_concepts, typed_counts
        )
        return PairCounts(concept_counts, uses, lifts)

    def _type_lifts(
        self,
        sets: Sequence[tuple[str, ...]],
        codes: np.ndarray,
        concept_keys: Sequence[str],
        pair_concepts: np.ndarray,
        typed_counts: np.ndarray,
    ) -> np.ndarray:
        """Type lift of each pair of a set of types and a concept, (m,) float64 (`PairCounts`).

        Args:
            sets: the distinct sets of types.
            codes: (m,) number of each pair's set; -1 for none.
            concept_keys: keys of k concepts.
            pair_concepts: (m,) concept of each pair.
            typed_counts: (k,) number of training mentions of each concept that have a type.
        """
        lifts = np.zeros(len(codes))
        possible = np.flatnonzero((typed_counts > 0)[pair_concepts] & (codes >= 0))
        if not len(possible):
            return lifts
        starts = list_offsets(list(map(len, sets)))
        type_keys = [_key(name) for names in sets for name in names]
        sets_of_pairs = codes[possible]
        concepts_of_pairs = pair_concepts[possible]
        # A row for each type of each pair.
        owner, kinds = expand_ranges(starts[sets_of_pairs], starts[sets_of_pairs + 1])
        pairs = _joined_keys(type_keys, kinds, concept_keys, concepts_of_pairs[owner])
        uses_of_types = self._tables["typed_uses"].of_keys(pairs)
        uses = np.bincount(owner, uses_of_types, len(possible))
        type_counts = self._tables["types"].of_keys(type_keys)[kinds]
        total = max(1, self._tables["types"].counts.sum())
        share = np.bincount(owner, type_counts, len(possible)) / total
        expected = (typed_counts[concepts_of_pairs] + PRIOR_TYPED) * share
        is_expected = expected > 0
        smoothed_uses = uses + PRIOR_TYPED * share
        ratios = smoothed_uses[is_expected] / expected[is_expected]
        lifts[possible[is_expected]] = np.log(ratios)
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
            for name, table in counts._tables.items():
                arrays[f"{prefix}{name}.hash"] = table.hashes
                arrays[f"{prefix}{name}.count"] = table.counts
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
            arrays = load_file(path)
            prefix = TRAINING if is_training else ""
            tables = {}
            for name in TABLES:
                key = f"{prefix}{name}"
                if name == VOCABULARIES and f"{key}.hash" not in arrays:
                    tables[name] = HashCounts.empty()
                else:
                    tables[name] = HashCounts(arrays[f"{key}.hash"], arrays[f"{key}.count"])
            return cls(tables, arrays.get(NAMES))
        except (OSError, SafetensorError, KeyError) as error:
            raise UserError(
                f"{path} is missing or damaged ({error}); run umls-reranker calibrate again"
            ) from None


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
