from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny_models import tiny_encoder
from transformers import AutoModel, AutoTokenizer

from umls_reranker.errors import UserError
from umls_reranker.retrieval import encoder as encoder_module
from umls_reranker.retrieval.encoder import BiEncoder

TEXTS = ["heart", "a", "heart attack in the morning", "x-ray", "a", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


def load(folder, **settings) -> BiEncoder:
    return BiEncoder.from_pretrained(str(folder), **{"device": "cpu", "dtype": "float32"} | settings)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_each_text_alone(folder, pooling):
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    expected = []
    for text in TEXTS:
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        vector = hidden.mean(dim=0) if pooling == "mean" else hidden[0]
        expected.append((vector / vector.norm()).numpy())
    vectors = load(folder, pooling=pooling).encode(TEXTS, token_budget=24)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, np.stack(expected), atol=1e-6)


def test_chunks_and_batches_do_not_mix_up_texts(folder, monkeypatch):
    encoder = load(folder)
    texts = [f"name {number} {'long ' * (number % 5)}" for number in range(40)]
    whole = encoder.encode(texts)
    monkeypatch.setattr(encoder_module, "CHUNK", 7)
    np.testing.assert_allclose(encoder.encode(texts, token_budget=50), whole, atol=1e-6)


def test_result_does_not_depend_on_the_number_of_threads(folder):
    encoder = load(folder)
    within = []
    encoder.model.register_forward_pre_hook(lambda *_: within.append(torch.get_num_threads()))
    texts = [f"name {number}" for number in range(50)]
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(encoder.encode(texts, token_budget=60))
            # The setting is global but a thread reads it when it starts.
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert results[0].tobytes() == results[1].tobytes()
    assert set(within) == {1}


def test_only_max_length_tokens_are_read(folder):
    encoder = load(folder, max_length=4)
    vectors = encoder.encode(["a b", "a b c d", "a c"])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert not np.allclose(vectors[0], vectors[2], atol=1e-3)


def test_bfloat16_is_close_to_float32(folder):
    exact, rounded = load(folder).encode(TEXTS), load(folder, dtype="bfloat16").encode(TEXTS)
    assert rounded.dtype == np.float32
    assert (exact * rounded).sum(axis=1).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(rounded, axis=1), 1, atol=1e-6)


def test_no_texts_no_vectors(folder):
    encoder = load(folder)
    assert encoder.dimension == 32
    assert encoder.encode([]).shape == (0, 32)


def test_identity_names_what_decides_the_vectors(folder):
    identity = load(folder, pooling="cls", max_length=16).identity
    assert identity == {"model": str(folder), "revision": None, "pooling": "cls", "max_length": 16}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "max"}, "encoder_pooling: 'max' is unknown; use mean or cls"),
        ({"max_length": 129}, "reads at most 128 tokens"),
        ({"dtype": "int8"}, "encoder_precision"),
    ],
)
def test_settings_without_meaning_are_refused(folder, settings, message):
    with pytest.raises(UserError, match=message):
        load(folder, **settings)


def test_folder_without_a_model_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_damaged_weights_are_refused(tmp_path):
    weights = tiny_encoder(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be loaded"):
        load(tmp_path)


def test_unreachable_hub_is_said_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="org/no-such-encoder .*give a local folder") as caught:
        BiEncoder.from_pretrained("org/no-such-encoder", device="cpu")
    assert "\n" not in str(caught.value)
