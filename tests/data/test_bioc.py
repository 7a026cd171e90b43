"""BioC: which concept an annotation has, what is malformed, and files that attack or are broken."""

import gzip
import json
import tracemalloc
from contextlib import contextmanager

import pytest
from corpus_fixtures import bioc_xml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umls_reranker.core.errors import UserError
from umls_reranker.data import json_stream
from umls_reranker.data.corpus import Mention
from umls_reranker.data.corpus_formats import read_corpus

TEXT = "A cold heart"


def annotation(offset=2, length=4, text="cold", locations=None, **infons):
    infons = infons or {"identifier": "C0009443", "type": "T047"}
    locations = [{"offset": offset, "length": length}] if locations is None else locations
    return {"id": "a", "infons": infons, "text": text, "locations": locations}


def document(*annotations, doc_id="1", **passage):
    return {"id": doc_id, "passages": [{"offset": 0, "text": TEXT, "annotations": [*annotations]} | passage]}


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@contextmanager
def memory():
    """Gives a function that says how many bytes were allocated at most."""
    tracemalloc.start()
    try:
        yield lambda: peak
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def read(tmp_path, *documents, **options):
    """Mentions and report of the documents, which are the same in JSON and in XML."""
    path = write(tmp_path / "c.json", json.dumps({"documents": documents}))
    found = read_corpus(path, **options)
    return list(found), found.report


@pytest.mark.parametrize(
    ("infons", "cui", "types"),
    [
        ({"identifier": "UMLS:C0009443", "type": "T047,T184"}, "C0009443", ("T047", "T184")),
        ({"identifier": "C0009443", "type": "Disease"}, "C0009443", ()),
        ({"identifier": "MESH:D003139", "UMLS": "C0009443", "sty": "T047"}, "C0009443", ("T047",)),
        (
            {"type": "T047", "concept": "C0000001", "identifier": "MESH:D003139|C0009443;C0000002"},
            "C0009443",
            ("T047",),
        ),
        ({"identifiers": ["MESH:D003139", "UMLS:C0009443"], "valid": True, "score": None}, "C0009443", ()),
    ],
)
def test_the_concept_is_in_the_identifier_or_another_infon(tmp_path, infons, cui, types):
    ((mention,), report) = read(tmp_path, document(annotation(**infons)))
    assert mention == Mention("1", 2, 6, "cold", "A ", " heart", cui, types)
    assert report["further_cuis"] == ("C0000002" in str(infons))


def test_what_has_no_cui_or_several_pieces_is_counted(tmp_path):
    pieces = [{"offset": 2, "length": 4}, {"offset": 7, "length": 5}]
    foreign = annotation(identifier="MESH:D003139"), annotation(99, 4, type="Species"), annotation(identifier="-")
    one = document(*foreign, annotation(locations=pieces, text=TEXT[2:]), annotation())
    mentions, report = read(tmp_path, one)
    assert (len(mentions), report["without_cui"], report["discontinuous"], report["skipped"]) == (1, 3, 1, 0)
    with pytest.raises(UserError, match=r"none of 3 annotations has .*\(the first has 'MESH:D003139'\)"):
        read(tmp_path, document(*foreign))
    assert read(tmp_path, document())[1]["mentions"] == 0


def test_sentences_hold_text_and_annotations(tmp_path):
    sentences = [{"offset": 0, "text": "A cold", "annotations": [annotation()]}, {"offset": 7, "text": "heart"}]
    bare = {"id": 7, "passages": [{"offset": 0, "sentences": sentences}]}
    repeated = document(sentences=sentences, doc_id="8")
    mentions, report = read(tmp_path, bare, repeated)
    assert mentions == [Mention(one, 2, 6, "cold", "A ", " heart", "C0009443", ("T047",)) for one in "78"]
    xml = bioc_xml([]).replace(
        "</collection>",
        "<document><id>7</id><passage><sentence><offset>0</offset><text>A cold</text><annotation id='1'><infon "
        "key='identifier'>C0009443</infon><location offset='2' length='4'/><text>cold</text></annotation></sentence>"
        "<sentence><offset>7</offset><text>heart</text></sentence></passage></document></collection>",
    )
    assert [m.right for m in read_corpus(write(tmp_path / "c.xml", xml))] == [" heart"]


MALFORMED = [
    (
        document(annotation(text="cola")),
        "document '1', annotation 1: offsets do not match the text: 2-6 is 'cold', not",
    ),
    (document(annotation(9, 9)), "document '1', annotation 1: offsets outside the document: 9-18 in 12 characters"),
    (document(annotation(2, 0, "")), "document '1', annotation 1: offsets outside the document: 2-2"),
    (document(annotation(-2, 4)), "document '1', annotation 1: offsets are not integers: '-2'"),
    (document(annotation(2.0, 4)), "document '1', annotation 1: offsets are not integers"),
    (document(annotation(True, 4)), "document '1', annotation 1: offsets are not integers"),
    (document(annotation(10**12, 4)), "document '1', annotation 1: offsets are not integers"),
    (document(annotation(locations=[])), "document '1', annotation 1: annotation without location"),
    (document(annotation(text=None)), "document '1', annotation 1: text is not a string"),
    (document("x"), "document '1', annotation 1: annotation is not an object"),
    (document(annotation(), offset=None), " offsets are not integers"),
    (document(annotation(), offset=10**9), " offsets are not integers"),
    (document(annotation(), offset=99_999_999), " passages far apart"),
    (document(annotation(), text=["A"]), " text is not a string"),
    (document(annotation(), text="\ud800 cold"), " text contains a lone surrogate"),
    (document(annotation(), annotations={}), " annotations is not a list"),
    (document(annotation(), doc_id=""), "document '': document without id"),
    (document(annotation(), doc_id=None), "document '': document without id"),
    (document(annotation(), doc_id=[1]), " id of a document is not a string"),
    ({"id": "1"}, " document without passages: '1'"),
    ({"id": "1", "passages": [[]]}, " passage is not an object"),
    ("a document", " document is not an object"),
]


@pytest.mark.parametrize(("malformed", "what"), MALFORMED)
def test_what_is_malformed_is_named_or_skipped(tmp_path, malformed, what):
    with pytest.raises(UserError) as error:
        read(tmp_path, malformed)
    assert what in str(error.value) and str(error.value).startswith(f"{tmp_path / 'c.json'}:1")
    assert "\n" not in str(error.value)
    mentions, report = read(tmp_path, malformed, document(annotation(), doc_id="2"), on_error="skip")
    assert [mention.doc_id for mention in mentions] == ["2"]
    assert report["skipped"] == 1


def test_a_document_given_twice_and_a_file_without_any(tmp_path):
    with pytest.raises(UserError, match="c.json:1, document '1': duplicate document: '1'"):
        read(tmp_path, document(), document())
    with pytest.raises(
        UserError, match="c.json contains no documents; expected a collection of documents with passages"
    ):
        read(tmp_path)


def test_a_collection_as_pubtator_and_the_pmc_give_it(tmp_path):
    for start, end in (
        ('{"PubTator3": [', "]}"),
        ('[{"source": "PMC", "documents": [', '], "key": "k"}]'),
        ("[", "]"),
    ):
        content = f"\ufeff{start}\n{json.dumps(document(annotation()), indent=1)}{end}\n"
        found = read_corpus(write(tmp_path / "c.json", content))
        assert [mention.text for mention in found] == ["cold"]


BOMB = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
ATTACKS = {
    "bomb": f'<!DOCTYPE collection [<!ENTITY e0 "cold">{BOMB}]>',
    "parameters": '<!DOCTYPE collection [<!ENTITY % a SYSTEM "file:///etc/passwd"> %a;]>',
    "file": '<!DOCTYPE collection [<!ENTITY e11 SYSTEM "file:///etc/passwd">]>',
    "elements": "<!DOCTYPE collection [<!ELEMENT id (#PCDATA)>]>",
    "unknown": '<!DOCTYPE collection SYSTEM "BioC.dtd">',
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_entities_are_refused(tmp_path, attack):
    xml = bioc_xml([document(annotation())], ATTACKS[attack]).replace("A cold heart", "A &e11; heart")
    path = write(tmp_path / "c.xml", xml)
    with (
        memory() as peak,
        pytest.raises(UserError, match="c.xml:1: uses custom XML entities"),
    ):
        list(read_corpus(path, on_error="skip"))
    assert peak() < 4_000_000


def test_references_to_characters_are_text(tmp_path):
    xml = bioc_xml([document(annotation())]).replace("A cold heart", "&#65; cold &lt;art")
    assert [mention.right for mention in read_corpus(write(tmp_path / "c.xml", xml))] == [" <art"]


XML = bioc_xml([document(annotation())])
JSON = json.dumps({"documents": [document(annotation())]})
BROKEN = [
    (XML[:-5], "c:2: not well-formed XML \\(unclosed token\\); download the file again"),
    (XML.replace("</id>", "</i>"), "c:1: not well-formed XML \\(mismatched tag\\)"),
    (XML.replace("UTF-8", "klingon"), "c:1: unreadable XML"),
    (XML.encode().replace(b"cold", b"c\xffld"), "c:1: not well-formed XML \\(not well-formed"),
    (
        XML.replace("</id>", f"</id>{'<passage>' * 50_000}{'</passage>' * 50_000}"),
        "c:1: unreadable XML \\(maximum recursion",
    ),
    (JSON[:-1], "c:1: unreadable JSON"),
    (JSON[:-30], "c:1: unreadable JSON"),
    (f"[{JSON}", "c:1: unreadable JSON \\(unbalanced brackets"),
    (JSON.replace('"cold"', "cold"), "c:1: unreadable JSON \\(Expecting value\\)"),
    (JSON.replace(": [", " [", 1), "c:1: unreadable JSON \\(expected a colon\\)"),
    (f"{JSON}\n\nnone", "c:3: unreadable JSON \\(expected an object\\)"),
    (JSON.replace('"1"', "1" * 5000), "c:1: unreadable JSON \\(Exceeds the limit"),
    (JSON.replace('"1"', "[" * 100_000), "c:1: unreadable JSON"),
    (JSON.encode().replace(b"cold", b"c\xffld"), "c:1: unreadable JSON \\(not UTF-8, byte 0xff\\)"),
    (gzip.compress(JSON.encode() * 9)[:-20], "c: the gzip stream is truncated or corrupt"),
    (gzip.compress(XML.encode() * 9)[:-20], "c: the gzip stream is truncated or corrupt"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN)
def test_broken_files_are_named_even_when_skipping(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as error:
        list(read_corpus(write(tmp_path / "c", content), on_error="skip"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["json", "lines", "xml"])
def test_memory_holds_a_few_documents(tmp_path, kind):
    documents = [document(annotation(), doc_id=str(n), text=TEXT + " and so on" * 500) for n in range(4_000)]
    forms = {
        "json": json.dumps({"documents": documents}),
        "lines": "\n".join(map(json.dumps, documents)),
        "xml": bioc_xml(documents),
    }
    path = write(tmp_path / "c", forms[kind])
    assert path.stat().st_size > 20_000_000
    with memory() as peak:
        assert sum(1 for _ in read_corpus(path)) == 4_000
    assert peak() < 10_000_000


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=12), max_size=6),
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 1]),
    form=st.sampled_from(["documents", "list", "lines"]),
)
def test_objects_are_found_wherever_the_chunks_end(tmp_path, texts, chunk, indent, form):
    objects = [{"id": number, text: [text, -1.5e-3, True, {}]} for number, text in enumerate(texts)]
    dumped = [json.dumps(one, indent=indent, ensure_ascii=number % 2 == 0) for number, one in enumerate(objects)]
    content = {
        "documents": f'{{"key": 12, "documents": [{", ".join(dumped)}], "end": "]"}}',
        "list": f"[{','.join(dumped)}]",
        "lines": "\n".join(dumped) or " ",
    }[form]
    path = write(tmp_path / "c.json", content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK_BYTES", chunk)
        found = list(json_stream.stream_objects(path, ["documents"]))
    assert [one for _, one in found] == objects
    if indent is None:
        assert [line for line, _ in found] == [1 + number * (form == "lines") for number in range(len(objects))]
