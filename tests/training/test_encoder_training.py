"""The bi-encoder's training: which pairs it sees, the loss by hand, resuming, and the folder it
leaves.
"""

import json
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from encoder_on_processes import moved, take_steps
from safetensors.torch import load_file
from tiny_models import assert_same_weights, tiny_encoder
from transformers import AutoModel
from trigram_encoder import make_concepts

from umls_reranker.core.errors import UserError
from umls_reranker.core.keys import RunArguments
from umls_reranker.models.bi_encoder import BiEncoder
from umls_reranker.models.query_tokenizer import QueryTokenizer
from umls_reranker.retrieval.arguments import EncoderArguments, IndexArguments
from umls_reranker.training import encoder_training
from umls_reranker.training.encoder_data import QueryCollator, QueryNamePairs
from umls_reranker.training.encoder_training import (
    EncoderTrainer,
    QueryNameVectors,
    name_loss,
    train_encoder,
)

pytest_plugins = ["pipeline_fixtures"]

HERE = Path(__file__).resolve().parent

CONCEPTS = {
    "C0000001": ("", ["common cold", "acute coryza", "cold"]),
    "C0000002": ("", ["cold temperature"]),
    "C0000003": ("", ["influenza", "flu"]),
}
MENTIONS = pa.table(
    {
        "mention": ["cold", "flu", "unknown", "colds"],
        "left": ["had a", "", "", "in"],
        "right": ["today", "season", "", "air"],
        "cui": [[["C0000001"]], [["C0000003"]], [["C0000009"]], [["C0000002"]]],
    }
)


@pytest.fixture(scope="module")
def concepts(tmp_path_factory):
    return make_concepts(tmp_path_factory.mktemp("concepts"), CONCEPTS)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(encoder_training, "BATCH_SIZE", 8)
    monkeypatch.setattr(encoder_training, "CONTEXT_TOKENS", 4)


def pairs(concepts, size=40, seed=1) -> QueryNamePairs:
    return QueryNamePairs(MENTIONS, np.array([0, 2, -1, 1]), concepts, size, seed)


def test_three_of_five_queries_are_in_context_one_alone_and_one_a_synonym(concepts):
    found = [pairs(concepts)[i] for i in range(5)]
    assert [pair["left"] is not None for pair in found] == [True, False, True, False, True]
    assert found[1]["query"] in MENTIONS["mention"].to_pylist()


def test_names_belong_to_the_query_s_concept(concepts):
    gold = {"cold": 0, "flu": 2, "colds": 1}
    for pair in map(pairs(concepts).__getitem__, range(40)):
        names = concepts.names(pair["row"])
        assert pair["name"] in names
        # A synonym is never its own pair, and a mention without its concept in the dictionary never
        # comes.
        query = pair["query"]
        is_synonym = query in names and query != pair["name"]
        assert is_synonym or gold[query] == pair["row"]
        assert query != "unknown"


def test_each_mention_comes_once_an_epoch(concepts):
    found = [pairs(concepts)[i] for i in range(40)]
    inside = [pair["query"] for pair in found if pair["left"] is not None]
    assert all(
        sorted(inside[start : start + 3]) == ["cold", "colds", "flu"] for start in range(0, 24, 3)
    )
    assert len({tuple(inside[start : start + 3]) for start in range(0, 24, 3)}) > 1


def test_mentions_outside_the_dictionary_are_an_error(concepts):
    with pytest.raises(UserError, match="no training mention"):
        QueryNamePairs(MENTIONS, np.full(4, -1), concepts, 10, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


def test_context_is_cut_around_the_mention(folder):
    encoder = BiEncoder.from_pretrained(str(folder), device="cpu", dtype="float32")
    tokenizer = encoder.queries.tokenizer
    queries = QueryTokenizer(tokenizer, 8, context_tokens=3)
    (ids,) = queries.in_context(["cold"], ["x abcd"], ["efgh x"])
    shown = "[CLS] ##b ##c ##d [unused1] c ##o ##l ##d [unused2] e ##f ##g [SEP]"
    assert " ".join(tokenizer.convert_ids_to_tokens(ids)) == shown
    (ids,) = queries.in_context(["coldness"], [""], [""])
    assert (
        " ".join(tokenizer.convert_ids_to_tokens(ids)[1:-1])
        == "[unused1] c ##o ##l ##d ##n ##e [unused2]"
    )
    assert queries.plain(["cold"]) == [tokenizer("cold")["input_ids"]]
    assert queries.plain([]) == []


def test_loss_by_hand(folder, concepts):
    encoder = BiEncoder.from_pretrained(str(folder), device="cpu", dtype="float32")
    chosen = [pairs(concepts)[i] for i in (0, 1, 2, 3, 4, 5)]
    batch = QueryCollator(encoder.queries)(chosen)
    network = QueryNameVectors(AutoModel.from_pretrained(folder).eval(), "mean")
    vectors = network(batch["groups"], batch["position"])
    loss = name_loss(*vectors.split(len(chosen)), batch["row"]).item()
    queries = []
    for pair in chosen:
        context = None
        if pair["left"] is not None:
            context = [pair["left"]], [pair["right"]]
        queries.append(encoder.encode([pair["query"]], context)[0])
    cosines = np.stack(queries) @ encoder.encode([pair["name"] for pair in chosen]).T
    expected = []
    for i, pair in enumerate(chosen):
        others = [cosines[i, j] for j, other in enumerate(chosen) if other["row"] != pair["row"]]
        own = np.exp(cosines[i, i] / 0.05)
        expected.append(-np.log(own / (own + np.exp(np.array(others) / 0.05).sum())))
    assert loss == pytest.approx(np.mean(expected), rel=1e-4)


def train(folder, concepts, target, steps=6, dropout=None):
    recipe = RunArguments(device="cpu"), EncoderArguments(steps, 1e-3, encoder_dropout=dropout)
    index = IndexArguments(encoder=str(folder), encoder_pooling="mean", encoder_max_length=16)
    return train_encoder(*recipe, index, datasets.Dataset(MENTIONS), concepts, target)


def test_trained_folder_loads_reads_context_and_is_the_same_again(folder, concepts, tmp_path):
    summary = train(folder, concepts, tmp_path / "a")
    assert summary["steps"] == 6 and summary["mentions_in_dictionary"] == 3
    train(folder, concepts, tmp_path / "b")
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    assert json.loads((tmp_path / "a" / "context.json").read_text())["context_tokens"] == 4
    trained = BiEncoder.from_pretrained(str(tmp_path / "a"), device="cpu", dtype="float32")
    assert trained.queries.context_tokens == 4
    first, second = trained.encode(["cold", "cold"], (["a", "in the"], ["", "air"]))
    assert not np.allclose(first, second)


def test_dropout_of_the_recipe_replaces_that_of_the_model(folder, concepts, tmp_path):
    for dropout in (None, 0.9):
        train(folder, concepts, tmp_path / str(dropout), 2, dropout)
    assert len({path.read_bytes() for path in tmp_path.glob("*/model.safetensors")}) == 2


def test_a_stopped_training_ends_with_the_same_weights(folder, concepts, tmp_path, monkeypatch):
    train(folder, concepts, tmp_path / "whole")
    original = EncoderTrainer.compute_loss
    count = []

    def stops(self, *args, **options):
        count.append(1)
        if len(count) == 4:
            raise KeyboardInterrupt
        return original(self, *args, **options)

    monkeypatch.setattr(EncoderTrainer, "compute_loss", stops)
    with pytest.raises(KeyboardInterrupt):
        train(folder, concepts, tmp_path / "cut")
    monkeypatch.setattr(EncoderTrainer, "compute_loss", original)
    train(folder, concepts, tmp_path / "cut")
    assert_same_weights(tmp_path / "cut", tmp_path / "whole")


@pytest.fixture(scope="module")
def steps_of_one_process(folder, tmp_path_factory):
    """How far eight steps of one process move the weights."""
    return moved(folder, take_steps(folder, tmp_path_factory.mktemp("alone")))


def relative_difference(move: torch.Tensor, expected: torch.Tensor) -> float:
    return float((move - expected).norm() / expected.norm())


@pytest.mark.parametrize("processes", [2, 3])
def test_weights_move_as_with_one_process(
    scripts, folder, tmp_path, steps_of_one_process, processes
):
    outcome = scripts.launch(
        HERE / "encoder_on_processes.py", folder, tmp_path, processes=processes
    )
    assert outcome.code == 0, outcome.err
    move = moved(folder, load_file(tmp_path / "trained.safetensors"))
    assert relative_difference(move, steps_of_one_process) < 1e-4


def test_names_of_other_processes_are_negatives(
    folder, tmp_path, steps_of_one_process, monkeypatch
):
    """The measure above tells negatives of the whole batch from those of a process alone."""

    def loss_of_halves(queries, names, rows):
        middle = len(rows) // 2
        first = name_loss(queries[:middle], names[:middle], rows[:middle])
        second = name_loss(queries[middle:], names[middle:], rows[middle:])
        return (first + second) / 2

    monkeypatch.setattr(encoder_training, "name_loss", loss_of_halves)
    move = moved(folder, take_steps(folder, tmp_path))
    assert relative_difference(move, steps_of_one_process) > 0.05
