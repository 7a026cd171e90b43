#!/usr/bin/env python
"""Fine-tune the bi-encoder on training mentions in context and on synonyms of the dictionary.

    umls-reranker train_encoder minilm-medmentions-cpu

Writes encoder/ into the run folder; build_index then uses it to embed names and mentions. An interrupted run resumes
from its last checkpoint. Training uses one process. With encoder_training_steps: 0, the encoder is not fine-tuned and
there is nothing to do.
"""

from umls_reranker.models.arguments import EncoderArguments, RunArguments
from umls_reranker.pipeline.command import run_script
from umls_reranker.pipeline.recipe import parse_recipe
from umls_reranker.pipeline.stages import run_stage


def main() -> None:
    recipe = parse_recipe(__doc__, (RunArguments, EncoderArguments))
    if not recipe.encoder.encoder_training_steps and not recipe.mentions.candidate_lists:
        print("encoder not fine-tuned (encoder_training_steps: 0)")
        return
    from umls_reranker.training.fine_tune import require_one_process

    # Before the lock, which a second process would report instead.
    require_one_process("umls-reranker train_encoder")
    run_stage("encoder", recipe, make)


def make(recipe, run, stage) -> None:
    from umls_reranker.training.encoder_training import train_encoder
    from umls_reranker.vocab.concepts import ConceptTable

    mentions = run.splits("mentions")["train"]
    concepts = ConceptTable.load(run.path / "concepts")
    with stage.writing(recipe.run.overwrite) as (folder, summary):
        summary |= train_encoder(recipe.run, recipe.encoder, recipe.index, mentions, concepts, folder)
    print(f"encoder trained on {summary['queries']:,} queries in {summary['steps']:,} steps")


if __name__ == "__main__":
    run_script(main)
