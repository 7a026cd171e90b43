"""Training rows as batches, and the loss of the trainer: by hand, and the same lists under any
number of processes.
"""

from collections import Counter
from itertools import pairwise

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from list_fixtures import make_lists
from loss_on_processes import TRAINING_ROW, load_model, make_pairs, make_rows, make_trainer
from tiny_models import tiny_cross_encoder
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import AutoTokenizer, EvalPrediction

from umls_reranker.core.arrays import list_offsets
from umls_reranker.core.errors import UserError
from umls_reranker.models.batches import PairBatch
from umls_reranker.models.pair_template import PairTemplate
from umls_reranker.models.pairs import PairEncoder
from umls_reranker.training.dev_metrics import dev_metrics
from umls_reranker.training.dev_sample import dev_rows, sample_by_document
from umls_reranker.training.global_batches import GlobalBatches, units_per_batch
from umls_reranker.training.pair_dataset import PairCollator, TokenizedPairs, weight_scale
from umls_reranker.training.rows import training_rows
from umls_reranker.training.trainer import RerankerTrainer

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
    assert pairs.offsets.tolist() == [0, 2, 3]
    read, labels = pairs.__getitems__([2, 0, ~1])
    assert read.ids.tolist() == expected.take(np.array([2, 0, 1])).ids.tolist()
    columns = {name: values.tolist() for name, values in labels.items()}
    # A pair of a negative number has neither label nor weight.
    assert columns == {
        "labels": [0.0, 1.0, -100.0],
        "weight": [2.0, 8.0, 0.0],
        "row": [2, 0, 1],
        "list": [1, 0, 0],
    }


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


def shares(lists, size, passes, processes, epoch=0, whole_lists=True):
    """[process][pass] -> numbers of pairs."""
    parts = [
        GlobalBatches(lists, size, 3, passes, process, processes, whole_lists=whole_lists)
        for process in range(processes)
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
    per_batch = units_per_batch(count, int(lists.offsets[-1]), 40)
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


@pytest.mark.parametrize(("passes", "processes"), [(1, 1), (4, 1), (2, 2), (3, 5), (1, 8)])
@pytest.mark.parametrize("pairs", [128, 127, 3])
def test_a_global_batch_of_single_pairs_has_its_size_however_it_is_cut(pairs, passes, processes):
    lists = Lists(100)
    lists.offsets = np.append(lists.offsets[lists.offsets < pairs], pairs)
    lists.pairs = PairBatch(np.empty(0), lists.pairs.lengths[:pairs], np.empty(0))
    (whole,) = shares(lists, 64, 1, 1, whole_lists=False)
    cut = shares(lists, 64, passes, processes, whole_lists=False)
    assert sorted(pair for batch in whole for pair in batch) == list(range(pairs))
    assert sorted(map(len, whole)) == {128: [64, 64], 127: [63, 64], 3: [3]}[pairs]
    batches = [[] for _ in whole]
    for share in cut:
        for number, numbers in enumerate(share):
            batches[number // passes] += [pair for pair in numbers if pair >= 0]
            # As many as if the batch were divided evenly, rounded up.
            assert len(numbers) <= -(-len(whole[number // passes]) // (passes * processes))
    assert [sorted(batch) for batch in batches] == [sorted(batch) for batch in whole]


def test_a_batch_has_the_number_of_lists_that_comes_closest():
    # 2.5 pairs a list.
    assert [units_per_batch(4, 10, size) for size in (1, 5, 6, 7, 10)] == [1, 2, 2, 3, 4]


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


def figures_by_hand(model, pairs):
    """acc@1 and mean loss of the lists with a gold pair, which is the first one."""
    logits, batch = logits_and_batch(model, pairs)
    spans = [slice(*ends) for ends in pairwise(pairs.offsets.tolist())]
    won = [batch["labels"][span][0] == 1 and logits[span].argmax() == 0 for span in spans]
    terms = [-logits[span].log_softmax(0)[0] for span in spans if batch["labels"][span.start] == 1]
    assert 0 < sum(won) < len(spans)
    return {"acc@1": np.mean(won), "list_loss": torch.stack(terms).mean().item()}


def assert_right(metrics, figures, prefix="eval"):
    found = {name: metrics[f"{prefix}_{name}"] for name in figures}
    assert found == pytest.approx(figures, abs=1e-6)


def test_pairs_keep_their_lists_when_evaluation_sorts_by_length(model, tmp_path):
    pairs = make_pairs(model, 50)
    trainer = make_trainer(model, str(tmp_path), pairs, per_device_eval_batch_size=7)
    assert_right(trainer.evaluate(), figures_by_hand(model, pairs))


@pytest.mark.parametrize("own", ["another set", "no set", "a dict of sets"])
def test_any_set_is_evaluated_by_its_own_lists(model, tmp_path, own):
    rows = make_rows(50)
    pairs = make_pairs(model, 50)
    figures = figures_by_hand(model, pairs)
    # Its lists have other lengths: 1 to 3 pairs, then 2 or 3.
    other = make_pairs(model, 31)
    dev = {"another set": other, "no set": None, "a dict of sets": {"a": rows, "b": other}}[own]
    options = {"dev": dev, "per_device_eval_batch_size": 7}
    trainer = make_trainer(model, str(tmp_path), other, **options)
    for given in (rows, datasets.Dataset(rows), pairs):
        assert_right(trainer.evaluate(given), figures)
    several = trainer.evaluate({"x": rows, "y": datasets.Dataset(make_rows(31)), "z": pairs})
    assert_right(several, figures, "eval_x")
    assert_right(several, figures_by_hand(model, other), "eval_y")
    assert_right(several, figures, "eval_z")
    if own == "a dict of sets":
        assert_right(trainer.evaluate(), figures, "eval_a")
        assert_right(trainer.evaluate(), figures_by_hand(model, other), "eval_b")
    elif own == "no set":
        with pytest.raises(ValueError, match="eval_dataset"):
            trainer.evaluate()


def test_predictions_are_in_the_order_of_the_rows(model, tmp_path):
    pairs = make_pairs(model, 50)
    trainer = make_trainer(model, str(tmp_path), pairs, per_device_eval_batch_size=7)
    output = trainer.predict(make_rows(50))
    logits, _ = logits_and_batch(model, pairs)
    assert output.predictions.reshape(-1) == pytest.approx(logits.numpy(), abs=1e-6)
    assert_right(output.metrics, figures_by_hand(model, pairs), "test")


def test_a_function_that_makes_models_is_refused(model, tmp_path):
    pairs = make_pairs(model, 16)
    trainer = make_trainer(model, str(tmp_path), pairs)
    with pytest.raises(ValueError, match="model_init"):
        RerankerTrainer(
            None,
            trainer.args,
            pairs,
            processing_class=trainer.processing_class,
            model_init=lambda: load_model(model),
        )


# The dev lists that checkpoints are compared on, and the metrics on them by hand


# 40 mentions in the first document, 3 in each of the other 20.
DOCUMENTS = ["a"] * 40 + [f"b{number:02}" for number in range(20) for _ in range(3)]


def test_every_document_gives_a_mention_before_any_gives_two():
    sizes = np.full(100, 4)
    rows = sample_by_document(DOCUMENTS, sizes, 21 * 4, seed=5)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert Counter(DOCUMENTS[row] for row in rows) == dict.fromkeys(DOCUMENTS, 1)
    counts = Counter(
        DOCUMENTS[row] for row in sample_by_document(DOCUMENTS, sizes, 30 * 4 + 3, seed=5)
    )
    assert sum(counts.values()) == 30 and set(counts.values()) == {1, 2}
    assert len(sample_by_document(DOCUMENTS, sizes, 400, seed=5)) == 100


@pytest.mark.parametrize("documents", [DOCUMENTS, []])
def test_a_limit_below_the_first_list_is_refused(documents):
    with pytest.raises(UserError, match="max_dev_pairs: 3 "):
        sample_by_document(documents, np.full(len(documents), 4), 3, seed=1)


def test_training_rows_have_one_name_of_each_concept_and_no_correct_negative():
    named = {"a cold": "C1", "heart": "C2", "cold": "C1", "common cold": "C3"}
    candidates = [{"name": name, "cui": cui} for name, cui in named.items()]
    rows = training_rows([{"entity": "cold", "cui": ["C3", "C1"], "candidates": candidates}])
    assert (rows[0]["names"], rows[0]["labels"]) == (["a cold", "heart"], [1, 0])
    with pytest.raises(UserError, match="rows:1: cui is missing"):
        training_rows([{"entity": "cold", "candidates": candidates}])


def test_training_rows_weigh_the_top_negatives_and_have_scores_of_a_teacher():
    candidates = [{"name": name, "cui": name} for name in "abcde"]
    candidates[1]["teacher_score"] = 7.0
    rows = [
        {"entity": "m", "cui": "d", "candidates": candidates},
        {"entity": "n", "cui": "x", "candidates": candidates[2:]},
    ]
    weights = {"positive_weight": 5.0, "hard_negative_weight": 1.5}
    first, second = training_rows(rows, nearest_negatives=2, **weights)
    assert (first["names"], first["labels"]) == (["a", "b", "d"], [0, 0, 1])
    assert first["weights"] == [1.5, 1.5, 5.0]
    assert str(first["teacher"]) == "[nan, 7.0, nan]"
    assert (second["names"], second["labels"]) == (["c", "d"], [0, 0])


def test_rows_are_the_lists_as_they_were_retrieved():
    candidates = [["heart", "cold"], ["liver", "cold"]]
    contexts = [["x ", "y "], [" z", " w"]]
    lists = make_lists(
        ["colds", "hearts"], candidates, [["T047"], []], None, *contexts, gold=[1, -1]
    )
    rows = dev_rows(lists, PairTemplate(32, 4, mention_types=True), 4, seed=1)
    assert rows.schema == TRAINING_ROW
    # The gold concept of the second mention was not retrieved, and is not put in.
    assert rows.to_pydict() == {
        "entity": ["colds ; Disease or Syndrome", "hearts"],
        "left": ["x ", "y "],
        "right": [" z", " w"],
        "names": candidates,
        "labels": [[0, 1], [0, 0]],
        "weights": [[1.0, 1.0]] * 2,
    }


# Three mentions: 0 is won, 1 is tied, 2 is lost.
LOGITS = np.array([2.0, -1.0, 0.5, 0.5, -2.0, -1.0, 0.0])
LABELS = np.array([1, 0, 1, 0, 1, 0, 0], np.float32)
MENTIONS = np.array([0, 0, 1, 1, 2, 2, 2])


@pytest.mark.parametrize("order", [np.arange(7), np.array([6, 2, 0, 5, 3, 1, 4])])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_dev_metrics_by_hand(order, shape):
    label_ids = (LABELS[order], np.full(7, 9.0), order, MENTIONS[order])
    metrics = dev_metrics(EvalPrediction(LOGITS[order].reshape(shape), label_ids))
    p = 1 / (1 + np.exp(-LOGITS))
    assert metrics["acc@1"] == pytest.approx(1 / 3)
    assert metrics["precision"] == pytest.approx(2 / 4) and metrics["recall"] == pytest.approx(
        2 / 3
    )
    assert metrics["f1"] == pytest.approx(4 / 7)
    # Of 12 (gold, other) pairs the gold one wins 4, then 3 and a tie, then none.
    assert metrics["roc_auc"] == pytest.approx((4 + 3.5 + 0) / 12)
    assert metrics["log_loss"] == pytest.approx(-np.mean(np.log(np.where(LABELS == 1, p, 1 - p))))
    assert metrics["brier"] == pytest.approx(np.mean((p - LABELS) ** 2))
    lists = [[2.0, -1.0], [0.5, 0.5], [-2.0, -1.0, 0.0]]
    by_hand = [np.log(np.exp(scores).sum()) - scores[0] for scores in lists]
    assert metrics["list_loss"] == pytest.approx(np.mean(by_hand))
    assert set(metrics) == {
        "precision",
        "recall",
        "f1",
        "roc_auc",
        "ece",
        "brier",
        "log_loss",
        "acc@1",
        "list_loss",
    }


def test_a_mention_without_negatives_is_won_and_one_without_gold_is_lost():
    label_ids = (np.array([1, 0], np.float32), np.ones(2), np.arange(2), np.array([5, 9]))
    metrics = dev_metrics(EvalPrediction(np.array([-3.0, -4.0]), label_ids))
    # A mention without gold has no list-wise loss.
    assert (metrics["acc@1"], metrics["list_loss"]) == pytest.approx((0.5, 0.0), abs=1e-12)
