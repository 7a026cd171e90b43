#!/usr/bin/env python
"""List the recipes and accelerate configurations of the package, or copy one to the working folder.

    umls-reranker recipes
    umls-reranker recipes copy quickstart
    umls-reranker recipes copy multi_gpu_bf16

A recipe is a folder with config.yaml and a README with its results. Commands prefer a copy in the working folder to
the recipe of the same name in the package.
"""

import shutil
from pathlib import Path

from umls_reranker.core.errors import UserError
from umls_reranker.pipeline.command import CommandParser, run_script
from umls_reranker.pipeline.shipped import shipped_configs, shipped_recipes


def main() -> None:
    parser = CommandParser(__doc__)
    parser.add_argument("action", nargs="?", choices=("list", "copy"), default="list", help="list (default) or copy")
    parser.add_argument("name", nargs="?", help="what to copy")
    options = parser.parse_args()
    if options.action == "copy":
        copy(options.name)
    else:
        show()


def show() -> None:
    recipes, configs = shipped_recipes(), shipped_configs()
    width = max(map(len, (*recipes, *configs))) + 2
    print("Recipes:")
    for name, folder in recipes.items():
        print(f"  {name:<{width}}{first_comment(folder / 'config.yaml')}")
    print("\nAccelerate configurations:")
    for name, file in configs.items():
        print(f"  {name:<{width}}{first_comment(file)}")


def first_comment(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("# ") for line in lines if line.startswith("# "))


def copy(name: str | None) -> None:
    known = shipped_recipes() | shipped_configs()
    if name not in known:
        what = "name what to copy" if name is None else f"there is no {name} to copy"
        raise UserError(f"{what}; choose from {', '.join(known)}")
    source = known[name]
    target = Path(source.name)
    if target.exists():
        raise UserError(f"{target} already exists; move it away to get a fresh copy")
    (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    print(target / "config.yaml" if source.is_dir() else target)


if __name__ == "__main__":
    run_script(main)
