import gzip

import pytest
from data_fixtures import write_pubtator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umls_reranker.core.errors import UserError
from umls_reranker.data.corpus import Mention, read_pmids
from umls_reranker.data.pubtator import PubTator

REST = {"format": "PubTator", "without_cui": 0, "discontinuous": 0, "further_cuis": 0}
HEAD = "1|t|Cold heart\n1|a|The cold.\n"
FIRST = "1\t0\t4\tCold\tT047\tUMLS:C9000004\n"
SECOND = "1\t15\t19\tcold\tT047,T184\tC9000004\n"


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_reads_both_styles_of_annotation(tmp_path):
    mentions = list(PubTator().read(write(tmp_path / "c.txt", HEAD + FIRST + SECOND)))
    assert mentions == [
        Mention("1", 0, 4, "Cold", "", " heart The cold.", "C9000004", ("T047",)),
        Mention("1", 15, 19, "cold", "Cold heart The ", ".", "C9000004", ("T047", "T184")),
    ]


def test_reads_the_whole_corpus_plain_and_gzip(tmp_path):
    plain = write_pubtator(tmp_path / "corpus.txt")
    corpus = PubTator().read(plain)
    mentions = list(corpus)
    assert corpus.report == {
        "documents": 20,
        "expanded_abbreviations": 0,
        "mentions": 60,
        **REST,
        "skipped": 0,
        "reasons": {},
    }
    packed = write(tmp_path / "corpus.txt.gz", gzip.compress(plain.read_bytes()))
    assert list(PubTator().read(packed)) == mentions
    assert [m.semantic_types for m in mentions if m.text == "moon dust"] == [("UnknownType",)]


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    content = b"\xef\xbb\xbf" + (HEAD + FIRST).replace("\n", "\r\n").encode()
    assert [m.doc_id for m in PubTator().read(write(tmp_path / "c.txt", content))] == ["1"]


def test_line_separators_inside_the_text_are_characters(tmp_path):
    content = "1|t|a\u2028b\n1|a|c\x0cd\n1\t4\t7\tc\x0cd\tT1\tC0000001\n"
    assert [m.text for m in PubTator().read(write(tmp_path / "c.txt", content))] == ["c\x0cd"]


@pytest.mark.parametrize(
    ("size", "left", "right"),
    [
        (0, "", ""),
        (2, "", ""),
        (3, "cd ", " ef"),
        (4, "cd ", " ef"),
        (5, "cd ", " ef"),
        (6, "ab cd ", " ef gh"),
        (100, "ab cd ", " ef gh"),
    ],
)
def test_context_has_no_half_words_at_its_outer_ends(tmp_path, size, left, right):
    content = "1|t|ab cd\n1|a|xyz ef gh\n1\t6\t9\txyz\tT1\tC0000001\n"
    (mention,) = PubTator().read(write(tmp_path / "c.txt", content), context_chars=size)
    assert (mention.left, mention.right) == (left, right)


MALFORMED = [
    (HEAD + "1\t0\t4\tCold\tT047\n", 3, "expected 6 tab-separated fields, found 5"),
    (HEAD + FIRST + "1\t15\t1", 4, "expected 6 tab-separated fields, found 3"),
    (HEAD + FIRST[:-1] + "\tmore\n", 3, "expected 6 tab-separated fields, found 7"),
    (HEAD + "2\t0\t4\tCold\tT047\tC9000004\n", 3, "annotation of another document: '2' inside '1'"),
    (HEAD + "1\t0\t5\tCold\tT047\tC9000004\n", 3, "offsets do not match the text: 0-5 is 'Cold ', not 'Cold'"),
    (HEAD + "1\t0\t99\tCold\tT047\tC9000004\n", 3, "offsets outside the document: 0-99 in 20 characters"),
    (HEAD + "1\t4\t4\t\tT047\tC9000004\n", 3, "offsets outside the document: 4-4"),
    (HEAD + "1\t-4\t4\tCold\tT047\tC9000004\n", 3, "offsets are not integers: '-4', '4'"),
    (HEAD + "1\t0\t" + "9" * 5000 + "\tCold\tT047\tC9000004\n", 3, "offsets are not integers"),
    (HEAD + "1\t0\t4\tCold\tT047\tMESH:D003\n", 3, "not a CUI: 'MESH:D003'"),
    (HEAD + "1\t0\t4\tCold\tT047,\tC9000004\n", 3, "empty semantic type: 'T047,'"),
    (HEAD + FIRST + HEAD.replace("1|", "2|"), 4, "no blank line before the next document: '2|t|Cold heart'"),
    (HEAD + "\n" + FIRST, 4, "annotation before its document's title"),
    ("1|t|Cold heart\n" + FIRST, 2, "annotation before its document's abstract"),
    (FIRST + HEAD, 1, "annotation before its document's title"),
    ("1|t|Cold heart\n", 1, "document without the line PMID|a|abstract: '1'"),
    ("1|t|Cold heart\n2|a|The cold.\n", 2, "abstract of another document: '2' after '1'"),
    ("1|a|The cold.\n1|t|Cold heart\n", 1, "expected the line PMID|t|title, found '1|a|The cold.'"),
    ("PMID,title\n", 1, "expected the line PMID|t|title, found 'PMID,title'"),
    (HEAD + "\n" + HEAD, 4, "duplicate document: '1'"),
    (b"1|t|C\xff\n1|a|b\n", 1, "not UTF-8 (byte 0xff at column 6)"),
    (HEAD.encode() + b"1\t0\t4\tCol\xe9\tT047\tC9000004\n", 3, "not UTF-8 (byte 0xe9 at column 10)"),
]


@pytest.mark.parametrize(("content", "line", "what"), MALFORMED)
def test_a_malformed_line_is_named(tmp_path, content, line, what):
    path = write(tmp_path / "c.txt", content)
    with pytest.raises(UserError) as error:
        list(PubTator().read(path))
    assert str(error.value).startswith(f"{path}:{line}: {what}")
    assert "\n" not in str(error.value)


def test_malformed_lines_are_skipped_and_counted(tmp_path):
    content = (
        HEAD.encode()
        + b"1\t0\t4\tCold\tT047\n"
        + b"1\t0\t4\tC\xff\xffd\tT047\tC9000004\n"
        + SECOND.encode()
        + b"\n2|t|No abstract\n2\t0\t2\tNo\tT1\tC0000001\n2\t3\t4\ta\tT1\tC0000001\n"
        + b"\n3|t|Fine\n3|a|\n3\t0\t4\tFine\tT1\tC0000001\n"
    )
    corpus = PubTator().read(write(tmp_path / "c.txt", content), on_error="skip")
    mentions = list(corpus)
    assert [(m.doc_id, m.text) for m in mentions] == [("1", "cold"), ("3", "Fine")]
    assert corpus.report == {
        "documents": 2,
        "expanded_abbreviations": 0,
        "mentions": 2,
        **REST,
        "skipped": 5,
        "reasons": {
            "annotation before its document's abstract": 3,
            "expected 6 tab-separated fields": 1,
            "not UTF-8": 1,
        },
    }


def test_broken_files_are_named_even_when_skipping(tmp_path):
    packed = gzip.compress(b"".join(b"%d|t|Cold heart\n%d|a|The cold.\n\n" % (n, n) for n in range(5000)))
    cases = {
        write(tmp_path / "cut.gz", packed[: len(packed) // 2]): r"cut.gz: the gzip stream is truncated",
        write(tmp_path / "bad.gz", packed[:-8] + b"\0" * 8): r"bad.gz: the gzip stream is truncated or corrupt",
        write(tmp_path / "mid.gz", packed[:200] + b"\xff" * 20 + packed[220:]): r"mid.gz: the gzip stream",
        write(tmp_path / "empty.txt", ""): "empty.txt is empty",
        write(tmp_path / "empty.gz", gzip.compress(b"")): "empty.gz contains no documents",
        write(tmp_path / "blank.txt", "\n\n"): "blank.txt contains no documents",
        tmp_path / "absent.txt": "absent.txt does not exist",
        tmp_path: "cannot be read",
    }
    for path, message in cases.items():
        with pytest.raises(UserError, match=message):
            list(PubTator().read(path, on_error="skip"))


def test_an_unknown_policy_is_refused(tmp_path):
    with pytest.raises(ValueError, match="on_error must be 'stop' or 'skip', not 'ignore'"):
        list(PubTator().read(write_pubtator(tmp_path / "c.txt"), on_error="ignore"))


def test_document_lists(tmp_path):
    assert read_pmids(write(tmp_path / "ids.txt", "31\r\n\n 7 \n31\n")) == ["31", "7"]
    with pytest.raises(UserError, match=r"two.txt:2: expected one document id per line, found 2 words"):
        read_pmids(write(tmp_path / "two.txt", "1\n2 3\n"))
    with pytest.raises(UserError, match="blank.txt contains no document ids"):
        read_pmids(write(tmp_path / "blank.txt", "\n"))


# Pieces of the format in any order, so that generated files reach deep into the reader.
PIECES = st.sampled_from(
    ["1", "2", "|t|", "|a|", "\t", "\n", "\n\n", "\r", "0", "4", "Cold", " heart", "T047", ",", "UMLS:", "C9000004"]
    + [HEAD, FIRST, SECOND, "\u03bc", "\u2028", "\0"]
).map(str.encode)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.one_of(PIECES, st.binary(max_size=4)), max_size=25), skip=st.booleans())
def test_whatever_the_input_mentions_are_true_or_it_is_a_user_error(tmp_path, pieces, skip):
    path = write(tmp_path / "c.txt", b"".join(pieces))
    corpus = PubTator().read(path, on_error="skip" if skip else "stop", context_chars=5)
    try:
        mentions = list(corpus)
    except UserError as error:
        assert "\n" not in str(error)
        return
    text = b"".join(pieces).decode(errors="replace")
    assert corpus.report["mentions"] == len(mentions)
    for mention in mentions:
        assert mention.end - mention.start == len(mention.text) > 0
        assert max(len(mention.left), len(mention.right)) <= 5
        assert mention.text in text


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    title=st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=20),
    abstract=st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=40),
    data=st.data(),
)
def test_offsets_count_characters_of_title_space_abstract(tmp_path, title, abstract, data):
    text = f"{title} {abstract}"
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    size = data.draw(st.integers(0, 30))
    if "\t" in text[start:end]:
        return
    content = f"7|t|{title}\n7|a|{abstract}\n7\t{start}\t{end}\t{text[start:end]}\tT1\tC0000001\n"
    path = write(tmp_path / "c.txt", content)
    (mention,) = PubTator().read(path, context_chars=size)
    assert mention.text == text[start:end]
    assert text[:start].endswith(mention.left) and len(mention.left) <= size
    assert text[end:].startswith(mention.right) and len(mention.right) <= size
