"""The values of candidates by key, checked before lists are made of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ..core.arrays import list_offsets, lists_with_any
from .candidates import refuse_name
from .columns import (
    NUMBER,
    SUFFIX,
    SYNONYM_SCORE,
    TEXT,
    TYPES,
    ColumnChecker,
    encoded_texts,
)
from .foreign_candidates import fields_of


class CandidateColumns:
    """The m candidates of n mentions, a column for each key, checked when it is asked for.

    Its methods raise `InvalidRow`, which names the row and the candidate of a value that will not
    do.

    Args:
        candidates: n lists of structs, as `candidates.candidate_structs` makes them.

    Attributes:
        offsets: (n + 1,) int64, where each mention's candidates start.
    """

    def __init__(self, candidates: pa.ListArray) -> None:
        self.offsets = list_offsets(candidates.value_lengths().to_numpy())
        self._structs = candidates.flatten()
        self._fields = fields_of(self._structs)
        self._checker = ColumnChecker(len(candidates), self.offsets)

    def texts(self, key: str) -> pa.StringArray:
        """The texts under a key, null where they are missing."""
        return self._checker.column(key, self._fields.get(key), TEXT)

    def types(self) -> pa.ListArray:
        """The semantic types of each candidate, null where it has none."""
        return self._checker.column("semantic_types", self._fields.get("semantic_types"), TYPES)

    def numbers(self, key: str) -> np.ndarray:
        """The numbers under a key, (m,) float64, NaN where they are missing."""
        numbers = self._checker.column(key, self._fields.get(key), NUMBER)
        return numbers.to_numpy(zero_copy_only=False)

    def require_names(self, texts: pa.StringArray) -> None:
        """Refuse a candidate whose name is missing or blank.

        Args:
            texts: the names.
        """
        names = encoded_texts(texts)
        blank_codes = [code for code, text in enumerate(names.texts) if not (text and text.strip())]
        if blank_codes:
            position = int(np.isin(names.codes, blank_codes).argmax())
            refuse_name(self._checker, position, self._structs[position].as_py())

    def lists_with_scores(self) -> dict[str, np.ndarray]:
        """Key of each score -> whether any candidate of each mention has it, (n,) bool."""
        return {
            key: lists_with_any(values.is_valid().to_numpy(zero_copy_only=False), self.offsets)
            for key, values in self._fields.items()
            if key.endswith(SUFFIX)
        }


def are_scored(lists_with_scores: dict[str, np.ndarray], mentions: int) -> np.ndarray:
    """Whether any candidate of each mention has a score of a retriever, (n,) bool.

    Args:
        lists_with_scores: as of `CandidateColumns.lists_with_scores`.
        mentions: the number n of mentions.
    """
    any_score = np.zeros(mentions, bool)
    for key, has_score in lists_with_scores.items():
        if key != SYNONYM_SCORE:
            any_score |= has_score
    return any_score
