"""The mentions that are trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..vocab.concept_table import ConceptTable


def drawn_rows(
    cuis: Sequence[str], concepts: ConceptTable, most: int | None, seed: int
) -> np.ndarray:
    """Mentions to train on: those with a gold concept in the dictionary.

    Args:
        cuis: gold concept of each mention.
        concepts: the dictionary.
        most: the maximum, drawn at random; None: all.
        seed: seed of the draw.

    Returns:
        (n,) int64, numbers of mentions, ascending.
    """
    in_dictionary = np.flatnonzero(concepts.rows(cuis) >= 0)
    shuffled = np.random.default_rng(seed).permutation(in_dictionary)
    return np.sort(shuffled[:most])
