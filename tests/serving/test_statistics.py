"""Figures of a model in use, and drift: how often it is reported where there is none."""

import csv
import json
import re

import numpy as np
import pytest
from list_model import run_script
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tiny_reranker import tiny_reranker_without_cross_encoder

from umls_reranker import UMLSReranker
from umls_reranker.core.errors import UserError
from umls_reranker.hub.model_folder import changing
from umls_reranker.lists.answers import Answers, answered, read_sheet
from umls_reranker.lists.read import read_rows
from umls_reranker.lists.rows import Rows
from umls_reranker.pipeline.monitor import figures_of_samples
from umls_reranker.serving.drift import Histogram, read_reference, reference_content
from umls_reranker.serving.ranked_rows import read_ranked, tops_of_rows
from umls_reranker.serving.review_queue import select_for_review, write_queue
from umls_reranker.serving.statistics import DAILY, Statistics, StatisticsCollector

FIGURES = {
    name: {"value": 0.5, "low": 0.4, "high": None, "population": "9 mentions"} for name in DAILY
}
ROW = {"entity": "cold", "candidates": ["Cold", "Fever"]}


def answer(score, tier="medium", **about):
    return {"score": score, "margin": score / 2, "tier": tier, "accepted": tier != "reject"} | about


ROWS = [
    ROW | {"ranked": [answer(0.9, "high"), answer(0.1, "reject")]},
    ROW | {"ranked": [answer(0.4, model_name="names")]},
    ROW | {"ranked": [answer(0.2, "reject")]},
    ROW | {"candidates": [], "ranked": []},
]


def test_figures_by_hand():
    statistics = Statistics()
    assert statistics.to_dict()["mentions"] == 0 and statistics.to_dict()["mean_margin"] is None
    statistics.add(*tops_of_rows(ROWS[:2]), truncated_pairs=2, scored_pairs=3)
    statistics.add(*tops_of_rows([]))
    statistics.add(*tops_of_rows(ROWS[2:]))
    assert statistics.to_dict() == {
        "mentions": 4,
        "without_candidates": 1,
        "candidates": 4,
        "truncated_pairs": 2,
        "scored_pairs": 3,
        "computed_pairs": 0,
        "models": {"all": 3, "names": 1},
        "tiers": {"high": 1, "medium": 1, "low": 0, "reject": 1},
        "high_confidence_coverage": 0.25,
        "accepted_coverage": 0.5,
        "mean_top_score": pytest.approx(0.5),
        "mean_margin": pytest.approx(0.25),
    }
    statistics.reset()
    assert statistics.to_dict() == Statistics().to_dict()


def test_decisions_and_the_rows_written_of_them_are_counted_alike(tmp_path):
    reranker = UMLSReranker.from_pretrained(tiny_reranker_without_cross_encoder(tmp_path / "model"))
    lists = [
        ["Cold", "Fever"],
        [],
        ["Cough"],
        [{"name": "cold", "cui": "C0009443", "sapbert_score": 0.9}],
    ]
    with pytest.warns(UserWarning, match="missing inputs"):
        ranked = reranker.rerank_batch(["cold"] * 4, lists)
    statistics = Statistics()
    statistics.add(*tops_of_rows({"ranked": [item.as_row() for item in items]} for items in ranked))
    expected = reranker.statistics.to_dict()
    assert statistics.to_dict() == expected | {
        name: pytest.approx(expected[name]) for name in DAILY
    }


def test_what_prometheus_scrapes():
    statistics = Statistics()
    registry = CollectorRegistry()
    registry.register(StatisticsCollector(statistics))

    def samples():
        families = text_string_to_metric_families(generate_latest(registry).decode())
        return {
            (s.name, *s.labels.values()): s.value for family in families for s in family.samples
        }

    assert samples()["umls_reranker_mentions_total",] == 0
    statistics.add(*tops_of_rows(ROWS), truncated_pairs=3, computed_pairs=2)
    found = samples()
    assert (
        found["umls_reranker_mentions_total",] == 4
        and found["umls_reranker_truncated_pairs_total",] == 3
        and found["umls_reranker_computed_pairs_total",] == 2
    )
    assert found["umls_reranker_answers_total", "high"] == 1
    assert {name: found[f"umls_reranker_{name}",] for name in DAILY} == {
        name: statistics.to_dict()[name] for name in DAILY
    }


# Drift


def documents(count, seed, shift=0.0):
    """Scores of ten mentions of each document, which has its own level, and their documents."""
    rng = np.random.default_rng(seed)
    level = np.repeat(rng.normal(1.5 - shift, 1.0, count), 10)
    scores = 1 / (1 + np.exp(-(level + rng.normal(0, 1.0, 10 * count))))
    return scores, np.repeat(np.arange(count), 10)


def histogram(count, seed, shift=0.0):
    scores, names = documents(count, seed, shift)
    return Histogram.of(scores, np.zeros(len(scores), bool), names)


def test_where_nothing_has_moved_few_tests_say_so():
    drifts = [histogram(60, 2 * seed).drift_to(histogram(60, 2 * seed + 1)) for seed in range(300)]
    rejected = np.mean([drift.p_value <= 0.05 for drift in drifts])
    assert 0.01 <= rejected <= 0.07


def test_drift_is_found_and_named():
    drift = histogram(100, 1).drift_to(histogram(100, 2, shift=1.5))
    assert drift.p_value < 1e-6 and drift.psi > 0.1
    assert drift.cell == "scores of 0.8 to 1.0" and drift.share < drift.reference_share


def test_the_change_that_is_said_to_be_noticed_is_found_four_times_in_five():
    noticed = histogram(100, 1).drift_to(histogram(60, 2)).noticed
    rng = np.random.default_rng(0)
    is_found = []
    for seed in range(200):
        before = histogram(100, 2 * seed)
        scores, names = documents(60, 2 * seed + 1)
        is_top = scores >= 0.8
        moved = is_top & (rng.random(600) < noticed / is_top.mean())
        scores = np.where(moved, rng.choice(scores[~is_top], 600), scores)
        drift = before.drift_to(Histogram.of(scores, np.zeros(600, bool), names))
        is_found.append(drift.p_value <= 0.05 and drift.psi >= 0.02)
    assert 0.8 <= np.mean(is_found) <= 0.97


def test_missing_inputs_and_candidates_are_drift_too():
    scores, names = documents(100, 3)
    nothing = np.zeros(1000, bool)
    some = np.arange(1000) % 3 == 0
    before = Histogram.of(scores, nothing, names)
    fewer = before.drift_to(Histogram.of(scores, some, names))
    assert (
        fewer.cell == "decided with fewer inputs"
        and fewer.p_value < 1e-6
        and fewer.share == pytest.approx(0.334)
    )
    without = before.drift_to(Histogram.of(np.where(some, np.nan, scores), some, names))
    assert without.cell == "without candidates" and without.p_value < 1e-6


def test_scores_near_one_that_differ_from_fit_to_fit_are_one_cell():
    # Cells of quantiles had edges such as 0.99989.
    low = Histogram.of(np.full(100, 0.8), np.zeros(100, bool), list(range(100)))
    high = Histogram.of(np.full(100, 0.99999), np.zeros(100, bool), list(range(100)))
    assert low.drift_to(high).psi == pytest.approx(0.0)


def test_a_reference_is_read_as_it_was_written(tmp_path):
    before = histogram(30, 0)
    (tmp_path / "reference.json").write_text(json.dumps(reference_content(FIGURES, before)))
    figures, after = read_reference(tmp_path / "reference.json")
    assert figures["mean_margin"] == {"value": 0.5, "low": 0.4, "high": None}
    assert after.drift_to(histogram(30, 1)) == before.drift_to(histogram(30, 1))


# The command


def watched(model, rows, folder, capsys, *words):
    """Exit code and output of monitor."""
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run_script("monitor", model, folder / "log.jsonl", *words), capsys.readouterr().out


@pytest.fixture
def model(tmp_path):
    folder = tiny_reranker_without_cross_encoder(tmp_path / "model")
    with changing(folder) as new:
        (new / "reference.json").write_text(
            json.dumps(reference_content(FIGURES, histogram(100, 0)))
        )
    return folder


def rows_of(scores, names):
    return [
        ROW | {"doc_id": str(name), "ranked": [answer(score)]}
        for score, name in zip(scores, names, strict=True)
    ]


def test_monitor_tells_of_drift_by_its_exit_code(model, tmp_path, capsys):
    rows = rows_of(*documents(60, 5))
    code, said = watched(model, rows, tmp_path, capsys)
    assert code == 0 and said.startswith("600 mentions") and "ALARM" not in said
    assert re.search(r"\nno drift found; a share that changes by \d+\.\d points would be", said)
    for row in rows:
        row["ranked"][0]["model_name"] = "names"
    # Of a share of 1 / 1002, two mentions of one document are enough.
    for lacking in (rows, rows[:2]):
        code, said = watched(model, lacking, tmp_path, capsys)
        assert code == 1 and "ALARM: all mentions lack inputs" in said
    code, said = watched(model, rows_of(*documents(60, 6, shift=1.5)), tmp_path, capsys)
    assert code == 1 and "ALARM" in said
    code, said = watched(model, rows_of(*documents(10, 6, shift=1.5)), tmp_path, capsys)
    assert code == 0 and "test for drift: 10; a test takes 20\n" in said
    code, said = watched(model, ROWS, tmp_path, capsys, "--json")
    assert code == 0 and json.loads(said)["models"] == {"all": 3, "names": 1}
    # Rows of link have no candidates; without a calibrated model they have no tiers.
    rows = rows_of(*documents(60, 5))
    linked = [{key: row[key] for key in row if key != "candidates"} for row in rows]
    assert watched(model, linked, tmp_path, capsys) == watched(model, rows, tmp_path, capsys)
    linked[0]["ranked"] = [answer(0.5, None, accepted=None)]
    with pytest.raises(UserError, match=r"log\.jsonl: answers without tiers"):
        watched(model, linked, tmp_path, capsys)


def test_a_sample_varies_like_its_difference_to_the_reference():
    # Of as many documents as the reference, by the root of two.
    figures = {
        "mean_margin": {"value": 0.5, "low": 0.4, "high": 0.7},
        "x": {"value": 0.5, "low": None},
    }
    found = figures_of_samples(figures, 2**0.5)
    assert found["mean_margin"] == pytest.approx(
        {"value": 0.5, "low": 0.3586, "high": 0.7828}, 1e-3
    )
    assert found["x"] == {"value": 0.5, "low": None}


# Rows to review: a random sample, then the most doubtful


def ranked_row(entity="cold", margin=0.5, document="d1", number="m1", **fields):
    """A row with two candidates, of which the second is ranked first."""
    row = {
        "doc_id": document,
        "mention_id": number,
        "entity": entity,
        "entity_type": ["T047", "T046"],
    }
    row["candidates"] = [
        {"name": "A", "cui": "C1", "own_score": 0.9},
        {"name": "B", "cui": "C2", "own_score": 0.8},
    ]
    about = {"margin": margin, "tier": "medium", "accepted": True}
    row["ranked"] = [{"name": "B", "cui": "C2", "rank": 1, "score": 0.7, **about}]
    row["ranked"] += [
        {"name": "A", "cui": "C1", "rank": 2, "score": 0.2, **about, "margin": -margin}
    ]
    return row | fields


# One id, as users and as runs write it, and a composite.
GOLD = ["C1", [["D1"]], [["D1", "D2"], ["D3"]]]


def entities(rows):
    return [row["entity"] for row in rows]


def test_the_most_doubtful_come_first_and_each_string_once():
    rows = [ranked_row("a", 0.9), ranked_row("b", 0.1), ranked_row("B ", 0.2), ranked_row("c", 0.3)]
    rows.append({"entity": "x", "candidates": [], "ranked": []})
    assert entities(select_for_review(rows, 3, random_share=0.0)) == ["b", "c", "a"]
    assert entities(select_for_review(rows, 9, random_share=0.0)) == ["b", "c", "a", "x"]


def test_a_share_is_drawn_at_random_and_nothing_thins_it():
    rows = [ranked_row("same", 0.99) for _ in range(30)] + [
        ranked_row(f"b{n}", 0.01) for n in range(30)
    ]
    rows = [row | {"doc_id": number} for number, row in enumerate(rows)]
    selected = select_for_review(rows, 60, random_share=1 / 3, seed=1)
    drawn = [row for row in selected if row["is_random_sample"]]
    assert selected[:20] == drawn and 4 <= entities(drawn).count("same") <= 16
    assert len(selected) == 20 + len({row["entity"] for row in rows} - set(entities(drawn)))
    assert entities(selected) == entities(select_for_review(rows, 60, random_share=1 / 3, seed=1))
    assert entities(selected) != entities(select_for_review(rows, 60, random_share=1 / 3, seed=2))


def test_a_queue_holds_rows_of_lists(tmp_path):
    selected = select_for_review([ranked_row()], 1, random_share=1.0)
    write_queue(selected, tmp_path / "queue.jsonl")
    (row,) = map(json.loads, (tmp_path / "queue.jsonl").read_text(encoding="utf-8").splitlines())
    expected = ranked_row(is_random_sample=True, sample_position=1)
    del expected["ranked"]
    assert row == expected


def rewrite(path, answers, delimiter=",", start="\ufeff"):
    """The sheet as a person and a spreadsheet leave it: answers by the text of a mention."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        line["gold_cui"] = answers.get(line["mention"], line["gold_cui"])
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(start)
        writer = csv.DictWriter(file, lines[0].keys(), delimiter=delimiter)
        writer.writeheader()
        writer.writerows([*lines, {}])


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_sheet_has_a_line_for_each_mention_and_its_answers_join_the_lists(tmp_path, delimiter):
    second = ranked_row(
        "naïve", candidates=["A", {"name": "x", "preferred_name": "A", "id": "=C9"}]
    )
    further = [ranked_row(str(gold), cui=gold, number=str(gold)) for gold in GOLD]
    open_row = ranked_row("open", cui="C2", number="m9")
    rows = [ranked_row(source_code="7"), second | {"mention_id": None}, *further, open_row]
    sheet = tmp_path / "sheet.csv"
    lists = write_queue(select_for_review(rows, 9, random_share=0.0), sheet, top=2)
    with sheet.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 6 and not {"score", "own_score", "probability"} & {*lines[0]}
    assert {**lines[0], "doc_id": ""}.items() >= {
        ("mention", "cold"),
        ("source_code", "7"),
        ("gold_cui", ""),
        ("name_1", "A"),
        ("id_2", "C2"),
    }
    assert [lines[1][f"{name}_2"] for name in ("name", "id", "about")] == ["A", "=C9", "x"]
    assert [line["gold_cui"] for line in lines[2:5]] == ["C1", "D1", '[["D1", "D2"], ["D3"]]']
    rewrite(sheet, {"cold": "C2 | C3", "naïve": "", "open": ""}, delimiter)
    (batch,) = read_rows(lists)
    with pytest.warns(UserWarning, match="2 of 6 rows"):
        joined = answered(batch, Answers(read_sheet(sheet)))[0].mappings()
    assert [row["cui"] for row in joined] == [["C2", "C3"], "C1", "D1", GOLD[2]]
    assert [item["own_score"] for item in joined[0]["candidates"]] == [0.9, 0.8]
    assert not any(row["is_random_sample"] for row in joined)


def test_answers_find_their_rows_or_are_refused_with_both_lines(tmp_path):
    def answers(*lines):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.csv"
        path.write_text("\n".join(["mention_id,source_code,mention,gold_cui,left", *lines]))
        return read_sheet(path)

    lines = ["1,a,cold,C1,", ",b,cold,C2,", "3,,CP,C3,of the"]
    found = Answers(answers(*lines))
    rows = [{"mention_id": "1"}, {"sourceCode": "b"}, {"source_code": "c"}, {"document": "a cold"}]
    golds = [found.of({"mention": "cold"} | row) for row in rows]
    assert [answer and answer.gold for answer in golds] == ["C1", "C2", None, None]
    assert found.of({"mention": "CP"}) is None and found.count == 3
    for again in ("1,a,cold,C9,", ",b,cold,C9,"):
        with pytest.raises(UserError, match=r"\d\.csv:5: .* C9, but C\d in .*\.csv:\d"):
            both = Answers(answers(*lines, again))
            both.of({"mention": "cold", "source_code": "b"})
    with pytest.raises(UserError, match=r"\.csv:2: reviewed_on"):
        path = tmp_path / "day.csv"
        path.write_text("mention,gold_cui,reviewed_on\na,C1,1.12.2026")
        list(read_sheet(path))
    with pytest.raises(UserError, match="no row"):
        answered(Rows.of([{"mention": "x"}]), Answers(answers(*lines)))


@pytest.mark.parametrize("existing", ["queue.jsonl", "sheet.csv", "sheet.lists.jsonl"])
def test_a_queue_replaces_no_file(tmp_path, existing):
    (tmp_path / existing).write_text("labelled")
    with pytest.raises(UserError, match=existing):
        write_queue([ranked_row()], tmp_path / existing.replace(".lists.jsonl", ".csv"))
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "labelled"


def test_rows_of_link_become_a_sheet_and_mentions(tmp_path):
    row = {"doc_id": "d", "mention": "cold", "document": "a cold"}
    row["ranked"] = [{"name": "B", "preferred_name": "Bb", "cui": "C2", "semantic_types": ["T047"]}]
    lists = write_queue([row], tmp_path / "sheet.csv")
    (line,) = csv.DictReader((tmp_path / "sheet.csv").read_text().splitlines())
    assert (line["name_1"], line["about_1"]) == ("Bb", "B; Disease or Syndrome")
    (mention,) = map(json.loads, lists.read_text().splitlines())
    assert lists.name == "sheet.mentions.jsonl" and mention["document"] == "a cold"
    assert mention["mention_id"] == line["mention_id"] == "review-1" and "ranked" not in mention


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[" * 100_000,
        json.dumps(ranked_row(entity="")),
        json.dumps(ranked_row())[:-1] + ', "entity": "flu"}',
        json.dumps(
            ranked_row(
                ranked=[
                    {"name": "A", "score": 0.5, "margin": 0.5, "tier": "sure", "accepted": True}
                ]
            )
        ),
        json.dumps(
            ranked_row(
                ranked=[{"name": "A", "score": 7, "margin": 0.5, "tier": "high", "accepted": True}]
            )
        ),
        json.dumps(
            ranked_row(ranked=[{"name": "A", "score": 0.5, "tier": "high", "accepted": True}])
        ),
    ],
)
def test_a_line_that_is_no_ranked_row_is_named(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(ranked_row()) + "\n" + line + "\n")
    with pytest.raises(UserError, match=r"log\.jsonl:2: "):
        list(read_ranked(path))


def test_rows_with_an_error_are_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(
        json.dumps({"entity": "", "error": "is blank"}) + "\n" + json.dumps(ranked_row()) + "\n"
    )
    assert list(read_ranked(path)) == [ranked_row()]


def test_a_row_that_labels_could_not_be_joined_with_is_refused_before(tmp_path):
    row = {**ranked_row(), "doc_id": None}
    for name in ("queue.jsonl", "sheet.csv"):
        with pytest.raises(UserError, match="'cold'.*--each_row_is_a_document"):
            write_queue([row], tmp_path / name)
        lists = write_queue([row], tmp_path / name, each_row_is_a_document=True)
        (batch,) = read_rows(lists or tmp_path / name)
        assert [one["doc_id"] for one in batch.mappings()] == ["cold"]
        with pytest.raises(UserError, match="'m1' of document d1 .* rows 1 and 2"):
            write_queue([ranked_row(), ranked_row("flu")], tmp_path / f"twice_{name}")


def test_a_sheet_is_in_the_order_in_which_one_reads(tmp_path):
    row = ranked_row("cold", left="a", source_code="7", entity_type=None)
    write_queue([row], tmp_path / "notes.csv", top=2)
    columns = (tmp_path / "notes.csv").read_text().splitlines()[0].split(",")
    assert columns[:7] == ["mention", "left", "choice", "name_1", "about_1", "name_2", "about_2"]
    assert columns[7:13] == ["gold_cui", "comment", "reviewer", "reviewed_on", "id_1", "id_2"]
    assert {*columns[13:]} == {"doc_id", "mention_id", "source_code"}
    # A term is its own document, and finds its row without one.
    term = ranked_row("cold")
    del term["doc_id"]
    lists = write_queue([term], tmp_path / "terms.csv", each_row_is_a_document=True)
    with (tmp_path / "terms.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert "doc_id" not in line
    line["choice"] = "1"
    with (tmp_path / "terms.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, line.keys())
        writer.writeheader()
        writer.writerow(line)
    (batch,) = read_rows(lists)
    (joined,) = answered(batch, Answers(read_sheet(tmp_path / "terms.csv")))[0].mappings()
    assert joined["cui"] == line["id_1"]
