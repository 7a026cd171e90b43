"""Two-layer BERTs with random weights and a character WordPiece tokenizer, saved as ordinary model folders."""

import string
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

CHARACTERS = string.ascii_lowercase + string.digits + "-,.()/'"
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]", "[unused2]"),
    *CHARACTERS,
    *(f"##{character}" for character in CHARACTERS),
]


def _tokenizer(folder: Path) -> BertTokenizerFast:
    folder.mkdir(parents=True, exist_ok=True)
    vocab = folder / "vocab.txt"
    vocab.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return BertTokenizerFast(str(vocab), do_lower_case=True, model_max_length=128)


def _config(**overrides) -> BertConfig:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=128, **sizes, **overrides)


def tiny_encoder(folder: Path, seed: int = 0) -> Path:
    """Save a bi-encoder (BertModel) and its tokenizer."""
    torch.manual_seed(seed)
    _tokenizer(folder).save_pretrained(folder)
    BertModel(_config()).save_pretrained(folder)
    return folder


def tiny_cross_encoder(folder: Path, seed: int = 0, spread: float = 0.5) -> Path:
    """Save a cross-encoder of one logit; weights with standard deviation `spread` make scores differ visibly."""
    torch.manual_seed(seed)
    _tokenizer(folder).save_pretrained(folder)
    BertForSequenceClassification(_config(num_labels=1, initializer_range=spread)).save_pretrained(folder)
    return folder
