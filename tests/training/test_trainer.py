"""Training rows as batches, and the loss of the trainer: by hand, and the same lists under any
number of processes.
"""

import numpy as np
import pyarrow as pa
import pytest
import torch
from loss_on_processes import TRAINING_ROW, load_model, make_pairs, make_trainer
from tiny_models import tiny_cross_encoder
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import AutoTokenizer

from umls_reranker.core.arrays import list_offsets
from umls_reranker.core.errors import UserError
from umls_reranker.models.pairs import PairBatch, PairEncoder, PairTemplate
from umls_reranker.training.dev_metrics import dev_metrics
from umls_reranker.training.pair_dataset import (
    GlobalBatches,
    PairCollator,
    TokenizedPairs,
    lists_per_batch,
    weight_scale,
)

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
ROWS = pa.Table.from_pylist(
    [
        {
            "entity": "m",
            "left": "a",
            "right": "b",
            "names": ["x", "y z"],
            "labels": [1, 0],
            "weights": [4.0, 1.0],
        },
        {
            "entity": "n o",
            "left": "",
            "right": "c",
            "names": ["x"],
            "labels": [0],
            "weights": [1.0],
        },
    ],
    TRAINING_ROW,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_cross_encoder(tmp_path_factory.mktemp("trainer") / "model", spread=0.1))


# Rows and batches


@pytest.mark.parametrize("at_once", [1, 8_192])
def test_rows_become_pairs_one_list_after_the_other(model, at_once):
    encoder = PairEncoder(
        AutoTokenizer.from_pretrained(model).backend_tokenizer, PairTemplate(32, 4)
    )
    pairs = TokenizedPairs(ROWS, encoder, scale=2.0, lists_at_once=at_once)
    expected, _ = encoder.encode(
        ["m", "m", "n o"], ["x", "y z", "x"], ["a", "a", ""], ["b", "b", "c"]
    )
    assert len(pairs) == 3 and pairs.pairs.ids.tolist() == expected.ids.tolist()
    assert pairs.pairs.first_lengths.tolist() == expected.first_lengths.tolist()
    assert (pairs.offsets.tolist(), pairs.owner.tolist()) == ([0, 2, 3], [0, 0, 1])
    read, labels = pairs.__getitems__([2, 0, ~1])
    assert read.ids.tolist() == expected.take(np.array([2, 0, 1])).ids.tolist()
    columns = {name: values.tolist() for name, values in labels.items()}
    # A pair of a negative number has neither label nor weight.
    assert columns == {"labels": [0.0, 1.0, -100.0], "weight": [2.0, 8.0, 0.0], "row": [2, 0, 1]}


def test_weights_are_brought_to_mean_one():
    assert weight_scale(ROWS, gold_pairs_only=False) == pytest.approx(3 / 6)
    # Only the gold pairs count, as much as all pairs.
    assert weight_scale(ROWS, gold_pairs_only=True) == pytest.approx(3 / 4)
    with pytest.raises(UserError, match="weigh nothing"):
        weight_scale(ROWS.slice(0, 0), gold_pairs_only=False)


@pytest.mark.parametrize("token_types", [True, False])
def test_a_batch_is_padded_to_a_multiple_of_its_longest_pair(token_types):
    pairs = PairBatch(
        np.array([2, 7, 3, 8, 3, 2, 7, 3], np.int32), np.array([5, 3]), np.array([3, 3])
    )
    labels = {"labels": np.array([1.0, 0.0], np.float32), "row": np.array([4, 2])}
    batch = PairCollator(9, token_types, 4)((pairs, labels))
    expected = {
        "input_ids": [[2, 7, 3, 8, 3, 9, 9, 9], [2, 7, 3, 9, 9, 9, 9, 9]],
        "attention_mask": [[1] * 5 + [0] * 3, [1] * 3 + [0] * 5],
    }
    if token_types:
        expected["token_type_ids"] = [[0, 0, 0, 1, 1, 0, 0, 0], [0] * 8]
    expected |= {"labels": [1.0, 0.0], "row": [4, 2]}
    assert {name: tensor.tolist() for name, tensor in batch.items()} == expected


class Lists:
    """Lists of 1 to 9 pairs with random lengths, as `TokenizedPairs` has them."""

    def __init__(self, lists):
        random = np.random.default_rng(6)
        self.offsets = list_offsets(random.integers(1, 10, lists))
        self.pairs = PairBatch(np.empty(0), random.integers(3, 40, self.offsets[-1]), np.empty(0))


def shares(lists, size, passes, processes, epoch=0):
    """[process][pass] -> numbers of pairs."""
    parts = [
        GlobalBatches(lists, size, 3, passes, process, processes) for process in range(processes)
    ]
    for part in parts:
        part.set_epoch(epoch)
    found = [list(part) for part in parts]
    assert [len(part) for part in parts] == [len(share) for share in found]
    return found


@pytest.mark.parametrize(("passes", "processes"), [(1, 1), (4, 1), (2, 2), (3, 5)])
@pytest.mark.parametrize("count", [96, 97, 5])
def test_a_pass_holds_whole_lists_and_a_global_batch_the_same_however_it_is_cut(
    count, passes, processes
):
    lists = Lists(count)
    per_batch = lists_per_batch(count, int(lists.offsets[-1]), 40)
    (whole,) = shares(lists, 40, 1, 1)
    cut = shares(lists, 40, passes, processes)
    spans = {
        start: list(range(start, end))
        for start, end in zip(lists.offsets, lists.offsets[1:], strict=False)
    }
    batches = [[] for _ in whole]
    for share in cut:
        for number, pairs in enumerate(share):
            if pairs[0] < 0:  # a share without lists
                assert len(pairs) == 1 and ~pairs[0] in spans
                continue
            assert pairs == [pair for start in pairs if start in spans for pair in spans[start]]
            batches[number // passes] += pairs
    assert [sorted(pairs) for pairs in batches] == [sorted(pairs) for pairs in whole]
    assert sorted(pair for pairs in whole for pair in pairs) == list(range(lists.offsets[-1]))
    sizes = [sum(pair in spans for pair in pairs) for pairs in whole]
    assert sizes == [min(per_batch, count - start) for start in range(0, count, per_batch)]


def test_a_batch_has_the_number_of_lists_that_comes_closest():
    # 2.5 pairs a list.
    assert [lists_per_batch(4, 10, size) for size in (1, 5, 6, 7, 10)] == [1, 2, 2, 3, 4]


def test_epochs_differ():
    lists = Lists(1_000)
    assert shares(lists, 250, 1, 1, 0) != shares(lists, 250, 1, 1, 1) == shares(lists, 250, 1, 1, 1)


# The trainer


def logits_and_batch(model, pairs):
    network = load_model(model).eval()
    batch = PairCollator(0)(pairs.__getitems__(range(len(pairs))))
    with torch.inference_mode():
        return network(**{name: batch[name] for name in INPUTS}).logits.squeeze(-1), batch


def test_evaluation_takes_the_plain_mean_of_the_weighted_losses(model, tmp_path):
    pairs = make_pairs(model, 30)
    metrics = make_trainer(model, str(tmp_path), pairs, per_device_eval_batch_size=30).evaluate()
    logits, batch = logits_and_batch(model, pairs)
    bce = binary_cross_entropy_with_logits(logits, batch["labels"], reduction="none")
    assert metrics["eval_loss"] == pytest.approx((batch["weight"] * bce).mean().item(), abs=1e-6)


def test_labels_do_not_reach_the_model(model, tmp_path):
    trainer = make_trainer(model, str(tmp_path), make_pairs(model, 16), max_steps=1)
    seen = []
    trainer.model.register_forward_pre_hook(
        lambda _, args, inputs: seen.append(set(inputs)), with_kwargs=True
    )
    trainer.train()
    trainer.evaluate()
    # With labels the model would take the task for a regression, and say so in its config for good.
    assert all(names == {*INPUTS} for names in seen) and len(seen) > 1
    assert trainer.model.config.problem_type is None


def test_pairs_keep_their_lists_when_evaluation_sorts_by_length(model, tmp_path):
    pairs = make_pairs(model, 30)
    trainer = make_trainer(model, str(tmp_path), pairs, per_device_eval_batch_size=7)
    trainer.compute_metrics = dev_metrics(np.arange(30) // 3)
    logits, _ = logits_and_batch(model, pairs)
    # The first of every three pairs is the gold one.
    best = logits.reshape(10, 3).argmax(dim=1)
    assert 0 < (best == 0).sum() < 10
    assert trainer.evaluate()["eval_acc@1"] == pytest.approx((best == 0).double().mean().item())
