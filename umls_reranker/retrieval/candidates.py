"""Candidate lists: what serving would see for each mention, the gold concept never injected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features, List, Value

from ..data.arrow import write_dataset
from ..progress import progress
from .index import Candidates, expand_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import Dataset

    from ..data.concepts import ConceptTable
    from .encoder import BiEncoder
    from .index import NameIndex

__all__ = ["CANDIDATE_FEATURES", "gold_positions", "nearest_names", "search_texts", "write_candidates"]

CANDIDATE_FEATURES = Features(
    {
        "mention_id": Value("int64"),
        "cuis": List(Value("string")),
        "names": List(Value("string")),
        "retrieval_scores": List(Value("float32")),
        "gold": Value("int32"),
    }
)
# Queries encoded and searched together. It decides who is padded with whom, and so the last bits of the scores:
# a constant keeps results the same for every setting.
QUERIES = 8_192
PAIRS = 512
MENTIONS_PER_BATCH = 4_096


def search_texts(
    texts: pa.ChunkedArray, index: NameIndex, encoder: BiEncoder, k: int
) -> tuple[np.ndarray, Candidates]:
    """Search each distinct string once.

    Args:
        texts: n strings.
        k: concepts per string.

    Returns:
        (n,) int64, the number of each text's distinct string, and the candidates of the distinct strings.
    """
    encoded = pc.dictionary_encode(texts.combine_chunks())
    distinct = encoded.dictionary
    found = Candidates(
        np.empty((len(distinct), k), np.int64),
        np.empty((len(distinct), k), np.int64),
        np.empty((len(distinct), k), np.float32),
    )
    with progress(total=len(distinct), desc="searching mentions", unit=" strings") as bar:
        for start in range(0, len(distinct), QUERIES):
            queries = distinct[start : start + QUERIES].to_pylist()
            part, rows = index.search(encoder.encode(queries), k), slice(start, start + len(queries))
            found.rows[rows], found.name_ids[rows], found.scores[rows] = part.rows, part.name_ids, part.scores
            bar.update(len(queries))
    return encoded.indices.to_numpy().astype(np.int64), found


def gold_positions(gold_rows: np.ndarray, rows: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Where each mention's gold concept stands among its candidates.

    Args:
        gold_rows: (n,) concept rows, -1 where the gold concept is not in the dictionary.
        rows: (m, k) candidates of the distinct strings.
        inverse: (n,) the number of each mention's string.

    Returns:
        (n,) int32 positions, -1 where it is not among them.
    """
    positions = np.full(len(inverse), -1, np.int32)
    for start in range(0, len(inverse), MENTIONS_PER_BATCH):
        part = slice(start, start + MENTIONS_PER_BATCH)
        match = (rows[inverse[part]] == gold_rows[part, None]) & (gold_rows[part, None] >= 0)
        positions[part] = np.where(match.any(axis=1), match.argmax(axis=1), -1)
    return positions


def nearest_names(texts: pa.ChunkedArray, rows: np.ndarray, index: NameIndex, encoder: BiEncoder) -> np.ndarray:
    """The name of a given concept that is nearest to a text.

    Args:
        texts: n strings.
        rows: (n,) concept rows.

    Returns:
        (n,) int64 name ids; the first of equally near ones.
    """
    # Each pair of string and concept once, those of one concept side by side.
    strings = pc.dictionary_encode(texts.combine_chunks()).indices.to_numpy()
    _, first, inverse = np.unique(rows * (len(texts) + 1) + strings, return_index=True, return_inverse=True)
    nearest = np.empty(len(first), np.int64)
    for start in range(0, len(first), PAIRS):
        asked = first[start : start + PAIRS]
        queries = encoder.encode(texts.take(pa.array(asked)).to_pylist())
        owners, name_ids = expand_ranges(index.offsets[rows[asked]], index.offsets[rows[asked] + 1])
        distinct, name = np.unique(name_ids, return_inverse=True)
        cosines = np.einsum("nd,nd->n", encoder.encode(index.names(distinct))[name], queries[owners])
        order = np.lexsort((name_ids, -cosines, owners))
        nearest[start : start + len(asked)] = name_ids[order[np.searchsorted(owners, np.arange(len(asked)))]]
    return nearest[inverse]


def write_candidates(
    mentions: Dataset,
    index: NameIndex,
    concepts: ConceptTable,
    encoder: BiEncoder,
    k: int,
    path: Path,
    fingerprint: str,
) -> dict[str, int]:
    """Write the k nearest concepts of every mention, in the order of the mentions.

    Args:
        mentions: a split with the columns ``mention_id``, ``mention`` and ``cui``.
        index, concepts, encoder: index and what it was built from.
        k: candidates per mention; fewer only where the dictionary has fewer concepts.
        path: dataset folder to make.
        fingerprint: of everything the lists depend on.

    Returns:
        Counts: ``mentions``; ``in_dictionary``, their gold concept has names; ``retrieved``, it is in their list.

    Raises:
        UserError: the index was built with another encoder or other concepts.
    """
    index.require(concepts, encoder)
    table = mentions.select_columns(["mention_id", "mention", "cui"]).with_format("arrow")[:]
    inverse, found = search_texts(table["mention"], index, encoder, k)
    gold_rows = concepts.rows(table["cui"].to_pylist())
    gold = gold_positions(gold_rows, found.rows, inverse)
    mention_ids = table["mention_id"].to_numpy()

    def batches() -> Iterator[dict[str, pa.Array]]:
        for start in range(0, len(inverse), MENTIONS_PER_BATCH):
            part = slice(start, start + MENTIONS_PER_BATCH)
            own = found.take(inverse[part])
            kept = own.rows >= 0
            offsets = pa.array(np.concatenate([[0], np.cumsum(kept.sum(axis=1))]), pa.int32())
            columns = {
                "cuis": pa.array(concepts.cuis[own.rows[kept]], pa.string()),
                "names": index.name_array(own.name_ids[kept]).combine_chunks(),
                "retrieval_scores": pa.array(own.scores[kept]),
            }
            lists = {key: pa.ListArray.from_arrays(offsets, values) for key, values in columns.items()}
            yield {"mention_id": pa.array(mention_ids[part]), **lists, "gold": pa.array(gold[part])}

    write_dataset(batches(), CANDIDATE_FEATURES, path, fingerprint)
    return {
        "mentions": len(inverse),
        "in_dictionary": int((gold_rows >= 0).sum()),
        "retrieved": int((gold >= 0).sum()),
    }
