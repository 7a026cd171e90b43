"""All that was calibrated: models for mentions with different inputs, and how one is chosen.

A `Calibration` holds at most four models: of all inputs that the calibration lists had, and of
names alone, each with and without the mention's type. The built-in model has four more, which read
the order of candidates and decide about lists with scores of any retriever. Each model has its
own weights, calibrator, thresholds and certificate, fitted on the calibration lists without the
inputs that it does not read. The first model whose inputs a mention has decides, and ignores all
other inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..core.errors import UserError
from ..lists.candidate_lists import CandidateLists
from ..lists.columns import FOUND, SUFFIX
from ..lists.index_scores import INDEX_SCORES
from .calibrated_documents import NO_DOCUMENTS, CalibratedDocuments
from .calibrated_model import CalibratedModel
from .feature_table import FeatureTable, feature_table
from .features import FEATURES, SCORED_POSITION, inputs_of
from .list_source import ListSource
from .missing_inputs import is_missing
from .string_counts import COUNTS_FILE, StringCounts
from .thresholds import ThresholdTable
from .thresholds_file import load_thresholds


class ModelChoice(NamedTuple):
    """The models that decide about n mentions.

    Attributes:
        models: (n,) int64, index into `Calibration.models`.
        complete: (n,) bool, whether the mention has all inputs of its model.
        missing: input that the model of all inputs reads -> (n,) bool, mentions without it.
    """

    models: np.ndarray
    complete: np.ndarray
    missing: dict[str, np.ndarray]


@dataclass(eq=False)
class Calibration:
    """Turns logits and candidate lists into decisions.

    Attributes:
        models: the model of all inputs, then the fallback models, that of most inputs first, then
            those that read the order of lists with scores; by default the identity.
        counts: counts of mentions of training and calibration; needed with fusions, else empty.
        source: the lists that it was fitted on.
        documents: those that it was fitted on; decisions do not read them.
        training_counts: counts of the training mentions alone, which are saved for a calibration on
            the same documents; None once loaded.
    """

    models: Sequence[CalibratedModel] = (CalibratedModel(),)
    counts: StringCounts = field(default_factory=lambda: StringCounts.fit([]))
    source: ListSource = ListSource()
    documents: CalibratedDocuments = NO_DOCUMENTS
    training_counts: StringCounts | None = None
    _required_inputs: dict[tuple[str, ...], dict[int, list[str]]] = field(
        init=False, default_factory=dict, repr=False
    )

    @property
    def thresholds(self) -> ThresholdTable:
        """Thresholds of the model of all inputs."""
        return self.models[0].thresholds

    @property
    def uses_cross_encoder(self) -> bool:
        """Whether any of the models weighs the cross-encoder."""
        return any(model.uses_cross_encoder for model in self.models)

    @cached_property
    def _features(self) -> list[str]:
        """The features that any of its models weighs."""
        return _features_of(self.models)

    @cached_property
    def scores(self) -> tuple[str, ...]:
        """Scores that its models read: all candidates of a list must have them, or none."""
        keys = [name for name in inputs_of(self._features) if name.endswith(SUFFIX)]
        return tuple(key.removesuffix(SUFFIX) for key in keys)

    @cached_property
    def lowest(self) -> dict[str, float]:
        """For `with_whole_scores`: retrievers that did not find all candidates of calibration."""
        return {
            name: score_range.low
            for name, score_range in self.source.score_ranges.items()
            if name + FOUND in self.models[0].features
        }

    @cached_property
    def _order_of_choice(self) -> list[int]:
        """Indices of the models: first those that read the order of lists with scores."""
        order_readers = []
        others = []
        for number, model in enumerate(self.models):
            if SCORED_POSITION in model.features:
                order_readers.append(number)
            else:
                others.append(number)
        return order_readers + others

    def required_inputs(self, cross_encoder_inputs: Sequence[str]) -> dict[int, list[str]]:
        """Index of each model -> the inputs that it requires, in the order of choice.

        It is computed once for each `cross_encoder_inputs`, which a reranker never changes; these
        are those of `model_for`.
        """
        key = tuple(cross_encoder_inputs)
        if key not in self._required_inputs:
            self._required_inputs[key] = {
                number: self.models[number].required_inputs(key) for number in self._order_of_choice
            }
        return self._required_inputs[key]

    def model_for(
        self, lists: CandidateLists, cross_encoder_inputs: Sequence[str] = ()
    ) -> ModelChoice:
        """For each mention the first model whose inputs it has, else the last.

        Args:
            lists: lists of the mentions, with usable scores (`ListSource.with_usable_scores`).
            cross_encoder_inputs: inputs that the cross-encoder reads besides mention and name.
        """
        count = len(lists)
        required_inputs = self.required_inputs(cross_encoder_inputs)
        of_first_model = required_inputs[0]
        missing = {name: is_missing(lists, name, self.counts) for name in of_first_model}
        models = np.zeros(count, np.int64)
        undecided = np.ones(count, bool)
        for number, required in required_inputs.items():
            if not undecided.any():
                break
            models[undecided] = number
            lacks_any = np.zeros(count, bool)
            for name in required:
                if name not in missing:
                    missing[name] = is_missing(lists, name, self.counts)
                lacks_any |= missing[name]
            undecided &= lacks_any
        return ModelChoice(
            models=models,
            complete=~undecided,
            missing={name: missing[name] for name in of_first_model},
        )

    def feature_table(self, lists: CandidateLists, model: CalibratedModel) -> FeatureTable:
        """The features that a model weighs, besides the cross-encoder."""
        if model.fusion is None:
            return FeatureTable.of(lists, {}, {})
        return feature_table(lists, self.counts, model.fusion.weights)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``calibrator.json`` that decides scores."""
        models = [model.to_dict() for model in self.models]
        # These two keys come first in the file; the other keys of the source come last.
        state = {"index_key": self.source.index_key, "models": models}
        return state | self.documents.to_dict() | self.source.to_dict()

    @classmethod
    def load(cls, state: dict[str, Any], thresholds: dict[str, Any], folder: Path) -> Calibration:
        """Load from the content of ``calibrator.json`` and ``thresholds.json``, and the counts.

        Raises:
            UserError: something is missing or damaged.
        """
        tables = load_thresholds(thresholds)
        try:
            source = ListSource.from_dict(state)
            models = _load_models(state["models"], tables, source.score_ranges)
            source = source.with_ranges_of(_scores_with_range(models))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                "calibrator.json: models, score_ranges (the range of each retriever's scores) or "
                f"index_key (which index its scores are of) is missing or damaged ({error!r}); "
                "run umls-reranker calibrate again"
            ) from None
        documents = CalibratedDocuments.from_dict(state, Path("calibrator.json"))
        if models[0].fusion is None:
            return cls(models, source=source, documents=documents)
        return cls(models, StringCounts.load(folder / COUNTS_FILE), source, documents)


def _features_of(models: Sequence[CalibratedModel]) -> list[str]:
    """The features that any of some models weighs."""
    return list(dict.fromkeys(name for model in models for name in model.features))


def _scores_with_range(models: Sequence[CalibratedModel]) -> list[str]:
    """The retrieval scores among the features that are weighed."""
    return [
        name
        for name in _features_of(models)
        if (name in INDEX_SCORES or name not in FEATURES) and not name.endswith(FOUND)
    ]


def _load_models(
    entries: Sequence[Any], tables: Mapping[str, ThresholdTable], scores: Iterable[str]
) -> list[CalibratedModel]:
    """The models of ``calibrator.json``, with their thresholds by name.

    Args:
        entries: as `CalibratedModel.to_dict` wrote them.
        tables: name of a model -> its thresholds.
        scores: names of scores, which are features of user-provided lists.

    Raises:
        KeyError, TypeError, ValueError: something is missing or damaged, or the names differ.
    """
    names = [str(entry["name"]) for entry in entries]
    if names != list(tables) or not names:
        raise ValueError(f"thresholds.json is of {', '.join(tables)}")
    features = [f"{score}{ending}" for ending in ("", FOUND) for score in scores]
    return [
        CalibratedModel.from_dict(entry, tables[name], features)
        for name, entry in zip(names, entries, strict=True)
    ]
