"""Request bodies of the service, checked before any work is done."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ...core.lines import is_finite, of_characters
from ...data.list_columns import entity_of


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank")
    return text


def _blank_for_null(text: Any) -> Any:
    return "" if text is None else text


Text = Annotated[str, AfterValidator(of_characters)]
NotBlank = Annotated[Text, AfterValidator(_not_blank)]
# Rows of tables have null if there is no context.
Context = Annotated[Text, BeforeValidator(_blank_for_null)]
Types = Text | list[Text] | None


class _Body(BaseModel):
    # As in Text Embeddings Inference, unknown keys are ignored and types are not converted.
    model_config = ConfigDict(strict=True, extra="ignore", use_attribute_docstrings=True)


class RerankRequest(_Body):
    """The body of ``/rerank`` in Text Embeddings Inference (its OpenAPI, version 1.8: ``RerankRequest``)."""

    query: NotBlank
    """text of the mention"""
    texts: list[NotBlank]
    """names to rank, at least one"""
    raw_scores: bool = False
    """return log-odds of the cross-encoder in place of probabilities"""
    return_text: bool = False
    """repeat each text in the answer"""
    truncate: bool | None = None
    """whether texts that are too long are truncated; null: as the service is set"""
    truncation_direction: Literal["Left", "Right", "left", "right"] = "Right"
    """the side that is truncated; this service truncates on the right only"""


class Candidate(_Body):
    """A candidate concept, as for `UMLSReranker.rerank`; ``NAME_score`` are scores of a pipeline's own retrievers.

    A plain string is its name.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra={"type": ["object", "string"]})

    name: NotBlank
    """name of the candidate"""
    cui: Text | None = None
    """its CUI"""
    preferred_name: Text | None = None
    """preferred name of the concept"""
    definition: Text | None = None
    """definition of the concept; empty if the dictionary has none, null if it is unknown"""
    semantic_types: Types = None
    """types of the concept, ids or names; [] if the dictionary has none, null if they are unknown"""

    @model_validator(mode="before")
    @classmethod
    def _of_a_name(cls, candidate: Any) -> Any:
        return {"name": candidate} if isinstance(candidate, str) else candidate

    @model_validator(mode="after")
    def _scores_are_numbers(self) -> Candidate:
        for key, value in (self.model_extra or {}).items():
            is_number = value is None or (isinstance(value, int | float) and is_finite(value))
            if key.endswith("_score") and not is_number:
                raise ValueError(f"{key} is not a finite number")
        return self


class _Mention(_Body):
    """A mention in its context; its text is ``mention`` or, as in rows of files, ``entity``."""

    mention: NotBlank = Field(validation_alias=AliasChoices("mention", "entity"))
    """text of the mention; `entity` is another name of this field"""
    entity_type: Types = None
    """its semantic type, id or name, or several; null if it is unknown"""
    left: Context = ""
    """text before it"""
    right: Context = ""
    """text after it"""

    @model_validator(mode="before")
    @classmethod
    def _has_one_text(cls, body: Any) -> Any:
        if isinstance(body, dict):
            entity_of(body)
        return body


class RankedMention(_Mention):
    """A mention with its candidates."""

    candidates: list[Candidate]
    """its candidates in retrieval order; a plain string is a name"""


class RankRequest(_Body):
    """The body of ``/rank``."""

    mentions: list[RankedMention] = Field(min_length=1)
    """mentions to rank, at least one"""


class LinkedMention(_Mention):
    """A mention to link."""

    start: int | None = Field(default=None, ge=0)
    """its offset in the document, in characters; null: the first occurrence"""


class LinkRequest(_Body):
    """The body of ``/link``; without a document, each mention has its own left and right text."""

    mentions: list[LinkedMention] = Field(min_length=1)
    """mentions to link, at least one"""
    document: Text | None = None
    """text of the document of all mentions"""
    top: int = Field(default=5, ge=1)
    """maximum number of concepts per mention"""
