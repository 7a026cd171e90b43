"""Read concepts and mentions into Arrow tables, and split the mentions by document.

    umls-reranker prepare_data quickstart

Writes concepts/ and mentions/ into the run folder.
"""

from umls_reranker.pipeline.recipe import parse_recipe


def main() -> None:
    recipe = parse_recipe(__doc__, ("run", "concepts", "mentions"))
    from umls_reranker.pipeline.sources import prepare_data

    prepare_data(recipe)
