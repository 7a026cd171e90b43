"""The model folder is an ordinary one: other libraries load it and compute the same logits."""

import ast
import json
import random
import re

import numpy as np
import pytest
import torch
from outcome_fixtures import NO_FIGURES
from tiny_reranker import tiny_reranker
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from umls_reranker import UMLSReranker
from umls_reranker.core.files import read_json
from umls_reranker.hub.card import EXAMPLE, folder_card
from umls_reranker.hub.model_folder import changing
from umls_reranker.models.pairs import PairTemplate


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


TEMPLATES = [
    PairTemplate(64),
    PairTemplate(128, mention_types=True, candidate_fields=("preferred_name",)),
    PairTemplate(128, context_tokens=16, mention_types=True, candidate_fields=("preferred_name", "definition")),
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_who_follows_the_card_gets_the_logit_of_the_reranker(tmp_path, template):
    folder = tiny_reranker(tmp_path / "model", template)
    with changing(folder) as new:
        (new / "metrics.json").write_text(json.dumps(NO_FIGURES))
    card = folder_card(folder)
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[1].replace("path/to/model", str(folder))
    pair = ast.literal_eval(re.search(r"predict\(\[(.*)\]\)", code)[1])
    # What the manifest says, filled in, is the pair of the card.
    shown = read_json(folder / "reranker.json")["input"]
    assert f"`{shown['text']}` and `{shown['text_pair']}`" in card
    filled = EXAMPLE | {"types": EXAMPLE["types"][0]}
    assert pair == (shown["text"].format(**filled), shown["text_pair"].format(**filled))

    reranker = UMLSReranker.from_pretrained(folder, device="cpu", dtype="float32")
    candidate = {key: EXAMPLE[key] for key in ("name", "preferred_name", "definition")}
    expected = reranker.rerank(EXAMPLE["mention"], [candidate], EXAMPLE["types"], EXAMPLE["left"], EXAMPLE["right"])
    assert reranker.get_statistics()["truncated_pairs"] == 0
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        logit = model(**AutoTokenizer.from_pretrained(folder)(*pair, return_tensors="pt")).logits.item()
    assert logit == pytest.approx(expected[0].logit, abs=1e-4)
    assert model.config.id2label == {0: "gold concept"}
    assert "local_files_only" not in (folder / "tokenizer_config.json").read_text()
    pytest.importorskip("sentence_transformers")
    *imports, call = code.strip().splitlines()
    exec("\n".join(imports), namespace := {})
    assert eval(call, namespace) == pytest.approx([expected[0].logit], abs=1e-4)
