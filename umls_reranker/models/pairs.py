"""Pairs of a mention and a candidate as token ids, in the form of a `pair_template.PairTemplate`.

If a pair is too long, first the context is truncated, then mention and name by the longest-first
rule of the tokenizers library.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..core.arrays import expand_ranges, list_offsets, number_distinct
from ..core.errors import UserError
from .batches import ID_BYTES, PairBatch
from .pair_template import MARKERS, PairTemplate
from .special_ids import find_special_ids, find_unknown_id

if TYPE_CHECKING:
    from tokenizers import Tokenizer


# Characters read of a text per token that can be kept of it: far more than a token has.
CHARS_PER_TOKEN = 32
# A pair is ten spans of ids: special tokens, left context, marker, mention, marker, right context,
# special tokens of the first and of the second segment, name, special tokens. Column of the left
# context, columns of all four texts (left, mention, right, name), and spans of the first segment:
LEFT = 1
TEXT_SPANS = [LEFT, 3, 5, 8]
FIRST_SEGMENT = 7


class PairEncoder:
    """Turns mentions and names into ids with a fast tokenizer and a template; thread-safe.

    Args:
        tokenizer: the model's tokenizer of the tokenizers library; it no longer truncates or pads.
        template: shape of the input.

    Raises:
        UserError: the tokenizer lacks the markers of a template with context, or joins pairs in an
            unsupported way.
    """

    def __init__(self, tokenizer: Tokenizer, template: PairTemplate) -> None:
        self.tokenizer = tokenizer
        self.template = template
        # Without truncation and padding, calls change no state, so threads can share the tokenizer.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # Without context there are no markers, so their spans are empty.
        markers: list[list[int]] = [[], []]
        if template.context_tokens:
            markers = [[_marker_id(tokenizer, name)] for name in MARKERS]
        special = find_special_ids(tokenizer)
        # In the order of a pair.
        fixed_spans = [special.start, *markers, special.first_end, special.second_start]
        fixed_spans.append(special.end)
        self._fixed_spans = [_as_bytes(ids) for ids in fixed_spans]
        # Tokens of a pair that are left for its texts.
        self._budget = template.max_length - sum(map(len, fixed_spans))
        # Do not tokenize many more characters than are needed for the retained ids.
        self._chars = template.max_length * CHARS_PER_TOKEN
        self._unknown_id = find_unknown_id(tokenizer)

    def encode(
        self,
        mentions: Sequence[str],
        names: Sequence[str],
        lefts: Sequence[str] | None = None,
        rights: Sequence[str] | None = None,
    ) -> tuple[PairBatch, np.ndarray]:
        """Encode pairs; equal texts are tokenized once.

        Args:
            mentions: n texts.
            names: n texts.
            lefts: n texts before the mentions; ignored if the template has no context.
            rights: n texts after the mentions.

        Returns:
            The pairs, and (n,) bool, whether mention or name lost tokens.
        """
        ids, (left, mention, right, name) = self._tokenize_pairs(mentions, names, lefts, rights)
        # The fixed spans come after the texts, and each pair has the same: (n,) like the texts.
        fixed = np.arange(len(ids), len(ids) + len(self._fixed_spans))
        ids += self._fixed_spans
        head, start, end, ending, opening, tail = np.broadcast_to(
            fixed[:, None], (len(fixed), len(mentions))
        )
        # (n, 10): for each pair, the numbers in `ids` of its spans, in order.
        spans = np.stack(
            [head, left, start, mention, end, right, ending, opening, name, tail], axis=1
        )
        sizes = _token_counts(ids)
        counts = sizes[spans]
        counts[:, TEXT_SPANS] = self._retained(*counts[:, TEXT_SPANS].T)
        # Where each span starts in all ids, one text after the other.
        starts = list_offsets(sizes)[spans]
        # Of the text before a mention, the last tokens are kept.
        starts[:, LEFT] += sizes[left] - counts[:, LEFT]
        _, positions = expand_ranges(starts.ravel(), (starts + counts).ravel())
        tokens = np.frombuffer(b"".join(ids), np.int32)[positions]
        pairs = PairBatch(tokens, counts.sum(axis=1), counts[:, :FIRST_SEGMENT].sum(axis=1))
        is_truncated = sizes[mention] + sizes[name] > self._budget
        return pairs, is_truncated

    def _tokenize_pairs(
        self,
        mentions: Sequence[str],
        names: Sequence[str],
        lefts: Sequence[str] | None,
        rights: Sequence[str] | None,
    ) -> tuple[list[bytes], np.ndarray]:
        """Tokenize each distinct text of n pairs once.

        Returns:
            The ids of the texts, and the numbers among them of each pair's left context, mention,
            right context and name, (4, n) int64.
        """
        n = len(mentions)
        texts, numbers = number_distinct([*mentions, *names])
        mention, name = numbers.reshape(2, n)
        ids = self._tokenize(texts)
        if not self.template.context_tokens:
            # Any text will do as context, because none of its tokens is kept.
            no_context = np.zeros(n, np.int64)
            return ids, np.stack([no_context, mention, no_context, name])
        # Contexts rarely recur. Of a very long text before a mention the end is read.
        ends_of_lefts = [text[-self._chars :] for text in lefts or [""] * n]
        contexts, numbers = number_distinct([*ends_of_lefts, *(rights or [""] * n)])
        context_numbers = len(ids) + numbers
        left, right = context_numbers.reshape(2, n)
        ids += self._tokenize(contexts)
        return ids, np.stack([left, mention, right, name])

    def _retained(
        self, left: np.ndarray, mention: np.ndarray, right: np.ndarray, name: np.ndarray
    ) -> np.ndarray:
        """Tokens kept of n texts of these sizes, (n, 4): context gives way to mention and name."""
        mention, name = _longest_first(mention, name, self._budget)
        free = self._budget - mention - name
        left = np.minimum(left, self.template.context_tokens)
        right = np.minimum(right, self.template.context_tokens)
        # The left context gets half of what is free, or all that a short right context leaves.
        left = np.minimum(left, np.maximum(free // 2, free - right))
        return np.stack([left, mention, np.minimum(right, free - left), name], axis=1)

    def are_legible(self, mentions: Sequence[str], names: Sequence[str]) -> np.ndarray:
        """Whether the ids of each of n mentions and its name say what the texts are, (n,) bool.

        They do not where half of the tokens of either are unknown, as of most Chinese words in an
        English vocabulary, and where unlike texts have the same ids.
        """
        # Imported here, because scoring pairs does not need it.
        from ..vocab.normalization import are_alike

        texts, numbers = number_distinct([*mentions, *names])
        ids = self._tokenize(texts)
        in_vocabulary = self._are_in_vocabulary(ids)
        mention, name = numbers.reshape(2, -1)
        are_legible = in_vocabulary[mention] & in_vocabulary[name]
        # Two texts have the same number here if they have the same ids.
        _, ids_number = number_distinct(ids)
        looks_equal = (ids_number[mention] == ids_number[name]) & (mention != name)
        for pair in np.flatnonzero(looks_equal & are_legible).tolist():
            are_legible[pair] = are_alike(texts[mention[pair]], texts[name[pair]])
        return are_legible

    def _are_in_vocabulary(self, ids: Sequence[bytes]) -> np.ndarray:
        """Whether the vocabulary has more than half of the tokens of each text, (k,) bool."""
        sizes = _token_counts(ids)
        is_unknown = np.frombuffer(b"".join(ids), np.int32) == self._unknown_id
        # The number of unknown tokens before each text, and from it the number in each.
        unknown_before = list_offsets(is_unknown)[list_offsets(sizes)]
        return 2 * np.diff(unknown_before) < sizes

    def _tokenize(self, texts: Sequence[str]) -> list[bytes]:
        """Ids of each text alone, as bytes of int32."""
        if not texts:
            return []
        beginnings = [text[: self._chars] for text in texts]
        encoded = self.tokenizer.encode_batch_fast(beginnings, add_special_tokens=False)
        return [_as_bytes(text.ids) for text in encoded]


def _marker_id(tokenizer: Tokenizer, name: str) -> int:
    marker_id = tokenizer.token_to_id(name)
    if marker_id is None:
        raise UserError(f"the tokenizer lacks a marker of the template: {' or '.join(MARKERS)}")
    return marker_id


def _as_bytes(ids: Sequence[int]) -> bytes:
    """Ids as bytes of int32, which are fast to join and to compare."""
    return array("i", ids).tobytes()


def _token_counts(ids: Sequence[bytes]) -> np.ndarray:
    """The number of tokens of each text, (k,) int64."""
    return np.fromiter(map(len, ids), np.int64, len(ids)) // ID_BYTES


def _longest_first(
    first: np.ndarray, second: np.ndarray, budget: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens kept of two texts under a budget, as the tokenizers library's ``longest_first``.

    The longer text loses tokens until both are equally long; then each gets half of the budget.
    """
    short = np.minimum(np.minimum(first, second), budget // 2)
    long = np.minimum(np.maximum(first, second), budget - short)
    return np.where(first > second, long, short), np.where(first > second, short, long)
