"""What is shipped with the package: recipes, accelerate configurations and scripts."""

from __future__ import annotations

from pathlib import Path


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
    """The file of a recipe, given as a file, a folder that holds ``config.yaml``, or the name of a shipped recipe.

    The working folder comes before the package.
    """
    path = Path(recipe)
    if not path.exists():
        path = shipped_recipes().get(recipe, path)
    return path / "config.yaml" if path.is_dir() else path


def is_recipe(name: str) -> bool:
    """Whether what may also be a model is a recipe: a YAML file, a folder with ``config.yaml``, or a shipped name."""
    path = find_recipe(name)
    return name.endswith((".yaml", ".yml")) or (path.suffix == ".yaml" and path.is_file())
