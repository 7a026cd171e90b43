"""What a deployment opens: one run's concepts, indexes and encoder, described by `index.json`.

    index.json      how names were encoded and indexed, and how mentions are read: `IndexSettings`
    concepts/       the dictionary: CUIs, names, semantic types
    index/          names and their vectors
    lexical/        and so on: the indexes of further retrievers, if the run uses them
    encoder/        the bi-encoder that the run trained or used

A run folder has the same layout, so it works as well. An index folder holds names of the release
that it was built from: keep it where that license allows. It is never published with the model.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError, warn_caller
from ..core.files import link_or_copy, written
from ..core.hashes import file_sha256
from ..core.json_files import read_json, require_format, write_json
from ..core.locators import portable_locator
from ..core.parallel import progress
from ..core.stage import STAGE_MANIFEST
from ..models.model_files import commit_of, content_files, resolve_model
from ..vocab.relations import RELATIONS_FILE
from .arguments import ENCODER_FOLDER, IndexArguments

if TYPE_CHECKING:
    from ..models.bi_encoder import BiEncoder

INDEX_FILE = "index.json"
SCHEMA_VERSION = 1
# Files of concepts that only training reads.
TRAINING_FILES = (RELATIONS_FILE, "read_report.json")
MAKE_AGAIN = "make the index again (umls-reranker index, or build_index --overwrite)"


@dataclass
class IndexSettings(IndexArguments):
    """How a folder's indexes were made and are searched, and how mentions are read: `index.json`.

    It has the keys of the recipe's section. A trained encoder is called "trained", and its revision
    is the key of its training. If no retriever reads vectors, `encoder` is "".

    Attributes:
        has_encoder: whether `encoder/` holds the encoder, because the run trained it or an export
            copied it.
        expand_abbreviations: whether an abbreviated mention is read as its document's long form.
        folders: name -> key of each folder that a deployment needs.
        index_key: identity of encoder and indexes, which decide the scores of the retrievers.
        made_of: of an index of dictionaries alone, these: their files and hashes, settings and
            counts.
        files: path in the folder -> size in bytes and SHA-256 of each file, but for manifests; None
            in folders of older versions.
    """

    has_encoder: bool = False
    expand_abbreviations: bool = False
    folders: dict[str, str] = field(default_factory=dict)
    index_key: str = ""
    made_of: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Any] | None = None

    @classmethod
    def load(cls, folder: Path) -> IndexSettings:
        """Read the settings of a run or index folder.

        Raises:
            UserError: the folder has none or those of another version, one of its folders is
                missing or is not the one that the settings are of, or a file has another size.

        Warns:
            UserWarning: an older version wrote no hashes.
        """
        path = folder / INDEX_FILE
        if not path.is_file():
            raise UserError(
                f"{folder} has no {INDEX_FILE}; "
                "give a folder written by umls-reranker index or export_index, or a run folder; "
                "if an older version wrote it, run umls-reranker build_index again"
            )
        content = read_json(path)
        require_format(path, content, SCHEMA_VERSION, "build_index")
        del content["schema_version"]
        # Older versions made no index without a run.
        content = {"made_of": {}, "files": None} | content
        has_all_keys = content.keys() == asdict(cls()).keys()
        if not has_all_keys or not isinstance(content["files"], dict | None):
            raise UserError(f"{path} is not as it was written; run umls-reranker build_index again")
        settings = cls(**content)
        if settings.made_of.get("added"):
            raise UserError(
                f"{folder} has names that were added to a finished index; make it again with "
                "umls-reranker index DICTIONARY NAMES OUTPUT"
            )
        for name, key in settings.folders.items():
            manifest = folder / name / STAGE_MANIFEST
            if not manifest.is_file():
                raise UserError(
                    f"{folder} has no {name}/; give a folder written by umls-reranker "
                    "export_index, or a run folder"
                )
            if read_json(manifest).get("key") != key:
                raise UserError(
                    f"{folder / name} is not what the indexes next to it were built from; "
                    "run umls-reranker build_index or export_index again"
                )
        if settings.files is None:
            warn_caller(
                f"{path} has no hashes of its files, so damage may not be noticed; make the index "
                "again to have them"
            )
        for name, about in (settings.files or {}).items():
            file = folder / name
            size = about.get("size") if isinstance(about, dict) else None
            if not file.is_file() or size != file.stat().st_size:
                raise UserError(f"{file} is missing or of another size; {MAKE_AGAIN}")
        return settings

    def verify(self, folder: Path) -> None:
        """Refuse a folder of which the content of a file is not as it was written."""
        for name, about in (self.files or {}).items():
            if about.get("sha256") != file_sha256(folder / name):
                raise UserError(f"{folder / name} is not as it was written; {MAKE_AGAIN}")

    def own_files(self, folder: Path) -> list[Path]:
        """The files of a run or index folder that a deployment needs."""
        names = {*self.folders}
        if self.has_encoder:
            names.add(ENCODER_FOLDER)
        files: list[Path] = []
        for name in sorted(names):
            files += sorted((folder / name).rglob("*"))
        return [file for file in files if file.is_file() and file.name not in TRAINING_FILES]

    def save(self, folder: Path) -> None:
        """Write the settings into a run or index folder, with the hashes of its files."""
        self.files = {
            file.relative_to(folder).as_posix(): {
                "size": file.stat().st_size,
                "sha256": file_sha256(file),
            }
            for file in self.own_files(folder)
            if file.name != STAGE_MANIFEST
        }
        write_json(folder / INDEX_FILE, {"schema_version": SCHEMA_VERSION} | asdict(self))

    def load_encoder(self, folder: Path, device: str) -> BiEncoder:
        """Load the bi-encoder, which may be moved with its index.

        Args:
            folder: the run or index folder.
            device: as for `BiEncoder.from_pretrained`.
        """
        from ..models.bi_encoder import BiEncoder

        model = str(folder / ENCODER_FOLDER) if self.has_encoder else self.encoder
        revision = None if self.has_encoder else self.encoder_revision
        encoder = BiEncoder.from_pretrained(
            model,
            revision,
            pooling=self.encoder_pooling,
            max_length=self.encoder_max_length,
            device=device,
            dtype=self.encoder_dtype,
        )
        # An index names its encoder without the original path.
        encoder.identity["model"] = portable_locator(self.encoder)
        if self.has_encoder:
            encoder.identity["revision"] = self.encoder_revision
        return encoder


def export_index(run: Path, target: Path, *, dry_run: bool = False) -> None:
    """Collect what a deployment needs of a run; `target` appears only when it is complete.

    On the run's file system the files are linked, which takes neither time nor space, because
    stages replace files and never change them. On another file system they are copied. An encoder
    that the run did not train is copied too.

    Args:
        run: run folder with finished indexes.
        target: folder to make.
        dry_run: only check.

    Raises:
        UserError: `target` exists, or a folder of the run is missing or was made anew.
    """
    if target.exists():
        raise UserError(
            f"{target} already exists; choose a new folder and switch the deployment over to it"
        )
    settings = IndexSettings.load(run)
    if dry_run:
        return
    files = settings.own_files(run)
    size = sum(file.stat().st_size for file in files)
    with written(target) as partial, progress(total=size, desc="collecting", unit="B") as bar:
        for file in files:
            copy = partial / file.relative_to(run)
            copy.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(file, copy)
            bar.update(copy.stat().st_size)
        if settings.encoder and not settings.has_encoder:
            source = Path(resolve_model(settings.encoder, settings.encoder_revision))
            (partial / ENCODER_FOLDER).mkdir()
            for file in content_files(source):
                shutil.copyfile(file, partial / ENCODER_FOLDER / file.name)
            settings = replace(
                settings,
                encoder=portable_locator(settings.encoder),
                encoder_revision=commit_of(source) or settings.encoder_revision,
                has_encoder=True,
            )
        settings.save(partial)
