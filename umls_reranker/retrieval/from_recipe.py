"""The bi-encoder and the mining settings that a recipe asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..arguments import IndexArguments, MiningArguments, RunArguments

if TYPE_CHECKING:
    from .encoder import BiEncoder
    from .mining import MiningConfig

__all__ = ["load_encoder", "mining_config"]


def load_encoder(run: RunArguments, index: IndexArguments) -> BiEncoder:
    """Load the recipe's bi-encoder onto its device."""
    from .encoder import BiEncoder

    return BiEncoder.from_pretrained(
        index.encoder,
        index.encoder_revision,
        pooling=index.encoder_pooling,
        max_length=index.encoder_max_length,
        device=run.device,
        dtype=index.encoder_precision,
    )


def mining_config(mining: MiningArguments, seed: int) -> MiningConfig:
    """The recipe's mix of negatives."""
    from .mining import MiningConfig

    return MiningConfig(
        semantic=mining.semantic_negatives,
        same_type=mining.same_type_negatives,
        random=mining.random_negatives,
        cosine_floor=mining.cosine_floor,
        positive_weight=mining.positive_weight,
        semantic_weight=mining.hard_negative_weight,
        other_weight=mining.other_negative_weight,
        neighbors=mining.neighbors,
        seed=seed,
    )
