"""The models of a calibration by name, and the inputs that each of them does not read."""

from __future__ import annotations

from collections.abc import Sequence

from .features import inputs_of

# Names of the two kinds of model: of all that the lists had, and of names alone. Each has a twin
# without the type.
ALL_INPUTS = "all"
NAMES_ALONE = "names"
NO_TYPE = "no type"


def missing_by_model(
    features: Sequence[str], cross_encoder_inputs: Sequence[str] = ()
) -> dict[str, tuple[str, ...]]:
    """The inputs that each model does not read, by its name: that of all inputs comes first.

    Args:
        features: all features that are weighed; none if the cross-encoder alone decides.
        cross_encoder_inputs: inputs that the cross-encoder reads (`PairTemplate.reads`).
    """
    inputs = dict.fromkeys([*cross_encoder_inputs, *inputs_of(features)])
    beyond_names = tuple(name for name in inputs if name != "entity_type")
    return {
        ALL_INPUTS: (),
        NO_TYPE: ("entity_type",),
        NAMES_ALONE: beyond_names,
        f"{NAMES_ALONE}, {NO_TYPE}": (*beyond_names, "entity_type"),
    }
