import gzip

import numpy as np
import pyarrow as pa
import pytest
from data_fixtures import VOCABULARY, write_rrf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umls_reranker.core.errors import UserError
from umls_reranker.vocab.concepts import Concept, iter_concepts
from umls_reranker.vocab.rrf import (
    INVERSES,
    KINDS,
    RELATIONS,
    RelationTable,
    read_relations,
    read_release,
    read_rrf_concepts,
    read_table,
    release_files,
    write_relations,
)


def conso(cui, name, lat="ENG", ts="S", stt="PF", ispref="N", sab="MINI", suppress="N"):
    return f"{cui}|{lat}|{ts}|L1|{stt}|S1|{ispref}|A1||||{sab}|PT|x|{name}|0|{suppress}||"


def release(folder, names, types=("C0000001|T047|B2|Disease|AT1||",), definitions=None):
    folder.mkdir(exist_ok=True)
    (folder / "MRCONSO.RRF").write_text("".join(f"{line}\n" for line in names))
    (folder / "MRSTY.RRF").write_text("".join(f"{line}\n" for line in types))
    if definitions:
        (folder / "MRDEF.RRF").write_text("".join(f"{line}\n" for line in definitions))
    return folder


def read_files(folder, **options):
    return read_rrf_concepts(release_files(folder), **options)


def read(folder, **options):
    return list(iter_concepts(read_files(folder, **options)[0]))


def test_reads_the_miniature_release(tmp_path):
    table, report = read_files(write_rrf(tmp_path))
    concepts = list(iter_concepts(table))
    assert [(c.cui, (c.semantic_types[0], (c.name, *c.synonyms))) for c in concepts] == list(
        VOCABULARY.items()
    )
    assert [c.cui for c in concepts if c.definition] == ["C9000002"]
    assert concepts[1].definition == "Too much sugar in the blood."
    assert report == {
        "names_read": 88,
        "names_kept": 88,
        "dropped": {"LAT": 0, "SAB": 0, "SUPPRESS": 0},
    }


def test_the_preferred_name_follows_the_release_s_ranks(tmp_path):
    names = [
        conso("C0000001", "suppressible", ts="s", ispref="Y"),
        conso("C0000001", "variant", ts="P", stt="VO", ispref="Y"),
        conso("C0000001", "later atom", ts="P"),
        conso("C0000001", "best", ts="P", ispref="Y"),
        conso("C0000001", "synonym", ispref="Y"),
        conso("C0000001", "another synonym", ispref="Y"),
    ]
    (concept,) = read(release(tmp_path, names))
    expected = ["best", "later atom", "variant", "synonym", "another synonym", "suppressible"]
    assert [concept.name, *concept.synonyms] == expected


def test_languages_come_in_the_order_asked_for(tmp_path):
    names = [
        conso("C0000001", "Herz", "GER", ts="P", ispref="Y"),
        conso("C0000001", "heart"),
        conso("C1", "coeur", "FRE"),
    ]
    concepts = read(release(tmp_path, names), languages=("ENG", "GER"))
    assert [(c.cui, c.name, c.synonyms) for c in concepts] == [("C0000001", "heart", ("Herz",))]


def test_filters_and_what_they_dropped(tmp_path):
    names = [
        conso("C0000001", "kept", sab="A"),
        conso("C0000001", "kept", sab="A"),
        conso("C0000001", "other source", sab="B"),
        conso("C0000001", "obsolete", sab="A", suppress="O"),
        conso("C0000002", "foreign", sab="A", lat="SPA"),
    ]
    definitions = ["C0000001|A1|A|S|B|Of another source.|N||", "C0000001|A1|A|S|A|Kept.|N||"]
    folder = release(tmp_path, names, definitions=definitions)
    concepts, report = read_files(folder, sources=["A"])
    assert list(iter_concepts(concepts)) == [Concept("C0000001", "kept", (), ("T047",), "Kept.")]
    assert report == {
        "names_read": 5,
        "names_kept": 2,
        "dropped": {"LAT": 1, "SAB": 1, "SUPPRESS": 1},
    }
    with pytest.raises(UserError, match="MRCONSO.RRF"):
        read(folder, sources=["C"])


def test_types_and_the_first_definition_of_each_concept(tmp_path):
    lines = [("C0000001", "first"), ("C0000001", "second"), ("C0000002", "only"), ("C9", "strange")]
    definitions = [f"{cui}|A1|A|S|MINI|{text}|N||" for cui, text in lines]
    types = [
        f"{cui}|{tui}|B|D|A||"
        for cui in ("C0000002", "C7", "C0000001")
        for tui in ("T047", "T023", "T047")
    ]
    names = [conso(cui, cui.lower()) for cui in ("C0000001", "C0000002", "C0000003")]
    concepts = read(release(tmp_path, names, types, definitions))
    assert [c.definition for c in concepts] == ["first", "only", ""]
    assert [c.semantic_types for c in concepts] == [("T047", "T023"), ("T047", "T023"), ()]


def test_unsorted_files_give_the_same_concepts(tmp_path):
    folder = write_rrf(tmp_path)
    expected = read(folder)
    for name in ("MRCONSO.RRF", "MRSTY.RRF"):
        lines = (folder / name).read_text().splitlines(keepends=True)
        # Reversed by concept, so that the order within a concept stays.
        (folder / name).write_text("".join(sorted(lines, key=lambda line: line[:8], reverse=True)))
    assert read(folder) == expected


def test_gzip_line_ends_quotes_and_byte_order_mark(tmp_path):
    folder = release(tmp_path, [conso("C0000001", '"the" cold"'), conso("C0000001", "\u03b2 'x\\")])
    content = b"\xef\xbb\xbf" + (folder / "MRCONSO.RRF").read_bytes().replace(b"\n", b"\r\n")
    (folder / "MRCONSO.RRF").unlink()
    (folder / "MRCONSO.RRF.gz").write_bytes(gzip.compress(content))
    (concept,) = read(folder)
    assert (concept.cui, concept.name, concept.synonyms) == (
        "C0000001",
        '"the" cold"',
        ("\u03b2 'x\\",),
    )


GOOD = conso("C0000001", "good").encode()
MALFORMED = [
    conso("C0000002", "x|y").encode(),
    conso("C0000002", "x").encode()[:-1],
    conso("", "x").encode(),
    conso("C0000002", "").encode(),
    conso("C0000002", "caf").encode().replace(b"caf", b"caf\xe9"),
]


@pytest.mark.parametrize("line", MALFORMED)
@pytest.mark.parametrize("block_bytes", [200, 4 << 20])
def test_the_first_malformed_line_is_named(tmp_path, line, block_bytes):
    folder = release(tmp_path, [])
    (folder / "MRCONSO.RRF").write_bytes((GOOD + b"\n") * 20 + b"\n" + line + b"\n" + GOOD + b"\n")
    with pytest.raises(UserError, match="MRCONSO.RRF:22: "):
        list(read_table("MRCONSO", folder / "MRCONSO.RRF", ["CUI"], block_bytes))


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(UserError, match="MRCONSO.RRF"):
        read(tmp_path)
    folder = write_rrf(tmp_path / "META")
    with pytest.raises(UserError, match="did you mean .*META"):
        read(tmp_path)
    (folder / "MRCONSO.RRF").write_bytes(gzip.compress((folder / "MRCONSO.RRF").read_bytes())[:500])
    with pytest.raises(UserError, match="MRCONSO.RRF"):
        read(folder)


PIECES = st.sampled_from(
    [GOOD, conso("C0000002", "x").encode(), b"|", b"\n", b"\r\n", b"C0000003", b"ENG", b'"', b"\0"]
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pieces=st.lists(st.one_of(PIECES, st.binary(max_size=4)), min_size=1, max_size=12))
def test_whatever_the_input_it_is_concepts_or_a_user_error(tmp_path, pieces):
    folder = release(tmp_path, [])
    (folder / "MRCONSO.RRF").write_bytes(b"".join(pieces))
    try:
        concepts = read(folder)
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert concepts == sorted(concepts, key=lambda concept: concept.cui)
    assert all(
        one.cui and one.name and len(set(one.synonyms)) == len(one.synonyms) for one in concepts
    )


def test_files_of_a_release_and_its_name(tmp_path):
    folder = write_rrf(tmp_path / "META")
    for name in ("MRREL.RRF.gz", "MRCUI.RRF", "MRCUI.RRF.gz"):
        (folder / name).touch()
    assert read_release(release_files(folder)) == {}
    (tmp_path / "release.dat").write_text(
        "# x\numls.release.date=20210503\numls.release.name=2021AA\n"
    )
    files = release_files(folder, unused=["MRDEF"])
    expected = ["MRCONSO.RRF", "MRSTY.RRF", "MRREL.RRF.gz", "MRCUI.RRF", "release.dat"]
    assert [path.name for path in files.values()] == expected
    assert read_release(files) == {"date": "20210503", "name": "2021AA"}


def test_codes_of_a_source_are_ids_with_the_names_types_and_definitions_of_their_cuis(tmp_path):
    def atom(cui, code, name, kind="ET", sab="MSH", ts="S"):
        return f"{cui}|ENG|{ts}|L1|PF|S1|Y|A1||||{sab}|{kind}|{code}|{name}|0|N||"

    names = [
        atom("C0000002", "D2", "narrower", ts="P"),
        atom("C0000001", "D2", "heading", "MH"),
        atom("C0000001", "C5", "same cui", "NM"),
        atom("C0000001", "D2", "of another source", "PT", "SNOMEDCT_US", "P"),
        atom("C0000003", "D3", "of another source", "PT", "SNOMEDCT_US", "P"),
    ]
    types = [
        f"C000000{number}|{kind}|B2|x|AT1||"
        for number, kind in ((2, "T046"), (1, "T047"), (2, "T047"))
    ]
    definitions = [f"C0000002|A1|AT1||{sab}|Of {sab}.|N||" for sab in ("NCI", "MSH")]
    files = release(tmp_path, names, types, definitions)
    expected = [
        Concept("C5", "same cui", (), ("T047",), "", ("C0000001",)),
        Concept(
            "D2", "heading", ("narrower",), ("T046", "T047"), "Of MSH.", ("C0000002", "C0000001")
        ),
    ]
    for sources in ((), ("MSH",)):
        assert read(files, identifiers="MSH", sources=sources) == expected


CUIS = [f"C{number:07d}" for number in range(10, 16)]


def line(one, kind, two, suppress="N"):
    return f"{one}|A1|AUI|{kind}|{two}|A2|AUI||R1||MINI|MINI|||{suppress}||"


def write(path, *lines):
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    return path


def build(folder, *triples, **settings):
    path = write(folder / "MRREL.RRF.gz", *(line(*triple) for triple in triples))
    count = write_relations(read_relations(path, **settings), pa.array(CUIS), folder)
    table = RelationTable.load(folder)
    assert len(table) == count
    return table


def test_siblings_suppressed_lines_and_concepts_outside_are_left_out(tmp_path):
    triples = [
        (CUIS[0], "PAR", CUIS[1]),
        (CUIS[0], "SIB", CUIS[2]),
        (CUIS[0], "PAR", CUIS[3], "O"),
        (CUIS[0], "SY", CUIS[0]),
        (CUIS[0], "PAR", "C9999999"),
        ("CL1", "PAR", CUIS[4]),
    ]
    rows = np.arange(6)
    table = build(tmp_path, *triples)
    assert len(table) == 2
    assert np.argwhere(table.related(rows[:, None], rows, "parent")).tolist() == [[0, 1]]
    assert np.argwhere(table.related(rows[:, None], rows, "child")).tolist() == [[1, 0]]


TRIPLES = st.tuples(
    st.sampled_from([*CUIS, "C9999999", "X"]),
    st.sampled_from([*RELATIONS, "SIB", "RO"]),
    st.sampled_from(CUIS),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    triples=st.lists(TRIPLES, min_size=1, max_size=12),
    pairs_at_once=st.sampled_from([2, 4_000_000]),
)
def test_the_table_says_what_the_file_says(tmp_path, triples, pairs_at_once):
    table = build(tmp_path, *triples, pairs=pairs_at_once)
    inside = [triple for triple in triples if triple[0] in CUIS and triple[0] != triple[2]]
    known = {(a, RELATIONS[name], b) for a, name, b in inside if name in RELATIONS}
    known |= {(b, INVERSES[kind], a) for a, kind, b in known}
    ids = [*CUIS, None]
    rows = np.array([*range(len(CUIS)), -1])
    for kind in KINDS:
        expected = [[(a, kind, b) in known for b in ids] for a in ids]
        assert table.related(rows[:, None], rows, kind).tolist() == expected
