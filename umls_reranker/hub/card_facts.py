"""The facts of a model card: what the files of a model folder say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .card_sources import (
    OFFICIAL_DATASETS,
    OfficialDataset,
    corpus_datasets,
    file_name_of,
    licensed_source,
)

# In the loading example, the folder of a model that is not published.
PLACEHOLDER_FOLDER = "path/to/model"


@dataclass(kw_only=True)
class CardFacts:
    """What a card is written from.

    Attributes:
        metrics: content of ``metrics.json``.
        recipe: content of ``recipe.yaml``; for a model that was made of lists, some keys only.
        info: content of ``reranker.json``, with the base model that `with_known_base` gives.
        thresholds: content of ``thresholds.json``.
        score_ranges: name of a score -> its lowest and highest value in calibration.
        source: the lists that get tiers, in words.
        example: mention, types and ids (`AnnotatedLists.example`), for the loading example; None:
            one of the UMLS.
        repo_id: Hub repo, for the loading example; None: it is not published.
        tag: version that the example pins.
        plots: SVG files next to the card.
        is_encoder: whether its network is an encoder instead of a cross-encoder.
        own_name: name of a model in the package; else a placeholder for the folder.
        is_from_built_in: whether it was trained from `BUILT_IN`.
    """

    metrics: Mapping[str, Any]
    recipe: Mapping[str, Any]
    info: Mapping[str, Any]
    thresholds: Mapping[str, Any]
    score_ranges: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    source: str = ""
    example: Mapping[str, Any] | None = None
    repo_id: str | None = None
    tag: str | None = None
    plots: Sequence[str] = ()
    is_encoder: bool = False
    own_name: str = PLACEHOLDER_FOLDER
    is_from_built_in: bool = False

    @property
    def name(self) -> str:
        """The model's name."""
        return self.repo_id.split("/")[-1] if self.repo_id else self.recipe["run_name"]

    @property
    def corpus(self) -> str:
        """Name of the source of the mentions."""
        recipe = self.recipe
        if recipe.get("mention_source") == "held_out_synonyms":
            terms = licensed_source(
                recipe.get("obo") or recipe.get("names") or "UMLS Metathesaurus"
            )
            return f"held-out synonyms of {terms.name}"
        return licensed_source(recipe.get("corpus") or "corpus").name

    @property
    def official_dataset(self) -> OfficialDataset | None:
        """The dataset on the Hub whose official test split the figures were measured on.

        None: it was another split, not all of it, or user-provided lists.
        """
        recipe = self.recipe
        official = OFFICIAL_DATASETS.get(recipe.get("expected_mentions") or 0)
        if official is None or official.id not in corpus_datasets(recipe):
            return None
        documents = file_name_of(recipe.get("test_documents") or "")
        is_of_test = self.metrics["split"] == "test" and "lists" not in self.metrics
        return official if is_of_test and documents == official.test_documents else None

    @property
    def locator(self) -> str:
        """What `from_pretrained` of the loading example gets."""
        return self.repo_id or self.own_name

    @property
    def thresholds_of_types(self) -> list[float]:
        """The scores from which on the model of all inputs accepts, one of each type or group."""
        tables = self.thresholds["models"]
        if not tables:
            return []
        return [row["accept"] for row in tables[0]["types"].values()]
