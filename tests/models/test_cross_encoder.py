"""The scoring engine against one plain forward pass per pair."""

import io
import json
import os
import random
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from list_fixtures import COSINE_ROUNDING, OTHER_CODE, ROUNDING, assert_alike
from processes import run_forked
from safetensors.torch import load_file, save_file
from tiny_models import tiny_cross_encoder, tiny_encoder
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    RobertaConfig,
    RobertaModel,
)

from umls_reranker.core import devices
from umls_reranker.core.errors import UserError
from umls_reranker.models.bi_encoder import BiEncoder, PaddedLayers
from umls_reranker.models.cross_encoder import PairScorer
from umls_reranker.models.packed_bert import PackedLayers
from umls_reranker.models.pair_template import PairTemplate
from umls_reranker.models.pretrained import load_base_model
from umls_reranker.models.remembered_logits import RememberedLogits
from umls_reranker.models.torch_networks import COSINE_SCALE, PackedBert

TEMPLATE = PairTemplate(max_length=32)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_cross_encoder(tmp_path_factory.mktemp("scoring") / "model")


@pytest.fixture(scope="module")
def pairs():
    """60 distinct pairs of all lengths, 8 of which do not fit into 32 tokens."""
    choose = random.Random(0)
    texts = [
        "".join(choose.choices("abcdefg  ", k=length))
        for length in (*range(1, 13), 40, 40)
        for _ in range(5)
    ]
    return texts[:60], choose.sample(texts, k=60)


@pytest.fixture(scope="module")
def expected(model, pairs):
    """Logits of the pairs, each in a forward pass of its own, without any of our code."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForSequenceClassification.from_pretrained(model, dtype="float32").eval()
    logits = []
    with torch.inference_mode():
        for pair in zip(*pairs, strict=True):
            inputs = tokenizer(
                *pair, truncation="longest_first", max_length=32, return_tensors="pt"
            )
            logits.append(network(**inputs).logits.item())
    assert np.std(logits) > 1
    return np.array(logits)


@pytest.fixture(params=["packed", "padded"])
def layout(request, monkeypatch):
    """Both ways to compute a batch: BERT without padding, and any model with."""
    if request.param == "padded":
        monkeypatch.setattr(PackedBert, "supports", lambda config: False)
    return request.param


def load(model, template=TEMPLATE, dtype="float32", **options):
    return PairScorer.from_folder(model, template, "cpu", dtype, **options)


def watch(scorer):
    """The batches that the scorer's network will compute, each as the lengths of its pairs."""
    batches = []
    call = type(scorer.network).__call__

    class Watched(type(scorer.network)):
        def __call__(self, batch):
            batches.append(batch.lengths)
            return call(self, batch)

    scorer.network.__class__ = Watched
    return batches


def test_logits_are_those_of_transformers_in_input_order(layout, model, pairs, expected):
    # A token is a letter, and three tokens are special.
    letters = [len((mention + name).replace(" ", "")) for mention, name in zip(*pairs, strict=True)]
    for options in ({}, {"chunk_pairs": 7}):
        scores = load(model).score(*pairs, **options)
        assert scores.logits.dtype == np.float32
        np.testing.assert_allclose(scores.logits, expected, rtol=0, atol=OTHER_CODE)
        assert scores.truncated == sum(count > 29 for count in letters) > 0


@pytest.mark.parametrize("token_budget", [1, 100, 1_000_000])
def test_logits_do_not_depend_on_the_batches(layout, model, pairs, expected, token_budget):
    scorer = load(model, token_budget=token_budget)
    assert isinstance(scorer.network, PackedBert) == (layout == "packed")
    np.testing.assert_allclose(scorer.score(*pairs).logits, expected, rtol=0, atol=OTHER_CODE)


def test_equal_pairs_are_scored_once(model, pairs, expected):
    scorer = load(model)
    batches = watch(scorer)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(60), 4))
    logits = scorer.score(*([column[i] for i in order] for column in pairs)).logits
    np.testing.assert_allclose(logits, expected[order], rtol=0, atol=OTHER_CODE)
    tokenizer = AutoTokenizer.from_pretrained(model)
    distinct = tokenizer(*pairs, truncation="longest_first", max_length=32)["input_ids"]
    assert sum(map(len, batches)) == len(set(map(tuple, distinct)))
    for i in range(60):
        assert len(set(logits[order == i])) == 1


def test_batches_stay_within_the_token_budget(layout, model, pairs):
    scorer = load(model, token_budget=128)
    batches = watch(scorer)
    scorer.score(*pairs)
    sizes = [
        len(lengths) * lengths.max() if layout == "padded" else lengths.sum() for lengths in batches
    ]
    assert len(batches) > 3 and 100 < max(sizes) <= 128


def test_context_is_read_when_the_template_has_it(model):
    scorer = load(model, PairTemplate(32, context_tokens=4))
    bare = scorer.score(["cold"], ["cold"]).logits
    seen = scorer.score(["cold", "cold"], ["cold", "cold"], ["a bad", ""], ["b", ""]).logits
    assert seen[1] == pytest.approx(bare[0], abs=ROUNDING)
    assert abs(seen[0] - bare[0]) > 1e-3
    without_context = load(model)
    unread = without_context.score(["cold"], ["cold"], ["a bad"], ["b"]).logits
    plain = without_context.score(["cold"], ["cold"]).logits
    np.testing.assert_allclose(unread, plain, atol=ROUNDING)


def test_no_pairs(model):
    scores = load(model).score([], [])
    assert (
        scores.logits.shape == (0,) and scores.logits.dtype == np.float32 and scores.truncated == 0
    )


def test_bfloat16_is_close_and_ends_in_float32(layout, model, pairs, expected):
    scorer = load(model, dtype="bfloat16")
    logits = scorer.score(*pairs).logits
    assert 0 < np.sqrt(np.mean((logits - expected) ** 2)) < 0.1 * np.std(expected)
    assert scorer.dtype == "bfloat16"
    # Rounded to bfloat16 the logits would come in steps, and some candidates would tie.
    assert np.count_nonzero(logits == torch.from_numpy(logits).bfloat16().float().numpy()) < 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_forked_process_scores_with_threads_of_its_own(model, pairs, expected, monkeypatch):
    monkeypatch.setattr(devices, "_pool", None)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        scorer = load(model)
        scorer.score(*pairs)

        def work():
            np.testing.assert_allclose(
                scorer.score(*pairs).logits, expected, rtol=0, atol=OTHER_CODE
            )

        assert run_forked(work) == 0
    finally:
        devices._pool.shutdown()
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "change", [{"hidden_act": "relu"}, {"model_type": "roberta"}, {"quantization_config": {}}]
)
def test_other_activations_and_kinds_are_left_to_transformers(model, change):
    config = json.loads((model / "config.json").read_text())
    assert PackedBert.supports(config) and not PackedBert.supports(config | change)


def test_scores_that_are_not_numbers_are_refused(model, pairs):
    scorer = load(model)
    scorer.network.body.words[5:] = float("nan")
    with pytest.raises(UserError, match="non-finite scores"):
        scorer.score(*pairs)


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("config.json", {"num_hidden_layers": 3}, "lacks bert.encoder.layer.2."),
        ("config.json", {"num_hidden_layers": 1}, "lacks bert.encoder.layer.1."),
        ("config.json", {"num_hidden_layers": "two"}, "cannot be loaded: "),
        ("tokenizer.json", {"model": None}, "cannot be loaded: "),
    ],
    ids=str,
)
def test_files_that_do_not_fit_are_refused(tmp_path, file, change, reason):
    path = tiny_cross_encoder(tmp_path / "model") / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=reason):
        load(tmp_path / "model")


# Models are files of numbers and text: code in a folder is never run, and no one is asked to allow


CODE = "from pathlib import Path\nPath({ran!r}).touch()\nfrom transformers import {names}\n"
OWN_CLASSES = {
    "config.json": {"AutoConfig": "own.BertConfig", "AutoModel": "own.BertModel"},
    "tokenizer_config.json": {"AutoTokenizer": ["own.BertTokenizer", "own.BertTokenizer"]},
}
LOADERS = {
    "reranker": lambda folder: PairScorer.from_folder(folder, PairTemplate(32), "cpu"),
    "base model": lambda folder: load_base_model(str(folder), None, PairTemplate(32)),
    "encoder": lambda folder: BiEncoder.from_pretrained(str(folder), device="cpu"),
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("name", OWN_CLASSES)
def test_code_of_a_folder_is_never_run(tmp_path, monkeypatch, name, loader):
    make = tiny_encoder if loader == "encoder" else tiny_cross_encoder
    folder = make(tmp_path / "model")
    ran = tmp_path / "ran"
    names = "BertConfig, BertModel, BertForSequenceClassification, BertTokenizer"
    (folder / "own.py").write_text(CODE.format(ran=str(ran), names=names))
    content = json.loads((folder / name).read_text())
    classes = OWN_CLASSES[name]
    if loader != "encoder" and name == "config.json":
        classes = classes | {
            "AutoModelForSequenceClassification": "own.BertForSequenceClassification"
        }
    # A kind that transformers does not know leaves only the folder's own code.
    content |= {"auto_map": classes, "model_type": "own"}
    (folder / name).write_text(json.dumps(content))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 10))
    with pytest.raises(UserError, match=f"{name} requires custom code"):
        LOADERS[loader](folder)
    assert not ran.exists()
    assert sys.stdin.read() == "y\n" * 10


def test_every_model_is_loaded_in_one_way():
    root = Path(__file__).resolve().parents[2]
    files = [
        path for folder in ("umls_reranker", "scripts") for path in (root / folder).rglob("*.py")
    ]
    assert [
        path.name for path in files if re.search(r"\bAuto\w+\.from_pretrained", path.read_text())
    ] == []


@pytest.mark.parametrize("loader", LOADERS)
def test_an_adapter_next_to_a_model_is_refused(tmp_path, loader):
    """transformers would load it into the model where peft is installed, and leave it out where it
    is not.
    """
    folder = (tiny_encoder if loader == "encoder" else tiny_cross_encoder)(tmp_path / "model")
    (folder / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "base_model_name_or_path": "org/other"}'
    )
    with pytest.raises(UserError, match="adapter_config.json"):
        LOADERS[loader](folder)


TEXTS = ["heart", "a", "heart attack in the morning", "x-ray", "a", ""]


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


def load_encoder(encoder_folder, **settings) -> BiEncoder:
    return BiEncoder.from_pretrained(
        str(encoder_folder), **{"device": "cpu", "dtype": "float32"} | settings
    )


@pytest.fixture(params=[PackedLayers, PaddedLayers])
def kind(request, monkeypatch):
    """Both ways to compute a batch: BERT without padding, and any encoder with."""
    if request.param is PaddedLayers:
        monkeypatch.setattr(PackedLayers, "supports", lambda config: False)
    return request.param


def one_by_one(encoder_folder, texts, pooling) -> np.ndarray:
    """Unit vectors by transformers, each text in a forward pass of its own."""
    model = AutoModel.from_pretrained(encoder_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder)
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
def test_vectors_are_those_of_each_text_alone(encoder_folder, kind, pooling):
    encoder = load_encoder(encoder_folder, pooling=pooling)
    assert type(encoder.body) is kind
    vectors = encoder.encode(TEXTS, token_budget=24)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, one_by_one(encoder_folder, TEXTS, pooling), atol=1e-6)


@pytest.mark.parametrize("token_budget", [1, 24, None])
def test_the_logit_of_an_encoder_is_the_scaled_cosine_of_two_texts(encoder_folder, token_budget):
    vectors = one_by_one(encoder_folder, TEXTS, "mean")
    scorer = load(encoder_folder, PairTemplate(), token_budget=token_budget)
    scores = scorer.score(np.repeat(TEXTS, len(TEXTS)).tolist(), TEXTS * len(TEXTS))
    expected = COSINE_SCALE * (vectors @ vectors.T).ravel()
    np.testing.assert_allclose(scores.logits, expected, atol=ROUNDING)
    assert scores.computed == len(set(TEXTS)) ** 2
    assert len(scorer.score([], []).logits) == 0


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
    encoder = load_encoder(tmp_path, pooling=pooling)
    assert isinstance(encoder.body, PaddedLayers)
    np.testing.assert_allclose(
        encoder.encode(TEXTS), one_by_one(tmp_path, TEXTS, pooling), atol=1e-6
    )


def test_weights_that_transformers_has_to_rename_are_left_to_it(encoder_folder, tmp_path):
    tiny_encoder(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    legacy = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor
        for name, tensor in weights.items()
    }
    assert legacy.keys() != weights.keys()
    save_file(legacy, tmp_path / "model.safetensors", {"format": "pt"})
    encoder = load_encoder(tmp_path)
    assert isinstance(encoder.body, PaddedLayers)
    np.testing.assert_allclose(
        encoder.encode(TEXTS), load_encoder(encoder_folder).encode(TEXTS), atol=1e-6
    )


def test_chunks_and_batches_do_not_mix_up_texts(encoder_folder):
    encoder = load_encoder(encoder_folder)
    texts = [f"name {number} {'long ' * (number % 5)}" for number in range(40)]
    whole = encoder.encode(texts)
    parts = encoder.encode(texts, token_budget=50, chunk_texts=7)
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_result_does_not_depend_on_the_number_of_threads(encoder_folder):
    encoder = load_encoder(encoder_folder)
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
    assert_alike(results[0], results[1], COSINE_ROUNDING)
    assert set(within) == {1}


def test_only_max_length_tokens_are_read(encoder_folder):
    vectors = load_encoder(encoder_folder, max_length=4).encode(["a b", "a b c d", "a c"])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert not np.allclose(vectors[0], vectors[2], atol=1e-3)


def test_no_texts_no_vectors(encoder_folder):
    encoder = load_encoder(encoder_folder)
    assert encoder.dimension == 32
    assert encoder.encode([]).shape == (0, 32)


def test_identity_names_what_decides_the_vectors(encoder_folder):
    identity = load_encoder(encoder_folder, pooling="cls", max_length=16).identity
    assert identity == {
        "model": str(encoder_folder),
        "revision": None,
        "pooling": "cls",
        "max_length": 16,
    }


@pytest.mark.parametrize(
    ("settings", "message"), [({"max_length": 129}, "128 tokens"), ({"dtype": "int8"}, "dtype")]
)
def test_settings_without_meaning_are_refused(encoder_folder, settings, message):
    with pytest.raises(UserError, match=message):
        load_encoder(encoder_folder, **settings)


def test_an_encoder_without_a_pooler_is_loaded(encoder_folder, tmp_path, kind):
    weights = Path(shutil.copytree(encoder_folder, tmp_path / "encoder")) / "model.safetensors"
    kept = {
        name: value for name, value in load_file(weights).items() if not name.startswith("pooler.")
    }
    save_file(kept, weights, {"format": "pt"})
    np.testing.assert_allclose(
        load_encoder(weights.parent).encode(TEXTS),
        load_encoder(encoder_folder).encode(TEXTS),
        atol=1e-6,
    )


def test_vectors_that_are_not_numbers_are_refused(tmp_path, kind):
    weights = tiny_encoder(tmp_path) / "model.safetensors"
    content = load_file(weights)
    content["encoder.layer.1.output.dense.weight"][0, 0] = float("nan")
    save_file(content, weights, {"format": "pt"})
    with pytest.raises(UserError, match="gave non-finite embeddings"):
        load_encoder(tmp_path).encode(["heart"])


def test_context_that_does_not_fit_is_refused(tmp_path):
    """Mentions with less text around them would still be read, the others end in an error of an
    index.
    """
    (tiny_encoder(tmp_path) / "context.json").write_text(
        '{"schema_version": 1, "context_tokens": 32}'
    )
    with pytest.raises(UserError, match="130 .* 128"):
        load_encoder(tmp_path, max_length=64)
    words = ["a " * 100]
    assert load_encoder(tmp_path, max_length=62).encode(words, (words, words)).shape == (1, 32)


def test_ids_beyond_the_vocabulary_are_refused(tmp_path):
    path = tiny_cross_encoder(tmp_path / "model") / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] = 999_999
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="model: tokenizer.json .*999999"):
        load(tmp_path / "model")


# What is remembered from call to call


def test_a_pair_is_computed_once_in_all_calls(model, pairs):
    fresh = PairScorer.from_folder(model, TEMPLATE, "cpu", "float32")
    scorer = PairScorer.from_folder(model, TEMPLATE, "cpu", "float32", remembered_pairs=100)
    mentions, names = pairs
    first = scorer.score(mentions[:40], names[:40])
    second = scorer.score(mentions * 2, names * 2)
    assert (first.computed, second.computed) == (40, 20)
    expected = fresh.score(mentions * 2, names * 2)
    assert (expected.computed, expected.truncated) == (60, second.truncated)
    np.testing.assert_allclose(second.logits, expected.logits, atol=1e-6)
    assert fresh.score(mentions, names).computed == 60
    # What would be more than a hundred takes the place of all.
    assert len(scorer.remembered) == 60
    assert scorer.score(names, mentions).computed == len(scorer.remembered) > 40
    context = PairTemplate(max_length=32, context_tokens=4)
    in_context = PairScorer.from_folder(model, context, "cpu", "float32", remembered_pairs=100)
    assert [in_context.score(mentions, names).computed for _ in range(2)] == [60, 60]


def test_what_is_remembered_stays_within_its_bound_from_several_threads():
    memory = RememberedLogits(1_000)

    def fill(thread):
        for start in range(0, 250_000, 250):
            keys = [b"%d %d" % (thread, number) for number in range(start, start + 250)]
            numbers = np.arange(start, start + 250, dtype=np.float32)
            memory.add(keys, numbers)
            known = memory.recall(keys)
            assert np.isnan(known).all() or np.array_equal(known, numbers)
            assert len(memory) <= 1_000

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fill, range(4)))
    memory.add([b"%d" % number for number in range(2_000)], np.zeros(2_000, np.float32))
    assert len(memory) == 1_000
