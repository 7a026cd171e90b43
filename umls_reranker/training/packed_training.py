"""Training of a BERT on pairs without padding, which takes a quarter less time of a step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedModel, TrainingArguments

from ..core.devices import has_dropout, in_threads
from ..models.torch_networks import PackedBert

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ..models.batches import PairBatch

# The embeddings of words, in a BERT with a head.
WORD_EMBEDDINGS = "bert.embeddings.word_embeddings.weight"


def packed_config(model: PreTrainedModel) -> dict[str, Any]:
    """The configuration of a model as `PackedBert` reads it."""
    return model.config.to_dict() | {"architectures": [type(model).__name__]}


def can_pack(args: TrainingArguments, model: PreTrainedModel) -> bool:
    """Whether a model may train without padding: a BERT of which nothing else is asked.

    What acts on the modules of a model acts in their own forward pass alone.
    """
    needs_modules = (
        args.torch_compile,
        args.gradient_checkpointing,
        args.neftune_noise_alpha,
        args.debug,
        has_dropout(model),
    )
    is_alone_on_cpu = args.use_cpu and args.world_size == 1
    return PackedBert.supports(packed_config(model)) and is_alone_on_cpu and not any(needs_modules)


def packed_logits(
    model: PreTrainedModel, config: dict[str, Any], pairs: PairBatch, accelerator: Accelerator
) -> torch.Tensor:
    """Logits of pairs, (b,), with gradients; each thread computes those of a part of the pairs.

    Args:
        model: a model that `can_pack`.
        config: its configuration (`packed_config`).
        pairs: the b pairs.
        accelerator: says in which precision the model computes.
    """
    weights = dict(model.named_parameters())
    # Only the words of these pairs get a gradient, so each is embedded once, ahead of the threads.
    used_ids, positions = np.unique(pairs.ids, return_inverse=True)
    words = torch.nn.functional.embedding(torch.from_numpy(used_ids), weights[WORD_EMBEDDINGS])
    pairs_of_used = replace(pairs, ids=positions)

    def logits_of(part: np.ndarray, words: torch.Tensor) -> torch.Tensor:
        weights_of_part = weights | {WORD_EMBEDDINGS: words}
        with accelerator.autocast():
            bert = PackedBert(config, weights_of_part, accelerator.device, "float32")
            return bert.logits(pairs_of_used.take(part))

    longest_first = np.argsort(-pairs.lengths, kind="stable")
    threads = min(torch.get_num_threads(), len(longest_first))
    parts = [longest_first[start::threads] for start in range(threads)]
    logits = torch.cat(list(in_threads(logits_of, parts, model, words)))
    # Back from the order of the parts to that of the pairs.
    place_of_pair = np.concatenate(parts).argsort()
    return logits[torch.from_numpy(place_of_pair)]
