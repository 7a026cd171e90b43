"""The metadata of a model card, by which the Hub finds a model and shows its results."""

import re

from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml
from huggingface_hub.utils import yaml_dump

from ..evaluation.formatting import is_there
from ..evaluation.tables import title_of
from .card_facts import CardFacts
from .card_markdown import is_hub_id, slug
from .card_sources import corpus_datasets
from .card_tables import CARD_TABLES

# File of a version whose results the Hub compares with those of other models.
EVAL_RESULTS = ".eval_results/umls_reranker.yaml"


def measured_results(card: CardFacts) -> list[EvalResult]:
    """The figures that were measured, as the Hub shows them."""
    corpus = "user-provided candidate lists" if "lists" in card.metrics else card.corpus
    official = card.official_dataset
    dataset = official.id if official else slug(corpus)
    figures = card.metrics["figures"]
    results = []
    for key, (task_type, task_name) in CARD_TABLES["figures"].items():
        value = figures.get(key, {}).get("value")
        if not is_there(value):
            continue
        # Pairs are those of training.
        split = "dev" if key in ("f1", "roc_auc") else card.metrics["split"]
        results.append(
            EvalResult(
                task_type=task_type,
                task_name=task_name,
                dataset_type=dataset,
                dataset_name=corpus,
                dataset_split=split,
                metric_type=key,
                metric_name=title_of(key),
                metric_value=round(value, 4),
            )
        )
    return results


def search_tags(card: CardFacts) -> list[str]:
    """What people search for, and the vocabularies of the dictionary."""
    dictionary = card.info["dictionary"] or {}
    names = [vocabulary["id"] for vocabulary in dictionary.get("vocabularies") or ()]
    if dictionary.get("release"):
        names += [card.recipe.get("identifiers") or "", *(card.recipe.get("sources") or ())]
    tags = [*CARD_TABLES["tags"]]
    if card.info["base_model"] and not card.is_encoder:
        tags += CARD_TABLES["cross_encoder_tags"]
    # An ontology's id may be a URL.
    words = [name.lower() for name in names if re.fullmatch(r"[\w-]+", name)]
    tags += [CARD_TABLES["vocabulary_tags"].get(word, word) for word in words]
    return [*dict.fromkeys(tags)]


def card_metadata(card: CardFacts) -> ModelCardData:
    """The YAML metadata of ``README.md``, with the measured results."""
    results = measured_results(card)
    base_model = card.info["base_model"]
    linked_base_model = base_model if base_model and is_hub_id(base_model) else None
    library = "transformers" if base_model else "umls_reranker"
    languages = [
        CARD_TABLES["languages"].get(code, code) for code in card.recipe.get("languages") or ()
    ]
    license_link = None
    if card.repo_id:
        license_link = f"https://huggingface.co/{card.repo_id}#licenses-of-the-sources"
    return ModelCardData(
        language=languages or None,
        license="other",
        license_name="licenses-of-the-sources",
        license_link=license_link,
        datasets=corpus_datasets(card.recipe) or None,
        metrics=[result.metric_type for result in results] or None,
        base_model=linked_base_model,
        library_name=library,
        pipeline_tag="text-ranking",
        tags=search_tags(card),
        model_name=card.name,
        eval_results=results or None,
    )


def official_results(card: CardFacts) -> str | None:
    """The content of `EVAL_RESULTS`; None if the figures are not of an `official_dataset`.

    Source of the format: https://huggingface.co/docs/hub/eval-results
    """
    official = card.official_dataset
    if official is None:
        return None
    notes = f"{card.metrics['split']} split, {card.metrics['mentions']:,} mentions"
    entries = [
        EvalResultEntry(
            dataset_id=result.dataset_type,
            task_id=f"{official.variant}-{slug(result.metric_type)}",
            value=result.metric_value,
            source_url=card.repo_id and f"https://huggingface.co/{card.repo_id}",
            source_name=card.repo_id and "Model card",
            notes=f"{result.metric_name}, {notes}",
        )
        for result in measured_results(card)
        if result.dataset_split == card.metrics["split"]
    ]
    return yaml_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
