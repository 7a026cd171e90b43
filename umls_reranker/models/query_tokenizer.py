"""Token ids of the texts that a bi-encoder reads: names, mentions, and mentions in context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import transformers

from .pair_template import MARKERS


class QueryTokenizer:
    """Token ids of names, mentions, and mentions in context.

    Args:
        tokenizer: tokenizer of the encoder.
        max_length: maximum tokens of a text, special tokens included; context is added to it.
        context_tokens: maximum tokens of text on each side of a mention in context.
    """

    def __init__(
        self,
        tokenizer: transformers.PreTrainedTokenizerBase,
        max_length: int,
        context_tokens: int = 0,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.context_tokens = context_tokens
        self.pad_token_id: int = tokenizer.pad_token_id or 0
        # A list of tokens gives a list of ids.
        self._markers = cast("list[int]", tokenizer.convert_tokens_to_ids(list(MARKERS)))
        # The special tokens around a text, found by trying a short one.
        word = tokenizer.encode("a", add_special_tokens=False)
        whole = tokenizer.encode("a")
        start = whole.index(word[0])
        self._head = whole[:start]
        self._tail = whole[start + len(word) :]

    def plain(self, texts: Sequence[str]) -> list[list[int]]:
        """One list of ids per text."""
        return self._ids(texts, special=True, truncation=True, max_length=self.max_length)

    def in_context(
        self, texts: Sequence[str], lefts: Sequence[str], rights: Sequence[str]
    ) -> list[list[int]]:
        """One list of ids per mention with the text around it."""
        start, end = self._markers
        mention_tokens = self.max_length - len(self._head) - len(self._tail)
        ids_of_columns = [self._ids(column, special=False) for column in (texts, lefts, rights)]
        queries = []
        for mention, left, right in zip(*ids_of_columns, strict=True):
            marked = [start, *mention[:mention_tokens], end]
            last_of_left = left[max(0, len(left) - self.context_tokens) :]
            first_of_right = right[: self.context_tokens]
            queries.append([*self._head, *last_of_left, *marked, *first_of_right, *self._tail])
        return queries

    def _ids(self, texts: Sequence[str], *, special: bool, **options: Any) -> list[list[int]]:
        """One list of ids per text, with the special tokens around it or without."""
        if not len(texts):
            return []
        return self.tokenizer(
            list(texts),
            add_special_tokens=special,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
            **options,
        )["input_ids"]
