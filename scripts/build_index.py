#!/usr/bin/env python
"""Embed all concept names, index them with FAISS, and retrieve candidates for the mentions.

    umls-reranker build_index quickstart
    accelerate launch --config_file accelerate_configs/multi_gpu_bf16.yaml -m umls_reranker build_index RECIPE

Writes vectors/, index/, the indexes of the recipe's other retrievers, index.json, and lists/ (by split, the mentions
with their candidates) into the run folder. Several processes can share the embedding; the vectors do not depend on
their number. An interrupted run reuses its finished shards, and another index is built without encoding again. A gold
concept that is not retrieved is never added.
"""

from dataclasses import replace

from umls_reranker.models.arguments import RunArguments
from umls_reranker.pipeline.command import run_script
from umls_reranker.pipeline.recipe import parse_recipe
from umls_reranker.pipeline.stages import RunFolder, index_key, planned_stages, should_run
from umls_reranker.retrieval.arguments import EXACT_INDEX, IndexArguments
from umls_reranker.retrieval.retrievers import index_folders


def main() -> None:
    recipe = parse_recipe(__doc__, (RunArguments, IndexArguments))
    run = RunFolder(recipe.run.run_dir)
    stages = planned_stages(recipe, run.path, command="build_index").values()
    due = [stage for stage in stages if should_run(stage, recipe.run)]
    if due or not (recipe.run.dry_run or (run.path / "index.json").is_file()):
        make_stages(recipe, run, due)


def make_stages(recipe, run, due) -> None:
    from umls_reranker.core.devices import goes_on_alone, sharing_processes

    state = sharing_processes(recipe.run.device)
    # One process owns the run folder and does everything that is not distributed.
    with run.locked(owner=state.is_main_process):
        for stage in due:
            if stage.name == "vectors":
                make_vectors(recipe, run, stage, state)
            elif stage.name != "lists" and goes_on_alone(state):
                make_index(recipe, run, stage)
        if goes_on_alone(state):
            write_settings(recipe, run)
            for stage in due:
                if stage.name == "lists":
                    make_lists(recipe, run, stage)


def index_settings(recipe, run):
    """How the recipe makes its indexes."""
    from umls_reranker.retrieval.deployment import IndexSettings

    index = recipe.index
    is_trained = recipe.encoder.encoder_training_steps > 0
    return IndexSettings(
        retrievers=index.retrievers,
        encoder="trained" if is_trained else index.encoder,
        encoder_revision=run.key_of("encoder", "train_encoder") if is_trained else index.encoder_revision,
        has_encoder=is_trained,
        encoder_pooling=index.encoder_pooling,
        encoder_max_length=index.encoder_max_length,
        encoder_dtype=index.encoder_dtype,
        index_factory=index.index_factory,
        index_parameters=index.index_parameters or "",
        candidates_per_mention=index.candidates_per_mention,
        expand_abbreviations=recipe.mentions.expand_abbreviations,
    )


def write_settings(recipe, run) -> None:
    """Write index.json of finished indexes."""
    settings = index_settings(recipe, run)
    names = ["concepts", *index_folders(settings.retrievers), *(["encoder"] if settings.has_encoder else [])]
    keys = {name: run.key_of(name, "build_index") for name in names}
    key = index_key(run.path, settings.retrievers)
    replace(settings, folders=keys, index_key=key).save(run.path)


def make_vectors(recipe, run, stage, state) -> None:
    from umls_reranker.retrieval.faiss_index import new_index, training_size
    from umls_reranker.retrieval.name_vectors import NameVectors
    from umls_reranker.vocab.concepts import ConceptTable

    encoder = index_settings(recipe, run).load_encoder(run.path, recipe.run.device)
    # Report an unknown factory or too few names before hours of encoding.
    index = new_index(encoder.dimension, recipe.index.index_factory, recipe.index.index_parameters or "")
    main = state.is_main_process
    with stage.writing(recipe.run.overwrite, owner=main) as (folder, summary):
        if main:
            concepts = ConceptTable.load(run.path / "concepts")
            NameVectors.prepare(concepts, encoder, folder)
        state.wait_for_everyone()
        vectors = NameVectors(folder)
        training_size(index, len(vectors))
        vectors.encode_share(encoder, state.process_index, state.num_processes)
        state.wait_for_everyone()
        summary |= {"strings": len(vectors), "dimension": vectors.dimension}


def make_index(recipe, run, stage) -> None:
    from umls_reranker.retrieval.retrievers import RETRIEVERS, IndexSources

    (retriever,) = (retriever for retriever in RETRIEVERS.values() if retriever.folder == stage.name)
    with stage.writing() as (folder, summary):
        summary |= retriever.build(IndexSources(run.path, index_settings(recipe, run), recipe.run.device), folder)
    print(f"{stage.name}: " + ", ".join(f"{name} {value:,}" for name, value in summary.items()))


def make_lists(recipe, run, stage) -> None:
    from umls_reranker.corpora.mentions import SPLITS
    from umls_reranker.lists.gold import trainable
    from umls_reranker.retrieval.candidates import drawn_rows, write_lists
    from umls_reranker.retrieval.name_index import NameIndex
    from umls_reranker.retrieval.name_vectors import NameVectors
    from umls_reranker.retrieval.retriever import load_retriever
    from umls_reranker.vocab.concepts import ConceptTable

    concepts, k = ConceptTable.load(run.path / "concepts"), recipe.index.candidates_per_mention
    mentions = run.splits("mentions")
    train, most = mentions["train"], recipe.mining.max_train_mentions
    mentions["train"] = train.select(drawn_rows(trainable(train["cui"][:]), concepts, most, recipe.run.seed))
    with stage.writing() as (folder, summary):
        if recipe.index.index_factory != EXACT_INDEX:
            # It reads all vectors, which evicts the index from memory; the retriever loads it again.
            index = NameIndex.load(run.path / "index", recipe.index.index_parameters or "")
            summary["index"] = index.measure_recall(NameVectors(run.path / "vectors"))
            del index
        retriever = load_retriever(run.path, recipe.run.device)
        for split in SPLITS:
            target, is_known = folder / f"{split}.arrow", split != "test"
            summary[split] = write_lists(mentions[split], retriever, concepts, k, target, is_known=is_known)
    if "index" in summary:
        figures = ", ".join(f"{name} {value:.1%}" for name, value in summary["index"].items())
        print(f"{recipe.index.index_factory} compared with exact search over the names: {figures}")
    for split in SPLITS:
        counts = summary[split]
        recall = counts["retrieved"] / max(1, counts["in_dictionary"])
        print(
            f"{split}: {counts['mentions']:,} mentions, gold concept in the dictionary for "
            f"{counts['in_dictionary']:,}, retrieved in the top {k} for {recall:.1%} of those"
        )
        for name, shares in counts["recall"].items():
            print(f"  {name}: " + ", ".join(f"recall@{rank} {share:.1%}" for rank, share in shares.items()))


if __name__ == "__main__":
    run_script(main)
