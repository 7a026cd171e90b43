"""Loss and gradient of a global batch do not depend on how it is divided, including ragged batches
and single rows.
"""

import json
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from list_fixtures import assert_alike
from loss_on_processes import (
    CASES,
    TRAINING_ROW,
    evaluate_others,
    load_model,
    make_pairs,
    make_trainer,
    take_steps,
)
from safetensors.torch import load_file
from tiny_models import assert_same_weights, tiny_cross_encoder
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, kl_div
from transformers import TrainingArguments

from umls_reranker.training.pair_dataset import PairCollator

pytest_plugins = ["pipeline_fixtures"]

HERE = Path(__file__).resolve().parent
CURVES = json.loads((HERE / "loss_curve.json").read_text())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_cross_encoder(tmp_path_factory.mktemp("exact") / "model", spread=0.1))


@pytest.fixture(scope="module")
def folder_of_two(scripts, model, tmp_path_factory):
    """Folder that tests/training/loss_on_processes.py wrote into on two processes."""
    folder = tmp_path_factory.mktemp("two")
    outcome = scripts.launch(HERE / "loss_on_processes.py", model, folder)
    assert outcome.code == 0, outcome.err
    return folder


@pytest.fixture(scope="module")
def two_processes(folder_of_two):
    """Case -> gradients and losses of a run on two processes."""
    cases = {name: load_file(folder_of_two / f"{name}.safetensors") for name in CASES}
    return {
        name: (gradients, gradients.pop("losses").tolist()) for name, gradients in cases.items()
    }


def reference(model, rows, loss):
    """Gradients and loss of all rows in one pass, without Trainer, list by list."""
    network = load_model(model)
    pairs = make_pairs(model, rows)
    batch = PairCollator(0)(pairs.__getitems__(range(rows)))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    logits = network(**inputs).logits.squeeze(-1)
    labels = batch["labels"]
    weights = batch["weight"]
    teacher = torch.from_numpy(pairs.teacher)
    bce = binary_cross_entropy_with_logits(logits, labels, reduction="none")
    spans = [slice(start, end) for start, end in pairwise(pairs.offsets.tolist())]
    with_gold = [span for span in spans if labels[span.start] == 1]
    if loss == "bce":
        total = (weights * bce).sum()
    elif loss == "listwise":
        total = sum(
            weights[span.start] * cross_entropy(logits[span], torch.tensor(0)) for span in with_gold
        )
    else:
        known = [
            (span.start, torch.arange(span.start, span.stop)[~teacher[span].isnan()])
            for span in with_gold
        ]
        shares = [
            (weights[gold], logits[pairs].log_softmax(0), teacher[pairs].softmax(0))
            for gold, pairs in known
        ]
        total = sum(weight * kl_div(own, theirs, reduction="sum") for weight, own, theirs in shares)
    total = total / rows
    total.backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}, total.item()


def assert_exact(expected, gradients, losses):
    expected, loss = expected
    assert gradients.keys() == expected.keys()
    assert max(gradient.abs().max() for gradient in expected.values()) > 0.001
    for name, gradient in expected.items():
        torch.testing.assert_close(
            gradients[name], gradient, rtol=0, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )
    assert losses == [pytest.approx(loss, abs=1e-6)]


@pytest.mark.parametrize("loss", ["bce", "listwise", "listwise_kl"])
@pytest.mark.parametrize(
    ("rows", "per_device", "passes"),
    [(64, 16, 4), (30, 32, 1), (30, 4, 8), (3, 8, 4)],
)
def test_the_loss_does_not_depend_on_how_a_batch_is_cut(model, rows, per_device, passes, loss):
    taken = take_steps(model, rows, per_device, passes, loss=loss)
    assert_exact(reference(model, rows, loss), *taken)


@pytest.mark.parametrize("case", [name for name, numbers in CASES.items() if numbers[3] == 1])
def test_the_loss_does_not_depend_on_the_number_of_processes(model, two_processes, case):
    rows, *_, loss = CASES[case]
    assert_exact(reference(model, rows, loss), *two_processes[case])


@pytest.mark.parametrize(
    ("case", "loss"), [("20 steps", "bce"), ("list-wise, 20 steps", "listwise")]
)
def test_twenty_steps_are_the_same_however_batches_are_cut(model, two_processes, case, loss):
    curves = {
        "1 x 64": take_steps(model, 150, 64, 1, 20, loss)[1],
        "4 x 16": take_steps(model, 150, 16, 4, 20, loss)[1],
        "2 processes x 32": two_processes[case][1],
    }
    stored = CURVES[case]
    for name, losses in curves.items():
        assert losses == pytest.approx(stored, abs=CURVES["tolerance"]), name
        assert losses[0] == pytest.approx(curves["1 x 64"][0], abs=1e-6), name
    # Each epoch ends with a ragged batch.
    assert len(stored) == 20 and stored[-1] < stored[0]


def lists_of_ten(lists):
    """Training rows with a gold name and nine others."""
    names = [
        "".join(chr(97 + (at * step) % 26) for step in (1, 3, 5, 7)) for at in range(lists + 9)
    ]
    columns = {
        "entity": names[:lists],
        "left": [""] * lists,
        "right": [""] * lists,
        "names": [names[at : at + 10] for at in range(lists)],
        "labels": [[1] + [0] * 9] * lists,
        "weights": [[1.0] * 10] * lists,
    }
    return pa.table(columns, TRAINING_ROW)


@pytest.mark.parametrize(
    ("loss", "counts"),
    # Six lists of ten, which occupy six processes.
    [("bce", [8] * 8), ("listwise", [10] * 6 + [0] * 2)],
)
def test_eight_processes_share_a_step_of_64_pairs(model, tmp_path, monkeypatch, loss, counts):
    pairs = lists_of_ten(13)
    trainer = make_trainer(model, str(tmp_path), pairs, loss, per_device_train_batch_size=8)
    monkeypatch.setattr(TrainingArguments, "world_size", 8)
    shares = []
    for process in range(8):
        monkeypatch.setattr(TrainingArguments, "process_index", process)
        shares.append([pass_["labels"] for pass_ in trainer.get_train_dataloader()])
    # A pair that only keeps a process busy has a negative label.
    counted = [[int((labels >= 0).sum()) for labels in share] for share in shares]
    assert [share[0] for share in counted] == counts
    assert sum(map(sum, counted)) == 130


@pytest.mark.parametrize(("loss", "sizes"), [("bce", [64, 64, 2]), ("listwise", [60, 60, 10])])
def test_a_step_has_its_number_of_pairs_or_the_nearest_of_whole_lists(model, tmp_path, loss, sizes):
    pairs = lists_of_ten(13)
    trainer = make_trainer(model, str(tmp_path), pairs, loss, per_device_train_batch_size=64)
    batches = [batch["row"].tolist() for batch in trainer.get_train_dataloader()]
    assert [len(batch) for batch in batches] == sizes
    assert sorted(sum(batches, [])) == list(range(130))
    of_lists = {row // 10 for row in batches[0]}
    assert len(of_lists) == (6 if loss == "listwise" else 13)


def test_figures_of_another_set_do_not_depend_on_the_number_of_processes(model, folder_of_two):
    alone = evaluate_others(model)
    together = json.loads((folder_of_two / "metrics.json").read_text())
    for given in ("rows", "pairs"):
        for figure in ("loss", "acc@1", "list_loss", "roc_auc", "log_loss", "ece"):
            name = f"eval_{given}_{figure}"
            assert together[name] == pytest.approx(alone[name], abs=1e-6), name


@pytest.fixture(scope="module")
def sharded(scripts, model, tmp_path_factory):
    """Folder that tests/training/sharded_training.py wrote into on two processes."""
    folder = tmp_path_factory.mktemp("sharded")
    outcome = scripts.launch(HERE / "sharded_training.py", model, folder, config="fsdp")
    assert outcome.code == 0, outcome.err
    return folder


def test_the_loss_does_not_depend_on_how_parameters_are_sharded(model, sharded):
    gradients = load_file(sharded / "step.safetensors")
    assert_exact(reference(model, 27, "listwise"), gradients, gradients.pop("losses").tolist())


def test_sharded_training_goes_on_from_a_checkpoint_and_leaves_whole_weights(model, sharded):
    whole, stopped = json.loads((sharded / "summaries.json").read_text())
    assert_alike(stopped, whole)
    assert (whole["steps"], whole["processes"]) == (4, 2)
    trained = sharded / "whole" / "checkpoint-best"
    assert_same_weights(sharded / "stopped" / "checkpoint-best", trained)
    weights = load_file(trained / "model.safetensors")
    before = load_file(Path(model) / "model.safetensors")
    assert weights.keys() == before.keys()
    assert any(not torch.allclose(tensor, before[name]) for name, tensor in weights.items())
