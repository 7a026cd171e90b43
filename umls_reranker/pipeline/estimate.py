"""What a run will need: bytes of its folder and minutes of this processor."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import faiss
import torch
from transformers import PreTrainedConfig

from ..core.devices import batch_mapper, resolve_dtype
from ..core.parallel import started_processes
from ..training.encoder_training import BATCH_SIZE
from .recipe import Recipe

# Bytes of a dictionary's file per distinct name (of MRCONSO at full size, of HPO, of MEDIC).
BYTES_PER_NAME = {"rrf": 260, "obo": 250, "names": 30}
# How much smaller a .gz of it is.
COMPRESSION = 6
# Bytes of a number of a vector, which is a float32.
BYTES_PER_FLOAT = 4
# Bytes of a tokenized pair in memory.
BYTES_PER_PAIR = 100
# Bytes of a parameter in a checkpoint: its value and two moments of the optimizer, in float32.
BYTES_PER_PARAMETER = 12
# Checkpoints beside those that are kept: the best one, and the one that is being written.
FURTHER_CHECKPOINTS = 2
CPU = torch.device("cpu")
# A probe of the processor's speed: so many products of so many tokens with a matrix of a layer.
PROBES = 200
TOKENS_OF_PROBE = 512
# Tokens of a name and of a pair, on average.
TOKENS_OF_NAME = 10
TOKENS_OF_PAIR = 17
# Training computes the gradients of texts and of weights, too.
TIMES_THE_SCORING = 3
# How many times as long as its products of matrices a network takes: the rest is no faster in a
# shorter dtype.
TIMES_THE_PRODUCTS = {"float32": 1.3, "bfloat16": 2.3}
# Minutes of reading, searching, fitting, and the start of the commands.
MINUTES_OF_THE_REST = 1


@dataclass(frozen=True)
class DiskNeeds:
    """Bytes of the large files of a run; at most, if its dictionary is filtered."""

    vectors: int
    index: int
    pairs: int
    checkpoints: int

    @property
    def disk(self) -> int:
        """Bytes of all these files."""
        return sum(asdict(self).values())

    @property
    def memory(self) -> int:
        """Bytes of memory: of the index in one process, or of the pairs in each."""
        return max(self.index, self.pairs * started_processes("LOCAL_WORLD_SIZE"))

    def text(self) -> str:
        """What takes space, in GB."""
        sizes = {name: size for name, size in asdict(self).items() if size}
        return ", ".join(f"{name} {gigabytes(size)}" for name, size in sizes.items())


def disk_needs(
    recipe: Recipe,
    names: int,
    dimension: int,
    empty_index: faiss.Index | None,
    parameters: int,
    retained_checkpoints: int,
) -> DiskNeeds:
    """What the files of a run need.

    Args:
        recipe: the recipe.
        names: names of the dictionary.
        dimension: of their vectors.
        empty_index: the index of these vectors, before any is in it; None: not known.
        parameters: of the cross-encoder.
        retained_checkpoints: `save_total_limit`.
    """
    vectors = 0
    index = 0
    if "dense" in recipe.index.retrievers:
        vectors = names * dimension * BYTES_PER_FLOAT
        if empty_index is not None:
            index = names * empty_index.sa_code_size()
    checkpoints = FURTHER_CHECKPOINTS + retained_checkpoints
    return DiskNeeds(
        vectors=vectors,
        index=index,
        pairs=training_mentions(recipe) * pairs_of_list(recipe) * BYTES_PER_PAIR,
        checkpoints=checkpoints * parameters * BYTES_PER_PARAMETER,
    )


def count_names(recipe: Recipe, dictionary: Sequence[Path]) -> int:
    """About how many names the dictionary has, by the size of its files."""
    bytes_per_name = BYTES_PER_NAME[recipe.concepts.concept_source]
    names = 0
    for path in dictionary:
        size = path.stat().st_size
        if path.suffix == ".gz":
            size *= COMPRESSION
        names += size // bytes_per_name
    return names


def training_mentions(recipe: Recipe) -> int:
    """Mentions that the recipe trains on; 0 if it does not say."""
    return recipe.mining.max_train_mentions or recipe.mentions.expected_mentions or 0


def pairs_of_list(recipe: Recipe) -> int:
    """Pairs of a training list, at most."""
    mining = recipe.mining
    negatives = mining.nearest_negatives + mining.same_type_negatives + mining.random_negatives
    return 1 + negatives


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
    scoring_dtype = resolve_dtype(recipe.run.scoring_dtype, CPU, inference=True)
    training_dtype = resolve_dtype("auto", CPU)
    minutes_of_training = minutes_here(TIMES_THE_SCORING * trained, training_dtype, config)
    minutes_of_scoring = minutes_here(scored, scoring_dtype, config)
    return minutes_of_training + minutes_of_scoring + MINUTES_OF_THE_REST


def minutes_here(tokens: float, dtype: str, config: PreTrainedConfig) -> float:
    """About how many minutes this processor takes for a network, by a probe of a second or two.

    Args:
        tokens: tokens that it reads, those of training counted three times.
        dtype: what it computes in.
        config: its shape.
    """
    torch_dtype = getattr(torch, dtype)
    width = config.hidden_size
    inner_width = getattr(config, "intermediate_size", 4 * width)
    texts = torch.rand(TOKENS_OF_PROBE, width).to(torch_dtype)
    weights = torch.rand(width, inner_width).to(torch_dtype)
    started = time.monotonic()

    def multiply(_: int) -> float:
        return (texts @ weights)[0, 0].item()

    sum(batch_mapper(CPU)(multiply, range(PROBES)))
    seconds_of_token = (time.monotonic() - started) / PROBES / TOKENS_OF_PROBE
    # A layer multiplies by two matrices of this shape, and by four that are square.
    products = config.num_hidden_layers * (2 + 4 * width / inner_width)
    return TIMES_THE_PRODUCTS[dtype] * tokens * products * seconds_of_token / 60


def gigabytes(size: float) -> str:
    """A number of bytes as text."""
    return f"{size / 1e9:.1f} GB"
