"""Formats of annotated text: the same mentions from each, told apart by content, and your own."""

import gzip

import pytest
from corpus_fixtures import as_bigbio, as_bioc, write_bigbio, write_bioc_json, write_bioc_xml
from data_fixtures import write_pubtator
from toy_corpus import TaggedLines

from umls_reranker.core.errors import Malformed, UserError
from umls_reranker.corpora import formats as corpus_formats
from umls_reranker.corpora.corpus import Mention, join_passages
from umls_reranker.corpora.formats import corpus_files, read_corpus, register


@pytest.fixture
def corpus(tmp_path):
    """The miniature corpus, with one mention that has two types."""
    path = write_pubtator(tmp_path / "corpus.txt")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("\tT047\t", "\tT047,T184\t", 1), encoding="utf-8")
    return path


FORMS = {
    "json": lambda corpus, path: write_bioc_json(path, as_bioc(corpus)),
    "xml": lambda corpus, path: write_bioc_xml(path, as_bioc(corpus)),
    "parquet": lambda corpus, path: write_bigbio(path.with_suffix(".parquet"), as_bigbio(corpus)),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_mentions_in_every_format(corpus, tmp_path, form):
    expected = {}
    report = {}
    mentions = list(read_corpus([corpus], expected, expand_abbreviations=True))
    assert mentions[0].semantic_types == ("T047", "T184") and len(mentions) == 60
    again = read_corpus(
        [FORMS[form](corpus, tmp_path / "again")], report, expand_abbreviations=True
    )
    assert list(again) == mentions
    assert report | {"format": "PubTator"} == expected


def test_files_of_a_folder_are_one_corpus(corpus, tmp_path):
    rows = as_bigbio(corpus)
    (tmp_path / "parts").mkdir()
    for name, part in {"test": rows[:5], "train": rows[5:]}.items():
        write_bigbio(tmp_path / "parts" / f"{name}.parquet", part)
    expected = list(read_corpus([corpus]))
    assert list(read_corpus(corpus_files(tmp_path / "parts"))) == expected
    halves = (
        write_bioc_xml(tmp_path / "a.xml", as_bioc(corpus)[:5]),
        write_bioc_json(tmp_path / "b", as_bioc(corpus)[5:]),
    )
    assert list(read_corpus(halves)) == expected


def test_what_no_reader_knows_is_named_with_the_known_formats(corpus, tmp_path):
    for content in (b"id,text\n1,Cold\n", b'{"graphs": []}', gzip.compress(b"")):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(UserError, match="x .*PubTator .*BioC .*BigBIO "):
            read_corpus([tmp_path / "x"])
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.csv").touch()
    with pytest.raises(UserError, match="a.csv"):
        corpus_files(tmp_path / "folder")
    other = write_bioc_json(tmp_path / "b.json", as_bioc(corpus))
    with pytest.raises(UserError, match="b.json .*corpus.txt"):
        read_corpus([corpus, other])


def test_passages_lie_where_their_offsets_say():
    assert join_passages([(2, "ab"), (4, "c"), (7, ""), (6, "d")]) == "  abc d"
    for passages in ([(0, "ab"), (1, "c")], [(999_999_999, "a")]):
        with pytest.raises(Malformed):
            join_passages(passages)


def test_a_format_of_your_own(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_formats, "CORPUS_READERS", [*corpus_formats.CORPUS_READERS])
    register(TaggedLines())
    lines = [f"{number}\tAgain [cold|C0009443]" for number in range(2, 99)]
    (tmp_path / "x").write_text(
        "\n".join(["1\tA [cold|C0009443] day", *lines, "1\tAgain [cold|C0009443]"])
    )
    report = {}
    mentions = list(read_corpus([tmp_path / "x"], report))
    assert (
        mentions[0] == Mention("1", 2, 6, "cold", "A ", " day", (("C0009443",),), ())
        and len(mentions) == 98
    )
    assert (report["format"], report["repeated_documents"]) == ("tagged lines", 1)
    assert "tagged lines (lines of an id, a tab" in corpus_formats.describe_formats()
