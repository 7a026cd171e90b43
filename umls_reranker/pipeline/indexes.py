"""The stages that index concept names and retrieve candidates.

Without vectors they import no torch.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ..core.hashes import file_sha256
from ..core.parallel import started_processes
from ..core.stage import Stage
from ..lists.gold import trainable
from ..retrieval.build import build_indexes, save_settings
from ..retrieval.index_settings import IndexSettings
from ..retrieval.retriever import load_retriever
from ..retrieval.retrievers import needs_encoder
from ..vocab.concept_table import ConceptTable
from .recipe import Recipe
from .run_folder import RunFolder, planned_stages, should_run, tell_other_settings
from .stages import stage_table


def build_index(recipe: Recipe) -> None:
    """Make the stages of the command that are due, each with all processes that it can use."""
    run = RunFolder(recipe.run.run_dir)
    stages = planned_stages(recipe, run.path, command="build_index")
    table = stage_table(recipe)
    needs = {need for name in stages for need in table[name].needs}
    tell_other_settings(recipe, run, needs - stages.keys())
    due = {name: stage for name, stage in stages.items() if should_run(stage, recipe.run)}
    if not due and (recipe.run.dry_run or (run.path / "index.json").is_file()):
        return
    state: Any = None
    if needs_encoder(recipe.index.retrievers) or started_processes() > 1:
        from ..core.devices import sharing_processes

        state = sharing_processes(recipe.run.device)
    settings = index_settings(recipe, run)
    # One process owns the run folder and does everything that is not distributed.
    with run.locked(owner=state is None or state.is_main_process):
        goes_on = build_indexes(
            run.path, settings, due, recipe.run.device, state, overwrite=recipe.run.overwrite
        )
        if not goes_on:
            return
        of_encoder = ["encoder"] if settings.has_encoder else []
        save_settings(settings, run.path, ["concepts", *of_encoder])
        if "lists" in due:
            make_lists(recipe, run, due["lists"])


def index_settings(recipe: Recipe, run: RunFolder) -> IndexSettings:
    """How the recipe makes its indexes."""
    # Mentions are linked as those of the corpus were read; synonyms have no text that defines any.
    mentions = recipe.mentions
    expands = mentions.expand_abbreviations or mentions.mention_source != "corpus"
    settings = IndexSettings(**vars(recipe.index), expand_abbreviations=expands)
    if not needs_encoder(settings.retrievers):
        settings.encoder = ""
        settings.encoder_revision = None
    elif recipe.encoder.encoder_training_steps:
        settings.encoder = "trained"
        settings.encoder_revision = run.key_of("encoder", "train_encoder")
        settings.has_encoder = True
    return settings


def make_lists(recipe: Recipe, run: RunFolder, stage: Stage) -> None:
    """Retrieve the candidates of the mentions of all splits."""
    from ..corpora.mention_files import SPLITS
    from ..retrieval.mention_lists import write_lists
    from ..retrieval.training_mentions import drawn_rows

    concepts = ConceptTable.load(run.path / "concepts")
    count = recipe.index.candidates_per_mention
    mentions = run.splits("mentions")
    drawn = drawn_rows(
        trainable(mentions["train"]["cui"][:]),
        concepts,
        recipe.mining.max_train_mentions,
        recipe.run.seed,
    )
    mentions["train"] = mentions["train"].select(drawn)
    with stage.writing() as (folder, summary):
        retriever = load_retriever(run.path, recipe.run.device)
        for split in SPLITS:
            summary[split] = write_lists(
                mentions[split],
                retriever,
                concepts,
                count,
                folder / f"{split}.arrow",
                is_known=split != "test",
            )
        # They decide a model.
        summary["sha256"] = {
            file.stem: file_sha256(file) for file in sorted(folder.glob("*.arrow"))
        }
    for split in SPLITS:
        print("\n".join(recall_lines(split, summary[split], count)))


def recall_lines(split: str, counts: Mapping[str, Any], count: int) -> Iterator[str]:
    """How many gold concepts a split's lists hold, and which retriever finds them at which rank."""
    recall = counts["retrieved"] / max(1, counts["in_dictionary"])
    yield (
        f"{split}: {counts['mentions']:,} mentions, gold concept in the dictionary "
        f"for {counts['in_dictionary']:,}, retrieved in the top {count} for {recall:.1%} of those"
    )
    for name, shares in counts["recall"].items():
        figures = ", ".join(f"recall@{rank} {share:.1%}" for rank, share in shares.items())
        yield f"  {name}: {figures}"
