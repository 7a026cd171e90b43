"""A model measured on labelled lists, next to the order and the scores that they came with."""

import json
import runpy
import sys

import numpy as np
import pytest
from list_fixtures import write_lists
from tiny_models import tiny_cross_encoder
from tiny_reranker import tiny_reranker

from umls_reranker import UMLSReranker, UserError
from umls_reranker.core import progress
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
        words = "--lists", write_lists(folder / "own.jsonl", make_rows()), "--keep_cross_encoder"
        run("calibrate", monkeypatch, model, *words, "--output", folder / "new")
    return folder / "new"


@pytest.fixture(scope="module")
def without_network(tmp_path_factory):
    """Made of the same lists alone."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as monkeypatch:
        lists = write_lists(folder / "own.jsonl", make_rows())
        run("calibrate", monkeypatch, "--lists", lists, "--output", folder / "new")
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
    assert report["verdict"] in printed and "original order" in printed
    assert "(bm25_score) are calibrated on these lists, cross-fitted by document" in printed
    assert "was calibrated on" not in printed
    assert printed.splitlines()[0].startswith("300 mentions of 100 documents; ")
    assert printed.splitlines()[-1].endswith(f"open {tmp_path / 'a' / 'report' / 'report.html'}")
    files = {path.name for path in (tmp_path / "a" / "report").iterdir()}
    assert files == {"metrics.json", "report.html", "outcomes.parquet", "reliability.svg", "risk_coverage.svg"}
    page = (tmp_path / "a" / "report" / "report.html").read_text()
    assert report["verdict"] in page and "new on test.jsonl" in page and "the dictionary" not in page
    outcomes = Outcomes.load(tmp_path / "a" / "report" / "outcomes.parquet")
    assert outcomes.correct.mean() == pytest.approx(ours) and len(outcomes) == 300


def test_no_part_of_an_evaluation_is_silent(tmp_path, monkeypatch, capsys, without_network):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    rows = [row | {"entity_type": ("T047", "T184")[place % 2]} for place, row in enumerate(make_rows(60, 20, seed=1))]
    evaluated(without_network, tmp_path, rows)
    told = {line.partition(":")[0] for line in capsys.readouterr().err.splitlines()}
    kinds = ("groups and types", "incorrect types")
    assert {"measuring", *(f"measuring {kind}" for kind in kinds)} <= told


def test_documents_of_the_calibration_are_counted_and_the_others_told_apart(tmp_path, calibrated):
    # Of the 50 documents, d0 to d29 are among the 80 that it was calibrated on.
    rows = make_rows(90, 30, seed=2) + make_rows(60, 20, seed=3, prefix="new")
    report, _ = evaluated(calibrated, tmp_path, rows)
    assert (report["lists"]["calibrated_documents"], report["lists"]["calibrated_mentions"]) == (30, 90)
    assert report["notes"][0].startswith("30 of the 50 documents were used to calibrate the model, ")
    rest, _ = evaluated(calibrated, tmp_path, rows[90:])
    assert report["verdict"] == f"on the 20 documents that the model was not calibrated on: {rest['verdict']}"
    assert rest["verdict"].startswith("gain: ")
    report, _ = evaluated(calibrated, tmp_path, rows[:90])
    assert report["verdict"].startswith("inconclusive: the model was calibrated on all of these documents; ")


def test_a_model_without_a_network_is_measured_without_what_is_of_one(tmp_path, monkeypatch, capsys, without_network):
    rows = make_rows(300, 100, seed=1, prefix="new")
    lists = write_lists(tmp_path / "test.jsonl", rows)
    run("evaluate", monkeypatch, without_network, "--lists", lists, "--output", tmp_path / "report")
    assert "\ngain: +" in capsys.readouterr().out
    report = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert [row["name"] for row in report["systems"]] == ["lists_order", "calibrated_scores", "reranker"]
    assert list(report["linking"]) == ["reranker", "calibrated_scores", "lists_order"] and "scored" not in report
    page = (tmp_path / "report" / "report.html").read_text()
    assert "cross-encoder" not in page and "before" not in page.replace("before cal", "")
    reranker = UMLSReranker.from_pretrained(without_network)
    ranked = reranker.rerank_batch([row["entity"] for row in rows], [row["candidates"] for row in rows])
    is_right = [mention[0].cui == row["cui"] for mention, row in zip(ranked, rows, strict=True)]
    assert report["systems"][-1]["acc@1"]["value"] == np.mean(is_right)
    accepted = np.array([mention[0].accepted for mention in ranked])
    assert report["systems"][-1]["accepted_share"]["value"] == accepted.mean()
    assert report["systems"][-1]["accepted_precision"]["value"] == np.mean(np.array(is_right)[accepted])


def test_a_model_that_knows_no_features_is_compared_with_the_order_alone(tmp_path, model):
    rows = make_rows(40, 20)
    for row in rows:
        for candidate in row["candidates"]:
            del candidate["bm25_score"]
    report, outcomes = evaluated(model, tmp_path, rows)
    assert [row["name"] for row in report["systems"]] == ["lists_order", "reranker"]
    assert report["systems"][1]["acc@1"]["value"] == outcomes.correct.mean()
    assert not any("scores of the lists" in note for note in report["notes"])


def test_several_candidates_of_a_concept_count_as_one_in_every_system(tmp_path, without_network):
    """The model takes the best of them, the order of the lists the first."""
    rows = make_rows(40, 20, prefix="new")
    expected, _ = evaluated(without_network, tmp_path, rows)
    for row in rows:
        worse = [candidate | {"bm25_score": candidate["bm25_score"] - 0.1} for candidate in row["candidates"]]
        # The best name of the first concept stands last.
        row["candidates"] = [*worse, *row["candidates"][::-1]]
    report, _ = evaluated(without_network, tmp_path, rows)
    assert report["lists"]["repeated_candidates"] == 200 and report["candidates"] == 200
    for row, expected_row in zip(report["systems"], expected["systems"], strict=True):
        assert row["name"] == expected_row["name"] and row["acc@1"] == expected_row["acc@1"]


def test_what_decided_in_place_of_missing_inputs_is_named(tmp_path, without_network):
    rows = make_rows(40, 20, prefix="new")
    for row in rows:
        for candidate in row["candidates"]:
            candidate["other_score"] = candidate.pop("bm25_score")
    report, _ = evaluated(without_network, tmp_path, rows)
    assert report["notes"][-1].startswith(
        "missing inputs (bm25_score) for 40 mentions, decided by the fallback model "
    )


@pytest.mark.parametrize("documents", [1, 4])
def test_few_documents_are_measured_and_decide_nothing(tmp_path, without_network, documents):
    report, _ = evaluated(without_network, tmp_path, make_rows(40, documents, prefix="new"), fitted_on=False)
    assert report["verdict"].startswith("inconclusive: ") and "too few for a reliable interval" in report["verdict"]
    row = report["systems"][-1]
    assert [np.isnan(row[name]["low"]) for name in ("acc@1", "top1_ece")] == [documents == 1] * 2


def test_a_dry_run_reads_the_lists_and_makes_nothing(tmp_path, monkeypatch, capsys, without_network):
    lists = write_lists(tmp_path / "test.jsonl", make_rows(40, 20))
    run("evaluate", monkeypatch, without_network, "--lists", lists, "--output", tmp_path / "report", "--dry_run")
    printed = capsys.readouterr()
    assert printed.out.startswith("40 mentions of 20 documents; ") and "acc@1" not in printed.out
    assert printed.err.splitlines()[-1] == f"[evaluate] would be written to {tmp_path / 'report'}"
    assert not (tmp_path / "report").exists()


def refused(monkeypatch, *words):
    with pytest.raises(UserError) as found:
        run("evaluate", monkeypatch, *words)
    assert "\n" not in str(found.value)
    return str(found.value)


def test_mistakes_are_told_in_a_sentence(tmp_path, monkeypatch, without_network, capsys):
    rows = make_rows(40, 20)
    del rows[3]["cui"]
    words = "--lists", write_lists(tmp_path / "test.jsonl", rows), "--output"
    assert "test.jsonl:4: cui" in refused(monkeypatch, without_network, *words, tmp_path / "report")
    assert refused(monkeypatch, without_network, *words, tmp_path).endswith(
        "already exists; choose another folder for the report"
    )
    plain = tiny_cross_encoder(tmp_path / "plain")
    assert "reranker.json" in refused(monkeypatch, plain, *words, tmp_path / "report")
    said = refused(monkeypatch, without_network, *words, tmp_path / "report", "--fast")
    assert said.endswith("see umls-reranker evaluate MODEL --lists FILE --help")
    assert not (tmp_path / "report").exists()
