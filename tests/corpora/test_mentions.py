from collections import Counter
from dataclasses import astuple

import pytest
from data_fixtures import DEV_PMIDS, TRAIN_PMIDS, write_pubtator

from umls_reranker.core.errors import UserError
from umls_reranker.corpora.concepts_and_mentions import (
    MENTION_FEATURES,
    RetiredCuis,
    assign_split,
    hold_out_synonyms,
    map_ids,
    with_concepts_of_mentions,
    write_mentions,
)
from umls_reranker.corpora.corpus import Mention
from umls_reranker.corpora.formats import read_corpus
from umls_reranker.pipeline.stages import RunFolder
from umls_reranker.vocab.concepts import (
    Concept,
    ConceptTable,
    concept_table,
    iter_concepts,
    write_concepts,
)
from umls_reranker.vocab.types import TypeHierarchy

SHARES = {"dev": 0.2, "calibration": 0.4, "test": 0.4}
FROZEN = ["test", "test", "calibration", "test", "calibration", "calibration"]
FROZEN += ["dev", "calibration", "test", "calibration", "dev", "dev"]


def split_of(doc_id):
    return "train" if doc_id in TRAIN_PMIDS else assign_split(doc_id, SHARES, 13)


def test_a_split_depends_on_nothing_but_id_shares_and_seed():
    # Written out, so that a change of the hash, which would reshuffle everyone's splits, is
    # noticed.
    assert [assign_split(pmid, SHARES, 13) for pmid in DEV_PMIDS] == FROZEN
    assert [assign_split(pmid, SHARES, 14) for pmid in DEV_PMIDS] != FROZEN


def test_splits_have_their_shares():
    ids = [str(number) for number in range(20_000)]
    counts = Counter(assign_split(doc_id, SHARES, 1) for doc_id in ids)
    for split, share in SHARES.items():
        assert counts[split] / len(ids) == pytest.approx(share, abs=0.015)
    assert {assign_split(doc_id, {"dev": 0.0, "test": 3.0}, 1) for doc_id in ids} == {"test"}


def test_mentions_are_written_by_split(tmp_path):
    corpus = list(read_corpus([write_pubtator(tmp_path / "c.txt")]))
    split_mentions = ((split_of(mention.doc_id), mention) for mention in corpus)
    counts = write_mentions(split_mentions, tmp_path / "mentions", batch_rows=4)
    splits = RunFolder(tmp_path).splits("mentions")
    assert {name: len(split) for name, split in splits.items()} == counts
    assert sum(counts.values()) == 60
    documents = [set(split["doc_id"]) for split in splits.values()]
    assert sum(map(len, documents)) == len(set.union(*documents)) == 20
    for name, split in splits.items():
        assert split.features == MENTION_FEATURES
        assert split["mention_id"][:] == list(range(len(split)))
        mentions = [mention for mention in corpus if split_of(mention.doc_id) == name]
        expected = [[*astuple(m)[:-2], [*map(list, m.cuis)], [*m.semantic_types]] for m in mentions]
        assert [[*row.values()][1:] for row in split] == expected


def test_an_empty_split_is_refused(tmp_path):
    mention = Mention("1", 0, 1, "x", "", "", (("C0000001",),), ())
    with pytest.raises(UserError, match="the split 'dev' is empty"):
        write_mentions([("train", mention)], tmp_path)
    assert not list(tmp_path.iterdir())


def concept(number, *synonyms, name="name"):
    return Concept(f"C{number:07d}", name, synonyms, ("T1",), "")


FOUR = {"train": 0.6, "dev": 0.1, "calibration": 0.1, "test": 0.2}


def test_a_held_out_synonym_leaves_its_concept_only():
    concepts = [concept(1, "alpha"), concept(2), concept(3, "alpha", "beta", "gamma")]
    remaining, mentions = hold_out_synonyms(concepts, shares=FOUR, seed=13)
    assert [c.cui for c in remaining] == [c.cui for c in concepts]
    assert [m.cuis for _, m in mentions] == [(("C0000001",),), (("C0000003",),)]
    for (split, mention), before, after in zip(
        mentions, concepts[::2], remaining[::2], strict=True
    ):
        assert [*after.synonyms] == [name for name in before.synonyms if name != mention.text]
        assert len(after.synonyms) == len(before.synonyms) - 1
        assert mention == Mention(
            before.cui, 0, len(mention.text), mention.text, "", "", ((before.cui,),), ("T1",)
        )
        assert split == assign_split(before.cui, FOUR, 13)
    assert remaining[1] == concepts[1]


def test_a_synonym_that_its_concept_says_twice_is_not_held_out():
    concepts = [concept(1, "NAME"), concept(2, "a-b", "A b"), concept(3, "a-b", "A b", "c")]
    remaining, mentions = hold_out_synonyms(concepts, shares=FOUR, seed=13)
    assert remaining[:2] == concepts[:2]
    assert [(m.cuis, m.text) for _, m in mentions] == [((("C0000003",),), "c")]


def test_held_out_synonyms_are_drawn_by_the_seed():
    concepts = [concept(number, *(f"s{place}" for place in range(5))) for number in range(400)]
    drawn = [hold_out_synonyms(concepts, shares=FOUR, seed=seed)[1] for seed in (13, 13, 14)]
    assert drawn[0] == drawn[1] != drawn[2]
    counts = Counter(mention.text for _, mention in drawn[0])
    assert sorted(counts) == ["s0", "s1", "s2", "s3", "s4"] and min(counts.values()) > 50


def test_mentions_of_two_documents_bring_their_concept_into_the_dictionary():
    known = Concept("D1", "cold", alternates=("OMIM:1",))
    rows = [
        ("train", "d1", "Toxic heart", "D2"),
        ("calibration", "d2", "toxic heart", "D2"),
        ("dev", "d2", "cardiotoxicity", "D2"),
        ("dev", "d3", "cardiotoxicity", "D2"),
        # Twice in one document, once in test, and concepts that the dictionary has.
        *[
            ("train", "d1", "rash", "D3"),
            ("train", "d1", "rash", "D3"),
            ("test", "d9", "rash", "D3"),
        ],
        *[
            ("train", "d1", "chill", "MESH:D1"),
            ("train", "d2", "chill", "MESH:D1"),
            ("dev", "d2", "chill", "OMIM:1"),
        ],
    ]
    mentions = [
        (split, Mention(doc, 0, 1, text, "", "", ((cui,),), ())) for split, doc, text, cui in rows
    ]
    table = with_concepts_of_mentions(concept_table([known]), mentions)
    assert list(iter_concepts(table)) == [known, Concept("D2", "toxic heart", ("cardiotoxicity",))]


def cui(number):
    return f"C{number:07d}"


def line(one, kind, two=None, release="2018AA"):
    return f"{cui(one)}|{release}|{kind}|||{cui(two) if two else ''}|{'Y' if two else ''}|"


def write(path, *lines):
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


@pytest.fixture(scope="module")
def concepts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("concepts")
    write_concepts(
        concept_table(Concept(cui(number), "name") for number in (1, 2, 3)),
        TypeHierarchy([]),
        folder,
    )
    return ConceptTable.load(folder)


LINES = [
    line(50, "SY", 51),  # over two releases, the later one first in the file
    line(11, "SY", 1),
    line(12, "SY", 50),
    line(51, "SY", 2),
    line(13, "SY", 14),  # a circle
    line(14, "SY", 13),
    line(15, "DEL"),
    line(16, "RB", 1),
    line(18, "SY", 99),
    line(19, "SY", 98),  # split: the one in the dictionary is taken, then the first
    line(19, "SY", 3),
    line(19, "SY", 2),
    line(20, "SY"),  # no successor given
    line(21, "SY", 21),
]


def test_mergers_are_followed_to_the_dictionary(tmp_path, concepts):
    retired = RetiredCuis.read(write(tmp_path / "MRCUI.RRF", *LINES))
    ends = {11: 1, 12: 2, 19: 3} | dict.fromkeys((13, 15, 16, 18, 20, 21, 96))
    assert {number: retired.successor(cui(number), concepts) for number in ends} == {
        number: successor and cui(successor) for number, successor in ends.items()
    }


def mention(number, place=0):
    return Mention("1", place, place + 1, "x", "", "", ((cui(number),),), ("T047",))


def test_gold_cuis_are_replaced(tmp_path, concepts):
    retired = RetiredCuis.read(write(tmp_path / "MRCUI.RRF", *LINES, line(1, "SY", 2)))
    numbers = [("train", 1), ("train", 11), ("dev", 12), ("dev", 15), ("test", 11), ("test", 96)]
    mapped = list(
        map_ids([(split, mention(number)) for split, number in numbers], concepts, retired)
    )
    # A CUI of the dictionary stays, whatever MRCUI says about it.
    assert mapped == [
        (split, mention({11: 1, 12: 2}.get(number, number))) for split, number in numbers
    ]


def test_ids_are_found_with_and_without_prefixes(tmp_path):
    known = Concept("D003110", "a"), Concept("MESH:D001943", "b"), Concept("C562477", "c")
    write_concepts(concept_table(known), TypeHierarchy([]), tmp_path)
    golds = [
        (("MESH:D003110",),),
        (("D001943",), ("OMIM:562477",)),
        (("C562477",),),
        (("c562477", "C562477"),),
        (),
    ]
    mentions = [("train", Mention("1", 0, 1, "x", "", "", gold, ())) for gold in golds]
    report = {}
    mapped = [one.cuis for _, one in map_ids(mentions, ConceptTable.load(tmp_path), report=report)]
    assert mapped == [(("D003110",),), (("MESH:D001943",), ("OMIM:562477",)), *golds[2:]]
    assert report == {"with_or_without_prefix": 2}
