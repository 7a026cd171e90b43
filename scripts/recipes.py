"""List the recipes and accelerate configurations of the package, or copy one to the working folder.

    umls-reranker recipes
    umls-reranker recipes copy quickstart
    umls-reranker recipes copy multi_gpu_bf16

A recipe is a folder with config.yaml and a README with its results. Commands prefer a copy in the
working folder to the recipe of the same name in the package.
"""

from umls_reranker.pipeline.command import CommandParser
from umls_reranker.pipeline.shipped import copy_shipped, show_shipped


def main() -> None:
    parser = CommandParser(__doc__)
    parser.add_argument(
        "action", nargs="?", choices=("list", "copy"), default="list", help="list (default) or copy"
    )
    parser.add_argument("name", nargs="?", help="what to copy")
    options = parser.parse_args()
    if options.action == "copy":
        copy_shipped(options.name)
    else:
        show_shipped()
