#!/usr/bin/env python
"""Mine training pairs: for every mention its gold concept and semantic, same-type and random negatives.

    python scripts/mine_negatives.py recipes/quickstart/config.yaml

Writes pairs/ into the run folder, with mining_report.json: what each guard dropped, what fell short of the recipe.
"""

from dataclasses import asdict

from umls_reranker.arguments import MiningArguments, RunArguments
from umls_reranker.cli import run_script, should_run
from umls_reranker.recipe import parse_recipe
from umls_reranker.stages import RunFolder, write_json

SPLITS = ("train", "dev", "test")


def main() -> None:
    recipe = parse_recipe(__doc__, (RunArguments, MiningArguments))
    run = RunFolder(recipe.run.run_dir)
    inputs = {"index": run.key_of("index", "build_index.py"), "mentions": run.key_of("mentions", "prepare_data.py")}
    stage = run.stage("pairs", asdict(recipe.mining) | {"seed": recipe.run.seed}, inputs)
    with run.locked(dry_run=recipe.run.dry_run):
        if should_run(stage, overwrite=recipe.run.overwrite, dry_run=recipe.run.dry_run):
            make(recipe, run, stage)


def make(recipe, run, stage) -> None:
    from datasets import load_from_disk

    from umls_reranker.data.arrow import write_dataset_dict_index
    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.data.sources import sample_mentions
    from umls_reranker.retrieval.from_recipe import load_encoder, mining_config
    from umls_reranker.retrieval.index import NameIndex
    from umls_reranker.retrieval.mining import mine_pairs

    concepts = ConceptTable.load(run.path / "concepts")
    index = NameIndex.load(run.path / "index")
    encoder = load_encoder(recipe.run, recipe.index)
    mentions = load_from_disk(str(run.path / "mentions"))
    mentions["train"] = sample_mentions(mentions["train"], recipe.mining.max_train_mentions, recipe.run.seed)
    config = mining_config(recipe.mining, recipe.run.seed)
    with stage.writing() as (folder, summary):
        for split in SPLITS:
            fingerprint = f"{stage.key}-{split}"
            summary[split] = mine_pairs(mentions[split], index, concepts, encoder, config, folder / split, fingerprint)
        write_dataset_dict_index(folder, SPLITS)
        write_json(folder / "mining_report.json", summary)
    for split, report in summary.items():
        print(f"{split}: {report['pairs']}")


if __name__ == "__main__":
    run_script(main)
