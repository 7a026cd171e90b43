"""Pairs of a mention and a candidate as token ids, in the form of a `pair_template.PairTemplate`.

If a pair is too long, first the context is truncated, then mention and name by the longest-first
rule of the tokenizers library.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..core.arrays import expand_ranges, list_offsets, number_distinct
from ..core.errors import UserError
from .batches import ID_BYTES, PairBatch
from .pair_template import MARKERS, PairTemplate

if TYPE_CHECKING:
    from tokenizers import Tokenizer


# Usual names of the unknown token, for tokenizers that do not tell theirs.
UNKNOWN = ("[UNK]", "<unk>")
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
            marker_ids = [tokenizer.token_to_id(name) for name in MARKERS]
            if None in marker_ids:
                raise UserError(
                    f"the tokenizer lacks a marker of the template: {' or '.join(MARKERS)}"
                )
            markers = [[marker_id] for marker_id in marker_ids]
        special = _special_ids(tokenizer)
        # In the order of a pair.
        fixed_spans = [special.start, *markers, special.first_end, special.second_start]
        fixed_spans.append(special.end)
        self._fixed_spans = [_as_bytes(ids) for ids in fixed_spans]
        # Tokens of a pair that are left for its texts.
        self._budget = template.max_length - sum(map(len, fixed_spans))
        # Do not tokenize many more characters than are needed for the retained ids.
        self._chars = template.max_length * CHARS_PER_TOKEN
        self._unknown_id = _unknown_id(tokenizer)

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
        n = len(mentions)
        # `ids` gets the ids of each distinct text, and then those of the fixed spans.
        texts, numbers = number_distinct([*mentions, *names])
        ids = self._tokenize(texts)
        # Without context, any text: none of its tokens is kept.
        context_numbers = np.zeros(2 * n, np.int64)
        if self.template.context_tokens:
            # Contexts rarely recur. Of a very long text before a mention the end is read.
            contexts = [
                *(text[-self._chars :] for text in lefts or [""] * n),
                *(rights or [""] * n),
            ]
            texts, number_of_context = number_distinct(contexts)
            context_numbers = len(ids) + number_of_context
            ids += self._tokenize(texts)
        mention, name, left, right = np.append(numbers, context_numbers).reshape(4, n)
        fixed = np.arange(len(ids), len(ids) + len(self._fixed_spans))
        ids += self._fixed_spans
        sizes = _token_counts(ids)
        # Each of these is (n,), like the numbers of the texts.
        head, start, end, ending, opening, tail = np.broadcast_to(fixed[:, None], (len(fixed), n))
        # (n, 10): for each pair, the numbers in `ids` of its spans, in order.
        spans = np.stack(
            [head, left, start, mention, end, right, ending, opening, name, tail], axis=1
        )
        counts = sizes[spans]
        counts[:, TEXT_SPANS] = self._retained(*counts[:, TEXT_SPANS].T)
        # Where each span starts in all ids, one text after the other.
        starts = list_offsets(sizes)[spans]
        # Of the text before a mention, the last tokens are kept.
        starts[:, LEFT] += sizes[left] - counts[:, LEFT]
        _, positions = expand_ranges(starts.ravel(), (starts + counts).ravel())
        tokens = np.frombuffer(b"".join(ids), np.int32)[positions]
        pairs = PairBatch(tokens, counts.sum(axis=1), counts[:, :FIRST_SEGMENT].sum(axis=1))
        return pairs, sizes[mention] + sizes[name] > self._budget

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


def _as_bytes(ids: Sequence[int]) -> bytes:
    """Ids as bytes of int32, which are fast to join and to compare."""
    return array("i", ids).tobytes()


def _token_counts(ids: Sequence[bytes]) -> np.ndarray:
    """The number of tokens of each text, (k,) int64."""
    return np.fromiter(map(len, ids), np.int64, len(ids)) // ID_BYTES


def _unknown_id(tokenizer: Tokenizer) -> int:
    """The id of what is not in the vocabulary; -1 of a tokenizer that has an id for every text."""
    declared = getattr(tokenizer.model, "unk_token", None)
    for token in (declared, *UNKNOWN):
        token_id = tokenizer.token_to_id(token) if token else None
        if token_id is not None:
            return token_id
    return -1


class _SpecialIds(NamedTuple):
    """Ids that a tokenizer puts around the two texts of a pair.

    Attributes:
        start: before the first text, such as [CLS].
        first_end: after the first text, in the first segment, such as [SEP].
        second_start: before the second text, in the second segment; BERT has none.
        end: after the second text, such as [SEP].
    """

    start: list[int]
    first_end: list[int]
    second_start: list[int]
    end: list[int]


def _special_ids(tokenizer: Tokenizer) -> _SpecialIds:
    """Find the special ids by looking for a short text in a pair of it with itself."""
    probe = tokenizer.encode("a", add_special_tokens=False).ids
    pair = tokenizer.encode("a", "a")
    ids = pair.ids
    size = len(probe)
    starts = [i for i in range(len(ids) - size + 1) if ids[i : i + size] == probe]
    if len(starts) != 2:
        raise UserError("the tokenizer joins text pairs in an unsupported way")
    first, second = starts
    first_end = first + size
    # Where the second segment begins: its tokens have type 1.
    turn = first_end + pair.type_ids[first_end:second].count(0)
    return _SpecialIds(
        start=ids[:first],
        first_end=ids[first_end:turn],
        second_start=ids[turn:second],
        end=ids[second + size :],
    )


def _longest_first(
    first: np.ndarray, second: np.ndarray, budget: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens kept of two texts under a budget, as the tokenizers library's ``longest_first``.

    The longer text loses tokens until both are equally long; then each gets half of the budget.
    """
    short = np.minimum(np.minimum(first, second), budget // 2)
    long = np.minimum(np.maximum(first, second), budget - short)
    return np.where(first > second, long, short), np.where(first > second, short, long)
