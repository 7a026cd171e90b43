"""Fine-tuning: pairs are tokenized once, batches have the requested sizes, and a resumed run ends
the same.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from loss_on_processes import TRAINING_ROW
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch
from tiny_models import tiny_classifier, tiny_cross_encoder, tiny_encoder
from tiny_reranker import tiny_reranker
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    TrainingArguments,
)

from umls_reranker import UMLSReranker
from umls_reranker.core.devices import resolve_dtype
from umls_reranker.core.errors import UserError
from umls_reranker.core.keys import RunArguments
from umls_reranker.models.arguments import ModelArguments
from umls_reranker.models.pair_template import MARKERS, PairTemplate
from umls_reranker.models.pretrained import keep_layers, load_base_model
from umls_reranker.pipeline.options import load_recipe
from umls_reranker.pipeline.recipe import Recipe, typed_training
from umls_reranker.retrieval.arguments import EncoderArguments
from umls_reranker.training import encoder_training, fine_tuning
from umls_reranker.training.checkpoints import last_complete_checkpoint
from umls_reranker.training.dropout import set_dropout
from umls_reranker.training.fine_tuning import fine_tune
from umls_reranker.training.recipe_arguments import training_arguments, training_device
from umls_reranker.training.trainer import RerankerTrainer
from umls_reranker.training.training_arguments import (
    LEAST,
    OneGpuArguments,
    RerankerTrainingArguments,
    divide_batch,
)

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
RUN = RunArguments(device="cpu")
# 50 lists of 2 pairs, 8 a batch of 16.
LISTS = (50, 100)


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
    settings = {
        "bf16": False,
        "per_device_train_batch_size": 8,
        "global_batch_size": 16,
        "eval_steps": 2,
    }
    recipe = Recipe.from_values(settings | {"learning_rate": 1e-2} | options)
    return typed_training(recipe.training)


# Arguments and base model


def test_accumulation_follows_from_the_batch_sizes(tmp_path):
    arguments = training_arguments(RUN, training(global_batch_size=32), tmp_path, *LISTS)
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (8, 4)
    assert (arguments.eval_steps, arguments.save_steps, arguments.warmup_steps) == (2, 2, 0.06)
    assert arguments.greater_is_better and arguments.metric_for_best_model == "roc_auc"
    uneven = training_arguments(RUN, training(global_batch_size=20), tmp_path, *LISTS)
    assert (uneven.per_device_train_batch_size, uneven.gradient_accumulation_steps) == (7, 3)
    by_loss = training_arguments(RUN, training(metric_for_best_model="list_loss"), tmp_path, *LISTS)
    assert not by_loss.greater_is_better


def test_a_run_shorter_than_an_evaluation_interval_is_evaluated_at_its_end(tmp_path):
    long = training(eval_steps=500, num_train_epochs=2)
    assert training_arguments(RUN, long, tmp_path, *LISTS).eval_steps == 14
    assert (
        training_arguments(RUN, training(eval_steps=500, max_steps=5), tmp_path, *LISTS).eval_steps
        == 5
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"fp16": True}, "fp16"),
        ({"eval_steps": 2.5}, "eval_steps"),
        ({"lr_scheduler_kwargs": {"slope": 1}}, "slope"),
        ({"optim": "adamw_bnb_8bit"}, "bitsandbytes"),
        ({"deepspeed": "zero.json"}, "deepspeed"),
        ({"adam_beta1": 1.5}, "the training section is invalid"),
        ({"dataloader_persistent_workers": True}, "persistent_workers"),
        ({"report_to": ["tensorboard", "trackio"]}, "report_to: trackio"),
        ({"report_to": ["flyte"]}, "report_to: flyte "),
        ({"report_to": ["tensorbord"]}, "report_to: tensorbord .*tensorboard"),
        *[
            ({"num_train_epochs": epochs}, "num_train_epochs: ")
            for epochs in (0, -1, ".nan", "inf")
        ],
        *[({"max_steps": steps}, "max_steps: ") for steps in (0, -7, 10**12)],
        *[
            ({name: value}, f"{name}: ")
            for name in sorted(LEAST)
            for value in ("-1", "-0.5", ".nan")
            if "." not in value or name in ("adam_epsilon", "max_grad_norm", "weight_decay")
        ],
        ({"save_total_limit": 0}, "save_total_limit: "),
    ],
)
def test_arguments_that_cannot_work_are_refused(tmp_path, monkeypatch, options, reason):
    find = importlib.util.find_spec
    absent = {"trackio", "bitsandbytes"}
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name in absent else find(name, *rest),
    )
    with pytest.raises(UserError, match=reason):
        training_arguments(RUN, training(**options), tmp_path, *LISTS)


@pytest.mark.parametrize(
    ("report_to", "loggers"),
    [(["all"], ["tensorboard"]), ("tensorboard", ["tensorboard"]), (["none"], []), ("none", [])],
)
def test_logs_go_to_all_installed_loggers_to_one_or_to_none(monkeypatch, report_to, loggers):
    monkeypatch.setattr(
        "transformers.integrations.get_available_reporting_integrations", lambda: ["tensorboard"]
    )
    arguments = RerankerTrainingArguments(use_cpu=True, report_to=report_to)
    assert arguments.report_to == loggers


def test_a_base_model_gets_a_head_of_one_logit_and_its_markers(tmp_path):
    folder = str(tiny_encoder(tmp_path / "encoder"))
    network, tokenizer = load_base_model(folder, None, PairTemplate(32, 4))
    assert network.config.num_labels == 1
    assert network.get_input_embeddings().num_embeddings == len(tokenizer)
    assert tokenizer.unk_token_id not in tokenizer.convert_tokens_to_ids(list(MARKERS))


def test_a_base_model_that_cannot_be_loaded_is_named(tmp_path):
    pickled = tiny_encoder(tmp_path / "pickled")
    torch.save(load_torch(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(UserError, match="pickled cannot be loaded"):
        load_base_model(str(pickled), None, PairTemplate())


@pytest.mark.parametrize(
    "path", sorted(RECIPES.glob("*/config.yaml")), ids=lambda path: path.parent.name
)
def test_every_recipe_runs_on_any_number_of_processes(path):
    keys = {**vars(RerankerTrainingArguments), **typed_training(load_recipe(path).training)}
    pairs = keys["global_batch_size"]
    most = keys["per_device_train_batch_size"]
    for processes in range(1, 17):
        of_pass, passes = divide_batch(pairs, most, processes)
        assert (
            1 <= of_pass <= most and 0 <= of_pass * passes * processes - pairs < passes * processes
        )


def test_the_precision_of_a_launch_is_that_of_the_recipe_or_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    for path in RECIPES.glob("sapbert-*/config.yaml"):
        assert training_arguments(
            RUN, typed_training(load_recipe(path).training), tmp_path, *LISTS
        ).bf16
    with pytest.raises(UserError, match="mixed_precision: bf16"):
        training_arguments(RUN, training(), tmp_path, *LISTS)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(UserError, match="fp16"):
        training_arguments(RUN, training(bf16=None), tmp_path, *LISTS)


@pytest.fixture
def capability(monkeypatch):
    """Fakes a GPU of a capability, on which nothing is computed."""
    gpu = torch.device("cuda")

    def fake(capability):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(
            "umls_reranker.training.training_arguments.resolve_device", lambda device: gpu
        )
        monkeypatch.setattr(
            "umls_reranker.training.encoder_training.resolve_dtype",
            lambda dtype, device: resolve_dtype(dtype, gpu),
        )

    return fake


@pytest.mark.parametrize(
    ("of_gpu", "options", "launched", "expected"),
    [
        ((7, 0), {}, "no", "fp16"),
        ((7, 5), {}, "no", "fp16"),
        ((7, 0), {"fp16": False}, "no", "no"),
        ((7, 0), {"bf16": False}, "no", "no"),
        ((7, 0), {"bf16": True}, "no", "bf16"),
        ((7, 0), {}, "bf16", "bf16"),
        ((6, 1), {}, "no", "no"),
        ((8, 0), {}, "no", "bf16"),
        ((8, 0), {"fp16": False}, "no", "bf16"),
        ((8, 0), {"fp16": True}, "no", "fp16"),
        ((8, 0), {}, "fp16", "fp16"),
    ],
)
def test_training_is_in_what_the_gpu_is_fast_in(
    monkeypatch, capability, of_gpu, options, launched, expected
):
    capability(of_gpu)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    arguments = RerankerTrainingArguments(use_cpu=True, report_to=[], **options)
    assert (arguments.fp16, arguments.bf16) == (expected == "fp16", expected == "bf16")


@pytest.mark.parametrize(
    ("of_gpu", "expected"), [((7, 0), (True, False)), ((6, 1), (False, False))]
)
def test_the_bi_encoder_is_trained_in_what_the_gpu_is_fast_in(
    capability, tmp_path, of_gpu, expected
):
    capability(of_gpu)
    arguments = encoder_training._training_arguments(RUN, EncoderArguments(), tmp_path)
    assert (arguments.fp16, arguments.bf16) == expected


# Training


def run_training(model, folder, **options):
    arguments = training(**{"max_steps": 6} | options)
    model = ModelArguments(model=str(model), max_length=32)
    return fine_tune(RUN, model, arguments, make_rows(26), make_rows(10), folder)


def test_a_loss_of_a_teacher_is_refused_without_its_scores(model, tmp_path):
    with pytest.raises(UserError, match="teacher"):
        run_training(model, tmp_path, loss="listwise_kl")


def test_a_training_without_a_step_writes_no_model(model, tmp_path, monkeypatch):
    monkeypatch.setattr(RerankerTrainer, "train", lambda trainer, **options: None)
    with pytest.raises(UserError, match="no step"):
        run_training(model, tmp_path)
    assert not (tmp_path / "checkpoint-best").exists()


@pytest.mark.parametrize("loss", ["bce", "listwise"])
def test_a_training_that_resumes_from_its_last_step_takes_no_other(model, tmp_path, loss):
    # Seven steps are an epoch, so that more batches would follow.
    first = run_training(model, tmp_path, max_steps=2, loss=loss)
    again = run_training(model, tmp_path, max_steps=2, loss=loss)
    assert again == first and again["steps"] == 2


def test_of_logits_that_are_compared_within_a_list_no_figure_of_single_pairs_is_a_result(
    model, tmp_path
):
    def of_dev(loss):
        return {*run_training(model, tmp_path / loss, max_steps=2, loss=loss)["dev"]}

    assert of_dev("listwise") == {"acc@1", "list_loss"}
    assert {"f1", "roc_auc", "ece", "log_loss", "acc@1", "list_loss"} < of_dev("bce")


def test_a_checkpoint_that_was_cut_short_does_not_count(model, tmp_path):
    summary = run_training(model, tmp_path, max_steps=2)
    assert (summary["steps"], summary["train_pairs"], summary["dev_pairs"]) == (2, 104, 40)
    (tmp_path / "checkpoint-10").mkdir()
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "checkpoint-4" / "trainer_state.json").write_text('{"epoch": 1')
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    with pytest.raises(UserError, match="began in float32, not bfloat16"):
        run_training(model, tmp_path, max_steps=4, bf16=True)


def test_the_head_learns_at_a_rate_of_its_own(tmp_path):
    base = tiny_cross_encoder(tmp_path / "base")
    run_training(base, tmp_path / "run", max_steps=2, learning_rate=0.0, head_learning_rate=0.1)
    before = load_file(tmp_path / "base" / "model.safetensors")
    after = load_file(tmp_path / "run/checkpoint-best" / "model.safetensors")
    changed = {name for name, weights in before.items() if not np.array_equal(weights, after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("kind", ["Roberta", "DebertaV2", "ModernBert", "MPNet"])
def test_other_architectures_learn_and_are_served(tmp_path, kind):
    base = tiny_classifier(tmp_path / "base", kind)
    assert (
        load_base_model(str(base), None, PairTemplate(32), "eager")[0].config._attn_implementation
        == "eager"
    )
    run_training(base, tmp_path / "run", max_steps=2)
    best = tmp_path / "run" / "checkpoint-best"
    before = load_file(base / "model.safetensors")
    after = load_file(best / "model.safetensors")
    changed = [name for name, weights in before.items() if not np.array_equal(weights, after[name])]
    assert [name for name in changed if ".0." in name] and [
        name for name in changed if ".1." in name
    ]
    reranker = UMLSReranker.from_pretrained(
        tiny_reranker(tmp_path / "model", cross_encoder=best), dtype="float32"
    )
    ranked = reranker.rerank("cold", [{"name": "common cold"}, {"name": "fever"}])
    tokenizer = AutoTokenizer.from_pretrained(best)
    network = AutoModelForSequenceClassification.from_pretrained(best)
    for answer in ranked:
        logit = network(**tokenizer("cold", answer.name, return_tensors="pt")).logits.item()
        assert answer.logit == pytest.approx(logit, abs=1e-5)


@pytest.mark.parametrize(
    ("count", "kept"), [(0, [0, 1, 2, 3, 4, 5]), (4, [0, 2, 4, 5]), (1, [0]), (7, None)]
)
def test_layers_that_are_kept_are_evenly_spaced(count, kept):
    shape = {"hidden_size": 4, "num_attention_heads": 1, "intermediate_size": 4, "vocab_size": 9}
    network = BertModel(BertConfig(**shape, num_hidden_layers=6))
    layers = [*network.encoder.layer]
    if kept is None:
        with pytest.raises(UserError, match="num_hidden_layers"):
            keep_layers(network, count)
        return
    keep_layers(network, count)
    assert [layers.index(layer) for layer in network.encoder.layer] == kept
    assert network.config.num_hidden_layers == len(kept)


def test_dropout_of_all_layers(model, tmp_path):
    network, _ = load_base_model(str(model), None, PairTemplate(32))
    ids = torch.arange(24).view(2, 12)

    def passes():
        return [network.train()(ids).logits for _ in range(2)]

    set_dropout(network, 0.5)
    assert not torch.equal(*passes())
    set_dropout(network, 0.0)
    assert torch.equal(*passes())
    means = [
        run_training(model, tmp_path / str(share), max_steps=2, dropout=share)
        for share in (0.0, 0.9)
    ]
    assert means[0]["dev"] != means[1]["dev"]


def test_a_compiled_model_learns_the_same_and_is_saved_under_the_names_of_the_plain_one(
    model, tmp_path
):
    """The Trainer compiles with inductor, whose C++ compiler takes a minute; what is traced is the
    same without it.
    """
    options = {"max_steps": 4, "eval_steps": 4}
    plain = run_training(model, tmp_path / "plain", **options)
    torch._dynamo.utils.counters.clear()
    options |= {"torch_compile": True, "torch_compile_backend": "eager"}
    compiled = run_training(model, tmp_path / "compiled", **options)
    # One graph serves batches of all widths.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert compiled["dev"]["log_loss"] == pytest.approx(plain["dev"]["log_loss"], abs=1e-4)
    best = load_file(tmp_path / "compiled" / "checkpoint-best" / "model.safetensors")
    assert best.keys() == load_file(model / "model.safetensors").keys()


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


# Which device a training process uses; launches that a script refuses


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "auto"])
def test_training_takes_the_first_gpu(two_gpus, device):
    assert training_device(RunArguments(device=device)).type == "cuda"


def test_another_gpu_is_chosen_by_the_environment(two_gpus):
    with pytest.raises(UserError, match="device: cuda:1 .*CUDA_VISIBLE_DEVICES=1"):
        training_device(RunArguments(device="cuda:1"))


@pytest.mark.parametrize(("visible", "used"), [(4, 1), (1, 1), (0, 0)])
def test_a_process_keeps_to_one_gpu_of_all_it_sees(tmp_path, visible, used, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: visible))
    arguments = OneGpuArguments(
        output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=16
    )
    assert (arguments.n_gpu, arguments.train_batch_size) == (used, 16)
