import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_encoder
from transformers import AutoModel, AutoTokenizer, RobertaConfig, RobertaModel

from umls_reranker.core.errors import UserError
from umls_reranker.models.bi_encoder import BiEncoder, PaddedLayers
from umls_reranker.models.pretrained import PackedLayers

TEXTS = ["heart", "a", "heart attack in the morning", "x-ray", "a", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


def load(folder, **settings) -> BiEncoder:
    return BiEncoder.from_pretrained(
        str(folder), **{"device": "cpu", "dtype": "float32"} | settings
    )


@pytest.fixture(params=[PackedLayers, PaddedLayers])
def kind(request, monkeypatch):
    """Both ways to compute a batch: BERT without padding, and any encoder with."""
    if request.param is PaddedLayers:
        monkeypatch.setattr(PackedLayers, "supports", lambda config: False)
    return request.param


def one_by_one(folder, texts, pooling) -> np.ndarray:
    """Unit vectors by transformers, each text in a forward pass of its own."""
    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    vectors = []
    for text in texts:
        with torch.no_grad():
            hidden = model(
                **tokenizer(text, return_tensors="pt", return_token_type_ids=False)
            ).last_hidden_state[0]
        vector = hidden.mean(dim=0) if pooling == "mean" else hidden[0]
        vectors.append((vector / vector.norm()).numpy())
    return np.stack(vectors)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_each_text_alone(folder, kind, pooling):
    encoder = load(folder, pooling=pooling)
    assert type(encoder.body) is kind
    vectors = encoder.encode(TEXTS, token_budget=24)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, one_by_one(folder, TEXTS, pooling), atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_other_kinds_are_left_to_transformers(tmp_path, pooling):
    tiny_encoder(tmp_path)
    bert = AutoModel.from_pretrained(tmp_path).config
    sizes = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
    )
    config = RobertaConfig(
        **{size: getattr(bert, size) for size in sizes}, pad_token_id=0, type_vocab_size=1
    )
    RobertaModel(config).save_pretrained(tmp_path)
    encoder = load(tmp_path, pooling=pooling)
    assert isinstance(encoder.body, PaddedLayers)
    np.testing.assert_allclose(
        encoder.encode(TEXTS), one_by_one(tmp_path, TEXTS, pooling), atol=1e-6
    )


def test_weights_that_transformers_has_to_rename_are_left_to_it(folder, tmp_path):
    tiny_encoder(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    legacy = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor
        for name, tensor in weights.items()
    }
    assert legacy.keys() != weights.keys()
    save_file(legacy, tmp_path / "model.safetensors", {"format": "pt"})
    encoder = load(tmp_path)
    assert isinstance(encoder.body, PaddedLayers)
    np.testing.assert_allclose(encoder.encode(TEXTS), load(folder).encode(TEXTS), atol=1e-6)


def test_chunks_and_batches_do_not_mix_up_texts(folder):
    encoder = load(folder)
    texts = [f"name {number} {'long ' * (number % 5)}" for number in range(40)]
    whole = encoder.encode(texts)
    parts = encoder.encode(texts, token_budget=50, chunk_texts=7)
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_result_does_not_depend_on_the_number_of_threads(folder):
    encoder = load(folder)
    within = []
    compute = encoder._unit_vectors
    encoder._unit_vectors = lambda *batch: within.append(torch.get_num_threads()) or compute(*batch)
    texts = [f"name {number}" for number in range(50)]
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(encoder.encode(texts, token_budget=60))
            # The setting is global but a thread reads it when it starts.
            with ThreadPoolExecutor(1) as pool:
                assert (
                    pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == count
                )
    finally:
        torch.set_num_threads(threads)
    assert results[0].tobytes() == results[1].tobytes()
    assert set(within) == {1}


def test_only_max_length_tokens_are_read(folder):
    vectors = load(folder, max_length=4).encode(["a b", "a b c d", "a c"])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert not np.allclose(vectors[0], vectors[2], atol=1e-3)


def test_no_texts_no_vectors(folder):
    encoder = load(folder)
    assert encoder.dimension == 32
    assert encoder.encode([]).shape == (0, 32)


def test_identity_names_what_decides_the_vectors(folder):
    identity = load(folder, pooling="cls", max_length=16).identity
    assert identity == {"model": str(folder), "revision": None, "pooling": "cls", "max_length": 16}


@pytest.mark.parametrize(
    ("settings", "message"), [({"max_length": 129}, "128 tokens"), ({"dtype": "int8"}, "dtype")]
)
def test_settings_without_meaning_are_refused(folder, settings, message):
    with pytest.raises(UserError, match=message):
        load(folder, **settings)


def test_an_encoder_without_a_pooler_is_loaded(folder, tmp_path, kind):
    weights = Path(shutil.copytree(folder, tmp_path / "encoder")) / "model.safetensors"
    kept = {
        name: value for name, value in load_file(weights).items() if not name.startswith("pooler.")
    }
    save_file(kept, weights, {"format": "pt"})
    np.testing.assert_allclose(
        load(weights.parent).encode(TEXTS), load(folder).encode(TEXTS), atol=1e-6
    )


def test_vectors_that_are_not_numbers_are_refused(tmp_path, kind):
    weights = tiny_encoder(tmp_path) / "model.safetensors"
    content = load_file(weights)
    content["encoder.layer.1.output.dense.weight"][0, 0] = float("nan")
    save_file(content, weights, {"format": "pt"})
    with pytest.raises(UserError, match="gave non-finite embeddings"):
        load(tmp_path).encode(["heart"])


def test_context_that_does_not_fit_is_refused(tmp_path):
    """Mentions with less text around them would still be read, the others end in an error of an
    index.
    """
    (tiny_encoder(tmp_path) / "context.json").write_text(
        '{"schema_version": 1, "context_tokens": 32}'
    )
    with pytest.raises(UserError, match="up to 130 tokens but .* reads at most 128"):
        load(tmp_path, max_length=64)
    words = ["a " * 100]
    assert load(tmp_path, max_length=62).encode(words, (words, words)).shape == (1, 32)
