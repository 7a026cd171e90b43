#!/usr/bin/env python
"""Mine training pairs: the gold concept of each mention, and nearest-neighbor, same-type and random negatives.

    umls-reranker mine_negatives quickstart
    accelerate launch --config_file accelerate_configs/multi_gpu_fp16.yaml -m umls_reranker mine_negatives RECIPE

Writes pairs/ into the run folder, with mining_report.json: what each false-negative filter dropped, and where
the recipe's numbers were not reached. Several processes can share the search; the pairs do not depend on their number.
An interrupted run reuses its finished shards.
"""

from dataclasses import asdict, replace

from umls_reranker.core.files import write_json
from umls_reranker.core.recipe import parse_recipe
from umls_reranker.core.script import run_script, table_console
from umls_reranker.core.settings import MiningArguments, RunArguments
from umls_reranker.core.stages import RunFolder, make_stage, should_run

# Shards of a search in the folder of the pairs.
SEARCHED = "*/.nearest-*.npz"
SPLITS = ("train", "test")


def main() -> None:
    recipe = parse_recipe(__doc__, (RunArguments, MiningArguments))
    run = RunFolder(recipe.run.run_dir)
    stage = make_stage("pairs", recipe, run)
    if should_run(stage, recipe.run):
        make(recipe, run, stage)


def make(recipe, run, stage) -> None:
    from umls_reranker.core.devices import sharing_processes, work_alone
    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.data.relations import RelationTable
    from umls_reranker.models.pairs import PairTemplate
    from umls_reranker.retrieval.mining import mine_listed_pairs, mine_pairs, search_share
    from umls_reranker.retrieval.retriever import load_retriever

    state, lists = sharing_processes(recipe.run.device), recipe.mentions.candidate_lists
    is_owner = state.is_main_process
    mentions, concepts = run.splits("mentions"), ConceptTable.load(run.path / "concepts")
    configs = split_configs(recipe)
    texts = {
        "relations": RelationTable.load(run.path / "concepts"),
        "template": PairTemplate.from_recipe(recipe.model),
    }
    # One process owns the run folder; the others write their share of the search to it.
    with run.locked(owner=is_owner):
        if not lists:
            retriever = load_retriever(recipe.run, recipe.encoder, recipe.index)
            retriever.require(concepts)
        with stage.writing(recipe.run.overwrite, owner=is_owner) as (folder, summary):
            state.wait_for_everyone()
            for split in () if lists else SPLITS:
                share = state.process_index, state.num_processes
                search_share(mentions[split], retriever, concepts, configs[split], folder / split, *share)
            state.wait_for_everyone()
            if not is_owner:
                return
            work_alone()
            for split in SPLITS:
                target = configs[split], folder / split
                if lists:
                    # Evaluation covers what the lists contain.
                    texts["names_missing_gold"] = recipe.concepts.names_dictionary and split == "train"
                    candidates = run.splits("candidates")[split]
                    summary[split] = mine_listed_pairs(mentions[split], candidates, concepts, *target, **texts)
                else:
                    summary[split] = mine_pairs(mentions[split], retriever, concepts, *target, **texts)
            # Only now: a run that is killed while mining the second split need not repeat the search for the first.
            for shard in folder.glob(SEARCHED):
                shard.unlink()
            report(folder, summary)


def split_configs(recipe) -> dict:
    from umls_reranker.retrieval.negatives import MiningConfig

    config = MiningConfig(**asdict(recipe.mining), seed=recipe.run.seed)
    # The test split counts every mention, as serving does.
    held_out = replace(config, max_train_mentions=None, typeless_share=0.0)
    return {split: config if split == "train" else held_out for split in SPLITS}


def report(folder, summary) -> None:
    """Complete the pairs' folder, and print what came out."""
    from umls_reranker.retrieval.mining_report import mining_examples, mining_table

    write_json(folder / "mining_report.json", summary)
    console = table_console()
    console.print(mining_table(summary))
    console.print(mining_examples(summary["train"]))


if __name__ == "__main__":
    run_script(main)
