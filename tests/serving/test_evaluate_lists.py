"""A model measured on labelled lists, next to the order and the scores that they came with."""

import json

import numpy as np
import pytest
from list_fixtures import write_lists
from list_model import run_script, unordered_rows
from tiny_reranker import tiny_reranker

from umls_reranker import UMLSReranker, UserError
from umls_reranker.evaluation.outcomes import Outcomes
from umls_reranker.lists.labels import read_labelled_lists, usable_lists
from umls_reranker.lists.rows import Rows
from umls_reranker.serving.evaluate import evaluate_lists
from umls_reranker.serving.list_description import describe_lists
from umls_reranker.vocab.types import TypeHierarchy


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A cross-encoder that reads nothing but chance, without features."""
    return tiny_reranker(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, model):
    """The same, calibrated on `unordered_rows`, with their score."""
    folder = tmp_path_factory.mktemp("models")
    words = "--lists", write_lists(folder / "own.jsonl", unordered_rows())
    run_script("calibrate", model, *words, "--output", folder / "new")
    return folder / "new"


@pytest.fixture(scope="module")
def without_cross_encoder(tmp_path_factory):
    """Made of the same lists alone."""
    folder = tmp_path_factory.mktemp("models") / "new"
    run_script(
        "calibrate",
        "--lists",
        write_lists(folder.parent / "own.jsonl", unordered_rows()),
        "--output",
        folder,
    )
    return folder


def evaluated(model, path, rows):
    reranker = UMLSReranker.from_pretrained(model, dtype="float32")
    lists = read_labelled_lists(
        write_lists(path / "test.jsonl", rows), reranker.thresholds.hierarchy
    )
    return evaluate_lists(reranker, lists, "labelled", resamples=50, seed=13)


def acc_at_1(metrics):
    return {
        name: metrics["figures"][f"systems/{name}/acc@1"]["value"]
        for name in metrics["rows"]["systems"]
    }


def test_a_calibrated_model_is_compared_with_order_scores_and_features(
    tmp_path, capsys, calibrated
):
    rows = unordered_rows(300, 100, seed=1, prefix="new")
    lists = write_lists(tmp_path / "test.jsonl", rows)
    run_script("evaluate", calibrated, "--lists", lists, "--output", tmp_path / "a" / "report")
    printed = capsys.readouterr().out
    metrics = json.loads((tmp_path / "a" / "report" / "metrics.json").read_text())
    systems = acc_at_1(metrics)
    of_cross_encoder = ["list_fusion", "cross_encoder"]
    assert list(systems) == [
        "lists_order",
        "calibrated_scores",
        *of_cross_encoder,
        "reranker",
    ]
    order = systems["lists_order"]
    ours = systems["reranker"]
    assert order == pytest.approx(
        np.mean([row["candidates"][0]["cui"] == row["cui"] for row in rows])
    )
    by_score = [max(row["candidates"], key=lambda item: item["bm25_score"])["cui"] for row in rows]
    correct = np.mean([cui == row["cui"] for cui, row in zip(by_score, rows, strict=True)])
    assert systems["calibrated_scores"] == pytest.approx(correct)
    assert metrics["figures"]["acc@1"]["value"] == pytest.approx(ours) and ours > order + 0.1
    assert metrics["figures"]["gain"]["value"] == pytest.approx(ours - order)
    assert (
        metrics["verdict"].startswith("gain: +")
        and metrics["verdict"] in printed
        and "original order" in printed
    )
    files = {path.name for path in (tmp_path / "a" / "report").iterdir()}
    assert files == {
        "metrics.json",
        "report.html",
        "outcomes.parquet",
        "reliability.svg",
        "risk_coverage.svg",
    }
    page = (tmp_path / "a" / "report" / "report.html").read_text()
    assert metrics["verdict"] in page and "new on test.jsonl" in page
    outcomes = Outcomes.load(tmp_path / "a" / "report" / "outcomes.parquet")
    assert outcomes.correct.mean() == pytest.approx(ours) and len(outcomes) == 300
    assert (
        outcomes.entity.tolist() == [row["entity"] for row in rows]
        and outcomes.mention_id.tolist() == [None] * 300
    )


def test_documents_of_the_calibration_are_left_out(tmp_path, calibrated):
    # Of the 50 documents, d0 to d29 are among the 80 that it was calibrated on.
    rows = unordered_rows(90, 30, seed=2) + unordered_rows(60, 20, seed=3, prefix="new")
    metrics, _ = evaluated(calibrated, tmp_path, rows)
    assert "on 30 of these documents" in metrics["notes"][0]
    rest, _ = evaluated(calibrated, tmp_path, rows[90:])
    assert repr(metrics["figures"]) == repr(rest["figures"]) and metrics["mentions"] == 60
    assert metrics["verdict"] == rest["verdict"] and rest["verdict"].startswith("gain: ")
    # Of an empty list nobody can say where it is from.
    rows[95]["candidates"].clear()
    assert rest["untiered"] == evaluated(calibrated, tmp_path, rows[90:])[0]["untiered"] == 0
    metrics, _ = evaluated(calibrated, tmp_path, rows[:90])
    assert metrics["verdict"].startswith("inconclusive: the model was calibrated on all")


def test_a_model_without_a_cross_encoder_is_measured_without_what_is_of_one(
    tmp_path, without_cross_encoder
):
    rows = unordered_rows(300, 100, seed=1, prefix="new")
    metrics, _ = evaluated(without_cross_encoder, tmp_path, rows)
    assert list(metrics["rows"]["systems"]) == [
        "lists_order",
        "calibrated_scores",
        "reranker",
    ]
    assert not {"scored_share", "ece_raw", "ece_reduction"} & metrics["figures"].keys()
    reranker = UMLSReranker.from_pretrained(without_cross_encoder)
    ranked = reranker.rerank_batch(
        [row["entity"] for row in rows], [row["candidates"] for row in rows]
    )
    is_right = np.array(
        [mention[0].cui == row["cui"] for mention, row in zip(ranked, rows, strict=True)]
    )
    accepted = np.array([mention[0].accepted for mention in ranked])
    found = {
        name: metrics["figures"][name]["value"]
        for name in ("acc@1", "accepted_coverage", "accepted_precision")
    }
    expected = is_right.mean(), accepted.mean(), is_right[accepted].mean()
    assert list(found.values()) == pytest.approx(list(expected))


def test_several_candidates_of_a_concept_count_as_one_in_every_system(
    tmp_path, without_cross_encoder
):
    """The model takes the best of them, the order of the lists the first."""
    rows = unordered_rows(40, 20, prefix="new")
    expected, _ = evaluated(without_cross_encoder, tmp_path, rows)
    for row in rows:
        worse = [
            candidate | {"bm25_score": candidate["bm25_score"] - 0.1}
            for candidate in row["candidates"]
        ]
        # The best name of the first concept stands last.
        row["candidates"] = [*worse, *row["candidates"][::-1]]
    metrics, _ = evaluated(without_cross_encoder, tmp_path, rows)
    assert metrics["repeated_candidates"] == 240 and metrics["candidates"] == 240
    assert acc_at_1(metrics) == pytest.approx(acc_at_1(expected))


def test_ids_of_mesh_alternatives_and_composites(tmp_path, capsys):
    rows = unordered_rows()
    for number, row in enumerate(rows):
        for candidate in row["candidates"]:
            candidate["cui"] = f"C56{candidate['cui'][-4:]}"
        gold = f"C56{row['cui'][-4:]}"
        other = row["candidates"][0]["cui"]
        row["cui"] = {0: [[gold], [other]], 1: [gold, other]}.get(number % 10, gold)
    lists = write_lists(tmp_path / "own.jsonl", rows)
    run_script("calibrate", "--lists", lists, "--output", tmp_path / "new")
    assert "acc@1 (strict)" in capsys.readouterr().out
    run_script("evaluate", tmp_path / "new", "--lists", lists, "--output", tmp_path / "report")
    figures = json.loads((tmp_path / "report" / "metrics.json").read_text())["figures"]
    reranker = UMLSReranker.from_pretrained(tmp_path / "new")
    ranked = reranker.rerank_batch(
        [row["entity"] for row in rows], [row["candidates"] for row in rows]
    )
    # As text, so that the form of the gold concepts does not matter.
    correct = np.array(
        [f"{items[0].cui!r}" in repr(row["cui"]) for items, row in zip(ranked, rows, strict=True)]
    )
    assert figures["acc@1"]["value"] == pytest.approx(correct.mean())
    assert figures["acc@1_strict"]["value"] == pytest.approx(
        (correct & (np.arange(240) % 10 > 0)).mean()
    )


def test_a_dry_run_reads_the_lists_and_makes_nothing(tmp_path, capsys, without_cross_encoder):
    lists = write_lists(tmp_path / "test.jsonl", unordered_rows(40, 20))
    run_script(
        "evaluate",
        without_cross_encoder,
        "--lists",
        lists,
        "--output",
        tmp_path / "report",
        "--dry_run",
    )
    printed = capsys.readouterr()
    assert printed.out.startswith("40 mentions of 20 documents; ") and "acc@1" not in printed.out
    assert printed.err.splitlines()[-1] == f"[evaluate] would be written to {tmp_path / 'report'}"
    assert not (tmp_path / "report").exists()


def test_mistakes_are_told_in_a_sentence(tmp_path, without_cross_encoder):
    rows = unordered_rows(40, 20)
    del rows[3]["cui"]
    words = "--lists", write_lists(tmp_path / "test.jsonl", rows), "--output"
    for output, named in (
        (tmp_path / "report", "test.jsonl:4: cui"),
        (tmp_path, f"{tmp_path} already exists"),
    ):
        with pytest.raises(UserError, match=named):
            run_script("evaluate", without_cross_encoder, *words, output)
    assert not (tmp_path / "report").exists()


# What a file of lists holds is said before anything is scored


def test_mentions_that_a_corpus_annotates_without_a_concept_are_kept_as_errors():
    rows = [
        {"doc_id": str(number), "entity": "cold", "candidates": [{"name": "cold", "cui": "C1"}]}
        | {"cui": [["C1"]] if number else []}
        for number in range(10)
    ]
    lists = usable_lists(Rows.of(rows), "rows", TypeHierarchy.built_in(), None)
    assert len(lists) == 10 and lists.annotations.gold.tolist() == [-1] + [0] * 9
    assert not lists.annotations.in_dictionary[0]
    assert "10 mentions of 10 documents; 1 without their gold concept" in describe_lists(lists, [])


def test_what_was_found_is_said_with_its_counts(tmp_path):
    rows = []
    for number in range(12):
        first = {
            "name": f"cold {number}",
            "cui": "C0000001",
            "bm25_score": 3,
            "semantic_types": ["T047"],
        }
        second = {
            "name": "fever",
            "cui": "C0000002",
            "bm25_score": 2,
            "definition": "",
            "none_score": None,
        }
        row = {
            "doc_id": f"d{number}",
            "entity": f"cold {number}",
            "cui": "C0000001",
            "candidates": [first, second],
        }
        rows.append(row | ({"entity_type": ["T047", "Illness"]} if number < 5 else {}))
    rows[0]["cui"] = "C0000009"
    lists = read_labelled_lists(write_lists(tmp_path / "own.jsonl", rows), TypeHierarchy.built_in())
    said = describe_lists(lists, ["definition"])
    for counted in (
        "12 mentions of 12 documents; 1 without",
        "scores: bm25_score",
        "definition: 12 of 24",
        "Illness",
    ):
        assert counted in said
    assert "caution" not in said
    assert "entity_type: 5 of 12 mentions; semantic_types: 12 of 24 candidates" in said


@pytest.mark.parametrize("last", [{}, {"my_score": None}, {"my_score": 3}])
def test_what_makes_figures_too_good_is_cautioned_against(last, tmp_path):
    candidates = [{"name": "cold", "cui": f"C{place}", "my_score": place} for place in range(3)]
    candidates.append({"name": "cold", "cui": "C3"} | last)
    rows = [
        {"doc_id": f"d{n}", "entity": "cold", "cui": "C2", "candidates": candidates}
        for n in range(100)
    ]
    said = describe_lists(
        read_labelled_lists(write_lists(tmp_path / "own.jsonl", rows), TypeHierarchy.built_in()), []
    )
    assert "caution: my_score rises" in said and "caution: every list has its gold concept" in said


def test_documents_that_repeat_others_are_counted():
    rows = []
    for number in [*range(24)] * 2:
        left = " ".join(f"w{number % 12}.{word}" for word in range(40))
        candidates = [{"name": "cold", "cui": "C1"}, {"name": "fever", "cui": "C2"}]
        row = {"doc_id": f"d{number}", "entity": "cold", "cui": "C1", "left": left}
        rows.append(row | {"candidates": candidates})
    lists = usable_lists(Rows.of(rows), "rows", TypeHierarchy.built_in())
    said = describe_lists(lists, [])
    assert "48 mentions of 24 documents" in said
    assert "caution: 12 documents repeat" in said and "d12 repeats d0" in said
    assert "12 are left" in said


@pytest.mark.parametrize(("different", "is_repeated"), [(20, True), (120, False)])
def test_terms_that_were_repeated_as_documents_are_cautioned_against(different, is_repeated):
    rows = [
        {
            "doc_id": f"d{number}",
            "entity": f"term {number % different}",
            "cui": "C1",
            "candidates": [{"name": "cold", "cui": "C1"}, {"name": "fever", "cui": "C2"}],
        }
        for number in range(150)
    ]
    said = describe_lists(usable_lists(Rows.of(rows), "rows", TypeHierarchy.built_in()), [])
    assert ("150 documents have only 20 different mentions" in said) == is_repeated


@pytest.mark.filterwarnings("error")
def test_a_sentinel_score_is_named_with_its_column_count_and_value(tmp_path):
    rows = [
        {
            "doc_id": f"d{n}",
            "entity": "cold",
            "cui": "C1",
            "candidates": [
                {"name": "cold", "cui": f"C{place}", "my_score": n - place} for place in range(3)
            ],
        }
        for n in range(20)
    ]
    rows[3]["candidates"][2]["my_score"] = -9999
    rows[4]["candidates"][2]["my_score"] = -9999
    rows[5]["candidates"][0]["my_score"] = 1e308
    path = write_lists(tmp_path / "own.jsonl", rows)
    said = describe_lists(read_labelled_lists(path, TypeHierarchy.built_in()), [])
    assert "caution: my_score: 3 of 60 candidates" in said and "-9999 to 1e+308" in said
