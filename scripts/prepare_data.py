"""Read concepts and mentions into Arrow tables, and split the mentions by document.

    umls-reranker prepare_data quickstart

Writes concepts/ and mentions/ into the run folder.
"""

from umls_reranker.pipeline.options import parse_recipe
from umls_reranker.pipeline.recipe import ONLY_OPTIONS


def main() -> None:
    recipe = parse_recipe(
        __doc__,
        ("run_name", "output_dir", "cache_dir", "seed", *ONLY_OPTIONS, "concepts", "mentions"),
    )
    from umls_reranker.pipeline.data import prepare_data

    prepare_data(recipe)
