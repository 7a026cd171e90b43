"""From candidate lists of another pipeline to a calibrated model, by two commands."""

import json
import shutil

import numpy as np
import pytest
from list_fixtures import write_lists
from tiny_models import tiny_encoder

from umls_reranker import UMLSReranker
from umls_reranker.core.json_files import read_json
from umls_reranker.models.cross_encoder import PairScorer
from umls_reranker.models.pair_template import PairTemplate

pytest_plugins = ["pipeline_fixtures"]

NAMES = {
    f"C{number}": f"{word} {noun}"
    for number, (word, noun) in enumerate(
        (word, noun) for word in ("acute", "chronic", "rare") for noun in ("cold", "pain", "fever")
    )
}

# Values that a training could not follow.
REFUSED = {
    "num_train_epochs": "-1",
    "max_steps": "-7",
    "weight_decay": "-3",
    "save_total_limit": "-1",
    "max_grad_norm": "-1",
    "context_tokens": "100",
    "num_hidden_layers": "99",
    "retrievers": "[]",
}


def lists_of(documents):
    """A mention a document, whose concept is at rank 1 to 3, or in every fifth list at none."""
    ids = list(NAMES)
    for number in documents:
        shown = [ids[(number + shift) % 9] for shift in range(4)]
        gold = "C99" if number % 5 == 0 else shown[number % 3]
        candidates = [
            {
                "cui": cui,
                "name": NAMES[cui],
                "preferred_name": NAMES[cui].upper(),
                "bm25_score": float(9 - rank),
                "teacher_score": float(cui == gold),
            }
            for rank, cui in enumerate(shown)
        ]
        mention = NAMES.get(gold, "else").replace(" ", ", ")
        yield {"doc_id": f"d{number}", "entity": mention, "cui": gold, "candidates": candidates}


@pytest.fixture(scope="module")
def folder(scripts, tmp_path_factory):
    """Where a cross-encoder was trained on lists, with settings of a recipe."""
    folder = tmp_path_factory.mktemp("lists")
    write_lists(folder / "train.jsonl", lists_of(range(60)))
    write_lists(folder / "dev.jsonl", lists_of(range(60, 80)))
    write_lists(folder / "calibration.jsonl", lists_of(range(80, 140)))
    model = tiny_encoder(folder / "base")
    settings = {"candidate_fields": ["preferred_name"], "loss": "listwise_kl", "max_steps": 4}
    settings |= {"nearest_negatives": 2, "model": str(model), "device": "cpu"}
    (folder / "settings.yaml").write_text(json.dumps(settings))
    words = (
        "--lists",
        folder / "train.jsonl",
        folder / "dev.jsonl",
        "--output",
        folder / "trained",
    )
    ended = scripts.run("train", folder / "settings.yaml", *words, eval_steps=2)
    assert (ended.code, ended.errors) == (0, []), ended.err
    return folder


def test_the_result_is_a_cross_encoder_and_nothing_else_stays(folder):
    trained = folder / "trained"
    assert not list(folder.glob(".*"))
    # Its learning curves can be compared.
    assert list(trained.glob("tensorboard/*/events.*"))
    weights = trained / "model.safetensors"
    assert weights.stat().st_mode == (folder / "train.jsonl").stat().st_mode
    template = PairTemplate.of_folder(trained)
    assert template == PairTemplate(candidate_fields=("preferred_name",))
    logits = PairScorer.from_folder(trained, template, "cpu").score(["cold"], ["a cold"]).logits
    assert np.isfinite(logits).all()


def test_calibrate_makes_a_reranker_of_it_with_the_scores_of_the_lists(folder, scripts):
    words = ("--lists", folder / "calibration.jsonl", "--output", folder / "model")
    ended = scripts.run("calibrate", folder / "trained", *words)
    assert (ended.code, ended.errors) == (0, []), ended.err
    model = UMLSReranker.from_pretrained(folder / "model", device="cpu")
    assert model.template.candidate_fields == ("preferred_name",)
    ranges = read_json(folder / "model" / "calibrator.json")["score_ranges"]
    assert set(ranges) == {"bm25"}
    (row,) = lists_of([80])
    assert any(item.logit is not None for item in model.rerank(row["entity"], row["candidates"]))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--lists", "train.jsonl", "--output", "new"], "--lists TRAIN DEV"),
        (["--lists", "train.jsonl", "dev.jsonl"], "--output FOLDER"),
        (["--lists", "train.jsonl", "dev.jsonl", "--output", "trained"], "trained already exists"),
        (["--lists", "no.jsonl", "dev.jsonl", "--output", "new"], "no.jsonl"),
        (["--lists", "train.jsonl", "foreign.jsonl", "--output", "new"], "foreign.jsonl: no list"),
        (["--lists", "train.jsonl", "broken.jsonl", "--output", "new"], "broken.jsonl:2: cui"),
        (["--lists", "train.jsonl", "dev.jsonl", "--output", "new", "--optim", "x"], "optim"),
        (["--lists", "train.jsonl", "train.jsonl", "--output", "new"], "train.jsonl: it has the"),
        (["--lists", "train.jsonl", "copy.jsonl", "--output", "new"], "copy.jsonl: it has the"),
        *[
            (["--lists", "train.jsonl", "dev.jsonl", "--output", "new", f"--{key}", value], key)
            for key, value in REFUSED.items()
        ],
    ],
)
def test_lists_that_will_not_do_are_named_before_training(folder, scripts, words, reason):
    write_lists(folder / "foreign.jsonl", lists_of(range(0, 50, 5)))
    rows = list(lists_of(range(3)))
    del rows[1]["cui"]
    write_lists(folder / "broken.jsonl", rows)
    shutil.copy(folder / "train.jsonl", folder / "copy.jsonl")
    words = [*words, "--model", "base", "--dry_run"]
    ended = scripts.run("train", *words, cwd=folder)
    assert ended.code == 2 and len(ended.errors) == 1 and reason in ended.errors[0], ended.err
    assert not (folder / "new").exists()


def test_a_loss_of_a_teacher_needs_its_scores_in_the_lists(folder, scripts):
    without = []
    for row in lists_of(range(20)):
        for candidate in row["candidates"]:
            del candidate["teacher_score"]
        without.append(row)
    write_lists(folder / "no_teacher.jsonl", without)
    lists = ("--lists", "no_teacher.jsonl", "dev.jsonl", "--output", "new", "--model", "base")
    words = (*lists, "--loss", "listwise_kl", "--dry_run")
    for teacher in ((), ("--teacher", "base")):
        ended = scripts.run("train", *words, *teacher, cwd=folder)
        assert ended.code == 2 and "teacher_score: " in ended.errors[0], ended.err
    ended = scripts.run("train", *lists, "--loss", "listwise", "--dry_run", cwd=folder)
    assert ended.code == 0, ended.err


def test_documents_in_both_files_are_counted(folder, scripts):
    write_lists(folder / "some_shared.jsonl", lists_of(range(57, 67)))
    words = ("--output", "new", "--model", "base", "--dry_run")
    ended = scripts.run("train", "--lists", "train.jsonl", "some_shared.jsonl", *words, cwd=folder)
    assert ended.code == 0 and "3 of the 10 documents" in ended.err
    ended = scripts.run("train", "--lists", "train.jsonl", "dev.jsonl", *words, cwd=folder)
    assert ended.code == 0 and "documents" not in ended.err


def test_a_stopped_training_goes_on_and_other_settings_start_anew(folder, scripts):
    lists = ("--lists", folder / "train.jsonl", folder / "dev.jsonl")
    words = ("--output", folder / "resumed", "--model", folder / "base", "--eval_steps", 2)
    settings = {"device": "cpu", "max_steps": 4}
    killed = scripts.run(
        "train", *lists, *words, watch=folder, kill_at="checkpoint-best", **settings
    )
    assert killed.code == -9 and not (folder / "resumed").exists()
    ended = scripts.run("train", *lists, *words, **settings, watch=folder)
    assert ended.code == 0 and (folder / "resumed" / "config.json").is_file()
    assert not any("checkpoint-2" in change and "mkdir" in change for change in ended.changes)
