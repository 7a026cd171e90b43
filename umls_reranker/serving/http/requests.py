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
# Rows of tables have null where there is no context.
Context = Annotated[Text, BeforeValidator(_blank_for_null)]
Types = Text | list[Text] | None


class _Body(BaseModel):
    # As in Text Embeddings Inference, unknown keys are ignored and types are not converted.
    model_config = ConfigDict(strict=True, extra="ignore")


class RerankRequest(_Body):
    """The body of ``/rerank`` in Text Embeddings Inference (its OpenAPI, version 1.8: ``RerankRequest``)."""

    query: NotBlank
    texts: list[NotBlank]
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None
    truncation_direction: Literal["Left", "Right", "left", "right"] = "Right"


class Candidate(_Body):
    """A candidate concept, as for `UMLSReranker.rerank`; ``NAME_score`` are scores of a pipeline's own retrievers.

    A plain string is its name.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra={"type": ["object", "string"]})

    name: NotBlank
    cui: Text | None = None
    preferred_name: Text | None = None
    definition: Text | None = None
    semantic_types: Types = None

    @model_validator(mode="before")
    @classmethod
    def _of_a_name(cls, candidate: Any) -> Any:
        return {"name": candidate} if isinstance(candidate, str) else candidate

    @model_validator(mode="after")
    def _scores_are_numbers(self) -> Candidate:
        for key, value in (self.model_extra or {}).items():
            is_number = value is None or (isinstance(value, int | float) and is_finite(value))
            if key.endswith("_score") and not is_number:
                raise ValueError(f"{key} is no finite number")
        return self


class _Mention(_Body):
    """A mention in its context; its text is ``mention`` or, as in rows of files, ``entity``."""

    mention: NotBlank = Field(validation_alias=AliasChoices("mention", "entity"), description="its text; or `entity`")
    entity_type: Types = None
    left: Context = ""
    right: Context = ""

    @model_validator(mode="before")
    @classmethod
    def _has_one_text(cls, body: Any) -> Any:
        if isinstance(body, dict):
            entity_of(body)
        return body


class RankedMention(_Mention):
    """A mention with its candidates."""

    candidates: list[Candidate]


class RankRequest(_Body):
    """The body of ``/rank``."""

    mentions: list[RankedMention] = Field(min_length=1)


class LinkedMention(_Mention):
    """A mention to link; `start` is its offset in the document, in characters."""

    start: int | None = Field(default=None, ge=0)


class LinkRequest(_Body):
    """The body of ``/link``; without a document, each mention has its own left and right text."""

    mentions: list[LinkedMention] = Field(min_length=1)
    document: Text | None = None
    top: int = Field(default=5, ge=1)
