"""The weighted loss is exact on every cut of a batch; dev metrics and checkpoints by hand."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from loss_on_processes import load_model, make_pairs, make_trainer, take_step
from safetensors.torch import load_file
from tiny_models import tiny_cross_encoder
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import EvalPrediction

from umls_reranker.training.collator import PairCollator
from umls_reranker.training.trainer import dev_metrics, last_complete_checkpoint

TESTS = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_cross_encoder(tmp_path_factory.mktemp("trainer") / "model", spread=0.1))


def reference(model, rows):
    """Gradients and loss of all rows in one pass, without Trainer: sum(weight * bce) / rows."""
    network, batch = load_model(model), PairCollator(0)(make_pairs(rows).to_list())
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    bce = binary_cross_entropy_with_logits(network(**inputs).logits.squeeze(-1), batch["labels"], reduction="none")
    loss = (batch["weight"] * bce).sum() / rows
    loss.backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}, loss.item()


def assert_exact(model, rows, gradients, loss):
    expected, expected_loss = reference(model, rows)
    assert gradients.keys() == expected.keys()
    assert max(gradient.abs().max() for gradient in expected.values()) > 0.01
    for name, gradient in expected.items():
        torch.testing.assert_close(
            gradients[name], gradient, rtol=0, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )
    assert loss == pytest.approx(expected_loss, abs=1e-6)


@pytest.mark.parametrize(
    ("rows", "per_device", "accumulated"),
    [(32, 32, 1), (32, 8, 4), (30, 32, 1), (30, 8, 4), (30, 4, 8), (25, 8, 4)],
)
def test_the_loss_does_not_depend_on_how_a_batch_is_cut(model, rows, per_device, accumulated):
    assert_exact(model, rows, *take_step(model, rows, per_device, accumulated))


def test_the_loss_does_not_depend_on_the_number_of_processes(model, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    target = tmp_path / "gradients.safetensors"
    command = [sys.executable, TESTS / "loss_on_processes.py", model, target, "32", "8", "2"]
    shared = os.environ | {"PYTHONPATH": str(TESTS.parent), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(command, env=shared | {"RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in "01"
    ]
    try:
        errors = [process.communicate(timeout=200)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
    gradients = load_file(target)
    loss = gradients.pop("loss").item()
    assert_exact(model, 32, gradients, loss)


def test_evaluation_takes_the_plain_mean_of_the_weighted_losses(model, tmp_path):
    metrics = make_trainer(model, str(tmp_path), make_pairs(30), per_device_eval_batch_size=30).evaluate()
    assert metrics["eval_loss"] == pytest.approx(reference(model, 30)[1], abs=1e-6)


def test_the_loss_is_computed_in_float32(model, tmp_path):
    trainer = make_trainer(model, str(tmp_path), make_pairs(6))
    batch = PairCollator(0)(make_pairs(6).to_list())
    loss, outputs = trainer.compute_loss(trainer.model.bfloat16(), batch, return_outputs=True)
    assert outputs.logits.dtype == torch.bfloat16 and loss.dtype == torch.float32
    logits = outputs.logits.squeeze(-1).float()
    bce = binary_cross_entropy_with_logits(logits, batch["labels"], reduction="none")
    assert loss.item() == (batch["weight"] * bce).mean().item()


def test_labels_do_not_reach_the_model(model, tmp_path):
    trainer = make_trainer(model, str(tmp_path), make_pairs(16), max_steps=1)
    seen = []
    trainer.model.register_forward_pre_hook(lambda _, args, inputs: seen.append(set(inputs)), with_kwargs=True)
    trainer.train()
    trainer.evaluate()
    # With labels the model would take the task for a regression, and say so in its config for good.
    assert all(names == {"input_ids", "attention_mask", "token_type_ids"} for names in seen) and len(seen) > 1
    assert trainer.model.config.problem_type is None


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
    assert set(metrics) == {"precision", "recall", "f1", "roc_auc", "ece", "brier", "log_loss", "acc@1"}


def test_a_mention_without_negatives_is_won_and_one_without_gold_is_lost():
    label_ids = (np.array([1, 0], np.float32), np.ones(2), np.arange(2))
    assert dev_metrics(np.array([5, 9]))(EvalPrediction(np.array([-3.0, -4.0]), label_ids))["acc@1"] == 0.5


def test_rows_keep_their_mentions_when_evaluation_sorts_by_length(model, tmp_path):
    pairs, mentions = make_pairs(30), np.arange(30) // 3
    trainer = make_trainer(model, str(tmp_path), pairs, per_device_eval_batch_size=7)
    trainer.compute_metrics = dev_metrics(mentions)
    network, batch = load_model(model).eval(), PairCollator(0)(pairs.to_list())
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
