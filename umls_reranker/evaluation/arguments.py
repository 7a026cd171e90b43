"""Keys of a recipe that this layer reads: the report, and the targets it is checked against."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.keys import recipe_key

# How much worse than the previous version a new one may be and still count as not inferior.
USUAL_MARGIN = 0.02


@dataclass
class EvaluationArguments:
    """Evaluation: the report on the test split, and the targets it is checked against."""

    bootstrap_resamples: int = recipe_key(
        1000, "bootstrap resamples of documents for the 95 % intervals", least=1
    )
    targets: list[str] = recipe_key(
        [],
        'metrics that umls-reranker validate checks, e.g. "acc@1 >= 0.75"; '
        "a missed target fails the run",
    )
    margin: float = recipe_key(
        USUAL_MARGIN,
        "non-inferiority margin for a new version (validate --against): "
        "how much lower its acc@1 and F1 may be than those of the previous version; "
        "half of it for how much higher its Brier score of top candidates may be",
        least=0,
        most=1,
    )
