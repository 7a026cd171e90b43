"""Request bodies of the service, checked before any work is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    create_model,
    model_validator,
)

from ...core.text_files import is_finite, of_characters
from ...serving.arguments import ServingArguments


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank")
    return text


def _text_or_empty(text: Any) -> Any:
    return "" if text is None else text


Text = Annotated[str, AfterValidator(of_characters)]
NotBlank = Annotated[Text, AfterValidator(_not_blank)]
# Rows of tables have null if there is no context.
ContextText = Annotated[Text, BeforeValidator(_text_or_empty)]
# UMLS has 127 types.
Types = Text | Annotated[list[Text], Field(max_length=256, fail_fast=True)] | None


class _Body(BaseModel):
    # As in Text Embeddings Inference, unknown keys are ignored and types are not converted.
    model_config = ConfigDict(strict=True, extra="ignore")


class RerankRequest(_Body):
    """The body of ``/rerank`` as in Text Embeddings Inference 1.8 (``RerankRequest``).

    ``raw_scores`` asks for log-odds of the cross-encoder in place of probabilities. ``truncate``
    says whether texts that are too long are truncated, on the right; null: as the service is set.
    """

    query: NotBlank
    texts: list[NotBlank]
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None
    truncation_direction: Literal["Right", "right"] = "Right"


class Candidate(_Body):
    """A candidate, as for `UMLSReranker.rerank`; a string is its name, ``id`` is ``cui``."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"type": ["object", "string"]})

    name: NotBlank
    cui: Text | None = Field(default=None, validation_alias=AliasChoices("cui", "id"))
    preferred_name: Text | None = None
    definition: Text | None = None
    semantic_types: Types = None

    @model_validator(mode="before")
    @classmethod
    def _of_a_name(cls, candidate: Any) -> Any:
        return {"name": candidate} if isinstance(candidate, str) else candidate

    @model_validator(mode="after")
    def _scores_are_numbers(self) -> Candidate:
        extra = self.model_extra or {}
        source = extra.get("_source")
        if not isinstance(source, dict):
            source = {}
        for key, value in chain(extra.items(), source.items()):
            is_number = isinstance(value, int | float)
            must_be_number = key.endswith("_score") and value is not None
            if (is_number and not is_finite(value)) or (must_be_number and not is_number):
                raise ValueError(f"{key} is not a finite number")
        return self


class MentionRow(_Body):
    """A row of lists: a mention in its context; its text is ``entity`` or ``mention``."""

    mention: NotBlank = Field(validation_alias=AliasChoices("mention", "entity"))
    entity_type: Types = None
    left: ContextText = ""
    right: ContextText = ""


class RankedMention(MentionRow):
    """A row with its candidates in retrieval order."""

    candidates: list[Candidate]


class RankRequest(_Body):
    """The body of ``/rank``."""

    mentions: list[RankedMention] = Field(min_length=1)


class LinkedMention(MentionRow):
    """A mention to link; ``start`` is its offset in characters, null: the first occurrence."""

    start: int | None = Field(default=None, ge=0)


class LinkRequest(_Body):
    """The body of ``/link``; without a document, each mention has its own left and right text."""

    mentions: list[LinkedMention] = Field(min_length=1)
    document: Text | None = None
    top: int = Field(default=5, ge=1)


class PropertyValue(_Body):
    """A value of another column beside the query; ``pid`` is ``left`` or ``right``."""

    pid: Text
    # As OpenRefine has it in its cells: texts, numbers, reconciled entities, lists of these.
    v: Any = None


class ReconcileQuery(_Body):
    """A query of ``/reconcile``: a cell, and what else is known about it."""

    query: ContextText = ""
    type: Types = None
    # A number of JSON, such as 5.0.
    limit: Annotated[int, Field(ge=0, strict=False)] = 5
    properties: Annotated[list[PropertyValue], Field(max_length=256, fail_fast=True)] = []


class ExtendProperty(_Body):
    """A column to add to reconciled cells."""

    id: Text


class ExtendRequest(_Body):
    """A request of ``/reconcile`` for columns of reconciled cells."""

    ids: list[Text]
    properties: list[ExtendProperty]


# The settings that limit the lists of requests.
MAX_CANDIDATES = "max_candidates"
MAX_MENTIONS = "max_request_mentions"
# Key of a list -> the setting that limits it. Lists of other keys have a fixed limit.
LIMITING_SETTINGS = {
    "texts": MAX_CANDIDATES,
    "candidates": MAX_CANDIDATES,
    "mentions": MAX_MENTIONS,
    "queries": MAX_MENTIONS,
}


def refusal(error: Mapping[str, Any], location: Iterable[int | str]) -> tuple[int, str]:
    """The status of an error of Pydantic, and the message, which names the place.

    Args:
        error: one of `ValidationError.errors`.
        location: where it is, from the beginning of the body.
    """
    # Without Pydantic's names for the alternatives of a field.
    keys = [str(key) for key in location if isinstance(key, int) or key.isidentifier()]
    field = ".".join(keys) or "the body"
    if error["type"] == "json_invalid":
        return 400, f"{field} is not valid JSON: {error['ctx']['error']}"
    if error["type"] == "too_long" and keys[-1] in LIMITING_SETTINGS:
        lengths = error["ctx"]
        setting = LIMITING_SETTINGS[keys[-1]]
        return 413, too_many(field, lengths["actual_length"], lengths["max_length"], setting)
    return 422, f"{field}: {error['msg'].removeprefix('Value error, ')}"


def too_many(field: str, count: int | str, most: int, setting: str) -> str:
    """The message about a list that is too long, which begins as that of TEI.

    Args:
        field: the list.
        count: how many items it has; Pydantic says "more than" where it stopped to count.
        most: how many it may have.
        setting: the setting that says so.
    """
    return f"{field}: batch size {count} > maximum allowed batch size {most} ({setting})"


def request_bodies(serving: ServingArguments) -> dict[str, type[BaseModel]]:
    """Path -> its body, whose lists are no longer than the settings allow.

    Pydantic gives up a list at the first item too many, and makes one error of it: a body of 2 MB
    holds 900,000 items.
    """

    def limited(base: Any, name: str, item: Any) -> Any:
        fewest = 0 if base in (RerankRequest, RankedMention) else 1
        length = Field(min_length=fewest, max_length=getattr(serving, LIMITING_SETTINGS[name]))
        fields: dict[str, Any] = {name: (list[item], length)}
        return create_model(base.__name__, __base__=base, __doc__=base.__doc__, **fields)

    mention = limited(RankedMention, "candidates", Candidate)
    return {
        "/rerank": limited(RerankRequest, "texts", NotBlank),
        "/rank": limited(RankRequest, "mentions", mention),
        "/link": limited(LinkRequest, "mentions", LinkedMention),
    }
