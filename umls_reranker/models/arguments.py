"""Keys of a recipe that this layer reads: the base of the cross-encoder and the text it reads."""

from dataclasses import dataclass
from pathlib import Path

from ..core.keys import recipe_key

# Backend -> the file of its network in a model folder; Optimum and sentence-transformers look for
# ONNX there, too.
BACKENDS = {"torch": "model.safetensors", "onnx": "onnx/model.onnx"}
# Value of `model`: the cross-encoder starts from the encoder of the run.
RUN_ENCODER = "encoder"
# ``architectures`` of an encoder whose cosines are scores of pairs.
ENCODER = ["BertModel"]
# The models in the package: one with an encoder of names, and one without a network.
BUILT_IN = "built-in"
BUILT_IN_FAST = "built-in-fast"
BUILT_IN_FOLDERS = {
    name: Path(__file__).resolve().parents[1] / name.replace("-", "_")
    for name in (BUILT_IN, BUILT_IN_FAST)
}


@dataclass
class ModelArguments:
    """Model: the cross-encoder's base and the text it reads."""

    model: str = recipe_key(
        "cambridgeltl/SapBERT-from-PubMedBERT-fulltext",
        "base model: Hub id or local folder; encoder: the run's bi-encoder, as it was fine-tuned "
        "(a folder of that name is ./encoder)",
    )
    model_revision: str | None = recipe_key(
        None, "base model: revision on the Hub; that of the encoder is encoder_revision"
    )
    attn_implementation: str | None = recipe_key(
        None,
        "attention in training; empty: eager on a CPU, else the fastest that torch has "
        "(flash_attention_2 needs flash-attn and a GPU)",
        ("eager", "sdpa", "flash_attention_2"),
    )
    num_hidden_layers: int = recipe_key(
        0,
        "layers that the cross-encoder keeps of its base, evenly spaced, the first and the last "
        "among them; 0: all",
        least=0,
    )
    max_length: int = recipe_key(
        64, "maximum tokens per pair, special tokens included; truncated pairs are counted", least=1
    )
    context_tokens: int = recipe_key(
        0, "tokens of context on each side of the mention; 0: no context", least=0
    )
    mention_types: bool = recipe_key(
        False, "append the names of the mention's semantic types to it, if known"
    )
    candidate_fields: list[str] = recipe_key(
        [],
        "fields appended to the candidate's best-matching name: preferred_name (distinguishes "
        "concepts with the same name), definition (its first 160 characters)",
        ("preferred_name", "definition"),
    )
