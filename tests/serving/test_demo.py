"""The page to try a model."""

import importlib
import json
import sys
from types import ModuleType

import pytest
from tiny_reranker import tiny_reranker

from umls_reranker import UMLSReranker


@pytest.fixture(scope="module")
def demo():
    """The module, with or without Gradio."""
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("gradio") is None:
            patch.setitem(sys.modules, "gradio", ModuleType("gradio"))
        yield importlib.import_module("umls_reranker.serving.demo")
        patch.delitem(sys.modules, "umls_reranker.serving.demo")


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    return UMLSReranker.from_pretrained(
        tiny_reranker(tmp_path_factory.mktemp("model")), device="cpu"
    )


def test_a_question_is_a_row_or_lines(demo):
    row = {"mention": "cold", "candidates": ["Common Cold"], "left": None}
    assert demo.read_question(json.dumps(row)) == row | {"entity": "cold"}
    assert demo.read_question("cold\n\n Common Cold | C0009443\nCold") == {
        "entity": "cold",
        "candidates": [{"name": "Common Cold", "cui": "C0009443"}, {"name": "Cold", "cui": None}],
    }


def test_candidates_are_shown_ranked(demo, reranker):
    for example in demo.EXAMPLES:
        table = demo.ranked_table(reranker, example)
        expected = reranker.rerank(**demo.read_question(example))
        assert [row[:3] for row in table] == [[item.rank, item.name, item.cui] for item in expected]
        assert [row[3] for row in table] == [round(item.score, 3) for item in expected]
        assert [row[5:] for row in table] == [[item.tier, item.accepted] for item in expected]


@pytest.mark.parametrize("text", ["", "{", "{}", '{"entity": "cold", "candidates": 7}'])
def test_what_is_no_question_is_refused(demo, reranker, text):
    with pytest.raises((TypeError, ValueError)):
        demo.ranked_table(reranker, text)


@pytest.mark.extra
def test_the_page_shows_its_first_example_ranked(demo, reranker):
    pytest.importorskip("gradio")
    page = demo.build_page(reranker, "tiny")
    assert "tiny" in page.title
    loaded = [
        block for block in page.fns.values() if block.targets and block.targets[0][1] == "load"
    ]
    assert loaded[0].fn() == demo.ranked_table(reranker, demo.EXAMPLES[0])
