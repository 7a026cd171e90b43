"""What `umls-reranker run` checks before its first stage, under its launcher, and what it will need.

python -m umls_reranker.pipeline.preflight RECIPE [--KEY VALUE ...]
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from ..core.arrays import started_processes
from ..core.devices import sharing_processes
from ..core.errors import UserError
from ..models.arguments import RunArguments
from ..models.hub_access import resolve_model
from ..models.pretrained import load_pretrained, loading
from ..retrieval.faiss_index import new_index
from ..training.base_model import require_readable
from ..training.fine_tune import training_arguments
from ..training.losses import LOSSES
from ..training.training_arguments import RerankerTrainingArguments
from .command import run_script
from .recipe import Recipe, parse_recipe
from .sources import input_files

# Bytes of a dictionary's file per distinct name (of MRCONSO at full size, of HPO, of MEDIC), and of the same as .gz.
BYTES_PER_NAME, COMPRESSION = {"rrf": 260, "obo": 250, "names": 30}, 6
# Of a tokenized pair in memory; of a parameter in a checkpoint, with two moments.
BYTES_PER_PAIR, BYTES_PER_PARAMETER = 100, 12
# Of BERT-base, if the configuration cannot be read.
DIMENSION, PARAMETERS = 768, 110_000_000


def preflight(recipe: Recipe) -> str:
    """Check what stages would refuse only after hours; of models that are not cached, download the configuration.

    Returns:
        What the run will need, in one line; at most, if the dictionary is filtered.

    Raises:
        UserError: names all faults, each with its key.
    """
    faults: list[str] = []

    @contextmanager
    def collected() -> Iterator[None]:
        try:
            yield
        except UserError as error:
            faults.append(str(error))

    run, concepts, index, model, mining = (
        recipe.run,
        recipe.concepts,
        recipe.index,
        recipe.model,
        recipe.mining,
    )
    encoder = "encoder", index.encoder, index.encoder_revision
    base = encoder if model.start_from_encoder else ("model", model.model, model.model_revision)
    has_index, kept, names, stored = recipe.mentions.candidate_lists is None, 0, 0, 0
    with collected():
        # The best one, too, and the one that is being written.
        kept = 2 + (training_arguments(run, recipe.training, run.run_dir).save_total_limit or 0)
    with collected():
        files = input_files(recipe)
        for path in [path for name in ("MRCONSO", "obo", "names") for path in files.get(name, ())]:
            size = path.stat().st_size * (COMPRESSION if path.suffix == ".gz" else 1)
            names += size // BYTES_PER_NAME[concepts.concept_source]
    configs: dict[tuple[str, str, str | None], PreTrainedConfig] = {}
    # One model may be both, and is then reached once.
    for source in dict.fromkeys(
        [base, *[encoder] * has_index, *(("teacher", name, None) for name in mining.teacher)]
    ):
        with collected():
            configs[source] = model_config(*source)
    lengths = (
        ("max_length", model.max_length, base),
        ("encoder_max_length", index.encoder_max_length, encoder),
    )
    for key, tokens, source in lengths[: 1 + has_index]:
        with collected():
            if config := configs.get(source):
                require_readable(key, tokens, config, source[1])
    dimension = getattr(configs.get(encoder), "hidden_size", DIMENSION)
    with collected():
        stored = new_index(
            dimension, index.index_factory, index.index_parameters or ""
        ).sa_code_size()
    loss = recipe.training.get("loss", RerankerTrainingArguments.loss)
    if LOSSES[loss].reads_teacher and has_index and not mining.teacher:
        faults.append(f"teacher: loss {loss} needs one; name a cross-encoder")
    if mining.teacher and not LOSSES[loss].reads_teacher:
        faults.append(
            f"teacher: loss {loss} does not read it; choose listwise_kl, or leave teacher out"
        )
    network = None
    with collected(), loading(f"model {base[1]}"), torch.device("meta"):
        if config := configs.get(base):
            network = AutoModel.from_config(config, attn_implementation=model.attn_implementation)
    negatives = mining.nearest_negatives + mining.same_type_negatives + mining.random_negatives
    mentions = mining.max_train_mentions or recipe.mentions.expected_mentions or 0
    needs = {
        "vectors": names * dimension * 4 * has_index,
        "index": names * stored * has_index,
        "pairs": mentions * (1 + negatives) * BYTES_PER_PAIR,
        "checkpoints": kept
        * (network.num_parameters() if network else PARAMETERS)
        * BYTES_PER_PARAMETER,
    }
    disk, memory = (
        sum(needs.values()),
        max(needs["index"], needs["pairs"] * started_processes("LOCAL_WORLD_SIZE")),
    )
    existing = next(
        path for path in (run.run_dir, *run.run_dir.absolute().parents) if path.is_dir()
    )
    free = shutil.disk_usage(existing).free
    held = sum(path.stat().st_size for path in run.run_dir.rglob("*") if path.is_file())
    # How much a filter leaves is not known.
    is_filtered = (
        concepts.concept_types
        or concepts.semantic_groups
        or concepts.sources
        or concepts.identifiers
    )
    if (needs["checkpoints"] if is_filtered else disk) > free + held:
        faults.append(
            f"output_dir: {run.output_dir} has {_gb(free)} free, and the run needs {_gb(disk)}"
        )
    if faults:
        raise UserError("; ".join(faults))
    parts = ", ".join(f"{name} {_gb(size)}" for name, size in needs.items() if size)
    of_memory = f"memory {_gb(memory)} of {_gb(psutil.virtual_memory().available)} free"
    return f"[estimate] {names:,} names, {parts}; disk {_gb(disk)} of {_gb(free)} free, {of_memory}"


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def model_config(key: str, model: str, revision: str | None) -> PreTrainedConfig:
    """The configuration of a model; UserError, which names the key: it cannot be found, reached or read."""
    try:
        with loading(f"model {model}"):
            return load_pretrained(AutoConfig, resolve_model(model, revision, config_only=True))
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


def main() -> None:
    """Check the recipe of the command line in the first process of a launch; each other one has found its device."""
    recipe = parse_recipe(__doc__ or "", (RunArguments,))
    if sharing_processes(recipe.run.device).is_main_process:
        print(preflight(recipe), file=sys.stderr)


if __name__ == "__main__":
    run_script(main)
