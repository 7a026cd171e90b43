"""Two-layer BERTs with random weights and a character WordPiece tokenizer, saved as ordinary model
folders.
"""

import string
from pathlib import Path

import torch
import transformers
from list_fixtures import assert_alike
from safetensors.numpy import load_file
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

CHARACTERS = string.ascii_lowercase + string.digits + "-,.()/'"
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]", "[unused2]"),
    *CHARACTERS,
    *(f"##{character}" for character in CHARACTERS),
]

# The largest difference of a trained weight between kernels (AMX, AVX2) was 5.2e-7, in float32.
WEIGHT_ROUNDING = 5e-6
# A number that is added to all logits of a softmax changes nothing, so these have no gradient but
# rounding, which Adam makes as large as any.
WITHOUT_GRADIENT = ("key.bias", "classifier.bias")

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def assert_same_weights(found: Path, expected: Path) -> None:
    """That two folders hold the same trained weights, but for rounding."""
    weights = load_file(found / "model.safetensors")
    others = load_file(expected / "model.safetensors")
    assert weights.keys() == others.keys()
    for name in others:
        if not name.endswith(WITHOUT_GRADIENT):
            assert_alike(weights[name], others[name], WEIGHT_ROUNDING, name)


def _tokenizer(folder: Path) -> BertTokenizerFast:
    folder.mkdir(parents=True, exist_ok=True)
    vocab = folder / "vocab.txt"
    vocab.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return BertTokenizerFast(str(vocab), do_lower_case=True, model_max_length=128)


def tiny_classifier(folder: Path, kind: str) -> Path:
    """Save a cross-encoder of one logit: Roberta, DebertaV2, ModernBert or MPNet."""
    torch.manual_seed(0)
    tokenizer = _tokenizer(folder)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    sizes = {name: getattr(_config(), name) for name in ("vocab_size", *SIZES)} | {
        "max_position_embeddings": 130
    }
    ids = {
        "pad_token_id": 0,
        "bos_token_id": 2,
        "cls_token_id": 2,
        "eos_token_id": 3,
        "sep_token_id": 3,
    }
    own = (
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}
        if kind[0] == "D"
        else {}
    )
    config = getattr(transformers, f"{kind}Config")(**sizes, **ids, **own, num_labels=1)
    getattr(transformers, f"{kind}ForSequenceClassification")(config).save_pretrained(folder)
    return folder


def _config(**overrides) -> BertConfig:
    return BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=128, **SIZES, **overrides)


def tiny_encoder(folder: Path, seed: int = 0) -> Path:
    """Save a bi-encoder (BertModel) and its tokenizer."""
    torch.manual_seed(seed)
    _tokenizer(folder).save_pretrained(folder)
    BertModel(_config()).save_pretrained(folder)
    return folder


def tiny_cross_encoder(folder: Path, seed: int = 0, spread: float = 0.5) -> Path:
    """Save a cross-encoder of one logit; weights with standard deviation `spread` make scores
    differ visibly.
    """
    torch.manual_seed(seed)
    _tokenizer(folder).save_pretrained(folder)
    BertForSequenceClassification(_config(num_labels=1, initializer_range=spread)).save_pretrained(
        folder
    )
    return folder
