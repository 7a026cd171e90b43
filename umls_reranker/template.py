"""How a mention and a candidate name become one input of the cross-encoder.

Without context the input is what ``tokenizer(mention, name, truncation="longest_first")`` gives:

    [CLS] mention [SEP] name [SEP]

With context the mention stands in its text, between two marker tokens:

    [CLS] left context <start> mention <end> right context [SEP] name [SEP]

Behind the mention a template may show its semantic types, and in place of the name alone also the candidate's
preferred name and its definition, for names that several concepts share:

    [CLS] cold ; Disease or Syndrome [SEP] cold ; Common Cold ; Catarrhal disorder of the upper respiratory tract [SEP]

Mention and name are tokenized once each and joined as ids, so a name that many mentions share costs nothing extra.
When a pair is too long, context goes first; mention and name are then cut by the longest-first rule.
The template is saved with the model, and training and serving use this code alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .data.normalization import normalize_name
from .errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from .arguments import ModelArguments
    from .data.concepts import ConceptTable
    from .data.semantic_types import TypeHierarchy

__all__ = ["MARKERS", "EncodedPairs", "PairEncoder", "PairTemplate"]

# Words of BERT's vocabulary that no text uses.
MARKERS = ("[unused1]", "[unused2]")
# Between what is shown of a mention or a candidate.
SEPARATOR = " ; "
# Longer definitions are cut: their first words say what kind of thing it is.
DEFINITION_CHARS = 160


@dataclass(frozen=True)
class PairTemplate:
    """Shape of the input.

    Args:
        max_length: most tokens of a pair, special tokens included.
        context_tokens: most tokens of text on each side of the mention; 0 leaves the context out.
        markers: the two tokens around a mention in context.
        candidate_fields: what is shown of a candidate beside its best-matching name: ``preferred_name``,
            ``definition``.
        mention_types: whether the names of the mention's semantic types are shown behind it.
    """

    max_length: int = 64
    context_tokens: int = 0
    markers: tuple[str, str] = MARKERS
    candidate_fields: tuple[str, ...] = ()
    mention_types: bool = False

    def __post_init__(self) -> None:
        if self.max_length < 16:
            raise UserError(f"max_length: {self.max_length} is too short for a pair; use 32 or more")
        if self.context_tokens < 0:
            raise UserError("context_tokens: must be 0 (no context) or more")

    @classmethod
    def from_recipe(cls, model: ModelArguments) -> PairTemplate:
        """The template that a recipe asks for."""
        return cls(
            model.max_length,
            model.context_tokens,
            candidate_fields=tuple(model.candidate_fields),
            mention_types=model.mention_types,
        )

    def mention_text(self, mention: str, types: Sequence[str], hierarchy: TypeHierarchy) -> str:
        """What the model reads of a mention itself.

        Args:
            types: its semantic types, ids or names; those that `hierarchy` does not know are not shown.
        """
        return SEPARATOR.join([mention, *(hierarchy.names(types) if self.mention_types else ())])

    def candidate_text(self, name: str, preferred_name: str | None = None, definition: str | None = None) -> str:
        """What the model reads of a candidate; a preferred name that says the same as the name is left out.

        >>> PairTemplate(candidate_fields=("preferred_name",)).candidate_text("cold", "Common Cold")
        'cold ; Common Cold'
        """
        shown = [name]
        if "preferred_name" in self.candidate_fields and preferred_name:
            shown += [preferred_name] * (normalize_name(preferred_name) != normalize_name(name))
        if "definition" in self.candidate_fields and definition:
            shown.append(definition[:DEFINITION_CHARS])
        return SEPARATOR.join(shown)

    def candidate_texts(self, names: Sequence[str], concepts: ConceptTable, rows: np.ndarray) -> list[str]:
        """`candidate_text` of names and the concepts they stand for.

        Args:
            names: m best-matching names.
            rows: (m,) rows of their concepts in `concepts`.
        """
        if not self.candidate_fields:
            return list(names)
        distinct, place = np.unique(rows, return_inverse=True)
        preferred = concepts.preferred_names(distinct).to_pylist()
        definitions = [concepts.definition(row) for row in distinct.tolist()]
        return [self.candidate_text(name, preferred[i], definitions[i]) for name, i in zip(names, place, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"markers": list(self.markers), "candidate_fields": list(self.candidate_fields)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> PairTemplate:
        """The template that `to_dict` wrote.

        Raises:
            UserError: a key is missing or does not fit.
        """
        try:
            return cls(
                content["max_length"],
                content["context_tokens"],
                tuple(content["markers"]),
                tuple(content.get("candidate_fields", ())),
                content.get("mention_types", False),
            )
        except (KeyError, TypeError) as error:
            raise UserError(
                f"reranker.json: the template is damaged ({error}); run the calibrate stage again"
            ) from None

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Make the markers single tokens and `max_length` the tokenizer's own limit, for others who load the model.

        Returns:
            How many tokens the model's embedding must gain.
        """
        tokenizer.model_max_length = self.max_length
        before = len(tokenizer)
        if self.context_tokens:
            tokenizer.add_special_tokens({"additional_special_tokens": list(self.markers)})
        return len(tokenizer) - before


@dataclass
class EncodedPairs:
    """Token ids of pairs.

    Attributes:
        input_ids: one list of ids per pair, without padding.
        first_lengths: per pair, the number of leading ids that belong to the first segment (token type 0).
        truncated: pairs of which mention or name lost tokens.
    """

    input_ids: list[list[int]]
    first_lengths: list[int]
    truncated: int

    def token_type_ids(self) -> list[list[int]]:
        pairs = zip(self.input_ids, self.first_lengths, strict=True)
        return [[0] * first + [1] * (len(ids) - first) for ids, first in pairs]


class PairEncoder:
    """Turns mentions and names into ids with a fast tokenizer and a template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: PairTemplate) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self._head, self._middle, self._tail, self._first_segment_middle = _special_layout(tokenizer)
        self._markers = tuple(tokenizer.convert_tokens_to_ids(list(template.markers)))
        specials = len(self._head) + len(self._middle) + len(self._tail)
        self._budget = template.max_length - specials - (2 if template.context_tokens else 0)

    def tokenize(self, texts: Sequence[str], *, from_end: bool = False) -> list[list[int]]:
        """Ids of each text alone, without special tokens.

        Args:
            from_end: of an endless text, read the end instead of the beginning.
        """
        if not texts:
            return []
        # Far more characters than the ids kept can hold are not worth tokenizing.
        limit = self.template.max_length * 32
        read = [text[-limit:] if from_end else text[:limit] for text in texts]
        return self.tokenizer(read, add_special_tokens=False, verbose=False)["input_ids"]

    def encode(
        self,
        mentions: Sequence[str],
        names: Sequence[str],
        lefts: Sequence[str] | None = None,
        rights: Sequence[str] | None = None,
    ) -> EncodedPairs:
        """Encode pairs; equal texts are tokenized once.

        Args:
            mentions, names: n texts each.
            lefts, rights: n texts before and after each mention; ignored when the template has no context.
        """
        mention_ids = self._tokenize_distinct(mentions)
        name_ids = self._tokenize_distinct(names)
        if not self.template.context_tokens:
            contexts = None
        else:
            empty = [""] * len(mentions)
            left_ids = self._tokenize_distinct(lefts or empty, from_end=True)
            right_ids = self._tokenize_distinct(rights or empty)
            contexts = (lefts or empty, left_ids, rights or empty, right_ids)
        return self._join(mentions, mention_ids, names, name_ids, contexts)

    def _tokenize_distinct(self, texts: Sequence[str], *, from_end: bool = False) -> dict[str, list[int]]:
        distinct = list(dict.fromkeys(texts))
        return dict(zip(distinct, self.tokenize(distinct, from_end=from_end), strict=True))

    def _join(self, mentions, mention_ids, names, name_ids, contexts) -> EncodedPairs:
        input_ids, first_lengths, truncated = [], [], 0
        for row, (mention, name) in enumerate(zip(mentions, names, strict=True)):
            first, second = mention_ids[mention], name_ids[name]
            keep_first, keep_second = _longest_first(len(first), len(second), self._budget)
            truncated += keep_first < len(first) or keep_second < len(second)
            first, second = first[:keep_first], second[:keep_second]
            if contexts is not None:
                lefts, left_ids, rights, right_ids = contexts
                room = self._budget - keep_first - keep_second
                first = self._with_context(first, left_ids[lefts[row]], right_ids[rights[row]], room)
            leading = self._head + first + self._middle
            input_ids.append(leading + second + self._tail)
            first_lengths.append(len(self._head) + len(first) + self._first_segment_middle)
        return EncodedPairs(input_ids, first_lengths, truncated)

    def _with_context(self, mention: list[int], left: list[int], right: list[int], room: int) -> list[int]:
        most = self.template.context_tokens
        left_size = min(len(left), most, max(room // 2, room - min(len(right), most)))
        right_size = min(len(right), most, room - left_size)
        start, end = self._markers
        return left[len(left) - left_size :] + [start, *mention, end] + right[:right_size]


def _special_layout(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int], list[int], int]:
    """Ids before, between and after the two texts of a pair, and how many of the middle ones are of type 0."""
    probe = tokenizer.encode("a", add_special_tokens=False)
    pair = tokenizer("a", "a")
    ids, size = pair["input_ids"], len(probe)
    starts = [i for i in range(len(ids) - size + 1) if ids[i : i + size] == probe]
    if len(starts) != 2:
        raise UserError(f"the tokenizer {type(tokenizer).__name__} joins text pairs in a way that is not supported")
    first, second = starts
    middle = ids[first + size : second]
    token_types = pair.get("token_type_ids") or [0] * len(ids)
    return ids[:first], middle, ids[second + size :], token_types[first + size : second].count(0)


def _longest_first(first: int, second: int, budget: int) -> tuple[int, int]:
    """Tokens kept of two texts under a common budget, as the tokenizers library's ``longest_first`` keeps them."""
    if first + second <= budget:
        return first, second
    short, long = min(first, second), max(first, second)
    # The shorter text stays whole as long as it fits into half of the budget.
    long = short if short > budget else max(short, budget - short)
    if short + long > budget:
        short = budget // 2
        long = short + budget % 2
    return (long, short) if first > second else (short, long)
