"""What the demo's page shows and does, without a browser: HTML in which text stays text, choices, figures."""

import json
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_reranker import HIERARCHY, tiny_reranker

from umls_reranker.core.errors import UserError
from umls_reranker.review import demo as demo_module
from umls_reranker.review import demo_recalibration as recalibration
from umls_reranker.review.demo import Demo, act, review_html
from umls_reranker.review.demo_recalibration import recalibrate
from umls_reranker.review.questions import Question
from umls_reranker.review.review_sheet import ReviewSheet

SCRIPT = "<script>alert('x')</script>"


class Page(HTMLParser):
    """Tags, words, and that what opens is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open = [], "", []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data

    def choices(self):
        return [attributes["data-choice"] for tag, attributes in self.tags if tag == "button"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return [str(tiny_reranker(tmp_path_factory.mktemp(f"model-{seed}"), seed=seed)) for seed in (0, 1)]


@pytest.fixture(scope="module")
def demo(models):
    return Demo.open(models[0], against=models[1], device="cpu")


PASTED = f"Common Cold | C0009443 | T047\nCold {SCRIPT} | C0009264"


def test_two_versions_answer_about_the_same_candidates(demo, models):
    page = Page(demo.answer(Question("She caught a cold. A cold is mild.", "cold", ["T047"], PASTED, 21)))
    assert "caught a cold. A cold is mild." in page.words and page.words.count("Common Cold") >= 2
    assert [attributes["aria-label"] for tag, attributes in page.tags if tag == "section"] == models
    before, after = demo.answer(Question("a cold, a cold", "cold", [], PASTED, 10)).split("<mark>cold</mark>")
    assert "a cold, a " in before and "a cold, a " not in after
    # A browser counts the first character as two.
    before, after = demo.answer(Question("\U0001f600 a cold, a cold", "cold", [], PASTED, 13)).split(
        "<mark>cold</mark>"
    )
    assert "a cold, a " in before and "a cold, a " not in after
    # The text has changed since the mention was selected.
    assert "now a <mark>cold</mark>" in demo.answer(Question("now a cold", "cold", [], PASTED, 2))


def test_without_text_or_candidates(demo):
    assert "There are no candidates." in Page(demo.answer(Question("", "cold", [], " "))).words


@pytest.mark.parametrize(
    ("text", "mention", "reason"),
    [
        ("a cold", " ", "select a mention"),
        ("a cold", "flu", "does not contain 'flu'"),
        ("a cold \ud800", "cold", "a lone surrogate"),
        ("", "\udfff", "surrogates not allowed"),
    ],
)
def test_what_cannot_be_asked(demo, text, mention, reason):
    with pytest.raises(ValueError, match=reason):
        demo.answer(Question(text, mention, [], PASTED))


def test_text_is_escaped_everywhere(demo, sheet):
    shown = demo.answer(Question(f"{SCRIPT} {SCRIPT}cold {SCRIPT}", f"{SCRIPT}cold", [], PASTED))
    page = Page(shown + review_html(sheet, HIERARCHY, sheet.position))
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    # Mention, text and name; then reason, text, mention, context, candidate and preferred name.
    assert page.words.count(SCRIPT) >= 10


@pytest.fixture
def sheet(tmp_path):
    candidates = [{"name": f"{SCRIPT}{n}", "cui": f"C000000{n}", "semantic_types": ["T047"]} for n in range(1, 4)]
    candidates[1]["preferred_name"] = SCRIPT
    ranked = [
        {"name": item["name"], "cui": item["cui"], "score": 0.5, "margin": 0.1, "logit": 0.0, "tier": "medium"}
        for item in reversed(candidates)
    ]
    row = {"reason": SCRIPT, "entity": SCRIPT, "left": SCRIPT, "candidates": candidates, "entity_type": "T047"}
    rows = [row | {"ranked": [item | {"accepted": False} for item in ranked], "mention_id": n} for n in range(2)]
    # Plain names, as a service may log them.
    top = {"name": "x", "score": 0.5, "margin": 0.1, "tier": "low", "accepted": False}
    rows.append({"entity": "x", "candidates": ["x"], "ranked": [top]})
    queue = tmp_path / "queue.jsonl"
    queue.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return ReviewSheet(queue, tmp_path / "reviewed.jsonl")


@pytest.mark.parametrize(
    ("position", "choice"),
    [(0, "9"), (0, "-1"), (0, "all"), (0, ""), (9, "0"), (-2, "0"), (1, "0"), (1, "skip"), (0, "²")],
)
def test_a_button_that_is_not_shown_does_nothing(sheet, position, choice):
    act(sheet, position, choice)
    assert sheet.position == 0 and not sheet.chosen and not sheet.can_undo


def test_a_review_by_buttons(sheet):
    page = Page(review_html(sheet, HIERARCHY, sheet.position))
    assert page.choices() == ["none", "skip", "0", "1", "2"]
    assert "0 of 3 reviewed" in page.words and "Disease or Syndrome" in page.words
    assert ("div", {"data-position": "0"}) in page.tags
    act(sheet, 0, "1")
    assert sheet.chosen == {0: "C0000002"}
    assert Page(review_html(sheet, HIERARCHY, sheet.position)).choices()[:3] == ["none", "skip", "undo"]
    act(sheet, 1, "skip")
    assert "1 of 3 reviewed, 1 skipped" in Page(review_html(sheet, HIERARCHY, sheet.position)).words
    assert Page(review_html(sheet, HIERARCHY, sheet.position)).choices()[3:] == ["0"]
    act(sheet, 2, "none")
    act(sheet, 1, "0")
    assert sheet.chosen == {0: "C0000002", 2: None, 1: "C0000003"}
    page = Page(review_html(sheet, HIERARCHY, sheet.position))
    assert "All mentions are reviewed." in page.words and page.choices() == ["undo"]
    act(sheet, -1, "undo")
    assert sheet.position == 1


def test_a_page_is_of_one_mention_whatever_another_page_does_meanwhile(sheet, monkeypatch):
    described = demo_module.describe

    def describe(*values):
        sheet.choose(0, "C0000001")
        return described(*values)

    monkeypatch.setattr(demo_module, "describe", describe)
    page = Page(review_html(sheet, HIERARCHY, sheet.position))
    assert sheet.position == 1 and ("div", {"data-position": "0"}) in page.tags


def test_choices_made_while_it_recalibrates_are_not_compared(demo, sheet, tmp_path, monkeypatch):
    sheet.choose(0, "C0000001")
    rank = demo.reranker.rerank_batch

    def ranked(*columns):
        if sheet.position is not None:
            sheet.choose(sheet.position, None)
        return rank(*columns)

    reranker = SimpleNamespace(rerank_batch=ranked, folder=tmp_path, thresholds=demo.reranker.thresholds)
    monkeypatch.setattr(recalibration.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0))
    monkeypatch.setattr(recalibration.UMLSReranker, "from_pretrained", lambda *_, **__: reranker)
    certified_by = {"attempt": 1, "documents": 7}
    fitted = {"corrections": {"used": 1, "certifying": 0, "left_out": {}}, "certified_by": certified_by}
    fitted = {"fitted_on": fitted}
    monkeypatch.setattr(recalibration, "read_json", lambda _: fitted)
    words = Page(
        recalibrate(SimpleNamespace(reranker=reranker, device=None, lists=None, run=tmp_path / "run"), sheet)
    ).words
    assert "reviewed mentions11" in words and len(sheet.chosen) == 3


def test_the_page_opens_with_what_it_can_rank(demo, models, tmp_path):
    (example,) = demo.examples()
    assert example.mention == "cold"
    assert "Common Cold" in Page(demo.answer(example)).words and not demo.can_recalibrate
    row = {
        "mention": "flu",
        "candidates": [{"name": "Influenza", "cui": "C0021400"}],
        "doc_id": "d1",
        "cui": "C0021400",
    }
    lists = tmp_path / "lists.jsonl"
    lists.write_text(json.dumps(row) + "\n", encoding="utf-8")
    of_lists = Demo.open(models[0], device="cpu", lists=lists)
    assert [question.mention for question in of_lists.examples()] == ["flu"] and of_lists.can_recalibrate
    lists.write_text(json.dumps(row | {"candidates": []}) + "\n", encoding="utf-8")
    assert of_lists.examples() == demo.examples()
    with pytest.raises(UserError, match=r"none\.jsonl does not exist; give the labelled lists"):
        Demo.open(models[0], lists=tmp_path / "none.jsonl")
    (tmp_path / "run" / "model").mkdir(parents=True)
    with pytest.raises(UserError, match="is a run folder, which contains its calibration data; remove --lists"):
        Demo.open(str(tmp_path / "run"), lists=lists)


def test_each_recalibration_on_lists_goes_on_from_the_version_before(demo, sheet, tmp_path, monkeypatch):
    sheet.choose(0, "C0000001")
    model, lists = tmp_path / "my_model", tmp_path / "lists.jsonl"
    commands = []

    def written(folder, certificates):
        folder.mkdir()
        corrections = {"used": 1, "certifying": 0, "left_out": {"without_scores": 2, "without_cui": 0}}
        certified_by = {"attempt": len(certificates), "documents": 0}
        fitted_on = {"lists": {}, "corrections": corrections, "certified_by": certified_by}
        content = {"certificates": certificates, "fitted_on": fitted_on}
        (folder / "calibrator.json").write_text(json.dumps(content), encoding="utf-8")

    def run(command, **_):
        commands.append(command[2:])
        source, new = (Path(command[at]) for at in (2, command.index("--output") + 1))
        before = json.loads((source / "calibrator.json").read_text(encoding="utf-8"))
        written(new, [*before["certificates"], []])
        return SimpleNamespace(returncode=0)

    written(model, [["a"]])
    # Of another model: what it certified says nothing about this one.
    written(tmp_path / "my_model-reviewed-2", [["b"], []])
    reranker = SimpleNamespace(
        rerank_batch=demo.reranker.rerank_batch, folder=model, thresholds=demo.reranker.thresholds
    )
    monkeypatch.setattr(recalibration.subprocess, "run", run)
    monkeypatch.setattr(recalibration.UMLSReranker, "from_pretrained", lambda *_, **__: reranker)
    page = SimpleNamespace(reranker=reranker, models={str(model): reranker}, device=None, lists=lists, run=None)
    said = Page(recalibrate(page, sheet)).words
    assert "1 corrections were used, 0 of them for certificates (drawn at random); left out: 2 without scores." in said
    assert "Certificate 2 of this model is" in said and "my_model-reviewed." in said
    recalibrate(page, sheet)
    names = [(Path(words[0]).name, Path(words[4]).name) for words in commands]
    assert names == [("my_model", "my_model-reviewed"), ("my_model-reviewed", "my_model-reviewed-3")]
    assert commands[0][1:3] == ["--lists", str(lists)] and commands[0][5] == "--calibration_feedback"
