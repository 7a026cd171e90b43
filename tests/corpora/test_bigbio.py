"""BigBIO's schema: which id of an entity counts, what is malformed, and other tables."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_fixtures import write_bigbio

from umls_reranker.core.errors import UserError
from umls_reranker.corpora.corpus import Mention
from umls_reranker.corpora.formats import read_corpus

TEXT = "A cold heart"


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


def read(tmp_path, *rows):
    """Mentions and report of the rows and a hundred sound ones."""
    sound = [row(entity(), doc_id=f"sound {number}") for number in range(100)]
    report = {}
    mentions = list(read_corpus([write_bigbio(tmp_path / "c.parquet", [*rows, *sound])], report))
    return mentions[:-100], report


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


@pytest.mark.parametrize(
    "faulty",
    [
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
    assert f"c.parquet: document '{faulty['document_id']}'" in report["first_malformed"][0]


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
