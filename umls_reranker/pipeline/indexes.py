"""The stages that index concept names and retrieve candidates.

Without vectors they import no torch.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ..core.arrays import started_processes
from ..core.files import file_sha256, json_sha256
from ..lists.columns import trainable
from ..retrieval.deployment import IndexSettings
from ..retrieval.retriever import load_retriever
from ..retrieval.retrievers import RETRIEVERS, IndexSources, index_folders, needs_encoder
from ..vocab.concepts import ConceptTable
from .recipe import Recipe
from .stages import (
    RunFolder,
    Stage,
    planned_stages,
    should_run,
    stage_table,
    tell_other_settings,
)


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
        from ..core.devices import goes_on_alone, sharing_processes

        state = sharing_processes(recipe.run.device)
    # One process owns the run folder and does everything that is not distributed.
    with run.locked(owner=state is None or state.is_main_process):
        if "vectors" in due:
            make_vectors(recipe, run, due["vectors"], state)
        if state is not None and not goes_on_alone(state):
            return
        for name, stage in due.items():
            if name not in ("vectors", "lists"):
                make_index(recipe, run, stage)
        write_settings(recipe, run)
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


def write_settings(recipe: Recipe, run: RunFolder) -> None:
    """Write index.json of finished indexes."""
    settings = index_settings(recipe, run)
    indexes = index_folders(settings.retrievers)
    names = ["concepts", *indexes]
    if settings.has_encoder:
        names.append("encoder")
    settings.folders = {name: run.key_of(name, "build_index") for name in names}
    # Identity of the encoder and indexes, which decide the retrievers' scores.
    settings.index_key = json_sha256({name: settings.folders[name] for name in indexes})
    settings.save(run.path)


def make_vectors(recipe: Recipe, run: RunFolder, stage: Stage, state: Any) -> None:
    """Embed all distinct names; the processes of a launch, a `PartialState`, share the work."""
    from ..retrieval.name_index import encode_names

    with stage.writing(recipe.run.overwrite, owner=state.is_main_process) as (folder, summary):
        vectors = encode_names(
            run.path, folder, index_settings(recipe, run), recipe.run.device, state
        )
        summary |= {"strings": len(vectors), "dimension": vectors.dimension}


def make_index(recipe: Recipe, run: RunFolder, stage: Stage) -> None:
    """Build the index of the retriever that owns the stage's folder."""
    by_folder = {retriever.folder: retriever for retriever in RETRIEVERS.values()}
    sources = IndexSources(run.path, index_settings(recipe, run), recipe.run.device)
    with stage.writing() as (folder, summary):
        summary |= by_folder[stage.name].build(sources, folder)
    print(f"{stage.name}: " + ", ".join(f"{name} {value:,}" for name, value in summary.items()))


def make_lists(recipe: Recipe, run: RunFolder, stage: Stage) -> None:
    """Retrieve the candidates of the mentions of all splits."""
    from ..corpora.concepts_and_mentions import SPLITS
    from ..retrieval.retriever import drawn_rows, write_lists

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
