"""Concepts found by words or an id, and mentions that are linked as they are typed."""

import io

import pytest
from trigram_encoder import make_concepts

from umls_reranker import ConceptLinker
from umls_reranker.__main__ import dispatch
from umls_reranker.core.errors import UserError
from umls_reranker.linking.search import id_first, search_concepts, search_lines, table_lines
from umls_reranker.retrieval.deployment import IndexSettings
from umls_reranker.retrieval.lexical_index import FormIndex, LexicalIndex
from umls_reranker.vocab.codes import ConceptCodes

NAMES = {
    "C1": ("T047", ["3-M syndrome", "Yakut dwarfism"]),
    "C2": ("T047", ["3-M syndrome", "gloomy face"]),
    "C3": ("T047", ["asthma"]),
    "C4": ("T184", ["chest pain", "pain of the chest"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    concepts = make_concepts(folder / "concepts", NAMES)
    for name, index in {"lexical": LexicalIndex, "forms": FormIndex}.items():
        (folder / name).mkdir()
        index.build(concepts, folder / name)
    IndexSettings(
        retrievers=["lexical", "forms"], encoder="", index_key="key", candidates_per_mention=3
    ).save(folder)
    return folder


@pytest.fixture(scope="module")
def linker(folder):
    return ConceptLinker.from_pretrained("built-in-fast", folder)


@pytest.fixture
def typed(monkeypatch):
    """Runs a command with lines on stdin."""

    def run(*words, lines=""):
        monkeypatch.setattr("sys.argv", ["umls-reranker", *map(str, words)])
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        return dispatch()

    return run


def test_words_or_an_id_find_concepts(linker):
    assert search_concepts(linker, " chest pains ")[0]["cui"] == "C4"
    found = search_concepts(linker, "C3")
    assert found[0]["cui"] == "C3"
    assert [item["cui"] for item in id_first(linker.concepts, "C3", found)].count("C3") == 1
    for words in (" ", "x" * 5_000):
        with pytest.raises(UserError):
            search_concepts(linker, words)


def test_a_table_has_ids_names_types_and_what_tells_apart(linker):
    found = search_concepts(linker, "3-M syndrome")[:2]
    head, *lines = search_lines(linker.concepts, found, ConceptCodes())
    assert head.split() == ["id", "name", "types", "about"]
    for line in lines:
        assert "3-M syndrome" in line and "T047" in line
        assert ("Yakut" in line) == line.startswith("C1")
        assert ("gloomy" in line) == line.startswith("C2")


def test_columns_are_aligned_cut_and_printable():
    lines = table_lines([("a" * 60, "b", "c" * 60), ("x", "\x1b[1m", "")])
    assert lines[0] == f"{'a' * 45}...  b        {'c' * 60}"
    assert lines[1] == f"x{' ' * 49}\\x1b[1m"


def test_the_command_searches(typed, folder, capsys):
    assert typed("search", folder, "chest", "pains", "--top", "1") == 0
    _, line = capsys.readouterr().out.splitlines()
    assert line.startswith("C4 ")
    with pytest.raises(UserError, match="none/concepts"):
        typed("search", "none", "chest")


def test_what_is_typed_is_linked_line_by_line(typed, folder, capsys):
    options = ["link", folder, "-", "-", "--model", "built-in-fast", "--top", "1"]
    assert typed(*options, lines="chest pain\n\nasthma\n") == 0
    head, first, _, second = capsys.readouterr().out.splitlines()
    # A model that is not calibrated for the index gives no tier.
    assert head.split() == ["score", "id", "name", "types", "about"]
    assert first.split()[1] == "C4" and second.split()[1] == "C3"


def test_a_line_that_cannot_be_linked_leaves_the_others(typed, folder, capsys):
    options = ["link", folder, "-", "-", "--model", "built-in-fast"]
    assert typed(*options, lines="x" * 5_000 + "\nasthma\n") == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("line 1: ") and "C3" in printed.out


@pytest.mark.parametrize(
    "options, lines, named",
    [
        (["--format", "sssom"], "", "--format"),
        (["--reviewed", "x.csv"], "", "--reviewed"),
        ([], 'asthma\n{"mention": "asthma"}\n', "line 2"),
    ],
)
def test_what_needs_a_file_is_refused(typed, folder, options, lines, named):
    with pytest.raises(UserError, match=named):
        typed("link", folder, "-", "-", "--model", "built-in-fast", *options, lines=lines)
