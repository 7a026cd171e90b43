import pytest

from umls_reranker.corpora.concepts_and_mentions import RetiredCuis, map_ids
from umls_reranker.corpora.corpus import Mention
from umls_reranker.vocab.concepts import Concept, ConceptTable, concept_table, write_concepts
from umls_reranker.vocab.types import TypeHierarchy


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
