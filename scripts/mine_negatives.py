#!/usr/bin/env python
"""Mine training pairs: the gold concept of each mention, and nearest, same-type and random negatives.

    umls-reranker mine_negatives quickstart
    umls-reranker mine_negatives RECIPE --accelerate_config multi_gpu_fp16

Writes pairs/ into the run folder, with mining_report.json: what each filter dropped, and where the recipe's numbers
were not reached. Several processes can share the search; the pairs do not depend on their number. A killed run reuses
its finished parts.
"""

from dataclasses import asdict, replace

from umls_reranker.core.arguments import MiningArguments, RunArguments
from umls_reranker.core.files import write_json
from umls_reranker.core.recipe import parse_recipe
from umls_reranker.core.script import run_script, should_run, table_console
from umls_reranker.core.stage_keys import pairs_stage
from umls_reranker.core.stages import RunFolder

SPLITS = ("train", "test")


def main() -> None:
    recipe = parse_recipe(__doc__, (RunArguments, MiningArguments))
    run = RunFolder(recipe.run.run_dir)
    stage = pairs_stage(recipe, run)
    if should_run(stage, recipe.run):
        make(recipe, run, stage)


def make(recipe, run, stage) -> None:
    from umls_reranker.core.devices import sharing_processes
    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.retrieval.index_folder import load_retriever
    from umls_reranker.retrieval.mining import search_share

    state = sharing_processes(recipe.run.device)
    if recipe.mentions.candidate_lists:
        if state.is_main_process:
            make_of_lists(recipe, run, stage)
        return
    mentions = run.splits("mentions")
    configs = split_configs(recipe)
    # One process owns the run folder; the others leave their share of the search in it.
    with run.locked(owner=state.is_main_process):
        searched = load_retriever(recipe.run, recipe.encoder, recipe.index), ConceptTable.load(run.path / "concepts")
        searched[0].require(searched[1])
        with stage.writing(recipe.run.overwrite, owner=state.is_main_process) as (folder, summary):
            state.wait_for_everyone()
            for split in SPLITS:
                share = state.process_index, state.num_processes
                search_share(mentions[split], *searched, configs[split], folder / split, *share)
            state.wait_for_everyone()
            if state.is_main_process:
                write_pairs(recipe, run, stage, mentions, searched, configs, folder, summary)


def split_configs(recipe) -> dict:
    from umls_reranker.retrieval.negatives import MiningConfig

    config = MiningConfig(**asdict(recipe.mining), seed=recipe.run.seed)
    # The test split counts every mention, as serving does.
    held_out = replace(config, max_train_mentions=None, typeless_share=0.0)
    return {split: config if split == "train" else held_out for split in SPLITS}


def write_pairs(recipe, run, stage, mentions, searched, configs, folder, summary) -> None:
    """Mine what all processes have searched, and say what came out."""
    from umls_reranker.core.devices import work_alone
    from umls_reranker.retrieval.mining import mine_pairs

    work_alone()
    for split in SPLITS:
        fingerprint = f"{stage.key}-{split}"
        summary[split] = mine_pairs(
            mentions[split], *searched, configs[split], folder / split, fingerprint, **shown(recipe, run)
        )
    # Only now: what is killed while it mines the second split need not search for the first one again.
    for shard in folder.glob(stage.keeps):
        shard.unlink()
    say(folder, summary)


def make_of_lists(recipe, run, stage) -> None:
    """Mine the candidate lists that the recipe brings."""
    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.retrieval.mining import mine_listed_pairs

    mentions, candidates = (run.splits(name) for name in ("mentions", "candidates"))
    concepts, configs = ConceptTable.load(run.path / "concepts"), split_configs(recipe)
    with run.locked(), stage.writing(recipe.run.overwrite) as (folder, summary):
        for split in SPLITS:
            summary[split] = mine_listed_pairs(
                mentions[split],
                candidates[split],
                concepts,
                configs[split],
                folder / split,
                f"{stage.key}-{split}",
                # What is evaluated is what the lists hold.
                names_missing_gold=recipe.concepts.names_dictionary and split == "train",
                **shown(recipe, run),
            )
        say(folder, summary)


def shown(recipe, run) -> dict:
    """What pairs are filtered by and shown as."""
    from umls_reranker.data.relations import RelationTable
    from umls_reranker.models.template import PairTemplate

    return {
        "relations": RelationTable.load(run.path / "concepts"),
        "template": PairTemplate.from_recipe(recipe.model),
    }


def say(folder, summary) -> None:
    """Complete the pairs' folder, and print what came out."""
    from umls_reranker.data.arrow import write_dataset_dict_index
    from umls_reranker.retrieval.mining_report import mining_examples, mining_table

    write_dataset_dict_index(folder, SPLITS)
    write_json(folder / "mining_report.json", summary)
    console = table_console()
    console.print(mining_table(summary))
    console.print(mining_examples(summary["train"]))


if __name__ == "__main__":
    run_script(main)
