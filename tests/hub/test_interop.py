"""The model folder is an ordinary one: other libraries load it and compute the same logits."""

import ast
import json
import re

import pytest
import torch
from outcome_fixtures import NO_FIGURES
from tiny_reranker import tiny_reranker
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from umls_reranker import UMLSReranker
from umls_reranker.core.files import read_json
from umls_reranker.hub.model_folder import changing
from umls_reranker.hub.publish import TABLES, folder_card
from umls_reranker.models.pairs import PairTemplate

TEMPLATES = [
    PairTemplate(64),
    PairTemplate(128, mention_types=True, candidate_fields=("preferred_name",)),
    PairTemplate(
        128,
        context_tokens=16,
        mention_types=True,
        candidate_fields=("preferred_name", "definition"),
    ),
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_who_follows_the_card_gets_the_logit_of_the_reranker(tmp_path, template):
    folder = tiny_reranker(tmp_path / "model", template)
    with changing(folder) as new:
        (new / "metrics.json").write_text(json.dumps(NO_FIGURES))
    card = folder_card(folder).text()
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[1].replace(
        "path/to/model", str(folder)
    )
    pair = ast.literal_eval(re.search(r"predict\(\[(.*)\]\)", code)[1])
    # What the manifest says, filled in, is the pair of the card.
    shown = read_json(folder / "reranker.json")["input"]
    assert f"`{shown['text']}` and `{shown['text_pair']}`" in card
    filled = TABLES["example"] | {"types": TABLES["example"]["types"][0]}
    assert pair == (shown["text"].format(**filled), shown["text_pair"].format(**filled))

    reranker = UMLSReranker.from_pretrained(folder, device="cpu", dtype="float32")
    candidate = {key: TABLES["example"][key] for key in ("name", "preferred_name", "definition")}
    expected = reranker.rerank(
        TABLES["example"]["mention"],
        [candidate],
        TABLES["example"]["types"],
        TABLES["example"]["left"],
        TABLES["example"]["right"],
    )
    assert reranker.get_statistics()["truncated_pairs"] == 0
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        logit = model(
            **AutoTokenizer.from_pretrained(folder)(*pair, return_tensors="pt")
        ).logits.item()
    assert logit == pytest.approx(expected[0].logit, abs=1e-4)
    assert model.config.id2label == {0: "gold concept"}
    assert "local_files_only" not in (folder / "tokenizer_config.json").read_text()
    pytest.importorskip("sentence_transformers")
    *imports, call = code.strip().splitlines()
    exec("\n".join(imports), namespace := {})
    assert eval(call, namespace) == pytest.approx([expected[0].logit], abs=1e-4)
