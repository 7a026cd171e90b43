"""Stages of a run: folders that are either finished, with a manifest, or not there.

A stage writes into a hidden folder next to its own and is renamed when it is complete, so a killed run never leaves
half-written output under a finished name, and a stage that fails leaves the former output untouched.

Two questions are asked of a stage. Is its output up to date? The manifest holds a key: a SHA-256 over the settings
that decide the output, its inputs' fingerprints and the package version. A stage whose key has not changed is skipped.
May a killed run be resumed? The hidden folder says what its content is made with; only what the stage names must be
the same. What is worth keeping is never dropped without being told to.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import UserError
from .files import (
    json_sha256,
    link_or_copy,
    naming_full_disk,
    partial_path,
    read_json,
    replace_folder,
    write_json,
    written,
)
from .locks import hold
from .version import __version__

__all__ = ["LINEAGE", "RunFolder", "Stage"]

STAGE_MANIFEST = "manifest.json"
# Written first: what the content of the folder is made with, for a run that finds it unfinished.
RESUME_FILE = "resume.json"
# What a forked run says about the run it comes from.
LINEAGE = "lineage.json"
# Library -> the names under which it may be installed: FAISS has one for each build.
LIBRARIES: dict[str, tuple[str, ...]] = {
    name: (name,) for name in ("accelerate", "datasets", "scikit-learn", "torch", "transformers")
}
LIBRARIES["faiss"] = ("faiss-cpu", "faiss-gpu", "faiss")


def _plain(value: Any) -> Any:
    """A NumPy number as Python's, anything else as text."""
    return value.item() if getattr(value, "size", None) == 1 else str(value)


def library_versions() -> dict[str, str | None]:
    """Library -> version, None where nothing says which one is installed."""
    found: dict[str, str | None] = dict.fromkeys(LIBRARIES)
    for library, names in LIBRARIES.items():
        for name in names:
            with suppress(importlib.metadata.PackageNotFoundError):
                found[library] = importlib.metadata.version(name)
                break
    return found


class Stage:
    """One step of a run and the folder it owns.

    Args:
        folder: where the finished output lies, e.g. ``runs/quickstart/index``.
        settings: the part of the recipe that decides the output; must be JSON-able.
        inputs: name -> fingerprint of everything the stage reads.
        resumes_with: the settings and inputs that must be the same to resume a killed run; None: the stage is always
            made from its beginning.
        keeps: pattern of files, one of which in the hidden folder makes it worth keeping.
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
        """The hidden folder that holds output in the making."""
        return partial_path(self.folder)

    def is_done(self) -> bool:
        """Whether the finished folder was made with the same settings, inputs and version."""
        manifest = self.folder / STAGE_MANIFEST
        return manifest.is_file() and read_json(manifest).get("key") == self.key

    def resumes(self) -> bool:
        """Whether the hidden folder holds something that a run of this stage takes up.

        Raises:
            UserError: it holds something worth keeping that was made with other settings or inputs; names them.
        """
        if self.facts is None or next(self.partial.glob(self.keeps), None) is None:
            return False
        try:
            former = read_json(self.partial / RESUME_FILE)
            changed = [name for name, fact in self.facts.items() if former[name] != fact]
        except (UserError, KeyError, TypeError):
            raise UserError(
                f"{self.partial} holds what a killed run of another version made; give --overwrite to drop it and "
                "start anew"
            ) from None
        if changed:
            named = "; ".join(
                f"other {name}" if name in self.inputs else f"{name} {former[name]!r}, now {self.facts[name]!r}"
                for name in changed
            )
            raise UserError(
                f"{self.partial} holds what a killed run made with {named}; set this back to resume from it, or give "
                "--overwrite to drop it and start anew"
            )
        return True

    @contextmanager
    def writing(self, overwrite: bool = False, *, owner: bool = True) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Give a folder to write into and a dict for the summary; on success the folder becomes the output.

        Args:
            overwrite: drop what a killed run left, also where it could be resumed.
            owner: False in all processes of a launch but one: they write into the same folder, which the owner makes
                and turns into the output; only the owner's summary counts.

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
                # What a summary cannot say is no reason to lose the output.
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
        manifest = self.path / stage / STAGE_MANIFEST
        if not manifest.is_file():
            raise UserError(
                f"{self.path / stage} is not there yet; run umls-reranker {made_by} with the same recipe first"
            )
        return read_json(manifest)["key"]

    def stage(self, name: str, settings: Mapping[str, Any], inputs: Mapping[str, str], **resuming: Any) -> Stage:
        """A stage of this run; `resuming` is what `Stage` takes beyond settings and inputs."""
        return Stage(self.path / name, settings, inputs, **resuming)

    def fork(self, path: Path, leave_out: Sequence[str]) -> RunFolder:
        """A new run folder with this run's finished stages, as links to their files: no copy, no second making.

        Output is never changed in place, so neither run sees what becomes of the other.

        Args:
            path: of the new run folder, on the same file system.
            leave_out: stages that are not taken along.

        Raises:
            UserError: there is something at `path`.
        """
        if path.exists():
            raise UserError(f"{path} is there already; choose another name")
        with written(path) as partial:
            for manifest in sorted(self.path.glob(f"*/{STAGE_MANIFEST}")):
                stage = manifest.parent.name
                if stage not in leave_out:
                    shutil.copytree(self.path / stage, partial / stage, copy_function=link_or_copy)
        return RunFolder(path)

    def seconds(self) -> dict[str, float]:
        """Seconds that the latest run of each stage took."""
        log = self.path / "stages.jsonl"
        entries = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
        return {entry["stage"]: entry["seconds"] for entry in entries}

    @contextmanager
    def locked(self, *, dry_run: bool = False, owner: bool = True) -> Iterator[None]:
        """Hold the run folder against a second process; the lock goes away with the process, however it ends.

        Args:
            dry_run: nothing will be written, so neither folder nor lock is made.
            owner: False in all processes of a launch but one, which holds the lock for them all.
        """
        if dry_run or not owner:
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with hold(
            self.path / ".lock", f"another process is working in {self.path}; wait for it or choose another run_name"
        ):
            yield
