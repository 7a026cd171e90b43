"""The folder of a run: which of its stages are finished, with which settings, and what is due.

A stage is due if it is not finished, or was made with other settings than the recipe's: a hash of
its settings and of what it was made from is its key (`Stage`).
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError
from ..core.files import FORMER, hold, restore_folder
from ..core.hashes import file_sha256
from ..core.keys import RunArguments
from ..core.stage import (
    STAGE_MANIFEST,
    Stage,
    StageInputs,
    has_manifest,
    read_manifest,
    require_of_stage,
)
from ..models.model_files import model_identity
from .recipe import Recipe
from .stages import DOCUMENT_LISTS, stage_table

if TYPE_CHECKING:
    from datasets import DatasetDict

    from ..lists.annotated_lists import AnnotatedLists

# Keys with a path: files count by content, so that they may be moved.
PATHS = ("umls_dir", "obo", "names", "add_names", "corpus", *DOCUMENT_LISTS)
# Input files, by name, that only the mentions are read from.
MENTION_FILES = ("MRCUI", "corpus", *DOCUMENT_LISTS)


def make_stage(
    name: str,
    recipe: Recipe,
    run: RunFolder,
    files: Mapping[str, str] | None = None,
    planned: Mapping[str, Stage] = MappingProxyType({}),
) -> Stage:
    """A stage of a recipe.

    Args:
        name: its name in `stage_table`.
        recipe: the recipe.
        run: the run folder.
        files: name, numbered if there are several, -> hash of each input file; needed for concepts
            and mentions.
        planned: stages that count as finished, by name.

    Raises:
        UserError: a stage that it needs has not been run.
    """
    table = stage_table(recipe)
    stage = table[name]
    inputs = {}
    for need in stage.needs:
        if need not in table:
            continue
        if need in planned:
            inputs[need] = planned[need].key
        else:
            inputs[need] = run.key_of(need, table[need].command)
    if name in ("concepts", "mentions"):
        reads_all = recipe.mentions.concepts_of_mentions
        for file, sha256 in (files or {}).items():
            # "corpus 2" is the second file of the corpus.
            reader = "mentions" if file.split()[0] in MENTION_FILES else "concepts"
            if reads_all or name == reader:
                inputs[file] = sha256
    return stage.stage(run.path / name, settings_of(stage, recipe), inputs)


def settings_of(stage: StageInputs, recipe: Recipe) -> dict[str, Any]:
    """The values that a stage reads of a recipe; models count by content, not by path."""
    keys = {*stage.keys} - {*PATHS}
    settings = {key: value for key, value in recipe.to_dict().items() if key in keys}
    if "model" in settings:
        settings["model"] = recipe.base.name
        settings["model_revision"] = recipe.base.revision
    cache = Path(recipe.run.cache_dir)
    for key in {"encoder", "model"} & settings.keys():
        settings[key] = model_identity(settings[key], cache)
    if "teacher" in settings:
        settings["teacher"] = [model_identity(model, cache) for model in settings["teacher"]]
    return settings


def planned_stages(
    recipe: Recipe,
    path: Path,
    files: Mapping[str, str] | None = None,
    command: str | None = None,
) -> dict[str, Stage]:
    """The stages of a recipe in order, as if those before each were finished.

    Args:
        recipe: the recipe.
        path: the run folder.
        files: as for `make_stage`.
        command: the command that makes the stages, which needs those of others finished; None: any.

    Raises:
        UserError: as for `make_stage`.
    """
    stages: dict[str, Stage] = {}
    for name, inputs in stage_table(recipe).items():
        if command in (None, inputs.command):
            stages[name] = make_stage(name, recipe, RunFolder(path), files, stages)
    return stages


def tell_other_settings(recipe: Recipe, run: RunFolder, needs: Iterable[str]) -> None:
    """Warn, in one line, of earlier output that was made with other settings than the recipe's.

    Args:
        recipe: the recipe.
        run: the run folder.
        needs: stages whose output is read; those that they are made from are looked at, too.

    Raises:
        UserError: a manifest is not as its stage wrote it.
    """
    table = stage_table(recipe)
    in_use = {*needs}
    # A stage is made from those before it in the table.
    for name in reversed(table):
        if name in in_use:
            in_use.update(table[name].needs)
    differing = []
    for name in table:
        if name in in_use and run.has(name):
            changed = made_otherwise(name, table, recipe, run)
            if changed:
                differing.append(f"{name} ({', '.join(changed)})")
    if differing and os.environ.get("RANK", "0") == "0":
        warnings.warn(
            f"{run.path}: made with other settings than those of this recipe, and used as it is: "
            f"{', '.join(differing)}; umls-reranker run makes it again",
            stacklevel=2,
        )


def made_otherwise(
    name: str, table: Mapping[str, StageInputs], recipe: Recipe, run: RunFolder
) -> list[str]:
    """Names of the values and stages that a finished stage was not made with.

    The files that concepts and mentions were read from count as unchanged: they need not be here.
    """
    folder = run.path / name
    stage = table[name]
    former_inputs = read_manifest(folder)["inputs"]
    inputs = {}
    if name in ("concepts", "mentions"):
        inputs = dict(former_inputs)
    for need in stage.needs:
        if need not in table:
            continue
        if run.has(need):
            inputs[need] = run.key_of(need, table[need].command)
        else:
            inputs[need] = former_inputs.get(need, "")
    return stage.stage(folder, settings_of(stage, recipe), inputs).differences(folder)


def should_run(stage: Stage, run: RunArguments) -> bool:
    """Whether the stage must run; prints once, to standard error, what happens and why.

    Raises:
        UserError: the folder that it would replace is of no stage.
    """
    require_of_stage(stage.folder)
    needed = run.overwrite or not stage.is_done()
    if os.environ.get("RANK", "0") == "0":
        plan = _plan_of(stage, run) if needed else f"up to date in {stage.folder}"
        print(f"[{stage.name}] {plan}", file=sys.stderr)
    return needed and not run.dry_run


def _plan_of(stage: Stage, run: RunArguments) -> str:
    """What becomes of a stage that has to be made, and of what a killed run left of it."""
    plan = f"-> {stage.folder}"
    if run.dry_run:
        how = "written to"
        if not run.overwrite and has_manifest(stage.folder):
            how = f"rebuilt ({', '.join(stage.differences(stage.folder))}) in"
        plan = f"would be {how} {stage.folder}"
    if run.overwrite or not stage.resumes or not stage.partials():
        return plan
    if stage.partial.exists():
        return f"{plan}, resuming an interrupted run"
    newest = max(stage.partials(), key=os.path.getmtime)
    differing = "in its keys"
    if has_manifest(newest):
        differing = ", ".join(stage.differences(newest))
    return f"{plan}, from the start: an interrupted run differs ({differing})"


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, ``output_dir/run_name``; each stage owns one sub-folder."""

    path: Path

    @contextmanager
    def due(self, name: str, recipe: Recipe) -> Iterator[Stage | None]:
        """The stage of this name, under the lock of the run; None if it is not to be made."""
        stage = make_stage(name, recipe, self)
        tell_other_settings(recipe, self, stage_table(recipe)[name].needs)
        with self.locked(dry_run=recipe.run.dry_run):
            due = stage if should_run(stage, recipe.run) else None
            yield due

    def has(self, stage: str) -> bool:
        """Whether a stage is finished, with whatever settings."""
        return (self.path / stage / STAGE_MANIFEST).is_file()

    def key_of(self, stage: str, made_by: str) -> str:
        """Key of a finished stage, to use as another stage's input.

        Raises:
            UserError: the stage has not been run; the message names the command that runs it.
        """
        if not self.has(stage):
            raise UserError(
                f"{self.path / stage} does not exist yet; run umls-reranker {made_by} "
                "with the same recipe first"
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
            return DatasetDict(
                {file.stem: Dataset.from_file(str(file)) for file in sorted(folder.glob("*.arrow"))}
            )
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} is damaged ({error}); rebuild it with --overwrite") from None

    def lists(self, split: str) -> AnnotatedLists:
        """The candidate lists of a split, completed by the run's dictionary.

        Raises:
            UserError: the file is not as the stage wrote it.
        """
        from ..lists.run_lists import read_run_lists
        from ..vocab.concept_table import ConceptTable

        path = self.path / "lists" / f"{split}.arrow"
        written = read_manifest(self.path / "lists")["summary"].get("sha256", {})
        if split in written and file_sha256(path) != written[split]:
            raise UserError(
                f"{path} was changed after it was written; make it again with --overwrite"
            )
        return read_run_lists(self.path, split, ConceptTable.load(self.path / "concepts"))

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
        refusal = f"another process is using {self.path}; wait for it or choose another run_name"
        with hold(self.path / ".lock", refusal):
            for former in self.path.glob(f".*{FORMER}"):
                restore_folder(former)
            yield
