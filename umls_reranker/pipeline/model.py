"""The process in which a run ends: it calibrates, evaluates and validates one loaded model.

python -m umls_reranker.pipeline.model RECIPE [--KEY VALUE ...]
"""

from .calibrating import calibrate_run
from .checklist import validate
from .command import MISSED_TARGET, run_script
from .evaluating import evaluate_run
from .options import parse_recipe


def main() -> int:
    """Calibrate, evaluate and validate the run of a recipe; return the exit code."""
    recipe = parse_recipe(__doc__ or "", ("run",))
    calibrate_run(recipe)
    reranker = evaluate_run(recipe)
    passes = validate(recipe, reranker=reranker)
    return 0 if passes else MISSED_TARGET


if __name__ == "__main__":
    run_script(main)
