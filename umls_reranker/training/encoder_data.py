"""Batches that the bi-encoder is trained on: queries, each with a name of its concept.

Three kinds of queries share a batch: mentions in context, mentions alone, and names of concepts,
which separate the concepts that have no mentions.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset, Sampler

from ..core.errors import UserError
from ..models.batches import PackedTexts
from ..models.query_tokenizer import QueryTokenizer
from ..vocab.concept_table import ConceptTable

# Kinds of queries.
CONTEXT = 0
MENTION = 1
SYNONYM = 2
# The order in which they alternate: three of five are mentions in context.
TURNS = np.array([CONTEXT, MENTION, CONTEXT, SYNONYM, CONTEXT])
# Columns of the mentions that are read.
TEXTS = ("mention", "left", "right")
# Texts of similar length that are padded together: names are much shorter than mentions in context.
GROUP_SIZE = 48


class QueryNamePairs(Dataset):
    """Queries and a name of their concept, which depend only on the arguments.

    Args:
        mentions: the training split's columns ``mention``, ``left``, ``right``.
        gold: (n,) concept rows of the mentions, -1 if the dictionary lacks the concept.
        concepts: the dictionary.
        size: number of pairs; mentions are repeated, in a new order each epoch.
        seed: seed of all draws.

    Raises:
        UserError: no mention has its concept in the dictionary.
    """

    def __init__(
        self, mentions: pa.Table, gold: np.ndarray, concepts: ConceptTable, size: int, seed: int
    ) -> None:
        in_dictionary = np.flatnonzero(gold >= 0)
        if not len(in_dictionary):
            raise UserError(
                "no training mention has its concept in the dictionary; "
                "there is nothing to train the encoder on"
            )
        with_synonyms = np.flatnonzero(concepts.name_counts > 1)
        turns = TURNS if len(with_synonyms) else TURNS[TURNS != SYNONYM]
        self._concepts = concepts
        self._texts = mentions
        # All columns below have a row for each pair, (size,).
        self._kinds = turns[np.arange(size) % len(turns)]
        # The mention, -1 where the query is a name.
        self._mentions = np.full(size, -1)
        for kind in (CONTEXT, MENTION):
            pairs = np.flatnonzero(self._kinds == kind)
            order = _epochs(len(pairs), len(in_dictionary), [seed, kind])
            self._mentions[pairs] = in_dictionary[order]
        # The row of the concept in the dictionary.
        self._rows = np.where(self._mentions >= 0, gold[self._mentions], -1)
        rng = np.random.default_rng([seed, SYNONYM])
        pairs = np.flatnonzero(self._kinds == SYNONYM)
        self._rows[pairs] = rng.choice(with_synonyms, len(pairs))
        # The name, by its number among those of the concept.
        counts = concepts.name_counts[self._rows]
        self._names = rng.integers(counts)
        # Where the query is a name, too, it is so many names further, cyclically: another one.
        self._steps = 1 + rng.integers(np.maximum(counts - 1, 1))

    def __len__(self) -> int:
        return len(self._kinds)

    def __getitem__(self, number: int) -> dict[str, Any]:
        row = int(self._rows[number])
        names = self._concepts.names(row)
        name = int(self._names[number])
        mention = int(self._mentions[number])
        if mention >= 0:
            texts = {column: self._texts[column][mention].as_py() for column in TEXTS}
        else:
            texts = {"mention": names[(name + int(self._steps[number])) % len(names)]}
        if self._kinds[number] != CONTEXT:
            texts |= {"left": None, "right": None}
        return {"query": texts.pop("mention"), **texts, "name": names[name], "row": row}


def _epochs(size: int, count: int, seed: Sequence[int]) -> np.ndarray:
    """(size,) numbers below `count`, each once per epoch, in a new order each epoch."""
    epochs = math.ceil(size / count)
    orders = [np.random.default_rng([*seed, epoch]).permutation(count) for epoch in range(epochs)]
    # The empty array is there for a size of 0.
    return np.concatenate([np.empty(0, np.int64), *orders])[:size].astype(np.int64)


@dataclass
class QueryCollator:
    """Token ids of a batch of b pairs: b queries, then their b names.

    Returns ``groups``, each with ``input_ids`` and ``attention_mask`` (n, w) int64; ``position`` (2
    b,) int64, where each text is in the groups one after the other; and ``row`` (b,) int64, the
    concept rows.
    """

    tokenizer: QueryTokenizer

    def __call__(self, pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
        in_context = [number for number, pair in enumerate(pairs) if pair["left"] is not None]
        alone = [number for number, pair in enumerate(pairs) if pair["left"] is None]
        tokens_in_context = self.tokenizer.in_context(
            [pairs[number]["query"] for number in in_context],
            [pairs[number]["left"] for number in in_context],
            [pairs[number]["right"] for number in in_context],
        )
        tokens_alone = self.tokenizer.plain([pairs[number]["query"] for number in alone])
        tokens_of = dict(zip(in_context, tokens_in_context, strict=True))
        tokens_of |= dict(zip(alone, tokens_alone, strict=True))
        texts = [tokens_of[number] for number in range(len(pairs))]
        texts += self.tokenizer.plain([pair["name"] for pair in pairs])
        # The longest first, so that a group is padded little.
        order = np.argsort([-len(text) for text in texts], kind="stable")
        groups = []
        for start in range(0, len(texts), GROUP_SIZE):
            numbers = order[start : start + GROUP_SIZE]
            group = PackedTexts.join([texts[number] for number in numbers])
            arrays = group.padded(self.tokenizer.pad_token_id)
            groups.append({name: torch.from_numpy(array) for name, array in arrays.items()})
        rows = torch.tensor([pair["row"] for pair in pairs])
        # The inverse of the order: where each text is in the groups.
        position = torch.from_numpy(np.argsort(order))
        return {"groups": groups, "position": position, "row": rows}


class SharesOfBatches(Sampler[list[int]]):
    """The share of each batch that a process computes, as pair numbers.

    Args:
        pairs: number of pairs; batches are consecutive ones, the last one may be smaller.
        batch_size: pairs of a batch, over all processes.
        process: number of this process.
        processes: number of processes, at most the pairs of a batch.
    """

    def __init__(self, pairs: int, batch_size: int, process: int, processes: int) -> None:
        starts = range(0, pairs, batch_size)
        batches = [np.arange(start, min(start + batch_size, pairs)) for start in starts]
        self._shares = [np.array_split(batch, processes)[process].tolist() for batch in batches]

    def __len__(self) -> int:
        return len(self._shares)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._shares)
