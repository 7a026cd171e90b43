"""The stages of a run and their dependencies: the only place that says which recipe key makes which stage stale.

A recipe key is in the settings of the stages whose output it decides, and nowhere else. Settings of how a result is
computed (batch size per device, processes, workers, compilation, number of checkpoints) are in none. Settings that
must not change when a killed run resumes are listed by name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from os.path import expanduser
from pathlib import Path
from typing import Any

from .cores import started_processes
from .errors import UserError
from .files import json_sha256, model_sha256, remembered
from .recipe import Recipe
from .settings import chosen_retrievers, index_folders
from .stages import PlannedRun, RunFolder, Stage, read_manifest

ENCODER_FOLDER = "encoder"
# FAISS factory string of the exact index, which stores the vectors unchanged.
EXACT_INDEX = "Flat"
# Stage -> the command that writes it; all others are indexes.
COMMANDS = {
    "concepts": "prepare_data",
    "mentions": "prepare_data",
    "encoder": "train_encoder",
    "candidates": "build_index",
    "pairs": "mine_negatives",
    "checkpoints": "train",
    "model": "calibrate",
}
# Names of files that only the mentions are read from.
MENTION_FILES = ("MRCUI", "corpus", "train_documents", "dev_documents", "test_documents")
# Files count by content, not by path.
CONCEPT_PATHS = ("umls_dir", "obo")
MENTION_PATHS = ("corpus", "candidate_lists", "train_documents", "dev_documents", "test_documents")
ENCODER_KEYS = ("encoder", "encoder_revision", "encoder_pooling", "encoder_max_length")
# What the searches of a killed mining depend on; numbers and weights of negatives are used later.
SEARCH_KEYS = ("retrievers", "index_parameters", "neighbors", "max_train_mentions", "seed")
# Shards of a search in the folder of the pairs.
SEARCHED = "*/.nearest-*.npz"
# Prefixes of training keys that say how a result is computed, stored or logged; all others affect the result.
NOT_DECIDING = (
    *(
        "dataloader_",
        "ddp_",
        "eval_accumulation",
        "full_determinism",
        "gradient_accumulation",
        "gradient_checkpointing",
    ),
    *("per_device_", "skip_memory", "torch_", "save_total_limit"),
    *("debug", "disable_tqdm", "include_num_input", "log", "project", "report_to", "trackio_"),
)
# They decide which checkpoint is the last, but not its content.
STOPPING_KEYS = ("early_stopping_patience", "eval_on_start")


def index_key(folder: Path, retrievers: Iterable[str]) -> str:
    """Identity of the encoder and indexes in a run or index folder, which decide the scores of its retrievers."""
    return json_sha256({name: read_manifest(folder / name)["key"] for name in index_folders(retrievers)})


def key_of_lists(run: Path) -> str:
    """The `index_key` that a run's candidate lists were retrieved with; "" if they are user-provided."""
    inputs = read_manifest(run / "candidates")["inputs"]
    return json_sha256(made) if (made := _without(inputs, ("mentions",))) else ""


def prepared_stages(recipe: Recipe, run: RunFolder, files: Mapping[str, str]) -> tuple[Stage, ...]:
    """``concepts`` and ``mentions``, and ``candidates`` for user-provided candidate lists.

    Args:
        recipe: its recipe.
        run: the run folder.
        files: name, numbered if there are several, -> fingerprint of each input file.
    """
    _require_encoder(recipe)
    of_mentions = {name for name in files if name.split()[0] in MENTION_FILES}
    settings = _without(asdict(recipe.concepts), CONCEPT_PATHS)
    if recipe.mentions.mention_source == "held_out_synonyms":
        # Held-out synonyms leave the dictionary.
        settings["held_out_synonyms"] = {"seed": recipe.run.seed}
    concepts = run.stage("concepts", settings, _without(files, of_mentions))
    settings = _without(asdict(recipe.mentions), MENTION_PATHS) | {"seed": recipe.run.seed}
    inputs = {name: files[name] for name in sorted(of_mentions)} | {"concepts": concepts.key}
    mentions = run.stage("mentions", settings, inputs)
    if recipe.mentions.candidate_lists:
        return concepts, mentions, run.stage("candidates", {}, {"mentions": mentions.key})
    return concepts, mentions


def encoder_stage(recipe: Recipe, run: RunFolder) -> Stage:
    """``encoder``, if the recipe trains one."""
    _require_retrieval(recipe)
    settings = asdict(recipe.encoder) | _encoder_settings(recipe)
    settings |= {"seed": recipe.run.seed}
    inputs = _made(run, "concepts", "mentions")
    return run.stage(
        "encoder", settings, inputs, resumes_with=settings | inputs, keeps="checkpoints/checkpoint-*/complete"
    )


def index_stages(recipe: Recipe, run: RunFolder) -> dict[str, Stage]:
    """``vectors``, the indexes of the recipe's retrievers, and ``candidates``, in this order."""
    _require_retrieval(recipe)
    made = _made(run, "concepts", "mentions", *([ENCODER_FOLDER] if recipe.encoder.encoder_training_steps else []))
    mentions = made.pop("mentions")
    embedding = _encoder_settings(recipe) | {"encoder_dtype": recipe.index.encoder_dtype}
    vectors = run.stage("vectors", embedding, made, resumes_with=embedding | made, keeps="*.npy")
    stages, made = {"vectors": vectors}, made | {"mentions": mentions, "vectors": vectors.key}
    for retriever in chosen_retrievers(recipe.index.retrievers):
        if retriever.folder is None:
            continue
        settings = retriever.settings(recipe)
        if "encoder" in retriever.inputs and "vectors" not in retriever.inputs:
            settings = embedding | settings
        # An encoder that the run does not train is in the settings only.
        read = {name: made[name] for name in retriever.inputs if name in made}
        stages[retriever.folder] = run.stage(retriever.folder, settings, read)
    settings = {
        key: getattr(recipe.index, key) for key in ("candidates_per_mention", "retrievers", "index_parameters")
    }
    inputs = {name: stage.key for name, stage in stages.items() if name != "vectors"} | {"mentions": mentions}
    return stages | {"candidates": run.stage("candidates", settings, inputs)}


def needs_vectors(recipe: Recipe, stages: Mapping[str, Stage]) -> bool:
    """Whether an unfinished stage reads ``vectors``, or they exist anyway.

    An exact index holds the vectors themselves, so vectors/ may be removed once it is built.

    Args:
        recipe: the recipe.
        stages: what `index_stages` returns.
    """
    readers = ["index"] if recipe.index.index_factory == EXACT_INDEX else ["index", "candidates"]
    return stages["vectors"].is_done() or not all(stages[name].is_done() for name in readers)


def pairs_stage(recipe: Recipe, run: RunFolder) -> Stage:
    """``pairs``."""
    # Version 2: the nearest negatives are called so.
    settings = asdict(recipe.mining) | {"seed": recipe.run.seed, "schema_version": 2}
    settings |= {key: getattr(recipe.model, key) for key in ("candidate_fields", "mention_types")}
    if recipe.mentions.candidate_lists:
        return run.stage("pairs", settings, _made(run, "mentions", "candidates"))
    settings |= {key: getattr(recipe.index, key) for key in ("retrievers", "index_parameters")}
    searched = _made(run, "mentions", *index_folders(recipe.index.retrievers))
    return run.stage("pairs", settings, searched, resumes_with=(*SEARCH_KEYS, *searched), keeps=SEARCHED)


def checkpoints_stage(recipe: Recipe, run: RunFolder) -> Stage:
    """``checkpoints``."""
    values = asdict(recipe.model) | recipe.training.to_dict() | {"seed": recipe.run.seed}
    settings = {name: value for name, value in values.items() if not name.startswith(NOT_DECIDING)}
    settings["model"] = _model(recipe.model.model, recipe)
    # If the recipe does not set it, the number of processes of this launch decides the result.
    settings["global_batch_size"] = recipe.training.pairs_per_step(started_processes())
    names = ["pairs", "candidates"]
    _require_encoder(recipe)
    if recipe.model.start_from_encoder:
        names.append("encoder")
    inputs = _made(run, *names)
    resumes_with = _without(settings, STOPPING_KEYS) | inputs
    return run.stage("checkpoints", settings, inputs, resumes_with=resumes_with, keeps="checkpoint-*/complete")


def model_stage(recipe: Recipe, run: RunFolder) -> Stage:
    """``model``."""
    settings = asdict(recipe.calibration) | {"scoring_dtype": recipe.run.scoring_dtype, "seed": recipe.run.seed}
    return run.stage("model", settings, _made(run, "checkpoints", "candidates"))


def report_stage(recipe: Recipe, run: RunFolder) -> Stage:
    """``report``."""
    settings = {"bootstrap_resamples": recipe.evaluation.bootstrap_resamples, "seed": recipe.run.seed}
    return run.stage("report", settings, _made(run, "model", "candidates", "pairs"))


def planned_stages(recipe: Recipe, path: Path, files: Mapping[str, str]) -> dict[str, Stage]:
    """All stages of a recipe in order, as if those before each were finished.

    Args:
        recipe: its recipe.
        path: the run folder.
        files: as for `prepared_stages`.
    """
    run = PlannedRun(path)
    prepared_stages(recipe, run, files)
    if not recipe.mentions.candidate_lists:
        if recipe.encoder.encoder_training_steps:
            encoder_stage(recipe, run)
        if not needs_vectors(recipe, index_stages(recipe, run)) and not recipe.run.overwrite:
            del run.stages["vectors"]
    pairs_stage(recipe, run)
    checkpoints_stage(recipe, run)
    model_stage(recipe, run)
    report_stage(recipe, run)
    return run.stages


def _require_retrieval(recipe: Recipe) -> None:
    if recipe.mentions.candidate_lists:
        raise UserError(
            "the recipe has candidate_lists, which replace encoder, index and retrieval; skip this stage and run "
            "umls-reranker mine_negatives after umls-reranker prepare_data"
        )
    if "dense" not in recipe.index.retrievers:
        raise UserError(f"retrievers: {recipe.index.retrievers} lacks dense, whose cosines are always needed; add it")


def _require_encoder(recipe: Recipe) -> None:
    trains_one = recipe.encoder.encoder_training_steps and not recipe.mentions.candidate_lists
    if recipe.model.start_from_encoder and not trains_one:
        raise UserError(
            "start_from_encoder: the recipe trains no encoder (it has candidate_lists, or no encoder_training_steps); "
            "set it to false"
        )


def _encoder_settings(recipe: Recipe) -> dict[str, Any]:
    settings = {key: getattr(recipe.index, key) for key in ENCODER_KEYS}
    return settings | {"encoder": _model(recipe.index.encoder, recipe)}


def _model(model: str, recipe: Recipe) -> str:
    """Identity of a model: the content of a local folder, wherever it is, or the name on the Hub."""
    folder = Path(expanduser(model))
    if not folder.is_dir():
        return model
    return f"sha256:{remembered(model_sha256, folder, Path(recipe.run.cache_dir))}"


def _made(run: RunFolder, *stages: str) -> dict[str, str]:
    """Stage -> key of its finished output."""
    return {stage: run.key_of(stage, COMMANDS.get(stage, "build_index")) for stage in stages}


def _without(settings: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}
