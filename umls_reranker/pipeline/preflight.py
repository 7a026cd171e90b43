"""What `umls-reranker run` checks before its first stage, and an estimate of what it needs.

python -m umls_reranker.pipeline.preflight RECIPE [--KEY VALUE ...]
"""

import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import faiss
import psutil
import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from ..core.devices import (
    batch_mapper,
    has_fast_bfloat16,
    resolve_device,
    resolve_dtype,
    sharing_processes,
)
from ..core.errors import CollectedErrors, UserError
from ..core.hashes import CHUNK_BYTES
from ..core.parallel import started_processes
from ..core.text_files import open_binary
from ..models.arguments import RUN_ENCODER
from ..models.model_files import resolve_model
from ..models.pretrained import keep_layers, load_pretrained, loading, require_readable
from ..retrieval.faiss_indexes import new_index, training_size
from ..retrieval.retrievers import needs_encoder
from ..training.encoder_training import BATCH_SIZE
from ..training.losses import LOSSES
from ..training.trainer import training_arguments
from ..training.training_arguments import RerankerTrainingArguments
from .command import run_script
from .options import parse_recipe
from .recipe import Recipe, typed_training
from .sources import input_files

# Bytes of a dictionary's file per distinct name (of MRCONSO at full size, of HPO, of MEDIC).
BYTES_PER_NAME = {"rrf": 260, "obo": 250, "names": 30}
# How much smaller a .gz of it is.
COMPRESSION = 6
# Bytes of a tokenized pair in memory.
BYTES_PER_PAIR = 100
# Bytes of a parameter in a checkpoint: its value and two moments of the optimizer, in float32.
BYTES_PER_PARAMETER = 12
# Products of 512 tokens with a matrix of a layer that tell how fast a processor is.
PROBES = 200
CPU = torch.device("cpu")
# Tokens of a name and of a pair, on average.
TOKENS_OF_NAME = 10
TOKENS_OF_PAIR = 17
# How many times as long as its products of matrices a network takes: the rest is no faster in a
# shorter dtype.
TIMES_THE_PRODUCTS = {"float32": 1.3, "bfloat16": 2.3}
# Minutes of reading, searching, fitting, and the start of the commands.
MINUTES_OF_THE_REST = 1
# Width of the vectors and parameters of BERT-base, if the configuration cannot be read.
DIMENSION = 768
PARAMETERS = 110_000_000


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
    # Beside those that are kept, the best one and the one that is being written.
    checkpoints = 2 + (getattr(arguments, "save_total_limit", None) or 0)
    files: dict[str, tuple[Path, ...]] = {}
    with faults.collecting():
        files = input_files(recipe)
    dictionary = [path for name in ("MRCONSO", "obo", "names") for path in files.get(name, ())]
    names = count_names(recipe, dictionary)
    configs = read_configs(recipe, faults)
    dimension = getattr(configs.get("encoder"), "hidden_size", DIMENSION)
    empty = read_index(recipe, dimension, dictionary, faults)
    with faults.collecting():
        require_teacher(recipe, training)
    needs = index_bytes(recipe, names, dimension, empty)
    needs["pairs"] = training_mentions(recipe) * pairs_of_list(recipe) * BYTES_PER_PAIR
    weights = PARAMETERS
    with faults.collecting():
        weights = count_parameters(recipe, configs)
    needs["checkpoints"] = checkpoints * weights * BYTES_PER_PARAMETER
    free = 0
    with faults.collecting():
        free = free_space(recipe, needs)
    faults.raise_any()
    figures = ", ".join(f"{name} {_gb(size)}" for name, size in needs.items() if size)
    memory = max(needs.get("index", 0), needs["pairs"] * started_processes("LOCAL_WORLD_SIZE"))
    # What is None has left a fault.
    assert arguments is not None
    config = configs.get("encoder") or configs.get("model")
    on_cpu = resolve_device(recipe.run.device).type == "cpu"
    # Of a corpus it is not known how many mentions are for calibration and evaluation.
    knows_mentions = recipe.mentions.mention_source == "held_out_synonyms"
    if on_cpu and knows_mentions and training_mentions(recipe) and config is not None:
        minutes = estimated_minutes(recipe, config, names, arguments.num_train_epochs)
        figures = f"{minutes:.0f} minutes here, {figures}"
    lines = [devices_line(recipe, arguments), *batch_advice(arguments, pairs_of_list(recipe))]
    disk = sum(needs.values())
    free_memory = psutil.virtual_memory().available
    lines.append(
        f"[estimate] {names:,} names, {figures}; disk {_gb(disk)} of {_gb(free)} free, "
        f"memory {_gb(memory)} of {_gb(free_memory)} free"
    )
    return "\n".join(lines)


def index_bytes(
    recipe: Recipe, names: int, dimension: int, empty: faiss.Index | None
) -> dict[str, int]:
    """Bytes of the vectors of names and of their index `empty`, if the recipe has them."""
    if "dense" not in recipe.index.retrievers:
        return {}
    bytes_of_name = empty.sa_code_size() if empty else 0
    return {"vectors": names * dimension * 4, "index": names * bytes_of_name}


def training_mentions(recipe: Recipe) -> int:
    """Mentions that the recipe trains on; 0 if it does not say."""
    return recipe.mining.max_train_mentions or recipe.mentions.expected_mentions or 0


def pairs_of_list(recipe: Recipe) -> int:
    """Pairs of a training list, at most."""
    mining = recipe.mining
    negatives = mining.nearest_negatives + mining.same_type_negatives + mining.random_negatives
    return 1 + negatives


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
    empty = None
    with faults.collecting():
        empty = new_index(dimension, index.index_factory, index.index_parameters or "")
    if empty is not None and dictionary and "dense" in index.retrievers:
        with faults.collecting():
            require_trainable(empty, recipe, dictionary)
    return empty


def devices_line(recipe: Recipe, arguments: RerankerTrainingArguments) -> str:
    """On what the run computes, in how many processes, and in which dtypes."""
    device = resolve_device(recipe.run.device)
    place = device.type.upper()
    if device.type == "cuda":
        visible = torch.cuda.device_count()
        used = min(visible, started_processes("LOCAL_WORLD_SIZE"))
        place = f"{used} of {visible} visible GPUs ({torch.cuda.get_device_name(device)})"
    training = "float32"
    if arguments.bf16:
        training = "bfloat16"
    elif arguments.fp16:
        training = "float16"
    scoring = resolve_dtype(recipe.run.scoring_dtype, device, inference=True)
    return (
        f"[devices] {place}; processes: {started_processes()}; "
        f"training in {training}, scoring in {scoring}"
    )


def idle_gpus(device: torch.device, command: str) -> list[str]:
    """A line with the command that uses all visible GPUs, if one process was started and sees more.

    Args:
        device: where the run computes.
        command: the command that starts it, without a launch configuration.
    """
    # Who has started several processes has chosen their number.
    if device.type != "cuda" or started_processes() > 1:
        return []
    visible = torch.cuda.device_count()
    if visible == 1:
        return []
    config = "multi_gpu_fp16"
    if has_fast_bfloat16(device):
        config = "multi_gpu_bf16"
    launch = f"--accelerate_config {config} --num_processes {visible}"
    return [f"[devices] {visible - 1} GPUs will be idle; to use all: {command} {launch}"]


def batch_advice(arguments: RerankerTrainingArguments, pairs_of_list: int) -> list[str]:
    """A line with a batch whose whole lists divide among the processes, if the recipe's do not.

    Args:
        arguments: of the training.
        pairs_of_list: pairs of a training list, at most.
    """
    processes = started_processes()
    size = arguments.global_batch_size
    lists = max(1, round(size / pairs_of_list))
    if not LOSSES[arguments.loss].compares_pairs or lists % processes == 0:
        return []
    dividing = max(1, round(lists / processes)) * processes * pairs_of_list
    return [
        f"[devices] loss {arguments.loss} needs whole lists: {size} pairs are about {lists} lists, "
        f"which {processes} processes cannot share evenly; global_batch_size {dividing} divides"
    ]


def estimated_minutes(recipe: Recipe, config: PreTrainedConfig, names: int, epochs: float) -> float:
    """About how many minutes a run takes on this processor.

    Args:
        recipe: the recipe.
        config: shape of its networks.
        names: names of the dictionary.
        epochs: epochs of the cross-encoder's training.
    """
    depth = recipe.model.num_hidden_layers or config.num_hidden_layers
    tokens_of_pair = TOKENS_OF_PAIR * depth / config.num_hidden_layers
    # A step of the encoder reads the names of a batch and as many mentions.
    texts = 2 * BATCH_SIZE * recipe.encoder.encoder_training_steps
    mentions = training_mentions(recipe)
    trained_pairs = mentions * pairs_of_list(recipe) * epochs
    trained = TOKENS_OF_NAME * texts + tokens_of_pair * trained_pairs
    # As many mentions are for calibration and evaluation.
    scored_pairs = mentions * recipe.index.candidates_per_mention
    scored = TOKENS_OF_NAME * names + tokens_of_pair * scored_pairs
    dtype = resolve_dtype(recipe.run.scoring_dtype, CPU, inference=True)
    # Training computes three times as much: the gradients of texts and of weights, too.
    minutes = minutes_here(3 * trained, resolve_dtype("auto", CPU), config)
    return minutes + minutes_here(scored, dtype, config) + MINUTES_OF_THE_REST


def minutes_here(tokens: float, dtype: str, config: PreTrainedConfig) -> float:
    """About how many minutes this processor takes for a network, by a probe of a second or two.

    Args:
        tokens: tokens that it reads, those of training counted three times.
        dtype: what it computes in.
        config: its shape.
    """
    kind = getattr(torch, dtype)
    texts = torch.rand(512, config.hidden_size).to(kind)
    wide = getattr(config, "intermediate_size", 4 * config.hidden_size)
    weights = torch.rand(config.hidden_size, wide).to(kind)
    started = time.monotonic()

    def multiply(_: int) -> float:
        return (texts @ weights)[0, 0].item()

    sum(batch_mapper(CPU)(multiply, range(PROBES)))
    seconds = (time.monotonic() - started) / PROBES / len(texts)
    # A layer multiplies by two matrices of this shape, and by four that are square.
    products = config.num_hidden_layers * (2 + 4 * config.hidden_size / wide)
    return TIMES_THE_PRODUCTS[dtype] * tokens * products * seconds / 60


def count_names(recipe: Recipe, dictionary: Sequence[Path]) -> int:
    """About how many names the dictionary has, by the size of its files."""
    per_name = BYTES_PER_NAME[recipe.concepts.concept_source]
    names = 0
    for path in dictionary:
        size = path.stat().st_size
        if path.suffix == ".gz":
            size *= COMPRESSION
        names += size // per_name
    return names


def require_trainable(index: faiss.Index, recipe: Recipe, dictionary: Sequence[Path]) -> int:
    """Refuse clusters that the dictionary has too few names for.

    Args:
        index: the empty index, which `training_size` asks how many names its clusters need.
        recipe: the recipe.
        dictionary: its files, of which a line, or a part between two "|", has at most one name.
    """
    if faiss.try_extract_index_ivf(index) is None:
        return 0
    separators = b"|\n" if recipe.concepts.concept_source == "names" else b"\n"
    most_names = 0
    for path in dictionary:
        with open_binary(path) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                most_names += sum(chunk.count(separator) for separator in separators)
    return training_size(index, most_names)


def read_configs(recipe: Recipe, faults: CollectedErrors) -> dict[str, PreTrainedConfig | None]:
    """The configurations of the base model and of the encoder, by key; each model is reached once.

    All must be readable, also teachers, and the models must read texts of the recipe's lengths.
    """
    index = recipe.index
    model = recipe.model
    lengths = {"max_length": model.max_length}
    named: list[tuple[str, str, str | None, Mapping[str, int]]] = []
    starts_from_encoder = model.model == RUN_ENCODER
    if not starts_from_encoder:
        named = [("model", model.model, model.model_revision, lengths)]
        lengths = {}
    trains_encoder = recipe.encoder.encoder_training_steps > 0
    if starts_from_encoder or trains_encoder or needs_encoder(index.retrievers):
        lengths = lengths | {"encoder_max_length": index.encoder_max_length}
        named.append(("encoder", index.encoder, index.encoder_revision, lengths))
    named += [("teacher", teacher, None, {}) for teacher in recipe.mining.teacher]
    configs: dict[str, PreTrainedConfig | None] = {}
    for key, name, revision, lengths_of_texts in named:
        configs[key] = None
        with faults.collecting():
            configs[key] = model_config(key, name, revision, lengths_of_texts)
    return configs


def require_teacher(recipe: Recipe, training: Mapping[str, Any]) -> None:
    """Refuse a loss without the teacher whose scores it reads, and a teacher that it does not."""
    loss = training.get("loss", RerankerTrainingArguments.loss)
    reads = LOSSES[loss].reads_teacher
    if reads and not recipe.mining.teacher:
        raise UserError(f"teacher: loss {loss} needs one; name a cross-encoder")
    if recipe.mining.teacher and not reads:
        raise UserError(
            f"teacher: loss {loss} does not read it; choose listwise_kl, or leave teacher out"
        )


def count_parameters(recipe: Recipe, configs: Mapping[str, PreTrainedConfig | None]) -> int:
    """Parameters of the base model, which is built without memory for its weights."""
    base = "encoder" if recipe.model.model == RUN_ENCODER else "model"
    config = configs.get(base)
    if config is None:
        return PARAMETERS
    with loading(f"model {config.name_or_path}"), torch.device("meta"):
        body = AutoModel.from_config(config, attn_implementation=recipe.model.attn_implementation)
    keep_layers(body, recipe.model.num_hidden_layers)
    return body.num_parameters()


def free_space(recipe: Recipe, needs: Mapping[str, int]) -> int:
    """Free bytes; too few are refused, where those that the run holds already count as free."""
    folder = recipe.run.run_dir
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(nearest).free
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed = sum(needs.values())
    concepts = recipe.concepts
    # How much a filter leaves is not known.
    is_filtered = any(
        [
            concepts.concept_types,
            concepts.sources,
            concepts.identifiers,
        ]
    )
    # What is certainly needed.
    least_needed = needs["checkpoints"] if is_filtered else needed
    if least_needed > free + held:
        raise UserError(
            f"output_dir: {recipe.run.output_dir} has {_gb(free)} free, "
            f"and the run needs {_gb(needed)}"
        )
    return free


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def model_config(
    key: str, model: str, revision: str | None, lengths: Mapping[str, int]
) -> PreTrainedConfig:
    """The configuration of a model that reads texts of these lengths.

    Raises:
        UserError: it cannot be found, reached or read, or reads only shorter texts; names the key.
    """
    try:
        with loading(f"model {model}"):
            config = load_pretrained(AutoConfig, resolve_model(model, revision, config_only=True))
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    for name, tokens in lengths.items():
        require_readable(name, tokens, config, model)
    return config


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
