"""The template that makes one input of the cross-encoder from a mention and a candidate.

Without context the input is that of ``tokenizer(mention, name, truncation="longest_first")``:

    [CLS] mention [SEP] name [SEP]

With context, the mention is shown in its text, between two marker tokens:

    [CLS] left context <start> mention <end> right context [SEP] name [SEP]

A template may also show the mention's semantic types, and the candidate's preferred name and definition, for names
that several concepts share:

    [CLS] cold ; Disease or Syndrome [SEP] cold ; Common Cold ; Catarrhal disorder of the upper respiratory tract [SEP]

If a pair is too long, first the context is truncated, then mention and name by the longest-first rule. The template is
saved with the model; training and serving use the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from operator import index
from typing import TYPE_CHECKING, Any

from ..core.arrays import RepeatedTexts, number_distinct
from ..core.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..core.settings import ModelArguments
    from ..data.candidate_lists import CandidateLists
    from ..data.semantic_types import TypeHierarchy

# Tokens of BERT's vocabulary that occur in no text.
MARKERS = ("[unused1]", "[unused2]")
# Separates the fields of a mention or a candidate.
SEPARATOR = " ; "
# Longer definitions are truncated: their first words matter most.
DEFINITION_CHARS = 160


@dataclass(frozen=True)
class PairTemplate:
    """Shape of the input.

    Args:
        max_length: maximum tokens of a pair, special tokens included.
        context_tokens: maximum tokens of text on each side of the mention; 0 shows no context.
        markers: the two tokens around a mention in context.
        candidate_fields: fields of a candidate shown in addition to its best-matching name: ``preferred_name``,
            ``definition``.
        mention_types: whether the names of the mention's semantic types are shown after it.
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
        if unknown := set(self.candidate_fields) - {"preferred_name", "definition"}:
            raise UserError(f"candidate_fields: {min(unknown)!r} is neither preferred_name nor definition")

    @classmethod
    def from_recipe(cls, model: ModelArguments) -> PairTemplate:
        """The template of a recipe."""
        return cls(
            model.max_length,
            model.context_tokens,
            candidate_fields=tuple(model.candidate_fields),
            mention_types=model.mention_types,
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """Inputs shown in addition to mention and name: candidate fields, ``context``, ``entity_type``."""
        further = (("context", self.context_tokens), ("entity_type", self.mention_types))
        return (*self.candidate_fields, *(name for name, is_shown in further if is_shown))

    def mention_text(self, mention: str, types: Sequence[str], hierarchy: TypeHierarchy) -> str:
        """The text of a mention for the model.

        Args:
            mention: its text.
            types: its semantic types, ids or names; types unknown to `hierarchy` are not shown.
            hierarchy: the types' hierarchy.
        """
        return SEPARATOR.join([mention, *(hierarchy.names(types) if self.mention_types else ())])

    def candidate_text(self, name: str, preferred_name: str | None = None, definition: str | None = None) -> str:
        """The text of a candidate for the model; a preferred name equal to the name is left out.

        >>> PairTemplate(candidate_fields=("preferred_name",)).candidate_text("cold", "Common Cold")
        'cold ; Common Cold'
        """
        fields = [name]
        if "preferred_name" in self.candidate_fields and preferred_name:
            # Imported here, because scoring pairs does not need it.
            from ..data.normalization import normalize_name

            if normalize_name(preferred_name) != normalize_name(name):
                fields.append(preferred_name)
        if "definition" in self.candidate_fields and definition:
            fields.append(definition[:DEFINITION_CHARS])
        return SEPARATOR.join(fields)

    def mention_texts(self, lists: CandidateLists) -> Sequence[str]:
        """`mention_text` of n mentions."""
        if not self.mention_types:
            return lists.mentions
        mentions = zip(lists.mentions, lists.types, strict=True)
        return [self.mention_text(mention, types, lists.hierarchy) for mention, types in mentions]

    def candidate_texts(self, lists: CandidateLists) -> RepeatedTexts:
        """`candidate_text` of m candidates, computed once for equal ones."""
        if not self.candidate_fields:
            return lists.names
        columns = (lists.names.to_list(), lists.preferred_names.to_pylist(), lists.definitions.to_pylist())
        texts = [self.candidate_text(*fields) for fields in zip(*columns, strict=True)]
        return RepeatedTexts(*number_distinct(texts))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"markers": list(self.markers), "candidate_fields": list(self.candidate_fields)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> PairTemplate:
        """Inverse of `to_dict`.

        Raises:
            UserError: a key is missing or invalid.
        """
        try:
            return cls(
                index(content["max_length"]),
                index(content["context_tokens"]),
                tuple(content["markers"]),
                tuple(content["candidate_fields"]),
                content["mention_types"],
            )
        except (KeyError, TypeError) as error:
            raise UserError(
                f"reranker.json: the template is damaged ({error}); run the calibrate stage again"
            ) from None

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Make the markers single tokens, and `max_length` the tokenizer's limit, for other users of the model.

        Returns:
            Number of tokens to add to the model's embedding.
        """
        tokenizer.model_max_length = self.max_length
        before = len(tokenizer)
        if self.context_tokens:
            tokenizer.add_special_tokens({"additional_special_tokens": list(self.markers)})
        return len(tokenizer) - before
