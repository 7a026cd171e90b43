"""Keys of a recipe that this layer reads: the targets that a report is checked against."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.keys import recipe_key

# How much worse than the previous version a new one may be and still count as not inferior.
USUAL_MARGIN = 0.02


@dataclass
class EvaluationArguments:
    """Evaluation: the targets that the report on the test split is checked against."""

    targets: list[str] = recipe_key(
        [],
        'metrics that umls-reranker validate checks, e.g. "acc@1 >= 0.75"; '
        "a missed target fails the run",
    )
