#!/usr/bin/env python
"""Embed all concept names, index them with FAISS, and retrieve candidates for the held-out mentions.

    python scripts/build_index.py recipes/quickstart/config.yaml

Writes index/ and candidates/ into the run folder. A gold concept that is not retrieved is never added to a list.
"""

from dataclasses import asdict

from umls_reranker.arguments import IndexArguments, RunArguments
from umls_reranker.cli import run_script, should_run
from umls_reranker.recipe import parse_recipe
from umls_reranker.stages import RunFolder

HELD_OUT = ("dev", "calibration", "test")


def main() -> None:
    recipe = parse_recipe(__doc__, (RunArguments, IndexArguments))
    run = RunFolder(recipe.run.run_dir)
    settings = asdict(recipe.index)
    listed = settings.pop("candidates_per_mention")
    index = run.stage("index", settings, {"concepts": run.key_of("concepts", "prepare_data.py")})
    inputs = {"index": index.key, "mentions": run.key_of("mentions", "prepare_data.py")}
    candidates = run.stage("candidates", {"candidates_per_mention": listed}, inputs)
    flags = {"overwrite": recipe.run.overwrite, "dry_run": recipe.run.dry_run}
    with run.locked(dry_run=recipe.run.dry_run):
        if should_run(index, **flags):
            make_index(recipe, run, index)
        if should_run(candidates, **flags):
            make_candidates(recipe, run, candidates)


def make_index(recipe, run, stage) -> None:
    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.retrieval.from_recipe import load_encoder
    from umls_reranker.retrieval.index import NameIndex

    concepts = ConceptTable.load(run.path / "concepts")
    encoder = load_encoder(recipe.run, recipe.index)
    with stage.writing() as (folder, summary):
        built = NameIndex.build(concepts, encoder, folder, recipe.index.index_factory, fingerprint=stage.key)
        summary |= {"names": len(built), "concepts": len(concepts), "dimension": encoder.dimension}
    print(f"indexed {summary['names']:,} names of {summary['concepts']:,} concepts")


def make_candidates(recipe, run, stage) -> None:
    from datasets import load_from_disk

    from umls_reranker.data.arrow import write_dataset_dict_index
    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.retrieval.candidates import write_candidates
    from umls_reranker.retrieval.from_recipe import load_encoder
    from umls_reranker.retrieval.index import NameIndex

    concepts = ConceptTable.load(run.path / "concepts")
    index = NameIndex.load(run.path / "index")
    encoder = load_encoder(recipe.run, recipe.index)
    mentions = load_from_disk(str(run.path / "mentions"))
    with stage.writing() as (folder, summary):
        for split in HELD_OUT:
            k = recipe.index.candidates_per_mention
            summary[split] = write_candidates(
                mentions[split], index, concepts, encoder, k, folder / split, f"{stage.key}-{split}"
            )
        write_dataset_dict_index(folder, HELD_OUT)
    for split, counts in summary.items():
        recall = counts["retrieved"] / max(1, counts["in_dictionary"])
        print(
            f"{split}: {counts['mentions']:,} mentions, gold in the dictionary for {counts['in_dictionary']:,}, "
            f"retrieved among {k} for {recall:.1%} of those"
        )


if __name__ == "__main__":
    run_script(main)
