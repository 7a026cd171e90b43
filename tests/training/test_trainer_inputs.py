"""What `RerankerTrainer` is given works, or is refused in one line that says the way out."""

import inspect

import datasets
import pyarrow as pa
import pytest
import torch
from loss_on_processes import load_model, make_pairs, make_rows, make_trainer
from tiny_models import tiny_cross_encoder, tiny_encoder
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from umls_reranker.training.trainer import RerankerTrainer
from umls_reranker.training.trainer_inputs import REFUSED_OPTIONS
from umls_reranker.training.training_arguments import RerankerTrainingArguments

# Parameters that RerankerTrainer declares itself.
OWN = {"model", "args", "train_dataset", "eval_dataset", "processing_class"}
# Those that it passes on, each with a test of its effect.
PASSED_ON = {
    "callbacks",
    "compute_metrics",
    "optimizer_cls_and_kwargs",
    "optimizers",
    "preprocess_logits_for_metrics",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_cross_encoder(tmp_path_factory.mktemp("inputs") / "model", spread=0.1))


@pytest.fixture
def make(model, tmp_path):
    """A trainer of a model object, in which anything can be replaced."""

    def make(**options):
        given = {
            "model": load_model(model),
            "args": TrainingArguments(str(tmp_path), use_cpu=True, max_steps=1),
            "train_dataset": make_rows(16),
            "processing_class": AutoTokenizer.from_pretrained(model),
        }
        return RerankerTrainer(**given | options)

    return make


# Every option


def test_each_option_is_refused_or_has_its_effect():
    options = {*inspect.signature(Trainer.__init__).parameters} - {"self"}
    assert options == OWN | PASSED_ON | REFUSED_OPTIONS.keys()


@pytest.mark.parametrize("name", REFUSED_OPTIONS)
def test_options_that_would_do_nothing_are_refused(make, name):
    with pytest.raises(ValueError, match=name):
        make(**{name: lambda *arguments: torch.zeros(())})


class StepCounter(TrainerCallback):
    def __init__(self):
        self.steps = 0

    def on_step_end(self, *arguments, **options):
        self.steps += 1


def test_callbacks_are_called(make):
    counter = StepCounter()
    make(callbacks=[counter]).train()
    assert counter.steps == 1


def test_own_metrics_of_own_logits_are_computed(make):
    trainer = make(
        compute_metrics=lambda prediction: {"largest": float(prediction.predictions.max())},
        preprocess_logits_for_metrics=lambda logits, labels: torch.full_like(logits, 7.0),
    )
    assert trainer.evaluate(make_rows(9))["eval_largest"] == 7.0


def test_an_own_optimizer_takes_the_steps(make, model):
    network = load_model(model)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    trainer = make(model=network, optimizers=(optimizer, None))
    before = network.classifier.weight.clone()
    trainer.train()
    assert torch.equal(network.classifier.weight, before)
    made = make(optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.5}))
    assert isinstance(made.create_optimizer(), torch.optim.SGD)


def test_a_rate_of_the_head_is_refused_beside_an_own_optimizer(make, model, tmp_path):
    network = load_model(model)
    args = RerankerTrainingArguments(
        str(tmp_path), use_cpu=True, report_to=[], head_learning_rate=0.1
    )
    with pytest.raises(ValueError, match="head_learning_rate"):
        make(
            model=network,
            args=args,
            optimizers=(torch.optim.SGD(network.parameters(), lr=0.1), None),
        )


@pytest.mark.parametrize(
    ("name", "value"), [("label_names", ["label"]), ("length_column_name", "tokens")]
)
def test_names_of_columns_are_refused(make, tmp_path, name, value):
    args = TrainingArguments(str(tmp_path), use_cpu=True, **{name: value})
    with pytest.raises(ValueError, match=name):
        make(args=args)


def test_arguments_serve_a_second_trainer(make):
    first = make()
    make(args=first.args).train()


# Models


def test_a_model_object_needs_its_tokenizer(make):
    with pytest.raises(ValueError, match="processing_class"):
        make(processing_class=None)


@pytest.mark.parametrize("name", ["model", "args", "train_dataset"])
def test_what_is_missing_is_named(make, name):
    with pytest.raises(ValueError, match=rf"^{name} is"):
        make(**{name: None})


def test_other_models_than_cross_encoders_of_one_logit_are_refused(make, model, tmp_path):
    two_labels = AutoModelForSequenceClassification.from_pretrained(
        model, num_labels=2, ignore_mismatched_sizes=True
    )
    encoder = AutoModel.from_pretrained(tiny_encoder(tmp_path / "encoder"))
    for other in (two_labels, encoder, torch.nn.Linear(2, 1)):
        with pytest.raises(ValueError, match=r"^model .*num_labels=1"):
            make(model=other)


# Rows


ROWS = make_rows(9)
PAIRS = {"query": ["cold"], "document": ["common cold"], "label": [1.0]}
LISTS = {"query": ["cold"], "docs": [["common cold", "fever"]], "labels": [[1, 0]]}
OTHER_ROWS = {
    "pairs of sentence-transformers": datasets.Dataset.from_dict(PAIRS),
    "lists of sentence-transformers": datasets.Dataset.from_dict(LISTS),
    "a list of rows": ROWS.to_pylist(),
    "a dict of columns": LISTS,
    "a stream": datasets.Dataset(ROWS).to_iterable_dataset(),
    "a label a row": ROWS.set_column(4, "labels", pa.array([1] * ROWS.num_rows)),
    "no rows": ROWS.slice(0, 0),
}


@pytest.mark.parametrize("rows", OTHER_ROWS.values(), ids=OTHER_ROWS)
def test_rows_of_another_shape_name_what_makes_them(make, rows):
    with pytest.raises(ValueError, match=r"^train_dataset.*training_rows"):
        make(train_dataset=rows)
    if isinstance(rows, dict):  # of sets to evaluate
        rows = {"dev": rows}
    with pytest.raises(ValueError, match=r"^eval_dataset.*training_rows"):
        make(eval_dataset=rows)
    with pytest.raises(ValueError, match=r"^test_dataset.*training_rows"):
        make().predict(rows)


def test_pairs_that_are_tokenized_are_taken_as_they_are(model, tmp_path):
    pairs = make_pairs(model, 16)
    assert make_trainer(model, str(tmp_path), pairs).train_dataset is pairs
