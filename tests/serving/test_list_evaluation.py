"""A model measured on labelled lists, next to the order and the scores that they came with."""

import json
import runpy
import sys

import numpy as np
import pytest
from list_fixtures import write_lists
from tiny_reranker import tiny_reranker

from umls_reranker import UMLSReranker
from umls_reranker.core.files import shipped
from umls_reranker.data.labelled_lists import read_labelled_lists
from umls_reranker.evaluation.outcomes import Outcomes
from umls_reranker.serving.list_evaluation import evaluate_lists

WORDS = ("cold", "fever", "cough", "pain", "heart", "liver", "acute", "renal")


def make_rows(mentions=240, documents=80, seed=0, prefix="d"):
    """Five candidates for each mention; the score is higher for the gold concept, which the order knows less of."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(mentions):
        gold = int(rng.integers(5)) if rng.random() < 0.5 else 0
        candidates = [
            {
                "name": " ".join(rng.choice(WORDS, 2)),
                "cui": f"C{number * 10 + position:07d}",
                "bm25_score": float(rng.normal(3 * (position == gold), 1)),
            }
            for position in range(5)
        ]
        cui = candidates[gold]["cui"] if rng.random() < 0.9 else "C9999999"
        document = f"{prefix}{number % documents}"
        rows.append({"doc_id": document, "entity": str(rng.choice(WORDS)), "cui": cui, "candidates": candidates})
    return rows


def run(script, monkeypatch, *words):
    path = shipped("scripts") / f"{script}.py"
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, words)])
    monkeypatch.setenv("UMLS_RERANKER_PROGRESS", "0")
    runpy.run_path(str(path))["main"]()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network that reads nothing but chance, without features."""
    return tiny_reranker(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, model):
    """The same, calibrated on `make_rows`, with their score."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as monkeypatch:
        lists = write_lists(folder / "own.jsonl", make_rows())
        run("calibrate", monkeypatch, model, "--lists", lists, "--output", folder / "new")
    return folder / "new"


def evaluated(model, path, rows, **options):
    reranker = UMLSReranker.from_pretrained(model, dtype="float32")
    labelled = read_labelled_lists(write_lists(path / "test.jsonl", rows), reranker.thresholds.hierarchy, **options)
    return evaluate_lists(reranker, labelled, "tiny", resamples=50, seed=13)


def test_a_calibrated_model_is_compared_with_order_scores_and_features(tmp_path, monkeypatch, capsys, calibrated):
    rows = make_rows(300, 100, seed=1, prefix="new")
    lists = write_lists(tmp_path / "test.jsonl", rows)
    run("evaluate", monkeypatch, calibrated, "--lists", lists, "--output", tmp_path / "a" / "report")
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "a" / "report" / "metrics.json").read_text())
    names = [row["name"] for row in report["systems"]]
    assert names == ["lists_order", "calibrated_scores", "features_without_cross_encoder", "reranker"]
    order, scores, *_, ours = (row["acc@1"]["value"] for row in report["systems"])
    assert order == np.mean([row["candidates"][0]["cui"] == row["cui"] for row in rows])
    by_score = [max(row["candidates"], key=lambda item: item["bm25_score"])["cui"] for row in rows]
    assert scores == np.mean([cui == row["cui"] for cui, row in zip(by_score, rows, strict=True)])
    assert ours == report["linking"]["reranker"]["acc@1"]["value"] > order + 0.1
    assert report["systems"][-1]["gain"]["value"] == pytest.approx(ours - order)
    assert report["verdict"].startswith(f"gain: +{100 * (ours - order):.1f} points over your order (")
    assert report["verdict"] in printed and "order of the lists" in printed
    assert "(bm25_score) are calibrated on these lists, by documents held out in turn" in printed
    assert "was calibrated on" not in printed
    assert printed.splitlines()[0].startswith("300 mentions of 100 documents; ")
    assert printed.splitlines()[-1].endswith(f"open {tmp_path / 'a' / 'report' / 'report.html'}")
    files = {path.name for path in (tmp_path / "a" / "report").iterdir()}
    assert files == {"metrics.json", "report.html", "outcomes.parquet", "reliability.svg", "risk_coverage.svg"}
    page = (tmp_path / "a" / "report" / "report.html").read_text()
    assert report["verdict"] in page and "new on test.jsonl" in page and "the dictionary" not in page
    outcomes = Outcomes.load(tmp_path / "a" / "report" / "outcomes.parquet")
    assert outcomes.correct.mean() == pytest.approx(ours) and len(outcomes) == 300


def test_documents_of_the_calibration_are_counted_and_the_others_told_apart(tmp_path, calibrated):
    # Of the 50 documents, d0 to d29 are among the 80 that it was calibrated on.
    rows = make_rows(90, 30, seed=2) + make_rows(60, 20, seed=3, prefix="new")
    report, _ = evaluated(calibrated, tmp_path, rows)
    assert (report["lists"]["calibrated_documents"], report["lists"]["calibrated_mentions"]) == (30, 90)
    note = report["notes"][0]
    assert note.startswith("30 of the 50 documents are those that the model was calibrated on")
    rest, _ = evaluated(calibrated, tmp_path, rows[90:])
    assert note.endswith(f"on the other 20 alone (60 mentions), {rest['verdict']}")
    report, _ = evaluated(calibrated, tmp_path, rows[:90])
    assert "read the figures that calibrate printed" in report["notes"][0]
