"""What `RerankerTrainer` writes: folders that hold all that a model needs to be read again."""

import stat
import warnings

import pytest
from hub_server import WRITER, HubServer
from loss_on_processes import make_pairs, make_rows, make_trainer
from tiny_models import tiny_cross_encoder
from transformers import TrainingArguments

from umls_reranker.models.pair_template import TEMPLATE_FILE, PairTemplate
from umls_reranker.serving.model_source import ModelSource
from umls_reranker.training.trainer import RerankerTrainer

TEMPLATE = PairTemplate(max_length=96, context_tokens=8)
# What any file has that says nothing else.
READABLE = stat.S_IMODE(0o644)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_cross_encoder(tmp_path_factory.mktemp("saves") / "model", spread=0.1))


@pytest.fixture
def trained(model, tmp_path):
    """A folder with a checkpoint, and in it what ``save_model`` wrote without and with a name."""
    args = TrainingArguments(
        str(tmp_path / "out"), max_steps=1, save_steps=1, use_cpu=True, disable_tqdm=True
    )
    trainer = RerankerTrainer(model, args, make_rows(16), template=TEMPLATE)
    trainer.train()
    trainer.save_model()
    trainer.save_model(str(tmp_path / "out" / "final"))
    return tmp_path / "out"


def test_each_folder_has_the_template_and_is_read_by_it(trained):
    folders = [trained, trained / "checkpoint-1", trained / "final"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sources = [ModelSource.load(str(folder), device="cpu") for folder in folders]
    assert [source.cross_encoder.template for source in sources] == [TEMPLATE] * 3
    # A teacher, too, reads pairs as it was trained, not as the recipe's model does.
    teacher = ModelSource.load(str(trained / "final"), template=PairTemplate(32), device="cpu")
    assert teacher.cross_encoder.template == TEMPLATE


def test_a_folder_without_a_template_says_how_its_pairs_are_read(trained):
    (trained / "final" / TEMPLATE_FILE).unlink()
    with pytest.warns(UserWarning, match=f"final.*{TEMPLATE_FILE}.*64"):
        source = ModelSource.load(str(trained / "final"), device="cpu")
    assert source.cross_encoder.template == PairTemplate()


def test_its_files_are_those_of_any_writer_and_no_pickle_of_arguments(trained):
    for folder in (trained, trained / "checkpoint-1", trained / "final"):
        assert stat.S_IMODE((folder / "model.safetensors").stat().st_mode) == READABLE
        assert not (folder / "training_args.bin").exists()


def test_a_training_goes_on_from_such_a_checkpoint(model, trained):
    trainer = make_trainer(model, str(trained), make_pairs(model, 16), max_steps=2)
    trainer.train(resume_from_checkpoint=str(trained / "checkpoint-1"))
    assert trainer.state.global_step == 2


@pytest.mark.parametrize("loss", ["bce", "listwise"])
def test_the_card_says_what_was_trained_and_what_comes_next(model, tmp_path, monkeypatch, loss):
    args = {"max_steps": 1, "use_cpu": True, "disable_tqdm": True, "hub_model_id": "org/mere"}
    args |= {"hub_private_repo": True, "save_strategy": "no", "report_to": "none"}
    args = TrainingArguments(str(tmp_path / "out"), **args)
    rows = make_rows(16)
    with HubServer() as hub:
        hub.connect(monkeypatch, tmp_path / "cache", token=WRITER)
        # What transformers keeps of an earlier Hub.
        monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)
        trainer = RerankerTrainer(model, args, rows, rows, loss=loss, template=TEMPLATE)
        trainer.train()
        trainer.evaluate()
        trainer.push_to_hub(license="mit")
        files = hub.repos["org/mere"].files()
    assert "model.safetensors" in files and "training_args.bin" not in files
    card = files["README.md"].decode()
    assert "license: mit" in card and str(tmp_path) not in card
    assert "umls-reranker calibrate org/mere --lists" in card
    for line in (f"| loss | {loss} |", "| training pairs | 16 in 8 lists |", "| seed | 42 |"):
        assert line in card
    # Logits of list-wise losses say nothing of single pairs.
    assert "| acc@1 |" in card
    assert ("| f1 |" in card) == (loss == "bce")
