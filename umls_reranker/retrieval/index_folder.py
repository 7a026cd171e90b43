"""Open a recipe's retriever from a run folder or the index folder of a deployment.

An index folder has the concepts, indexes and encoder of one run, and nothing else:

    concepts/       the dictionary: CUIs, names, semantic types
    index/          names and their vectors
    lexical/        and so on: the indexes of further retrievers, if the run uses them
    encoder/        the bi-encoder that the run trained or used

It has the layout of a run folder, so a run folder works as well. It holds names of the release that it was built from:
keep it where that release's license allows. It is never published with the model.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from ..core.errors import UserError
from ..core.files import link_or_copy, written
from ..core.progress import progress
from ..core.settings import EncoderArguments, IndexArguments, RunArguments, chosen_retrievers, index_folders
from ..core.stage_keys import ENCODER_FOLDER, index_key
from ..core.stages import STAGE_MANIFEST, read_manifest
from ..data.relations import RELATIONS_FILE
from .index_encoder import copy_encoder
from .retrieval_method import IndexSources, RetrievalMethod
from .retriever import Retriever


def index_parts(retrievers: Iterable[str], trained: bool) -> list[str]:
    """Folders of a run that a deployment needs.

    Args:
        retrievers: retrievers of the recipe.
        trained: whether the run trained the encoder.
    """
    return ["concepts", *index_folders(retrievers), *([ENCODER_FOLDER] if trained else [])]


def export_index(
    run: Path, target: Path, names: list[str], model: str, revision: str | None, *, dry_run: bool = False
) -> None:
    """Collect the folders of a run that a deployment needs; `target` appears only when it is complete.

    On the run's file system the files are linked, which takes neither time nor space, because stages replace files and
    never change them. On another file system they are copied.

    Args:
        run: run folder in which these folders are finished.
        target: folder to make.
        names: names of the folders, as `index_parts` returns them.
        model: bi-encoder of the recipe, copied unless the run trained one.
        revision: its revision.
        dry_run: only check.

    Raises:
        UserError: `target` exists, or a folder of the run is missing or from another run.
    """
    if target.exists():
        raise UserError(f"{target} already exists; choose a new folder and switch the deployment over to it")
    require_one_run(run, names)
    if dry_run:
        return
    # Files for training only are left out.
    left_out = RELATIONS_FILE, "read_report.json"
    files = (file for name in names for file in (run / name).rglob("*") if file.name not in left_out)
    size = sum(file.stat().st_size for file in files if file.is_file())
    with written(target) as partial, progress(total=size, desc="collecting", unit="B") as bar:

        def collect(source: str, target: str) -> None:
            link_or_copy(source, target)
            bar.update(Path(target).stat().st_size)

        ignore = shutil.ignore_patterns(*left_out)
        for name in names:
            shutil.copytree(run / name, partial / name, ignore=ignore, copy_function=collect)
        if ENCODER_FOLDER not in names:
            copy_encoder(partial, model, revision)


def require_one_run(folder: Path, names: list[str]) -> None:
    """Refuse folders that are missing or do not belong together, by the keys in their manifests.

    Raises:
        UserError: a folder is missing or from another run; names it.
    """
    manifests = {}
    for name in names:
        if not (folder / name / STAGE_MANIFEST).is_file():
            raise UserError(
                f"{folder} has no {name}/; give a folder written by umls-reranker export_index, or a run folder"
            )
        manifests[name] = read_manifest(folder / name)
    for name, manifest in manifests.items():
        for other, key in manifest["inputs"].items():
            if other in manifests and manifests[other]["key"] != key:
                raise UserError(
                    f"{folder / name} was not built from the {other}/ next to it; run umls-reranker build_index or "
                    "export_index again"
                )


def load_retriever(run: RunArguments, encoder: EncoderArguments, index: IndexArguments) -> Retriever:
    """Open the run's indexes for the recipe's retrievers.

    Raises:
        UserError: an index is missing.
    """
    sources = IndexSources(run, encoder, index)
    chosen = cast(list[type[RetrievalMethod]], chosen_retrievers(index.retrievers))
    methods = [method.load(sources, sources.folder / (method.folder or "")) for method in chosen]
    return Retriever(methods, sources.encoder, index_key(run.run_dir, index.retrievers))
