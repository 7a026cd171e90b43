"""The files of a model folder as they are published, without paths of this machine."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ..core.locators import portable_locator
from .file_names import MANIFEST, RECIPE
from .manifest import model_files, read_model_manifest, sealed_manifest


def published_files(folder: Path) -> dict[str, Path | bytes]:
    """The files to publish by name: each a file, or its content where that was changed for it."""
    # Loading a model does not need it.
    import yaml

    files: dict[str, Path | bytes] = {
        path.relative_to(folder).as_posix(): path for path in model_files(folder)
    }
    recipe = yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8"))
    portable = {key: _portable(value) for key, value in recipe.items()}
    if portable == recipe:
        return files
    recipe_text = yaml.safe_dump(portable, sort_keys=False, allow_unicode=True).encode()
    info = read_model_manifest(folder)
    settings = info | {"base_model": _portable(info["base_model"])}
    digests = info["sha256"] | {RECIPE: hashlib.sha256(recipe_text).hexdigest()}
    manifest = sealed_manifest(settings, digests)
    files[RECIPE] = recipe_text
    files[MANIFEST] = json.dumps(manifest, indent=2, ensure_ascii=False).encode()
    return files


def _portable(value: Any) -> Any:
    """A value of a recipe with only the last part of each path, and no passwords in URLs."""
    if isinstance(value, list):
        return [_portable(item) for item in value]
    return portable_locator(value) if isinstance(value, str) else value
