"""How the indexes of a folder were made, and whether the folder is as it was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from ..core.errors import UserError, warn_caller
from ..core.hashes import file_sha256
from ..core.json_files import read_json, require_format, write_json
from ..core.locators import portable_locator
from ..core.stage import STAGE_MANIFEST
from ..vocab.relations import RELATIONS_FILE
from .arguments import ENCODER_FOLDER, IndexArguments

if TYPE_CHECKING:
    from ..models.bi_encoder import BiEncoder

INDEX_FILE = "index.json"
SETTINGS_VERSION = 1
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
        require_format(path, content, SETTINGS_VERSION, "build_index")
        del content["schema_version"]
        # Older versions made no index without a run.
        content = {"made_of": {}, "files": None} | content
        if not _is_as_written(content, get_type_hints(cls)):
            raise UserError(f"{path} is not as it was written; run umls-reranker build_index again")
        settings = cls(**content)
        if settings.made_of.get("added"):
            raise UserError(
                f"{folder} has names that were added to a finished index; make it again with "
                "umls-reranker index DICTIONARY NAMES OUTPUT"
            )
        settings._require_folders(folder)
        if settings.files is None:
            warn_caller(
                f"{path} has no hashes of its files, so damage may not be noticed; make the index "
                "again to have them"
            )
        settings._require_sizes(folder)
        return settings

    def _require_folders(self, folder: Path) -> None:
        """Refuse a folder whose inner folders are not those that the settings are of."""
        for name, key in self.folders.items():
            manifest = folder / name / STAGE_MANIFEST
            if not manifest.is_file():
                raise UserError(
                    f"{folder} has no {name}/; give a folder written by umls-reranker "
                    "export_index, or a run folder"
                )
            content = read_json(manifest)
            if not isinstance(content, dict) or content.get("key") != key:
                raise UserError(
                    f"{folder / name} is not what the indexes next to it were built from; "
                    "run umls-reranker build_index or export_index again"
                )

    def _require_sizes(self, folder: Path) -> None:
        """Refuse a folder of which a file is missing or of another size."""
        for name, about in (self.files or {}).items():
            file = folder / name
            size = about.get("size") if isinstance(about, dict) else None
            if not file.is_file() or size != file.stat().st_size:
                raise UserError(f"{file} is missing or of another size; {MAKE_AGAIN}")

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
        write_json(folder / INDEX_FILE, {"schema_version": SETTINGS_VERSION} | asdict(self))

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


def _is_as_written(content: Mapping[str, Any], types: Mapping[str, Any]) -> bool:
    """Whether the content has these keys, with values of their types; items are not looked at."""
    if content.keys() != types.keys():
        return False
    return all(isinstance(content[key], _classes(kind)) for key, kind in types.items())


def _classes(kind: Any) -> tuple[type, ...]:
    """The classes of a type: list of ``list[str]``, and those of each part of a union."""
    if get_origin(kind) is UnionType:
        return tuple(get_origin(part) or part for part in get_args(kind))
    return (get_origin(kind) or kind,)
