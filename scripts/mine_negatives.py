#!/usr/bin/env python
"""Mine training pairs: the gold concept of each mention, and nearest-neighbor, same-type and random negatives.

    umls-reranker mine_negatives quickstart

Reads the candidate lists in lists/ and writes pairs/ into the run folder, with mining_report.json: numbers of pairs,
and what each false-negative filter dropped. With `teacher`, the pairs also get the mean logit of these models.
"""

from umls_reranker.core.errors import UserError
from umls_reranker.core.files import write_json
from umls_reranker.models.arguments import RunArguments
from umls_reranker.pipeline.command import run_script
from umls_reranker.pipeline.recipe import parse_recipe
from umls_reranker.pipeline.stages import run_stage
from umls_reranker.retrieval.arguments import MiningArguments


def main() -> None:
    run_stage("pairs", parse_recipe(__doc__, (RunArguments, MiningArguments)), make)


def make(recipe, run, stage) -> None:
    from umls_reranker.lists.labels import read_run_lists
    from umls_reranker.models.pairs import PairTemplate
    from umls_reranker.retrieval.mining import mine_pairs
    from umls_reranker.vocab.concepts import ConceptTable
    from umls_reranker.vocab.rrf import RelationTable

    concepts, relations = ConceptTable.load(run.path / "concepts"), RelationTable.load(run.path / "concepts")
    template = PairTemplate.from_recipe(recipe.model)
    teachers = load_teachers(recipe, template) if recipe.mining.teacher else []
    with stage.writing(recipe.run.overwrite) as (folder, summary):
        lists, target = read_run_lists(run.path, "train", concepts), folder / "train.arrow"
        further = {"relations": relations, "template": template, "teachers": teachers}
        summary |= mine_pairs(lists, concepts, recipe.mining, recipe.run.seed, target, **further)
        write_json(folder / "mining_report.json", summary)
    for name, count in summary.items():
        print(f"{name.replace('_', ' ')}: {count:,}")


def load_teachers(recipe, template):
    """The cross-encoders of the recipe's teachers; a model that is no reranker reads pairs as the new model will."""
    from umls_reranker.serving.model_source import ModelSource

    teachers = [
        ModelSource.load(name, **recipe.run.scoring, template=template).cross_encoder for name in recipe.mining.teacher
    ]
    if None in teachers:
        name = recipe.mining.teacher[teachers.index(None)]
        raise UserError(f"teacher: {name} has no cross-encoder; name a model that has one")
    return teachers


if __name__ == "__main__":
    run_script(main)
