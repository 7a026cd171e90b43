"""What is shipped beside the code: recipes, accelerate configurations, scripts."""

import shutil
from pathlib import Path

from ..core.errors import UserError


def shipped(folder: str) -> Path:
    """One of the folders ``scripts``, ``recipes`` and ``accelerate_configs``.

    In a wheel it is inside the package, in a checkout next to it.
    """
    package = Path(__file__).resolve().parents[1]
    inside = package / folder
    return inside if inside.is_dir() else package.parent / folder


def shipped_recipes() -> dict[str, Path]:
    """Name of a recipe -> its folder."""
    return {
        path.parent.name: path.parent for path in sorted(shipped("recipes").glob("*/config.yaml"))
    }


def shipped_configs() -> dict[str, Path]:
    """Name of an accelerate configuration, or of the SLURM job -> its file."""
    files = sorted(shipped("accelerate_configs").iterdir())
    return {path.stem: path for path in files if path.suffix in (".yaml", ".slurm")}


def find_recipe(recipe: str) -> Path:
    """The file of a recipe, given as file, folder with ``config.yaml``, or shipped name.

    The working folder comes before the package.
    """
    path = Path(recipe)
    if not path.exists():
        path = shipped_recipes().get(recipe, path)
    return path / "config.yaml" if path.is_dir() else path


def is_recipe(name: str) -> bool:
    """Whether a name is a recipe's, not a model's.

    A recipe is a YAML file, a folder with ``config.yaml``, or a shipped name.
    """
    path = find_recipe(name)
    return name.endswith((".yaml", ".yml")) or (path.suffix == ".yaml" and path.is_file())


def show_shipped() -> None:
    """Print the recipes and accelerate configurations, each with its first comment."""
    recipes = {name: folder / "config.yaml" for name, folder in shipped_recipes().items()}
    configs = shipped_configs()
    width = max(map(len, recipes | configs)) + 2
    for title, files in (("Recipes:", recipes), ("\nAccelerate configurations:", configs)):
        print(title)
        for name, file in files.items():
            lines = file.read_text(encoding="utf-8").splitlines()
            comment = next(line.removeprefix("# ") for line in lines if line.startswith("# "))
            print(f"  {name:<{width}}{comment}")


def copy_shipped(name: str | None) -> None:
    """Copy a recipe or configuration to the working folder; UserError: none, or already there."""
    known = shipped_recipes() | shipped_configs()
    if name not in known:
        what = "name what to copy" if name is None else f"there is no {name} to copy"
        raise UserError(f"{what}; choose from {', '.join(known)}")
    source = known[name]
    target = Path(source.name)
    if target.exists():
        raise UserError(f"{target} already exists; move it away to get a fresh copy")
    if source.is_dir():
        shutil.copytree(source, target)
        print(target / "config.yaml")
    else:
        shutil.copyfile(source, target)
        print(target)
