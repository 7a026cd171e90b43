"""Formats of annotated text: the same mentions from each, told apart by content, and your own."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_fixtures import (
    as_bigbio,
    as_bioc,
    bioc_document,
    bioc_xml,
    write_bigbio,
    write_bioc_json,
    write_bioc_xml,
)
from data_fixtures import write_pubtator

from umls_reranker.core.errors import Malformed, UserError
from umls_reranker.corpora import formats as corpus_formats
from umls_reranker.corpora.annotated_text import Annotation, Document, Mention
from umls_reranker.corpora.annotation_fields import join_passages
from umls_reranker.corpora.corpus import CorpusReader
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


class TaggedLines(CorpusReader):
    """Annotations without types, written into the text."""

    name = "tagged lines"
    layout = "lines of an id, a tab, and text with [mention|CUI]"

    def recognizes(self, start):
        return b"|C" in start.split(b"\n")[0]

    def documents(self, path, faults):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            doc_id, marked = line.split("\t")
            text = ""
            annotations = []
            for piece in marked.split("]"):
                before, _, mark = piece.partition("[")
                text += before
                if mark:
                    mention, cui = mark.split("|")
                    span = (len(text), len(text) + len(mention))
                    annotations.append((number, Annotation((span,), mention, ((cui,),))))
                    text += mention
            yield Document(number, doc_id, text, annotations)


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


# BioC: which concept an annotation has, and files that attack or are broken


TEXT = "A cold heart"


def annotation(offset=2, length=4, text="cold", locations=None, **infons):
    infons = infons or {"identifier": "C0009443", "type": "T047"}
    locations = [{"offset": offset, "length": length}] if locations is None else locations
    return {"id": "a", "infons": infons, "text": text, "locations": locations}


def document(*annotations, doc_id="1", **passage):
    return bioc_document(
        doc_id, {"offset": 0, "text": TEXT, "annotations": [*annotations]} | passage
    )


def entity(start=2, end=6, text="cold", kind="T047", ids=(("UMLS", "C0009443"),), **keys):
    normalized = [{"db_name": name, "db_id": value} for name, value in ids]
    return {
        "id": "e",
        "type": kind,
        "text": [text],
        "offsets": [[start, end]],
        "normalized": normalized,
    } | keys


def row(*entities, doc_id="1", **passage):
    passages = [{"id": "p", "type": "title", "text": [TEXT], "offsets": [[0, 12]]} | passage]
    return {"id": "0", "document_id": doc_id, "passages": passages, "entities": [*entities]}


# What writes a file of this name, and what makes a sound document of it.
KINDS = {
    "c.json": (write_bioc_json, lambda **options: document(annotation(), **options)),
    "c.parquet": (write_bigbio, lambda **options: row(entity(), **options)),
}


def read(tmp_path, *items):
    """Mentions and report of documents of BioC, or rows of BigBIO, and a hundred sound ones."""
    name = "c.parquet" if "document_id" in items[0] else "c.json"
    write, sound = KINDS[name]
    rest = [sound(doc_id=f"sound {number}") for number in range(100)]
    report = {}
    return list(read_corpus([write(tmp_path / name, [*items, *rest])], report))[:-100], report


COLD = ("C0009443",)


@pytest.mark.parametrize(
    ("infons", "types", "cuis"),
    [
        ({"identifier": "UMLS:C0009443", "type": "T047,T184"}, ("T047", "T184"), (COLD,)),
        ({"identifier": "MESH:D003139", "UMLS": "C0009443", "sty": "T047"}, ("T047",), (COLD,)),
        (
            {"type": "T047", "concept": "C0000001", "identifier": "MESH:D003139|C0009443;C0000002"},
            ("T047",),
            (COLD, ("C0000002",)),
        ),
        ({"identifiers": ["MESH:D003139", "UMLS:C0009443"], "score": None}, (), (COLD,)),
        ({"MESH": "D003139|D010051", "type": "Disease"}, (), (("D003139",), ("D010051",))),
        ({"identifier": "-", "type": "Disease", "valid": True}, (), ()),
    ],
)
def test_the_concept_is_in_the_identifier_or_another_infon(tmp_path, infons, types, cuis):
    (mention,), report = read(tmp_path, document(annotation(**infons)))
    assert mention == Mention("1", 2, 6, "cold", "A ", " heart", cuis, types)
    assert report["composite"] == (len(cuis) > 1)


def test_what_has_no_concept_or_several_pieces_is_counted(tmp_path):
    pieces = [{"offset": 2, "length": 4}, {"offset": 7, "length": 5}]
    foreign = annotation(identifier="MESH:D003139"), annotation(identifier="-")
    one = document(*foreign, annotation(locations=pieces, text=TEXT[2:]), annotation())
    mentions, report = read(tmp_path, one)
    assert [mention.cuis for mention in mentions] == [(("MESH:D003139",),), (), (("C0009443",),)]
    assert (report["without_concept"], report["discontinuous"], report["malformed"]) == (1, 1, {})


def test_sentences_hold_text_and_annotations(tmp_path):
    sentences = [
        {
            "offset": 0,
            "text": "A cold",
            "infons": {},
            "annotations": [annotation()],
            "relations": [],
        },
        {"offset": 7, "text": "heart", "infons": {}, "annotations": [], "relations": []},
    ]
    mentions, _ = read(
        tmp_path, document(text="", sentences=sentences), document(sentences=sentences, doc_id="2")
    )
    assert mentions == [
        Mention(one, 2, 6, "cold", "A ", " heart", (("C0009443",),), ("T047",)) for one in "12"
    ]


@pytest.mark.parametrize(
    "faulty",
    [
        document(annotation(text="cola")),
        document(annotation(9, 9)),
        document(annotation("x", 4)),
        document(annotation(text=None)),
        document(annotation(), offset=99_999_999),
        document(annotation(), doc_id=""),
        row(entity(end=5)),
        row(entity(start=-1)),
        row(entity(offsets=[[2]])),
        row(entity(), offsets=[[0, 1], [2, 3]]),
        row(entity(), doc_id=None),
    ],
)
def test_what_is_malformed_is_left_out_and_named(tmp_path, faulty):
    mentions, report = read(tmp_path, faulty)
    assert not mentions and sum(report["malformed"].values()) == 1
    (path,) = tmp_path.iterdir()
    named = faulty.get("document_id", faulty["id"])
    assert f"{path.name}: document '{named}'" in report["first_malformed"][0]


BOMB = '<!DOCTYPE collection [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
FILE = '<!DOCTYPE collection [<!ENTITY b SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("doctype", [BOMB, FILE])
def test_entities_are_refused(tmp_path, doctype, encoding):
    xml = bioc_xml([document()], doctype).replace("cold", "&b;").replace("UTF-8", encoding)
    (tmp_path / "c.xml").write_bytes(xml.encode(encoding))
    with pytest.raises(UserError, match="c.xml"):
        list(read_corpus([tmp_path / "c.xml"]))


@pytest.mark.parametrize(
    "content",
    [
        bioc_xml([document()])[:-20],
        "<collection>\u00e9</collection>".encode("latin-1"),
        '{"documents": [',
        json.dumps({"documents": [{"id": "1"}]}),
    ],
)
def test_broken_files_are_named(tmp_path, content):
    (tmp_path / "c").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=f"{tmp_path / 'c'} "):
        list(read_corpus([tmp_path / "c"]))


# BigBIO's schema: which id of an entity counts, and other tables


def test_ids_of_the_umls_go_before_others(tmp_path):
    several = entity(
        ids=[
            ("MESH", "D003139"),
            ("NCI", "C0000009"),
            ("UMLS", "C0009443"),
            ("umls", "UMLS:C0000001"),
        ]
    )
    bare = entity(7, 12, "heart", "Organ", [(None, "C0018787")])
    prefixed = entity(0, 1, "A", "T001,T002", [("Metathesaurus", "UMLS:C0000002")])
    foreign = entity(ids=[("NCI", "C0000009")], kind="Finding"), entity(ids=[], kind="T033")
    mentions, report = read(tmp_path, row(several, bare, prefixed, *foreign))
    assert mentions == [
        Mention("1", 2, 6, "cold", "A ", " heart", (("C0009443",), ("C0000001",)), ("T047",)),
        Mention("1", 7, 12, "heart", "A cold ", "", (("C0018787",),), ()),
        Mention("1", 0, 1, "A", "", " cold heart", (("C0000002",),), ("T001", "T002")),
        Mention("1", 2, 6, "cold", "A ", " heart", (("C0000009",),), ()),
        Mention("1", 2, 6, "cold", "A ", " heart", (), ("T033",)),
    ]
    assert (report["composite"], report["without_concept"], report["format"]) == (1, 1, "BigBIO")


def test_an_entity_given_once_per_type_is_one_mention(tmp_path):
    other = entity(ids=[("UMLS", "C0000001")])
    mentions, _ = read(tmp_path, row(entity(), entity(kind="T184"), other, entity(kind="T047")))
    assert [(m.cuis, m.semantic_types) for m in mentions] == [
        ((("C0009443",),), ("T047", "T184")),
        ((("C0000001",),), ("T047",)),
    ]


def test_an_entity_in_pieces_is_left_out_and_text_may_have_several(tmp_path):
    pieces = entity() | {"text": ["cold", "art"], "offsets": [[2, 6], [9, 12]]}
    passage = {"text": ["A cold", "heart"], "offsets": [[0, 6], [7, 12]]}
    mentions, report = read(tmp_path, row(pieces, entity(), **passage))
    assert [mention.right for mention in mentions] == [" heart"]
    assert report["discontinuous"] == 1


def test_tables_of_another_schema_and_broken_files_are_named(tmp_path):
    pq.write_table(pa.table({"document_id": ["1"], "text": ["a"]}), tmp_path / "lacking")
    pq.write_table(
        pa.table({"document_id": ["1"], "passages": ["a"], "entities": ["b"]}), tmp_path / "texts"
    )
    path = write_bigbio(tmp_path / "c.parquet", [row(entity())])
    (tmp_path / "cut").write_bytes(path.read_bytes()[:-20])
    for name in ("lacking", "texts", "cut"):
        with pytest.raises(UserError, match=name):
            list(read_corpus([tmp_path / name]))
