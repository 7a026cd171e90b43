"""The template of a pair: which texts the cross-encoder reads, and in which order.

Training and serving share it, and it is saved with the model. Without context the input is that of
``tokenizer(mention, name, truncation="longest_first")``:

    [CLS] mention [SEP] name [SEP]

With context, the mention is shown in its text, between two marker tokens:

    [CLS] left context <start> mention <end> right context [SEP] name [SEP]

A template may also show the mention's semantic types, and the candidate's preferred name and
definition, for names that several concepts share:

    [CLS] cold ; Disease or Syndrome [SEP] cold ; Common Cold ; Catarrhal disorder of the upper
    respiratory tract [SEP]

`pairs.PairEncoder` makes the token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError
from ..core.json_files import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..lists.candidate_lists import CandidateLists
    from .arguments import ModelArguments


# In the folder of a cross-encoder that is no reranker yet.
TEMPLATE_FILE = "pair_template.json"
# Before and after a mention in context: tokens of BERT's vocabulary that occur in no text.
MARKERS = ("[unused1]", "[unused2]")
# Separates the fields of a mention or a candidate.
SEPARATOR = " ; "
# Longer definitions are truncated: their first words matter most.
DEFINITION_CHARS = 160


@dataclass(frozen=True)
class PairTemplate:
    """Which texts of a mention and a candidate form a pair, and how long it may be.

    Args:
        max_length: maximum tokens of a pair, special tokens included.
        context_tokens: maximum tokens of text on each side of the mention; 0 shows no context.
        candidate_fields: fields of a candidate shown in addition to its best-matching name:
            ``preferred_name``, ``definition``.
        mention_types: whether the names of the mention's semantic types are shown after it.

    Raises:
        UserError: `max_length` is below 16, or leaves no room for a mention with such a context.
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
        if self.context_tokens >= self.max_length:
            raise UserError(
                f"context_tokens: {self.context_tokens} on each side do not fit into max_length, "
                f"{self.max_length}; lower one or raise the other"
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
    def of_folder(cls, folder: Path) -> PairTemplate | None:
        """The template that a cross-encoder was trained with by `RerankerTrainer`; else None."""
        path = folder / TEMPLATE_FILE
        return cls.from_dict(read_json(path), path) if path.is_file() else None

    @property
    def reads(self) -> tuple[str, ...]:
        """Inputs besides mention and name: candidate fields, ``context``, ``entity_type``."""
        names = [*self.candidate_fields]
        if self.context_tokens:
            names.append("context")
        if self.mention_types:
            names.append("entity_type")
        return tuple(names)

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
        """A pair as the call of a tokenizer of transformers takes it, ``text`` and ``text_pair``.

        The defaults are placeholders, so without arguments it shows the form of a pair. A pair that
        is not too long gets the ids that `PairEncoder` gives it.

        >>> PairTemplate(mention_types=True).pair_text()
        {'text': '{mention} ; {types}', 'text_pair': '{name}'}
        """
        text = self.mention_text(mention, types)
        if self.context_tokens:
            start, end = MARKERS
            text = f"{left}{start}{text}{end}{right}"
        return {"text": text, "text_pair": self.candidate_text(name, preferred_name, definition)}

    def mention_text(self, mention: str, types: Sequence[str]) -> str:
        """The text of a mention for the model, with the names of its semantic types."""
        if not self.mention_types:
            return mention
        return SEPARATOR.join([mention, *types])

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
        return [
            self.mention_text(mention, lists.hierarchy.names(types))
            for mention, types in zip(lists.mentions, lists.types, strict=True)
        ]

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
        former_size = len(tokenizer)
        if self.context_tokens:
            tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS)})
        return len(tokenizer) - former_size
