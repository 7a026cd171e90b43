"""The card of a trained cross-encoder, which is not calibrated yet."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from ..core.locators import portable_locator
from ..core.stage import library_versions
from ..evaluation.render import rendered
from .training_log import dev_metrics_at


def trained_card(trainer: Any, name: str, locator: str, **metadata: Any) -> str:
    """What was trained on what with which loss, and the next step, as Markdown with metadata.

    Args:
        trainer: a `RerankerTrainer`; its data are counted, not shown.
        name: title of the card.
        locator: folder or Hub repo of the model.
        metadata: fields of `ModelCardData`; they win over those of this function.
    """
    base_model = portable_locator(str(trainer.model.name_or_path)) or "a new model"
    is_on_hub = base_model.count("/") == 1 and not Path(base_model).exists()
    data = {
        "library_name": "transformers",
        "pipeline_tag": "text-ranking",
        "tags": ["cross-encoder", "entity-linking", "umls"],
        "base_model": base_model if is_on_hub else None,
        "model_name": name,
    }
    state = trainer.state
    has_best = trainer.args.load_best_model_at_end and state.best_global_step is not None
    step = state.best_global_step if has_best else state.global_step
    body = rendered(
        "trained_model.md",
        name=name,
        locator=locator,
        base_model=base_model,
        loss=trainer.loss_name,
        train=trainer.train_dataset,
        dev=trainer.eval_dataset,
        template=trainer.template,
        args=trainer.args,
        state=state,
        pairs_of_step=trainer.global_batch_size,
        versions=library_versions(),
        metrics=dev_metrics_at(step, state.log_history, trainer.loss),
    )
    return f"---\n{ModelCardData(**data | metadata).to_yaml()}\n---\n\n{body}\n"
