"""Mine training pairs: gold concepts, and nearest-neighbor, same-type and random negatives.

    umls-reranker mine_negatives quickstart

Reads the candidate lists in lists/ and writes pairs/ into the run folder, with mining_report.json:
numbers of pairs, and what each false-negative filter dropped. With `teacher`, the pairs also get
the mean logit of these models.
"""

from umls_reranker.pipeline.options import parse_recipe
from umls_reranker.pipeline.run_folder import RunFolder


def main() -> None:
    recipe = parse_recipe(__doc__, ("run", "mining"))
    run = RunFolder(recipe.run.run_dir)
    with run.due("pairs", recipe) as stage:
        if stage is not None:
            from umls_reranker.pipeline.training import make_pairs

            make_pairs(recipe, run, stage)
