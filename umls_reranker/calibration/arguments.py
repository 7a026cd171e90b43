"""Keys of a recipe that this layer reads: from logits to probabilities, thresholds and tiers."""

from dataclasses import dataclass

from ..core.keys import recipe_key


@dataclass
class CalibrationArguments:
    """Calibration: from logits to probabilities, thresholds and tiers."""

    features: list[str] | None = recipe_key(
        None,
        "features of the fusion; a higher value never lowers a probability; "
        "unset: all, including the scores in the lists; "
        "[]: the cross-encoder alone, without fusion",
    )
    calibrator: str = recipe_key(
        "auto",
        "increasing map from log-odds to calibrated log-odds; "
        "with features, within a mention's list",
    )
    target_precision: float = recipe_key(
        0.95, "certified precision of the high-confidence tier", least=0.01, most=0.999
    )
    # Of that certificate; no key of recipes.
    confidence: float = 0.95
    accept_precision: float | None = recipe_key(
        None,
        "precision on held-out documents that sets one threshold of acceptance; "
        "unset: the highest F1, by type",
        least=0.01,
        most=0.999,
    )
