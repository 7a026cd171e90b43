"""What is calibrated: a run's cross-encoder, a reranker, any cross-encoder, or lists alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..calibration.calibrated_documents import NO_DOCUMENTS, CalibratedDocuments
from ..calibration.string_counts import COUNTS_FILE, StringCounts
from ..core.errors import UserError, warn_caller
from ..core.json_files import read_json
from ..hub.file_names import MANIFEST, RECIPE, WEIGHTS, loaded_files
from ..hub.model_download import download
from ..hub.new_model import Origin
from ..models.cross_encoder import PairScorer
from ..models.model_files import MODEL_PATTERNS
from ..models.pair_template import TEMPLATE_FILE, PairTemplate
from ..vocab.types import TypeHierarchy
from .reranker import UMLSReranker


@dataclass(frozen=True)
class ModelSource:
    """What is calibrated.

    Attributes:
        name: folder or Hub id, as the user wrote it; None for a run, and for the lists alone.
        folder: folder of its cross-encoder; None without one.
        cross_encoder: its cross-encoder; None without one.
        origin: what it was made from; of a plain cross-encoder, the recipe has only its name.
        hierarchy: its semantic types; by default those of the UMLS.
        counts: its counts of training mentions, and for a reranker of those of its calibration.
        reranker: the reranker; None for anything else.
        trained_on: documents that anything else was trained on, as far as they are known.
    """

    name: str | None = None
    folder: Path | None = None
    cross_encoder: PairScorer | None = None
    origin: Origin = Origin("")
    hierarchy: TypeHierarchy = field(default_factory=TypeHierarchy.built_in)
    counts: StringCounts = field(default_factory=lambda: StringCounts.fit([]))
    reranker: UMLSReranker | None = None
    trained_on: CalibratedDocuments = NO_DOCUMENTS

    @classmethod
    def load(
        cls,
        name: str | None,
        revision: str | None = None,
        template: PairTemplate | None = None,
        **options: Any,
    ) -> ModelSource:
        """Load a reranker or a sequence classifier of one logit; None: the lists alone.

        Args:
            name: folder or Hub id.
            revision: tag, branch or commit on the Hub.
            template: how a classifier reads a pair that says nothing of it, as those of
                `RerankerTrainer` do; None: mention and name, with a warning.
            options: ``device`` and ``dtype``, as for `UMLSReranker.from_pretrained`.

        Raises:
            UserError: the model is not found or cannot be loaded, has no safetensors weights, or
                does not have one logit.
        """
        if name is None:
            return cls()
        files = (MANIFEST, TEMPLATE_FILE, *loaded_files("torch"), *MODEL_PATTERNS)
        folder = download(name, revision, files=files, is_plain=True)
        if not (folder / MANIFEST).is_file():
            _require_plain(folder, name)
            template = PairTemplate.of_folder(folder) or template or _usual_template(name)
            cross_encoder = PairScorer.from_folder(folder, template, **options)
            return cls(
                name,
                folder,
                cross_encoder,
                Origin(yaml.safe_dump({"model": name}), base_model=name),
            )
        reranker = UMLSReranker.from_pretrained(folder, **options)
        info = reranker.info
        return cls(
            name=name,
            folder=folder,
            cross_encoder=reranker.cross_encoder,
            origin=Origin(
                recipe=(folder / RECIPE).read_text(encoding="utf-8"),
                base_model=info["base_model"],
                base_revision=info["base_revision"],
                dictionary=info["dictionary"],
            ),
            hierarchy=reranker.thresholds.hierarchy,
            counts=reranker.calibration.counts,
            reranker=reranker,
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """Inputs that the cross-encoder reads besides mention and name."""
        return () if self.cross_encoder is None else self.cross_encoder.template.reads

    @property
    def documents(self) -> CalibratedDocuments:
        """The documents that it was fitted on."""
        if self.reranker is None:
            return self.trained_on
        return self.reranker.calibration.documents

    @property
    def looked_once(self) -> bool:
        """Whether its own certificate was one look, so that its documents never certify again."""
        if self.reranker is None:
            return False
        certificate = self.reranker.thresholds.certificate
        return certificate is not None and certificate.is_one_look

    def first_counts(self) -> StringCounts:
        """Its counts before its own calibration, to calibrate it again on the same documents."""
        assert self.folder is not None  # only such a one knows documents
        return StringCounts.load(self.folder / COUNTS_FILE, is_training=True)


def _usual_template(name: str) -> PairTemplate:
    """The template of a model that does not say how it was trained, which is told."""
    template = PairTemplate()
    warn_caller(
        f"{name} has no {TEMPLATE_FILE}, which RerankerTrainer writes; its pairs are read as "
        f"mention and name, of at most {template.max_length} tokens"
    )
    return template


def _require_plain(folder: Path, name: str) -> None:
    """Refuse a folder that is not a sequence classifier with safetensors weights and tokenizer."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{name} contains no config.json, so it is not a model")
    config = read_json(folder / "config.json")
    kinds = config.get("architectures") if isinstance(config, dict) else None
    kind = str(kinds[0]) if isinstance(kinds, list) and kinds else "model of unknown type"
    if not kind.endswith("ForSequenceClassification"):
        raise UserError(
            f"{name} is a {kind}, not a sequence classifier, so it cannot score text pairs"
        )
    if not (folder / WEIGHTS).is_file():
        raise UserError(
            f"{name} has no {WEIGHTS}; other weight formats, "
            "such as pytorch_model.bin, can run code and are never loaded; "
            "if you trust them, load the model with transformers and save it with save_pretrained"
        )
    if not (folder / "tokenizer.json").is_file():
        raise UserError(
            f"{name} has no tokenizer.json; load its tokenizer with AutoTokenizer and save it there"
        )
