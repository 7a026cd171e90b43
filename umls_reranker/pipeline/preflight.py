"""What `umls-reranker run` checks before its first stage, and what it says of the run.

python -m umls_reranker.pipeline.preflight RECIPE [--KEY VALUE ...]
"""

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import faiss
import psutil

from ..core.devices import resolve_device, sharing_processes
from ..core.errors import CollectedErrors, UserError
from ..core.hashes import CHUNK_BYTES
from ..core.stage import require_of_stage
from ..core.text_files import open_binary
from ..evaluation.targets import parse_targets
from ..models.pair_template import PairTemplate
from ..retrieval.faiss_indexes import new_index, training_size
from ..training.losses import LOSSES
from ..training.recipe_arguments import loss_name, training_arguments
from ..training.training_arguments import RerankerTrainingArguments
from ..training.training_log import REPORTED_OF_PAIRS
from .command import run_script
from .estimate import (
    DiskNeeds,
    count_names,
    disk_needs,
    estimated_minutes,
    gigabytes,
    pairs_of_list,
    training_mentions,
)
from .hardware import batch_advice, devices_line, idle_gpus
from .model_configs import BERT_PARAMETERS, count_parameters, read_configs
from .options import parse_recipe
from .recipe import Recipe, typed_training
from .sources import input_files
from .stages import stage_table

# Input files, by name, that have the names of the dictionary.
DICTIONARY_FILES = ("MRCONSO", "obo", "names")
# Width of the vectors of BERT-base, if the configuration cannot be read.
BERT_DIMENSION = 768


def preflight(recipe: Recipe) -> str:
    """Check what stages would refuse only after hours; download missing model configurations.

    Returns:
        Lines: where the run computes, what it could do better there, and what it will need; at
        most, if the dictionary is filtered.

    Raises:
        UserError: names all faults, each with its key.
    """
    faults = CollectedErrors()
    training, arguments = read_training(recipe, faults)
    files: dict[str, tuple[Path, ...]] = {}
    with faults.collecting():
        files = input_files(recipe)
    dictionary = [path for name in DICTIONARY_FILES for path in files.get(name, ())]
    names = count_names(recipe, dictionary)
    configs = read_configs(recipe, faults)
    dimension = getattr(configs.get("encoder"), "hidden_size", BERT_DIMENSION)
    empty_index = read_index(recipe, dimension, dictionary, faults)
    with faults.collecting():
        PairTemplate.from_recipe(recipe.model)
    with faults.collecting():
        require_teacher(recipe, training)
    with faults.collecting():
        require_measured(parse_targets(recipe.evaluation.targets), training)
    for name in stage_table(recipe):
        with faults.collecting():
            require_of_stage(recipe.run.run_dir / name)
    parameters = BERT_PARAMETERS
    with faults.collecting():
        parameters = count_parameters(recipe, configs)
    retained_checkpoints = getattr(arguments, "save_total_limit", None) or 0
    needs = disk_needs(recipe, names, dimension, empty_index, parameters, retained_checkpoints)
    free_disk = 0
    with faults.collecting():
        free_disk = require_space(recipe, needs)
    faults.raise_any()
    # What is None has left a fault.
    assert arguments is not None
    figures = needs.text()
    config = configs.get("encoder") or configs.get("model")
    if config is not None and can_estimate_minutes(recipe):
        minutes = estimated_minutes(recipe, config, names, arguments.num_train_epochs)
        figures = f"{minutes:.0f} minutes here, {figures}"
    free_memory = psutil.virtual_memory().available
    estimate = (
        f"[estimate] {names:,} names, {figures}; "
        f"disk {gigabytes(needs.disk)} of {gigabytes(free_disk)} free, "
        f"memory {gigabytes(needs.memory)} of {gigabytes(free_memory)} free"
    )
    advice = batch_advice(arguments, pairs_of_list(recipe))
    return "\n".join([devices_line(recipe, arguments), *advice, estimate])


def can_estimate_minutes(recipe: Recipe) -> bool:
    """Whether the run computes on this processor, on a number of mentions that is known."""
    on_cpu = resolve_device(recipe.run.device).type == "cpu"
    # Of a corpus it is not known how many mentions are for calibration and evaluation.
    has_synonyms = recipe.mentions.mention_source == "held_out_synonyms"
    return on_cpu and has_synonyms and training_mentions(recipe) > 0


def read_training(
    recipe: Recipe, faults: CollectedErrors
) -> tuple[dict[str, Any], RerankerTrainingArguments | None]:
    """What the recipe says of training, {} if it is at fault; and the arguments, likewise None."""
    training: dict[str, Any] = {}
    arguments = None
    with faults.collecting():
        training = typed_training(recipe.training)
    with faults.collecting():
        arguments = training_arguments(recipe.run, training, recipe.run.run_dir)
    return training, arguments


def read_index(
    recipe: Recipe, dimension: int, dictionary: Sequence[Path], faults: CollectedErrors
) -> faiss.Index | None:
    """The empty index of vectors of the dictionary's names; None if the recipe is at fault."""
    index = recipe.index
    empty_index = None
    with faults.collecting():
        empty_index = new_index(dimension, index.index_factory, index.index_parameters or "")
    if empty_index is not None and dictionary and "dense" in index.retrievers:
        with faults.collecting():
            require_trainable(empty_index, recipe, dictionary)
    return empty_index


def require_trainable(index: faiss.Index, recipe: Recipe, dictionary: Sequence[Path]) -> None:
    """Refuse clusters that the dictionary has too few names for.

    Args:
        index: the empty index, which `training_size` asks how many names its clusters need.
        recipe: the recipe.
        dictionary: its files, of which a line, or a part between two "|", has at most one name.
    """
    if faiss.try_extract_index_ivf(index) is None:
        return
    separators = b"|\n" if recipe.concepts.concept_source == "names" else b"\n"
    most_names = 0
    for path in dictionary:
        with open_binary(path) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                most_names += sum(chunk.count(separator) for separator in separators)
    training_size(index, most_names)


def require_teacher(recipe: Recipe, training: Mapping[str, Any]) -> None:
    """Refuse a loss without the teacher whose scores it reads, and a teacher that it does not."""
    loss = loss_name(training)
    reads_teacher = LOSSES[loss].reads_teacher
    if reads_teacher and not recipe.mining.teacher:
        raise UserError(f"teacher: loss {loss} needs one; name a cross-encoder")
    if recipe.mining.teacher and not reads_teacher:
        raise UserError(
            f"teacher: loss {loss} does not read it; choose listwise_kl, or leave teacher out"
        )


def require_measured(targets: Mapping[str, str], training: Mapping[str, Any]) -> None:
    """Refuse targets of single pairs, where the loss compares the pairs of a list."""
    loss = loss_name(training)
    if LOSSES[loss].compares_pairs:
        for name in REPORTED_OF_PAIRS:
            if name in targets:
                raise UserError(
                    f"targets: with the loss {loss}, {name} of single pairs is not measured; "
                    "take candidate_roc_auc, or leave it out"
                )


def require_space(recipe: Recipe, needs: DiskNeeds) -> int:
    """Free bytes; too few are refused, where those that the run holds already count as free."""
    folder = recipe.run.run_dir
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(nearest).free
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed = needs.disk
    certainly_needed = needed
    concepts = recipe.concepts
    # How much a filter of the dictionary leaves is not known.
    if concepts.concept_types or concepts.sources or concepts.identifiers:
        certainly_needed = needs.checkpoints
    if certainly_needed > free + held:
        raise UserError(
            f"output_dir: {recipe.run.output_dir} has {gigabytes(free)} free, "
            f"and the run needs {gigabytes(needed)}"
        )
    return free


def main() -> None:
    """Check the recipe in the first process of a launch; the others have found their devices."""
    recipe = parse_recipe(__doc__ or "", ("run",))
    state = sharing_processes(recipe.run.device)
    if not state.is_main_process:
        return
    print(preflight(recipe), file=sys.stderr)
    command = shlex.join(["umls-reranker", "run", *sys.argv[1:]])
    for line in idle_gpus(state.device, command):
        print(line, file=sys.stderr)
    if state.device.type == "cpu" and os.environ.get("ACCELERATE_USE_CPU") == "False":
        print(
            "[estimate] no GPU was checked, because this machine has none; check on a machine like "
            "those of the run",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_script(main)
