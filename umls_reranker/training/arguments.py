"""Keys of a recipe that this layer reads first: the training of the bi-encoder."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.keys import recipe_key


@dataclass
class EncoderArguments:
    """Encoder: fine-tuning of the bi-encoder before it embeds the names; by default none."""

    encoder_training_steps: int = recipe_key(
        0, "optimizer steps; 0 uses the encoder without fine-tuning and without context", least=0
    )
    encoder_learning_rate: float = recipe_key(1e-4, "AdamW peak learning rate")
    encoder_dropout: float | None = recipe_key(
        None,
        "dropout in training; 0 works better with few passes over the mentions; "
        "empty: the model's default (BERT: 0.1)",
        least=0,
        most=1,
    )
