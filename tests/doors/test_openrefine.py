"""Terms that are reviewed in the real OpenRefine, and come back as answers."""

import csv
import io
import json
import shutil

import httpx
import numpy as np
import openrefine
import pytest
from browser import Page
from openrefine import OpenRefine
from processes import Service, python

from umls_reranker.core.json_files import read_json
from umls_reranker.lists.judgments import EXPRESSION

pytestmark = [
    pytest.mark.extra,
    pytest.mark.skipif(
        not openrefine.is_installed(), reason="needs Debian's packages openrefine and chromium"
    ),
]

TERMS = 400
REVIEWERS = ("Bob", "Ann")
WORDS = [
    "renal",
    "cardiac",
    "hepatic",
    "gastric",
    "dermal",
    "neural",
    "spinal",
    "nasal",
    "ocular",
    "dental",
]
KINDS = [
    "pain",
    "failure",
    "tumour",
    "infection",
    "inflammation",
    "fracture",
    "atrophy",
    "cyst",
    "bleeding",
    "palsy",
]
DEGREES = ["acute", "chronic", "mild", "severe"]
NAMES = [f"{degree} {word} {kind}" for degree in DEGREES for word in WORDS for kind in KINDS]


def table(columns, rows):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def umls_reranker(folder, *words, **options):
    return python("-m", "umls_reranker", *words, cwd=folder, **options).stdout


def calibrated(folder, answers, model):
    """Calibrate on a sheet's answers; gives what is said."""
    words = ("calibrate", "built-in-fast", "--lists", "sheet.lists.jsonl", "--answers", answers)
    words += ("--each_row_is_a_document", "--target_precision", "0.9", "--output", model)
    return umls_reranker(folder, *words)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An index, 400 terms with codes, most of which a concept means, and their sheet."""
    folder = tmp_path_factory.mktemp("openrefine")
    concepts = [(f"X:{number:04d}", name) for number, name in enumerate(NAMES[:-40])]
    (folder / "names.csv").write_text(table(["id", "name"], concepts))
    rng = np.random.default_rng(13)
    rows = []
    for number, name in enumerate(NAMES):
        degree, word, kind = name.split()
        text = f"{kind}, {word}, {degree}"
        if rng.random() < 0.3:
            text = f"{word[:4]} {kind}"
        rows.append([f"LAB-{number:04d}", text, REVIEWERS[number % 2], "2026-03-01"])
    terms = table(["source_code", "mention", "reviewer", "reviewed_on"], rows)
    (folder / "terms.csv").write_text(terms)
    umls_reranker(folder, "index", "names.csv", "made")
    words = ("made", "terms.csv", "sheet.csv", "--each_row_is_a_document")
    umls_reranker(folder, "candidates", *words)
    return folder


@pytest.fixture(scope="module")
def refine(tmp_path_factory):
    with OpenRefine(tmp_path_factory.mktemp("program")) as program:
        yield program


def gold_of(number):
    """The concept that a term means; None: the dictionary has none."""
    return f"X:{number:04d}" if number < len(NAMES) - 40 else None


def review(refine, project, service):
    """Judge all terms but the first two, as somebody who knows them does, one click each; those
    whose concept is not among the candidates by the search. Gives how many of these there were.
    """
    searched = 0
    for number, cell in enumerate(refine.cells(project, "mention")):
        gold = gold_of(number)
        if number < 2:
            continue
        candidates = {item["id"]: item for item in cell.get("c", ())}
        if gold is None:
            refine.judge(project, "mention", number)
        elif gold in candidates:
            refine.judge(project, "mention", number, candidates[gold])
        else:
            searched += 1
            page = {"origin": "http://127.0.0.1:3333"}
            url = f"{service}/suggest/entity"
            found = httpx.get(url, params={"prefix": NAMES[number]}, headers=page).json()
            item = next(item for item in found["result"] if item["id"] == gold)
            refine.judge(project, "mention", number, item)
    return searched


def test_reviewed_terms_come_back(folder, refine):
    options = ("--served_index", folder / "made", "--blind")
    with Service("built-in-fast", *options) as serving:
        service = f"{serving.url}/reconcile"
        project = refine.import_table((folder / "terms.csv").read_text())
        refine.reconcile(project, service, "mention")
        cells = refine.cells(project, "mention")
        assert len(cells) == TERMS and {cell["j"] for cell in cells} == {"none"}
        assert review(refine, project, service) > 0
        refine.add_column(project, "mention", "openrefine", EXPRESSION)
        refine.extend(project, "mention", ["preferred_name"])
        exported = refine.export(project)
    (folder / "export.csv").write_text(exported)
    # Codes, answers and reviewers are kept.
    answered = {}
    for row in csv.DictReader(io.StringIO(exported)):
        number = int(row["source_code"].removeprefix("LAB-"))
        assert row["reviewer"] == REVIEWERS[number % 2]
        answered[number] = row
        if number >= 2 and gold_of(number):
            assert row["preferred name"] == row["mention"] == NAMES[number]
    assert [*answered] == [*range(TERMS)]
    # The same answers in the sheet.
    with (folder / "sheet.csv").open(newline="") as stream:
        sheet = list(csv.DictReader(stream))
    for number, row in enumerate(sheet):
        row["gold_cui"] = gold_of(number) or "CUI-less"
    for row in sheet[:2]:
        row["gold_cui"] = ""
    filled = table([*sheet[0]], [[*row.values()] for row in sheet])
    (folder / "filled.csv").write_text(filled)
    said = [
        calibrated(folder, answers, model)
        for answers, model in (("export.csv", "by_openrefine"), ("filled.csv", "by_sheet"))
    ]
    assert said[0].replace("by_openrefine", "") == said[1].replace("by_sheet", "")
    for name in ("thresholds.json", "calibrator.json"):
        assert read_json(folder / "by_openrefine" / name) == read_json(folder / "by_sheet" / name)
    link = ("link", "made", "terms.csv", "linked.jsonl", "--model", "by_openrefine")
    umls_reranker(folder, *link, "--reviewed", "export.csv")
    rows = [json.loads(line) for line in (folder / "linked.jsonl").read_text().splitlines()]
    assert [row["source_code"] for row in rows] == [f"LAB-{number:04d}" for number in range(TERMS)]
    assert not any("reviewed_id" in row for row in rows[:2])
    for number, row in enumerate(rows[2:], start=2):
        assert row["reviewed_id"] == (gold_of(number) or "CUI-less")
        assert (row["reviewer"], row["reviewed_on"]) == (REVIEWERS[number % 2], "2026-03-01")
    assert [row["mention"] for row in rows] == [row["mention"] for row in sheet]


def test_what_the_tier_matched_is_no_answer_until_somebody_confirms_it(folder, refine):
    model = folder / "by_openrefine"
    with Service(model, "--served_index", folder / "made") as serving:
        service = f"{serving.url}/reconcile"
        project = refine.import_table((folder / "terms.csv").read_text())
        refine.reconcile(project, service, "mention")
        matched = [cell for cell in refine.cells(project, "mention") if cell["j"] == "matched"]
        refine.add_column(project, "mention", "openrefine", EXPRESSION)
        (folder / "matched.csv").write_text(refine.export(project))
        refine.match_best(project, "mention")
        refine.add_column(project, "mention", "confirmed", EXPRESSION)
        confirmed = refine.export(project).replace(",openrefine,", ",before,")
        (folder / "confirmed.csv").write_text(confirmed.replace(",confirmed,", ",openrefine,"))
    assert 50 < len(matched) < TERMS
    link = ("link", "made", "terms.csv", "--model", model, "--overwrite", "--reviewed")
    counts = []
    for name in ("matched.csv", "confirmed.csv"):
        umls_reranker(folder, *link[:3], "out.jsonl", *link[3:], folder / name)
        rows = map(json.loads, (folder / "out.jsonl").read_text().splitlines())
        counts.append(sum("reviewed_id" in row for row in rows))
    assert counts[0] == 0 and counts[1] > 350


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's package chromium")
def test_its_page_shows_searches_and_previews_and_no_other_page_reads(folder, refine, tmp_path):
    options = ("--served_index", folder / "made", "--allow_origin", refine.url)
    with Service("built-in-fast", *options) as serving:
        service = f"{serving.url}/reconcile"
        project = refine.import_table((folder / "terms.csv").read_text())
        refine.reconcile(project, service, "mention")
        address = f"{refine.url}/project?project={project}"
        with Page(tmp_path / "browser", address) as page:
            # As Reconcile, Start reconciling, Add standard service does it.
            page.until("window.ReconciliationManager && document.querySelector('.data-table')")
            page.evaluate(
                "new Promise(done => ReconciliationManager.registerStandardService("
                f"{json.dumps(service)}, done, true))"
            )
            page.go(address)
            page.until("document.querySelectorAll('.data-table-recon-candidate').length > 30")
            page.evaluate("document.querySelector('.data-table-recon-extra a').click()")
            page.until("document.querySelector('.fbs-list .fbs-item-name')")
            found = page.evaluate("document.querySelector('.fbs-list').innerText")
            assert "renal" in found
            code = f"fetch({json.dumps(service)}).then(answer => answer.text(), () => 'refused')"
            assert "batchSize" in page.evaluate(code)
            preview = f"{service}/preview?id=X:0000"
            page.go(preview)
            assert "acute renal pain" in page.evaluate("document.body.innerText")
            # The service's own pages are pages like others.
            page.go(f"{refine.url.replace('127.0.0.1', 'localhost')}/")
            assert page.evaluate(code) == "refused"
