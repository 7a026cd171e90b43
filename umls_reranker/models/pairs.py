"""Pairs of a mention and a candidate as token ids, by a template that training and serving share.

Without context the input is that of ``tokenizer(mention, name, truncation="longest_first")``:

    [CLS] mention [SEP] name [SEP]

With context, the mention is shown in its text, between two marker tokens:

    [CLS] left context <start> mention <end> right context [SEP] name [SEP]

A template may also show the mention's semantic types, and the candidate's preferred name and
definition, for names that several concepts share:

    [CLS] cold ; Disease or Syndrome [SEP] cold ; Common Cold ; Catarrhal disorder of the upper
    respiratory tract [SEP]

If a pair is too long, first the context is truncated, then mention and name by the longest-first
rule. The template is saved with the model.

Texts of similar length share a batch, which is packed or padded.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from ..core.arrays import expand_ranges, list_offsets, number_distinct
from ..core.errors import UserError
from ..core.json_files import read_json

if TYPE_CHECKING:
    import pyarrow as pa
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

    from ..lists.candidate_lists import AnnotatedLists, CandidateLists
    from .arguments import ModelArguments


def divide_by_length(lengths: np.ndarray, token_budget: int, is_padded: bool) -> list[np.ndarray]:
    """Divide texts of similar length into batches under a token budget, longest texts first.

    The longest batch comes first, so a batch that does not fit into memory fails at once. Texts of
    equal length keep their order, so the batches depend only on the lengths.

    Args:
        lengths: (n,) token counts.
        token_budget: maximum tokens per batch. A longer single text gets its own batch.
        is_padded: whether a batch costs (longest text x texts) instead of its tokens.

    Returns:
        Row numbers (int64), each row in exactly one batch.

    >>> lengths = np.array([3, 9, 4, 3])
    >>> [batch.tolist() for batch in divide_by_length(lengths, token_budget=9, is_padded=True)]
    [[1], [2, 0], [3]]
    >>> [batch.tolist() for batch in divide_by_length(lengths, token_budget=10, is_padded=False)]
    [[1], [2, 0, 3]]
    """
    order = np.argsort(-lengths, kind="stable")
    offsets = list_offsets(lengths[order])
    batches = []
    start = 0
    while start < len(order):
        if is_padded:
            end = start + token_budget // max(1, int(lengths[order[start]]))
        else:
            end = int(np.searchsorted(offsets, offsets[start] + token_budget, "right")) - 1
        end = max(start + 1, end)
        batches.append(order[start:end])
        start = end
    return batches


# All that a network reads of a pair: the number of tokens of type 0, and its ids as bytes.
PairKey: TypeAlias = tuple[int, bytes]


class TextGroup(NamedTuple):
    """Neighboring texts of one length: their rows."""

    rows: slice
    length: int

    @property
    def texts(self) -> int:
        """Number of texts."""
        return self.rows.stop - self.rows.start


@dataclass(frozen=True)
class PackedTexts:
    """n texts with t tokens in all; a network gets them longest first.

    Attributes:
        ids: (t,) int32, text after text.
        lengths: (n,) int64, tokens of each text.
    """

    ids: np.ndarray
    lengths: np.ndarray

    @classmethod
    def join(cls, texts: Sequence[Sequence[int]]) -> PackedTexts:
        """Make the batch of these texts, each a sequence of ids."""
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        return PackedTexts(
            np.fromiter(chain.from_iterable(texts), np.int32, lengths.sum()), lengths
        )

    @cached_property
    def offsets(self) -> np.ndarray:
        """Where each text starts, (n + 1,) int64."""
        return list_offsets(self.lengths)

    @cached_property
    def positions(self) -> np.ndarray:
        """Position of each token in its text, (t,) int32."""
        return (np.arange(len(self.ids)) - np.repeat(self.offsets[:-1], self.lengths)).astype(
            np.int32
        )

    def take(self, rows: np.ndarray) -> PackedTexts:
        """The texts with these numbers, in this order."""
        _, tokens = expand_ranges(self.offsets[rows], self.offsets[rows] + self.lengths[rows])
        return PackedTexts(self.ids[tokens], self.lengths[rows])

    @property
    def types(self) -> np.ndarray | None:
        """Token types, (t,) int32; None if all are 0."""
        return None

    @cached_property
    def groups(self) -> list[TextGroup]:
        """The runs of equal length, in order."""
        starts = np.flatnonzero(np.diff(self.lengths, prepend=-1)).tolist()
        return [
            TextGroup(slice(start, end), int(self.lengths[start]))
            for start, end in pairwise([*starts, len(self.lengths)])
        ]

    def padded(self, pad_id: int, multiple: int = 1) -> dict[str, np.ndarray]:
        """Inputs of a transformers model by name, (n, w) int64 each.

        Args:
            pad_id: id of the padding token.
            multiple: w is the length of the longest text, rounded up to this.
        """
        width = -(-int(self.lengths.max(initial=0)) // multiple) * multiple
        is_token = np.arange(width) < self.lengths[:, None]
        input_ids = np.full(is_token.shape, pad_id, np.int64)
        input_ids[is_token] = self.ids
        inputs = {"input_ids": input_ids, "attention_mask": is_token.astype(np.int64)}
        if self.types is not None:
            inputs["token_type_ids"] = np.zeros(is_token.shape, np.int64)
            inputs["token_type_ids"][is_token] = self.types
        return inputs


@dataclass(frozen=True)
class PairBatch(PackedTexts):
    """n pairs with t tokens in all.

    Attributes:
        ids: (t,) int32, pair after pair.
        lengths: (n,) int64, tokens of each pair.
        first_lengths: (n,) int64, leading tokens of type 0.
    """

    first_lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, rows: np.ndarray) -> PairBatch:
        texts = super().take(rows)
        return PairBatch(texts.ids, texts.lengths, self.first_lengths[rows])

    def distinct(self) -> tuple[PairBatch, np.ndarray, list[PairKey]]:
        """The distinct pairs, the index of each pair among them, (n,) int64, and their keys."""
        content = self.ids.tobytes()
        texts = (content[start:end] for start, end in pairwise((4 * self.offsets).tolist()))
        keys, numbers = number_distinct(list(zip(self.first_lengths.tolist(), texts, strict=True)))
        _, first = np.unique(numbers, return_index=True)
        return self.take(first), numbers, keys

    def texts(self) -> tuple[PackedTexts, np.ndarray]:
        """The distinct texts of both segments, each with its special tokens.

        Returns:
            The texts, and the number of the first and the second text of each pair, (2, n) int64.
        """
        content = self.ids.tobytes()
        starts = self.offsets[:-1]
        spans = (4 * np.stack([starts, starts + self.first_lengths, self.offsets[1:]], 1)).tolist()
        firsts = [content[start:middle] for start, middle, _ in spans]
        # The first token, [CLS], is the same in all.
        seconds = [content[:4] + content[middle:end] for _, middle, end in spans]
        texts, numbers = number_distinct(firsts + seconds)
        lengths = np.fromiter(map(len, texts), np.int64, len(texts)) // 4
        packed = PackedTexts(np.frombuffer(b"".join(texts), np.int32), lengths)
        return packed, numbers.reshape(2, -1)

    @property
    def types(self) -> np.ndarray:
        """Token types, 0 in the first segment and 1 in the second, (t,) int32."""
        return (self.positions >= np.repeat(self.first_lengths, self.lengths)).astype(np.int32)


# In the folder of a cross-encoder that is no reranker yet.
TEMPLATE_FILE = "pair_template.json"
# Tokens of BERT's vocabulary that occur in no text.
MARKERS = ("[unused1]", "[unused2]")
# Usual names of the unknown token, for tokenizers that do not tell theirs.
UNKNOWN = ("[UNK]", "<unk>")
# Separates the fields of a mention or a candidate.
SEPARATOR = " ; "
# Longer definitions are truncated: their first words matter most.
DEFINITION_CHARS = 160
# Characters read of a text per token that can be kept of it.
CHARS_PER_TOKEN = 32
# Of the spans of a pair, those that hold left context, mention, right context and name, and the
# number of those of the first segment.
TEXTS = [1, 3, 5, 8]
FIRST_SEGMENT = 7


@dataclass(frozen=True)
class PairTemplate:
    """Shape of the input.

    Args:
        max_length: maximum tokens of a pair, special tokens included.
        context_tokens: maximum tokens of text on each side of the mention; 0 shows no context.
        candidate_fields: fields of a candidate shown in addition to its best-matching name:
            ``preferred_name``, ``definition``.
        mention_types: whether the names of the mention's semantic types are shown after it.

    Raises:
        UserError: `max_length` is below 16.
    """

    max_length: int = 64
    context_tokens: int = 0
    candidate_fields: tuple[str, ...] = ()
    mention_types: bool = False

    def __post_init__(self) -> None:
        if self.max_length < 16:
            raise UserError(
                f"max_length: {self.max_length} is too short for a pair; use 32 or more"
            )

    @classmethod
    def from_recipe(cls, model: ModelArguments) -> PairTemplate:
        """The template of a recipe."""
        return cls(
            model.max_length,
            model.context_tokens,
            tuple(model.candidate_fields),
            model.mention_types,
        )

    @classmethod
    def of_folder(cls, folder: Path) -> PairTemplate:
        """The template that a cross-encoder was trained with on lists; the default if none says."""
        path = folder / TEMPLATE_FILE
        return cls.from_dict(read_json(path), path) if path.is_file() else cls()

    @property
    def reads(self) -> tuple[str, ...]:
        """Inputs besides mention and name: candidate fields, ``context``, ``entity_type``."""
        further = (("context", self.context_tokens), ("entity_type", self.mention_types))
        return (*self.candidate_fields, *(name for name, is_shown in further if is_shown))

    def pair_text(
        self,
        mention: str = "{mention}",
        types: Sequence[str] = ("{types}",),
        left: str = "{left}",
        right: str = "{right}",
        name: str = "{name}",
        preferred_name: str | None = "{preferred_name}",
        definition: str | None = "{definition}",
    ) -> dict[str, str]:
        """A pair as other tokenizers read it, ``text`` and ``text_pair``.

        The defaults are placeholders.

        A pair that is not too long has the ids that `PairEncoder` gives it.

        >>> PairTemplate(mention_types=True).pair_text()
        {'text': '{mention} ; {types}', 'text_pair': '{name}'}
        """
        text = self.mention_text(mention, types)
        if self.context_tokens:
            text = text.join(MARKERS).join([left, right])
        return {"text": text, "text_pair": self.candidate_text(name, preferred_name, definition)}

    def mention_text(self, mention: str, types: Sequence[str]) -> str:
        """The text of a mention for the model, with the names of its semantic types."""
        types_read = types if self.mention_types else ()
        return SEPARATOR.join([mention, *types_read])

    def candidate_text(
        self, name: str, preferred_name: str | None = None, definition: str | None = None
    ) -> str:
        """The text of a candidate for the model; a preferred name equal to the name is left out.

        >>> PairTemplate(candidate_fields=("preferred_name",)).candidate_text("cold", "Common Cold")
        'cold ; Common Cold'
        """
        fields = [name]
        if "preferred_name" in self.candidate_fields and preferred_name:
            # Imported here, because scoring pairs does not need it.
            from ..vocab.normalization import normalize_name

            if normalize_name(preferred_name) != normalize_name(name):
                fields.append(preferred_name)
        if "definition" in self.candidate_fields and definition:
            fields.append(definition[:DEFINITION_CHARS])
        return SEPARATOR.join(fields)

    def mention_texts(self, lists: CandidateLists) -> Sequence[str]:
        """`mention_text` of n mentions."""
        if not self.mention_types:
            return lists.mentions
        return list(map(self.mention_text, lists.mentions, map(lists.hierarchy.names, lists.types)))

    def candidate_texts(self, lists: CandidateLists) -> list[str]:
        """`candidate_text` of m candidates."""
        names = lists.names.to_list()
        if not self.candidate_fields:
            return names
        columns = (names, lists.preferred_names.to_pylist(), lists.definitions.to_pylist())
        return [self.candidate_text(*fields) for fields in zip(*columns, strict=True)]

    @classmethod
    def from_dict(cls, content: dict[str, Any], source: object = "reranker.json") -> PairTemplate:
        """Inverse of ``asdict``; `source` is the file it was read from.

        Raises:
            UserError: a key is missing or unknown.
        """
        try:
            return cls(**content | {"candidate_fields": tuple(content["candidate_fields"])})
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{source}: the template is damaged ({error}); run the stage that wrote it again"
            ) from None

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Make the markers single tokens, and `max_length` the tokenizer's limit, for other users.

        Returns:
            Number of tokens to add to the model's embedding.
        """
        tokenizer.model_max_length = self.max_length
        before = len(tokenizer)
        if self.context_tokens:
            tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS)})
        return len(tokenizer) - before


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
        markers: list[list[int]] = [[], []]
        if template.context_tokens:
            numbers = [tokenizer.token_to_id(name) for name in MARKERS]
            markers = [[number] for number in numbers if number is not None]
            if len(markers) < len(MARKERS):
                raise UserError(
                    f"the tokenizer lacks a marker of the template: {' or '.join(MARKERS)}"
                )
        head, ending, opening, tail = _special_ids(tokenizer)
        special = [head, *markers, ending, opening, tail]
        self._special = [array("i", ids).tobytes() for ids in special]
        self._budget = template.max_length - sum(map(len, special))
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
        # The ids of each text, then the special ones; a pair is some of these spans.
        first_special = len(ids)
        ids += self._special
        sizes = np.fromiter(map(len, ids), np.int64, len(ids)) // 4
        head, start, end, ending, opening, tail = np.broadcast_to(
            np.arange(first_special, len(ids))[:, None], (len(self._special), n)
        )
        spans = np.stack(
            [head, left, start, mention, end, right, ending, opening, name, tail], axis=1
        )
        counts = sizes[spans]
        counts[:, TEXTS] = self._kept(*counts[:, TEXTS].T)
        starts = list_offsets(sizes)[spans]
        # Of the text before a mention, the last tokens are kept.
        starts[:, 1] += sizes[left] - counts[:, 1]
        _, positions = expand_ranges(starts.ravel(), (starts + counts).ravel())
        tokens = np.frombuffer(b"".join(ids), np.int32)[positions]
        pairs = PairBatch(tokens, counts.sum(axis=1), counts[:, :FIRST_SEGMENT].sum(axis=1))
        return pairs, sizes[mention] + sizes[name] > self._budget

    def _kept(
        self, left: np.ndarray, mention: np.ndarray, right: np.ndarray, name: np.ndarray
    ) -> np.ndarray:
        """Tokens kept of n texts of these sizes, (n, 4): context gives way to mention and name."""
        mention, name = _longest_first(mention, name, self._budget)
        free = self._budget - mention - name
        left = np.minimum(left, self.template.context_tokens)
        right = np.minimum(right, self.template.context_tokens)
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
        are_known = self._are_known(ids)
        mention, name = numbers.reshape(2, -1)
        are_legible = are_known[mention] & are_known[name]
        _, sequence = number_distinct(ids)
        looks_equal = (sequence[mention] == sequence[name]) & (mention != name)
        for pair in np.flatnonzero(looks_equal & are_legible).tolist():
            are_legible[pair] = are_alike(texts[mention[pair]], texts[name[pair]])
        return are_legible

    def _are_known(self, ids: Sequence[bytes]) -> np.ndarray:
        """Whether more than half of the tokens of each text are known, (k,) bool."""
        sizes = np.fromiter(map(len, ids), np.int64, len(ids)) // 4
        is_unknown = np.frombuffer(b"".join(ids), np.int32) == self._unknown_id
        unknown = np.diff(list_offsets(is_unknown)[list_offsets(sizes)])
        return 2 * unknown < sizes

    def _tokenize(self, texts: Sequence[str]) -> list[bytes]:
        """Ids of each text alone, as bytes of int32."""
        read = [text[: self._chars] for text in texts]
        encoded = self.tokenizer.encode_batch_fast(read, add_special_tokens=False) if read else []
        return [array("i", text.ids).tobytes() for text in encoded]


def _unknown_id(tokenizer: Tokenizer) -> int:
    """The id of what is not in the vocabulary; -1 of a tokenizer that knows everything."""
    named = getattr(tokenizer.model, "unk_token", None)
    ids = [tokenizer.token_to_id(token) for token in (named, *UNKNOWN) if token]
    return next((number for number in ids if number is not None), -1)


def _special_ids(tokenizer: Tokenizer) -> tuple[list[int], list[int], list[int], list[int]]:
    """Ids before a pair, between its texts (of the first and second segment), and after it."""
    probe = tokenizer.encode("a", add_special_tokens=False).ids
    pair = tokenizer.encode("a", "a")
    ids = pair.ids
    size = len(probe)
    starts = [i for i in range(len(ids) - size + 1) if ids[i : i + size] == probe]
    if len(starts) != 2:
        raise UserError("the tokenizer joins text pairs in an unsupported way")
    first, second = starts
    turn = first + size + pair.type_ids[first + size : second].count(0)
    return ids[:first], ids[first + size : turn], ids[turn:second], ids[second + size :]


def _longest_first(
    first: np.ndarray, second: np.ndarray, budget: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens kept of two texts under a budget, as the tokenizers library's ``longest_first``."""
    short = np.minimum(np.minimum(first, second), budget // 2)
    long = np.minimum(np.maximum(first, second), budget - short)
    return np.where(first > second, long, short), np.where(first > second, short, long)


def pair_rows(template: PairTemplate, lists: AnnotatedLists, weights: np.ndarray) -> pa.Table:
    """The training rows of n mentions with m candidates, as mining writes and training reads them.

    Args:
        template: template of the model.
        lists: the lists.
        weights: (m,) float32, weight of each pair in the loss.

    Returns:
        n rows. All texts are as the template shows them:
            entity: string, the mention
            left, right: string, the text around it
            names: list of string, its candidates
            labels: list of int8
            weights: list of float32
    """
    # What scores pairs alone does not need it.
    import pyarrow as pa

    offsets = pa.array(lists.offsets, pa.int32())
    mentions = {
        "entity": template.mention_texts(lists),
        "left": lists.lefts,
        "right": lists.rights,
    }
    pairs = {
        "names": template.candidate_texts(lists),
        "labels": lists.labels.astype(np.int8),
        "weights": weights,
    }
    columns: dict[str, pa.Array] = {}
    for name, texts in mentions.items():
        columns[name] = pa.array(texts, pa.string())
    for name, values in pairs.items():
        columns[name] = pa.ListArray.from_arrays(offsets, pa.array(values))
    return pa.table(columns)
