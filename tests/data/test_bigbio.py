"""BigBIO's schema: which id of an entity counts, what is malformed, and tables that are something else."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_fixtures import write_bigbio

from umls_reranker.core.errors import UserError
from umls_reranker.data.corpus import Mention
from umls_reranker.data.corpus_formats import read_corpus

TEXT = "A cold heart"


def entity(start=2, end=6, text="cold", kind="T047", ids=(("UMLS", "C0009443"),), **keys):
    normalized = [{"db_name": name, "db_id": value} for name, value in ids]
    return {"id": "e", "type": kind, "text": [text], "offsets": [[start, end]], "normalized": normalized} | keys


def row(*entities, doc_id="1", **passage):
    passages = [{"id": "p", "type": "title", "text": [TEXT], "offsets": [[0, 12]]} | passage]
    return {"id": "0", "document_id": doc_id, "passages": passages, "entities": [*entities]}


def read(tmp_path, *rows, **options):
    found = read_corpus(write_bigbio(tmp_path / "c.parquet", rows), **options)
    return list(found), found.report


def test_the_first_id_of_umls_counts(tmp_path):
    several = entity(ids=[("MESH", "D003139"), ("NCI", "C0000009"), ("UMLS", "C0009443"), ("umls", "UMLS:C0000001")])
    bare = entity(7, 12, "heart", "Organ", [(None, "C0018787")])
    prefixed = entity(0, 1, "A", "T001,T002", [("Metathesaurus", "UMLS:C0000002")])
    foreign = entity(ids=[("NCI", "C0000009")], kind="Finding"), entity(ids=[], kind="T033")
    mentions, report = read(tmp_path, row(several, bare, prefixed, *foreign))
    assert mentions == [
        Mention("1", 2, 6, "cold", "A ", " heart", "C0009443", ("T047",)),
        Mention("1", 7, 12, "heart", "A cold ", "", "C0018787", ()),
        Mention("1", 0, 1, "A", "", " cold heart", "C0000002", ("T001", "T002")),
    ]
    assert (report["further_cuis"], report["without_cui"], report["format"]) == (1, 2, "BigBIO")
    with pytest.raises(UserError, match=r"none of 1 annotations has a UMLS CUI.* \(the first has 'NCI:C0000009'\)"):
        read(tmp_path, row(foreign[0]))


def test_an_entity_given_once_per_type_is_one_mention(tmp_path):
    other = entity(ids=[("UMLS", "C0000001")])
    mentions, _ = read(tmp_path, row(entity(), entity(kind="T184"), other, entity(kind="T047")))
    assert [(m.cui, m.semantic_types) for m in mentions] == [("C0009443", ("T047", "T184")), ("C0000001", ("T047",))]


def test_an_entity_in_pieces_is_left_out_and_text_may_have_several(tmp_path):
    pieces = entity(text=["cold", "art"], offsets=[[2, 6], [9, 12]]) | {"text": ["cold", "art"]}
    passage = {"text": ["A cold", "heart"], "offsets": [[0, 6], [7, 12]]}
    mentions, report = read(tmp_path, row(pieces, entity(), **passage))
    assert [mention.right for mention in mentions] == [" heart"]
    assert report["discontinuous"] == 1


MALFORMED = [
    (row(entity(end=5)), "row 1, document '1', entity 1: offsets do not match the text: 2-5 is 'col', not 'cold'"),
    (row(entity(start=-1)), "row 1, document '1', entity 1: offsets are not integers: '-1'"),
    (row(entity(end=99)), "row 1, document '1', entity 1: offsets outside the document: 2-99 in 12 characters"),
    (row(entity(offsets=[[2]])), "row 1, document '1', entity 1: offsets are not pairs of integers: '[2]'"),
    (row(entity(offsets=[])), "row 1, document '1', entity 1: numbers of texts and offsets differ: 1 and 0"),
    (row(entity(), offsets=[[0, 1], [2, 3]]), "row 1: numbers of texts and offsets differ: 1 and 2"),
    (row(entity(), text=[None]), "row 1: text is not a string"),
    (row(entity(), doc_id=None), "row 1, document '': document without id"),
]


@pytest.mark.parametrize(("malformed", "what"), MALFORMED)
def test_what_is_malformed_is_named_or_skipped(tmp_path, malformed, what):
    with pytest.raises(UserError) as error:
        read(tmp_path, malformed, row(entity(), doc_id="2"))
    assert str(error.value).startswith(f"{tmp_path / 'c.parquet'}:{what}") and "\n" not in str(error.value)
    mentions, report = read(tmp_path, malformed, row(entity(), doc_id="2"), on_error="skip")
    assert [mention.doc_id for mention in mentions] == ["2"]
    assert report["skipped"] == 1


def test_documents_may_have_numbers_for_ids_and_be_many(tmp_path):
    rows = [row(entity(), doc_id=number) for number in range(200)]
    assert [mention.doc_id for mention in read(tmp_path, *rows)[0]] == [*map(str, range(200))]


def test_tables_of_another_schema_and_broken_files_are_named(tmp_path):
    pq.write_table(pa.table({"document_id": ["1"], "text": ["a"]}), tmp_path / "x")
    with pytest.raises(UserError, match="x lacks the columns passages, entities of .* it has document_id, text$"):
        list(read_corpus(tmp_path / "x"))
    pq.write_table(pa.table({"document_id": ["1"], "passages": ["a"], "entities": ["b"]}), tmp_path / "x")
    with pytest.raises(UserError, match="x:row 1: passages is not a list"):
        list(read_corpus(tmp_path / "x"))
    with pytest.raises(UserError, match="x contains no documents; expected Parquet, or a dataset saved to disk"):
        list(read_corpus(tmp_path / "x", on_error="skip"))
    path = write_bigbio(tmp_path / "c.parquet", [row(entity())])
    for name, content in {"cut": path.read_bytes()[:-20], "arrow": b"\xff\xff\xff\xff\x10\0\0\0junk"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} cannot be read .*; download it again"):
            list(read_corpus(tmp_path / name))
