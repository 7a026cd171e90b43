"""Fine-tuning: pairs are tokenized once, batches have the requested sizes, and a resumed run ends the same."""

import importlib.util
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from loss_on_processes import TRAINING_ROW
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_models import tiny_cross_encoder, tiny_encoder
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from umls_reranker.core.recipe import Recipe
from umls_reranker.core.settings import ModelArguments, RunArguments
from umls_reranker.core.text_files import UserError
from umls_reranker.models.pairs import MARKERS, PairTemplate
from umls_reranker.training import fine_tune as fine_tuning
from umls_reranker.training.fine_tune import (
    fine_tune,
    last_complete_checkpoint,
    load_base_model,
    set_dropout,
    training_arguments,
)

RUN = RunArguments(device="cpu")
# Offsets of 50 lists of 2 pairs, 8 a batch of 16.
LISTS = np.arange(0, 101, 2)


def make_rows(mentions):
    """Training rows of four pairs each; the gold name is the mention's own text."""
    texts = ["".join(chr(97 + (i * k) % 26) for k in (1, 3, 5, 7)) for i in range(mentions + 3)]
    row = {"left": "a b", "right": "c", "labels": [1, 0, 0, 0], "weights": [5.0, 1.5, 1.5, 1.5]}
    rows = [{"entity": texts[i], "names": texts[i : i + 4]} | row for i in range(mentions)]
    return pa.Table.from_pylist(rows, TRAINING_ROW)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_cross_encoder(tmp_path_factory.mktemp("base") / "model", spread=0.1)


def training(**options):
    settings = {"bf16": False, "per_device_train_batch_size": 8, "global_batch_size": 16, "eval_steps": 2}
    return Recipe.from_values(settings | {"learning_rate": 1e-2} | options).training


# Arguments and base model


def test_accumulation_follows_from_the_batch_sizes(tmp_path):
    arguments = training_arguments(RUN, training(global_batch_size=32), tmp_path, LISTS)
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (8, 4)
    assert (arguments.eval_steps, arguments.save_steps, arguments.learning_rate) == (2, 2, 1e-2)
    assert (arguments.weight_decay, arguments.warmup_steps) == (0.01, 0.06)
    assert arguments.greater_is_better and arguments.metric_for_best_model == "roc_auc"
    assert not arguments.bf16 and not arguments.fp16 and arguments.seed == RUN.seed


def test_a_run_shorter_than_an_evaluation_interval_is_evaluated_at_its_end(tmp_path):
    long = training(eval_steps=500, num_train_epochs=2)
    assert training_arguments(RUN, long, tmp_path, LISTS).eval_steps == 14
    assert training_arguments(RUN, training(eval_steps=500, max_steps=5), tmp_path, LISTS).eval_steps == 5
    assert training_arguments(RUN, training(eval_steps=3, max_steps=5), tmp_path, LISTS).eval_steps == 3
    # 10 lists of 10 pairs, 2 a batch.
    assert training_arguments(RUN, long, tmp_path, np.arange(0, 101, 10)).eval_steps == 10


def test_fields_of_the_trainer_reach_it_under_their_own_names(tmp_path):
    given = {
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
        "adam_beta2": 0.98,
    }
    given |= {"optim": "adafactor", "neftune_noise_alpha": 5.0, "logging_steps": 7, "warmup_steps": 20}
    given |= {"report_to": ["none"], "per_device_eval_batch_size": 9, "torch_empty_cache_steps": 3}
    given |= {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 4, "ddp_timeout": 60}
    arguments = training_arguments(RUN, training(**given), tmp_path, LISTS)
    assert {name: getattr(arguments, name) for name in given} == given | {"report_to": []}
    assert (arguments.run_name, arguments.seed, arguments.remove_unused_columns) == ("run", 13, False)
    # 7 steps of 16 per epoch.
    assert training_arguments(RUN, training(eval_steps=0.5, max_steps=9), tmp_path, LISTS).eval_steps == 5


@pytest.mark.parametrize("metric", ["log_loss", "list_loss"])
def test_a_loss_is_better_when_lower(tmp_path, metric):
    assert not training_arguments(RUN, training(metric_for_best_model=metric), tmp_path, LISTS).greater_is_better


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"global_batch_size": 20}, "global_batch_size: 20 is not a multiple of per_device_train_batch_size 8 x 1"),
        ({"fp16": True}, "fp16: float16 needs a GPU; add --fp16 no"),
        ({"eval_steps": 2.5}, "the training section is invalid: --eval_steps must be an integer"),
        ({"lr_scheduler_type": "sine"}, "the training section is invalid: sine is not a valid SchedulerType"),
        ({"lr_scheduler_kwargs": {"slope": 1}}, "the training section is invalid: .*slope"),
        ({"optim": "magic"}, "the training section is invalid: magic is not a valid OptimizerNames"),
        ({"optim": "adamw_bnb_8bit"}, "the training section is invalid: .*bitsandbytes"),
        ({"adam_beta1": 1.5}, "the training section is invalid: Invalid beta"),
        ({"optim_args": "foo"}, "the training section is invalid: "),
        (
            {"dataloader_persistent_workers": True},
            "the training section is invalid: persistent_workers option needs",
        ),
        ({"warmup_steps": -1}, "the training section is invalid: .*warmup_steps"),
        ({"report_to": ["tensorboard", "trackio"]}, "report_to: trackio is not installed; pip install trackio"),
    ],
)
def test_arguments_that_cannot_work_are_refused(tmp_path, monkeypatch, options, reason):
    find = importlib.util.find_spec
    absent = {"trackio", "bitsandbytes"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in absent else find(name, *rest))
    with pytest.raises(UserError, match=reason):
        training_arguments(RUN, training(**options), tmp_path, LISTS)


def test_a_base_model_gets_a_head_of_one_logit_and_its_markers(tmp_path):
    folder = str(tiny_encoder(tmp_path / "encoder"))
    network, tokenizer = load_base_model(folder, None, PairTemplate(32, 4))
    assert network.config.num_labels == 1
    assert network.get_input_embeddings().num_embeddings == len(tokenizer)
    assert tokenizer.unk_token_id not in tokenizer.convert_tokens_to_ids(list(MARKERS))


def test_a_base_model_that_cannot_be_loaded_is_named(model, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty cannot be loaded"):
        load_base_model(str(tmp_path / "empty"), None, PairTemplate())
    with pytest.raises(UserError, match="max_length: 256 is more than the 128 tokens"):
        load_base_model(str(model), None, PairTemplate(256))
    pickled = tiny_encoder(tmp_path / "pickled")
    torch.save(load_torch(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(UserError, match="pickled cannot be loaded"):
        load_base_model(str(pickled), None, PairTemplate())
    broken = tiny_encoder(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(UserError, match="the weights are corrupt"):
        load_base_model(str(broken), None, PairTemplate())


# Training


def run_training(model, folder, **options):
    arguments = training(**{"max_steps": 6} | options)
    return fine_tune(
        RUN, ModelArguments(model=str(model), max_length=32), arguments, make_rows(26), make_rows(10), folder
    )


def test_training_that_was_stopped_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    model, whole, broken = tiny_encoder(tmp_path / "base"), tmp_path / "whole", tmp_path / "broken"
    summary = run_training(model, whole)
    assert (summary["steps"], summary["train_pairs"], summary["dev_pairs"]) == (6, 104, 40)
    assert summary["best_step"] in (2, 4, 6) and 0 < summary["dev"]["roc_auc"] < 1
    assert summary["processes"] == 1 and summary["dtype"] == "float32" and summary["pairs_at_max_length"] == 0

    def stop_after(self, args, state, control, **kwargs):
        if state.global_step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fine_tuning.EarlyStoppingCallback, "on_save", stop_after)
        run_training(model, broken)
    assert last_complete_checkpoint(broken) == str(broken / "checkpoint-2")
    assert not (broken / "checkpoint-best").exists()
    # A checkpoint that was cut short does not count.
    (broken / "checkpoint-10").mkdir()
    (broken / "checkpoint-4").mkdir()
    (broken / "checkpoint-4" / "trainer_state.json").write_text('{"epoch": 1')
    assert last_complete_checkpoint(broken) == str(broken / "checkpoint-2")

    passes = []
    forward = fine_tuning.RerankerTrainer.training_step
    monkeypatch.setattr(
        fine_tuning.RerankerTrainer,
        "training_step",
        lambda *args, **options: passes.append(1) or forward(*args, **options),
    )
    assert run_training(model, broken) == summary
    # Four of the six steps were left, each of two passes.
    assert len(passes) == 8
    first, second = (load_file(folder / "checkpoint-best" / "model.safetensors") for folder in (whole, broken))
    assert first.keys() == second.keys()
    for name, weights in first.items():
        np.testing.assert_array_equal(weights, second[name], err_msg=name)
    before = load_file(model / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert not np.allclose(before, first["bert.embeddings.word_embeddings.weight"], atol=1e-3)


def test_the_head_learns_at_a_rate_of_its_own(tmp_path):
    base = tiny_cross_encoder(tmp_path / "base")
    run_training(base, tmp_path / "run", max_steps=2, learning_rate=0.0, head_learning_rate=0.1)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "run/checkpoint-best"))
    changed = {name for name, weights in before.items() if not np.array_equal(weights, after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_dropout_of_all_layers(model, tmp_path):
    network, _ = load_base_model(str(model), None, PairTemplate(32))
    ids = torch.arange(24).view(2, 12)

    def passes():
        return [network.train()(ids).logits for _ in range(2)]

    set_dropout(network, 0.5)
    assert not torch.equal(*passes())
    set_dropout(network, 0.0)
    assert torch.equal(*passes())
    means = [run_training(model, tmp_path / str(share), max_steps=2, dropout=share) for share in (0.0, 0.9)]
    assert means[0]["dev"] != means[1]["dev"]


@pytest.fixture
def passes_seen(monkeypatch):
    """Rows of each training or evaluation pass, in order."""
    seen = []
    collate = fine_tuning.PairCollator.__call__
    monkeypatch.setattr(
        fine_tuning.PairCollator, "__call__", lambda self, batch: seen.append(batch[1]["row"]) or collate(self, batch)
    )
    return seen


def test_list_wise_training_sees_whole_mentions_and_learns(tmp_path, passes_seen):
    model = ModelArguments(model=str(tiny_encoder(tmp_path / "base")), max_length=32)
    # 4 mentions of 4 pairs a step, in two passes; 7 steps an epoch.
    settings = training(loss="listwise", metric_for_best_model="list_loss", num_train_epochs=4, eval_steps=7)
    summary = fine_tune(RUN, model, settings, make_rows(26), make_rows(26), tmp_path / "run")
    trained = passes_seen[:14]
    assert all(sorted(rows[::4] % 4) == [0] * (len(rows) // 4) and len(rows) <= 8 for rows in trained)
    assert (np.concatenate(trained).reshape(-1, 4) % 4 == np.arange(4)).all()
    counts = np.bincount(np.concatenate(trained), minlength=104)
    assert (counts == 1).all()
    # Of four pairs at random, the gold one is right with a loss of log(4).
    assert summary["steps"] == 28 and summary["dev"]["list_loss"] < np.log(4)


def test_tensorboard_shows_how_training_goes(model, tmp_path):
    summary = run_training(model, tmp_path)
    (logs,) = (tmp_path / "runs").iterdir()
    events = EventAccumulator(str(logs)).Reload()
    names = "f1", "roc_auc", "acc@1", "ece"
    dev = {name: events.Scalars(f"eval/{name}") for name in names}
    for name, points in dev.items():
        assert [point.step for point in points] == [2, 4, 6]
        assert {point.step: point.value for point in points}[summary["best_step"]] == pytest.approx(
            summary["dev"][name]
        )
    train = {name: events.Scalars(f"train/{name}") for name in ("loss", "learning_rate")}
    assert all([point.step for point in points] == [1, 2, 3, 4, 5, 6] for points in train.values())
    assert all(point.value > 0 for point in train["loss"])
    rates = [point.value for point in train["learning_rate"]]
    # A share of 0.06 is one step of warm-up.
    assert rates[0] == 0 and rates[1] == pytest.approx(1e-2) and rates[1:] == sorted(rates[1:], reverse=True)


def test_the_log_goes_where_the_recipe_says(model, tmp_path, monkeypatch, capsys):
    """What the Trainer's own integration of another service gets."""

    class Service(TrainerCallback):
        started, logged = [], []

        def on_train_begin(self, args, state, control, **kwargs):
            self.started.append((args.run_name, args.project))

        def on_log(self, args, state, control, logs, **kwargs):
            self.logged.append(dict(logs))

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "wandb", Service)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    run_training(model, tmp_path, report_to=["wandb"], project="links", disable_tqdm=True, logging_steps=3)
    assert Service.started == [("run", "links")] and not (tmp_path / "runs").exists()
    assert sum("loss" in entry for entry in Service.logged) == 2
    assert sum("eval_acc@1" in entry for entry in Service.logged) == 3
    # No bar: the Trainer prints its log.
    assert "'eval_acc@1'" in capsys.readouterr().out


def test_workers_that_load_batches_change_nothing(model, tmp_path):
    alone = run_training(model, tmp_path / "alone", max_steps=2)
    workers = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True, "dataloader_prefetch_factor": 1}
    assert run_training(model, tmp_path / "workers", max_steps=2, **workers) == alone
    paths = (tmp_path / name / "checkpoint-best" / "model.safetensors" for name in ("alone", "workers"))
    assert len({path.read_bytes() for path in paths}) == 1


NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile generates C++ for a processor")


# The Trainer compiles with inductor, whose C++ compiler takes a minute; what is traced is the same without it.
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=[pytest.mark.extra, NEEDS_COMPILER])])
def test_a_compiled_model_learns_the_same_and_is_saved_under_the_names_of_the_plain_one(model, tmp_path, backend):
    plain = run_training(model, tmp_path / "plain", max_steps=4, eval_steps=4)
    torch._dynamo.utils.counters.clear()
    compiled = run_training(
        model, tmp_path / "compiled", max_steps=4, eval_steps=4, torch_compile=True, torch_compile_backend=backend
    )
    # One graph serves batches of all widths.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    # Compiled code draws its dropout otherwise, what is only traced does not.
    rounding = 0.2 if backend == "inductor" else 1e-4
    assert compiled["dev"]["log_loss"] == pytest.approx(plain["dev"]["log_loss"], abs=rounding)
    assert compiled["steps"] == 4
    best = load_file(tmp_path / "compiled" / "checkpoint-best" / "model.safetensors")
    assert best.keys() == load_file(model / "model.safetensors").keys()


def test_a_resumed_run_is_past_its_start(tmp_path, monkeypatch):
    base = tiny_encoder(tmp_path / "base")
    options = {"learning_rate": 0.0, "eval_on_start": True, "early_stopping_patience": 3, "max_steps": 20}

    def stop_after(self, args, state, control, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fine_tuning.EarlyStoppingCallback, "on_save", stop_after)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                run_training(base, tmp_path / "killed", **options)
    # The first checkpoint, at step 2, is the best one; the third evaluation after it is at step 8.
    assert run_training(base, tmp_path / "killed", **options)["steps"] == 8


def test_training_that_diverges_ends_with_the_best_checkpoint_before(tmp_path, monkeypatch):
    class Diverging(fine_tuning.RerankerTrainer):
        def training_step(self, model, *args, **options):
            if self.state.global_step == 4:
                next(model.parameters()).data.fill_(float("nan"))
            return super().training_step(model, *args, **options)

    monkeypatch.setattr(fine_tuning, "RerankerTrainer", Diverging)
    base = tiny_encoder(tmp_path / "base")
    summary = run_training(base, tmp_path / "run", max_steps=20, early_stopping_patience=2)
    assert summary["best_step"] in (2, 4) and summary["steps"] <= 8
    best = load_file(tmp_path / "run" / "checkpoint-best" / "model.safetensors")
    assert all(np.isfinite(weights).all() for weights in best.values())
