"""The bi-encoder and the mining settings that a recipe asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.arguments import EncoderArguments, IndexArguments, MiningArguments, RunArguments
from ..core.errors import UserError
from ..core.recipe import portable_locator
from ..core.stage_keys import ENCODER_FOLDER
from ..core.stages import RunFolder
from .index_folder import exported_encoder

if TYPE_CHECKING:
    from ..models.bi_encoder import BiEncoder
    from .mining_config import MiningConfig
    from .retriever import Retriever

__all__ = ["load_encoder", "load_retriever", "mining_config"]


def load_encoder(run: RunArguments, encoder: EncoderArguments, index: IndexArguments) -> BiEncoder:
    """Load the recipe's bi-encoder, or the one that the run trained from it, onto its device.

    A trained one is known by its stage's key, so that it may be moved with its index; one that was exported with the
    index is taken from there.
    """
    from ..models.bi_encoder import BiEncoder

    model, revision = index.encoder, index.encoder_revision
    source = exported_encoder(run.run_dir, model, revision)
    if encoder.encoder_training_steps:
        model, revision = "trained", RunFolder(run.run_dir).key_of(ENCODER_FOLDER, "train_encoder.py")
        source = run.run_dir / ENCODER_FOLDER
    loaded = BiEncoder.from_pretrained(
        str(source or model),
        None if source else revision,
        pooling=index.encoder_pooling,
        max_length=index.encoder_max_length,
        device=run.device,
        dtype=index.encoder_precision,
    )
    # A published model names its encoder without the path that it had where the index was built.
    loaded.identity |= {"model": portable_locator(model), "revision": revision}
    return loaded


def load_retriever(run: RunArguments, encoder: EncoderArguments, index: IndexArguments) -> Retriever:
    """Open the run's indexes for the retrievers that the recipe names.

    Raises:
        UserError: they lack the dense one, whose cosines every list shows, or an index is missing.
    """
    from .index import NameIndex
    from .lexical import LexicalIndex
    from .mention_index import MentionIndex
    from .retriever import Retriever

    if "dense" not in index.retrievers:
        raise UserError(f"retrievers: {index.retrievers} lacks dense, whose cosines every list shows; add it")
    lexical = LexicalIndex.load(run.run_dir / "lexical") if "lexical" in index.retrievers else None
    return Retriever(
        NameIndex.load(run.run_dir / "index", index.index_parameters or ""),
        load_encoder(run, encoder, index),
        lexical,
        in_context="context" in index.retrievers,
        mentions=MentionIndex.load(run.run_dir / "mention_index") if "mentions" in index.retrievers else None,
    )


def mining_config(mining: MiningArguments, shows_types: bool, seed: int) -> MiningConfig:
    """The recipe's mix of negatives.

    Args:
        shows_types: whether the template shows the mention's types.

    Raises:
        UserError: a number is out of its range.
    """
    from .mining_config import MiningConfig

    ceiling = mining.positive_aware_ceiling
    if ceiling is not None and not 0 < ceiling <= 1:
        raise UserError(f"positive_aware_ceiling: {ceiling} is not a share above 0 and up to 1, e.g. 0.95")
    if mining.neighbors < 1:
        raise UserError(f"neighbors: {mining.neighbors} must be 1 or more")
    if mining.max_train_mentions is not None and mining.max_train_mentions < 1:
        raise UserError(f"max_train_mentions: {mining.max_train_mentions} must be 1 or more; empty takes all")
    if mining.feedback_weight <= 0:
        raise UserError(f"feedback_weight: {mining.feedback_weight} must be above 0; 1 weighs corrections like others")
    return MiningConfig(
        semantic=mining.semantic_negatives,
        same_type=mining.same_type_negatives,
        random=mining.random_negatives,
        cosine_floor=mining.cosine_floor,
        guard_relations=tuple(mining.guard_relations),
        positive_aware_ceiling=mining.positive_aware_ceiling,
        max_mentions=mining.max_train_mentions,
        mine_per=mining.mine_per,
        positive_weight=mining.positive_weight,
        semantic_weight=mining.hard_negative_weight,
        other_weight=mining.other_negative_weight,
        feedback_weight=mining.feedback_weight,
        neighbors=mining.neighbors,
        typeless_share=mining.typeless_share if shows_types else 0.0,
        seed=seed,
    )
