"""The command `search`, and `link` with - for its output: for somebody who types."""

import csv
import io
import sys

import pytest
from list_model import run_script

from umls_reranker.core.errors import UserError

# Two concepts of one name, which another name tells apart.
CONCEPTS = [
    ("X:1", "cold", "common cold [nose]"),
    ("X:2", "cold", "low temperature"),
    ("X:3", "heart attack", "myocardial infarction"),
]


def write_names(path):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["id", "name"])
    for concept_id, *names in CONCEPTS:
        writer.writerows([concept_id, name] for name in names)
    path.write_text(text.getvalue())


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs a command in a folder with the index ``made``; gives exit code and printed lines."""
    monkeypatch.chdir(tmp_path)

    def run(name, *words, typed=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        code = run_script(name, *words)
        return code, capsys.readouterr().out.splitlines()

    write_names(tmp_path / "names.csv")
    run("index", "names.csv", "made")
    return run


def test_search_prints_what_tells_concepts_of_one_name_apart(command):
    code, (header, *lines) = command("search", "made", "cold", "--top", "2")
    assert code == 0
    assert header.split() == ["id", "name", "about"]
    assert sorted(line.split(maxsplit=2) for line in lines) == [
        ["X:1", "cold", "also common cold [nose]"],
        ["X:2", "cold", "also low temperature"],
    ]


def test_the_concept_with_the_id_comes_first(command):
    code, lines = command("search", "made", "X:3")
    assert code == 0
    assert lines[1].startswith("X:3 ")


def test_words_need_no_quotes(command):
    code, lines = command("search", "made", "low", "temperature", "--top", "1")
    assert code == 0
    assert lines[1].startswith("X:2 ")


def test_nothing_found_is_said(command):
    assert command("search", "made", "qqqq")[0] == 1


@pytest.mark.filterwarnings("ignore:no tiers:UserWarning")
def test_a_typed_line_is_a_mention(command):
    words = ("link", "made", "-", "-", "--model", "built-in-fast")
    code, lines = command(*words, "--top", "1", typed="myocardial infarction\n\nlow temperature\n")
    assert code == 0
    assert [line.split()[-3:] for line in lines[1::2]] == [
        ["X:3", "heart", "attack"],
        ["tier", "X:2", "cold"],
    ]


@pytest.mark.filterwarnings("ignore:no tiers:UserWarning")
@pytest.mark.parametrize(
    ("words", "typed", "named"),
    [
        (("-", "-"), 'a\n{"mention": "cold"}\n', "line 2"),
        (("names.csv", "-"), "", "link INDEX - -"),
        (("-", "-", "--format", "sssom"), "", "--format"),
        (("-", "-", "--overwrite"), "", "--overwrite"),
    ],
)
def test_what_is_no_typed_mention_is_refused(command, words, typed, named):
    with pytest.raises(UserError, match=named):
        command("link", "made", *words, "--model", "built-in-fast", typed=typed)


@pytest.mark.filterwarnings("ignore:no tiers:UserWarning")
def test_a_line_that_is_too_long_fails_alone(command):
    words = ("link", "made", "-", "-", "--model", "built-in-fast")
    code, lines = command(*words, typed=f"{'x' * 100_000}\ncold\n")
    assert code == 1
    assert any("X:1" in line for line in lines)
