"""Fine-tuning: pairs are tokenized once, batches have the requested sizes, and a resumed run ends the same."""

import importlib.util
import multiprocessing
import re
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_models import tiny_cross_encoder, tiny_encoder
from transformers import AutoTokenizer, DistilBertConfig, DistilBertForSequenceClassification, TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from umls_reranker.core.errors import UserError
from umls_reranker.core.recipe import Recipe
from umls_reranker.core.settings import ModelArguments, RunArguments
from umls_reranker.models.template import PairTemplate
from umls_reranker.models.tokens import PairEncoder
from umls_reranker.training import dataset, fine_tuning
from umls_reranker.training.dataset import tokenize_pairs, weight_scale
from umls_reranker.training.fine_tuning import (
    fine_tune,
    freeze_lowest,
    load_base_model,
    set_dropout,
    training_arguments,
)
from umls_reranker.training.sampling import MentionLists, Pass
from umls_reranker.training.trainer import TrainingPasses

RUN = RunArguments(device="cpu")


def make_pairs(mentions):
    """Four pairs per mention; the gold name is the mention's own text."""
    texts = ["".join(chr(97 + (i * k) % 26) for k in (1, 3, 5, 7)) for i in range(mentions + 3)]
    rows = []
    for i in range(mentions):
        for k in range(4):
            weight = 5.0 if k == 0 else 1.5
            pair = {"mention_id": i + 10, "mention": texts[i], "left": "a b", "right": "c", "name": texts[i + k]}
            rows.append(pair | {"cui": f"C{i + k}", "label": int(k == 0), "weight": weight, "source": "nearest"})
    return Dataset.from_list(rows)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_cross_encoder(tmp_path_factory.mktemp("base") / "model", spread=0.1)


def training(**options):
    settings = {"bf16": False, "per_device_train_batch_size": 8, "global_batch_size": 16, "eval_steps": 2}
    return Recipe.from_values(settings | {"learning_rate": 1e-2} | options).training


# Data


@pytest.fixture
def encoder(model):
    return PairEncoder(AutoTokenizer.from_pretrained(model).backend_tokenizer, PairTemplate(32, 4))


def assert_tokenized(rows, pairs, encoder, scale):
    expected = encoder.encode(pairs["mention"][:], pairs["name"][:], pairs["left"][:], pairs["right"][:])
    read = rows.__getitems__(range(len(pairs)))
    assert read.ids.tolist() == expected.ids.tolist()
    assert read.lengths.tolist() == rows.lengths.tolist() == expected.lengths.tolist()
    assert read.first_lengths.tolist() == expected.first_lengths.tolist()
    assert read.labels.tolist() == pairs["label"][:] and read.rows.tolist() == list(range(len(pairs)))
    assert read.weights.tolist() == [weight * scale for weight in pairs["weight"]]
    assert len(rows) == len(pairs)


def files(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_pairs_are_tokenized_into_one_row_each(encoder, tmp_path):
    pairs = make_pairs(2)
    assert_tokenized(tokenize_pairs(pairs, encoder, 2.0, tmp_path), pairs, encoder, 2.0)
    written = files(tmp_path)
    assert list(written) == ["00000-of-00001.arrow"]
    assert_tokenized(tokenize_pairs(pairs, encoder, 2.0, tmp_path), pairs, encoder, 2.0)
    assert files(tmp_path) == written


def test_shards_that_are_missing_are_made_and_the_others_kept(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "ROWS_PER_SHARD", 10)
    pairs = make_pairs(6)
    assert_tokenized(tokenize_pairs(pairs, encoder, 1.0, tmp_path, workers=1), pairs, encoder, 1.0)
    whole = files(tmp_path)
    assert sorted(whole) == [f"0000{n}-of-00003.arrow" for n in range(3)]
    (tmp_path / "00001-of-00003.arrow").unlink()
    (tmp_path / ".00001-of-00003.arrow.77.partial").write_bytes(b"cut off")
    tokenize_pairs(pairs, encoder, 1.0, tmp_path, workers=1)
    again = files(tmp_path)
    assert {name: content for name, (content, _) in again.items()} == {n: content for n, (content, _) in whole.items()}
    assert [name for name in sorted(whole) if again[name] == whole[name]] == [
        "00000-of-00003.arrow",
        "00002-of-00003.arrow",
    ]


def test_shards_do_not_depend_on_the_number_of_workers(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "ROWS_PER_SHARD", 10)
    pairs = make_pairs(6).select(range(3, 24))  # a view into a table
    folders = [tmp_path / name for name in ("one", "two")]
    assert_tokenized(tokenize_pairs(pairs, encoder, 1.0, folders[0], workers=1), pairs, encoder, 1.0)
    tokenize_pairs(pairs, encoder, 1.0, folders[1], workers=2)
    one, two = ({name: content for name, (content, _) in files(folder).items()} for folder in folders)
    assert one == two and len(one) == 3


def test_tokenizing_that_is_interrupted_begins_no_more_shards(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "ROWS_PER_SHARD", 2)

    def interrupted(tasks):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "as_completed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tokenize_pairs(make_pairs(20), encoder, 1.0, tmp_path, workers=2)
    # The workers' queue holds one more than there are workers.
    assert len(files(tmp_path)) <= 5


def test_rows_are_read_in_any_order_and_those_of_a_pass_may_not_count(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "ROWS_PER_SHARD", 3)
    rows = tokenize_pairs(make_pairs(2), encoder, 1.0, tmp_path, workers=1)
    read, parts = rows.__getitems__([7, 0, 4, 4]), [rows[row] for row in (7, 0, 4, 4)]
    assert read.ids.tolist() == np.concatenate([part.ids for part in parts]).tolist()
    assert read.rows.tolist() == [7, 0, 4, 4] and read.lengths.tolist() == [int(part.lengths[0]) for part in parts]
    assert read.labels.tolist() == [0.0, 1.0, 1.0, 1.0] and read.weights.tolist() == [1.5, 5.0, 5.0, 5.0]
    passes = TrainingPasses(rows)
    counted, ignored = passes.__getitems__(Pass([4])), passes.__getitems__(Pass([4], counts=False))
    assert (counted.labels, counted.weights) == ([1.0], [5.0]) and (ignored.labels, ignored.weights) == (
        [-100.0],
        [0.0],
    )
    assert ignored.ids.tolist() == counted.ids.tolist() and ignored.rows.tolist() == [4]
    assert {ignored.labels.dtype, ignored.weights.dtype} == {np.dtype(np.float32)}


def test_weights_are_brought_to_mean_one():
    pairs = make_pairs(3)
    scale = weight_scale(pairs)
    assert scale == pytest.approx(4 / 9.5)
    assert np.mean(np.array(pairs["weight"][:]) * scale) == pytest.approx(1.0)
    assert weight_scale(pairs, label=1.0) == pytest.approx(1 / 5)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ([], "there are no training pairs"),
        ([0.0, 0.0], "must not all be 0"),
    ],
)
def test_weights_that_cannot_be_scaled_are_refused(weights, reason):
    with pytest.raises(UserError, match=reason):
        weight_scale(Dataset.from_dict({"weight": np.array(weights, np.float32), "label": [1] * len(weights)}))


# Arguments and base model


def test_accumulation_follows_from_the_batch_sizes(tmp_path):
    arguments = training_arguments(RUN, training(global_batch_size=32), tmp_path, train_pairs=100)
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (8, 4)
    assert (arguments.eval_steps, arguments.save_steps, arguments.learning_rate) == (2, 2, 1e-2)
    assert (arguments.weight_decay, arguments.warmup_steps) == (0.01, 0.06)
    assert arguments.greater_is_better and arguments.metric_for_best_model == "roc_auc"
    assert not arguments.bf16 and not arguments.fp16 and arguments.seed == RUN.seed


def test_a_run_shorter_than_an_evaluation_interval_is_evaluated_at_its_end(tmp_path):
    # 100 pairs are 7 steps of 16 per epoch.
    long = training(eval_steps=500, num_train_epochs=2)
    assert training_arguments(RUN, long, tmp_path, 100).eval_steps == 14
    assert training_arguments(RUN, training(eval_steps=500, max_steps=5), tmp_path, 100).eval_steps == 5
    assert training_arguments(RUN, training(eval_steps=3, max_steps=5), tmp_path, 100).eval_steps == 3
    # 50 mentions of 2 pairs, 8 a batch.
    lists = MentionLists(np.arange(100) // 2)
    assert training_arguments(RUN, long, tmp_path, 100, lists).eval_steps == 14
    lists = MentionLists(np.arange(100) // 10)
    # 10 mentions of 10 pairs, 2 a batch.
    assert training_arguments(RUN, long, tmp_path, 100, lists).eval_steps == 10


def test_accumulation_may_be_given_in_place_of_the_global_batch(tmp_path):
    alone = training(global_batch_size=None, gradient_accumulation_steps=3)
    arguments = training_arguments(RUN, alone, tmp_path, 100)
    assert (alone.pairs_per_step(1), arguments.gradient_accumulation_steps) == (24, 3)
    # 5 steps of 24 per epoch.
    assert training_arguments(RUN, replace(alone, eval_steps=500), tmp_path, 100).eval_steps == 15
    assert training_arguments(RUN, training(global_batch_size=None), tmp_path, 100).gradient_accumulation_steps == 1
    both = training(global_batch_size=32, gradient_accumulation_steps=4)
    assert training_arguments(RUN, both, tmp_path, 100).gradient_accumulation_steps == 4


def test_fields_of_the_trainer_reach_it_under_their_own_names(tmp_path):
    given = {
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
        "adam_beta2": 0.98,
    }
    given |= {"optim": "adafactor", "neftune_noise_alpha": 5.0, "logging_steps": 7, "warmup_steps": 20}
    given |= {"report_to": ["none"], "per_device_eval_batch_size": 9, "torch_empty_cache_steps": 3}
    given |= {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 4, "ddp_timeout": 60}
    arguments = training_arguments(RUN, training(**given), tmp_path, 100)
    assert {name: getattr(arguments, name) for name in given} == given | {"report_to": []}
    assert (arguments.run_name, arguments.seed, arguments.remove_unused_columns) == ("run", 13, False)
    # 7 steps of 16 per epoch.
    assert training_arguments(RUN, training(eval_steps=0.5, max_steps=9), tmp_path, 100).eval_steps == 5


@pytest.mark.parametrize("saved", [True, False])
def test_memory_is_saved_where_asked_for(tmp_path, saved):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        arguments = training_arguments(RUN, training(gradient_checkpointing=saved), tmp_path, 100)
    assert arguments.gradient_checkpointing is saved


@pytest.mark.parametrize("metric", ["log_loss", "list_loss"])
def test_a_loss_is_better_when_lower(tmp_path, metric):
    assert not training_arguments(RUN, training(metric_for_best_model=metric), tmp_path, 100).greater_is_better


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"global_batch_size": 20}, "global_batch_size: 20 is not a multiple of per_device_train_batch_size 8 x 1"),
        ({"fp16": True}, "fp16: float16 needs a GPU; add --fp16 no"),
        (
            {"gradient_accumulation_steps": 4},
            "gradient_accumulation_steps: global_batch_size 16 makes it 2; set only",
        ),
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
        training_arguments(RUN, training(**options), tmp_path, 100)


def test_a_base_model_gets_a_head_of_one_logit_and_its_markers(tmp_path):
    folder = str(tiny_encoder(tmp_path / "encoder"))
    network, tokenizer = load_base_model(folder, None, PairTemplate(32, 4, ("[unused1]", "<end>")))
    assert network.config.num_labels == 1
    assert (
        network.get_input_embeddings().num_embeddings == len(tokenizer) == tokenizer.convert_tokens_to_ids("<end>") + 1
    )


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
    pairs = DatasetDict(train=make_pairs(26), dev=make_pairs(10))
    arguments = training(**{"max_steps": 6} | options)
    return fine_tune(RUN, ModelArguments(model=str(model), max_length=32), arguments, pairs, folder)


def test_training_that_was_stopped_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    model, whole, broken = tiny_encoder(tmp_path / "base"), tmp_path / "whole", tmp_path / "broken"
    summary = run_training(model, whole)
    assert (summary["steps"], summary["train_pairs"], summary["dev_pairs"]) == (6, 104, 40)
    assert summary["best_step"] in (2, 4, 6) and 0 < summary["dev"]["roc_auc"] < 1
    assert summary["processes"] == 1 and summary["dtype"] == "float32" and summary["pairs_at_max_length"] == 0

    mark = fine_tuning.CheckpointCallback.on_save

    def stop_after(self, args, state, control, **kwargs):
        mark(self, args, state, control, **kwargs)
        if state.global_step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fine_tuning.CheckpointCallback, "on_save", stop_after)
        run_training(model, broken)
    assert (broken / "checkpoint-2" / "complete").is_file() and not (broken / "checkpoint-best").exists()
    # A checkpoint that was cut short does not count.
    (broken / "checkpoint-4").mkdir()

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


def test_a_training_that_had_ended_is_found_where_its_folder_has_moved(tmp_path):
    base = tiny_encoder(tmp_path / "base")
    summary = run_training(base, tmp_path / "run")
    best = (tmp_path / "run" / "checkpoint-best" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run" / "checkpoint-best")
    (tmp_path / "run").rename(tmp_path / "moved")
    assert run_training(base, tmp_path / "moved") == summary
    assert (tmp_path / "moved" / "checkpoint-best" / "model.safetensors").read_bytes() == best


def test_training_stops_when_nothing_gets_better(model, tmp_path):
    summary = run_training(model, tmp_path, learning_rate=0.0, early_stopping_patience=1, max_steps=40)
    assert (summary["steps"], summary["best_step"]) == (4, 2)


def test_frozen_layers_stay_as_they_are(tmp_path):
    base = tiny_encoder(tmp_path / "base")
    run_training(base, tmp_path / "run", max_steps=2, frozen_layers=1)
    before = load_file(base / "model.safetensors")
    after = load_file(tmp_path / "run" / "checkpoint-best" / "model.safetensors")
    changed = {name for name, weights in before.items() if not np.array_equal(weights, after[f"bert.{name}"])}
    # The gradient of a key's bias is rounding: it shifts all scores of a query alike.
    still = {"encoder.layer.1.attention.self.key.bias"}
    assert (
        changed | still == {name for name in before if not name.startswith(("embeddings", "encoder.layer.0"))} | still
    )


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


def test_layers_that_cannot_be_frozen_are_refused(model):
    network, _ = load_base_model(str(model), None, PairTemplate(32))
    with pytest.raises(UserError, match="frozen_layers: 2 must be from 0 to 1"):
        freeze_lowest(network, 2)
    other = DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=9, dim=4, n_layers=1, n_heads=1, hidden_dim=4)
    )
    with pytest.raises(UserError, match="frozen_layers: not supported for distilbert; remove it"):
        freeze_lowest(other, 0)


@pytest.fixture
def passes_seen(monkeypatch):
    """Rows of each training or evaluation pass, in order."""
    seen = []
    collate = fine_tuning.PairCollator.__call__
    monkeypatch.setattr(
        fine_tuning.PairCollator, "__call__", lambda self, pairs: seen.append(pairs.rows) or collate(self, pairs)
    )
    return seen


def test_list_wise_training_sees_whole_mentions_and_learns(tmp_path, passes_seen):
    pairs = DatasetDict(train=make_pairs(26), dev=make_pairs(26))
    model = ModelArguments(model=str(tiny_encoder(tmp_path / "base")), max_length=32)
    # 4 mentions of 4 pairs a step, in two passes; 7 steps an epoch.
    settings = training(loss="listwise", metric_for_best_model="list_loss", num_train_epochs=4, eval_steps=7)
    summary = fine_tune(RUN, model, settings, pairs, tmp_path / "run")
    trained = passes_seen[:14]
    assert all(sorted(rows[::4] % 4) == [0] * (len(rows) // 4) and len(rows) <= 8 for rows in trained)
    assert (np.concatenate(trained).reshape(-1, 4) % 4 == np.arange(4)).all()
    counts = np.bincount(np.concatenate(trained), minlength=104)
    assert (counts == 1).all()
    # Of four pairs at random, the gold one is right with a loss of log(4).
    assert summary["steps"] == 28 and summary["dev"]["list_loss"] < np.log(4)


def test_tensorboard_and_console_show_how_training_goes(model, tmp_path, capsys):
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
    train = {name: events.Scalars(f"train/{name}") for name in ("loss", "learning_rate", "pairs_per_second")}
    assert all([point.step for point in points] == [1, 2, 3, 4, 5, 6] for points in train.values())
    assert all(point.value > 0 for point in train["loss"] + train["pairs_per_second"])
    rates = [point.value for point in train["learning_rate"]]
    # A share of 0.06 is one step of warm-up.
    assert rates[0] == 0 and rates[1] == pytest.approx(1e-2) and rates[1:] == sorted(rates[1:], reverse=True)
    # Between the bar's own lines, on standard error.
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if line.startswith("step ")]
    assert len(lines) == 3 and not shown.out
    last = {name: points[-1].value for name, points in dev.items()}
    expected = f"dev F1 {last['f1']:.4f}  ROC-AUC {last['roc_auc']:.4f}  acc@1 {last['acc@1']:.4f}"
    assert re.fullmatch(rf"step 6/6  loss \d\.\d{{4}}  [\d,]+ pairs/s  {expected}  ECE {last['ece']:.4f}", lines[-1])


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
    run_training(model, tmp_path, report_to="wandb", project="links", disable_tqdm=True, logging_steps=3)
    assert Service.started == [("run", "links")] and not (tmp_path / "runs").exists()
    assert sum("loss" in entry and entry["pairs_per_second"] > 0 for entry in Service.logged) == 2
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


@pytest.mark.parametrize("kind", ["reduce_lr_on_plateau", "greedy"])
def test_a_schedule_that_follows_the_metric_knows_which_way_is_better(tmp_path, kind):
    settings = training(lr_scheduler_type=kind, lr_scheduler_kwargs={"patience": 0})
    arguments = training_arguments(RUN, settings, tmp_path, 100)
    assert arguments.lr_scheduler_kwargs == {"mode": "max", "patience": 0}


def test_a_resumed_run_is_past_its_start(tmp_path, monkeypatch):
    base = tiny_encoder(tmp_path / "base")
    options = {"learning_rate": 0.0, "eval_on_start": True, "early_stopping_patience": 3, "max_steps": 20}
    mark = fine_tuning.CheckpointCallback.on_save

    def stop_after(self, args, state, control, **kwargs):
        mark(self, args, state, control, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fine_tuning.CheckpointCallback, "on_save", stop_after)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                run_training(base, tmp_path / "killed", **options)
    # Nothing improves on the evaluation before the first step; the third after it is at step 6.
    assert run_training(base, tmp_path / "killed", **options)["steps"] == 6


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


def test_workers_end_with_their_evaluation(model, tmp_path, monkeypatch):
    workers, ended = [], fine_tuning.EarlyStopping.on_evaluate

    def count(self, *args, **options):
        workers.append(len(multiprocessing.active_children()))
        ended(self, *args, **options)

    monkeypatch.setattr(fine_tuning.EarlyStopping, "on_evaluate", count)
    run_training(model, tmp_path, dataloader_num_workers=1, dataloader_persistent_workers=True)
    assert len(workers) == 3 and max(workers) <= 2
