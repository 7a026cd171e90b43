"""The files of a model folder: their names, who writes them, and their versions."""

from ..calibration.string_counts import COUNTS_FILE
from ..calibration.thresholds_file import THRESHOLDS_VERSION
from ..core.errors import UserError
from ..evaluation.outcomes import OUTCOMES_FILE
from ..models.arguments import BACKENDS

MANIFEST = "reranker.json"
CARD = "README.md"
WEIGHTS = BACKENDS["torch"]
ONNX = BACKENDS["onnx"]
CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
CALIBRATOR = "calibrator.json"
THRESHOLDS = "thresholds.json"
RECIPE = "recipe.yaml"
METRICS_FILE = "metrics.json"
REFERENCE = "reference.json"
RELIABILITY = "reliability.svg"
RISK_COVERAGE = "risk_coverage.svg"
CROSS_ENCODER_FILES = (
    CONFIG,
    WEIGHTS,
    "tokenizer.json",
    TOKENIZER_CONFIG,
    "vocab.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
# What other libraries read of a cross-encoder. Text Embeddings Inference takes its length limit
# from there alone.
SENTENCE_CONFIG = "sentence_bert_config.json"
# What ``evaluate`` writes. A model may be copied without what only a report needs.
MONITORED = (METRICS_FILE, REFERENCE)
REPORTED = (OUTCOMES_FILE, RELIABILITY, RISK_COVERAGE)
EVALUATED = (*MONITORED, *REPORTED)
# The commands that write files; ``calibrate`` writes all others.
MAKERS = {ONNX: "export"} | dict.fromkeys(EVALUATED, "evaluate")
# All files of a model folder except MANIFEST and CARD.
MODEL_FILES = (
    *CROSS_ENCODER_FILES,
    SENTENCE_CONFIG,
    CALIBRATOR,
    COUNTS_FILE,
    THRESHOLDS,
    RECIPE,
    *EVALUATED,
    ONNX,
)
# File -> version of its form; another one is refused.
SCHEMA_VERSIONS = {MANIFEST: 3, CALIBRATOR: 10, THRESHOLDS: THRESHOLDS_VERSION}


def loaded_files(backend: str) -> tuple[str, ...]:
    """Names of the files that a reranker loads with this backend.

    Raises:
        UserError: the backend is unknown.
    """
    if backend not in BACKENDS:
        raise UserError(f"backend {backend!r} is unknown; choose from {', '.join(BACKENDS)}")
    weights_of_others = {*BACKENDS.values()} - {BACKENDS[backend]}
    left_out = {*REPORTED} | weights_of_others
    return tuple(name for name in MODEL_FILES if name not in left_out)
