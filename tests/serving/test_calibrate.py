"""A model calibrated on a user's lists: a reranker, and a plain cross-encoder."""

import json
import re
import runpy
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from list_fixtures import write_lists
from tiny_models import tiny_cross_encoder
from tiny_reranker import tiny_reranker
from transformers import AutoModelForSequenceClassification

from umls_reranker import UMLSReranker, UserError
from umls_reranker.core.files import shipped
from umls_reranker.serving.bulk import BulkJob

ALONE = SimpleNamespace(process_index=0, num_processes=1, is_main_process=True)
WORDS = ("cold", "fever", "cough", "pain", "heart", "liver", "acute", "renal")


def make_rows(mentions=240, documents=80, seed=0):
    """Six candidates for each mention, of which the one with the highest score of the retriever is mostly right."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(mentions):
        scores = rng.normal(0, 1, 6) + 20
        best = int(np.argmax(scores))
        right = best if rng.random() < 0.9 else int(rng.integers(6))
        candidates = [
            {
                "name": " ".join(rng.choice(WORDS, 2)),
                "cui": f"C{number * 10 + place:07d}",
                "bm25_score": float(score + 4 * (place == best)),
                "rank": place,
            }
            for place, score in enumerate(scores)
        ]
        gold = candidates[right]["cui"] if rng.random() < 0.95 else "C9999999"
        mention = str(rng.choice(WORDS))
        rows.append({"doc_id": f"d{number % documents}", "entity": mention, "cui": gold, "candidates": candidates})
    return rows


def calibrate(monkeypatch, *words):
    script = shipped("scripts") / "calibrate.py"
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, words)])
    monkeypatch.setenv("UMLS_RERANKER_PROGRESS", "0")
    runpy.run_path(str(script))["main"]()


@pytest.mark.parametrize("kind", ["reranker", "cross_encoder", "lists_alone"])
def test_a_model_is_calibrated_on_lists_of_another_pipeline(tmp_path, monkeypatch, capsys, kind):
    makers = {"reranker": tiny_reranker, "cross_encoder": tiny_cross_encoder}
    model = [makers[kind](tmp_path / "model"), "--keep_cross_encoder"] if kind in makers else []
    rows = make_rows()
    calibrate(
        monkeypatch, *model, "--lists", write_lists(tmp_path / "own.parquet", rows), "--output", tmp_path / "new"
    )
    said = capsys.readouterr().out
    missing = sum(row["cui"] == "C9999999" for row in rows)
    assert f"240 mentions of 80 documents; {missing} without their gold concept" in said
    assert "bm25_score: from 1" in said
    # The candidates come in no order, and the one of the highest score is mostly correct.
    assert re.search(r"^gain: \+[67]\d\.\d points over your order \(", said, re.MULTILINE)
    metrics = json.loads((tmp_path / "new" / "metrics.json").read_text())
    figures = metrics["figures"]
    expected = ["lists_order", "calibrated_scores", "reranker"]
    if kind in makers:
        expected.insert(2, "features_without_cross_encoder")
    if kind == "reranker":
        expected.insert(2, "model_before")
    assert list(metrics["rows"]["systems"]) == expected
    correct = np.mean([row["candidates"][0]["cui"] == row["cui"] for row in rows])
    assert figures["systems/lists_order/acc@1"]["value"] == pytest.approx(correct)
    assert figures["acc@1"]["value"] > 0.8 and figures["top1_ece"]["value"] < 0.1

    reranker = UMLSReranker.from_pretrained(tmp_path / "new")
    ranked = reranker.rerank(rows[0]["entity"], rows[0]["candidates"])
    assert ranked[0].candidate["bm25_score"] == max(item["bm25_score"] for item in rows[0]["candidates"])
    assert set(reranker.calibration.score_ranges) == {"bm25"}
    assert (ranked[0].logit is None) == (kind == "lists_alone")
    files = BulkJob(tmp_path / "own.parquet", tmp_path / "ranked.jsonl", 64)
    files.run(reranker, ALONE)
    first = json.loads((tmp_path / "ranked.jsonl").read_text().splitlines()[0])["ranked"][0]
    assert first["score"] == pytest.approx(ranked[0].score) and first["tier"] == ranked[0].tier
    # Without the score a fallback ranks, and nothing is called high.
    with pytest.warns(UserWarning, match="bm25_score"):
        reranker.rerank("cold", [{"name": "cold", "cui": "C0000001"}])
    state = json.loads((tmp_path / "new" / "calibrator.json").read_text())
    assert state["fitted_on"]["lists"]["not_in_list"] == missing
    files = {path.name for path in (tmp_path / "new").iterdir()}
    assert files >= {"README.md", "metrics.json", "reference.json"}
    assert files.isdisjoint({"config.json", "model.safetensors", "tokenizer.json"}) == (kind == "lists_alone")
    card = (tmp_path / "new" / "README.md").read_text()
    assert "240 mentions in 80 documents" in card and "scored by a calibration fitted on other documents" in card
    assert "Nothing was fitted or selected" not in card
    assert ("Fine-tuned from" in card) == (kind == "reranker")
    # Lists of another pipeline have no dictionary and here no types, and the certificates' figures are not held out.
    for words in ("the dictionary:", "calibration split", "type given", "no type", "annotators"):
        assert words not in card
    assert "`bm25_score` too; without them, a fallback model decides" in card


def test_a_cross_encoder_that_adds_nothing_is_left_out_unless_it_is_to_be_kept(tmp_path, monkeypatch, capsys):
    model, lists = tiny_reranker(tmp_path / "model"), write_lists(tmp_path / "own.jsonl", make_rows(120, 40))
    for folder, options in (("left_out", ()), ("kept", ("--keep_cross_encoder",))):
        calibrate(monkeypatch, model, "--lists", lists, "--output", tmp_path / folder, *options)
        said = capsys.readouterr().out
        is_kept = folder == "kept"
        assert (UMLSReranker.from_pretrained(tmp_path / folder).scorer is None) != is_kept
        assert ("the cross-encoder is left out" in said) != is_kept
        assert ("pruning the others changes" in said) == is_kept
    weighed = json.loads((tmp_path / "left_out" / "calibrator.json").read_text())["inputs"][0]["fusion"]["weights"]
    assert "cross_encoder" not in weighed and "bm25" in weighed
    # Calibrated again on the same lists, it counts none of their mentions twice, and they do not certify again.
    calibrate(monkeypatch, tmp_path / "left_out", "--lists", lists, "--output", tmp_path / "again")
    states = [json.loads((tmp_path / name / "calibrator.json").read_text()) for name in ("left_out", "again")]
    assert states[0]["inputs"][0]["fusion"] == states[1]["inputs"][0]["fusion"]
    said = capsys.readouterr().out
    assert "certificate 2 of this model is not granted" in said and "previous model" not in said
    assert "40 documents were used to calibrate MODEL: they are fitted on again" in said


def test_a_dry_run_checks_the_lists_and_makes_nothing(tmp_path, monkeypatch, capsys, cross_encoder):
    rows = make_rows(60, 20)
    lists = write_lists(tmp_path / "own.jsonl", rows)
    calibrate(monkeypatch, cross_encoder, "--lists", lists, "--output", tmp_path / "new", "--dry_run")
    shown = capsys.readouterr()
    missing = sum(row["cui"] == "C9999999" for row in rows)
    assert f"60 mentions of 20 documents; {missing} without their gold concept" in shown.out
    assert shown.err.splitlines()[-1] == f"[calibrate] would be written to {tmp_path / 'new'}"
    assert not (tmp_path / "new").exists()
    del rows[3]["cui"]
    lists = write_lists(tmp_path / "own.jsonl", rows)
    assert ":4: cui" in refused(monkeypatch, tmp_path, cross_encoder, lists, "--dry_run")


def test_an_unknown_option_names_the_help_of_this_form(tmp_path, monkeypatch, cross_encoder):
    said = refused(monkeypatch, tmp_path, cross_encoder, tmp_path / "own.jsonl", "--fast")
    assert said.endswith("see umls-reranker calibrate [MODEL] --lists FILE --help")


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory):
    return tiny_cross_encoder(tmp_path_factory.mktemp("plain"))


def refused(monkeypatch, tmp_path, model, lists, *words):
    with pytest.raises(UserError) as found:
        calibrate(monkeypatch, model, "--lists", lists, "--output", tmp_path / "new", *words)
    assert not (tmp_path / "new").exists() and "\n" not in str(found.value)
    return str(found.value)


def changed(change):
    rows = make_rows(60, 20)
    change(rows)
    return rows


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda rows: rows[3].update(entity=" "), "own.jsonl:4"),
        (lambda rows: rows[3].update(cui=None), "own.jsonl:4"),
        (lambda rows: rows[3]["candidates"].append("cold"), "own.jsonl:4: candidate 6"),
        (lambda rows: rows[3]["candidates"][1].update(bm25_score="x"), "own.jsonl:4: candidate 1"),
        (lambda rows: [row.update(doc_id="d") for row in rows], "at least 10"),
        (lambda rows: rows.clear(), "own.jsonl"),
    ],
)
def test_lists_that_will_not_do_are_one_sentence(tmp_path, monkeypatch, cross_encoder, change, named):
    lists = write_lists(tmp_path / "own.jsonl", changed(change))
    assert named in refused(monkeypatch, tmp_path, cross_encoder, lists)


def two_logits(folder):
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, ignore_mismatched_sizes=True)
    model.save_pretrained(folder)


def pickled(folder):
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def configured(folder, **values):
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))


def bare_encoder(folder):
    configured(folder, architectures=["BertModel"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (two_logits, r"the model has 2 outputs; a reranker has one logit"),
        (pickled, r"has no model.safetensors; other weight formats, such as pytorch_model.bin, can run code"),
        (bare_encoder, r"is a BertModel, not a sequence classifier"),
        (lambda folder: (folder / "config.json").unlink(), r"contains no config.json"),
        (lambda folder: (folder / "config.json").write_text("[]"), r"is a model of unknown type, not a sequence"),
        (lambda folder: configured(folder, architectures=[5]), r"is a 5, not a sequence classifier"),
        (lambda folder: configured(folder, architectures="Bert"), r"is a model of unknown type, not a sequence"),
    ],
)
def test_networks_that_will_not_do_are_one_sentence(tmp_path, monkeypatch, change, reason):
    model = tiny_cross_encoder(tmp_path / "model")
    change(model)
    lists = write_lists(tmp_path / "own.jsonl", make_rows(60, 20))
    assert re.search(reason, refused(monkeypatch, tmp_path, model, lists))


def test_options_that_will_not_do_are_one_sentence(tmp_path, monkeypatch, cross_encoder):
    lists = write_lists(tmp_path / "own.jsonl", make_rows(60, 20))
    given = {"--confidence": "1.5", "--target_precision": "0", "--calibrator": "isotonic"}
    for option, value in given.items():
        assert option[2:] in refused(monkeypatch, tmp_path, cross_encoder, lists, option, value)
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="taken already exists"):
        calibrate(monkeypatch, cross_encoder, "--lists", lists, "--output", tmp_path / "taken")


def test_scores_of_another_scale_are_named_and_never_high(tmp_path, monkeypatch, cross_encoder):
    rows = make_rows()
    lists = write_lists(tmp_path / "own.jsonl", rows)
    calibrate(monkeypatch, cross_encoder, "--lists", lists, "--output", tmp_path / "new")
    reranker = UMLSReranker.from_pretrained(tmp_path / "new")
    tenfold = [item | {"bm25_score": item["bm25_score"] * 10} for item in rows[0]["candidates"]]
    with pytest.warns(UserWarning, match=r"bm25_score \(from 1"):
        ranked = reranker.rerank("cold", tenfold)
    assert {item.tier for item in ranked}.isdisjoint({"high"})


def test_of_several_names_of_one_concept_the_best_counts(tmp_path, monkeypatch, capsys, cross_encoder):
    rows = make_rows()
    for row in rows:
        row["candidates"].append(row["candidates"][0] | {"name": "another name"})
    lists = write_lists(tmp_path / "own.jsonl", rows)
    calibrate(monkeypatch, cross_encoder, "--lists", lists, "--output", tmp_path / "new")
    assert "240 candidates repeat a concept of their list" in capsys.readouterr().out


def test_what_the_lists_hold_is_said_before_they_are_scored(tmp_path, monkeypatch, capsys):
    def scored(*given, **options):
        raise RuntimeError("scored")

    monkeypatch.setattr("umls_reranker.serving.calibrate.calibrate", scored)
    lists = write_lists(tmp_path / "own.jsonl", make_rows())
    with pytest.raises(RuntimeError, match="scored"):
        calibrate(monkeypatch, tiny_reranker(tmp_path / "model"), "--lists", lists, "--output", tmp_path / "new")
    assert "240 mentions of 80 documents" in capsys.readouterr().out


def test_an_output_without_lists_asks_for_them(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="required: --lists"):
        calibrate(monkeypatch, tmp_path / "model", "--output", tmp_path / "new")
