"""The table of stages: what each reads of the recipe, and which others it is made from."""

from __future__ import annotations

from typing import Any

from ..core.errors import UserError
from ..core.stage import StageInputs
from ..corpora.arguments import MentionArguments
from ..retrieval.build import ENCODER_KEYS, index_table
from ..retrieval.retrievers import Dense, index_folders
from .recipe import SECTIONS, Recipe
from .recipe_file import FORMER_KEY
from .recipe_keys import keys_of

DOCUMENT_LISTS = ("train_documents", "dev_documents", "test_documents")
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
    training_needs: tuple[str, ...] = ("pairs", "lists")
    if recipe.starts_from_trained_encoder:
        training_needs += ("encoder",)
    # Version 1 made batches of whole lists also with bce, which trains otherwise since.
    version = 2 if recipe.training.get("loss", "bce") == "bce" else 1
    table["checkpoints"] = StageInputs(
        "train",
        (*keys["model"], *(recipe.training.keys() - NEUTRAL), "seed"),
        training_needs,
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
    both = (
        f"dev_share and calibration_share, {mentions.dev_share} and {mentions.calibration_share},"
    )
    if has_test and rest < 0:
        raise UserError(f"{both} must sum to at most 1")
    if not has_test and rest <= 0:
        reason = ", because test_documents is not set" if from_corpus else ""
        raise UserError(f"{both} must leave a share for the test split{reason}")
    shares = {"dev": mentions.dev_share, "calibration": mentions.calibration_share}
    if not has_test:
        shares["test"] = 1.0 - mentions.dev_share - mentions.calibration_share
    return shares


def index_stages(recipe: Recipe) -> dict[str, StageInputs]:
    """The stages from the bi-encoder to the candidates."""
    index = recipe.index
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
