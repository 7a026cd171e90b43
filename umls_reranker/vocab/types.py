"""Semantic types, each with its broader types and its group: the Semantic Network, or others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.json_files import read_json

# What MedMentions writes where a concept has no type.
UNKNOWN_TYPE = "UnknownType"
HIERARCHY_VERSION = 1
GROUP_PREFIX = "group:"
# Rows of id, name, tree number and group, of these two files.
NETWORK_FILE = Path(__file__).with_name("semantic_network.json")


@dataclass(frozen=True)
class SemanticType:
    """A semantic type.

    Attributes:
        id: e.g. ``T047`` or ``HP:0001626``.
        name: e.g. ``Disease or Syndrome``.
        parent: id of the type it is a kind of, or None at a root.
        group: id of its semantic group, e.g. ``DISO``, or None.
    """

    id: str
    name: str
    parent: str | None = None
    group: str | None = None


class TypeHierarchy:
    """Types by id, each with a chain of broader types.

    Iterating yields type ids in order of definition. `built_in` and `from_dict` also make one.

    Args:
        types: every type once, in any order.
        group_names: group id -> name; other groups are named by their id.

    Raises:
        UserError: an id is repeated, a parent is unknown, or the parents form a cycle.
    """

    def __init__(
        self, types: Iterable[SemanticType], group_names: Mapping[str, str] | None = None
    ) -> None:
        self._types: dict[str, SemanticType] = {}
        for kind in types:
            if kind.id in self._types:
                raise UserError(f"semantic type {kind.id} is defined twice")
            self._types[kind.id] = kind
        self._group_names = {kind.group: kind.group for kind in self._types.values() if kind.group}
        self._group_names.update(group_names or {})
        self._chains = self._make_chains()
        self._ids_by_form = self._make_forms()

    @classmethod
    def built_in(cls) -> TypeHierarchy:
        """The 127 types and 15 groups of the UMLS Semantic Network."""
        content = read_json(NETWORK_FILE)
        ids = {tree_number: type_id for type_id, _, tree_number, _ in content["types"]}
        types = []
        for type_id, name, tree_number, group in content["types"]:
            parent = ids.get(_broader_number(tree_number))
            types.append(SemanticType(type_id, name, parent, group))
        return cls(types, content["groups"])

    def resolve(self, id_or_name: str | None) -> str | None:
        """The id for an id or name of a type or group, case-insensitive; None if unknown.

        A group is given as ``group:DISO`` or by name, and returned as ``group:DISO``. A type takes
        precedence over a group of the same name.
        """
        if id_or_name in self._types:
            return id_or_name
        return self._ids_by_form.get(_form(id_or_name)) if id_or_name else None

    def chain(self, type_id: str) -> list[str]:
        """``[type, parent, grandparent, ..., "group:DISO"]``; empty for an unknown id."""
        return list(self._chains.get(type_id, ()))

    def descendants(self, type_id: str) -> list[str]:
        """The type and its descendants (for a group: its types), in order of definition."""
        return [narrower for narrower, chain in self._chains.items() if type_id in chain]

    def agree(self, types: Iterable[str], others: Iterable[str]) -> bool:
        """Whether a type of the first list equals one of the second, or is narrower or broader.

        >>> hierarchy = TypeHierarchy.built_in()
        >>> hierarchy.agree(["T038"], ["T033", "T047"]), hierarchy.agree(["T047"], ["T121"])
        (True, False)
        """
        others = list(others)
        for kind in types:
            broader = self._chains.get(kind, ())
            for other in others:
                if kind == other or other in broader or kind in self._chains.get(other, ()):
                    return True
        return False

    def names(self, types: Iterable[str]) -> list[str]:
        """Names of types given by id or name; unknown types are left out."""
        ids = map(self.resolve, types)
        return [self.name(type_id) for type_id in ids if type_id is not None]

    def name(self, type_id: str) -> str:
        """The name of a type or group; an unknown id is returned unchanged."""
        if type_id in self._types:
            return self._types[type_id].name
        return self._group_names.get(type_id.removeprefix(GROUP_PREFIX), type_id)

    def __getitem__(self, type_id: str) -> SemanticType:
        return self._types[type_id]

    def __len__(self) -> int:
        return len(self._types)

    def __contains__(self, type_id: object) -> bool:
        return type_id in self._types

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def to_dict(self) -> dict[str, Any]:
        """The form for JSON, with ``schema_version``."""
        return {
            "schema_version": HIERARCHY_VERSION,
            "types": [asdict(kind) for kind in self._types.values()],
            "groups": self._group_names,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TypeHierarchy:
        """Inverse of `to_dict`.

        Raises:
            UserError: the content has a newer version or another form.
        """
        try:
            version = content["schema_version"]
            if version != HIERARCHY_VERSION:
                raise UserError(
                    f"semantic types have schema_version {version}, but this package reads "
                    f"{HIERARCHY_VERSION}; upgrade it"
                )
            return cls((SemanticType(**kind) for kind in content["types"]), content["groups"])
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"semantic types are malformed ({error!r}); write them again") from None

    def _make_chains(self) -> dict[str, list[str]]:
        """The `chain` of each type."""
        chains = {}
        for type_id in self._types:
            chain: list[str] = []
            group = None
            current: str | None = type_id
            while current is not None:
                if current in chain:
                    raise UserError(
                        f"semantic type {current} is a kind of itself: "
                        f"{' -> '.join(chain)} -> {current}"
                    )
                if current not in self._types:
                    raise UserError(
                        f"semantic type {chain[-1]} has the parent {current}, which is not defined"
                    )
                chain.append(current)
                group = group or self._types[current].group
                current = self._types[current].parent
            if group:
                chain.append(GROUP_PREFIX + group)
            chains[type_id] = chain
        return chains

    def _make_forms(self) -> dict[str, str]:
        """The id of each `_form` of names and ids, the least preferred first."""
        ids_by_form = {}
        for group, name in self._group_names.items():
            ids_by_form[_form(name)] = GROUP_PREFIX + group
        for group in self._group_names:
            ids_by_form[_form(GROUP_PREFIX + group)] = GROUP_PREFIX + group
        # Of types with one name the first counts.
        for kind in reversed(self._types.values()):
            ids_by_form[_form(kind.name)] = kind.id
        for type_id in self._types:
            ids_by_form[_form(type_id)] = type_id
        return ids_by_form


def _broader_number(tree_number: str) -> str:
    """The number of the nearest broader type: A1.4 for A1.4.1, then A1, then A."""
    return tree_number.rpartition(".")[0] or tree_number[:-1]


def _form(text: str) -> str:
    """A name or id without its case and spacing, by which it is looked up."""
    return " ".join(text.casefold().split())
