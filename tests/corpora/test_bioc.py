"""BioC: which concept an annotation has, what is malformed, and files that attack or are broken."""

import json

import pytest
from corpus_fixtures import bioc_document, bioc_xml, write_bioc_json

from umls_reranker.core.errors import UserError
from umls_reranker.corpora.corpus import Mention
from umls_reranker.corpora.formats import read_corpus

TEXT = "A cold heart"


def annotation(offset=2, length=4, text="cold", locations=None, **infons):
    infons = infons or {"identifier": "C0009443", "type": "T047"}
    locations = [{"offset": offset, "length": length}] if locations is None else locations
    return {"id": "a", "infons": infons, "text": text, "locations": locations}


def document(*annotations, doc_id="1", **passage):
    return bioc_document(
        doc_id, {"offset": 0, "text": TEXT, "annotations": [*annotations]} | passage
    )


def read(tmp_path, *documents):
    """Mentions and report of the documents and a hundred sound ones."""
    sound = [document(annotation(), doc_id=f"sound {number}") for number in range(100)]
    report = {}
    mentions = read_corpus([write_bioc_json(tmp_path / "c.json", [*documents, *sound])], report)
    return list(mentions)[:-100], report


@pytest.mark.parametrize(
    ("infons", "types"),
    [
        ({"identifier": "UMLS:C0009443", "type": "T047,T184"}, ("T047", "T184")),
        ({"identifier": "MESH:D003139", "UMLS": "C0009443", "sty": "T047"}, ("T047",)),
        (
            {"type": "T047", "concept": "C0000001", "identifier": "MESH:D003139|C0009443;C0000002"},
            ("T047",),
        ),
        ({"identifiers": ["MESH:D003139", "UMLS:C0009443"], "valid": True, "score": None}, ()),
        ({"MESH": "D003139|D010051", "type": "Disease"}, ()),
        ({"identifier": "-", "type": "Disease"}, ()),
    ],
)
def test_the_concept_is_in_the_identifier_or_another_infon(tmp_path, infons, types):
    cuis = (("C0009443",),)
    if "C0000002" in str(infons):
        cuis += (("C0000002",),)
    elif "C0009443" not in str(infons):
        cuis = (("D003139",), ("D010051",)) if "MESH" in infons else ()
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
    ],
)
def test_what_is_malformed_is_left_out_and_named(tmp_path, faulty):
    mentions, report = read(tmp_path, faulty)
    assert not mentions and sum(report["malformed"].values()) == 1
    assert f"c.json: document '{faulty['id']}'" in report["first_malformed"][0]


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
