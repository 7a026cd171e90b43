"""The files of a new model: its cross-encoder, calibration, recipe and manifest."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..calibration.calibration import Calibration
from ..calibration.string_counts import COUNTS_FILE
from ..calibration.thresholds_file import thresholds_content
from ..core.errors import UserError
from ..core.json_files import read_json, write_json
from ..core.version import __version__
from ..models.arguments import ENCODER
from ..models.pair_template import PairTemplate
from .file_names import (
    CALIBRATOR,
    CONFIG,
    CROSS_ENCODER_FILES,
    MANIFEST,
    RECIPE,
    SCHEMA_VERSIONS,
    SENTENCE_CONFIG,
    THRESHOLDS,
    TOKENIZER_CONFIG,
    WEIGHTS,
)
from .manifest import write_model_manifest

# What other libraries show and compute for the only logit.
LABEL = "gold concept"
CONFIG_OF_ONE_LOGIT = {
    "id2label": {0: LABEL},
    "label2id": {LABEL: 0},
    "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"},
}
# Options of the process that saved a tokenizer, which transformers writes with it.
OPTIONS_OF_A_PROCESS = ("local_files_only", "is_local")


@dataclass(frozen=True)
class Origin:
    """What a model was made from.

    Attributes:
        recipe: text of its ``recipe.yaml``.
        base_model: folder or Hub id of the cross-encoder before training; None without one.
        base_revision: its commit; None if it is unknown.
        dictionary: release or ontologies of its concepts, for ``reranker.json``.
    """

    recipe: str
    base_model: str | None = None
    base_revision: str | None = None
    dictionary: dict[str, Any] | None = None


def copy_cross_encoder(checkpoint: Path, folder: Path) -> None:
    """Copy only weights and tokenizer of a checkpoint, or of an encoder.

    `sentence_transformers.CrossEncoder` will predict logits with those of a cross-encoder.

    Raises:
        UserError: the checkpoint has no safetensors weights.
    """
    if not (checkpoint / WEIGHTS).is_file():
        raise UserError(
            f"{checkpoint} contains no {WEIGHTS}; run umls-reranker train with the same recipe"
        )
    for name in CROSS_ENCODER_FILES:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, folder / name)
    config = read_json(folder / CONFIG)
    if not _is_encoder(config):
        config = config | CONFIG_OF_ONE_LOGIT
    write_json(folder / CONFIG, config)
    path = folder / TOKENIZER_CONFIG
    if path.is_file():
        content = read_json(path)
        portable = {key: value for key, value in content.items() if key not in OPTIONS_OF_A_PROCESS}
        write_json(path, portable)


def write_model_files(
    folder: Path,
    origin: Origin,
    template: PairTemplate | None,
    dtype: str | None,
    calibration: Calibration,
    fitted_on: dict[str, Any],
) -> None:
    """Write calibrator.json with its counts, thresholds.json, recipe.yaml and reranker.json.

    Also write what other libraries read: `SENTENCE_CONFIG` of a cross-encoder, config.json without
    one.

    Args:
        folder: the model folder.
        origin: what the model was made from.
        template: how the cross-encoder reads a pair; None: the model has no cross-encoder.
        dtype: dtype of the logits that the calibrator was fitted on; None without a cross-encoder.
        calibration: the calibration.
        fitted_on: split and counts.
    """
    assert template or not calibration.uses_cross_encoder
    if calibration.models[0].fusion:
        calibration.counts.save(folder / COUNTS_FILE, calibration.training_counts)
    content = {"schema_version": SCHEMA_VERSIONS[CALIBRATOR], **calibration.to_dict()}
    write_json(folder / CALIBRATOR, content | {"fitted_on": fitted_on})
    tables = {model.name: model.thresholds for model in calibration.models}
    write_json(folder / THRESHOLDS, thresholds_content(tables))
    (folder / RECIPE).write_text(origin.recipe, encoding="utf-8")
    _write_config_of_others(folder, template)
    base_model = origin.base_model if template else None
    base_revision = origin.base_revision if template else None
    settings = {
        "schema_version": SCHEMA_VERSIONS[MANIFEST],
        "template": template and asdict(template),
        "input": template and template.pair_text(),
        "base_model": base_model,
        "base_revision": base_revision,
        "umls_reranker_version": __version__,
        "dtype": dtype,
        "dictionary": origin.dictionary,
    }
    write_model_manifest(folder, settings, {})


def _write_config_of_others(folder: Path, template: PairTemplate | None) -> None:
    """Write what other libraries read of a model; without a template it has no cross-encoder."""
    if template is None:
        # The Hub counts a model's downloads by requests for it.
        write_json(folder / CONFIG, {"model_type": "umls_reranker"})
    elif not _is_encoder(read_json(folder / CONFIG)):
        limits = {"max_seq_length": template.max_length, "do_lower_case": False}
        write_json(folder / SENTENCE_CONFIG, limits)


def _is_encoder(config: dict[str, Any]) -> bool:
    """Whether a network gives the vector of one text, instead of the logit of a pair."""
    return config.get("architectures") == ENCODER
