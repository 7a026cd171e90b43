"""Fine-tune the bi-encoder on training mentions in context and on synonyms of the dictionary.

    umls-reranker train_encoder minilm-medmentions-cpu

Writes encoder/ into the run folder; build_index then uses it to embed names and mentions. An
interrupted run resumes from its last checkpoint. With accelerate launch, processes share each
batch. With encoder_training_steps: 0, the encoder is not fine-tuned and there is nothing to do.
"""

from umls_reranker.pipeline.options import parse_recipe
from umls_reranker.pipeline.run_folder import RunFolder, make_stage, should_run, tell_other_settings
from umls_reranker.pipeline.stages import stage_table


def main() -> None:
    recipe = parse_recipe(__doc__, ("run", "encoder"))
    if not recipe.encoder.encoder_training_steps:
        print("encoder not fine-tuned (encoder_training_steps: 0)")
        return
    run = RunFolder(recipe.run.run_dir)
    stage = make_stage("encoder", recipe, run)
    tell_other_settings(recipe, run, stage_table(recipe)["encoder"].needs)
    if should_run(stage, recipe.run):
        from umls_reranker.pipeline.training import make_encoder

        make_encoder(recipe, run, stage)
