"""Special tokens of a tokenizer, found by trying it: those around a pair, and the unknown token."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..core.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


# Usual names of the unknown token, for tokenizers that do not tell theirs.
UNKNOWN = ("[UNK]", "<unk>")


def find_unknown_id(tokenizer: Tokenizer) -> int:
    """The id of what is not in the vocabulary; -1 of a tokenizer that has an id for every text."""
    declared = getattr(tokenizer.model, "unk_token", None)
    for token in (declared, *UNKNOWN):
        token_id = tokenizer.token_to_id(token) if token else None
        if token_id is not None:
            return token_id
    return -1


class SpecialIds(NamedTuple):
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


def find_special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """Find the special ids by looking for a short text in a pair of it with itself.

    Raises:
        UserError: the pair does not hold the text twice.
    """
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
    return SpecialIds(
        start=ids[:first],
        first_end=ids[first_end:turn],
        second_start=ids[turn:second],
        end=ids[second + size :],
    )
