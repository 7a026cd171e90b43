"""A stage: one step of long work, and the folder that it owns.

A stage writes into a hidden folder next to its own, which is renamed when it is complete. So a
killed process never leaves incomplete output under a finished name, and a failed stage leaves the
former output untouched.

Its key is a SHA-256 over all that decides the output: the values that it reads, the keys of the
stages and the hashes of the files that it is made from, and its version. A finished folder with
this key is up to date. The key is also in the name of the hidden folder, so what a killed process
left there was made for the same output, and is gone on with.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import UserError
from .files import naming_full_disk, replace_folder
from .hashes import json_sha256
from .json_files import read_json, write_json
from .version import __version__

STAGE_MANIFEST = "manifest.json"
SCHEMA_VERSION = 2
# Whose versions a manifest records.
LIBRARIES = ("accelerate", "datasets", "faiss-cpu", "scikit-learn", "torch", "transformers")


@dataclass(frozen=True)
class StageInputs:
    """All that decides the output of a stage.

    Attributes:
        command: the command that makes it.
        keys: names of the settings that it reads.
        needs: stages that it reads; those that there are not are left out.
        version: raised when the code makes another output of the same values.
        resumes: whether a killed process leaves something to go on from.
        values: further values, by name.
    """

    command: str
    keys: Iterable[str] = ()
    needs: tuple[str, ...] = ()
    version: int = 1
    resumes: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)

    def stage(self, folder: Path, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> Stage:
        """The stage.

        Args:
            folder: its folder.
            settings: settings by name; those that it does not read do not count.
            inputs: name -> key or hash of every input.
        """
        read = {name: value for name, value in settings.items() if name in {*self.keys}}
        return Stage(folder, read | {**self.values}, inputs, self.version, self.resumes)


def has_manifest(folder: Path) -> bool:
    """Whether a folder is of a stage that is finished or can be resumed."""
    return (folder / STAGE_MANIFEST).is_file()


def require_of_stage(folder: Path) -> None:
    """Refuse a folder that no stage made, before a stage takes its place; an empty one is fine.

    Raises:
        UserError: it would be lost.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    manifest = folder / STAGE_MANIFEST
    content = read_json(manifest) if manifest.is_file() else None
    # Other programs write files of this name, too.
    if not isinstance(content, dict) or "stage" not in content:
        raise UserError(
            f"{folder} was not made by a stage and would be lost; move it, or choose another "
            "output_dir or run_name"
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished stage.

    Raises:
        UserError: it is missing, was changed or cut short, or is no stage's.
    """
    require_of_stage(folder)
    path = folder / STAGE_MANIFEST
    content = read_json(path)
    kinds = {"key": str, "settings": dict, "inputs": dict, "summary": dict}
    if not all(isinstance(content.get(key), kind) for key, kind in kinds.items()):
        raise UserError(f"{path} is not as the stage wrote it; rebuild {folder} with --overwrite")
    return content


class Stage:
    """One step of long work and the folder it owns.

    Args:
        folder: folder of the finished output, e.g. ``runs/quickstart/index``.
        settings: the values that decide the output; must be JSON-able.
        inputs: name -> key or hash of every input of the stage.
        version: version of the code.
        resumes: whether a killed process leaves something to go on from.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str],
        version: int = 1,
        resumes: bool = False,
    ) -> None:
        self.folder = folder
        self.name = folder.name
        self.resumes = resumes
        self.content: dict[str, Any] = {
            "stage": self.name,
            "version": version,
            "settings": {**settings},
            "inputs": {**inputs},
        }
        self.key = json_sha256(self.content)

    @property
    def manifest(self) -> dict[str, Any]:
        """What it is made of, and its key."""
        return {"schema_version": SCHEMA_VERSION, **self.content, "key": self.key}

    @property
    def partial(self) -> Path:
        """The hidden folder with incomplete output."""
        return self.folder.with_name(f".{self.name}.{self.key[:12]}.partial")

    def partials(self) -> list[Path]:
        """The hidden folders of this stage that there are, those of other settings, too."""
        return [*self.folder.parent.glob(f".{self.name}.*.partial")]

    def is_done(self) -> bool:
        """Whether the finished folder has this key."""
        return has_manifest(self.folder) and not self.differences(self.folder)

    def differences(self, folder: Path) -> list[str]:
        """Names of values and inputs that differ from those that a folder was made with.

        Empty if the folder has this key. The folder has a manifest (`has_manifest`).
        """
        manifest = read_manifest(folder)
        if manifest["key"] == self.key:
            return []
        theirs = manifest["settings"] | manifest["inputs"]
        ours = json.loads(json.dumps(self.content["settings"] | self.content["inputs"]))
        differing = [name for name in theirs | ours if theirs.get(name) != ours.get(name)]
        return differing or ["version"]

    @contextmanager
    def writing(self, overwrite: bool = False) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield a folder to write and a dict for the summary; on success, it becomes the output.

        Args:
            overwrite: drop what a killed run left.

        Raises:
            UserError: the folder that the output would replace is of no stage.
        """
        require_of_stage(self.folder)
        if overwrite or not self.resumes:
            shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True, exist_ok=True)
        manifest = self.partial / STAGE_MANIFEST
        summary: dict[str, Any] = {}
        started = time.monotonic()
        try:
            with naming_full_disk(self.partial):
                if self.resumes and not manifest.is_file():
                    # Says of what a killed run left what it was for.
                    write_json(manifest, self._manifest_with(summary), default=_plain)
                yield self.partial, summary
                write_json(manifest, self._manifest_with(summary), default=_plain)
        except BaseException:
            if not self.resumes or {*os.listdir(self.partial)} <= {STAGE_MANIFEST}:
                shutil.rmtree(self.partial, ignore_errors=True)
            raise
        replace_folder(self.partial, self.folder)
        # Those of other settings.
        for rest in self.partials():
            shutil.rmtree(rest, ignore_errors=True)
        entry = {"stage": self.name, "seconds": round(time.monotonic() - started, 1)}
        with (self.folder.parent / "stages.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")

    @contextmanager
    def writing_together(
        self, overwrite: bool = False, *, is_owner: bool
    ) -> Iterator[tuple[Path, dict[str, Any]]]:
        """`writing` by all processes of a launch, into the same folder.

        Args:
            overwrite: as for `writing`.
            is_owner: true in one process alone, which creates the folder, turns it into the output,
                and provides the summary. The summaries of the others are dropped.
        """
        if is_owner:
            with self.writing(overwrite) as folder_and_summary:
                yield folder_and_summary
        else:
            yield self.partial, {}

    def _manifest_with(self, summary: dict[str, Any]) -> dict[str, Any]:
        return self.manifest | {"versions": library_versions(), "summary": summary}


def library_versions() -> dict[str, str | None]:
    """The versions of this package and of `LIBRARIES`; None: it is not installed."""
    versions: dict[str, str | None] = dict.fromkeys(LIBRARIES)
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions | {"umls_reranker": __version__}


def _plain(value: Any) -> Any:
    """A NumPy number as a Python number, anything else as text."""
    return value.item() if getattr(value, "size", None) == 1 else str(value)
