"""Any bytes given to the PubTator reader yield true mentions, or one line that names the fault."""

import gzip
from collections import Counter

from data_fixtures import write_pubtator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umls_reranker.core.errors import UserError
from umls_reranker.core.lines import GZIP_MAGIC
from umls_reranker.data.corpus import read_pmids
from umls_reranker.data.pubtator import PubTator

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CONTEXT = 7


def read(path, content, on_error):
    """Mentions and report, or None where the reader refuses the input in one line."""
    path.write_bytes(content)
    corpus = PubTator().read(path, on_error=on_error, context_chars=CONTEXT)
    try:
        return list(corpus), corpus.report
    except UserError as error:
        assert "\n" not in str(error)
        assert str(path) in str(error)
        return None


def texts_of(content):
    """Document id -> the texts it may have, by a reader of our own that knows well-formed title and abstract only."""
    texts = {}
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for title, abstract in zip(lines, lines[1:], strict=False):
        head, kind, text = (*title.rstrip(b"\r").split(b"|", 2), b"", b"")[:3]
        abstract_head, abstract_kind, rest = (*abstract.rstrip(b"\r").split(b"|", 2), b"", b"")[:3]
        if (kind, abstract_kind) == (b"t", b"a") and head == abstract_head:
            try:
                texts.setdefault(head.decode(), []).append(f"{text.decode()} {rest.decode()}")
            except UnicodeDecodeError:
                continue
    return texts


def check(content, mentions, report, on_error):
    texts = texts_of(content)
    for mention in mentions:
        assert any(text[mention.start : mention.end] == mention.text for text in texts[mention.doc_id])
        assert mention.end - mention.start == len(mention.text)
        around = f"{mention.left}{mention.text}{mention.right}"
        assert any(around in text for text in texts[mention.doc_id])
        assert max(len(mention.left), len(mention.right)) <= CONTEXT
        assert len(mention.cui) == 8 and all(mention.semantic_types)
    assert report["mentions"] == len(mentions)
    assert report["documents"] >= len({mention.doc_id for mention in mentions})
    # Every line that is not blank is a title, an abstract, a mention, or counted as skipped.
    lines = [line for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
    assert 2 * report["documents"] + report["mentions"] + report["skipped"] == len(lines)
    assert report["skipped"] == 0 or on_error == "skip"


def corpus(tmp_path):
    return write_pubtator(tmp_path / "good.txt").read_bytes()


@QUICK
@given(content=st.binary(max_size=200), skip=st.booleans())
def test_any_bytes(tmp_path, content, skip):
    on_error = "skip" if skip else "stop"
    outcome = read(tmp_path / "c.txt", content, on_error)
    if outcome is not None and not content.startswith(GZIP_MAGIC):
        check(content, *outcome, on_error)


BYTES = st.sampled_from([b"\t", b"\n", b"\n\n", b"|", b"\r", b"0", b"9", b" ", b",", b"\xff", b"\xce", b"\0", b""])
EDITS = st.lists(
    st.tuples(st.integers(0, 10**6), st.integers(0, 12), st.one_of(BYTES, st.binary(max_size=3))),
    min_size=1,
    max_size=6,
)


@QUICK
@given(edits=EDITS, skip=st.booleans())
def test_a_damaged_corpus(tmp_path, edits, skip):
    """Pieces of a good corpus are cut out, overwritten, or pushed apart."""
    content = corpus(tmp_path)
    for place, length, replacement in edits:
        start = place % (len(content) + 1)
        content = content[:start] + replacement + content[start + length :]
    on_error = "skip" if skip else "stop"
    outcome = read(tmp_path / "c.txt", content, on_error)
    if outcome is not None:
        check(content, *outcome, on_error)
    elif skip:
        # With skip only a file without any document is refused, or one that its first bytes call gzip.
        assert b"|t|" not in content or content.startswith(GZIP_MAGIC)


FIELDS = st.one_of(
    st.integers(-2, 40).map(lambda step: lambda field: str(int(field) + step) if field.isdigit() else field),
    st.sampled_from([str.swapcase, str.strip, lambda field: field + " ", lambda field: field[:-1], lambda field: ""]),
    st.sampled_from(["900", "905", "C0000001", "UMLS:C1", "T047,", "\u0660", "1_0"]).map(
        lambda new: lambda field: new
    ),
)


@QUICK
@given(changes=st.lists(st.tuples(st.integers(0, 59), st.integers(0, 5), FIELDS), min_size=1, max_size=8))
def test_annotations_that_are_a_little_wrong(tmp_path, changes):
    lines = corpus(tmp_path).decode().split("\n")
    annotations = [place for place, line in enumerate(lines) if "\t" in line]
    for number, field, change in changes:
        fields = lines[annotations[number]].split("\t")
        fields[field] = change(fields[field])
        lines[annotations[number]] = "\t".join(fields)
    content = "\n".join(lines).encode()
    mentions, report = read(tmp_path / "c.txt", content, "skip")
    check(content, mentions, report, "skip")
    assert report["documents"] == 20 and report["mentions"] + report["skipped"] == 60


@QUICK
@given(data=st.data())
def test_lines_that_are_dropped_repeated_or_shuffled(tmp_path, data):
    lines = corpus(tmp_path).splitlines(keepends=True)[:24]
    shuffled = data.draw(st.lists(st.sampled_from(lines), max_size=30) | st.permutations(lines))
    content = b"".join(shuffled)
    outcome = read(tmp_path / "c.txt", content, "skip")
    if outcome is not None:
        check(content, *outcome, "skip")
        assert Counter(mention.doc_id for mention in outcome[0]).keys() <= {"900", "901", "902", "903", "904"}


@QUICK
@given(cut=st.integers(0, 10**6), flip=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_damaged_gzip_corpus(tmp_path, cut, flip, value):
    packed = bytearray(gzip.compress(corpus(tmp_path)))
    packed[2 + flip % (len(packed) - 2)] = value
    packed = bytes(packed[: 2 + cut % len(packed)])
    read(tmp_path / "c.gz", packed, "skip")


@QUICK
@given(content=st.binary(max_size=60))
def test_any_list_of_documents(tmp_path, content):
    path = tmp_path / "ids.txt"
    path.write_bytes(content)
    try:
        ids = read_pmids(path)
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert ids and len(set(ids)) == len(ids)
    assert all(len(one.split()) == 1 for one in ids)
