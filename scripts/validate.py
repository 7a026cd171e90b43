"""Check a finished run as it is deployed: rerank held-out mentions, compare with targets.

    umls-reranker validate quickstart
    umls-reranker validate quickstart --against org/my-reranker@v1.0.0

Prints each target of the recipe with the measured value, its 95 % interval, what it was measured
on, and PASS, FAIL or INCONCLUSIVE. --against also compares the model with a previous version on the
same mentions: it passes if it is not inferior within --margin. Writes checklist.json into the run
folder. The exit code is 1 if a check fails, or if the model is worse than the previous version or
not shown to be non-inferior.
"""

from dataclasses import dataclass

from umls_reranker.core.keys import NON_INFERIORITY_MARGIN, recipe_key
from umls_reranker.pipeline.options import parse_recipe


@dataclass
class ValidationOptions:
    """Validation: options of this script only."""

    against: str | None = recipe_key(
        None,
        "previous version to compare with: a run, report or model folder, an outcomes.parquet, "
        "or a Hub repo as NAMESPACE/NAME or NAMESPACE/NAME@REVISION",
    )
    margin: float = recipe_key(
        NON_INFERIORITY_MARGIN,
        "non-inferiority margin of --against: how much lower acc@1 and F1 may be than those of the "
        "previous version; half of it for how much higher the Brier score of top candidates may be",
        least=0,
        most=1,
    )


def main() -> int:
    recipe, options = parse_recipe(
        __doc__,
        ("run_name", "output_dir", "device", "scoring_dtype", "dry_run", "targets"),
        ValidationOptions,
    )
    from umls_reranker.pipeline.checklist import validate

    return 0 if validate(recipe, options.against, margin=options.margin) else 1
