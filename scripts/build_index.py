#!/usr/bin/env python
"""Embed all concept names, index them with FAISS, and retrieve candidates for the held-out mentions.

    python scripts/build_index.py recipes/quickstart/config.yaml
    accelerate launch --config_file accelerate_configs/multi_gpu_fp16.yaml scripts/build_index.py RECIPE

Writes index/, candidates/ and, where the recipe retrieves by letters or by training mentions too, lexical/ and
mention_index/ into the run folder. Several processes share the embedding, whose finished shards a killed run finds
again; the index is the same either way. A gold concept that is not retrieved is never added to a list.
"""

from contextlib import nullcontext
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
    listed = {key: settings.pop(key) for key in ("candidates_per_mention", "retrievers")}
    concepts = {"concepts": run.key_of("concepts", "prepare_data.py")}
    trained = recipe.encoder.encoder_training_steps > 0
    encoder = {"encoder": run.key_of("encoder", "train_encoder.py")} if trained else {}
    index = run.stage("index", settings, concepts | encoder)
    inputs = {"index": index.key, "mentions": run.key_of("mentions", "prepare_data.py")}
    stages = [(index, make_index)]
    if "lexical" in recipe.index.retrievers:
        lexical = run.stage("lexical", {}, concepts)
        stages.append((lexical, make_lexical))
        inputs["lexical"] = lexical.key
    if "mentions" in recipe.index.retrievers:
        annotated = run.stage("mention_index", {}, {name: inputs[name] for name in ("index", "mentions")})
        stages.append((annotated, make_mention_index))
        inputs["mention_index"] = annotated.key
    stages.append((run.stage("candidates", listed, inputs), make_candidates))
    flags = {"overwrite": recipe.run.overwrite, "dry_run": recipe.run.dry_run}
    due = [(stage, make) for stage, make in stages if should_run(stage, **flags)]
    if due:
        make_stages(recipe, run, due)


def make_stages(recipe, run, due) -> None:
    from umls_reranker.devices import sharing_processes

    state = sharing_processes(recipe.run.device)
    # One process owns the run folder and does all that is not shared out.
    with run.locked() if state.is_main_process else nullcontext():
        for stage, make in due:
            if make is make_index:
                make_index(recipe, run, stage, state)
            elif state.is_main_process:
                make(recipe, run, stage)


def make_index(recipe, run, stage, state) -> None:
    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.retrieval.faiss_index import new_index
    from umls_reranker.retrieval.from_recipe import build_index, load_encoder

    encoder = load_encoder(recipe.run, recipe.encoder, recipe.index)
    # What FAISS does not know is said before hours of encoding.
    new_index(encoder.dimension, recipe.index.index_factory, recipe.index.index_parameters or "")
    concepts = ConceptTable.load(run.path / "concepts")
    owner = stage.writing(resume=True) if state.is_main_process else nullcontext((stage.partial, {}))
    with owner as (folder, summary):
        built = build_index(recipe.index, concepts, encoder, folder, stage.key, state)
        if built is None:
            return
        summary |= {"names": len(built), "concepts": len(concepts), "dimension": built.dimension} | built.recall
    print(f"indexed {summary['names']:,} names of {summary['concepts']:,} concepts")
    if built.recall:
        figures = ", ".join(f"{name} {value:.1%}" for name, value in built.recall.items())
        print(f"{recipe.index.index_factory} against exact search over the names: {figures}")


def make_lexical(recipe, run, stage) -> None:
    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.retrieval.lexical import LexicalIndex

    concepts = ConceptTable.load(run.path / "concepts")
    with stage.writing() as (folder, summary):
        summary["names"] = len(LexicalIndex.build(concepts, folder, stage.key))


def make_mention_index(recipe, run, stage) -> None:
    from datasets import load_from_disk

    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.retrieval.from_recipe import load_encoder
    from umls_reranker.retrieval.mention_index import MentionIndex

    concepts = ConceptTable.load(run.path / "concepts")
    encoder = load_encoder(recipe.run, recipe.encoder, recipe.index)
    mentions = load_from_disk(str(run.path / "mentions"))["train"]
    table = mentions.select_columns(["mention", "left", "right", "cui"]).with_format("arrow")[:]
    with stage.writing() as (folder, summary):
        summary["mentions"] = len(MentionIndex.build(table, concepts, encoder, folder))
    print(f"indexed {summary['mentions']:,} distinct training mentions")


def make_candidates(recipe, run, stage) -> None:
    from datasets import load_from_disk

    from umls_reranker.data.arrow import write_dataset_dict_index
    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.retrieval.candidates import write_candidates
    from umls_reranker.retrieval.from_recipe import load_retriever

    concepts, k = ConceptTable.load(run.path / "concepts"), recipe.index.candidates_per_mention
    retriever = load_retriever(recipe.run, recipe.encoder, recipe.index)
    mentions = load_from_disk(str(run.path / "mentions"))
    with stage.writing() as (folder, summary):
        for split in HELD_OUT:
            fingerprint = f"{stage.key}-{split}"
            summary[split] = write_candidates(mentions[split], retriever, concepts, k, folder / split, fingerprint)
        write_dataset_dict_index(folder, HELD_OUT)
    for split, counts in summary.items():
        recall = counts["retrieved"] / max(1, counts["in_dictionary"])
        print(
            f"{split}: {counts['mentions']:,} mentions, gold in the dictionary for {counts['in_dictionary']:,}, "
            f"retrieved among {k} for {recall:.1%} of those"
        )
        for name, shares in counts["recall"].items():
            print(f"  {name}: " + ", ".join(f"recall@{rank} {share:.1%}" for rank, share in shares.items()))


if __name__ == "__main__":
    run_script(main)
