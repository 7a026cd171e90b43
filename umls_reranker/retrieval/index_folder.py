"""Open a recipe's retriever from a run folder or the index folder of a deployment.

An index folder has the concepts, indexes and encoder of one run, and nothing else:

    concepts/       the dictionary: CUIs, names, semantic types
    index/          names and their vectors
    lexical/        the lexical index, if the run retrieves by character n-grams
    mention_index/  vectors of training mentions, if it retrieves by these; no text
    encoder/        the bi-encoder that the run trained or used

It has the layout of a run folder, so a run folder works as well. It holds names of the release that it was built from:
keep it where that release's licence allows. It is never published with the model.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from ..core.arguments import EncoderArguments, IndexArguments, RunArguments
from ..core.errors import UserError
from ..core.fetch import resolve_model
from ..core.files import MODEL_PATTERNS, read_json, write_json, written
from ..core.progress import progress
from ..core.recipe import portable_locator
from ..core.stage_keys import ENCODER_FOLDER, EXACT_INDEX, further_indexes, index_key
from ..core.stages import STAGE_MANIFEST, RunFolder, read_manifest
from ..data.relations import RELATIONS_FILE
from ..models.bi_encoder import BiEncoder
from .faiss_index import read_ahead
from .lexical_index import LexicalIndex
from .mention_index import MentionIndex
from .name_index import FAISS_FILE, NameIndex
from .retriever import Retriever

__all__ = ["export_index", "index_parts", "load_encoder", "load_retriever", "require_one_run"]

SOURCE_FILE = "source.json"
# Bytes of a file that are copied between two looks at the clock.
COPIED_AT_ONCE = 16 * 2**20


def index_parts(retrievers: Iterable[str], trained: bool) -> list[str]:
    """Folders of a run that a deployment needs.

    Args:
        retrievers: of the recipe.
        trained: whether the run trained the encoder.
    """
    return ["concepts", "index", *further_indexes(retrievers), *([ENCODER_FOLDER] if trained else [])]


def export_index(
    run: Path, target: Path, names: list[str], model: str, revision: str | None, *, dry_run: bool = False
) -> None:
    """Collect the parts of a run that a deployment needs; `target` appears only when it is complete.

    On the run's file system the files are linked, which takes no time and no room: stages replace files and never
    change them. On another they are copied.

    Args:
        run: run folder in which the named parts are finished.
        target: folder to make.
        names: of the parts, as `index_parts` gives them.
        model, revision: the bi-encoder of the recipe, copied unless the run trained one.
        dry_run: only check.

    Raises:
        UserError: `target` exists, or a part of the run is missing or of another run.
    """
    if target.exists():
        raise UserError(f"{target} exists already; name a new folder, and switch the deployment over to it")
    require_one_run(run, names)
    if dry_run:
        return
    # Files for training only are left out.
    left_out = RELATIONS_FILE, "read_report.json"
    files = (file for name in names for file in (run / name).rglob("*") if file.name not in left_out)
    size = sum(file.stat().st_size for file in files if file.is_file())
    with written(target) as partial, progress(total=size, desc="collecting", unit="B") as bar:

        def link_or_copy(source: str, target: str) -> None:
            try:
                os.link(source, target)
                bar.update(os.stat(target).st_size)
            except OSError:
                with open(source, "rb") as read, open(target, "wb") as write:
                    while part := read.read(COPIED_AT_ONCE):
                        bar.update(write.write(part))

        ignore = shutil.ignore_patterns(*left_out)
        for name in names:
            shutil.copytree(run / name, partial / name, ignore=ignore, copy_function=link_or_copy)
        if ENCODER_FOLDER not in names:
            source, folder = Path(resolve_model(model, revision)), partial / ENCODER_FOLDER
            folder.mkdir(parents=True)
            for file in sorted({file for pattern in MODEL_PATTERNS for file in source.glob(pattern)}):
                shutil.copyfile(file, folder / file.name)
            made_from = {"schema_version": 1, "model": portable_locator(model), "revision": revision}
            write_json(folder / SOURCE_FILE, made_from)


def exported_encoder(folder: Path, model: str, revision: str | None) -> Path | None:
    """The copy of a bi-encoder in an index folder, or None if there is none of this model and revision."""
    source = folder / ENCODER_FOLDER / SOURCE_FILE
    if not source.is_file():
        return None
    content = read_json(source)
    return (
        source.parent
        if (content.get("model"), content.get("revision")) == (portable_locator(model), revision)
        else None
    )


def require_one_run(folder: Path, names: list[str]) -> None:
    """Refuse parts that are missing or do not belong together, by the keys in their manifests.

    Raises:
        UserError: a part is missing or of another run (named).
    """
    manifests = {}
    for name in names:
        if not (folder / name / STAGE_MANIFEST).is_file():
            raise UserError(f"{folder} has no {name}/; give a folder of umls-reranker export_index, or a run folder")
        manifests[name] = read_manifest(folder / name)
    for name, manifest in manifests.items():
        for other, key in manifest["inputs"].items():
            if other in manifests and manifests[other]["key"] != key:
                raise UserError(
                    f"{folder / name} was built from another {other}/ than the one next to it; "
                    "run umls-reranker build_index again, or export the index anew"
                )


def load_encoder(run: RunArguments, encoder: EncoderArguments, index: IndexArguments) -> BiEncoder:
    """Load the recipe's bi-encoder, or the one that the run trained, onto its device.

    A trained encoder is identified by its stage's key, so it can be moved with its index. An exported one is loaded
    from the index folder.
    """
    model, revision = index.encoder, index.encoder_revision
    source = exported_encoder(run.run_dir, model, revision)
    if encoder.encoder_training_steps:
        model, revision = "trained", RunFolder(run.run_dir).key_of(ENCODER_FOLDER, "train_encoder")
        source = run.run_dir / ENCODER_FOLDER
    loaded = BiEncoder.from_pretrained(
        str(source or model),
        None if source else revision,
        pooling=index.encoder_pooling,
        max_length=index.encoder_max_length,
        device=run.device,
        dtype=index.encoder_precision,
    )
    # A published model names its encoder without the original path.
    loaded.identity |= {"model": portable_locator(model), "revision": revision}
    return loaded


def load_retriever(run: RunArguments, encoder: EncoderArguments, index: IndexArguments) -> Retriever:
    """Open the run's indexes for the recipe's retrievers.

    An approximate index is read once from start to end, for searches that use its pages in any order.

    Raises:
        UserError: an index is missing.
    """
    names = NameIndex.load(run.run_dir / "index", index.index_parameters or "")
    if index.index_factory != EXACT_INDEX:
        read_ahead(run.run_dir / "index" / FAISS_FILE)
    lexical = LexicalIndex.load(run.run_dir / "lexical") if "lexical" in index.retrievers else None
    return Retriever(
        names,
        load_encoder(run, encoder, index),
        lexical,
        in_context="context" in index.retrievers,
        mentions=MentionIndex.load(run.run_dir / "mention_index") if "nearest_mentions" in index.retrievers else None,
        index_key=index_key(run.run_dir, index.retrievers),
    )
