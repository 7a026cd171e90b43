#!/usr/bin/env python
"""Mine training pairs: the gold concept of each mention, and nearest-neighbor, same-type and random negatives.

    umls-reranker mine_negatives quickstart

Reads the candidate lists in lists/ and writes pairs/ into the run folder, with mining_report.json: numbers of pairs,
and what each false-negative filter dropped. With `teacher`, the pairs also get the mean logit of these models.
"""

from umls_reranker.core.files import write_json
from umls_reranker.core.recipe import parse_recipe
from umls_reranker.core.script import run_script
from umls_reranker.core.settings import MiningArguments, RunArguments
from umls_reranker.core.stages import RunFolder, make_stage, should_run


def main() -> None:
    recipe = parse_recipe(__doc__, (RunArguments, MiningArguments))
    run = RunFolder(recipe.run.run_dir)
    stage = make_stage("pairs", recipe, run)
    with run.locked(dry_run=recipe.run.dry_run):
        if should_run(stage, recipe.run):
            make(recipe, run, stage)


def make(recipe, run, stage) -> None:
    from umls_reranker.lists.labels import read_run_lists
    from umls_reranker.models.pairs import PairTemplate
    from umls_reranker.retrieval.mining import mine_pairs
    from umls_reranker.vocab.concepts import ConceptTable
    from umls_reranker.vocab.rrf import RelationTable

    concepts, relations = ConceptTable.load(run.path / "concepts"), RelationTable.load(run.path / "concepts")
    template = PairTemplate.from_recipe(recipe.model)
    with stage.writing(recipe.run.overwrite) as (folder, summary):
        lists, target = read_run_lists(run.path, "train", concepts), folder / "train.arrow"
        further = {"relations": relations, "template": template, "teachers": load_teachers(recipe, template)}
        summary |= mine_pairs(lists, concepts, recipe.mining, recipe.run.seed, target, **further)
        write_json(folder / "mining_report.json", summary)
    for name, count in summary.items():
        print(f"{name.replace('_', ' ')}: {count:,}")


def load_teachers(recipe, template):
    """The scorers of the recipe's teachers; a model that is no reranker reads pairs as the new model will."""
    if not recipe.mining.teacher:
        return []
    from umls_reranker.core.text_files import UserError
    from umls_reranker.models.pairs import PairEncoder
    from umls_reranker.serving.calibrate import Source

    sources = [Source.load(name, **recipe.run.scoring) for name in recipe.mining.teacher]
    for source in sources:
        if source.scorer is None:
            raise UserError(f"teacher: {source.name} has no network; name a cross-encoder")
        if source.reranker is None:
            source.scorer.encoder = PairEncoder(source.scorer.encoder.tokenizer, template)
    return [source.scorer for source in sources]


if __name__ == "__main__":
    run_script(main)
