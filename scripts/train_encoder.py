"""Fine-tune the bi-encoder on training mentions in context and on synonyms of the dictionary.

    umls-reranker train_encoder minilm-medmentions-cpu

Writes encoder/ into the run folder; build_index then uses it to embed names and mentions. An
interrupted run resumes from its last checkpoint. Training uses one process. With
encoder_training_steps: 0, the encoder is not fine-tuned and there is nothing to do.
"""

from umls_reranker.pipeline.recipe import parse_recipe
from umls_reranker.pipeline.stages import RunFolder


def main() -> None:
    recipe = parse_recipe(__doc__, ("run", "encoder"))
    if not recipe.encoder.encoder_training_steps:
        print("encoder not fine-tuned (encoder_training_steps: 0)")
        return
    from umls_reranker.training.trainer import require_one_process

    # Before the lock, which a second process would report instead.
    require_one_process("umls-reranker train_encoder")
    run = RunFolder(recipe.run.run_dir)
    with run.due("encoder", recipe) as stage:
        if stage is not None:
            from umls_reranker.pipeline.training import make_encoder

            make_encoder(recipe, run, stage)
