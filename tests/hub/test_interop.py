"""The model folder is an ordinary one: other libraries load it and compute the same logits."""

import random

import numpy as np
import pytest
import torch
from tiny_reranker import tiny_reranker
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from umls_reranker import UMLSReranker


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_reranker(tmp_path_factory.mktemp("interop") / "model")


@pytest.fixture(scope="module")
def pairs():
    """50 pairs that fit into the template's 32 tokens."""
    choose = random.Random(0)
    texts = ["".join(choose.choices("abcdefgh -", k=choose.randrange(1, 13))) + "x" for _ in range(100)]
    return list(zip(texts[::2], texts[1::2], strict=True))


@pytest.fixture(scope="module")
def logits(folder, pairs):
    reranker = UMLSReranker.from_pretrained(folder, device="cpu", dtype="float32")
    ranked = reranker.rerank_batch([mention for mention, _ in pairs], [[name] for _, name in pairs])
    values = np.array([items[0].logit for items in ranked])
    assert values.std() > 0.5 and reranker.get_statistics()["truncated_pairs"] == 0
    return values


def test_transformers_gives_the_same_logits(folder, pairs, logits):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32").eval()
    assert model.config.num_labels == 1
    mentions, names = map(list, zip(*pairs, strict=True))
    inputs = tokenizer(mentions, names, truncation="longest_first", max_length=32, padding=True, return_tensors="pt")
    with torch.inference_mode():
        theirs = model(**inputs).logits
    assert theirs.shape == (50, 1)
    # Against float64 either is off by some 1e-5: rounding in another order.
    np.testing.assert_allclose(theirs.squeeze(-1).numpy(), logits, rtol=0, atol=1e-4)


def test_sentence_transformers_gives_the_same_logits(folder, pairs, logits):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = sentence_transformers.CrossEncoder(str(folder), device="cpu", local_files_only=True)
    theirs = encoder.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    np.testing.assert_allclose(theirs, logits, rtol=0, atol=1e-4)
