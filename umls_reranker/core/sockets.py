"""Registries of what people add to calibration: features of candidates, and calibrators.

Choices and help of the recipe keys `features` and `calibrator` follow from them. The package's own are in
`calibration.features` and `calibration.calibrators`, some rooms above; ``umls_reranker/__init__.py`` says where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np

# What a feature can be made of, as `calibration.inputs` names it, besides scores and the candidate's name.
INPUTS = ("entity_type", "context", "cui", "semantic_types")
CROSS_ENCODER = "cross_encoder"
Entry = TypeVar("Entry")


class Registry(MutableMapping[str, Entry]):
    """Entries of a kind by name; those of the package are imported at the first lookup.

    Args:
        kind: kind of the entries, for messages.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._entries: dict[str, Entry] = {}
        self._imports: list[Callable[[], object]] = []

    def import_by(self, load: Callable[[], object]) -> None:
        """Set the function that imports the module that registers entries."""
        self._imports.append(load)

    def _loaded(self) -> dict[str, Entry]:
        while self._imports:
            self._imports.pop()()
        return self._entries

    def __getitem__(self, name: str) -> Entry:
        return self._loaded()[name]

    def __setitem__(self, name: str, entry: Entry) -> None:
        if name in self._entries:
            raise ValueError(f"{self._kind} {name!r} is already registered")
        self._entries[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._loaded()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded())

    def __len__(self) -> int:
        return len(self._loaded())


@dataclass(frozen=True)
class Feature:
    """A number about each candidate of a list; a higher value never lowers a candidate's probability.

    Attributes:
        name: its name in recipes and ``calibrator.json``.
        help: one line about it.
        column: makes the column, (m,) float64, from `calibration.features.FeatureSources`; NaN where an input is
            missing. None: it comes with the lists, as scores of retrievers do, or from the network.
        inputs: the inputs of `INPUTS`, or ``NAME_score``, that it needs. A fallback model decides about requests that
            lack one of them.
    """

    name: str
    help: str
    column: Callable[[Any], np.ndarray] | None = None
    inputs: tuple[str, ...] = ()


FEATURES: Registry[Feature] = Registry("feature")
# Subclasses of `calibration.score_maps.Calibrator`, which declare name and help.
CALIBRATORS: Registry[type[Any]] = Registry("calibrator")


class AUTO:
    """The choice of the calibrator with the lowest held-out loss."""

    help = "the one with the lowest cross-validated log loss, folds by document"


def register_feature(feature: Feature) -> None:
    """Add a feature to those that recipes can name.

    Raises:
        ValueError: its name is taken, or it has an unknown input.
    """
    unknown = [name for name in feature.inputs if name not in INPUTS and not name.endswith("_score")]
    if unknown:
        raise ValueError(f"{feature.name}: unknown inputs {unknown}; choose from {', '.join(INPUTS)}, NAME_score")
    FEATURES[feature.name] = feature


def register_calibrator(calibrator: type[Any]) -> None:
    """Add a subclass of `calibration.score_maps.Calibrator` to those that recipes can name.

    Raises:
        ValueError: its name is taken.
    """
    CALIBRATORS[calibrator.name] = calibrator


register_feature(Feature(CROSS_ENCODER, "log-odds of the cross-encoder"))
