"""The source of a calibration on labelled lists: a reranker, any cross-encoder, or the lists alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..calibration.certificate import NO_CERTIFICATES, CertificateHistory
from ..calibration.probabilities import COUNTS_FILE
from ..calibration.string_counts import StringCounts
from ..core.errors import UserError
from ..core.files import MODEL_PATTERNS, read_json
from ..core.recipe import Recipe, load_recipe
from ..data.semantic_types import TypeHierarchy
from ..hub.download import BUILT_IN_FOLDER, download
from ..hub.model_folder import CALIBRATOR, MANIFEST, RECIPE, WEIGHTS, loaded_files
from ..models.cross_encoder import PairScorer
from ..models.pairs import PairTemplate
from .reranker import UMLSReranker


@dataclass(frozen=True)
class SourceModel:
    """The source of a calibration.

    Attributes:
        name: folder or Hub id, as the user wrote it; None for the lists alone.
        folder: folder of its files; None for the lists alone.
        scorer: its network; None without one.
        recipe: recipe of its training; only the model name for a plain cross-encoder.
        reranker: the reranker; None for a plain cross-encoder, and for the lists alone.
    """

    name: str | None
    folder: Path | None
    scorer: PairScorer | None
    recipe: Recipe
    reranker: UMLSReranker | None

    @classmethod
    def load(
        cls, name: str | None, revision: str | None = None, device: str | None = None, dtype: str | None = None
    ) -> SourceModel:
        """Load a reranker, or a sequence classifier of one logit, from a folder or the Hub; None: the lists alone.

        Raises:
            UserError: the model is not found or cannot be loaded, has no safetensors weights, or does not have one
                logit.
        """
        if name is None:
            return cls(None, None, None, Recipe.from_values({}), None)
        files = (MANIFEST, *loaded_files("torch"), *MODEL_PATTERNS)
        folder = download(name, revision, files=files, is_plain=True)
        if (folder / MANIFEST).is_file():
            recipe = load_recipe(folder / RECIPE)
            reranker = UMLSReranker.from_pretrained(folder, device=device, dtype=dtype)
            return cls(name, folder, reranker.scorer, recipe, reranker)
        if not (folder / "config.json").is_file():
            raise UserError(f"{name} contains no config.json, so it is not a model")
        config = read_json(folder / "config.json")
        kinds = config.get("architectures") if isinstance(config, dict) else None
        kind = str(kinds[0]) if isinstance(kinds, list) and kinds else "model of unknown type"
        if not kind.endswith("ForSequenceClassification"):
            raise UserError(f"{name} is a {kind}, not a sequence classifier, so it cannot score text pairs")
        if not (folder / WEIGHTS).is_file():
            raise UserError(
                f"{name} has no {WEIGHTS}; other weight formats, such as pytorch_model.bin, can run code and are "
                "never loaded; if you trust them, load the model with transformers and save it with save_pretrained"
            )
        if not (folder / "tokenizer.json").is_file():
            raise UserError(f"{name} has no tokenizer.json; load its tokenizer with AutoTokenizer and save it there")
        scorer = PairScorer.from_folder(folder, PairTemplate(), device, dtype)
        return cls(name, folder, scorer, Recipe.from_values({"model": name}), None)

    @property
    def hierarchy(self) -> TypeHierarchy:
        """Its semantic types; for a plain cross-encoder those of the UMLS."""
        return TypeHierarchy.built_in() if self.reranker is None else self.reranker.thresholds.hierarchy

    def is_new(self, documents: Sequence[str] | np.ndarray) -> np.ndarray:
        """Whether it was not calibrated on each of n documents, by its certificates, (n,) bool."""
        if self.reranker is None:
            return np.ones(len(documents), bool)
        return self.reranker.calibration.history.is_new(documents)

    def counts(self, *, of_training: bool) -> StringCounts:
        """Its counts of mentions; those of training alone if the lists were counted in its calibration."""
        if self.reranker is None or self.folder is None or self.reranker.calibration.models[0].fusion is None:
            return StringCounts.fit([])
        return StringCounts.load(self.folder / COUNTS_FILE, of_training=of_training)

    @property
    def history(self) -> CertificateHistory:
        """Its certificates on user-provided lists; those of a training run or the built-in model do not count."""
        if self.reranker is None or self.folder is None or self.folder == BUILT_IN_FOLDER:
            return NO_CERTIFICATES
        is_of_lists = "lists" in read_json(self.folder / CALIBRATOR)["fitted_on"]
        return self.reranker.calibration.history if is_of_lists else NO_CERTIFICATES

    @property
    def template(self) -> PairTemplate:
        """How the network reads a pair; without a network, the default template."""
        return PairTemplate() if self.scorer is None else self.scorer.template
