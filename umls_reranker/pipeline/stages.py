"""The stages of a run: a table of what each reads, and the folder of the run."""

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
from ..core.stage import STAGE_MANIFEST, Stage, StageInputs, has_manifest, read_manifest
from ..corpora.arguments import MentionArguments
from ..models.model_files import model_identity
from ..retrieval.build import ENCODER_KEYS, index_table
from ..retrieval.retrievers import Dense, index_folders, require_ordering
from .recipe import SECTIONS, Recipe
from .recipe_file import FORMER_KEY
from .recipe_keys import keys_of

if TYPE_CHECKING:
    from datasets import DatasetDict

    from ..lists.candidate_lists import AnnotatedLists

DOCUMENT_LISTS = ("train_documents", "dev_documents", "test_documents")
# Files count by content, not by path.
PATHS = ("umls_dir", "obo", "names", "add_names", "corpus", *DOCUMENT_LISTS)
# Input files, by name, that only the mentions are read from.
MENTION_FILES = ("MRCUI", "corpus", *DOCUMENT_LISTS)
# Training keys that say how a result is computed, stored or logged; all others decide it.
NEUTRAL = {
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_checkpointing",
    "save_total_limit",
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "dataloader_pin_memory",
    "torch_compile",
    "report_to",
    "project",
    "logging_steps",
    "logging_first_step",
    "disable_tqdm",
    "ddp_timeout",
}


def stage_table(recipe: Recipe) -> dict[str, StageInputs]:
    """The stages of a recipe by name, in order.

    Raises:
        UserError: the recipe lacks what a stage needs.
    """
    held_out_shares(recipe.mentions)
    keys = {name: tuple(keys_of(section)) for name, section in SECTIONS.items()}
    mention_keys = (*keys["mentions"], "seed")
    concept_keys = keys["concepts"]
    if recipe.mentions.concepts_of_mentions:
        concept_keys += mention_keys
    # A key that recipes had before, so that finished concepts stay up to date.
    concept_values: dict[str, Any] = {"semantic_groups": []}
    # Held-out synonyms leave the dictionary.
    if recipe.mentions.mention_source == "held_out_synonyms":
        concept_values["seed"] = recipe.run.seed
    table = {
        "concepts": StageInputs(
            "prepare_data",
            concept_keys,
            version=2,
            values=concept_values,
        ),
        "mentions": StageInputs("prepare_data", mention_keys, ("concepts",)),
    }
    table |= index_stages(recipe)
    pair_keys = {*keys["mining"], "candidate_fields", "mention_types", "seed"}
    if recipe.mining.teacher:
        pair_keys |= {"max_length", "context_tokens", "scoring_dtype"}
    if recipe.mining.min_nearest_cosine is None:
        # A key that recipes did not have at first, so that finished pairs stay up to date.
        pair_keys.remove("min_nearest_cosine")
    elif Dense.name not in recipe.index.retrievers:
        raise UserError("min_nearest_cosine: needs the retriever dense; add it to retrievers")
    table["pairs"] = StageInputs("mine_negatives", pair_keys, ("lists",))
    of_training: tuple[str, ...] = ("pairs", "lists")
    if recipe.starts_from_trained_encoder:
        of_training += ("encoder",)
    # A batch of bce had whole lists before.
    version = 2 if recipe.training.get("loss", "bce") == "bce" else 1
    table["checkpoints"] = StageInputs(
        "train",
        (*keys["model"], *(recipe.training.keys() - NEUTRAL), "seed"),
        of_training,
        version=version,
        resumes=True,
        # A key that recipes had before, so that finished trainings stay up to date.
        values={FORMER_KEY: recipe.starts_from_trained_encoder},
    )
    table["model"] = StageInputs(
        "calibrate",
        (*keys["calibration"], "scoring_dtype", "seed"),
        ("checkpoints", "lists"),
    )
    table["report"] = StageInputs("evaluate", ("seed",), ("model", "lists"))
    return table


def held_out_shares(mentions: MentionArguments) -> dict[str, float]:
    """Shares of dev, calibration and, unless `test_documents` are its own, test.

    Raises:
        UserError: the shares sum to more than 1, or leave nothing for test.
    """
    from_corpus = mentions.mention_source == "corpus"
    has_test = from_corpus and bool(mentions.test_documents)
    # 1 - 0.9 - 0.1 is negative, by rounding.
    rest = round(1.0 - mentions.dev_share - mentions.calibration_share, 9)
    refusal = (
        f"dev_share and calibration_share, {mentions.dev_share} and {mentions.calibration_share},"
    )
    if has_test and rest < 0:
        raise UserError(f"{refusal} must sum to at most 1")
    if not has_test and rest <= 0:
        reason = ", because test_documents is not set" if from_corpus else ""
        raise UserError(f"{refusal} must leave a share for the test split{reason}")
    shares = {"dev": mentions.dev_share, "calibration": mentions.calibration_share}
    if not has_test:
        shares["test"] = 1.0 - mentions.dev_share - mentions.calibration_share
    return shares


def index_stages(recipe: Recipe) -> dict[str, StageInputs]:
    """The stages from the bi-encoder to the candidates.

    Raises:
        UserError: none of the recipe's retrievers orders candidates.
    """
    index = recipe.index
    require_ordering(index.retrievers)
    table = {}
    if recipe.encoder.encoder_training_steps > 0:
        table["encoder"] = StageInputs(
            "train_encoder",
            (*keys_of(SECTIONS["encoder"]), *ENCODER_KEYS, "seed"),
            ("concepts", "mentions"),
            version=2,
            resumes=True,
        )
    table |= index_table(index.retrievers)
    table["lists"] = StageInputs(
        "build_index",
        ("candidates_per_mention", "retrievers", "index_parameters", "max_train_mentions", "seed"),
        ("mentions", *index_folders(index.retrievers)),
    )
    return table


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
            is_of_mentions = file.split()[0] in MENTION_FILES
            if reads_all or is_of_mentions == (name == "mentions"):
                inputs[file] = sha256
    return stage.stage(run.path / name, settings_of(stage, recipe), inputs)


def settings_of(stage: StageInputs, recipe: Recipe) -> dict[str, Any]:
    """The values that a stage reads of a recipe; models count by content, not by path."""
    keys = {*stage.keys} - {*PATHS}
    settings = {key: value for key, value in recipe.to_dict().items() if key in keys}
    if "model" in settings:
        settings["model"], settings["model_revision"] = recipe.base
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
    read = {*needs}
    # A stage is made from those before it in the table.
    for name in reversed(table):
        if name in read:
            read.update(table[name].needs)
    differing = []
    for name in table:
        if name in read and run.has(name):
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
    former = read_manifest(folder)["inputs"]
    inputs = former if name in ("concepts", "mentions") else {}
    stage = table[name]
    for need in stage.needs:
        if need in table:
            finished = run.key_of(need, table[need].command) if run.has(need) else None
            inputs = inputs | {need: finished or former.get(need, "")}
    return stage.stage(folder, settings_of(stage, recipe), inputs).differences(folder)


def should_run(stage: Stage, run: RunArguments) -> bool:
    """Whether the stage must run; prints once, to standard error, what happens and why."""
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
        from ..vocab.concepts import ConceptTable

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
