"""The loop of a model that was calibrated on lists, by commands: rank, review, correct, calibrate again."""

import json
import runpy
import sys

import numpy as np
import pytest
from list_fixtures import write_lists
from tiny_models import tiny_cross_encoder

from umls_reranker import UMLSReranker
from umls_reranker.calibration.certificate import CertificateHistory
from umls_reranker.core.errors import UserError
from umls_reranker.core.files import read_json, shipped
from umls_reranker.review.review_queue import RANDOM

WORDS = ("cold", "fever", "cough", "pain", "heart", "liver", "acute", "renal")


def make_rows(documents, name="old", seed=0, correct=1.0):
    """One mention a document, of whose four candidates the one with the highest score is correct, in most of them."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(documents):
        scores = rng.uniform(0, 1, 4).round(3)
        best = int(scores.argmax())
        scores[best] += 1
        gold = best if rng.random() < correct else (best + 1) % 4
        candidates = [
            {"name": " ".join(rng.choice(WORDS, 2)), "cui": f"C{number * 10 + place:07d}", "own_score": float(score)}
            for place, score in enumerate(scores)
        ]
        row = {"doc_id": f"{name}-{number}", "mention_id": number, "mention": f"{name} {number}"}
        rows.append(row | {"candidates": candidates, "cui": candidates[gold]["cui"]})
    return rows


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """Runs a command in an empty folder; gives what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UMLS_RERANKER_PROGRESS", "0")
    # Estimates for more documents, which take most of the time.
    monkeypatch.setattr("umls_reranker.calibration.certificate.OUTLOOK_DRAWS", 1)

    def run(line):
        name, *words = line.split()
        script = shipped("scripts") / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(script), *words])
        runpy.run_path(str(script))["main"]()
        return capsys.readouterr().out

    return run


def unlabelled(rows):
    return [{key: value for key, value in row.items() if key != "cui"} for row in rows]


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_model_of_lists_is_reviewed_and_corrected(command, tmp_path):
    old, new = make_rows(50, correct=0.9), make_rows(40, "new", seed=1, correct=0.5)
    write_lists(tmp_path / "old.jsonl", old)
    write_lists(tmp_path / "input.jsonl", unlabelled(new))
    tiny_cross_encoder(tmp_path / "network")
    command("calibrate network --lists old.jsonl --output my_model --keep_cross_encoder")
    command("rerank my_model input.jsonl log.jsonl")
    command("select_for_review my_model log.jsonl to_review.jsonl --count 30 --random_share 0.5")
    gold = {row["doc_id"]: row["cui"] for row in new}
    reviewed = [row | {"chosen": gold[row["doc_id"]]} for row in lines(tmp_path / "to_review.jsonl")]
    write_lists(tmp_path / "reviewed.jsonl", reviewed)
    said = command("add_feedback corrections reviewed.jsonl")
    differing = sum(row["chosen"] != row["ranked"][0]["cui"] for row in reviewed)
    assert "30 added" in said and f"{differing} of 30 choices differ from the model's answer" in said and differing > 5

    with pytest.raises(UserError, match=r"umls-reranker calibrate my_model --lists FILE .*--calibration_feedback"):
        command("recalibrate my_model --calibration_feedback corrections --name corrected")
    said = command("calibrate my_model --lists old.jsonl --calibration_feedback corrections --output my_model_2")
    assert "80 mentions of 80 documents" in said
    assert (
        "corrections: 30 added to the lists, 0 of them replacing the row of their mention; 15 were drawn at random"
        in said
    )
    assert "certificate 2 of this model is not granted, so the high tier is removed: it uses 15 new documents" in said
    fitted_on = read_json(tmp_path / "my_model_2" / "calibrator.json")["fitted_on"]
    assert fitted_on["corrections"]["used"] == 30 and fitted_on["mentions"] == 80
    # Doubtful answers are fitted on and not measured.
    metrics = read_json(tmp_path / "my_model_2" / "metrics.json")
    assert (metrics["mentions"], metrics["documents"], metrics["lists"]["mentions"]) == (65, 65, 80)
    measured = [row for row in reviewed if row["reason"] == RANDOM]
    right = sum(row["candidates"][0]["cui"] == gold[row["doc_id"]] for row in measured)
    right += sum(row["candidates"][0]["cui"] == row["cui"] for row in old)
    assert metrics["systems"][0]["acc@1"]["value"] == pytest.approx(right / 65)
    # Half of the corrections contradict the model: where its scores are as before, its probabilities are lower.
    before, after = (UMLSReranker.from_pretrained(name, device="cpu") for name in ("my_model", "my_model_2"))
    tops = [
        np.mean([reranker.rerank(row["mention"], row["candidates"])[0].score for row in old])
        for reranker in (before, after)
    ]
    assert tops[1] < tops[0] - 0.03
    assert before.calibration.models[0].fusion.weights != after.calibration.models[0].fusion.weights
    assert before.thresholds.for_type() != after.thresholds.for_type()


def test_only_documents_that_are_new_and_drawn_at_random_renew_a_certificate(command, tmp_path):
    """All are correct, so that nothing but the documents decides."""
    target = "--target_precision 0.8 --confidence 0.8"
    write_lists(tmp_path / "old.jsonl", make_rows(40))
    command(f"calibrate --lists old.jsonl --output my_model {target}")
    assert UMLSReranker.from_pretrained("my_model").thresholds.is_certified
    first = read_json(tmp_path / "my_model" / "calibrator.json")
    for name, reason, documents in (("new", RANDOM, 40), ("new", "near the threshold", 0), ("old", RANDOM, 0)):
        # Other mentions than those of the lists, also in their documents.
        further = [row | {"mention_id": "further", "mention": f"a {row['mention']}"} for row in make_rows(40, name, 1)]
        write_lists(tmp_path / "input.jsonl", unlabelled(further))
        command("rerank my_model input.jsonl log.jsonl --overwrite")
        gold = {row["doc_id"]: row["cui"] for row in further}
        log = lines(tmp_path / "log.jsonl")
        reviewed = [row | {"reason": reason, "chosen": gold[row["doc_id"]]} for row in log]
        write_lists(tmp_path / "reviewed.jsonl", reviewed)
        corrections, new = f"corrections-{name}-{documents}", f"my_model-{name}-{documents}"
        command(f"add_feedback {corrections} reviewed.jsonl")
        words = f"--lists old.jsonl --calibration_feedback {corrections} --output {new} {target}"
        said = command(f"calibrate my_model {words}")
        second = read_json(tmp_path / new / "calibrator.json")
        assert second["fitted_on"]["corrections"]["used"] == 40
        history = CertificateHistory.from_list(second["certificates"])
        assert history.to_list()[:1] == first["certificates"] and len(history.certificates) == 2
        rests_on = gold if documents else ()
        assert history.certificates[1] == CertificateHistory().after(rests_on).certificates[0]
        assert second["fitted_on"]["certified_by"] == {"attempt": 2, "documents": documents, "mentions": documents}
        assert UMLSReranker.from_pretrained(new).thresholds.is_certified == bool(documents)
        result = "granted" if documents else "not granted, so the high tier is removed"
        assert f"certificate 2 of this model is {result}: it uses {documents} new documents" in said
