"""The weighted loss in float32, without labels for the model; dev metrics and checkpoints by hand."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from loss_on_processes import load_model, make_pairs, make_trainer
from tiny_models import tiny_cross_encoder
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import EvalPrediction, TrainerControl, TrainerState

from umls_reranker.training.callbacks import CheckpointCallback, ThroughputCallback, last_complete_checkpoint
from umls_reranker.training.collator import PairCollator
from umls_reranker.training.dev_lists import dev_metrics
from umls_reranker.training.sampling import Pass
from umls_reranker.training.trainer import TrainingPasses


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_cross_encoder(tmp_path_factory.mktemp("trainer") / "model", spread=0.1))


def reference(model, pairs):
    """Weighted mean loss of all rows in one pass, without Trainer."""
    network, batch = load_model(model).eval(), PairCollator(0)(pairs.__getitems__(range(len(pairs))))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    bce = binary_cross_entropy_with_logits(network(**inputs).logits.squeeze(-1), batch["labels"], reduction="none")
    return (batch["weight"] * bce).mean().item()


def test_evaluation_takes_the_plain_mean_of_the_weighted_losses(model, tmp_path):
    pairs = make_pairs(tmp_path, 30)
    metrics = make_trainer(model, str(tmp_path), pairs, per_device_eval_batch_size=30).evaluate()
    assert metrics["eval_loss"] == pytest.approx(reference(model, pairs), abs=1e-6)


def test_the_loss_is_computed_in_float32(model, tmp_path):
    pairs = make_pairs(tmp_path, 6)
    trainer = make_trainer(model, str(tmp_path), pairs)
    batch = PairCollator(0)(pairs.__getitems__(range(6)))
    loss, outputs = trainer.compute_loss(trainer.model.bfloat16(), batch, return_outputs=True)
    assert outputs.logits.dtype == torch.bfloat16 and loss.dtype == torch.float32
    logits = outputs.logits.squeeze(-1).float()
    bce = binary_cross_entropy_with_logits(logits, batch["labels"], reduction="none")
    assert loss.item() == (batch["weight"] * bce).mean().item()


def test_labels_do_not_reach_the_model(model, tmp_path):
    trainer = make_trainer(model, str(tmp_path), make_pairs(tmp_path, 16), max_steps=1)
    seen = []
    trainer.model.register_forward_pre_hook(lambda _, args, inputs: seen.append(set(inputs)), with_kwargs=True)
    trainer.train()
    trainer.evaluate()
    # With labels the model would take the task for a regression, and say so in its config for good.
    assert all(names == {"input_ids", "attention_mask", "token_type_ids"} for names in seen) and len(seen) > 1
    assert trainer.model.config.problem_type is None


def test_a_mention_that_comes_twice_in_a_pass_is_two_lists(model, tmp_path):
    # Row 9 is a gold pair alone, 10 and 11 a mention without gold; 6, 7, 8 are one with gold.
    trainer = make_trainer(model, str(tmp_path), make_pairs(tmp_path, 12), loss="listwise")
    network = trainer.model.train()

    def loss(rows, gold_pairs, counts=True):
        batch = PairCollator(0)(TrainingPasses(trainer.train_dataset).__getitems__(Pass(rows, counts)))
        return trainer.compute_loss(network, batch, num_items_in_batch=torch.tensor([len(rows), gold_pairs])).item()

    once = loss([6, 7, 8], 1)
    assert once > 0 and loss([6, 7, 8, 6, 7, 8], 2) == pytest.approx(once, abs=1e-6)
    assert loss([9], 1) == 0.0 and loss([10, 11], 0) == 0.0 and loss([6], 1, counts=False) == 0.0
    assert loss([9, 10, 11, 6, 7, 8], 2) == pytest.approx(once / 2, abs=1e-6)


# Metrics on the dev pairs

# Three mentions: 0 is won, 1 is tied, 2 is lost.
LOGITS = np.array([2.0, -1.0, 0.5, 0.5, -2.0, -1.0, 0.0])
LABELS = np.array([1, 0, 1, 0, 1, 0, 0], np.float32)
MENTIONS = np.array([0, 0, 1, 1, 2, 2, 2])


@pytest.mark.parametrize("order", [np.arange(7), np.array([6, 2, 0, 5, 3, 1, 4])])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_dev_metrics_by_hand(order, shape):
    label_ids = (LABELS[order], np.full(7, 9.0), order)
    metrics = dev_metrics(MENTIONS)(EvalPrediction(LOGITS[order].reshape(shape), label_ids))
    p = 1 / (1 + np.exp(-LOGITS))
    assert metrics["acc@1"] == pytest.approx(1 / 3)
    assert metrics["precision"] == pytest.approx(2 / 4) and metrics["recall"] == pytest.approx(2 / 3)
    assert metrics["f1"] == pytest.approx(4 / 7)
    # Of 12 (gold, other) pairs the gold one wins 4, then 3 and a tie, then none.
    assert metrics["roc_auc"] == pytest.approx((4 + 3.5 + 0) / 12)
    assert metrics["log_loss"] == pytest.approx(-np.mean(np.log(np.where(LABELS == 1, p, 1 - p))))
    assert metrics["brier"] == pytest.approx(np.mean((p - LABELS) ** 2))
    lists = [[2.0, -1.0], [0.5, 0.5], [-2.0, -1.0, 0.0]]
    by_hand = [np.log(np.exp(scores).sum()) - scores[0] for scores in lists]
    assert metrics["list_loss"] == pytest.approx(np.mean(by_hand))
    assert set(metrics) == {"precision", "recall", "f1", "roc_auc", "ece", "brier", "log_loss", "acc@1", "list_loss"}


def test_a_mention_without_negatives_is_won_and_one_without_gold_is_lost():
    label_ids = (np.array([1, 0], np.float32), np.ones(2), np.arange(2))
    metrics = dev_metrics(np.array([5, 9]))(EvalPrediction(np.array([-3.0, -4.0]), label_ids))
    # A mention without gold has no list-wise loss.
    assert (metrics["acc@1"], metrics["list_loss"]) == (0.5, 0.0)


def test_rows_keep_their_mentions_when_evaluation_sorts_by_length(model, tmp_path):
    pairs, mentions = make_pairs(tmp_path, 30), np.arange(30) // 3
    trainer = make_trainer(model, str(tmp_path), pairs, per_device_eval_batch_size=7)
    trainer.compute_metrics = dev_metrics(mentions)
    network, batch = load_model(model).eval(), PairCollator(0)(pairs.__getitems__(range(30)))
    with torch.inference_mode():
        logits = network(**{name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}).logits
    # The first of every three rows is the gold one.
    best = logits.reshape(10, 3).argmax(dim=1)
    assert 0 < (best == 0).sum() < 10
    assert trainer.evaluate()["eval_acc@1"] == pytest.approx((best == 0).double().mean().item())


# Checkpoints


def make_checkpoint(folder, name, complete):
    (folder / name).mkdir()
    if complete:
        (folder / name / "complete").touch()


def test_the_newest_complete_checkpoint_is_taken(tmp_path):
    assert last_complete_checkpoint(tmp_path) is None
    assert last_complete_checkpoint(tmp_path / "none") is None
    make_checkpoint(tmp_path, "checkpoint-500", False)
    make_checkpoint(tmp_path, "checkpoint-best", False)
    assert last_complete_checkpoint(tmp_path) is None
    make_checkpoint(tmp_path, "checkpoint-90", True)
    make_checkpoint(tmp_path, "checkpoint-100", True)
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-100")


def test_older_checkpoints_go_once_a_newer_one_is_complete(tmp_path):
    arguments, callback = SimpleNamespace(output_dir=str(tmp_path)), CheckpointCallback(kept=1)
    state = TrainerState(global_step=30, best_global_step=10)
    for step in (9, 10, 20, 30):
        make_checkpoint(tmp_path, f"checkpoint-{step}", step < 30)
    make_checkpoint(tmp_path, "checkpoint-best", False)
    callback.on_save(arguments, state, TrainerControl())
    # The best one stays too.
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-10", "checkpoint-30", "checkpoint-best"}
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-30")


def test_a_checkpoint_that_is_partly_deleted_does_not_count(tmp_path, monkeypatch):
    arguments, state = SimpleNamespace(output_dir=str(tmp_path)), TrainerState(global_step=30)
    for step in (10, 20, 30):
        make_checkpoint(tmp_path, f"checkpoint-{step}", step < 30)
    monkeypatch.setattr(shutil, "rmtree", lambda folder: None)
    CheckpointCallback(kept=1).on_save(arguments, state, TrainerControl())
    assert [path.name for path in sorted(tmp_path.iterdir()) if (path / "complete").exists()] == ["checkpoint-30"]


# Throughput


def test_throughput_counts_pairs_between_logs_without_evaluations(monkeypatch):
    clock = iter([10.0, 12.0, 12.5, 50.0, 54.0, 54.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    callback, state = ThroughputCallback(pairs_per_step=32), TrainerState()
    first, dev, second = {"loss": 0.5}, {"eval_f1": 0.9}, {"loss": 0.4}
    callback.on_train_begin(None, state, None)
    state.global_step = 5
    callback.on_log(None, state, None, logs=first)
    callback.on_log(None, state, None, logs=dev)
    callback.on_evaluate(None, state, None)
    state.global_step = 10
    callback.on_log(None, state, None, logs=second)
    # 160 pairs in 2 and in 4 seconds.
    assert first == {"loss": 0.5, "pairs_per_second": 80.0} and second == {"loss": 0.4, "pairs_per_second": 40.0}
    assert dev == {"eval_f1": 0.9}
