"""The cross-encoder in ONNX: its logits are those of PyTorch, and it is checked like every file."""

import ast
import json
import re
import sys
from configparser import ConfigParser
from shutil import copyfile

import httpx
import numpy as np
import pytest
import torch
from list_fixtures import OTHER_CODE, assert_alike, make_lists
from outcome_fixtures import NO_FIGURES
from packaging.requirements import Requirement
from processes import ROOT, Service, absent
from tiny_models import tiny_classifier
from tiny_reranker import tiny_reranker
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from umls_reranker import UMLSReranker
from umls_reranker.core.errors import UserError
from umls_reranker.core.json_files import read_json, write_json
from umls_reranker.hub import export
from umls_reranker.hub.card import folder_card
from umls_reranker.hub.card_tables import CARD_TABLES
from umls_reranker.hub.export import export_onnx
from umls_reranker.hub.file_names import ONNX, SENTENCE_CONFIG, WEIGHTS
from umls_reranker.hub.manifest import verify_model
from umls_reranker.hub.model_folder import changing
from umls_reranker.models.cross_encoder import score_lists
from umls_reranker.models.pair_template import PairTemplate

TEMPLATE = PairTemplate(32, context_tokens=4, mention_types=True)


@pytest.fixture(scope="module")
def lists():
    choose = np.random.default_rng(0)
    texts = [
        "".join(choose.choice(list("abcdef "), size)) + "x" for size in choose.integers(1, 40, 120)
    ]
    return make_lists(texts[:20], [texts[start : start + 5] for start in range(20, 120, 5)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, lists):
    """A model folder with its cross-encoder in ONNX."""
    folder = tiny_reranker(tmp_path_factory.mktemp("export") / "model", TEMPLATE)
    pairs, apart = export_onnx(folder, lists)
    assert pairs == 100 and 0 < apart < 1e-4
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    return UMLSReranker.from_pretrained(folder).save_pretrained(tmp_path / "copy")


@pytest.mark.parametrize("budget", [1, 60, None])
def test_logits_are_those_of_pytorch_in_batches_of_any_size(folder, lists, budget):
    expected = UMLSReranker.from_pretrained(folder, device="cpu", dtype="float32").cross_encoder
    cross_encoder = UMLSReranker.from_pretrained(
        folder, backend="onnx", token_budget=budget
    ).cross_encoder
    assert (cross_encoder.backend, cross_encoder.dtype) == ("onnx", "float32")
    reference = score_lists(expected, lists).logits
    assert np.std(reference) > 0.5
    np.testing.assert_allclose(
        score_lists(cross_encoder, lists).logits, reference, rtol=0, atol=OTHER_CODE
    )


def test_an_export_with_other_logits_is_refused_and_changes_nothing(
    folder, tmp_path, lists, monkeypatch
):
    other = tiny_reranker(tmp_path / "model", TEMPLATE, seed=1)
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    monkeypatch.setattr(export, "_write_onnx", lambda _, new, *__: copyfile(folder / ONNX, new))
    with pytest.raises(UserError, match="on 100 pairs"):
        export_onnx(other, lists)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_network_reads_less_than_its_tokenizer_gives(tmp_path, lists):
    network = tiny_classifier(tmp_path / "network", "MPNet")
    tokenizer = network / "tokenizer_config.json"
    given = ["input_ids", "attention_mask", "token_type_ids"]
    write_json(tokenizer, read_json(tokenizer) | {"model_input_names": given})
    folder = tiny_reranker(tmp_path / "model", cross_encoder=network)
    assert export_onnx(folder, lists)[1] < 1e-4


@pytest.mark.parametrize("library", ["onnx", "onnxscript", "onnxruntime"])
def test_a_library_that_is_not_installed_is_named(folder, lists, monkeypatch, library):
    # What Python's import reads as absent.
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=library):
        export_onnx(folder, lists)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / ONNX).write_bytes(b"other"), "model.onnx does not match"),
        (lambda folder: (folder / ONNX).unlink(), "model.onnx is missing"),
        (
            lambda folder: (folder / "tokenizer.json").write_text("{}"),
            "tokenizer.json does not match",
        ),
    ],
)
def test_a_cross_encoder_that_does_not_belong_is_refused(copy, damage, reason):
    verify_model(copy, "onnx")
    damage(copy)
    with pytest.raises(UserError, match=reason):
        UMLSReranker.from_pretrained(copy, backend="onnx")


def test_a_cross_encoder_that_is_not_loaded_need_not_be_there_or_be_read(copy):
    (copy / ONNX).write_bytes(b"other")
    UMLSReranker.from_pretrained(copy)
    with pytest.raises(UserError, match="model.onnx does not match"):
        verify_model(copy)
    (copy / ONNX).unlink()
    UMLSReranker.from_pretrained(copy)


def test_weights_of_pytorch_need_not_be_there_for_onnx(folder, copy, tmp_path):
    (copy / WEIGHTS).unlink()
    reranker = UMLSReranker.from_pretrained(copy, backend="onnx")
    saved = UMLSReranker.from_pretrained(
        reranker.save_pretrained(tmp_path / "saved"), backend="onnx"
    )
    rerankers = (reranker, saved, UMLSReranker.from_pretrained(folder, backend="onnx"))
    expected, *others = [one.rerank("cold", ["cough"], "T047", "a", "b") for one in rerankers]
    for ranked in others:
        assert_alike(ranked, expected)
    with pytest.raises(UserError, match=r"model.safetensors is missing"):
        UMLSReranker.from_pretrained(copy)


@pytest.mark.parametrize(
    "options",
    [
        {"backend": "onnx_int8"},
        {"backend": "onnx", "device": "cuda"},
        {"backend": "onnx", "dtype": "bfloat16"},
    ],
)
def test_backends_devices_and_precisions_that_are_not_there_are_refused(folder, options):
    with pytest.raises(UserError, match=[*options.values()][-1]):
        UMLSReranker.from_pretrained(folder, **options)


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory):
    """A folder that hides the requirements which the guide's list for images leaves out."""
    guide = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^pip install (fastapi .*)$", guide, re.MULTILINE)
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    required = {
        Requirement(line).name for line in config["options"]["install_requires"].split("\n")[1:]
    }
    modules = {"scikit-learn": "sklearn", "faiss-cpu": "faiss"}
    hidden = {modules.get(name, name) for name in required - set(listed.split())} | {
        "pandas",
        "sentence_transformers",
    }
    assert {"torch", "datasets", "accelerate", "scipy"} <= hidden
    folder = tmp_path_factory.mktemp("hidden")
    (folder / "sitecustomize.py").write_text(absent(sorted(hidden)))
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
@pytest.mark.filterwarnings("ignore:missing inputs")
def test_a_cross_encoder_in_onnx_is_served_without_torch(copy, without_torch):
    (copy / WEIGHTS).unlink()
    names = ["common cold", "cold temperature", "renal failure"]
    mention = {"mention": "cold", "candidates": names, "entity_type": "T047"}
    expected = UMLSReranker.from_pretrained(copy, backend="onnx").rerank("cold", names, "T047")
    with (
        Service(copy, "--backend", "onnx", path=without_torch) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        assert_alike(client.post("/rank", json={"mentions": [mention]}).json(), [expected])
        assert client.get("/info").json()["model_dtype"] == "float32"
        pages = [client.get(path).status_code for path in ("/metrics", "/openapi.json")]
        assert pages == [200, 200] and service.stop()[0] == 0


# The model folder is an ordinary one: other libraries load it and compute the same logits


READ_BY_OTHERS = [
    PairTemplate(64),
    PairTemplate(128, mention_types=True, candidate_fields=("preferred_name",)),
    PairTemplate(
        128,
        context_tokens=16,
        mention_types=True,
        candidate_fields=("preferred_name", "definition"),
    ),
]


@pytest.mark.parametrize("template", READ_BY_OTHERS)
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
    filled = CARD_TABLES["example"] | {"types": CARD_TABLES["example"]["types"][0]}
    assert pair == (shown["text"].format(**filled), shown["text_pair"].format(**filled))

    reranker = UMLSReranker.from_pretrained(folder, device="cpu", dtype="float32")
    candidate = {
        key: CARD_TABLES["example"][key] for key in ("name", "preferred_name", "definition")
    }
    expected = reranker.rerank(
        CARD_TABLES["example"]["mention"],
        [candidate],
        CARD_TABLES["example"]["types"],
        CARD_TABLES["example"]["left"],
        CARD_TABLES["example"]["right"],
    )
    assert reranker.get_statistics()["truncated_pairs"] == 0
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        logit = model(
            **AutoTokenizer.from_pretrained(folder)(*pair, return_tensors="pt")
        ).logits.item()
    assert logit == pytest.approx(expected[0].logit, abs=OTHER_CODE)
    assert model.config.id2label == {0: "gold concept"}
    assert "local_files_only" not in (folder / "tokenizer_config.json").read_text()
    pytest.importorskip("sentence_transformers")
    *imports, call = code.strip().splitlines()
    namespace = {}
    exec("\n".join(imports), namespace)
    assert eval(call, namespace) == pytest.approx([expected[0].logit], abs=OTHER_CODE)


def test_the_length_limit_is_told_to_who_reads_no_tokenizer(tmp_path):
    """Text Embeddings Inference needs the key, and CrossEncoder gives the same with the file."""
    folder = tiny_reranker(tmp_path / "model", PairTemplate(24))
    config = read_json(folder / SENTENCE_CONFIG)
    assert config["max_seq_length"] == 24 and not config["do_lower_case"]
    assert SENTENCE_CONFIG in read_json(folder / "reranker.json")["sha256"]
    sentence_transformers = pytest.importorskip("sentence_transformers")
    pairs = [("cold", "common cold"), ("cold " * 40, "fever " * 40)]
    with_file = sentence_transformers.CrossEncoder(str(folder)).predict(pairs)
    (folder / SENTENCE_CONFIG).unlink()
    without = sentence_transformers.CrossEncoder(str(folder))
    assert with_file == pytest.approx(without.predict(pairs), abs=OTHER_CODE)
    assert without.tokenizer.model_max_length == 24
