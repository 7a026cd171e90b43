import gzip
from collections import Counter
from dataclasses import asdict, astuple

import pytest
from data_fixtures import DEV_PMIDS, TRAIN_PMIDS, write_pubtator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umls_reranker.core.errors import UserError
from umls_reranker.corpora.abbreviations import find_abbreviations
from umls_reranker.corpora.annotated_text import Mention
from umls_reranker.corpora.concept_ids import RetiredCuis, map_ids, with_concepts_of_mentions
from umls_reranker.corpora.corpus import CorpusCounts
from umls_reranker.corpora.document_ids import read_pmids
from umls_reranker.corpora.formats import corpus_files, read_corpus, read_document_ids
from umls_reranker.corpora.mention_files import (
    MENTION_FEATURES,
    assign_split,
    hold_out_synonyms,
    write_mentions,
)
from umls_reranker.corpora.pubtator import PubTator
from umls_reranker.corpora.surrounding_text import text_around
from umls_reranker.pipeline.run_folder import RunFolder
from umls_reranker.vocab.concept_folder import write_concepts
from umls_reranker.vocab.concept_table import ConceptTable
from umls_reranker.vocab.concepts import Concept, concept_table, iter_concepts
from umls_reranker.vocab.types import TypeHierarchy

HEAD = "1|t|Cold heart\n1|a|The cold.\n"
FIRST = "1\t0\t4\tCold\tT047\tUMLS:C9000004\n"
SECOND = "1\t15\t19\tcold\tT047,T184\tC9000004\n"
SOUND = "".join(
    f"{n}|t|Cold heart\n{n}|a|The cold.\n{n}\t0\t4\tCold\tT047\tC9000004\n\n"
    for n in range(1_000, 1_100)
)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path, **options):
    """Mentions and report."""
    report = {}
    return list(PubTator().read([path], report, **options)), report


def test_reads_both_styles_of_annotation(tmp_path):
    mentions, _ = read(write(tmp_path / "c.txt", HEAD + FIRST + SECOND))
    assert mentions == [
        Mention("1", 0, 4, "Cold", "", " heart The cold.", (("C9000004",),), ("T047",)),
        Mention("1", 15, 19, "cold", "Cold heart The ", ".", (("C9000004",),), ("T047", "T184")),
    ]


def test_reads_the_whole_corpus_plain_and_gzip(tmp_path):
    plain = write_pubtator(tmp_path / "corpus.txt")
    mentions, report = read(plain)
    no_faults = {"format": "PubTator", "malformed": {}, "first_malformed": []}
    assert report == asdict(CorpusCounts()) | no_faults | {"documents": 20, "mentions": 60}
    packed = write(tmp_path / "corpus.txt.gz", gzip.compress(plain.read_bytes()))
    assert read(packed)[0] == mentions
    assert [m.semantic_types for m in mentions if m.text == "moon dust"] == [("UnknownType",)]


@pytest.mark.parametrize(
    ("size", "left", "right"),
    [
        (0, "", ""),
        (2, "", ""),
        (3, "cd ", " ef"),
        (5, "cd ", " ef"),
        (6, "ab cd ", " ef gh"),
        (9, "ab cd ", " ef gh"),
    ],
)
def test_context_has_no_half_words_at_its_outer_ends(size, left, right):
    assert text_around("ab cd xyz ef gh", 6, 9, size) == (left, right)


MALFORMED = [
    (HEAD + "1\t0\t4\tCold\tT047\n", 3, "expected 6 or 7 tab-separated fields, found 5"),
    (HEAD + FIRST[:-1] + "\tmore\tmore\n", 3, "expected 6 or 7 tab-separated fields, found 8"),
    (HEAD + "2\t0\t4\tCold\tT047\tC9000004\n", 3, "annotation of another document: '2' inside '1'"),
    (
        HEAD + "1\t1\t5\tCold\tT047\tC9000004\n",
        3,
        "offsets do not match the text: 1-5 is 'old ', not 'Cold'",
    ),
    (
        HEAD + "1\t0\t99\tCold\tT047\tC9000004\n",
        3,
        "offsets outside the document: 0-99 in 20 characters",
    ),
    (HEAD + "1\t4\t4\t\tT047\tC9000004\n", 3, "offsets outside the document: 4-4"),
    (
        f"1|t|{'a' * 1_001}\n1|a|a\n1\t0\t1001\t{'a' * 1_001}\tT047\tC9000004\n",
        3,
        "mention too long: 0-1001 has 1,001 characters",
    ),
    (HEAD + "1\t0\t" + "9" * 5000 + "\tCold\tT047\tC9000004\n", 3, "offsets are not integers"),
    (HEAD + "1\t0\t4\tCold\tT047,\tC9000004\n", 3, "empty semantic type: 'T047,'"),
    (
        HEAD + FIRST + HEAD.replace("1|", "2|"),
        4,
        "no blank line before the next document: '2|t|Cold heart'",
    ),
    (HEAD + "\n" + FIRST, 4, "annotation before its document's title"),
    ("1|t|Cold heart\n" + FIRST, 2, "annotation before its document's abstract"),
    ("1|t|Cold heart\n", 1, "document without the line PMID|a|abstract: '1'"),
    ("1|t|Cold heart\n2|a|The cold.\n", 2, "abstract of another document: '2' after '1'"),
    ("1|a|The cold.\n1|t|Cold heart\n", 1, "expected the line PMID|t|title, found '1|a|The cold.'"),
    (b"1|t|C\xff\n1|a|b\n", 1, "not UTF-8 (byte 0xff at column 6)"),
]


@pytest.mark.parametrize(("content", "line", "what"), MALFORMED)
def test_what_is_malformed_is_left_out_and_named(tmp_path, content, line, what):
    content = content.encode() if isinstance(content, str) else content
    path = write(tmp_path / "c.txt", content.rstrip(b"\n") + b"\n\n" + SOUND.encode())
    mentions, report = read(path)
    assert {mention.doc_id for mention in mentions} >= {f"{n}" for n in range(1_000, 1_100)}
    assert report["first_malformed"][0].startswith(f"{path}:{line}: {what}")
    assert sum(report["malformed"].values()) <= 2


# As NCBI Disease and BC5CDR are published: a document that is in twice, a text with a blank after
# it, relations, a seventh field, and ids with blanks.
PUBLISHED = """
11|t|Breast and ovarian cancer in twins
11|a|APC and naloxone.
11\t0\t25\tBreast and ovarian cancer \tCompositeMention\t D001943|D010051
11\t35\t38\tAPC\tSpecificDisease\tOMIM:175100\x20
11\t29\t34\ttwins\tDisease\tD014430+D014430\ttwin|twin
11\t35\t38\tAPC\tDisease\tD011125|-1
11\t43\t51\tnaloxone\tChemical\t-1
11\tCID\tD009270\tD003000

11|t|Another text
11|a|with the same id.
11\t0\t7\tAnother\tDisease\tD000001
"""


def test_ncbi_disease_and_bc5cdr_are_read_as_they_are_published(tmp_path):
    path = write(tmp_path / "c.txt", PUBLISHED)
    mentions, report = read(path)
    assert [
        (mention.text, mention.end, mention.cuis, mention.semantic_types) for mention in mentions
    ] == [
        ("Breast and ovarian cancer", 25, (("D001943",), ("D010051",)), ()),
        ("APC", 38, (("OMIM:175100",),), ()),
        ("twins", 34, (("D014430",),), ()),
        ("APC", 38, (("D011125",), ()), ()),
        ("naloxone", 51, (), ()),
    ]
    counts = {name: count for name, count in report.items() if count}
    of_concepts = {"composite": 2, "without_concept": 1}
    assert (
        counts
        == {"format": "PubTator", "documents": 1, "repeated_documents": 1, "mentions": 5}
        | of_concepts
    )
    mentions, report = read(path, types=["Disease"])
    assert ([mention.text for mention in mentions], report["of_other_types"]) == (
        ["twins", "APC"],
        3,
    )
    assert corpus_files(tmp_path) == (path,) and read_document_ids(path) == ["11"]
    with pytest.raises(UserError, match="Chemical"):
        read(path, types=["Chemical"])


@pytest.mark.parametrize(
    ("text", "ids", "texts"),
    [
        ("breast and/or ovarian cancers", "D1|D2", ["breast cancers", "ovarian cancers"]),
        ("breast and ovarian cancers", "D1", ["breast and ovarian cancers"]),
        ("breast and ovarian cancers", "D1|D2+D3", ["breast and ovarian cancers"]),
        ("liver damage or kidney disease", "D1+D2", ["liver damage", "kidney disease"]),
        (
            "impairments in learning and memory",
            "D1|D2",
            ["impairments in learning", "impairments in memory"],
        ),
        ("Leukaemia/lymphoma", "D1|D2", ["Leukaemia", "lymphoma"]),
        ("/", "D1|D2", ["/"]),
    ],
)
def test_a_composite_mention_of_as_many_conjuncts_as_concepts_is_split(tmp_path, text, ids, texts):
    file = write(
        tmp_path / "c.txt", f"1|t|{text}\n1|a|\n1\t0\t{len(text)}\t{text}\tDisease\t{ids}\n"
    )
    mentions, report = read(file, split_composites=True)
    assert [mention.text for mention in mentions] == texts and report["mentions"] == 1
    # Each keeps all concepts, of which any is correct, and its place.
    assert len({(mention.cuis, mention.start, mention.end) for mention in mentions}) == 1
    assert [mention.text for mention in read(file)[0]] == [text]


def test_many_malformed_annotations_stop_the_reading(tmp_path):
    path = write(tmp_path / "c.txt", SOUND + HEAD + FIRST + "1\t1\t5\tCold\tT047\tC9000004\n" * 2)
    assert read(path)[1]["malformed"] == {"offsets do not match the text": 2}
    path = write(tmp_path / "c.txt", SOUND + HEAD + FIRST + "1\t1\t5\tCold\tT047\tC9000004\n" * 12)
    with pytest.raises(UserError, match="12 of 113 annotations") as error:
        read(path)
    assert [f"c.txt:{number}: " in str(error.value) for number in (404, 413, 414)] == [
        True,
        True,
        False,
    ]


def test_broken_files_are_named(tmp_path):
    packed = gzip.compress(SOUND.encode())
    for name, content in {
        "cut.gz": packed[: len(packed) // 2],
        "empty.txt": b"",
        "blank.txt": b"\n\n",
    }.items():
        with pytest.raises(UserError, match=name):
            read(write(tmp_path / name, content))


def test_document_lists(tmp_path):
    assert read_pmids(write(tmp_path / "ids.txt", "31\r\n\n 7 \n31\n")) == ["31", "7"]
    for content, named in (("1\n2 3\n", "list.txt:2"), ("\n", "list.txt")):
        with pytest.raises(UserError, match=named):
            read_pmids(write(tmp_path / "list.txt", content))


# Pieces of the format in any order, so that generated files reach deep into the reader.
PIECES = st.sampled_from(
    [
        "1",
        "2",
        "|t|",
        "|a|",
        "\t",
        "\n",
        "\n\n",
        "\r",
        "0",
        "4",
        "Cold",
        " heart",
        "T047",
        ",",
        "UMLS:",
        "C9000004",
    ]
    + [HEAD, FIRST, SECOND, "\u03bc", "\u2028", "\0"]
).map(str.encode)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pieces=st.lists(st.one_of(PIECES, st.binary(max_size=4)), max_size=25))
def test_whatever_the_input_mentions_are_true_or_it_is_a_user_error(tmp_path, pieces):
    path = write(tmp_path / "c.txt", b"".join(pieces) + b"\n\n" + SOUND.encode())
    try:
        mentions, report = read(path)
    except UserError as error:
        assert "\n" not in str(error)
        return
    text = path.read_bytes().decode(errors="replace")
    assert report["mentions"] == len(mentions)
    for mention in mentions:
        assert mention.end - mention.start == len(mention.text) > 0
        assert mention.text in text


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    title=st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=20),
    abstract=st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=40),
    data=st.data(),
)
def test_offsets_count_characters_of_title_space_abstract(tmp_path, title, abstract, data):
    text = f"{title} {abstract}"
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    if "\t" in text[start:end]:
        return
    content = f"7|t|{title}\n7|a|{abstract}\n7\t{start}\t{end}\t{text[start:end]}\tT1\tC0000001\n"
    path = write(tmp_path / "c.txt", content)
    (mention,), _ = read(path)
    assert mention.text == text[start:end]
    assert text[:start].endswith(mention.left)
    assert text[end:].startswith(mention.right)


# Abbreviations that texts define: the examples of Schwartz & Hearst, and known errors


TEN = "acute biologic care decision effort for good health in joint"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("heat shock protein (HSP) is", {"HSP": "heat shock protein"}),
        # Letters count as they are written: alpha spelled out holds no α.
        ("tumour necrosis factor alpha (TNF-α)", {}),
        ("HSP (heat shock protein) binds", {"HSP": "heat shock protein"}),
        (
            "the interferon regulatory factor 5 (IRF5; see text)",
            {"IRF5": "interferon regulatory factor 5"},
        ),
        ("first heart rate (HR), later human resources (HR)", {"HR": "heart rate"}),
        # No letter of the short form may be missing, and its first one starts a word.
        ("low back pain (XYZ)", {}),
        ("a superpath (UP)", {}),
        # The text in parentheses is not an abbreviation.
        ("in patients (n = 24) and mice (see Figure 3)", {}),
        ("(HSP) alone, and an open bracket (HSP", {}),
        # A long form may begin 1,000 characters before its parenthesis, and no earlier.
        (f"heart {'x' * 988} rate (HR)", {"HR": f"heart {'x' * 988} rate"}),
        (f"heart {'x' * 989} rate (HR)", {}),
        # Every parenthesis ends a clause, also one that is never closed.
        ("heart (some rate (HR)", {}),
        ("heart rate (a) (HR)", {}),
        # Punctuation ends a clause only where a space follows.
        ("type 1.5 diabetes.(TD)", {"TD": "type 1.5 diabetes."}),
        ("type one. diabetes (TD)", {}),
        # Any white space parts words.
        (
            "patients with\nacute myocardial\ninfarction (AMI)",
            {"AMI": "acute myocardial\ninfarction"},
        ),
        ("low\u00a0heart\u2009rate (HR)", {"HR": "heart\u2009rate"}),
        (
            "MRI (magnetic resonance imaging) (MRI)(ECG) or (none)",
            {"MRI": "magnetic resonance imaging"},
        ),
        # A short form has 2 to 10 characters in one or two words, starts with a letter or digit
        # and has a letter.
        (f"{TEN} (ABCDEFGHIJ)", {"ABCDEFGHIJ": TEN}),
        (f"{TEN} keeping (ABCDEFGHIJK)", {}),
        ("vitamin (V)", {}),
        ("Crohn disease type one (CD I)", {"CD I": "Crohn disease type one"}),
        ("Crohn disease type one (C D T)", {}),
        ("heart rate (-HR)", {}),
        ("grades 1 to 2 (12)", {}),
        ("heart rate ( HR )", {"HR": "heart rate"}),
        ("heart rate (HR,2)", {}),
        # Before its long form it has a capital after the first letter, or a digit.
        ("Use (user service element)", {}),
        ("p53 (protein of 53 kilodaltons)", {"p53": "protein of 53 kilodaltons"}),
        # The parentheses hold the long form and nothing else, in no more words than it may have.
        ("MRI (the magnetic resonance imaging)", {}),
        ("HR (heart of a very big rate)", {}),
        # A long form is longer than the short one, and does not hold it.
        ("a b (A-B)", {}),
        # Signs of the short form count for nothing; a word with a hyphen is kept whole.
        ("tumor necrosis factor (TN-F)", {"TN-F": "tumor necrosis factor"}),
        ("non-small cell (SC)", {"SC": "non-small cell"}),
        ("heart; rate (HR), heart: rate (HR), heart? rate (HR), heart! rate (HR)", {}),
    ],
)
def test_definitions(text, found):
    assert find_abbreviations(text) == found


class CountedText(str):
    """Text that counts the characters that are cut out of it."""

    read = 0

    def __getitem__(self, key):
        found = super().__getitem__(key)
        self.read += len(found)
        return found


@pytest.mark.parametrize(
    "part",
    ["(a) ", "ab (cd) ", "heat shock protein (HSP) ", "a [(", "a. (bbbbb) ", "x" * 500 + " (xx)"],
)
def test_each_character_before_a_parenthesis_is_read_once(part):
    text = CountedText(part * (20_000 // len(part)))
    find_abbreviations(text)
    assert text.read <= len(text)


CORPUS = """1|t|Heat shock protein (HSP) in mice
1|a|The HSP binds.
1\t0\t18\tHeat shock protein\tT103\tUMLS:C0018850
1\t20\t23\tHSP\tT103\tUMLS:C0018850
1\t37\t40\tHSP\tT103\tUMLS:C0018850
"""


def test_mentions_take_the_long_form_where_it_is_asked_for(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text(CORPUS)
    report = {}
    mentions = list(read_corpus([path], report, expand_abbreviations=True))
    assert [mention.text for mention in mentions] == ["Heat shock protein"] * 3
    assert [(mention.start, mention.end) for mention in mentions] == [(0, 18), (20, 23), (37, 40)]
    assert report["expanded_abbreviations"] == 2
    assert [mention.text for mention in read_corpus([path])] == ["Heat shock protein", "HSP", "HSP"]


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


def write_lines(path, *lines):
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
    retired = RetiredCuis.read(write_lines(tmp_path / "MRCUI.RRF", *LINES))
    ends = {11: 1, 12: 2, 19: 3} | dict.fromkeys((13, 15, 16, 18, 20, 21, 96))
    assert {number: retired.successor(cui(number), concepts) for number in ends} == {
        number: successor and cui(successor) for number, successor in ends.items()
    }


def mention(number, place=0):
    return Mention("1", place, place + 1, "x", "", "", ((cui(number),),), ("T047",))


def test_gold_cuis_are_replaced(tmp_path, concepts):
    retired = RetiredCuis.read(write_lines(tmp_path / "MRCUI.RRF", *LINES, line(1, "SY", 2)))
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
