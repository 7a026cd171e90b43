"""A ranked concept of an index, as `ConceptLinker` returns it."""

from typing import Any

import pyarrow as pa

from ..serving.ranked_candidate import RANKED_TYPE, RankedCandidate


class LinkedConcept(RankedCandidate):
    """A concept that a mention may refer to, with the fields of `RankedCandidate`.

    Its ``name`` is the concept's name nearest to the mention, which the model read.
    """

    __slots__ = ()

    @property
    def preferred_name(self) -> str:
        """The concept's preferred name."""
        return self.candidate["preferred_name"]

    @property
    def semantic_types(self) -> tuple[str, ...]:
        """The ids of the concept's semantic types; may be empty."""
        return tuple(self.candidate["semantic_types"])

    def as_row(self) -> dict[str, Any]:
        """The fields of `RankedCandidate.as_row`, and ``preferred_name`` and ``semantic_types``."""
        about = {"preferred_name": self.preferred_name, "semantic_types": list(self.semantic_types)}
        return super().as_row() | about


#: Type of `LinkedConcept.as_row` in Arrow.
LINKED_TYPE = pa.struct(
    [*RANKED_TYPE, ("preferred_name", pa.string()), ("semantic_types", pa.list_(pa.string()))]
)
