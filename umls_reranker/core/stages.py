"""Stages of a run: each is a folder that is either finished, with a manifest, or missing.

A stage writes into a hidden folder next to its own, which is renamed when it is complete. So a killed run never leaves
incomplete output under a finished name, and a failed stage leaves the former output untouched.

A stage answers two questions. Is its output up to date? The manifest holds a key: a SHA-256 over the settings that
decide the output, the fingerprints of its inputs and the package version. A stage with the same key is skipped. Can a
killed run be resumed? The hidden folder records what its content was made with; only the listed settings must be the
same. Nothing worth keeping is dropped without --overwrite.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .files import (
    hold,
    json_sha256,
    naming_full_disk,
    partial_path,
    read_json,
    replace_folder,
    write_json,
)
from .version import __version__

if TYPE_CHECKING:
    from datasets import DatasetDict

STAGE_MANIFEST = "manifest.json"
# Written first: what the folder is made with, for a run that finds it incomplete.
RESUME_FILE = "resume.json"
# Whose versions a manifest records.
LIBRARIES = ("accelerate", "datasets", "faiss-cpu", "scikit-learn", "torch", "transformers")
# Entries of a summary that say how much a folder holds.
SIZES = {"concepts", "mentions", "names", "pairs", "steps", "strings"}


def _plain(value: Any) -> Any:
    """A NumPy number as a Python number, anything else as text."""
    return value.item() if getattr(value, "size", None) == 1 else str(value)


def _sizes(summary: Mapping[str, Any], *path: str) -> Iterator[str]:
    for name, value in summary.items():
        if isinstance(value, Mapping):
            yield from _sizes(value, *path, name)
        elif isinstance(value, int) and value and SIZES & {*path, name}:
            yield f"{' '.join([*path, name])} {value:,}"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished stage.

    Raises:
        UserError: it is missing, or was changed or cut short.
    """
    path = folder / STAGE_MANIFEST
    content, kinds = read_json(path), {"key": str, "settings": dict, "inputs": dict, "summary": dict}
    if not isinstance(content, dict) or not all(isinstance(content.get(key), kind) for key, kind in kinds.items()):
        raise UserError(f"{path} is not as the stage wrote it; rebuild {folder} with --overwrite")
    return content


def library_versions() -> dict[str, str | None]:
    """Library -> version, None if unknown."""
    versions: dict[str, str | None] = dict.fromkeys(LIBRARIES)
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


class Stage:
    """One step of a run and the folder it owns.

    Args:
        folder: folder of the finished output, e.g. ``runs/quickstart/index``.
        settings: the part of the recipe that decides the output; must be JSON-able.
        inputs: name -> fingerprint of every input of the stage.
        resumes_with: the settings and inputs that must be the same to resume a killed run; None: the stage always
            starts over.
        keeps: pattern of files that make the hidden folder worth keeping.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str],
        resumes_with: Iterable[str] | None = None,
        keeps: str = "*",
    ) -> None:
        self.folder = folder
        self.settings = dict(settings)
        self.inputs = dict(inputs)
        self.keeps = keeps
        self.facts: dict[str, Any] | None = None
        if resumes_with is not None:
            known = self.settings | self.inputs
            facts = {name: known[name] for name in resumes_with} | {"umls_reranker": __version__}
            self.facts = json.loads(json.dumps(facts))
        content = {"stage": folder.name, "settings": self.settings, "inputs": self.inputs, "version": __version__}
        self.key = json_sha256(content)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def partial(self) -> Path:
        """The hidden folder with incomplete output."""
        return partial_path(self.folder)

    def is_done(self) -> bool:
        """Whether the finished folder was made with the same settings, inputs and version."""
        former = self.former()
        return former is not None and former["key"] == self.key

    def resumes(self) -> bool:
        """Whether the hidden folder holds something that this stage can resume from.

        Raises:
            UserError: it holds something worth keeping that was made with other settings or inputs, which are named.
        """
        if self.facts is None or next(self.partial.glob(self.keeps), None) is None:
            return False
        try:
            former = read_json(self.partial / RESUME_FILE)
            changed = self._changed(former, self.facts)
        except (UserError, TypeError):
            raise UserError(
                f"{self.partial} holds output of an interrupted run of another version; use --overwrite to discard it "
                "and start over"
            ) from None
        if changed:
            raise UserError(
                f"{self.partial} holds output of an interrupted run with {changed}; restore this setting to resume, "
                "or use --overwrite to discard it and start over"
            )
        return True

    def former(self) -> dict[str, Any] | None:
        """The manifest of the finished folder, or None."""
        return read_manifest(self.folder) if (self.folder / STAGE_MANIFEST).is_file() else None

    def outdated(self) -> str:
        """Differences to what the finished folder was made with, in words; empty without such a folder."""
        former = self.former()
        if former is None:
            return ""
        known = former["settings"] | former["inputs"]
        return self._changed(known, json.loads(json.dumps(self.settings | self.inputs))) or "another version"

    def sizes(self) -> str:
        """Numbers of concepts, mentions, pairs and so on in the finished folder, in words."""
        former = self.former()
        return ", ".join(_sizes(former["summary"])) if former else ""

    def _changed(self, former: Mapping[str, Any], now: Mapping[str, Any]) -> str:
        names = [name for name in {**former, **now} if former.get(name) != now.get(name)]
        inputs = {name for name in names if name in self.inputs or name not in now}
        return "; ".join(
            f"other {name}" if name in inputs else f"{name} {former.get(name)!r}, now {now[name]!r}" for name in names
        )

    @contextmanager
    def writing(self, overwrite: bool = False, *, owner: bool = True) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield a folder to write into and a dict for the summary; on success the folder becomes the output.

        Args:
            overwrite: drop the remains of a killed run, even if it could be resumed.
            owner: False in all processes of a launch but one. All write into the same folder; the owner creates it,
                turns it into the output, and provides the summary.

        Raises:
            UserError: as for `resumes`.
        """
        if not owner:
            yield self.partial, {}
            return
        resumable = self.facts is not None
        if overwrite or not self.resumes():
            shutil.rmtree(self.partial, ignore_errors=True)
            self.partial.mkdir(parents=True)
            if resumable:
                write_json(self.partial / RESUME_FILE, self.facts)
        summary: dict[str, Any] = {}
        started = time.time()
        try:
            with naming_full_disk(self.partial):
                yield self.partial, summary
                # A value that JSON cannot hold must not lose the output.
                write_json(self.partial / STAGE_MANIFEST, self._manifest(summary), default=_plain)
        except BaseException:
            if not resumable:
                shutil.rmtree(self.partial, ignore_errors=True)
            raise
        replace_folder(self.partial, self.folder)
        self._log(time.time() - started)

    def _manifest(self, summary: dict[str, Any]) -> dict[str, Any]:
        return {
            "schema_version": 1,
            "stage": self.name,
            "key": self.key,
            "settings": self.settings,
            "inputs": self.inputs,
            "versions": {"umls_reranker": __version__} | library_versions(),
            "summary": summary,
        }

    def _log(self, seconds: float) -> None:
        entry = {"stage": self.name, "seconds": round(seconds, 1), "finished": time.strftime("%Y-%m-%d %H:%M:%S")}
        with (self.folder.parent / "stages.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")


class RunFolder:
    """The folder of one run, ``output_dir/run_name``; each stage owns one sub-folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def key_of(self, stage: str, made_by: str) -> str:
        """Key of a finished stage, to use as another stage's input.

        Raises:
            UserError: the stage has not been run; the message names the command that runs it.
        """
        if not (self.path / stage / STAGE_MANIFEST).is_file():
            raise UserError(
                f"{self.path / stage} does not exist yet; run umls-reranker {made_by} with the same recipe first"
            )
        return read_manifest(self.path / stage)["key"]

    def splits(self, stage: str) -> DatasetDict:
        """The data of a finished stage, memory-mapped.

        Raises:
            UserError: files are missing or damaged.
        """
        from datasets import Dataset, DatasetDict

        folder = self.path / stage
        try:
            files = sorted(folder.glob("*.arrow"))
            return DatasetDict({file.stem: Dataset.from_file(str(file)) for file in files})
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} is damaged ({error}); rebuild it with --overwrite") from None

    def stage(self, name: str, settings: Mapping[str, Any], inputs: Mapping[str, str], **resuming: Any) -> Stage:
        """A stage of this run; `resuming` holds the other arguments of `Stage`."""
        return Stage(self.path / name, settings, inputs, **resuming)

    def seconds(self) -> dict[str, float]:
        """Seconds of the latest run of each stage."""
        log = self.path / "stages.jsonl"
        seconds = {}
        for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else ():
            # A full disk may have left a partial line.
            with suppress(ValueError, TypeError, KeyError):
                entry = json.loads(line)
                seconds[entry["stage"]] = float(entry["seconds"])
        return seconds

    @contextmanager
    def locked(self, *, dry_run: bool = False, owner: bool = True) -> Iterator[None]:
        """Lock the run folder against a second process; the lock ends with the process.

        Args:
            dry_run: nothing will be written, so create neither folder nor lock.
            owner: False in all processes of a launch but one, which holds the lock for all.
        """
        if dry_run or not owner:
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with hold(
            self.path / ".lock", f"another process is using {self.path}; wait for it or choose another run_name"
        ):
            yield


class PlannedRun(RunFolder):
    """The run folder of a dry run: a stage counts as finished, with the key that it would get.

    Attributes:
        stages: the stages by name, in the order in which they were asked for.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.stages: dict[str, Stage] = {}

    def key_of(self, stage: str, made_by: str) -> str:
        return self.stages[stage].key if stage in self.stages else super().key_of(stage, made_by)

    def stage(self, name: str, settings: Mapping[str, Any], inputs: Mapping[str, str], **resuming: Any) -> Stage:
        self.stages[name] = super().stage(name, settings, inputs, **resuming)
        return self.stages[name]
