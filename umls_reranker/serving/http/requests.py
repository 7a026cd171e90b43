"""Request bodies of the service, checked before any work is done."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ...core.lines import is_finite, of_characters


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank")
    return text


Text = Annotated[str, AfterValidator(of_characters)]
NotBlank = Annotated[Text, AfterValidator(_not_blank)]
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
    """A candidate concept, as for `UMLSReranker.rerank`; ``NAME_score`` are scores of a pipeline's own retrievers."""

    model_config = ConfigDict(extra="allow")

    name: NotBlank
    cui: Text | None = None
    preferred_name: Text | None = None
    definition: Text | None = None
    semantic_types: list[Text] | None = None

    @model_validator(mode="after")
    def _scores_are_numbers(self) -> Candidate:
        for key, value in (self.model_extra or {}).items():
            is_number = value is None or (isinstance(value, int | float) and is_finite(value))
            if key.endswith("_score") and not is_number:
                raise ValueError(f"{key} is no finite number")
        return self


class RankedMention(_Body):
    """A mention with its candidates."""

    mention: NotBlank
    candidates: list[Candidate]
    entity_type: Types = None
    left: Text = ""
    right: Text = ""


class RankRequest(_Body):
    """The body of ``/rank``."""

    mentions: list[RankedMention] = Field(min_length=1)


class LinkedMention(_Body):
    """A mention to link; `start` is its offset in the document, in characters."""

    mention: NotBlank
    start: int | None = Field(default=None, ge=0)
    entity_type: Types = None
    left: Text = ""
    right: Text = ""


class LinkRequest(_Body):
    """The body of ``/link``; without a document, each mention has its own left and right text."""

    mentions: list[LinkedMention] = Field(min_length=1)
    document: Text | None = None
    top: int = Field(default=5, ge=1)
